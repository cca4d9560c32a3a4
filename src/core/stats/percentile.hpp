// SPDX-License-Identifier: PostgreSQL
//
// Percentiles of values at hand, by nearest rank: the answer is always one of
// the values.  (Values that are not kept are counted in a Histogram.)

#ifndef SLUICE_CORE_STATS_PERCENTILE_HPP
#define SLUICE_CORE_STATS_PERCENTILE_HPP

#include <cstddef>
#include <cstdint>

namespace sluice {

// The rank, 1..count, of the least value that at least `fraction` of all do not
// exceed.  A fraction below 0 is taken as 0, above 1 as 1, NaN as 0; `count` is
// at least 1.
std::uint64_t percentile_rank(double fraction, std::uint64_t count) noexcept;

// The value of that rank; 0 if there are none.  `sorted` in ascending order.
std::int64_t percentile_of_sorted(const std::int64_t *sorted, std::size_t count, double fraction) noexcept;

// The median, between the middle two if their number is even; 0 if there are
// none.  Changes the order of `values`, none of which may be NaN.
double take_median(double *values, std::size_t count) noexcept;

}  // namespace sluice

#endif
