// SPDX-License-Identifier: PostgreSQL
//
// The table of sequence values: its size, its look-up, the step that leads to a value, and what marks say about
// lastval().

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <csetjmp>
#include <cstdlib>
#include <initializer_list>
#include <limits>

extern "C" {
#include <cmocka.h>
}

#include "core/session/sequence_values.hpp"

namespace {

using sluice::find_sequence;
using sluice::kMaxSequences;
using sluice::sequence_capacity;
using sluice::sequence_table_bytes;
using sluice::SequenceMarks;
using sluice::SequenceStep;
using sluice::SequenceTable;
using sluice::SequenceValue;
using sluice::step_towards;

void capacity_is_enough_and_never_beyond_the_limit(void **) {
  std::uint32_t earlier = 0;
  for (std::uint32_t count = 1; count <= kMaxSequences; count++) {
    const std::uint32_t capacity = sequence_capacity(count);
    assert_true(capacity >= count);
    assert_true(capacity <= kMaxSequences);
    assert_true(capacity >= earlier);
    earlier = capacity;
  }
  assert_int_equal(earlier, kMaxSequences);
}

void a_growing_table_moves_seldom(void **) {
  int moves = 0;
  std::uint32_t capacity = 0;
  for (std::uint32_t count = 1; count <= kMaxSequences; count++) {
    if (count <= capacity) continue;
    capacity = sequence_capacity(count);
    moves++;
  }
  assert_true(moves <= 10);
  assert_true(sequence_capacity(1) <= 4);
}

void a_table_has_room_for_its_values(void **) {
  for (const std::uint32_t capacity : {1u, 4u, 64u, kMaxSequences}) {
    auto *table = static_cast<SequenceTable *>(std::malloc(sequence_table_bytes(capacity)));
    assert_non_null(table);
    const auto *end = reinterpret_cast<const char *>(table) + sequence_table_bytes(capacity);
    assert_ptr_equal(reinterpret_cast<const char *>(&table->values[0] + capacity), end);
    std::free(table);
  }
}

void finds_what_is_there(void **) {
  auto *table = static_cast<SequenceTable *>(std::calloc(1, sequence_table_bytes(8)));
  assert_non_null(table);
  table->capacity = 8;
  assert_null(find_sequence(*table, 16384));
  table->count = 3;
  SequenceValue *values = &table->values[0];
  for (std::uint32_t i = 0; i < 8; i++) values[i] = SequenceValue{16384 + i, 0, 10, 10, 1};
  for (std::uint32_t i = 0; i < 3; i++) assert_ptr_equal(find_sequence(*table, 16384 + i), &values[i]);
  assert_null(find_sequence(*table, 16387));
  assert_null(find_sequence(*table, 0));
  std::free(table);
}

void a_step_arrives(void **) {
  constexpr std::int64_t lowest = std::numeric_limits<std::int64_t>::min();
  constexpr std::int64_t highest = std::numeric_limits<std::int64_t>::max();
  for (const std::int64_t value : {lowest, lowest + 1, std::int64_t{-1}, std::int64_t{0}, std::int64_t{1}, highest}) {
    const SequenceStep step = step_towards(value);
    std::int64_t arrived;
    assert_false(__builtin_add_overflow(step.from, step.increment, &arrived));
    assert_true(arrived == value);
    assert_true(step.from != value);
  }
}

void marks_say_when_to_ask(void **) {
  SequenceMarks nothing;
  assert_false(nothing.any());
  assert_false(nothing.last_used_may_have_changed());

  SequenceMarks unused;
  unused.see(false, true);
  unused.see(false, false);
  assert_false(unused.any());
  assert_false(unused.last_used_may_have_changed());

  SequenceMarks same;
  same.see(false, false);
  same.see(true, true);
  assert_true(same.any());
  assert_false(same.last_used_may_have_changed());

  SequenceMarks other;
  other.see(true, true);
  other.see(true, false);
  assert_true(other.any());
  assert_true(other.last_used_may_have_changed());
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(capacity_is_enough_and_never_beyond_the_limit),
      cmocka_unit_test(a_growing_table_moves_seldom),
      cmocka_unit_test(a_table_has_room_for_its_values),
      cmocka_unit_test(finds_what_is_there),
      cmocka_unit_test(a_step_arrives),
      cmocka_unit_test(marks_say_when_to_ask),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
