// SPDX-License-Identifier: PostgreSQL
//
// Percentiles: see percentile.hpp.

#include "core/stats/percentile.hpp"

#include <algorithm>
#include <cmath>

namespace sluice {

std::uint64_t percentile_rank(double fraction, std::uint64_t count) noexcept {
  if (!(fraction > 0.0)) return 1;
  if (fraction >= 1.0) return count;
  // 0.07 * 100 is a little more than 7, and 7 is meant.
  const double rank = std::ceil(fraction * static_cast<double>(count) * (1.0 - 1e-12));
  if (rank <= 1.0) return 1;
  return rank >= static_cast<double>(count) ? count : static_cast<std::uint64_t>(rank);
}

std::int64_t percentile_of_sorted(const std::int64_t *sorted, std::size_t count, double fraction) noexcept {
  return count == 0 ? 0 : sorted[percentile_rank(fraction, count) - 1];
}

double take_median(double *values, std::size_t count) noexcept {
  if (count == 0) return 0;
  double *const middle = values + count / 2;
  std::nth_element(values, middle, values + count);
  if (count % 2 == 1) return *middle;
  const double below = *std::max_element(values, middle);
  return below + (*middle - below) / 2;
}

}  // namespace sluice
