// SPDX-License-Identifier: PostgreSQL
//
// Makes the samples of the history: what each pool has done since the last one.
//
// A sample is the difference of two readings of counters that only grow, so what
// one second misses the next one has, and all samples of a pool together are what
// the pool has counted.  Time is counted as it passes: a query of ten seconds is
// an active backend in ten samples, though it is recorded once, at its end.
//
// A pool is sampled when it has clients or backends, or has counted anything.
// Where a sample is missing, there was nothing, or no statistician.
//
// Not promised: that all numbers of a sample are of the same instant; the last
// moments before sluice.reset_statistics() or before a slot is given to another
// pool; peaks shorter than the dispatcher's tick of a millisecond while clients
// become ready, and the exact peak of backends in use while some of them are
// between two states.

#ifndef SLUICE_CORE_STATS_POOL_SAMPLER_HPP
#define SLUICE_CORE_STATS_POOL_SAMPLER_HPP

#include <cstddef>
#include <cstdint>

#include "core/pool/shared_state.hpp"
#include "core/stats/history_ring.hpp"

namespace sluice {

// One look at all pools.
struct SampleTick {
  std::int64_t now_us = 0;       // monotonic
  std::int64_t now_at = 0;       // TimestampTz
  std::int64_t previous_us = 0;  // the tick before, or when there was none, the start of the statistician
  bool timed = true;             // sluice.track_timing
};

// Reads the counters of pool `index`.
void read_pool_counters(const SharedState &state, std::uint32_t index, std::int64_t now_us,
                        PoolCounters &counters) noexcept;

// What happened between `before` and `now`; gauges and peaks of the second are
// taken from the pool, whose peaks begin anew.
HistorySample make_sample(PoolSlot &pool, const PoolCounters &before, const PoolCounters &now, double length_s,
                          const SampleTick &tick) noexcept;

// Appends a sample to the ring of each pool that has something to tell; returns how
// many.  By one process.  Nothing if no history is kept.
std::size_t sample_pools(SharedState &state, const SampleTick &tick) noexcept;

// ---------------------------------------------------------------- by anyone

// The ring of a database and a role; nullptr if it has none.  May have been given
// away by the time it is read: copy_ring() says whose it was.
HistoryRing *find_ring(const SharedState &state, std::uint32_t database_oid, std::uint32_t role_oid) noexcept;

// The ring of this owner, made if need be from the one that has gone longest
// without a sample, provided that it ended before `last_at`; else nullptr.  By the
// writer.
HistoryRing *claim_ring(SharedState &state, const HistoryOwner &owner, std::int64_t last_at) noexcept;

// Copies the latest `capacity` samples of a database and role, oldest first;
// returns how many.  For whoever fits a law to (active, transactions_per_second()):
// leave out samples with `active` = kUnknownMean, or of another length than about 1 s.
std::size_t copy_pool_history(const SharedState &state, std::uint32_t database_oid, std::uint32_t role_oid,
                              HistorySample *target, std::size_t capacity) noexcept;

}  // namespace sluice

#endif
