// SPDX-License-Identifier: PostgreSQL
//
// The weights follow from the time that has passed, so that a late sample does
// no harm.  A mean that began T ago with the value it still started from lags
// behind a rise of 1 per second by c * (1 - exp(-T / c)) seconds, c being its time
// constant; this is exact for a rise that began with the first sample.

#include "core/stats/resource_track.hpp"

#include <cmath>

namespace sluice {

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr int kReadAttempts = 100;

double moved_towards(double mean, double value, double passed_us, std::int64_t constant_us) noexcept {
  return mean + (value - mean) * (1.0 - std::exp(-passed_us / static_cast<double>(constant_us)));
}

double lag_s(double age_us, std::int64_t constant_us) noexcept {
  const auto constant = static_cast<double>(constant_us);
  return constant / 1e6 * (1.0 - std::exp(-age_us / constant));
}

// Of a slope over seconds and one over minutes.
double cautious(double late, double early) noexcept {
  if ((late > 0) != (early > 0) || late == 0 || early == 0) {
    return 0;
  }
  return std::fabs(late) < std::fabs(early) ? late : early;
}

double slope_per_minute(double last, double fast, double slow, double age_us) noexcept {
  const double fast_lag = lag_s(age_us, kTrendFastUs);
  const double slow_lag = lag_s(age_us, kTrendSlowUs);
  return 60.0 * cautious((last - fast) / fast_lag, (fast - slow) / (slow_lag - fast_lag));
}

void begin_means(ResourceTrack &track, double value, std::int64_t now_us) noexcept {
  track.first_us.store(now_us, kRelaxed);
  track.fast.store(value, kRelaxed);
  track.slow.store(value, kRelaxed);
}

void move_means(ResourceTrack &track, double value, std::int64_t now_us) noexcept {
  const auto passed_us = static_cast<double>(now_us - track.last_us.load(kRelaxed));
  track.fast.store(moved_towards(track.fast.load(kRelaxed), value, passed_us, kTrendFastUs), kRelaxed);
  track.slow.store(moved_towards(track.slow.load(kRelaxed), value, passed_us, kTrendSlowUs), kRelaxed);
}

}  // namespace

void ResourceTrack::sample(ResourceEra era, double value, double highest, std::int64_t now_us,
                           std::int64_t now_at) noexcept {
  const auto was_raised = static_cast<double>(raised.exchange(0, kRelaxed));
  const bool anew = owner.load(kRelaxed) != era.owner;
  const bool forget_peak = anew || resets.load(kRelaxed) != era.resets;
  const std::int64_t since_us = now_us - last_us.load(kRelaxed);
  double height = highest > value ? highest : value;
  height = was_raised > height ? was_raised : height;

  const std::uint32_t writing = version.load(kRelaxed) | 1;
  version.store(writing, kRelaxed);
  // Nothing of what follows may be seen before the version is odd.
  std::atomic_thread_fence(std::memory_order_release);
  owner.store(era.owner, kRelaxed);
  resets.store(era.resets, kRelaxed);
  if (forget_peak || height > peak.load(kRelaxed)) {
    peak.store(height, kRelaxed);
    peak_at.store(now_at, kRelaxed);
  }
  if (anew || since_us < 0 || since_us > kTrendGapUs) {
    begin_means(*this, value, now_us);
  } else {
    move_means(*this, value, now_us);
  }
  last_us.store(now_us, kRelaxed);
  last.store(value, kRelaxed);
  version.store(writing + 1, std::memory_order_release);
}

ResourceHistory ResourceTrack::read(ResourceEra era) const noexcept {
  for (int attempt = 0; attempt < kReadAttempts; attempt++) {
    const std::uint32_t before = version.load(std::memory_order_acquire);
    ResourceHistory history;
    const bool same_owner = owner.load(kRelaxed) == era.owner;
    const auto age_us = static_cast<double>(last_us.load(kRelaxed) - first_us.load(kRelaxed));
    history.has_peak = same_owner && resets.load(kRelaxed) == era.resets;
    history.peak = peak.load(kRelaxed);
    history.peak_at = peak_at.load(kRelaxed);
    history.has_trend = same_owner && age_us >= static_cast<double>(kTrendNeedsUs);
    if (history.has_trend) {
      history.trend_per_minute =
          slope_per_minute(last.load(kRelaxed), fast.load(kRelaxed), slow.load(kRelaxed), age_us);
    }
    std::atomic_thread_fence(std::memory_order_acquire);
    if (before % 2 == 0 && version.load(kRelaxed) == before) {
      return history;
    }
  }
  return ResourceHistory{};  // a sampler has died while it wrote
}

}  // namespace sluice
