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
// in its bucket and not yet in `total` or `max`; percentile() counts the buckets
// itself, and believes `max` only where it agrees with the bucket found.

#include "core/stats/histogram.hpp"

#include <cmath>
#include <limits>

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

// The rank, from 1, of the recording that `fraction` of all `total` do not exceed.
std::uint64_t rank_of(double fraction, std::uint64_t total) noexcept {
  if (!(fraction > 0.0)) {
    return 1;
  }
  if (fraction >= 1.0) {
    return total;
  }
  // 0.07 * 100 is a little more than 7, and 7 is meant.
  const double exact = fraction * static_cast<double>(total);
  const double rank = std::ceil(exact * (1.0 - 1e-12));
  if (rank <= 1.0) {
    return 1;
  }
  return rank >= static_cast<double>(total) ? total : static_cast<std::uint64_t>(rank);
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

void Histogram::reset() noexcept {
  for (auto &count : counts) {
    count.store(0, std::memory_order_relaxed);
  }
  total.store(0, std::memory_order_relaxed);
  sum.store(0, std::memory_order_relaxed);
  max.store(0, std::memory_order_relaxed);
}

std::uint64_t Histogram::percentile(double fraction) const noexcept {
  std::uint64_t recordings = 0;
  for (const auto &count : counts) {
    recordings += count.load(std::memory_order_relaxed);
  }
  if (recordings == 0) {
    return 0;
  }
  // Recordings may have arrived since, but none has gone, so the second pass
  // reaches the rank; unless someone has reset the counts, and then 0 is right.
  const std::uint64_t rank = rank_of(fraction, recordings);
  const std::uint64_t greatest = max.load(std::memory_order_relaxed);
  std::uint64_t reached = 0;
  for (std::size_t bucket = 0; bucket < kHistogramBuckets; bucket++) {
    reached += counts[bucket].load(std::memory_order_relaxed);
    if (reached >= rank) {
      const std::uint64_t high = histogram_bucket_high(bucket);
      const bool max_is_inside = greatest >= histogram_bucket_low(bucket) && greatest < high;
      return max_is_inside ? greatest : high;
    }
  }
  return 0;
}

}  // namespace sluice
