// SPDX-License-Identifier: PostgreSQL
//
// How the use of one resource has developed: its peak, and where it is heading.
//
// A sampler calls sample() about once a second.  It alone writes; a reader tries
// again while `version` is odd or has changed.  A sampler that dies in between
// leaves it odd, and its successor makes it even with its first sample.
//
// What rises and falls again between two samples is lost, but for what is raised:
// whoever takes a resource may call raise() with the number then in use, which
// costs one look at shared memory unless it is a new height.
//
// Reset and new owner.  A sample names the number of resets and the owner (a pool
// slot is given to other pools).  The sampler that finds another number than it
// knows forgets the peak; with another owner it begins anew.  A reader does the
// same in its answer, so that a reset shows at once and nobody else writes here.
//
// Trend.  A mean with exponentially fading weights lags behind a steady rise by
// its time constant.  So two of them, and the latest value, tell the slope twice:
// over the last seconds and over the last minutes.  The trend is the smaller of
// both where they agree in sign, else 0: a step looks like a rise for one
// constant of the faster mean only, and not for minutes.

#ifndef SLUICE_CORE_STATS_RESOURCE_TRACK_HPP
#define SLUICE_CORE_STATS_RESOURCE_TRACK_HPP

#include <atomic>
#include <cstdint>
#include <type_traits>

namespace sluice {

constexpr std::int64_t kTrendFastUs = 20'000'000;    // time constants of the two means
constexpr std::int64_t kTrendSlowUs = 180'000'000;
constexpr std::int64_t kTrendNeedsUs = 30'000'000;   // nothing is said before
constexpr std::int64_t kTrendGapUs = 60'000'000;     // without samples: the means begin anew

// Of which use a sample or a question is.
struct ResourceEra {
  std::uint32_t owner = 0;   // never 0 in a sample
  std::uint32_t resets = 0;  // of the statistics
};

struct ResourceHistory {
  bool has_peak = false;
  double peak = 0;
  std::int64_t peak_at = 0;  // TimestampTz of the sample that first saw it
  bool has_trend = false;
  double trend_per_minute = 0;
};

struct ResourceTrack {
  std::atomic<std::uint32_t> version;  // odd while the sampler writes
  std::atomic<std::uint32_t> owner;    // ResourceEra of what follows
  std::atomic<std::uint32_t> resets;
  std::atomic<double> peak;
  std::atomic<std::int64_t> peak_at;
  std::atomic<std::int64_t> first_us;  // monotonic, of the first and the last sample
  std::atomic<std::int64_t> last_us;
  std::atomic<double> last;
  std::atomic<double> fast;
  std::atomic<double> slow;
  std::atomic<std::int64_t> raised;  // most since the last sample; by anybody

  // By any process, from any place: `now_in_use` are in use.
  void raise(std::int64_t now_in_use) noexcept {
    std::int64_t seen = raised.load(std::memory_order_relaxed);
    while (now_in_use > seen && !raised.compare_exchange_weak(seen, now_in_use, std::memory_order_relaxed)) {
    }
  }

  // By the sampler.  value: in use now; highest: since the last sample, as far as
  // is known, but for what was raised.  now_at: the same moment as now_us.
  void sample(ResourceEra era, double value, double highest, std::int64_t now_us, std::int64_t now_at) noexcept;

  ResourceHistory read(ResourceEra era) const noexcept;
};
static_assert(std::atomic<double>::is_always_lock_free);
static_assert(std::is_standard_layout_v<ResourceTrack> && std::is_trivially_destructible_v<ResourceTrack>);

}  // namespace sluice

#endif
