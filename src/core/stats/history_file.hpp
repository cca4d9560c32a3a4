// SPDX-License-Identifier: PostgreSQL
//
// The history as bytes: how it outlives a restart of the server.
//
//   header | for each ring: its record, its samples, oldest first | CRC-32C of all that
//
// In the byte order and the layout of this machine: the file never leaves the data
// directory, and a reader that finds anything else than what it would write itself
// ignores all of it.  Both directions work in pieces of any size, so that neither
// needs memory for a whole history, which may have gigabytes.
//
// A reader puts what it reads into rings as it goes; whether the checksum is right
// it knows at the end only.  If it fails, the caller forgets everything
// (forget_history()); nobody looks at the rings before.

#ifndef SLUICE_CORE_STATS_HISTORY_FILE_HPP
#define SLUICE_CORE_STATS_HISTORY_FILE_HPP

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "core/pool/shared_state.hpp"
#include "core/stats/history_ring.hpp"

namespace sluice {

constexpr std::uint64_t kHistoryMagic = 0x5453494843554c53;  // "SLUCHIST"
constexpr std::uint32_t kHistoryFormat = 1;

struct HistoryFileHeader {
  std::uint64_t magic = kHistoryMagic;
  std::uint64_t bytes = 0;  // of the whole file
  std::uint32_t format = kHistoryFormat;
  std::uint32_t server_major = 0;
  std::uint32_t sample_bytes = sizeof(HistorySample);
  std::uint32_t rings = 0;
};
static_assert(sizeof(HistoryFileHeader) == 32 && std::is_trivially_copyable_v<HistoryFileHeader>);

struct HistoryFileRing {
  HistoryOwner owner;
  std::uint64_t samples = 0;
  std::int64_t last_at = 0;
};
static_assert(sizeof(HistoryFileRing) == sizeof(HistoryOwner) + 16 && std::is_trivially_copyable_v<HistoryFileRing>);

enum class HistoryFileError : std::uint32_t {
  none = 0,
  truncated,
  not_a_history,
  other_format,
  other_server,
  other_length,
  wrong_checksum,
  impossible_content,
};

// A whole sentence, for a DETAIL.
const char *describe(HistoryFileError error) noexcept;

// CRC-32C (Castagnoli) of more bytes; start with 0.
std::uint32_t extend_crc32c(std::uint32_t crc, const std::byte *bytes, std::size_t size) noexcept;

// Produces the file.  While nobody writes to the rings.
class HistoryEncoder {
 public:
  static constexpr std::size_t kSmallestBuffer = 256;

  HistoryEncoder(const SharedState &state, std::uint32_t server_major) noexcept;
  // Rings that have samples.  Without any there is no use for a file.
  std::uint32_t rings() const noexcept { return header_.rings; }
  // Fills `buffer` (kSmallestBuffer at least) from its beginning; how much, 0 at the end.
  std::size_t next(std::byte *buffer, std::size_t size) noexcept;

 private:
  enum class Phase { header, ring, samples, checksum, end };
  std::size_t put(std::byte *buffer, const void *what, std::size_t size) noexcept;
  std::size_t put_ring(std::byte *buffer) noexcept;
  std::size_t put_samples(std::byte *buffer, std::size_t size) noexcept;

  const SharedState &state_;
  HistoryFileHeader header_;
  Phase phase_ = Phase::header;
  std::uint32_t ring_ = 0;  // under way, or the next to look at
  SampleRange range_;       // of its samples, what is left
  std::uint32_t crc_ = 0;
};

// Takes the file in and fills the rings with what fits: of each the latest samples,
// and if there are more than rings, the ones with the latest end.
class HistoryDecoder {
 public:
  HistoryDecoder(SharedState &state, std::uint32_t server_major, std::uint64_t file_bytes) noexcept;
  // The next bytes of the file; anything but `none` is final.
  HistoryFileError feed(const std::byte *bytes, std::size_t size) noexcept;
  // After the last byte.
  HistoryFileError finish() const noexcept;

 private:
  enum class Phase { header, ring, sample, checksum, end };
  std::size_t wanted() const noexcept;
  HistoryFileError take_record() noexcept;
  HistoryFileError take_header() noexcept;
  HistoryFileError take_ring() noexcept;
  HistoryFileError take_sample() noexcept;
  void choose_phase() noexcept;

  SharedState &state_;
  std::uint32_t server_major_;
  std::uint64_t file_bytes_;
  std::uint64_t left_bytes_;  // of the file, not taken yet
  HistoryFileError error_ = HistoryFileError::none;
  Phase phase_ = Phase::header;
  std::uint32_t rings_left_ = 0;
  std::uint64_t samples_left_ = 0;  // of the ring under way
  HistoryRing *ring_ = nullptr;     // nullptr: there is no room for it
  std::uint32_t crc_ = 0;
  std::size_t staged_bytes_ = 0;
  std::byte staged_[sizeof(HistoryFileRing)];
};
static_assert(sizeof(HistoryFileRing) >= sizeof(HistorySample));

// Empties all rings.  While nobody looks at them.
void forget_history(SharedState &state) noexcept;

}  // namespace sluice

#endif
