// SPDX-License-Identifier: PostgreSQL
//
// When an application probably waits for itself, and when a transaction is in the
// way of others.

#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>

extern "C" {
#include <cmocka.h>
}

#include "core/pool/leak.hpp"
#include "core/pool/nested_acquire.hpp"
#include "core/pool/shared_state.hpp"

namespace {

using sluice::ClientAddress;
using sluice::Holding;
using sluice::HoldObservation;
using sluice::identify_client;
using sluice::is_leak;
using sluice::is_served_before;
using sluice::judge_holding;
using sluice::kMostLookedAt;
using sluice::kNestedCalmUs;
using sluice::kLeastNestedPatienceUs;
using sluice::kThoughtMemory;
using sluice::NestedAcquire;
using sluice::nested_patience_us;
using sluice::NestedAcquireSearch;
using sluice::passed_over_limit_us;
using sluice::remember_thought;
using sluice::serves_by_preference;
using sluice::WaitingClient;

constexpr std::int64_t kPatience = 1000;
constexpr std::int64_t kLong = 10 * kPatience;

void nothing_seen_is_nothing_nested(void **) {
  const NestedAcquireSearch search;
  assert_false(search.decide(kPatience).probable);
}

void holders_that_each_have_a_waiter_are_nested(void **) {
  NestedAcquireSearch search;
  for (int i = 0; i < 3; i++) search.add_holder(7, 100 + 7, kLong);
  for (int i = 0; i < 5; i++) search.add_waiter(7);
  const NestedAcquire answer = search.decide(kPatience);
  assert_true(answer.probable);
  assert_int_equal(answer.threads, 5);
  assert_int_equal(answer.minimum, 6);
  assert_int_equal(answer.client, 107);
  assert_true(answer.for_us == kLong);
}

void a_holder_without_a_waiter_may_finish(void **) {
  NestedAcquireSearch search;
  for (int i = 0; i < 3; i++) search.add_holder(7, 100 + 7, kLong);
  search.add_waiter(7);
  search.add_waiter(7);
  assert_false(search.decide(kPatience).probable);
}

void one_application_that_can_go_on_frees_the_others(void **) {
  NestedAcquireSearch search;
  search.add_holder(7, 100 + 7, kLong);
  search.add_holder(8, 100 + 8, kLong);
  search.add_waiter(7);
  assert_false(search.decide(kPatience).probable);
  search.add_waiter(8);
  assert_true(search.decide(kPatience).probable);
}

void waiters_of_applications_that_hold_nothing_do_not_count(void **) {
  NestedAcquireSearch search;
  search.add_holder(7, 107, kLong);
  assert_false(search.add_waiter(8));
  assert_false(search.add_waiter(9));
  assert_false(search.decide(kPatience).probable);
  assert_true(search.add_waiter(7));
  assert_int_equal(search.decide(kPatience).threads, 1);
  assert_int_equal(search.decide(kPatience).minimum, 2);
}

void a_backend_that_executes_will_be_free(void **) {
  NestedAcquireSearch search;
  search.add_holder(7, 100 + 7, kLong);
  search.add_waiter(7);
  search.add_busy();
  assert_false(search.decide(kPatience).probable);
}

void thinking_for_a_moment_is_no_deadlock(void **) {
  NestedAcquireSearch search;
  search.add_holder(7, 100 + 7, kLong);
  search.add_holder(7, 100 + 7, kPatience - 1);
  search.add_waiter(7);
  search.add_waiter(7);
  assert_false(search.decide(kPatience).probable);
}

void patience_grows_with_the_time_clients_usually_think(void **) {
  assert_true(nested_patience_us(0) == kLeastNestedPatienceUs);
  assert_true(nested_patience_us(kLeastNestedPatienceUs / 4) == kLeastNestedPatienceUs);
  assert_true(nested_patience_us(3 * kLeastNestedPatienceUs) == 6 * kLeastNestedPatienceUs);
  assert_true(nested_patience_us(INT64_MAX) == INT64_MAX);
}

void more_applications_than_fit_are_no_answer(void **) {
  NestedAcquireSearch search;
  for (std::uint64_t i = 1; i <= NestedAcquireSearch::kIdentities + 1; i++) {
    search.add_holder(i, 100 + i, kLong);
    search.add_waiter(i);
  }
  assert_false(search.decide(kPatience).probable);
}

void a_leak_is_long_in_the_way_and_not_yet_reported(void **) {
  HoldObservation hold;
  hold.held_us = 2000;
  hold.threshold_us = 1000;
  hold.waiting = 1;
  assert_true(is_leak(hold));
  hold.waiting = 0;
  assert_false(is_leak(hold));
  hold.waiting = 1;
  hold.held_us = 999;
  assert_false(is_leak(hold));
  hold.held_us = 1000;
  assert_true(is_leak(hold));
  hold.reported = true;
  assert_false(is_leak(hold));
  hold.reported = false;
  hold.threshold_us = 0;
  assert_false(is_leak(hold));
}

void clients_are_told_apart_by_address_process_and_name(void **) {
  ClientAddress address{};
  address.family = 4;
  const std::uint64_t one = identify_client(address, 0, "app");
  assert_true(one != 0);
  assert_true(identify_client(address, 0, "app") == one);
  assert_true(identify_client(address, 0, "other") != one);
  assert_true(identify_client(address, 77, "app") != one);
  address.port = 5555;  // each connection has another
  assert_true(identify_client(address, 0, "app") == one);
  address.bytes[3] = 1;
  assert_true(identify_client(address, 0, "app") != one);
}

// Seen at 10 s for the last time.
constexpr std::int64_t kSeenAt = 10'000'000;
constexpr std::int64_t kUntil = kSeenAt + kNestedCalmUs;
constexpr int kFew = 1;

void a_pool_that_never_saw_a_case_serves_who_came_first(void **) {
  assert_false(serves_by_preference(false, 0, kFew, 0));
  assert_false(serves_by_preference(false, 0, kFew, kSeenAt));
  // Set by another process, one after the other.
  assert_false(serves_by_preference(true, 0, kFew, kSeenAt));
}

void preference_lasts_as_long_as_the_case_however_many_wait(void **) {
  assert_true(serves_by_preference(true, kUntil, 0, kSeenAt));
  assert_true(serves_by_preference(true, kUntil, kFew, kSeenAt));
  assert_true(serves_by_preference(true, kUntil, kMostLookedAt + 1, kSeenAt));
  assert_true(serves_by_preference(true, kUntil, 4096, kUntil - 1));
}

void preference_lasts_for_a_while_afterwards_unless_too_many_wait(void **) {
  assert_true(serves_by_preference(false, kUntil, kFew, kSeenAt));
  assert_true(serves_by_preference(false, kUntil, kMostLookedAt, kUntil - 1));
  assert_false(serves_by_preference(false, kUntil, kMostLookedAt + 1, kSeenAt));
}

void preference_lasts_no_longer_than_that(void **) {
  assert_false(serves_by_preference(false, kUntil, kFew, kUntil));
  assert_false(serves_by_preference(true, kUntil, kFew, kUntil));
  assert_false(serves_by_preference(true, kUntil, kFew, kUntil + 1));
}

WaitingClient waiting(std::int64_t since_us, Holding holding, bool overdue = false) {
  return WaitingClient{since_us, holding, overdue};
}

void who_holds_briefly_is_served_first_then_who_is_not_known(void **) {
  const WaitingClient brief = waiting(100, Holding::brief), unknown = waiting(200, Holding::unknown),
                      thinks = waiting(300, Holding::thinks), thinks_longer_ready = waiting(50, Holding::thinks);
  assert_true(is_served_before(brief, unknown));
  assert_true(is_served_before(brief, thinks));
  assert_true(is_served_before(brief, thinks_longer_ready));
  assert_true(is_served_before(unknown, thinks));
  assert_false(is_served_before(unknown, brief));
  assert_false(is_served_before(thinks, unknown));
}

void of_equals_the_younger_is_served_first(void **) {
  for (const Holding holding : {Holding::brief, Holding::unknown, Holding::thinks}) {
    assert_true(is_served_before(waiting(200, holding), waiting(100, holding)));
    assert_false(is_served_before(waiting(100, holding), waiting(200, holding)));
    assert_false(is_served_before(waiting(100, holding), waiting(100, holding)));
  }
}

void who_has_been_passed_over_for_long_is_served_before_all_others(void **) {
  const WaitingClient overdue = waiting(100, Holding::thinks, true), later = waiting(150, Holding::brief, true);
  assert_true(is_served_before(overdue, waiting(200, Holding::brief)));
  assert_false(is_served_before(waiting(200, Holding::brief), overdue));
  assert_true(is_served_before(overdue, later));
  assert_false(is_served_before(later, overdue));
  assert_true(passed_over_limit_us(30'000'000) == 10'000'000);
  assert_true(passed_over_limit_us(4'000'000) == 2'000'000);
  assert_true(passed_over_limit_us(0) == 10'000'000);  // no limit of waiting
}

void holding_is_judged_by_thoughts_pins_and_experience(void **) {
  assert_true(judge_holding(0, false, 0) == Holding::unknown);
  assert_true(judge_holding(0, false, 1) == Holding::brief);
  assert_true(judge_holding(1, false, 100) == Holding::thinks);
  assert_true(judge_holding(0, true, 100) == Holding::thinks);
}

void a_long_thought_is_remembered_for_some_transactions(void **) {
  assert_int_equal(remember_thought(0, false), 0);
  std::uint32_t memory = remember_thought(0, true);
  for (std::uint32_t i = 0; i < kThoughtMemory; i++) {
    assert_true(memory > 0);
    memory = remember_thought(memory, false);
  }
  assert_int_equal(memory, 0);
  assert_int_equal(remember_thought(1, true), kThoughtMemory);
}

void a_gauge_below_zero_is_nobody_who_waits(void **) {
  assert_true(serves_by_preference(false, kUntil, -1, kSeenAt));
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(nothing_seen_is_nothing_nested),
      cmocka_unit_test(holders_that_each_have_a_waiter_are_nested),
      cmocka_unit_test(a_holder_without_a_waiter_may_finish),
      cmocka_unit_test(one_application_that_can_go_on_frees_the_others),
      cmocka_unit_test(waiters_of_applications_that_hold_nothing_do_not_count),
      cmocka_unit_test(a_backend_that_executes_will_be_free),
      cmocka_unit_test(thinking_for_a_moment_is_no_deadlock),
      cmocka_unit_test(patience_grows_with_the_time_clients_usually_think),
      cmocka_unit_test(more_applications_than_fit_are_no_answer),
      cmocka_unit_test(a_leak_is_long_in_the_way_and_not_yet_reported),
      cmocka_unit_test(clients_are_told_apart_by_address_process_and_name),
      cmocka_unit_test(a_pool_that_never_saw_a_case_serves_who_came_first),
      cmocka_unit_test(preference_lasts_as_long_as_the_case_however_many_wait),
      cmocka_unit_test(preference_lasts_for_a_while_afterwards_unless_too_many_wait),
      cmocka_unit_test(preference_lasts_no_longer_than_that),
      cmocka_unit_test(who_holds_briefly_is_served_first_then_who_is_not_known),
      cmocka_unit_test(of_equals_the_younger_is_served_first),
      cmocka_unit_test(who_has_been_passed_over_for_long_is_served_before_all_others),
      cmocka_unit_test(holding_is_judged_by_thoughts_pins_and_experience),
      cmocka_unit_test(a_long_thought_is_remembered_for_some_transactions),
      cmocka_unit_test(a_gauge_below_zero_is_nobody_who_waits),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
