// SPDX-License-Identifier: PostgreSQL
//
// What sluice.monitor draws: honest at the ends, and never wider than it may be.

#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>

extern "C" {
#include <cmocka.h>
}

#include "core/stats/utilisation_bar.hpp"

namespace {

using sluice::PoolUse;

PoolUse use_of(std::int32_t executing, std::int32_t resting, std::int32_t size, std::int32_t waiting = 0) {
  PoolUse use;
  use.executing = executing;
  use.resting = resting;
  use.max_size = size;
  use.waiting = waiting;
  return use;
}

std::string bar(const PoolUse &use) {
  sluice::UtilisationBar text;
  sluice::draw_utilisation(use, text);
  return text;
}

std::string used(const PoolUse &use) {
  sluice::UseText text;
  sluice::write_use(use, text);
  return text;
}

std::string ms(std::uint64_t time_us) {
  sluice::TimeText text;
  sluice::write_ms(time_us, text);
  return text;
}

void bars_look_as_they_should(void **) {
  assert_string_equal(bar(use_of(0, 0, 10)).c_str(), "[..........]");
  assert_string_equal(bar(use_of(6, 0, 10)).c_str(), "[######....]");
  assert_string_equal(bar(use_of(5, 2, 10)).c_str(), "[#####==...]");
  assert_string_equal(bar(use_of(10, 0, 10)).c_str(), "[##########]");
  assert_string_equal(bar(use_of(1, 0, 1)).c_str(), "[##########]");
  assert_string_equal(bar(use_of(0, 3, 10)).c_str(), "[===.......]");
}

void something_is_always_shown_and_so_is_what_is_free(void **) {
  assert_string_equal(bar(use_of(1, 0, 1000)).c_str(), "[#.........]");
  assert_string_equal(bar(use_of(0, 1, 1000)).c_str(), "[=.........]");
  assert_string_equal(bar(use_of(1, 1, 1000)).c_str(), "[#=........]");
  assert_string_equal(bar(use_of(999, 0, 1000)).c_str(), "[#########.]");
  assert_string_equal(bar(use_of(999, 1, 1000)).c_str(), "[#########=]");
}

void more_than_the_size_fills_the_bar(void **) {
  assert_string_equal(bar(use_of(10, 10, 10)).c_str(), "[#####=====]");
  assert_string_equal(bar(use_of(0, 40, 2)).c_str(), "[==========]");
}

void nonsense_is_drawn_as_nothing(void **) {
  assert_string_equal(bar(use_of(-3, -1, 0)).c_str(), "[..........]");
  assert_string_equal(used(use_of(-3, -1, -1)).c_str(), "0/0");
}

void use_fits_into_seven_characters(void **) {
  assert_string_equal(used(use_of(8, 1, 10)).c_str(), "9/10");
  assert_string_equal(used(use_of(100, 0, 100)).c_str(), "100/100");
  assert_string_equal(used(use_of(5, 0, 10000)).c_str(), "5/10000");
  assert_string_equal(used(use_of(900, 0, 1500)).c_str(), "900/1k");
  assert_string_equal(used(use_of(12345, 0, 15000)).c_str(), "12k/15k");
}

void times_fit_into_six_characters(void **) {
  assert_string_equal(ms(0).c_str(), "0.00");
  assert_string_equal(ms(47).c_str(), "0.05");
  assert_string_equal(ms(9994).c_str(), "9.99");
  assert_string_equal(ms(9995).c_str(), "10.0");
  assert_string_equal(ms(12345).c_str(), "12.3");
  assert_string_equal(ms(999949).c_str(), "999.9");
  assert_string_equal(ms(999950).c_str(), "1000");
  assert_string_equal(ms(30000000).c_str(), "30000");
  assert_string_equal(ms(std::numeric_limits<std::uint64_t>::max()).c_str(), "999999");
}

void one_word_says_the_worst(void **) {
  assert_string_equal(sluice::use_word(use_of(0, 0, 10)), "idle");
  assert_string_equal(sluice::use_word(use_of(1, 0, 10)), "ok");
  assert_string_equal(sluice::use_word(use_of(7, 1, 10)), "busy");
  assert_string_equal(sluice::use_word(use_of(10, 0, 10)), "full");
  assert_string_equal(sluice::use_word(use_of(0, 30, 10)), "busy");
  assert_string_equal(sluice::use_word(use_of(10, 0, 10, 1)), "waiting");
  assert_string_equal(sluice::use_word(use_of(0, 0, 10, 1)), "waiting");
  PoolUse stuck = use_of(0, 10, 10, 1);
  stuck.stuck = true;
  assert_string_equal(sluice::use_word(stuck), "stuck");
}

void names_share_the_room(void **) {
  const auto check = [](std::size_t database, std::size_t role, std::size_t cut_database, std::size_t cut_role) {
    const sluice::LabelWidths widths = sluice::share_label(database, role, 14);
    assert_int_equal(widths.database, cut_database);
    assert_int_equal(widths.role, cut_role);
  };
  check(4, 3, 4, 3);
  check(8, 5, 8, 5);
  check(60, 3, 10, 3);
  check(3, 60, 3, 10);
  check(63, 63, 7, 6);
  check(0, 63, 0, 13);
}

void nothing_is_ever_too_wide(void **) {
  std::mt19937 random(4711);
  for (int round = 0; round < 200000; round++) {
    const auto number = [&random] {
      return static_cast<std::int32_t>(random() >> (random() % 32));
    };
    const PoolUse use = use_of(number(), number(), number(), number());
    const std::string drawn = bar(use);
    assert_int_equal(drawn.size(), sluice::kBarCells + 2);
    assert_true(drawn.find_first_not_of('#', 1) <= drawn.find_last_of("=#") + 1 || drawn[1] == '.');
    if (use.executing > 0) assert_true(drawn[1] == '#');
    if (use.resting > 0) assert_true(drawn.find('=') != std::string::npos);
    assert_true(used(use).size() <= 7);
    assert_true(std::strlen(sluice::use_word(use)) <= 7);
    const std::uint64_t time_us = (static_cast<std::uint64_t>(random()) << 32 | random()) >> (random() % 64);
    assert_true(ms(time_us).size() <= 6);
    const std::size_t database = random() % 64;
    const std::size_t role = random() % 64;
    const sluice::LabelWidths widths = sluice::share_label(database, role, 14);
    assert_true(widths.database + widths.role <= 13 && widths.database <= database && widths.role <= role);
    assert_true(database + role <= 13 ? widths.database == database && widths.role == role
                                      : widths.database + widths.role == 13);
  }
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(bars_look_as_they_should),
      cmocka_unit_test(something_is_always_shown_and_so_is_what_is_free),
      cmocka_unit_test(more_than_the_size_fills_the_bar),
      cmocka_unit_test(nonsense_is_drawn_as_nothing),
      cmocka_unit_test(use_fits_into_seven_characters),
      cmocka_unit_test(times_fit_into_six_characters),
      cmocka_unit_test(one_word_says_the_worst),
      cmocka_unit_test(names_share_the_room),
      cmocka_unit_test(nothing_is_ever_too_wide),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
