// SPDX-License-Identifier: PostgreSQL
//
// When a backend has to go, and how long it lives.

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <csetjmp>
#include <initializer_list>
#include <limits>

extern "C" {
#include <cmocka.h>
}

#include "core/pool/growth_governor.hpp"

namespace {

using sluice::BackendLoad;
using sluice::decide_retirement;
using sluice::RetireReason;

constexpr std::int64_t kMillisecondUs = 1'000;
constexpr std::int64_t kSecondUs = 1'000'000;
constexpr std::int64_t kMinuteUs = 60 * kSecondUs;

// An idle backend of a pool of five that nothing speaks against.
BackendLoad calm_backend() {
  BackendLoad load;
  load.age.now_us = 100 * kMinuteUs;
  load.age.idle_since_us = load.age.now_us - kMinuteUs;
  load.age.expires_us = load.age.now_us + kMinuteUs;
  load.backends = 5;
  load.clients = 1;
  load.max_size = 10;
  load.idle_timeout_us = 10 * kMinuteUs;
  return load;
}

void a_backend_nothing_speaks_against_stays(void **) {
  assert_true(decide_retirement(calm_backend()) == RetireReason::none);
}

void a_backend_idle_for_the_timeout_leaves(void **) {
  BackendLoad load = calm_backend();
  load.age.idle_since_us = load.age.now_us - load.idle_timeout_us + 1;
  assert_true(decide_retirement(load) == RetireReason::none);
  load.age.now_us++;
  assert_true(decide_retirement(load) == RetireReason::idle);
  load.age.idle_since_us = 0;  // not idle
  assert_true(decide_retirement(load) == RetireReason::none);
}

void an_idle_timeout_of_zero_means_never(void **) {
  BackendLoad load = calm_backend();
  load.age.idle_since_us = 1;
  load.idle_timeout_us = 0;
  assert_true(decide_retirement(load) == RetireReason::none);
}

void idle_backends_leave_down_to_the_minimum(void **) {
  BackendLoad load = calm_backend();
  load.age.idle_since_us = 1;
  load.min_size = 4;
  assert_true(decide_retirement(load) == RetireReason::idle);
  load.retiring = 1;
  assert_true(decide_retirement(load) == RetireReason::none);
  load.clients = 0;  // a minimum is for the sake of clients
  assert_true(decide_retirement(load) == RetireReason::idle);
}

void a_backend_past_its_lifetime_leaves_whatever_the_minimum(void **) {
  BackendLoad load = calm_backend();
  load.min_size = 5;
  load.age.now_us = load.age.expires_us - 1;
  assert_true(decide_retirement(load) == RetireReason::none);
  load.age.now_us++;
  assert_true(decide_retirement(load) == RetireReason::lifetime);
  load.age.expires_us = 0;
  assert_true(decide_retirement(load) == RetireReason::none);
}

void a_pool_above_its_maximum_shrinks_after_the_grace(void **) {
  BackendLoad load = calm_backend();
  load.max_size = 4;
  load.age.idle_since_us = 0;  // busy pools shrink too
  assert_true(decide_retirement(load) == RetireReason::none);
  load.above_maximum_since_us = load.age.now_us - sluice::kAboveMaximumGraceUs + 1;
  assert_true(decide_retirement(load) == RetireReason::none);
  load.age.now_us++;
  assert_true(decide_retirement(load) == RetireReason::above_maximum);
  load.retiring = 1;
  assert_true(decide_retirement(load) == RetireReason::none);
}

void resting_backends_do_not_lift_a_pool_above_its_maximum(void **) {
  BackendLoad load = calm_backend();
  load.max_size = 4;
  load.resting = 1;
  load.above_maximum_since_us = 1;
  assert_true(decide_retirement(load) == RetireReason::none);
  assert_false(sluice::is_above_maximum(20, 0, 16, 4));
  assert_true(sluice::is_above_maximum(20, 0, 15, 4));
  assert_false(sluice::is_above_maximum(20, 1, 15, 4));
  assert_false(sluice::is_above_maximum(0, 1, 0, 0));
}

void a_resting_backend_that_is_leaving_counts_once(void **) {
  // Ten: one of three that rest has been told to leave, and is counted with those that leave.
  assert_false(sluice::is_above_maximum(10, 1, 2, 7));
  assert_true(sluice::is_above_maximum(10, 1, 2, 6));
}

void a_pinned_backend_does_not_leave_for_the_maximum(void **) {
  BackendLoad load = calm_backend();
  load.max_size = 4;
  load.above_maximum_since_us = 1;
  load.age.idle_since_us = 0;  // its client works
  load.pinned = true;
  assert_true(decide_retirement(load) == RetireReason::none);
  load.pinned = false;  // another one of the pool
  assert_true(decide_retirement(load) == RetireReason::above_maximum);
}

void a_pinned_backend_still_hears_of_its_lifetime_and_of_requests(void **) {
  BackendLoad load = calm_backend();
  load.pinned = true;
  load.age.idle_since_us = 0;
  load.age.expires_us = load.age.now_us;
  assert_true(decide_retirement(load) == RetireReason::lifetime);
  load.asked = RetireReason::changed_defaults;
  assert_true(decide_retirement(load) == RetireReason::changed_defaults);
}

void a_reason_given_by_others_stands(void **) {
  BackendLoad load = calm_backend();
  load.age.expires_us = 1;
  for (const RetireReason asked : {RetireReason::gave_way, RetireReason::requested, RetireReason::changed_defaults,
                                   RetireReason::shutdown}) {
    load.asked = asked;
    assert_true(decide_retirement(load) == asked);
  }
}

// ---------------------------------------------------------------- lifetime

void jitter_takes_up_to_a_fortieth(void **) {
  constexpr std::int64_t kLifetimeUs = 30 * kMinuteUs;
  constexpr std::uint32_t kGreatest = std::numeric_limits<std::uint32_t>::max();
  assert_int_equal(sluice::lifetime_with_jitter_us(kLifetimeUs, 0), kLifetimeUs);
  const std::int64_t least = sluice::lifetime_with_jitter_us(kLifetimeUs, kGreatest);
  assert_true(least > kLifetimeUs - kLifetimeUs / 40);
  assert_true(least <= kLifetimeUs - kLifetimeUs / 40 + 1);
  const std::int64_t middle = sluice::lifetime_with_jitter_us(kLifetimeUs, kGreatest / 2 + 1);
  assert_int_equal(middle, kLifetimeUs - kLifetimeUs / 80);
}

void jitter_does_not_overflow(void **) {
  constexpr std::int64_t kLongest = std::numeric_limits<std::int64_t>::max();
  const std::int64_t least = sluice::lifetime_with_jitter_us(kLongest, std::numeric_limits<std::uint32_t>::max());
  assert_true(least >= kLongest - kLongest / 40);
  assert_true(least < kLongest - kLongest / 41);
}

void short_lifetimes_have_no_jitter_and_zero_is_for_ever(void **) {
  assert_int_equal(sluice::lifetime_with_jitter_us(0, 12345), 0);
  assert_int_equal(sluice::lifetime_with_jitter_us(-1, 12345), 0);
  assert_int_equal(sluice::lifetime_with_jitter_us(10 * kSecondUs, 0xffffffffu), 10 * kSecondUs);
  assert_true(sluice::lifetime_with_jitter_us(11 * kSecondUs, 0xffffffffu) < 11 * kSecondUs);
}

void a_reserve_that_is_not_needed_leaves(void **) {
  BackendLoad load;
  load.age.now_us = 1000;
  load.age.idle_since_us = 900;
  load.backends = 3;
  load.clients = 3;
  load.min_size = 3;
  load.max_size = 3;
  assert_true(decide_retirement(load) == RetireReason::none);
  load.beyond_server = 1;
  assert_true(decide_retirement(load) == RetireReason::reserve);
  load.retiring = 1;  // it is on its way
  assert_true(decide_retirement(load) == RetireReason::none);
  load.retiring = 0;
  load.age.idle_since_us = 0;  // at work
  assert_true(decide_retirement(load) == RetireReason::none);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(a_backend_nothing_speaks_against_stays),
      cmocka_unit_test(a_backend_idle_for_the_timeout_leaves),
      cmocka_unit_test(an_idle_timeout_of_zero_means_never),
      cmocka_unit_test(idle_backends_leave_down_to_the_minimum),
      cmocka_unit_test(a_backend_past_its_lifetime_leaves_whatever_the_minimum),
      cmocka_unit_test(a_pool_above_its_maximum_shrinks_after_the_grace),
      cmocka_unit_test(resting_backends_do_not_lift_a_pool_above_its_maximum),
      cmocka_unit_test(a_resting_backend_that_is_leaving_counts_once),
      cmocka_unit_test(a_pinned_backend_does_not_leave_for_the_maximum),
      cmocka_unit_test(a_pinned_backend_still_hears_of_its_lifetime_and_of_requests),
      cmocka_unit_test(a_reason_given_by_others_stands),
      cmocka_unit_test(jitter_takes_up_to_a_fortieth),
      cmocka_unit_test(jitter_does_not_overflow),
      cmocka_unit_test(short_lifetimes_have_no_jitter_and_zero_is_for_ever),
      cmocka_unit_test(a_reserve_that_is_not_needed_leaves),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
