// SPDX-License-Identifier: PostgreSQL
//
// The two predicates of the hand-over, over all small numbers.

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <csetjmp>

extern "C" {
#include <cmocka.h>
}

#include "core/pool/hand_over.hpp"

namespace {

using sluice::needs_watcher;
using sluice::should_linger;
using sluice::should_poke;

static_assert(should_linger(1, 0, 0) && !needs_watcher(1, 0, 0), "usable at compile time");

template <typename Check>
void for_all_small_numbers(Check check) {
  for (int waiters = -1; waiters <= 3; waiters++) {
    for (int armed = -1; armed <= 3; armed++) {
      for (int queued = -1; queued <= 3; queued++) {
        check(waiters, armed, queued);
      }
    }
  }
}

void nobody_lingers_while_clients_are_queued(void **) {
  assert_false(should_linger(0, 0, 1));
  assert_false(should_linger(5, 5, 1));
}

void a_backend_lingers_while_others_wait_for_the_rest(void **) {
  assert_true(should_linger(1, 0, 0));
  assert_true(should_linger(1, 500, 0));
}

void a_backend_lingers_when_there_is_no_other_client(void **) {
  assert_true(should_linger(0, 0, 0));
}

void the_last_backend_goes_back_to_the_clients_in_the_set(void **) {
  assert_false(should_linger(0, 1, 0));
}

void a_watcher_is_needed_when_clients_have_no_waiting_backend(void **) {
  assert_true(needs_watcher(0, 1, 0));
  assert_true(needs_watcher(0, 0, 1));
  assert_false(needs_watcher(1, 1, 1));
  assert_false(needs_watcher(0, 0, 0));
}

void nobody_is_poked_where_nobody_lingers(void **) {
  assert_false(should_poke(0, 0, 2));
  assert_false(should_poke(-1, 0, 2));
}

void nobody_is_poked_while_others_keep_all_processors_busy(void **) {
  assert_true(should_poke(1, 0, 2));
  assert_true(should_poke(1, 1, 2));
  assert_false(should_poke(1, 2, 2));
  assert_false(should_poke(3, 3, 2));
  assert_true(should_poke(1, 100, 0));  // not known
  assert_true(should_poke(1, 1, 1));    // who asks is the one that runs
  assert_false(should_poke(1, 2, 1));
}

void gauges_below_zero_count_as_zero(void **) {
  const auto at_least_zero = [](int value) { return value < 0 ? 0 : value; };
  for_all_small_numbers([&](int waiters, int armed, int queued) {
    const int w = at_least_zero(waiters);
    const int a = at_least_zero(armed);
    const int q = at_least_zero(queued);
    assert_int_equal(should_linger(waiters, armed, queued), should_linger(w, a, q));
    assert_int_equal(needs_watcher(waiters, armed, queued), needs_watcher(w, a, q));
  });
}

// What makes lingering safe: where no watcher looks after other clients, a
// backend stays on its own only if a waiting one sees them, or there are none.
void no_client_is_overlooked_by_a_lingering_backend(void **) {
  for_all_small_numbers([](int waiters, int armed, int queued) {
    if (should_linger(waiters, armed, queued)) {
      assert_true(waiters > 0 || (armed <= 0 && queued <= 0));
      assert_false(needs_watcher(waiters, armed, queued));
    }
  });
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(nobody_lingers_while_clients_are_queued),
      cmocka_unit_test(a_backend_lingers_while_others_wait_for_the_rest),
      cmocka_unit_test(a_backend_lingers_when_there_is_no_other_client),
      cmocka_unit_test(the_last_backend_goes_back_to_the_clients_in_the_set),
      cmocka_unit_test(a_watcher_is_needed_when_clients_have_no_waiting_backend),
      cmocka_unit_test(nobody_is_poked_where_nobody_lingers),
      cmocka_unit_test(nobody_is_poked_while_others_keep_all_processors_busy),
      cmocka_unit_test(gauges_below_zero_count_as_zero),
      cmocka_unit_test(no_client_is_overlooked_by_a_lingering_backend),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
