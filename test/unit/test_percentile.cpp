// SPDX-License-Identifier: PostgreSQL
//
// Percentiles by nearest rank, and the median.

#include <cmath>
#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>

extern "C" {
#include <cmocka.h>
}

#include "core/stats/percentile.hpp"

using namespace sluice;

namespace {

void a_rank_is_the_least_that_enough_values_do_not_exceed(void **) {
  assert_int_equal(percentile_rank(0.50, 4), 2);
  assert_int_equal(percentile_rank(0.51, 4), 3);
  assert_int_equal(percentile_rank(0.95, 100), 95);
  assert_int_equal(percentile_rank(0.07, 100), 7);  // 0.07 * 100 is more than 7 in binary
  assert_int_equal(percentile_rank(0.001, 5), 1);
}

void fractions_are_cut_off(void **) {
  assert_int_equal(percentile_rank(0, 10), 1);
  assert_int_equal(percentile_rank(-1, 10), 1);
  assert_int_equal(percentile_rank(NAN, 10), 1);
  assert_int_equal(percentile_rank(1, 10), 10);
  assert_int_equal(percentile_rank(7, 10), 10);
  assert_int_equal(percentile_rank(0.5, 1), 1);
}

void a_percentile_is_one_of_the_values(void **) {
  const std::int64_t values[] = {-3, 5, 5, 80, 1000};
  assert_int_equal(percentile_of_sorted(values, 5, 0), -3);
  assert_int_equal(percentile_of_sorted(values, 5, 0.5), 5);
  assert_int_equal(percentile_of_sorted(values, 5, 0.8), 80);
  assert_int_equal(percentile_of_sorted(values, 5, 0.81), 1000);
  assert_int_equal(percentile_of_sorted(values, 1, 0.99), -3);
  assert_int_equal(percentile_of_sorted(nullptr, 0, 0.5), 0);
}

void the_median_lies_in_the_middle(void **) {
  double odd[] = {9, 1, 5};
  double even[] = {9, 1, 5, 6};
  double equal[] = {2, 2};
  double one[] = {-4};
  assert_true(take_median(odd, 3) == 5);
  assert_true(take_median(even, 4) == 5.5);
  assert_true(take_median(equal, 2) == 2);
  assert_true(take_median(one, 1) == -4);
  assert_true(take_median(nullptr, 0) == 0);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(a_rank_is_the_least_that_enough_values_do_not_exceed),
      cmocka_unit_test(fractions_are_cut_off),
      cmocka_unit_test(a_percentile_is_one_of_the_values),
      cmocka_unit_test(the_median_lies_in_the_middle),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
