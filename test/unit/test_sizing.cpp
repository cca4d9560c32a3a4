// SPDX-License-Identifier: PostgreSQL
//
// The sizing rules, the miss ratio, and publishing what they rest on.

#include <atomic>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <csetjmp>
#include <cstring>
#include <memory>
#include <thread>

extern "C" {
#include <cmocka.h>
}

#include "core/tuning/machine_snapshot.hpp"
#include "core/tuning/sizing.hpp"

using namespace sluice;

namespace {

bool near(double a, double b) {
  return a - b < 1e-6 && b - a < 1e-6;
}

CoresDecision decide(double configured, int logical, int physical, double quota) {
  CoresFound found;
  found.configured = configured;
  found.logical_cpus = logical;
  found.physical_cores = physical;
  found.quota_cores = quota;
  return decide_cores(found);
}

void is(CoresDecision decision, double cores, CoresLimit limit) {
  assert_true(near(decision.cores, cores));
  assert_true(decision.limit == limit);
}

void cores_are_physical_ones_within_the_quota(void **) {
  is(decide(-1, 8, 4, -1), 4, CoresLimit::physical_cores);
  is(decide(-1, 8, 4, 2.5), 2.5, CoresLimit::quota);
  is(decide(-1, 8, 4, 4), 4, CoresLimit::physical_cores);
  is(decide(-1, 8, 4, 6), 4, CoresLimit::physical_cores);
  is(decide(-1, 8, 0, -1), 8, CoresLimit::logical_cpus);
  is(decide(-1, 8, 0, 0.5), 0.5, CoresLimit::quota);
}

void configured_cores_override_everything(void **) {
  is(decide(3.5, 8, 4, 1), 3.5, CoresLimit::configured);
}

void unknown_cores_are_one_or_the_quota(void **) {
  is(decide(-1, 0, 0, -1), 1, CoresLimit::unknown);
  is(decide(-1, 0, 0, 6), 6, CoresLimit::quota);
  is(decide(0, -1, -1, -1), 1, CoresLimit::unknown);
}

void spindles_count_as_far_as_the_cache_misses(void **) {
  assert_true(near(effective_spindles(10, 0.25), 2.5));
  assert_true(near(effective_spindles(10, 0), 0));
  assert_true(near(effective_spindles(10, 1), 10));
  assert_true(near(effective_spindles(10, 1.5), 10));
}

void what_is_unknown_counts_as_no_spindle(void **) {
  assert_true(near(effective_spindles(-1, 0.5), 0));
  assert_true(near(effective_spindles(10, -1), 0));
}

void the_rule_is_twice_the_cores_plus_spindles(void **) {
  assert_int_equal(rule_size(4, 1), 9);  // the example of both sources: four cores, one disk
  assert_int_equal(rule_size(2, 0), 4);
  assert_int_equal(rule_size(1.5, 0.4), 3);
  assert_int_equal(rule_size(1.5, 0.5), 4);
  assert_int_equal(rule_size(0.1, 0), 1);
  assert_int_equal(rule_size(0, 0), 1);
  assert_int_equal(rule_size(1e9, 0), kGreatestRuleSize);
}

void deadlock_minimum_leaves_one_thread_all_it_needs(void **) {
  assert_int_equal(deadlock_minimum(3, 4), 10);  // the examples of the source
  assert_int_equal(deadlock_minimum(8, 3), 17);
  assert_int_equal(deadlock_minimum(100, 1), 1);
  assert_int_equal(deadlock_minimum(0, 5), 1);
}

// ---------------------------------------------------------------- miss ratio

void miss_ratio_is_unknown_until_something_is_fetched(void **) {
  MissRatio misses;
  assert_true(misses.ratio() < 0);
  misses.look(0, 0);
  assert_true(misses.ratio() < 0);
  misses.look(-1, 0);
  assert_true(misses.ratio() < 0);
}

void few_fetches_are_judged_by_the_whole_past(void **) {
  MissRatio misses;
  misses.look(1000000, 900000);
  assert_true(near(misses.ratio(), 0.1));
  misses.look(1000010, 900000);  // ten misses in a row say little
  assert_true(misses.ratio() < 0.11);
}

void recent_fetches_weigh_more_than_the_past(void **) {
  MissRatio misses;
  misses.look(1000000, 0);
  misses.look(1010000, 10000);
  assert_true(near(misses.ratio(), 0));

  // A half-life after as many misses, they weigh half as much as the hits.
  MissRatio fading;
  fading.look(0, 0);
  fading.look(100000, 0);
  for (int i = 1; i < MissRatio::kHalfLife; ++i) fading.look(100000, 0);
  fading.look(200000, 100000);
  assert_true(near(fading.ratio(), 0.5 / 1.5));
}

void counters_that_fall_begin_anew(void **) {
  MissRatio misses;
  misses.look(0, 0);
  misses.look(1000000, 0);
  assert_true(near(misses.ratio(), 1));
  misses.look(2000, 2000);
  assert_true(near(misses.ratio(), 0));
}

void more_hits_than_fetches_are_no_misses(void **) {
  MissRatio misses;
  misses.look(0, 0);
  misses.look(5000, 5100);
  assert_true(near(misses.ratio(), 0));
}

// ---------------------------------------------------------------- the table

SizingTable table(int rule, int configured, int max_backends, std::int64_t clients) {
  SizingQuestion question;
  question.rule_size = rule;
  question.configured = configured;
  question.max_backends = max_backends;
  question.clients = clients;
  return decide_sizing(question);
}

SizingRule binding(const SizingTable &rules) {
  int count = 0;
  SizingRule rule{};
  for (const SizingRow &row : rules.rows) {
    if (!row.binds) continue;
    rule = row.rule;
    ++count;
  }
  assert_int_equal(count, 1);
  return rule;
}

void one_rule_is_in_force(void **) {
  assert_true(binding(table(5, -1, 100, 0)) == SizingRule::cores_and_spindles);
  assert_true(binding(table(5, 0, 100, 0)) == SizingRule::cores_and_spindles);
  assert_true(binding(table(5, 20, 100, 0)) == SizingRule::configured);
  assert_true(binding(table(5, 200, 100, 0)) == SizingRule::max_backends);
  assert_true(binding(table(5, -1, 3, 0)) == SizingRule::max_backends);
  assert_true(binding(table(0, -1, 100, 0)) == SizingRule::cores_and_spindles);
  assert_true(binding(table(0, 20, 100, 50)) == SizingRule::configured);
}

void rules_that_say_nothing_have_no_size(void **) {
  const SizingTable rules = table(0, -1, 7, 0);
  for (const SizingRow &row : rules.rows) {
    assert_int_equal(row.size, row.rule == SizingRule::max_backends ? 7 : -1);
    assert_false(row.advised);
  }
  assert_int_equal(rules.advised_size, 0);
}

std::int64_t size_by(const SizingTable &rules, SizingRule rule) {
  for (const SizingRow &row : rules.rows) {
    if (row.rule == rule) return row.size;
  }
  return -2;
}

void deadlock_minimum_takes_clients_in_pairs(void **) {
  assert_int_equal(size_by(table(5, -1, 100, 10), SizingRule::deadlock_minimum), 6);
  assert_int_equal(size_by(table(5, -1, 100, 7), SizingRule::deadlock_minimum), 5);
  assert_int_equal(size_by(table(5, -1, 100, 1), SizingRule::deadlock_minimum), 2);
}

// ---------------------------------------------------------------- advice

void advises(const SizingQuestion &question, int size, SizingRule row) {
  const SizingTable rules = decide_sizing(question);
  assert_int_equal(rules.advised_size, size);
  for (const SizingRow &each : rules.rows) assert_int_equal(each.advised, each.rule == row);
}

SizingQuestion measured(int knee, Confidence confidence, ScalabilityVerdict verdict) {
  SizingQuestion question;
  question.rule_size = 5;
  question.max_backends = 100;
  question.knee = knee;
  question.knee_confidence = confidence;
  question.knee_verdict = verdict;
  return question;
}

void advice_follows_the_best_evidence(void **) {
  SizingQuestion question = measured(0, Confidence::none, ScalabilityVerdict::too_few_points);
  question.configured = 50;
  advises(question, 5, SizingRule::cores_and_spindles);
  question.calibrated = 9;
  advises(question, 9, SizingRule::calibrated);
  question.knee = 12;
  question.knee_verdict = ScalabilityVerdict::knee_found;
  question.knee_confidence = Confidence::low;
  advises(question, 9, SizingRule::calibrated);
  question.knee_confidence = Confidence::medium;
  advises(question, 12, SizingRule::measured_knee);
  assert_int_equal(size_by(decide_sizing(question), SizingRule::measured_knee), 12);
}

void a_knee_that_is_only_a_bound_is_taken_as_one(void **) {
  advises(measured(4, Confidence::low, ScalabilityVerdict::still_growing), 5, SizingRule::cores_and_spindles);
  advises(measured(8, Confidence::low, ScalabilityVerdict::still_growing), 8, SizingRule::measured_knee);
  advises(measured(8, Confidence::low, ScalabilityVerdict::already_flat), 5, SizingRule::cores_and_spindles);
  advises(measured(3, Confidence::low, ScalabilityVerdict::already_flat), 3, SizingRule::measured_knee);
  advises(measured(3, Confidence::none, ScalabilityVerdict::already_flat), 5, SizingRule::cores_and_spindles);
  SizingQuestion calibrated = measured(7, Confidence::low, ScalabilityVerdict::still_growing);
  calibrated.calibrated = 6;
  advises(calibrated, 6, SizingRule::calibrated);
  assert_true(decide_sizing(measured(8, Confidence::low, ScalabilityVerdict::still_growing)).bound == SizeBound::at_least);
}

void advice_stays_within_max_backends(void **) {
  SizingQuestion question = measured(12, Confidence::high, ScalabilityVerdict::knee_found);
  question.max_backends = 7;
  advises(question, 7, SizingRule::max_backends);
  question.max_backends = 12;
  advises(question, 12, SizingRule::measured_knee);
}

void nobody_can_advise_a_pool_of_sessions(void **) {
  SizingQuestion question = measured(12, Confidence::high, ScalabilityVerdict::knee_found);
  question.session_mode = true;
  const SizingTable rules = decide_sizing(question);
  assert_int_equal(rules.advised_size, 0);
  for (const SizingRow &row : rules.rows) assert_false(row.advised);
}

void threads_that_were_seen_decide_the_deadlock_minimum(void **) {
  SizingQuestion question = measured(0, Confidence::none, ScalabilityVerdict::too_few_points);
  question.clients = 1000;
  question.nested_threads = 20;
  assert_int_equal(size_by(decide_sizing(question), SizingRule::deadlock_minimum), 21);
}

// ---------------------------------------------------------------- publishing

MachineSnapshot numbered(int n) {
  MachineSnapshot snapshot;
  snapshot.logical_cpus = n;
  snapshot.physical_cores = n;
  snapshot.quota_cores = n;
  snapshot.cores = n;
  snapshot.spindles = n;
  snapshot.miss_ratio = n;
  snapshot.rule_size = n;
  std::memset(snapshot.cores_reason, 'a' + n % 26, sizeof(snapshot.cores_reason) - 1);
  std::memset(snapshot.spindles_reason, 'a' + n % 26, sizeof(snapshot.spindles_reason) - 1);
  return snapshot;
}

bool is_whole(const MachineSnapshot &snapshot) {
  const MachineSnapshot expected = numbered(snapshot.rule_size);
  return snapshot.logical_cpus == expected.logical_cpus && snapshot.physical_cores == expected.physical_cores &&
         near(snapshot.quota_cores, expected.quota_cores) && near(snapshot.cores, expected.cores) &&
         snapshot.spindles == expected.spindles && near(snapshot.miss_ratio, expected.miss_ratio) &&
         std::strcmp(snapshot.cores_reason, expected.cores_reason) == 0 &&
         std::strcmp(snapshot.spindles_reason, expected.spindles_reason) == 0;
}

void nothing_is_read_before_it_is_published(void **) {
  auto facts = std::make_unique<MachineFacts>();
  facts->version = 0;
  MachineSnapshot snapshot;
  assert_false(read_machine_facts(*facts, snapshot));
  publish_machine_facts(*facts, numbered(7));
  assert_true(read_machine_facts(*facts, snapshot));
  assert_int_equal(snapshot.rule_size, 7);
  assert_true(is_whole(snapshot));
}

void a_writer_that_stopped_half_way_is_noticed_and_passed_over(void **) {
  auto facts = std::make_unique<MachineFacts>();
  facts->version = 0;
  publish_machine_facts(*facts, numbered(1));
  facts->version = facts->version + 1;
  MachineSnapshot snapshot;
  assert_false(read_machine_facts(*facts, snapshot));
  publish_machine_facts(*facts, numbered(2));
  assert_true(read_machine_facts(*facts, snapshot));
  assert_int_equal(snapshot.rule_size, 2);
}

void readers_never_see_half_of_two_publications(void **) {
  auto facts = std::make_unique<MachineFacts>();
  facts->version = 0;
  publish_machine_facts(*facts, numbered(0));
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (int n = 1; !stop; n = (n + 1) % 1000) publish_machine_facts(*facts, numbered(n));
  });
  int torn = 0;
  for (int i = 0; i < 20000; ++i) {
    MachineSnapshot snapshot;
    if (read_machine_facts(*facts, snapshot) && !is_whole(snapshot)) ++torn;
  }
  stop = true;
  writer.join();
  assert_int_equal(torn, 0);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(cores_are_physical_ones_within_the_quota),
      cmocka_unit_test(configured_cores_override_everything),
      cmocka_unit_test(unknown_cores_are_one_or_the_quota),
      cmocka_unit_test(spindles_count_as_far_as_the_cache_misses),
      cmocka_unit_test(what_is_unknown_counts_as_no_spindle),
      cmocka_unit_test(the_rule_is_twice_the_cores_plus_spindles),
      cmocka_unit_test(deadlock_minimum_leaves_one_thread_all_it_needs),
      cmocka_unit_test(miss_ratio_is_unknown_until_something_is_fetched),
      cmocka_unit_test(few_fetches_are_judged_by_the_whole_past),
      cmocka_unit_test(recent_fetches_weigh_more_than_the_past),
      cmocka_unit_test(counters_that_fall_begin_anew),
      cmocka_unit_test(more_hits_than_fetches_are_no_misses),
      cmocka_unit_test(one_rule_is_in_force),
      cmocka_unit_test(rules_that_say_nothing_have_no_size),
      cmocka_unit_test(deadlock_minimum_takes_clients_in_pairs),
      cmocka_unit_test(advice_follows_the_best_evidence),
      cmocka_unit_test(a_knee_that_is_only_a_bound_is_taken_as_one),
      cmocka_unit_test(advice_stays_within_max_backends),
      cmocka_unit_test(nobody_can_advise_a_pool_of_sessions),
      cmocka_unit_test(threads_that_were_seen_decide_the_deadlock_minimum),
      cmocka_unit_test(nothing_is_read_before_it_is_published),
      cmocka_unit_test(a_writer_that_stopped_half_way_is_noticed_and_passed_over),
      cmocka_unit_test(readers_never_see_half_of_two_publications),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
