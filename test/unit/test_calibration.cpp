// SPDX-License-Identifier: PostgreSQL
//
// Which sizes a sweep tries, in which order, and which of them is the best.

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <csetjmp>

extern "C" {
#include <cmocka.h>
}

#include <algorithm>
#include <climits>
#include <cmath>
#include <initializer_list>
#include <limits>

#include "core/tuning/calibration.hpp"
#include "core/tuning/knee_facts.hpp"

namespace {

using namespace sluice;

CalibrationSizes sizes_of(std::initializer_list<int> list) {
  CalibrationSizes sizes{};
  for (int size : list) sizes.sizes[sizes.count++] = size;
  return sizes;
}

void assert_sizes(const CalibrationSizes &sizes, std::initializer_list<int> expected) {
  assert_int_equal(sizes.count, expected.size());
  std::size_t i = 0;
  for (int size : expected) assert_int_equal(sizes.sizes[i++], size);
}

CalibrationPlan plan_of(std::initializer_list<int> sizes) {
  return CalibrationPlan{sizes_of(sizes), 2, 0.5, 1};
}

// ---------------------------------------------------------------- sizes

void small_machines_are_tried_up_to_sixteen(void **) {
  assert_sizes(choose_calibration_sizes(0, 1000), {1, 2, 3, 4, 6, 8, 12, 16});
  assert_sizes(choose_calibration_sizes(-1, 1000), {1, 2, 3, 4, 6, 8, 12, 16});
  assert_sizes(choose_calibration_sizes(4, 1000), {1, 2, 3, 4, 6, 8, 12, 16});
}

void larger_ones_up_to_four_times_the_rule(void **) {
  assert_sizes(choose_calibration_sizes(8, 1000), {1, 2, 3, 4, 6, 8, 12, 16, 24, 32});
}

void the_size_of_the_rule_and_the_limit_are_among_them(void **) {
  assert_sizes(choose_calibration_sizes(5, 1000), {1, 2, 3, 4, 5, 6, 8, 12, 16, 20});
}

void no_size_is_above_what_is_available(void **) {
  assert_sizes(choose_calibration_sizes(8, 7), {1, 2, 3, 4, 6, 7});
  assert_sizes(choose_calibration_sizes(8, 1), {1});
  assert_sizes(choose_calibration_sizes(8, 0), {1});
  assert_sizes(choose_calibration_sizes(8, -5), {1});
}

void any_rule_gives_a_plan_that_is_allowed(void **) {
  for (int rule : {INT_MIN, -1, 0, 1, 2, 3, 5, 7, 100, 249, 250, 251, 1000, 10000, INT_MAX}) {
    for (int available : {INT_MIN, 0, 1, 2, 17, 999, 1000, INT_MAX}) {
      const CalibrationSizes sizes = choose_calibration_sizes(rule, available);
      assert_true(sizes.count >= 1 && sizes.count <= kMostCalibrationSizes);
      assert_int_equal(sizes.sizes[0], 1);
      for (std::size_t i = 1; i < sizes.count; i++) assert_true(sizes.sizes[i - 1] < sizes.sizes[i]);
      assert_true(sizes.sizes[sizes.count - 1] <= std::max(available, 1));
      assert_true(check(CalibrationPlan{sizes, 2, 0.5, 1}) == CalibrationRefusal::none);
    }
  }
}

void sizes_are_sorted_and_taken_once(void **) {
  CalibrationSizes sizes = sizes_of({4, 1, 4, 2, 1});
  normalize(sizes);
  assert_sizes(sizes, {1, 2, 4});
  CalibrationSizes none{};
  normalize(none);
  assert_int_equal(none.count, 0);
}

void a_quarter_of_the_free_slots_is_left_and_two_at_least(void **) {
  assert_int_equal(slots_for_calibration(100), 75);
  assert_int_equal(slots_for_calibration(9), 7);
  assert_int_equal(slots_for_calibration(3), 1);
  assert_int_equal(slots_for_calibration(2), 0);
  assert_int_equal(slots_for_calibration(0), 0);
  assert_int_equal(slots_for_calibration(-1), 0);
}

// ---------------------------------------------------------------- the plan

void a_sensible_plan_is_accepted(void **) {
  assert_true(check(plan_of({1, 2, 4})) == CalibrationRefusal::none);
  assert_float_equal(cut_off_s(plan_of({1, 2, 4})), 4, 1e-9);
  assert_float_equal(longest_duration_s(plan_of({1, 2, 4})), 3 * (0.5 + 4) + 2 * 4, 1e-9);
}

void sizes_out_of_range_are_refused(void **) {
  assert_true(check(plan_of({})) == CalibrationRefusal::no_sizes);
  assert_true(check(plan_of({0})) == CalibrationRefusal::size_out_of_range);
  assert_true(check(plan_of({1, -1})) == CalibrationRefusal::size_out_of_range);
  assert_true(check(plan_of({kGreatestCalibrationSize})) == CalibrationRefusal::none);
  assert_true(check(plan_of({kGreatestCalibrationSize + 1})) == CalibrationRefusal::size_out_of_range);
  CalibrationPlan plan = plan_of({1});
  plan.sizes.count = kMostCalibrationSizes + 1;
  assert_true(check(plan) == CalibrationRefusal::too_many_sizes);
}

void times_and_rounds_out_of_range_are_refused(void **) {
  const double infinity = std::numeric_limits<double>::infinity();
  CalibrationPlan plan = plan_of({1});
  for (double seconds : {0.0, -1.0, 0.009, 3601.0, infinity, -infinity, std::nan("")}) {
    plan.seconds_per_size = seconds;
    assert_true(check(plan) == CalibrationRefusal::seconds_out_of_range);
  }
  plan = plan_of({1});
  for (double pause : {-0.1, 3601.0, infinity, std::nan("")}) {
    plan.pause_s = pause;
    assert_true(check(plan) == CalibrationRefusal::pause_out_of_range);
  }
  plan = plan_of({1});
  for (int rounds : {0, -1, 101, INT_MAX, INT_MIN}) {
    plan.rounds = rounds;
    assert_true(check(plan) == CalibrationRefusal::rounds_out_of_range);
  }
}

void an_hour_is_the_longest(void **) {
  CalibrationPlan plan = plan_of({1, 2, 3, 4});
  plan.seconds_per_size = 42;  // 40 * (4 + 84) + 2 * 84 = 3688
  plan.pause_s = 4;
  plan.rounds = 10;
  assert_true(check(plan) == CalibrationRefusal::takes_too_long);
  plan.pause_s = 1;  // 3568
  assert_true(check(plan) == CalibrationRefusal::none);
  plan.pause_s = 1.8;
  assert_true(check(plan) == CalibrationRefusal::none);
  plan.pause_s = 1.81;
  assert_true(check(plan) == CalibrationRefusal::takes_too_long);
}

void the_hour_includes_trial_warm_up_and_grace(void **) {
  CalibrationPlan plan = plan_of({1});
  plan.pause_s = 0;
  plan.seconds_per_size = 600;  // three phases of twice as long
  assert_true(check(plan) == CalibrationRefusal::none);
  plan.seconds_per_size = 601;
  assert_true(check(plan) == CalibrationRefusal::takes_too_long);

  // Short measurements, but two seconds to end for each of them.
  for (int size = 2; size <= static_cast<int>(kMostCalibrationSizes); size++) plan.sizes.sizes[plan.sizes.count++] = size;
  plan.seconds_per_size = kShortestMeasurement_s;
  plan.rounds = 27;
  assert_true(check(plan) == CalibrationRefusal::none);
  plan.rounds = 28;
  assert_true(check(plan) == CalibrationRefusal::takes_too_long);
}

void the_grace_is_as_long_again_and_two_seconds_at_least(void **) {
  CalibrationPlan plan = plan_of({1});
  plan.seconds_per_size = 0.5;
  assert_float_equal(cut_off_s(plan), 2.5, 1e-9);
  plan.seconds_per_size = 10;
  assert_float_equal(cut_off_s(plan), 20, 1e-9);
}

// What is remembered of a calibration has a place for each size, the best one among them.
void all_sizes_of_a_calibration_can_be_remembered(void **) {
  assert_true(kCalibrationPoints >= kMostCalibrationSizes);
  CalibrationFacts facts;
  for (int size = 1; size <= static_cast<int>(kMostCalibrationSizes); size++) {
    facts.sizes[facts.count] = size;
    facts.transactions_per_s[facts.count++] = 10.0 * size;
  }
  for (int size = 1; size <= static_cast<int>(kMostCalibrationSizes); size++)
    assert_float_equal(calibrated_transactions_per_s(facts, size), 10.0 * size, 1e-9);
}

void refusals_have_phrases_of_their_own(void **) {
  for (int i = 0; i <= static_cast<int>(CalibrationRefusal::takes_too_long); i++) {
    const auto phrase = calibration_refusal_phrase(static_cast<CalibrationRefusal>(i));
    assert_false(phrase.empty());
    for (int k = 0; k < i; k++) assert_true(phrase != calibration_refusal_phrase(static_cast<CalibrationRefusal>(k)));
  }
}

// ---------------------------------------------------------------- the order

void each_round_measures_each_size_once(void **) {
  for (std::size_t count = 0; count <= kMostCalibrationSizes; count++) {
    for (int round = 0; round < 6; round++) {
      CalibrationOrder order = order_of_round(count, round);
      std::sort(order.order, order.order + count);
      for (std::size_t i = 0; i < count; i++) assert_int_equal(order.order[i], i);
    }
  }
}

void every_second_round_goes_backwards(void **) {
  constexpr std::size_t count = 8;
  for (int round : {0, 2, 4}) {
    const CalibrationOrder there = order_of_round(count, round);
    const CalibrationOrder back = order_of_round(count, round + 1);
    for (std::size_t i = 0; i < count; i++) assert_int_equal(there.order[i], back.order[count - 1 - i]);
  }
}

void the_order_is_always_the_same_and_not_that_of_the_sizes(void **) {
  constexpr std::size_t count = 8;
  const CalibrationOrder first = order_of_round(count, 0);
  const CalibrationOrder again = order_of_round(count, 0);
  const CalibrationOrder third = order_of_round(count, 2);
  assert_true(std::equal(first.order, first.order + count, again.order));
  assert_false(std::is_sorted(first.order, first.order + count));
  assert_false(std::equal(first.order, first.order + count, third.order));
}

// ---------------------------------------------------------------- the verdict

void the_median_is_in_the_middle(void **) {
  double odd[] = {5, 1, 3};
  double even[] = {8, 2, 4, 1};
  assert_float_equal(median(odd, 3), 3, 1e-12);
  assert_float_equal(median(even, 4), 3, 1e-12);
  assert_float_equal(median(odd, 1), 1, 1e-12);
  assert_float_equal(median(nullptr, 0), 0, 1e-12);
}

void the_smallest_size_near_the_greatest_throughput_is_the_best(void **) {
  const CalibrationPoint points[] = {{1, true, 50}, {2, true, 96.9}, {4, true, 97}, {8, true, 100}, {16, true, 90}};
  const CalibrationVerdict verdict = judge(points, 5);
  assert_int_equal(verdict.best, 2);
  assert_float_equal(verdict.greatest_per_second, 100, 1e-12);
}

void sizes_need_not_be_in_order(void **) {
  const CalibrationPoint points[] = {{8, true, 100}, {2, true, 99}, {4, true, 98}};
  assert_int_equal(judge(points, 3).best, 1);
}

void what_was_not_measured_cannot_be_the_best(void **) {
  const CalibrationPoint points[] = {{1, true, 10}, {2, false, 500}, {4, true, 20}};
  const CalibrationVerdict verdict = judge(points, 3);
  assert_int_equal(verdict.best, 2);
  assert_float_equal(verdict.greatest_per_second, 20, 1e-12);
}

void nothing_is_the_best_where_nothing_was_done(void **) {
  const CalibrationPoint idle[] = {{1, true, 0}, {2, true, 0}};
  assert_true(judge(idle, 2).best == kNoBestSize);
  const CalibrationPoint absent[] = {{1, false, 0}};
  assert_true(judge(absent, 1).best == kNoBestSize);
  assert_true(judge(nullptr, 0).best == kNoBestSize);
}

// ---------------------------------------------------------------- numbers

void throughput_is_transactions_over_time(void **) {
  assert_float_equal(per_second(100, 2000000), 50, 1e-9);
  assert_float_equal(per_second(0, 0), 0, 1e-9);
  assert_true(std::isfinite(per_second(1, 0)));
  assert_true(per_second(1, -5) > 0);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(small_machines_are_tried_up_to_sixteen),
      cmocka_unit_test(larger_ones_up_to_four_times_the_rule),
      cmocka_unit_test(the_size_of_the_rule_and_the_limit_are_among_them),
      cmocka_unit_test(no_size_is_above_what_is_available),
      cmocka_unit_test(any_rule_gives_a_plan_that_is_allowed),
      cmocka_unit_test(sizes_are_sorted_and_taken_once),
      cmocka_unit_test(a_quarter_of_the_free_slots_is_left_and_two_at_least),
      cmocka_unit_test(a_sensible_plan_is_accepted),
      cmocka_unit_test(sizes_out_of_range_are_refused),
      cmocka_unit_test(times_and_rounds_out_of_range_are_refused),
      cmocka_unit_test(an_hour_is_the_longest),
      cmocka_unit_test(the_hour_includes_trial_warm_up_and_grace),
      cmocka_unit_test(the_grace_is_as_long_again_and_two_seconds_at_least),
      cmocka_unit_test(all_sizes_of_a_calibration_can_be_remembered),
      cmocka_unit_test(refusals_have_phrases_of_their_own),
      cmocka_unit_test(each_round_measures_each_size_once),
      cmocka_unit_test(every_second_round_goes_backwards),
      cmocka_unit_test(the_order_is_always_the_same_and_not_that_of_the_sizes),
      cmocka_unit_test(the_median_is_in_the_middle),
      cmocka_unit_test(the_smallest_size_near_the_greatest_throughput_is_the_best),
      cmocka_unit_test(sizes_need_not_be_in_order),
      cmocka_unit_test(what_was_not_measured_cannot_be_the_best),
      cmocka_unit_test(nothing_is_the_best_where_nothing_was_done),
      cmocka_unit_test(throughput_is_transactions_over_time),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
