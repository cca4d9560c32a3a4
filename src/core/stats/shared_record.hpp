// SPDX-License-Identifier: PostgreSQL
//
// A record that one process writes while others may be reading it.
//
// Copying a plain struct that somebody else changes is a data race, whatever a
// version beside it says afterwards.  Copied word by word through relaxed atomics
// it is none: a reader may get a mixture of two records, and the version tells.
// On the machines PostgreSQL runs on the words cost what plain ones do.
//
// The order against the version is the business of whoever has the version:
//   writer  version odd; release fence; store(); version even, release
//   reader  version, acquire; load(); acquire fence; version the same?

#ifndef SLUICE_CORE_STATS_SHARED_RECORD_HPP
#define SLUICE_CORE_STATS_SHARED_RECORD_HPP

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace sluice {

template <class Record>
class SharedRecord {
 public:
  void store(const Record &record) noexcept {
    std::uint64_t words[kWords];
    std::memcpy(words, &record, sizeof(record));
    for (std::size_t i = 0; i < kWords; i++) {
      words_[i].store(words[i], std::memory_order_relaxed);
    }
  }

  void load(Record &record) const noexcept {
    std::uint64_t words[kWords];
    for (std::size_t i = 0; i < kWords; i++) {
      words[i] = words_[i].load(std::memory_order_relaxed);
    }
    std::memcpy(static_cast<void *>(&record), words, sizeof(record));
  }

 private:
  static constexpr std::size_t kWords = sizeof(Record) / sizeof(std::uint64_t);
  static_assert(sizeof(Record) % sizeof(std::uint64_t) == 0);
  static_assert(std::is_trivially_copyable_v<Record>);

  std::atomic<std::uint64_t> words_[kWords];
};

}  // namespace sluice

#endif
