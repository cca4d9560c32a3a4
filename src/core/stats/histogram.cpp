// SPDX-License-Identifier: PostgreSQL
//
// Buckets, recording and percentiles.
//
// The bucket of a value v >= 64 with its highest bit at e has the e - 5 lowest
// bits of v cut off: what is left lies in 32..63 and counts from 32 within the
// power of two.
//
// All accesses are relaxed: the counters are independent, and nobody concludes
// from one that another has been written.  A reader may therefore see a recording
// in its bucket and not yet in `total` or `max`; copies therefore count
// the buckets themselves, and percentile() believes `max` only where it agrees
// with the bucket found.

#include "core/stats/histogram.hpp"

#include <limits>

#include "core/stats/percentile.hpp"

namespace sluice {

namespace {

constexpr std::size_t kSubBuckets = std::size_t{1} << kHistogramSubBits;
constexpr std::size_t kExactBuckets = 2 * kSubBuckets;

unsigned highest_bit(std::uint64_t value) noexcept {
  return 63u - static_cast<unsigned>(__builtin_clzll(value));
}

// How many low bits the values of a bucket differ in.  Not for exact buckets.
unsigned cut_bits(std::size_t bucket) noexcept {
  return static_cast<unsigned>((bucket - kExactBuckets) / kSubBuckets) + 1;
}

// `max` is believed only where it lies in this bucket.
std::uint64_t middle_of(std::size_t bucket, std::uint64_t max) noexcept {
  const std::uint64_t low = histogram_bucket_low(bucket);
  const std::uint64_t high = histogram_bucket_high(bucket);
  if (bucket >= kHistogramBuckets - 1) {
    return max > low ? max : low;  // without an upper bound
  }
  const std::uint64_t middle = low + (high - low) / 2;
  return max >= low && max < middle ? max : middle;
}

}  // namespace

std::size_t histogram_bucket(std::uint64_t value) noexcept {
  if (value < kExactBuckets) {
    return static_cast<std::size_t>(value);
  }
  if (value >> kHistogramMaxBits != 0) {
    return kHistogramBuckets - 1;
  }
  const unsigned cut = highest_bit(value) - kHistogramSubBits;
  return cut * kSubBuckets + static_cast<std::size_t>(value >> cut);
}

std::uint64_t histogram_bucket_low(std::size_t bucket) noexcept {
  if (bucket < kExactBuckets) {
    return bucket;
  }
  const unsigned cut = cut_bits(bucket);
  return static_cast<std::uint64_t>(bucket - cut * kSubBuckets) << cut;
}

std::uint64_t histogram_bucket_high(std::size_t bucket) noexcept {
  if (bucket >= kHistogramBuckets - 1) {
    return std::numeric_limits<std::uint64_t>::max();  // shared by all that is cut off
  }
  return histogram_bucket_low(bucket + 1) - 1;
}

void Histogram::record(std::uint64_t value) noexcept {
  // Rarely a new maximum; so look before the compare-and-set.
  std::uint64_t seen = max.load(std::memory_order_relaxed);
  while (value > seen && !max.compare_exchange_weak(seen, value, std::memory_order_relaxed)) {
  }
  counts[histogram_bucket(value)].fetch_add(1, std::memory_order_relaxed);
  total.fetch_add(1, std::memory_order_relaxed);
  sum.fetch_add(value, std::memory_order_relaxed);
}

void Histogram::record_alone(std::uint64_t value) noexcept {
  if (value > max.load(std::memory_order_relaxed)) {
    max.store(value, std::memory_order_relaxed);
  }
  add_alone(counts[histogram_bucket(value)], 1);
  add_alone(total, 1);
  add_alone(sum, value);
}

void Histogram::add(const Histogram &other) noexcept {
  for (std::size_t bucket = 0; bucket < kHistogramBuckets; bucket++) {
    const std::uint64_t count = other.counts[bucket].load(std::memory_order_relaxed);
    if (count > 0) {
      counts[bucket].fetch_add(count, std::memory_order_relaxed);
    }
  }
  total.fetch_add(other.total.load(std::memory_order_relaxed), std::memory_order_relaxed);
  sum.fetch_add(other.sum.load(std::memory_order_relaxed), std::memory_order_relaxed);
  const std::uint64_t greatest = other.max.load(std::memory_order_relaxed);
  std::uint64_t seen = max.load(std::memory_order_relaxed);
  while (greatest > seen && !max.compare_exchange_weak(seen, greatest, std::memory_order_relaxed)) {
  }
}

void Histogram::reset() noexcept {
  for (auto &count : counts) {
    count.store(0, std::memory_order_relaxed);
  }
  total.store(0, std::memory_order_relaxed);
  sum.store(0, std::memory_order_relaxed);
  max.store(0, std::memory_order_relaxed);
}

std::uint64_t Histogram::percentile(double fraction) const noexcept {
  HistogramCounts copy;
  copy.add(*this);
  return copy.percentile(fraction);
}

void HistogramCounts::add(const Histogram &other) noexcept {
  for (std::size_t bucket = 0; bucket < kHistogramBuckets; bucket++) {
    const std::uint64_t count = other.counts[bucket].load(std::memory_order_relaxed);
    counts[bucket] += count;
    total += count;
  }
  sum += other.sum.load(std::memory_order_relaxed);
  const std::uint64_t greatest = other.max.load(std::memory_order_relaxed);
  max = greatest > max ? greatest : max;
}

void HistogramCounts::add(const HistogramCounts &other) noexcept {
  for (std::size_t bucket = 0; bucket < kHistogramBuckets; bucket++) {
    counts[bucket] += other.counts[bucket];
  }
  total += other.total;
  sum += other.sum;
  max = other.max > max ? other.max : max;
}

HistogramCounts HistogramCounts::since(const HistogramCounts &earlier) const noexcept {
  if (earlier.total > total) {
    return *this;
  }
  HistogramCounts difference;
  for (std::size_t bucket = 0; bucket < kHistogramBuckets; bucket++) {
    if (earlier.counts[bucket] > counts[bucket]) {
      return *this;
    }
    difference.counts[bucket] = counts[bucket] - earlier.counts[bucket];
    difference.total += difference.counts[bucket];
    if (difference.counts[bucket] > 0) {
      const std::uint64_t high = histogram_bucket_high(bucket);
      difference.max = max < high ? max : high;
    }
  }
  difference.sum = sum >= earlier.sum ? sum - earlier.sum : 0;
  return difference;
}

std::uint64_t HistogramCounts::percentile(double fraction) const noexcept {
  if (total == 0) {
    return 0;
  }
  const std::uint64_t rank = percentile_rank(fraction, total);
  std::uint64_t reached = 0;
  for (std::size_t bucket = 0; bucket < kHistogramBuckets; bucket++) {
    reached += counts[bucket];
    if (reached >= rank) {
      return rank == total && max >= histogram_bucket_low(bucket) ? max : middle_of(bucket, max);
    }
  }
  return 0;
}

}  // namespace sluice
