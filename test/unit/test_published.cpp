// SPDX-License-Identifier: PostgreSQL
//
// Copies of published values are whole.

#include <atomic>
#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>

extern "C" {
#include <cmocka.h>
}

#include "core/stats/published.hpp"

namespace {

struct Value {
  std::uint64_t numbers[20];
  char tail[3];
};

using Slot = sluice::Published<Value>;

Value filled_with(std::uint64_t number) {
  Value value{};
  for (std::uint64_t &each : value.numbers) each = number;
  value.tail[2] = static_cast<char>(number);
  return value;
}

void nothing_is_read_before_it_is_published(void **) {
  const auto slot = std::make_unique<Slot>();
  Value value = filled_with(9);
  assert_false(slot->read(value));
  assert_int_equal(value.numbers[0], 9);
  slot->publish(filled_with(5));
  assert_true(slot->read(value));
  assert_int_equal(value.numbers[19], 5);
  assert_int_equal(value.tail[2], 5);
}

void a_writer_that_died_in_the_middle_is_passed_over(void **) {
  const auto slot = std::make_unique<Slot>();
  slot->publish(filled_with(1));
  slot->version.fetch_add(1);
  Value value{};
  assert_false(slot->read(value));
  slot->publish(filled_with(2));
  assert_true(slot->read(value));
  assert_int_equal(value.numbers[0], 2);
}

void no_copy_is_torn(void **) {
  const auto slot = std::make_unique<Slot>();
  std::atomic<bool> done{false};
  slot->publish(filled_with(0));
  std::thread writer([&] {
    for (std::uint64_t number = 1; number <= 100000; number++) slot->publish(filled_with(number));
    done = true;
  });
  bool whole = true;
  while (!done) {
    Value value{};
    if (!slot->read(value)) continue;
    for (const std::uint64_t each : value.numbers) whole &= each == value.numbers[0];
  }
  writer.join();
  assert_true(whole);
}

void versions_wrap_around_without_becoming_nothing(void **) {
  const auto slot = std::make_unique<Slot>();
  slot->version.store(0xfffffffeu);
  slot->publish(filled_with(3));
  Value value{};
  assert_true(slot->read(value));
  assert_int_equal(value.numbers[0], 3);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(nothing_is_read_before_it_is_published),
      cmocka_unit_test(a_writer_that_died_in_the_middle_is_passed_over),
      cmocka_unit_test(no_copy_is_torn),
      cmocka_unit_test(versions_wrap_around_without_becoming_nothing),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
