// SPDX-License-Identifier: PostgreSQL
//
// A log-linear (HDR-style) histogram of non-negative integers, for shared
// memory: recording is one relaxed fetch-and-add, histograms of equal shape can
// be added up, and no value is more than 1/32 (about 3 %) away from the bounds
// of its bucket.  A reader sees a snapshot that may miss recordings under way;
// nothing is ever lost.
//
// Shape: values below 64 have a bucket each; above, every power of two is cut
// into 32 equal buckets.  Values at or above 2^40 share the last bucket (as
// microseconds: 12 days).

#ifndef SLUICE_CORE_STATS_HISTOGRAM_HPP
#define SLUICE_CORE_STATS_HISTOGRAM_HPP

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace sluice {

constexpr unsigned kHistogramSubBits = 5;   // 32 buckets a power of two
constexpr unsigned kHistogramMaxBits = 40;  // values are cut off at 2^40
constexpr std::size_t kHistogramBuckets =
    (std::size_t{2} << kHistogramSubBits) + (kHistogramMaxBits - kHistogramSubBits - 1) * (std::size_t{1} << kHistogramSubBits);

// The bucket of a value, and the least and greatest value of a bucket.
std::size_t histogram_bucket(std::uint64_t value) noexcept;
std::uint64_t histogram_bucket_low(std::size_t bucket) noexcept;
std::uint64_t histogram_bucket_high(std::size_t bucket) noexcept;

struct Histogram {
  std::atomic<std::uint64_t> counts[kHistogramBuckets];
  std::atomic<std::uint64_t> total;  // recordings
  std::atomic<std::uint64_t> sum;    // of the recorded values
  std::atomic<std::uint64_t> max;    // greatest recorded value, exact

  void record(std::uint64_t value) noexcept;
  void reset() noexcept;
  // The least bucket bound that at least `fraction` (0..1) of the recordings do
  // not exceed (never above max); 0 when nothing was recorded.
  std::uint64_t percentile(double fraction) const noexcept;
};
static_assert(std::is_standard_layout_v<Histogram> && std::is_trivially_destructible_v<Histogram>);

}  // namespace sluice

#endif
