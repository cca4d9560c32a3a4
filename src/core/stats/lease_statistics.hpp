// SPDX-License-Identifier: PostgreSQL
//
// What each backend counts and times, and how it is added up for a pool.
//
// Recording happens once or twice in every transaction, so it must cost next to
// nothing on a machine of any size: each backend writes into memory of its own,
// with plain stores, and whoever reads adds up the backends of a pool.  When a
// backend has ended, the dispatcher adds its numbers to the pool's own.
//
// Reset.  A pool has an epoch, and so do the numbers of each backend, and those
// the pool keeps of backends that have ended: resetting advances the pool's.  Who
// finds his own behind starts from zero; a reader leaves out what is behind.  So
// nobody writes into another's memory.
//
//   Race: a reader adds up while the dispatcher moves a backend's numbers to the
//   pool.  Answer: PoolSlot::folds is odd meanwhile; the reader tries again.
//
// Not promised: numbers of one instant.  A reader may see a transaction in one
// counter and not yet in the next.

#ifndef SLUICE_CORE_STATS_LEASE_STATISTICS_HPP
#define SLUICE_CORE_STATS_LEASE_STATISTICS_HPP

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "core/stats/histogram.hpp"

namespace sluice {

// What is timed, in microseconds.
enum class Measure : std::uint32_t {
  wait = 0,        // ready until leased; 0 for a client that found a backend asleep
  hold,            // leased until the backend is free for others
  active,          // executing one command cycle: from its first message to ReadyForQuery
  thinking,        // the client's turn inside a transaction, each time
  start,           // a backend's start: asked for until ready for clients
  authentication,  // accepted until admitted
};
constexpr std::size_t kLeaseMeasures = 4;  // recorded by backends
constexpr std::size_t kMeasures = 6;

// One lower-case word, the same in views and tests.
const char *describe(Measure measure) noexcept;

// Counters and times of one backend, or of those a pool had before.
struct LeaseTotals {
  std::atomic<std::uint64_t> transactions;  // finished
  std::atomic<std::uint64_t> leases;        // hand-overs, queued or not
  std::atomic<std::uint64_t> waits;         // of these, those that went through the wait queue
  std::atomic<std::uint64_t> statements;    // Query and Execute messages
  std::atomic<std::uint64_t> blocks;        // of shared buffers touched, found there or read
  std::atomic<std::uint64_t> wal_records;
  Histogram times[kLeaseMeasures];          // by Measure

  void reset() noexcept;
  // Adds another one's to this one, which nobody else writes to.
  void add(const LeaseTotals &other) noexcept;
};

// One hold of a backend, for replaying (core/tuning/queue_replay).
struct LeaseRecord {
  std::atomic<std::int64_t> ready_us;  // monotonic; 0 = none
  std::atomic<std::uint32_t> hold_us;
  std::atomic<std::uint32_t> active_us;  // of it
  std::atomic<std::uint32_t> waited_us;  // before it
};

constexpr std::size_t kLeaseRecords = 1024;  // the latest, for each backend

struct alignas(64) LeaseStatistics {
  std::atomic<std::uint32_t> epoch;  // the pool's, when these numbers were begun; 0 = nobody's
  LeaseTotals totals;
  std::atomic<std::uint64_t> recorded;  // record i is at i % kLeaseRecords
  LeaseRecord records[kLeaseRecords];

  // By the backend, before it writes: starts from zero if its pool has been reset.
  void keep_up(std::uint32_t pool_epoch) noexcept {
    if (epoch.load(std::memory_order_relaxed) != pool_epoch) begin(pool_epoch);
  }
  void begin(std::uint32_t pool_epoch) noexcept;
  void record_hold(std::int64_t ready_us, std::uint64_t hold_us, std::uint64_t active_us,
                   std::uint64_t waited_us) noexcept;
};
static_assert(std::is_standard_layout_v<LeaseStatistics> && std::is_trivially_destructible_v<LeaseStatistics>);

// The sum for one reader.  About 37 kB.
struct PoolTotals {
  std::uint64_t transactions = 0;
  std::uint64_t leases = 0;
  std::uint64_t waits = 0;
  std::uint64_t statements = 0;
  std::uint64_t blocks = 0;
  std::uint64_t wal_records = 0;
  HistogramCounts times[kLeaseMeasures];

  void add(const LeaseTotals &other, bool with_times) noexcept;
};

}  // namespace sluice

#endif
