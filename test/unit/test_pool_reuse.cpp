// SPDX-License-Identifier: PostgreSQL
//
// Whose slot a new pool gets.

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <csetjmp>
#include <initializer_list>

extern "C" {
#include <cmocka.h>
}

#include "core/pool/pool_reuse.hpp"

namespace {

using sluice::better_slot;
using sluice::is_to_be_released;
using sluice::PoolUse;
using sluice::SlotAction;
using sluice::SlotChoice;

constexpr PoolUse kFree{};
constexpr PoolUse kServing{true, false, 2, 1, 10};

constexpr PoolUse empty(std::int64_t since_us) { return PoolUse{true, false, 0, 0, since_us}; }
constexpr PoolUse warm(std::int64_t since_us) { return PoolUse{true, false, 0, 2, since_us}; }
constexpr PoolUse gone(int backends) { return PoolUse{true, true, 0, backends, 99}; }

SlotChoice choose(std::initializer_list<PoolUse> pools) {
  SlotChoice choice;
  std::uint32_t index = 0;
  for (const PoolUse &pool : pools) choice = better_slot(choice, index++, pool);
  return choice;
}

void assert_choice(const SlotChoice &choice, SlotAction action, std::uint32_t index) {
  assert_true(choice.action == action);
  if (action != SlotAction::none) assert_int_equal(choice.index, index);
}

void a_pool_with_clients_keeps_its_slot(void **) {
  assert_choice(choose({}), SlotAction::none, 0);
  assert_choice(choose({kServing, kServing}), SlotAction::none, 0);
  assert_choice(choose({PoolUse{true, true, 1, 0, 0}}), SlotAction::none, 0);
}

void a_free_slot_is_taken_first(void **) {
  assert_choice(choose({kServing, empty(1), gone(0), kFree, kFree}), SlotAction::take, 3);
}

void then_that_of_a_pool_nobody_can_come_back_to(void **) {
  assert_choice(choose({empty(1), gone(0), warm(1)}), SlotAction::take, 1);
}

void then_the_empty_one_that_has_been_unused_for_longest(void **) {
  assert_choice(choose({empty(5), empty(3), empty(4), warm(1)}), SlotAction::take, 1);
}

void backends_of_the_one_unused_for_longest_leave_last(void **) {
  assert_choice(choose({kServing, warm(5), warm(3), warm(4)}), SlotAction::vacate, 2);
  assert_choice(choose({warm(1), gone(2)}), SlotAction::vacate, 1);
}

void only_pools_that_are_gone_and_without_clients_are_released_unasked(void **) {
  assert_true(is_to_be_released(gone(0)));
  assert_true(is_to_be_released(gone(3)));
  assert_false(is_to_be_released(empty(1)));
  assert_false(is_to_be_released(kFree));
  assert_false(is_to_be_released(PoolUse{true, true, 1, 0, 0}));
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(a_pool_with_clients_keeps_its_slot),
      cmocka_unit_test(a_free_slot_is_taken_first),
      cmocka_unit_test(then_that_of_a_pool_nobody_can_come_back_to),
      cmocka_unit_test(then_the_empty_one_that_has_been_unused_for_longest),
      cmocka_unit_test(backends_of_the_one_unused_for_longest_leave_last),
      cmocka_unit_test(only_pools_that_are_gone_and_without_clients_are_released_unasked),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
