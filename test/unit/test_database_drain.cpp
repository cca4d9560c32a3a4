// SPDX-License-Identifier: PostgreSQL
//
// Who makes way for a statement that wants a database for itself.

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <csetjmp>

extern "C" {
#include <cmocka.h>
}

#include "core/pool/database_drain.hpp"

namespace {

using sluice::decide_drain;
using sluice::DrainStep;
using sluice::DrainView;
using sluice::kDrainPatienceUs;

DrainView view(int clients, int backends) {
  DrainView result;
  result.clients = clients;
  result.backends = backends;
  return result;
}

void clients_are_waited_for_and_then_refused_for(void **) {
  DrainView now = view(1, 2);
  assert_true(decide_drain(now) == DrainStep::wait);
  now.waited_us = kDrainPatienceUs - 1;
  assert_true(decide_drain(now) == DrainStep::wait);
  now.waited_us = kDrainPatienceUs;
  assert_true(decide_drain(now) == DrainStep::refuse);
}

// A statement that is refused must have changed nothing.
void no_backend_is_told_to_leave_while_there_are_clients(void **) {
  for (int backends = 0; backends < 4; backends++)
    for (std::int64_t waited_us = 0; waited_us <= 2 * kDrainPatienceUs; waited_us += kDrainPatienceUs / 2) {
      DrainView now = view(1, backends);
      now.waited_us = waited_us;
      const DrainStep step = decide_drain(now);
      assert_true(step == DrainStep::wait || step == DrainStep::refuse);
    }
}

void clients_are_told_to_leave_once_if_forced(void **) {
  DrainView now = view(3, 1);
  now.force = true;
  assert_true(decide_drain(now) == DrainStep::tell_clients);
  now.clients_told = true;
  assert_true(decide_drain(now) == DrainStep::wait);
  now.waited_us = kDrainPatienceUs;
  assert_true(decide_drain(now) == DrainStep::refuse);
}

void nobody_is_told_to_leave_by_force_if_there_is_no_client(void **) {
  DrainView now = view(0, 1);
  now.force = true;
  assert_true(decide_drain(now) == DrainStep::tell_backends);
}

void backends_are_told_even_when_patience_has_run_out(void **) {
  DrainView now = view(0, 2);
  now.waited_us = kDrainPatienceUs;
  assert_true(decide_drain(now) == DrainStep::tell_backends);
}

void backends_are_waited_for_and_then_left_to_the_server(void **) {
  DrainView now = view(0, 2);
  now.backends_told = true;
  assert_true(decide_drain(now) == DrainStep::wait);
  now.waited_us = kDrainPatienceUs;
  assert_true(decide_drain(now) == DrainStep::proceed);
}

void the_dispatcher_looks_before_the_statement_goes_on(void **) {
  DrainView now = view(0, 0);
  assert_true(decide_drain(now) == DrainStep::ask_dispatcher);
  now.dispatcher_has_looked = true;
  assert_true(decide_drain(now) == DrainStep::proceed);
}

void a_dispatcher_that_does_not_look_up_holds_nothing_up_for_ever(void **) {
  DrainView now = view(0, 0);
  now.waited_us = kDrainPatienceUs;
  assert_true(decide_drain(now) == DrainStep::proceed);
}

void a_client_that_was_let_in_meanwhile_is_in_the_way(void **) {
  DrainView now = view(1, 0);
  now.dispatcher_has_looked = true;
  now.backends_told = true;
  assert_true(decide_drain(now) == DrainStep::wait);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(clients_are_waited_for_and_then_refused_for),
      cmocka_unit_test(no_backend_is_told_to_leave_while_there_are_clients),
      cmocka_unit_test(clients_are_told_to_leave_once_if_forced),
      cmocka_unit_test(nobody_is_told_to_leave_by_force_if_there_is_no_client),
      cmocka_unit_test(backends_are_told_even_when_patience_has_run_out),
      cmocka_unit_test(backends_are_waited_for_and_then_left_to_the_server),
      cmocka_unit_test(the_dispatcher_looks_before_the_statement_goes_on),
      cmocka_unit_test(a_dispatcher_that_does_not_look_up_holds_nothing_up_for_ever),
      cmocka_unit_test(a_client_that_was_let_in_meanwhile_is_in_the_way),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
