// SPDX-License-Identifier: PostgreSQL
//
// One sample for each second and pool, for the last so many seconds.
//
// A ring belongs to a database and a role, not to the slot of a pool: it outlives
// the pool, and the server if it is saved (core/stats/history_file.hpp).  There are
// as many rings as there may be pools; when all are taken, the one that has gone
// longest without a sample is given away.
//
// One writer, the statistician; any number of readers, without a lock.
//
//   Race: a sample is overwritten while it is read.  Answer: samples are numbered,
//   and each place in the ring carries the number of what it holds, odd while it
//   changes; a reader looks before and after, and leaves out what is not the
//   sample it came for.
//
//   Race: the ring is given away while it is read.  Answer: the version of the
//   owner, odd while it changes, looked at before and after.  Numbers go on from
//   owner to owner, so that an old sample is nobody else's.
//
// Whatever is read under a version is kept in atomic words, accessed relaxed
// between two fences.

#ifndef SLUICE_CORE_STATS_HISTORY_RING_HPP
#define SLUICE_CORE_STATS_HISTORY_RING_HPP

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "core/stats/histogram.hpp"
#include "core/stats/shared_record.hpp"

namespace sluice {

constexpr std::size_t kHistoryNameLength = 64;  // NAMEDATALEN, asserted in src/pg/shared_memory.cpp
constexpr std::uint32_t kUnknownTime = 0xffffffff;  // of a HistorySample: nothing was timed
constexpr float kUnknownMean = -1.0f;               // likewise

// What happened in one pool in one second.  Counts stop at the greatest number
// their type holds.
struct HistorySample {
  std::int64_t at = 0;  // TimestampTz of its end
  float length_s = 0;   // its real length: about 1, unless the statistician was late or away
  std::uint32_t transactions = 0;
  std::uint32_t leases = 0;
  std::uint32_t waits = 0;  // of these, those that went through the wait queue
  std::uint32_t statements = 0;
  std::uint32_t acquire_timeouts = 0;
  std::uint32_t starts = 0;
  std::uint32_t retirements = 0;
  std::uint32_t clients_lost = 0;
  std::uint32_t wait_p50_us = kUnknownTime;  // over all leases; kUnknownTime if none was timed
  std::uint32_t wait_p99_us = kUnknownTime;
  std::uint32_t wait_max_us = kUnknownTime;  // off by at most 3 percent, as the others
  std::uint32_t clients = 0;                 // at the end of the second, as all without "peak"
  std::uint32_t waiting = 0;
  std::uint32_t peak_waiting = 0;
  std::uint16_t backends = 0;
  std::uint16_t starting = 0;
  std::uint16_t max_size = 0;
  std::uint16_t peak_in_use = 0;
  std::uint16_t in_transaction = 0;
  std::uint16_t pinned = 0;
  float active = kUnknownMean;    // mean number of backends executing
  float thinking = kUnknownMean;  // mean number of backends whose client thinks inside a transaction
  float blocks_per_transaction = kUnknownMean;
  float wal_records_per_transaction = kUnknownMean;

  double transactions_per_second() const noexcept;
  // Negative if nothing was executed.
  double statements_per_transaction() const noexcept;
};
static_assert(sizeof(HistorySample) == 96 && std::is_trivially_copyable_v<HistorySample>);

struct HistorySlot {
  std::atomic<std::uint64_t> version;  // of sample n: 2n + 1 while it is written, 2n + 2 afterwards
  SharedRecord<HistorySample> sample;
};

struct HistoryOwner {
  std::uint32_t database_oid = 0;
  std::uint32_t role_oid = 0;
  char database[kHistoryNameLength] = {};
  char role[kHistoryNameLength] = {};

  bool is(std::uint32_t database_number, std::uint32_t role_number) const noexcept {
    return database_oid == database_number && role_oid == role_number;
  }
};

// A pool's counters at one moment, since they were reset, and what is under way.
struct PoolCounters {
  std::uint32_t epoch = 0;  // PoolSlot::statistics_epoch
  std::uint64_t transactions = 0;
  std::uint64_t leases = 0;
  std::uint64_t waits = 0;
  std::uint64_t statements = 0;
  std::uint64_t blocks = 0;
  std::uint64_t wal_records = 0;
  std::uint64_t acquire_timeouts = 0;
  std::uint64_t starts = 0;
  std::uint64_t retirements = 0;
  std::uint64_t clients_lost = 0;
  std::uint64_t active_us = 0;           // finished
  std::uint64_t thinking_us = 0;
  std::uint64_t active_under_way_us = 0;  // begun and not finished
  std::uint64_t thinking_under_way_us = 0;
  HistogramCounts wait;
};

// Where the next sample begins.  The writer's own: kept here so that a statistician
// that starts again goes on where the last one ended.
struct HistoryBaseline {
  std::uint32_t known = 0;
  std::uint32_t pool = 0;             // index and generation of the slot the counters are of
  std::uint32_t pool_generation = 0;
  std::int64_t taken_us = 0;          // monotonic
  PoolCounters counters;
};

struct alignas(64) HistoryRing {
  std::atomic<std::uint32_t> version;  // of `owner`: 0 = nobody's yet, odd while it changes
  std::atomic<std::uint64_t> first;    // number of the owner's first sample
  std::atomic<std::uint64_t> next;     // number of the next sample
  std::atomic<std::int64_t> last_at;   // TimestampTz of the end of the latest sample
  SharedRecord<HistoryOwner> owner;
  HistoryBaseline baseline;
  // HistorySlot[seconds] follows

  HistorySlot *slots() noexcept { return reinterpret_cast<HistorySlot *>(this + 1); }
  const HistorySlot *slots() const noexcept { return reinterpret_cast<const HistorySlot *>(this + 1); }
};
static_assert(std::is_standard_layout_v<HistoryRing> && std::is_trivially_destructible_v<HistoryRing>);
static_assert(sizeof(HistoryRing) % alignof(HistorySlot) == 0);

// Nothing without seconds.
constexpr std::size_t history_ring_bytes(std::size_t seconds) noexcept {
  return seconds == 0 ? 0 : (sizeof(HistoryRing) + seconds * sizeof(HistorySlot) + 63) / 64 * 64;
}

// ---------------------------------------------------------------- by the writer

// Gives the ring to somebody else: nothing of the last owner's is left.
void give_ring_away(HistoryRing &ring, const HistoryOwner &owner) noexcept;
// The owner or the database is called something else now.
void rename_ring_owner(HistoryRing &ring, const HistoryOwner &owner) noexcept;
void append_sample(HistoryRing &ring, std::size_t seconds, const HistorySample &sample) noexcept;

// ---------------------------------------------------------------- by anyone

// False if it has none, or is just getting one.
bool read_ring_owner(const HistoryRing &ring, HistoryOwner &owner) noexcept;

// Numbers of the samples there are: [begin, end).
struct SampleRange {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};
SampleRange sample_range(const HistoryRing &ring, std::size_t seconds) noexcept;

// False if it has been overwritten, or not been written yet.
bool read_sample(const HistoryRing &ring, std::size_t seconds, std::uint64_t number, HistorySample &sample) noexcept;

// Copies the latest `capacity` samples, oldest first, with whose they are; returns
// how many.  0 if the ring is nobody's, or was given away meanwhile.
std::size_t copy_ring(const HistoryRing &ring, std::size_t seconds, HistoryOwner &owner, HistorySample *target,
                      std::size_t capacity) noexcept;

}  // namespace sluice

#endif
