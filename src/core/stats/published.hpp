// SPDX-License-Identifier: PostgreSQL
//
// A value in shared memory that one process publishes and others copy as a whole.
//
// A sequence lock: the writer makes `version` odd, writes, and makes it even again;
// a reader that sees an odd version, or another one after its copy than before,
// tries again.  Readers never hold up the writer, and nobody can die holding
// anything: an odd version left behind by a writer that was killed is passed over
// by the next one.  Every word is read and written atomically, so that a torn copy
// is thrown away and never undefined.
//
// Memory order: the writer's release fence keeps the words from becoming visible
// before the odd version, its release store from becoming visible after the even
// one; the reader's acquire load keeps its copy from starting early, its acquire
// fence the second look at the version from moving ahead of the copy.

#ifndef SLUICE_CORE_STATS_PUBLISHED_HPP
#define SLUICE_CORE_STATS_PUBLISHED_HPP

#include <atomic>
#include <cstdint>

#include "core/stats/shared_record.hpp"

namespace sluice {

template <typename T>
struct Published {
  static constexpr int kAttempts = 10000;

  std::atomic<std::uint32_t> version;  // 0 = nothing has been published
  SharedRecord<T> record;

  // One process at a time.
  void publish(const T &value) noexcept {
    const std::uint32_t odd = version.load(std::memory_order_relaxed) | 1u;
    version.store(odd, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_release);
    record.store(value);
    version.store(odd + 1 == 0 ? 2 : odd + 1, std::memory_order_release);
  }

  // False, and `value` as it was, if nothing has been published, or if no whole copy
  // could be had in a great number of tries (the writer stopped in the middle).
  bool read(T &value) const noexcept {
    for (int attempt = 0; attempt < kAttempts; attempt++) {
      const std::uint32_t before = version.load(std::memory_order_acquire);
      if (before == 0) {
        return false;
      }
      T copy;
      record.load(copy);
      std::atomic_thread_fence(std::memory_order_acquire);
      if (before % 2 == 0 && version.load(std::memory_order_relaxed) == before) {
        value = copy;
        return true;
      }
    }
    return false;
  }
};

}  // namespace sluice

#endif
