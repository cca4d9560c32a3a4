// SPDX-License-Identifier: PostgreSQL
//
// Verdicts on what can run out, and their words.

#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstring>

extern "C" {
#include <cmocka.h>
}

#include "core/stats/pressure.hpp"

namespace {

using sluice::judge_pressure;
using sluice::judge_trend;
using sluice::most_slots_in_use;
using sluice::PoolSlotsSeen;
using sluice::PressureVerdict;
using sluice::Resource;
using sluice::ResourceKind;
using sluice::ResourceUse;
using sluice::TextWriter;
using sluice::Trend;
using sluice::Verdict;

ResourceUse use_of(double used, double maximum) {
  ResourceUse use;
  use.known = true;
  use.used = use.peak = used;
  use.maximum = maximum;
  return use;
}

ResourceUse moving(double used, double maximum, double per_minute) {
  ResourceUse use = use_of(used, maximum);
  use.has_trend = true;
  use.trend_per_minute = per_minute;
  return use;
}

Verdict verdict_on(const ResourceUse &use, ResourceKind kind = ResourceKind::amount) {
  return judge_pressure(kind, use).verdict;
}

void assert_words(const ResourceUse &use, Resource resource, const char *expected) {
  char words[300];
  TextWriter text(words, sizeof(words));
  describe(judge_pressure(kind_of(resource), use), resource, "no such file", text);
  assert_string_equal(words, expected);
}

void what_is_not_known_is_not_judged(void **) {
  assert_true(verdict_on(ResourceUse{}) == Verdict::unknown);
  assert_true(judge_trend(ResourceKind::amount, ResourceUse{}) == Trend::unknown);
  assert_words(ResourceUse{}, Resource::cpu_pressure, "unknown: no such file");
  char words[300];
  TextWriter text(words, sizeof(words));
  describe(PressureVerdict{}, Resource::load, nullptr, text);
  assert_string_equal(words, "unknown: no reason given");
}

void half_is_fine_and_nine_tenths_are_close(void **) {
  assert_true(verdict_on(use_of(0, 100)) == Verdict::ok);
  assert_true(verdict_on(use_of(89, 100)) == Verdict::ok);
  assert_true(verdict_on(use_of(90, 100)) == Verdict::close);
  assert_true(verdict_on(use_of(99, 100)) == Verdict::close);
  assert_true(verdict_on(use_of(100, 100)) == Verdict::exhausted);
  assert_true(verdict_on(use_of(101, 100)) == Verdict::exhausted);
  assert_words(use_of(1, 100), Resource::backends, "ok");
  assert_words(use_of(9, 10), Resource::backends, "close to the limit");
  assert_words(use_of(10, 10), Resource::client_slots, "exhausted: new clients are refused");
}

void without_a_limit_nothing_is_close(void **) {
  assert_true(verdict_on(use_of(1e9, -1)) == Verdict::ok);
  assert_true(verdict_on(use_of(1e9, -1), ResourceKind::load) == Verdict::ok);
  assert_true(verdict_on(use_of(0, 0)) == Verdict::exhausted);  // none is allowed
}

void a_peak_at_the_limit_is_remembered(void **) {
  ResourceUse use = use_of(3, 10);
  use.peak = 10;
  assert_true(verdict_on(use) == Verdict::limit_was_reached);
  assert_words(use, Resource::connections, "ok now; the limit has been reached");
  use.used = 9;
  assert_true(verdict_on(use) == Verdict::close);
}

void a_rise_is_foreseen_from_half_on_and_within_an_hour(void **) {
  assert_words(moving(60, 100, 3.3), Resource::connections, "will be reached in about 12 min at this rate");
  assert_words(moving(60, 100, 80), Resource::connections, "will be reached in less than a minute at this rate");
  assert_words(moving(95, 100, 2), Resource::connections,
               "close to the limit, which will be reached in about 3 min at this rate");  // 2.5, rounded
  assert_true(verdict_on(moving(49, 100, 50)) == Verdict::ok);
  assert_true(verdict_on(moving(600, 1000, 10)) == Verdict::will_be_reached);
  assert_true(verdict_on(moving(500, 10000, 10)) == Verdict::ok);
  assert_true(verdict_on(moving(6000, 10000, 100)) == Verdict::will_be_reached);
  assert_true(verdict_on(moving(6000, 10000, 50)) == Verdict::ok);  // steady
  assert_true(verdict_on(moving(60, 100, -20)) == Verdict::ok);
  assert_true(judge_pressure(ResourceKind::amount, moving(60, 100, -20)).minutes_left < 0);
  assert_true(judge_pressure(ResourceKind::amount, moving(100, 100, 20)).minutes_left < 0);
}

void little_change_is_steady(void **) {
  assert_true(judge_trend(ResourceKind::amount, moving(10, 1000, 9)) == Trend::steady);
  assert_true(judge_trend(ResourceKind::amount, moving(10, 1000, 10)) == Trend::rising);
  assert_true(judge_trend(ResourceKind::amount, moving(10, 1000, -10)) == Trend::falling);
  assert_true(judge_trend(ResourceKind::amount, moving(1, 4, 0.4)) == Trend::steady);
  assert_true(judge_trend(ResourceKind::amount, moving(1, 4, 0.5)) == Trend::rising);
  assert_true(judge_trend(ResourceKind::rate, moving(10, 100, 4)) == Trend::steady);
  assert_true(judge_trend(ResourceKind::rate, moving(10, 100, 5)) == Trend::rising);
  assert_string_equal(sluice::describe(Trend::rising), "rising");
  assert_string_equal(sluice::describe(Trend::falling), "falling");
  assert_string_equal(sluice::describe(Trend::steady), "steady");
  assert_null(sluice::describe(Trend::unknown));
}

void shares_of_time_are_judged_by_how_much_stands_still(void **) {
  assert_true(verdict_on(use_of(10, 100), ResourceKind::rate) == Verdict::ok);
  assert_true(verdict_on(use_of(10.5, 100), ResourceKind::rate) == Verdict::busy);
  assert_true(verdict_on(use_of(40, 100), ResourceKind::rate) == Verdict::busy);
  assert_true(verdict_on(use_of(100, 100), ResourceKind::rate) == Verdict::overloaded);
  assert_words(use_of(30, 100), Resource::io_pressure, "busy: tasks wait for disks");
  assert_words(use_of(60, 100), Resource::cpu_pressure, "overloaded: tasks wait for a processor");
}

void load_is_judged_by_the_processors(void **) {
  assert_true(verdict_on(use_of(8, 8), ResourceKind::load) == Verdict::ok);
  assert_true(verdict_on(use_of(9, 8), ResourceKind::load) == Verdict::busy);
  assert_true(verdict_on(use_of(17, 8), ResourceKind::load) == Verdict::overloaded);
}

void every_resource_has_a_name_of_its_own_a_unit_and_a_consequence(void **) {
  for (std::size_t i = 0; i < sluice::kResources; i++) {
    const auto resource = static_cast<Resource>(i);
    assert_true(std::strlen(name_of(resource)) > 0 && std::strlen(unit_of(resource)) > 0);
    assert_true(std::strlen(consequence_of(resource)) > 0);
    for (std::size_t other = 0; other < i; other++) {
      assert_string_not_equal(name_of(resource), name_of(static_cast<Resource>(other)));
    }
  }
  assert_int_equal(static_cast<std::size_t>(Resource::pool_slots), sluice::kServerResources);
  assert_int_equal(static_cast<std::size_t>(Resource::wait_queue) + 1, sluice::kResources);
}

void who_had_to_queue_found_all_slots_in_use(void **) {
  PoolSlotsSeen seen;
  seen.busy = 2;
  seen.backends = 5;
  seen.max_size = 10;
  assert_int_equal(most_slots_in_use(seen), 2);
  seen.queued = true;
  assert_int_equal(most_slots_in_use(seen), 5);
  seen.resting = 2;
  assert_int_equal(most_slots_in_use(seen), 3);
  seen.peak_backends = 9;
  assert_int_equal(most_slots_in_use(seen), 7);
  seen.max_size = 4;
  assert_int_equal(most_slots_in_use(seen), 4);
  seen.busy = 6;  // more than the maximum, which has been lowered
  assert_int_equal(most_slots_in_use(seen), 6);
  seen.resting = -1;  // gauges are changed one after the other
  assert_int_equal(most_slots_in_use(seen), 6);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(what_is_not_known_is_not_judged),
      cmocka_unit_test(half_is_fine_and_nine_tenths_are_close),
      cmocka_unit_test(without_a_limit_nothing_is_close),
      cmocka_unit_test(a_peak_at_the_limit_is_remembered),
      cmocka_unit_test(a_rise_is_foreseen_from_half_on_and_within_an_hour),
      cmocka_unit_test(little_change_is_steady),
      cmocka_unit_test(shares_of_time_are_judged_by_how_much_stands_still),
      cmocka_unit_test(load_is_judged_by_the_processors),
      cmocka_unit_test(every_resource_has_a_name_of_its_own_a_unit_and_a_consequence),
      cmocka_unit_test(who_had_to_queue_found_all_slots_in_use),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
