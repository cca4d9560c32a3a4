// SPDX-License-Identifier: PostgreSQL
//
// A log-linear (HDR-style) histogram of non-negative integers, for shared
// memory: recording is wait-free (fetch-and-adds), histograms of equal shape can be
// added up, and a percentile, the middle of its bucket, is off by 1/64 (1.6 %) at
// most.  A reader sees a snapshot that may miss recordings under way; nothing is
// ever lost.
//
// Where only one process records into a histogram, it may use record_alone(),
// which needs no locked instruction; a reader adds up as many of those as there
// are (HistogramCounts).
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
    (std::size_t{2} << kHistogramSubBits) +
    (kHistogramMaxBits - kHistogramSubBits - 1) * (std::size_t{1} << kHistogramSubBits);

// The bucket of a value, and the least and greatest value of a bucket.
std::size_t histogram_bucket(std::uint64_t value) noexcept;
std::uint64_t histogram_bucket_low(std::size_t bucket) noexcept;
std::uint64_t histogram_bucket_high(std::size_t bucket) noexcept;

// An atomic counter with one writer: no locked instruction.
inline void add_alone(std::atomic<std::uint64_t> &counter, std::uint64_t value) noexcept {
  counter.store(counter.load(std::memory_order_relaxed) + value, std::memory_order_relaxed);
}

struct Histogram {
  std::atomic<std::uint64_t> counts[kHistogramBuckets];
  std::atomic<std::uint64_t> total;  // recordings
  std::atomic<std::uint64_t> sum;    // of the recorded values
  std::atomic<std::uint64_t> max;    // greatest recorded value, exact

  void record(std::uint64_t value) noexcept;
  // The same, by the only process that records into this one.
  void record_alone(std::uint64_t value) noexcept;
  // Adds all recordings of another one to this one, which others may be recording into.
  void add(const Histogram &other) noexcept;
  void reset() noexcept;
  // The value that `fraction` (0..1) of the recordings do not exceed: the middle of
  // its bucket, never above max; exactly max for 1; 0 when nothing was recorded.
  std::uint64_t percentile(double fraction) const noexcept;
};
static_assert(std::is_standard_layout_v<Histogram> && std::is_trivially_destructible_v<Histogram>);

// A copy, or the sum of several, for one reader.  About 10 kB.
struct HistogramCounts {
  std::uint64_t counts[kHistogramBuckets] = {};
  std::uint64_t total = 0;  // of the counts
  std::uint64_t sum = 0;
  std::uint64_t max = 0;

  void add(const Histogram &other) noexcept;
  void add(const HistogramCounts &other) noexcept;
  // What has been recorded since `earlier` was copied from the same histograms; all
  // of it if they have been reset since.  `max` is then the bound of a bucket.
  HistogramCounts since(const HistogramCounts &earlier) const noexcept;
  // As Histogram::percentile().
  std::uint64_t percentile(double fraction) const noexcept;
};

}  // namespace sluice

#endif
