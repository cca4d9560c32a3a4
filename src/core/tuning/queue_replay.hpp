// SPDX-License-Identifier: PostgreSQL
//
// What if the pool had another size?  Recorded leases are queued once more,
// first come first served, on a given number of backends.
//
// The recursion is Kiefer and Wolfowitz's ("On the Theory of Queues with Many
// Servers", 1955) in the form that simulators use: a lease begins when its
// client is ready or when the first backend is free, whichever is later, and
// that backend is free again after the hold.  With one backend this is Lindley's
// equation (1952).  Nothing is assumed about the distributions: bursts stay
// bursts.
//
// What a replay does not know
//   Arrivals stay where they were.  Clients that wait for their answer before
//   they ask again would come later to a smaller pool and earlier to a larger
//   one, so waits that are long compared with the holds are too long, and a load
//   that is above the capacity of the replayed pool would in truth slow its
//   clients down instead of queueing without end.  Holds stay as they were too,
//   or change by one factor (`hold_scale`), for instance the ratio of the times
//   per transaction that a ScalabilityFit predicts for both sizes.  Starting and
//   retiring backends, and leases that rest (thinking, pinned), are not played:
//   all backends are there all the time, and a lease uses its backend throughout.

#ifndef SLUICE_CORE_TUNING_QUEUE_REPLAY_HPP
#define SLUICE_CORE_TUNING_QUEUE_REPLAY_HPP

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace sluice {

struct RecordedLease {
  std::int64_t ready_us;  // when the client became ready, on any clock, 0 or later
  std::uint32_t hold_us;  // how long it then used its backend
};

struct ReplayQuestion {
  std::size_t backends = 0;  // the size of the pool
  double hold_scale = 1;     // the holds are this many times as long as recorded
};

constexpr double kGreatestHoldScale = 1000;

// The caller's memory; what is in it before and after means nothing.
struct ReplayScratch {
  std::int64_t *free_at_us;   // when each backend is free
  std::size_t free_at_count;  // at least min(backends, leases)
  std::int64_t *waits_us;     // of each lease
  std::size_t waits_count;    // at least the number of leases
};

enum class ReplayVerdict {
  keeps_up,        // all numbers hold
  above_capacity,  // all numbers hold for this recording; a longer one would have waited longer
  no_leases,       // from here on: no numbers
  no_backends,
  bad_hold_scale,     // not above 0 and up to kGreatestHoldScale
  not_in_order,       // a client was ready before the one that stands before it, or before 0
  scratch_too_small,  // or missing
};

std::string_view describe(ReplayVerdict verdict) noexcept;

// The load is above capacity if the queue is still growing at the end: during
// the second half of the leases more work arrives than the backends can do, and
// the last quarter waits longer, on average, than the quarter before.  Fewer
// leases than this show no trend.
constexpr std::size_t kLeastLeasesForTrend = 20;

// All zero if there are no numbers.
struct ReplayAnswer {
  ReplayVerdict verdict = ReplayVerdict::no_leases;
  std::int64_t wait_p50_us = 0;  // percentiles over all leases, also those that did not wait; by nearest rank
  std::int64_t wait_p90_us = 0;
  std::int64_t wait_p95_us = 0;
  std::int64_t wait_p99_us = 0;
  std::int64_t wait_max_us = 0;
  double wait_mean_us = 0;
  double waited_share = 0;         // 0..1: leases that waited at all
  double utilisation = 0;          // 0..1: time used / (backends * time from the first arrival to the last end)
  std::size_t greatest_queue = 0;  // clients waiting at once
};

constexpr bool has_numbers(ReplayVerdict verdict) noexcept {
  return verdict == ReplayVerdict::keeps_up || verdict == ReplayVerdict::above_capacity;
}

// `leases` in the order of ready_us; equal ones are served as they stand.  Takes
// time in proportion to leases * log(backends), and no memory but the scratch.
ReplayAnswer replay_queue(const RecordedLease *leases, std::size_t count, const ReplayQuestion &question,
                          const ReplayScratch &scratch) noexcept;

}  // namespace sluice

#endif
