// SPDX-License-Identifier: PostgreSQL
//
// Choosing the seconds of one query mix and condensing them by concurrency.

#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <vector>

extern "C" {
#include <cmocka.h>
}

#include "core/tuning/load_windows.hpp"

using namespace sluice;

namespace {

using Samples = std::vector<LoadSample>;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// The same numbers everywhere: Knuth's MMIX generator, upper bits.
class Chance {
 public:
  double uniform() {  // 0 < x < 1
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return (static_cast<double>(state_ >> 11) + 0.5) * 0x1p-53;
  }
  double around(double value, double share) { return value * (1 + share * (2 * uniform() - 1)); }

 private:
  std::uint64_t state_ = 42;
};

// pgbench's two scripts, roughly: look-ups, and five statements that write.
LoadSample lookups(double active) {
  return {active, 10000 * active / (1 + 0.02 * active), 1, 4, 0};
}
LoadSample payments(double active) {
  return {active, 800 * active / (1 + 0.05 * active), 7, 40, 9};
}

LoadWindows windows_of(const Samples &samples) {
  const LoadWindows windows = choose_load_windows(samples.data(), samples.size());
  assert_int_equal(windows.used + windows.other_mixes + windows.too_quiet + windows.sparse,
                   std::min(samples.size(), kMostSamples));
  assert_true(windows.count <= kMostLoadPoints);
  for (std::size_t i = 0; i < windows.count; i++) {
    const LoadPoint &point = windows.points[i];
    assert_true(std::isfinite(point.active) && std::isfinite(point.commits_per_s));
    assert_true(point.weight > 0 && point.weight < 1);
    assert_true(i == 0 || windows.points[i - 1].active < point.active);
  }
  return windows;
}

bool near(double value, double expected, double share) {
  return std::fabs(value - expected) <= share * std::fabs(expected);
}

void nothing_gives_nothing(void **) {
  assert_int_equal(windows_of({}).count, 0);
  assert_int_equal(choose_load_windows(nullptr, 0).count, 0);
}

void quiet_and_missing_seconds_are_dropped(void **) {
  const double infinite = std::numeric_limits<double>::infinity();
  Samples samples(100, lookups(4));
  samples.push_back({0.1, 500, 1, 4, 0});
  samples.push_back({1, 19, 1, 4, 0});
  samples.push_back({0, 0, 0, 0, 0});
  for (const double bad : {kNaN, -1.0, infinite, -infinite}) {
    samples.push_back({bad, 500, 1, 4, 0});
    samples.push_back({1, bad, 1, 4, 0});
    samples.push_back({1, 500, bad, 4, 0});
    samples.push_back({1, 500, 1, bad, 0});
    samples.push_back({1, 500, 1, 4, bad});
  }
  const LoadWindows windows = windows_of(samples);
  assert_int_equal(windows.used, 100);
  assert_int_equal(windows.too_quiet, 23);
  assert_int_equal(windows.count, 1);

  samples.assign(50, {kNaN, kNaN, kNaN, kNaN, kNaN});
  assert_int_equal(windows_of(samples).too_quiet, 50);
}

void one_level_is_one_point(void **) {
  const LoadWindows windows = windows_of(Samples(3600, lookups(7.5)));
  assert_int_equal(windows.count, 1);
  assert_int_equal(windows.used, 3600);
  assert_true(near(windows.points[0].active, 7.5, 1e-9));
  assert_true(near(windows.points[0].commits_per_s, lookups(7.5).commits_per_s, 1e-9));
  assert_true(near(windows.statements_per_transaction, 1, 1e-9));
  assert_true(near(windows.blocks_per_transaction, 4, 1e-9));
  assert_true(windows.writes_per_transaction < 1e-9);
}

void of_two_mixes_the_one_with_most_transactions_is_used(void **) {
  Samples samples;
  for (int i = 0; i < 1200; i++) {
    const double active = 1 + i % 20;
    samples.push_back(i % 3 == 0 ? lookups(active) : payments(active));
  }
  // A third of the seconds, but most of the transactions.
  const LoadWindows windows = windows_of(samples);
  assert_int_equal(windows.used, 400);
  assert_int_equal(windows.other_mixes, 800);
  assert_true(near(windows.statements_per_transaction, 1, 1e-6));
  for (std::size_t i = 0; i < windows.count; i++) {
    assert_true(near(windows.points[i].commits_per_s, lookups(windows.points[i].active).commits_per_s, 0.02));
  }
}

void a_mix_that_has_changed_for_good_prevails(void **) {
  Samples samples;
  const auto minutes = [&](int count, LoadSample (*of)(double)) {
    for (int i = 0; i < count * 60; i++) samples.push_back(of(1 + i % 20));
  };
  minutes(45, payments);
  LoadSample (*changed)(double) = [](double active) {
    LoadSample sample = payments(active);
    sample.statements_per_transaction = 20;
    return sample;
  };
  minutes(1, changed);
  assert_int_equal(windows_of(samples).used, 45 * 60);  // too early to say
  minutes(9, changed);
  const LoadWindows windows = windows_of(samples);
  assert_int_equal(windows.used, 10 * 60);
  assert_int_equal(windows.other_mixes, 45 * 60);
  assert_true(near(windows.statements_per_transaction, 20, 1e-6));
}

void a_newer_mix_needs_enough_seconds(void **) {
  // A burst with a thousand times as many transactions.
  Samples samples(1000, {5, 100, 7, 40, 9});
  samples.insert(samples.end(), kLeastMixSamples - 1, {5, 100000, 1, 4, 0});
  assert_int_equal(windows_of(samples).used, 1000);
  samples.push_back(samples.back());
  assert_int_equal(windows_of(samples).used, kLeastMixSamples);
  // If no mix has enough, the greater one is better than nothing.
  samples.assign(20, lookups(5));
  samples.insert(samples.end(), 10, payments(5));
  assert_int_equal(windows_of(samples).used, 20);
}

void noise_in_the_signature_is_one_mix(void **) {
  Chance chance;
  Samples samples;
  for (int i = 0; i < 2000; i++) {
    LoadSample sample = payments(1 + 30 * chance.uniform());
    sample.statements_per_transaction = chance.around(sample.statements_per_transaction, 0.2);
    sample.blocks_per_transaction = chance.around(sample.blocks_per_transaction, 0.2);
    sample.writes_per_transaction = chance.around(sample.writes_per_transaction, 0.2);
    samples.push_back(sample);
  }
  const LoadWindows windows = windows_of(samples);
  assert_int_equal(windows.other_mixes, 0);
  assert_true(windows.used >= 1990);
}

void next_to_nothing_is_nothing(void **) {
  Samples samples;
  for (int i = 0; i < 200; i++) samples.push_back({4, 1000, 1, 0.5 * (i % 2), 0.01 * (i % 2)});
  assert_int_equal(windows_of(samples).used, 200);
}

void throughput_that_jumps_does_not_move_the_median(void **) {
  Samples samples;
  for (int level = 1; level <= 20; level++) {
    for (int i = 0; i < 20; i++) {
      samples.push_back(payments(level));
      if (i % 5 == 0) samples.back().commits_per_s *= 0.3;  // a checkpoint
    }
  }
  const LoadWindows windows = windows_of(samples);
  assert_int_equal(windows.used, 400);
  for (std::size_t i = 0; i < windows.count; i++) {
    assert_true(near(windows.points[i].commits_per_s, payments(windows.points[i].active).commits_per_s, 0.05));
  }
}

void a_long_time_at_one_level_does_not_drown_the_others(void **) {
  Samples samples(3000, payments(10));
  samples.insert(samples.end(), 30, payments(2));
  const LoadWindows windows = windows_of(samples);
  assert_int_equal(windows.count, 2);
  assert_true(windows.points[1].weight < 1.5 * windows.points[0].weight);
  assert_true(windows.points[1].weight > windows.points[0].weight);
}

void levels_with_too_few_seconds_are_left_out(void **) {
  Samples samples(100, payments(10));
  samples.insert(samples.end(), kLeastLevelSamples - 1, payments(20));
  const LoadWindows windows = windows_of(samples);
  assert_int_equal(windows.count, 1);
  assert_int_equal(windows.sparse, kLeastLevelSamples - 1);
}

void levels_are_about_as_wide_as_their_step(void **) {
  Samples samples;
  for (double active = 1; active < 31; active *= 1.001) samples.push_back(payments(active));
  const LoadWindows windows = windows_of(samples);
  assert_int_equal(windows.count, std::ceil(std::log(31) / std::log(kLevelWidth)));
  for (std::size_t i = 1; i < windows.count - 1; i++) {
    assert_true(near(windows.points[i].active / windows.points[i - 1].active, kLevelWidth, 0.01));
  }
}

void the_widest_range_fits_into_the_points(void **) {
  Samples samples;
  for (int i = 0; i < 3600; i++) samples.push_back(payments(0.2 * std::pow(5e6, i / 3599.0)));
  const LoadWindows windows = windows_of(samples);
  assert_int_equal(windows.count, kMostLoadPoints);
  assert_int_equal(windows.used, 3600);
}

void of_too_many_samples_the_newest_are_looked_at(void **) {
  Samples samples(1000, lookups(3));
  samples.insert(samples.end(), kMostSamples, payments(3));
  const LoadWindows windows = windows_of(samples);
  assert_int_equal(windows.used, kMostSamples);
  assert_int_equal(windows.other_mixes, 0);
}

void more_mixes_than_can_be_kept_do_no_harm(void **) {
  Chance chance;
  Samples samples;
  for (int i = 0; i < 3000; i++) {
    samples.push_back({1 + 20 * chance.uniform(), 1000, std::pow(10, 6 * chance.uniform()),
                       std::pow(10, 6 * chance.uniform()), std::pow(10, 6 * chance.uniform())});
  }
  samples.insert(samples.end(), 100, payments(5));
  const LoadWindows windows = windows_of(samples);
  assert_true(windows.used >= 100);
}

void the_points_of_a_mixed_day_give_the_knee_of_its_mix(void **) {
  Chance chance;
  Samples samples;
  for (int i = 0; i < 3600; i++) {
    const double active = std::pow(60, chance.uniform());
    LoadSample sample = i / 100 % 3 == 0 ? lookups(active) : payments(active);
    if (i / 100 % 3 != 0) {  // lambda 1000, sigma 0.03, kappa 0.0008: peak 34.8
      sample.commits_per_s = 1000 * active / (1 + 0.03 * (active - 1) + 0.0008 * active * (active - 1));
    } else {
      sample.commits_per_s = 30 * active;
    }
    sample.commits_per_s = chance.around(sample.commits_per_s, 0.1);
    samples.push_back(sample);
  }
  const LoadWindows windows = windows_of(samples);
  const ScalabilityFit fit = fit_scalability(windows.points, windows.count);
  assert_true(fit.verdict == ScalabilityVerdict::knee_found);
  assert_true(fit.confidence == Confidence::high);
  assert_true(near(fit.lambda, 1000, 0.05));
  assert_true(near(fit.peak_active, 34.8, 0.05));
  assert_true(std::abs(fit.knee - 26) <= 2);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(nothing_gives_nothing),
      cmocka_unit_test(quiet_and_missing_seconds_are_dropped),
      cmocka_unit_test(one_level_is_one_point),
      cmocka_unit_test(of_two_mixes_the_one_with_most_transactions_is_used),
      cmocka_unit_test(a_mix_that_has_changed_for_good_prevails),
      cmocka_unit_test(a_newer_mix_needs_enough_seconds),
      cmocka_unit_test(noise_in_the_signature_is_one_mix),
      cmocka_unit_test(next_to_nothing_is_nothing),
      cmocka_unit_test(throughput_that_jumps_does_not_move_the_median),
      cmocka_unit_test(a_long_time_at_one_level_does_not_drown_the_others),
      cmocka_unit_test(levels_with_too_few_seconds_are_left_out),
      cmocka_unit_test(levels_are_about_as_wide_as_their_step),
      cmocka_unit_test(the_widest_range_fits_into_the_points),
      cmocka_unit_test(of_too_many_samples_the_newest_are_looked_at),
      cmocka_unit_test(more_mixes_than_can_be_kept_do_no_harm),
      cmocka_unit_test(the_points_of_a_mixed_day_give_the_knee_of_its_mix),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
