// SPDX-License-Identifier: PostgreSQL
//
// Replaying recorded leases: against queues that are solved by hand, and against
// queueing theory.

#include <cmath>
#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

extern "C" {
#include <cmocka.h>
}

#include "core/tuning/queue_replay.hpp"

using namespace sluice;

namespace {

// The same numbers everywhere: Knuth's MMIX generator, upper bits.
class Chance {
 public:
  double uniform() {  // 0 < x < 1
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return (static_cast<double>(state_ >> 11) + 0.5) * 0x1p-53;
  }
  double exponential(double mean) { return -mean * std::log(uniform()); }

 private:
  std::uint64_t state_ = 20240229;
};

ReplayAnswer replay(const std::vector<RecordedLease> &leases, std::size_t backends, double hold_scale = 1) {
  std::vector<std::int64_t> free_at(backends < leases.size() ? backends : leases.size());
  std::vector<std::int64_t> waits(leases.size());
  ReplayQuestion question;
  question.backends = backends;
  question.hold_scale = hold_scale;
  return replay_queue(leases.data(), leases.size(), question,
                      {free_at.data(), free_at.size(), waits.data(), waits.size()});
}

bool near(double value, double expected, double share) {
  return std::fabs(value - expected) <= share * std::fabs(expected);
}

void no_numbers(const ReplayAnswer &answer, ReplayVerdict verdict) {
  assert_true(answer.verdict == verdict);
  assert_false(has_numbers(answer.verdict));
  assert_int_equal(answer.wait_max_us, 0);
  assert_true(answer.utilisation == 0 && answer.waited_share == 0 && answer.wait_mean_us == 0);
  assert_true(describe(verdict).size() > 0);
}

// D/D/1: an arrival every millisecond.
std::vector<RecordedLease> steady(std::size_t count, std::uint32_t hold_us) {
  std::vector<RecordedLease> leases;
  for (std::size_t i = 0; i < count; i++) leases.push_back({static_cast<std::int64_t>(i) * 1000, hold_us});
  return leases;
}

// M/M/k.
std::vector<RecordedLease> poisson(std::size_t count, double mean_gap_us, double mean_hold_us) {
  Chance chance;
  std::vector<RecordedLease> leases;
  double now = 0;
  for (std::size_t i = 0; i < count; i++) {
    now += chance.exponential(mean_gap_us);
    leases.push_back({std::llround(now), static_cast<std::uint32_t>(std::llround(chance.exponential(mean_hold_us)))});
  }
  return leases;
}

void a_steady_load_below_capacity_never_waits(void **) {
  const ReplayAnswer answer = replay(steady(1000, 800), 1);
  assert_true(answer.verdict == ReplayVerdict::keeps_up);
  assert_int_equal(answer.wait_max_us, 0);
  assert_true(answer.waited_share == 0);
  assert_int_equal(answer.greatest_queue, 0);
  assert_true(near(answer.utilisation, 800.0 * 1000 / (999 * 1000 + 800), 1e-12));
}

void a_backend_that_is_free_at_that_moment_serves_at_once(void **) {
  const ReplayAnswer answer = replay(steady(1000, 1000), 1);
  assert_true(answer.verdict == ReplayVerdict::keeps_up);
  assert_int_equal(answer.wait_max_us, 0);
  assert_true(near(answer.utilisation, 1, 1e-12));
}

void a_steady_load_above_capacity_waits_longer_each_time(void **) {
  // Lease i waits i * 500 us, and begins at i * 1500.
  const ReplayAnswer answer = replay(steady(1001, 1500), 1);
  assert_true(answer.verdict == ReplayVerdict::above_capacity);
  assert_int_equal(answer.wait_max_us, 1000 * 500);
  assert_int_equal(answer.wait_p50_us, 500 * 500);  // rank 501 of 1001
  assert_int_equal(answer.wait_p90_us, 900 * 500);
  assert_int_equal(answer.wait_p95_us, 950 * 500);
  assert_int_equal(answer.wait_p99_us, 990 * 500);
  assert_true(near(answer.wait_mean_us, 500 * 500, 1e-12));
  assert_true(near(answer.waited_share, 1000.0 / 1001, 1e-12));
  assert_true(near(answer.utilisation, 1, 1e-12));
  // At 1,000,000 us the leases up to 666 have begun (666 * 1500 = 999,000).
  assert_int_equal(answer.greatest_queue, 1000 - 666);
  assert_true(replay(steady(1001, 1500), 2).verdict == ReplayVerdict::keeps_up);
}

void leases_are_served_in_order_by_the_first_free_backend(void **) {
  // Backends: A 0-10, B 0-4; the third begins at 4 on B until 7, the fourth at 7.
  const std::vector<RecordedLease> leases = {{0, 10}, {0, 4}, {1, 3}, {2, 1}, {30, 5}};
  const ReplayAnswer answer = replay(leases, 2);
  assert_int_equal(answer.wait_max_us, 5);  // 7 - 2
  assert_true(near(answer.wait_mean_us, (3 + 5) / 5.0, 1e-12));
  assert_true(near(answer.waited_share, 2 / 5.0, 1e-12));
  assert_int_equal(answer.greatest_queue, 2);
  assert_true(near(answer.utilisation, 23 / 70.0, 1e-12));  // 35 us of two backends
}

void the_heap_agrees_with_a_search_through_all_backends(void **) {
  const std::vector<RecordedLease> leases = poisson(5000, 100, 1200);
  for (const std::size_t backends : {1, 2, 3, 7, 12, 13, 40}) {
    std::vector<std::int64_t> free_at(backends, 0);
    double sum = 0;
    std::int64_t greatest = 0;
    for (const RecordedLease &lease : leases) {
      std::size_t first = 0;
      for (std::size_t b = 1; b < backends; b++) {
        if (free_at[b] < free_at[first]) first = b;
      }
      const std::int64_t start = free_at[first] > lease.ready_us ? free_at[first] : lease.ready_us;
      free_at[first] = start + lease.hold_us;
      sum += static_cast<double>(start - lease.ready_us);
      greatest = start - lease.ready_us > greatest ? start - lease.ready_us : greatest;
    }
    const ReplayAnswer answer = replay(leases, backends);
    assert_true(near(answer.wait_mean_us, sum / 5000, 1e-12));
    assert_int_equal(answer.wait_max_us, greatest);
  }
}

// Kleinrock, "Queueing Systems", volume 1: P(W > t) = rho * exp(-(1 - rho) * t / hold).
void one_backend_waits_as_in_theory(void **) {
  const double rho = 0.7;
  const double hold = 10000;
  const ReplayAnswer answer = replay(poisson(400000, hold / rho, hold), 1);
  assert_true(answer.verdict == ReplayVerdict::keeps_up);
  assert_true(near(answer.utilisation, rho, 0.01));
  assert_true(near(answer.waited_share, rho, 0.01));
  assert_true(near(answer.wait_mean_us, hold * rho / (1 - rho), 0.05));
  const auto percentile = [&](double p) { return hold / (1 - rho) * std::log(rho / (1 - p)); };
  assert_true(near(static_cast<double>(answer.wait_p50_us), percentile(0.50), 0.05));
  assert_true(near(static_cast<double>(answer.wait_p90_us), percentile(0.90), 0.05));
  assert_true(near(static_cast<double>(answer.wait_p95_us), percentile(0.95), 0.05));
  assert_true(near(static_cast<double>(answer.wait_p99_us), percentile(0.99), 0.08));
}

// Two servers: Erlang's C is 2 * rho^2 / (1 + rho), and
// P(W > t) = C * exp(-2 * (1 - rho) * t / hold).
void two_backends_wait_as_in_theory(void **) {
  const double rho = 0.8;
  const double hold = 10000;
  const ReplayAnswer answer = replay(poisson(400000, hold / (2 * rho), hold), 2);
  const double c = 2 * rho * rho / (1 + rho);
  assert_true(answer.verdict == ReplayVerdict::keeps_up);
  assert_true(near(answer.utilisation, rho, 0.01));
  assert_true(near(answer.waited_share, c, 0.02));
  assert_true(near(answer.wait_mean_us, c * hold / (2 * (1 - rho)), 0.06));
  assert_true(near(static_cast<double>(answer.wait_p90_us), hold / (2 * (1 - rho)) * std::log(c / 0.10), 0.06));
}

void more_backends_never_wait_longer(void **) {
  const std::vector<RecordedLease> leases = poisson(20000, 1000, 5000);
  ReplayAnswer before = replay(leases, 1);
  assert_true(before.verdict == ReplayVerdict::above_capacity);
  for (std::size_t backends = 2; backends < 20; backends++) {
    const ReplayAnswer answer = replay(leases, backends);
    assert_true(answer.wait_p50_us <= before.wait_p50_us && answer.wait_p99_us <= before.wait_p99_us);
    assert_true(answer.wait_max_us <= before.wait_max_us && answer.wait_mean_us <= before.wait_mean_us);
    assert_true(answer.greatest_queue <= before.greatest_queue);
    // Five backends' worth of work.
    if (backends < 5) assert_true(answer.verdict == ReplayVerdict::above_capacity);
    if (backends > 5) assert_true(answer.verdict == ReplayVerdict::keeps_up);
    before = answer;
  }
  assert_int_equal(before.wait_p99_us, 0);
}

void at_the_recorded_size_it_waits_as_it_did(void **) {
  // Recorded on three backends, each of which takes the next client when it is
  // done: what a client waited follows from when it was served.
  const std::vector<RecordedLease> leases = poisson(3000, 400, 1000);
  std::int64_t free_at[3] = {0, 0, 0};
  std::int64_t longest = 0;
  std::size_t waited = 0;
  for (const RecordedLease &lease : leases) {
    std::int64_t *first = &free_at[0];
    for (std::int64_t &other : free_at) first = other < *first ? &other : first;
    const std::int64_t served_at = *first > lease.ready_us ? *first : lease.ready_us;
    longest = served_at - lease.ready_us > longest ? served_at - lease.ready_us : longest;
    waited += served_at > lease.ready_us ? 1 : 0;
    *first = served_at + lease.hold_us;
  }
  const ReplayAnswer answer = replay(leases, 3);
  assert_int_equal(answer.wait_max_us, longest);
  assert_true(near(answer.waited_share, static_cast<double>(waited) / 3000, 1e-12));
}

void holds_can_be_scaled(void **) {
  assert_int_equal(replay(steady(1001, 1000), 1, 1.5).wait_max_us, 500000);
  assert_int_equal(replay(steady(1001, 1500), 1, 0.5).wait_max_us, 0);
  for (const double scale : {0.0, -1.0, 1e9, static_cast<double>(NAN), static_cast<double>(INFINITY)}) {
    no_numbers(replay(steady(10, 10), 1, scale), ReplayVerdict::bad_hold_scale);
  }
}

void a_queue_that_drains_is_not_above_capacity(void **) {
  // A burst in the middle of an hour.
  std::vector<RecordedLease> leases;
  for (int i = 0; i < 3600; i++) {
    leases.push_back({i * std::int64_t{1000000}, 100000});
    for (int burst = 0; i == 1800 && burst < 500; burst++) leases.push_back({i * std::int64_t{1000000}, 100000});
  }
  const ReplayAnswer answer = replay(leases, 1);
  assert_true(answer.verdict == ReplayVerdict::keeps_up);
  assert_int_equal(answer.greatest_queue, 500);
  assert_int_equal(answer.wait_max_us, 500 * 100000);
}

void a_load_that_has_outgrown_the_backends_is_above_capacity(void **) {
  // Idle for an hour, too much in the last minutes: the sum would fit.
  std::vector<RecordedLease> leases;
  for (int i = 0; i < 3600; i++) leases.push_back({i * std::int64_t{1000000}, 1000});
  for (int i = 0; i < 20000; i++) leases.push_back({3600000000 + i * std::int64_t{10000}, 15000});
  assert_true(replay(leases, 1).verdict == ReplayVerdict::above_capacity);
  assert_true(replay(leases, 2).verdict == ReplayVerdict::keeps_up);
}

void a_queue_that_is_being_worked_off_is_not_above_capacity(void **) {
  // In the second half more arrives than can be done, nearly all of it at once.
  std::vector<RecordedLease> leases;
  for (int i = 0; i < 200; i++) leases.push_back({i * std::int64_t{1000}, 100});
  leases.push_back({200000, 100000});
  for (int i = 1; i < 200; i++) leases.push_back({200000 + i * std::int64_t{400}, 1});
  const ReplayAnswer answer = replay(leases, 1);
  assert_true(answer.verdict == ReplayVerdict::keeps_up);
  assert_int_equal(answer.wait_max_us, 100000 - 400);
}

void few_leases_show_no_trend(void **) {
  assert_true(replay(steady(kLeastLeasesForTrend - 1, 1500), 1).verdict == ReplayVerdict::keeps_up);
  assert_true(replay(steady(kLeastLeasesForTrend, 1500), 1).verdict == ReplayVerdict::above_capacity);
}

void one_lease_waits_for_nobody(void **) {
  const ReplayAnswer answer = replay({{123456, 789}}, 4);
  assert_true(answer.verdict == ReplayVerdict::keeps_up);
  assert_int_equal(answer.wait_max_us, 0);
  assert_true(near(answer.utilisation, 0.25, 1e-12));
  // A hold below the clock's resolution.
  assert_true(replay({{123456, 0}}, 4).utilisation == 0);
}

void questions_that_cannot_be_answered_say_why(void **) {
  no_numbers(replay({}, 4), ReplayVerdict::no_leases);
  no_numbers(replay(steady(10, 10), 0), ReplayVerdict::no_backends);
  no_numbers(replay({{5, 1}, {4, 1}}, 1), ReplayVerdict::not_in_order);
  no_numbers(replay({{-5, 1}, {4, 1}}, 1), ReplayVerdict::not_in_order);

  const std::vector<RecordedLease> leases = steady(10, 10);
  ReplayQuestion question;
  question.backends = 4;
  std::int64_t free_at[4];
  std::int64_t waits[10];
  no_numbers(replay_queue(leases.data(), 10, question, {free_at, 3, waits, 10}), ReplayVerdict::scratch_too_small);
  no_numbers(replay_queue(leases.data(), 10, question, {free_at, 4, waits, 9}), ReplayVerdict::scratch_too_small);
  no_numbers(replay_queue(leases.data(), 10, question, {nullptr, 4, waits, 10}), ReplayVerdict::scratch_too_small);
  no_numbers(replay_queue(leases.data(), 10, question, {free_at, 4, nullptr, 10}), ReplayVerdict::scratch_too_small);
  no_numbers(replay_queue(nullptr, 10, question, {free_at, 4, waits, 10}), ReplayVerdict::no_leases);
  assert_true(has_numbers(replay_queue(leases.data(), 10, question, {free_at, 4, waits, 10}).verdict));
}

void times_at_the_end_of_the_clock_do_no_harm(void **) {
  const std::vector<RecordedLease> leases = {{0, UINT32_MAX}, {INT64_MAX - 1, UINT32_MAX}, {INT64_MAX, UINT32_MAX}};
  const ReplayAnswer answer = replay(leases, 1, kGreatestHoldScale);
  assert_true(has_numbers(answer.verdict));
  assert_true(answer.wait_max_us >= 0 && std::isfinite(answer.utilisation) && answer.utilisation <= 1);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(a_steady_load_below_capacity_never_waits),
      cmocka_unit_test(a_backend_that_is_free_at_that_moment_serves_at_once),
      cmocka_unit_test(a_steady_load_above_capacity_waits_longer_each_time),
      cmocka_unit_test(leases_are_served_in_order_by_the_first_free_backend),
      cmocka_unit_test(the_heap_agrees_with_a_search_through_all_backends),
      cmocka_unit_test(one_backend_waits_as_in_theory),
      cmocka_unit_test(two_backends_wait_as_in_theory),
      cmocka_unit_test(more_backends_never_wait_longer),
      cmocka_unit_test(at_the_recorded_size_it_waits_as_it_did),
      cmocka_unit_test(holds_can_be_scaled),
      cmocka_unit_test(a_queue_that_drains_is_not_above_capacity),
      cmocka_unit_test(a_load_that_has_outgrown_the_backends_is_above_capacity),
      cmocka_unit_test(a_queue_that_is_being_worked_off_is_not_above_capacity),
      cmocka_unit_test(few_leases_show_no_trend),
      cmocka_unit_test(one_lease_waits_for_nobody),
      cmocka_unit_test(questions_that_cannot_be_answered_say_why),
      cmocka_unit_test(times_at_the_end_of_the_clock_do_no_harm),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
