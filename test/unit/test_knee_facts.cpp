// SPDX-License-Identifier: PostgreSQL
//
// From backends that execute to the size of a pool, and between measured sizes.

#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>

extern "C" {
#include <cmocka.h>
}

#include "core/tuning/knee_facts.hpp"

namespace {

using namespace sluice;

void few_saturated_seconds_say_nothing(void **) {
  double ratios[kLeastSaturatedSeconds] = {};
  for (double &ratio : ratios) ratio = 3;
  assert_true(find_active_per_slot(ratios, kLeastSaturatedSeconds - 1) == 1);
  assert_true(find_active_per_slot(ratios, kLeastSaturatedSeconds) == 3);
  assert_true(find_active_per_slot(nullptr, 0) == 1);
}

void a_pool_never_lets_in_fewer_than_its_size(void **) {
  double ratios[20] = {};
  for (double &ratio : ratios) ratio = 0.7;
  assert_true(find_active_per_slot(ratios, 20) == 1);
}

void one_stall_is_not_the_rule(void **) {
  double ratios[21] = {};
  for (double &ratio : ratios) ratio = 2;
  ratios[3] = 50;
  assert_true(find_active_per_slot(ratios, 21) == 2);
}

void the_knee_becomes_a_pool_size(void **) {
  KneeFacts facts;
  assert_int_equal(knee_as_pool_size(facts), 0);
  facts.fit.knee = 6;
  assert_int_equal(knee_as_pool_size(facts), 6);
  facts.active_per_slot = 2.9;
  assert_int_equal(knee_as_pool_size(facts), 2);
  facts.active_per_slot = 100;
  assert_int_equal(knee_as_pool_size(facts), 1);
}

void calibrations_are_read_between_their_points_and_not_beyond(void **) {
  CalibrationFacts facts;
  assert_true(calibrated_transactions_per_s(facts, 1) == 0);
  facts.count = 2;
  facts.sizes[0] = 2;
  facts.sizes[1] = 4;
  facts.transactions_per_s[0] = 100;
  facts.transactions_per_s[1] = 200;
  assert_true(calibrated_transactions_per_s(facts, 1) == 0);
  assert_true(calibrated_transactions_per_s(facts, 2) == 100);
  assert_true(calibrated_transactions_per_s(facts, 3) == 150);
  assert_true(calibrated_transactions_per_s(facts, 4) == 200);
  assert_true(calibrated_transactions_per_s(facts, 5) == 0);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(few_saturated_seconds_say_nothing),
      cmocka_unit_test(a_pool_never_lets_in_fewer_than_its_size),
      cmocka_unit_test(one_stall_is_not_the_rule),
      cmocka_unit_test(the_knee_becomes_a_pool_size),
      cmocka_unit_test(calibrations_are_read_between_their_points_and_not_beyond),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
