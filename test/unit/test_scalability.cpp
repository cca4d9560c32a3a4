// SPDX-License-Identifier: PostgreSQL
//
// Fitting the Universal Scalability Law: published measurements, curves with
// known coefficients, and data that no curve should be believed for.

#include <cmath>
#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <limits>
#include <vector>

extern "C" {
#include <cmocka.h>
}

#include "core/tuning/scalability.hpp"

using namespace sluice;

namespace {

using Points = std::vector<LoadPoint>;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinite = std::numeric_limits<double>::infinity();

// The same numbers everywhere: Knuth's MMIX generator, upper bits.
class Chance {
 public:
  explicit Chance(std::uint64_t seed) : state_(seed) {}
  double uniform() {  // 0 < x < 1
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return (static_cast<double>(state_ >> 11) + 0.5) * 0x1p-53;
  }
  double normal() {  // nearly: mean 0, variance 1
    double sum = -6;
    for (int i = 0; i < 12; i++) sum += uniform();
    return sum;
  }

 private:
  std::uint64_t state_;
};

bool near(double value, double expected, double share) {
  return std::fabs(value - expected) <= share * std::fabs(expected);
}

struct Law {
  double lambda;
  double sigma;
  double kappa;

  double at(double active) const {
    return lambda * active / (1 + sigma * (active - 1) + kappa * active * (active - 1));
  }
  double peak() const { return std::sqrt((1 - sigma) / kappa); }
};

// What every answer keeps to, whatever the data.
void is_sound(const ScalabilityFit &fit) {
  for (const double field :
       {fit.least_active, fit.greatest_active, fit.lambda, fit.sigma, fit.kappa, fit.lambda_error, fit.sigma_error,
        fit.kappa_error, fit.r_squared, fit.residual_error, fit.scatter, fit.peak_active, fit.peak_commits_per_s,
        fit.peak_low, fit.peak_high, fit.knee_commits_per_s}) {
    assert_true(std::isfinite(field));
  }
  assert_true(fit.sigma >= 0 && fit.sigma <= 1 && fit.kappa >= 0);
  assert_true(describe(fit.verdict).size() > 0 && describe(fit.confidence).size() > 0);
  if (fit.confidence == Confidence::none) {
    assert_true(describe(fit.verdict).substr(0, 17) == "not enough data: ");
    assert_int_equal(fit.knee, 0);
    return;
  }
  assert_true(fit.lambda > 0);
  assert_true(fit.knee >= 1 && fit.knee <= std::ceil(fit.greatest_active));
  assert_true(fit.knee >= std::floor(fit.least_active));
  assert_true(fit.knee_low <= fit.knee && fit.knee <= fit.knee_high);
  if (fit.peak_active > 0) {
    assert_true(fit.peak_active >= 1);
    if (fit.peak_low > 0) assert_true(fit.peak_low <= fit.peak_active);
    if (fit.peak_high > 0) assert_true(fit.peak_active <= fit.peak_high);
  }
}

ScalabilityFit fit_of(const Points &points) {
  const ScalabilityFit fit = fit_scalability(points.data(), points.size());
  is_sound(fit);
  return fit;
}

void refuses(const Points &points, ScalabilityVerdict verdict) {
  const ScalabilityFit fit = fit_of(points);
  assert_true(fit.verdict == verdict);
  assert_true(fit.confidence == Confidence::none);
}

Points points_of(const Law &law, std::initializer_list<double> levels) {
  Points points;
  for (const double active : levels) points.push_back({active, law.at(active), 1});
  return points;
}

// Windows of a production day: concurrency anywhere between the bounds.
Points windows_of(const Law &law, double least, double greatest, int count, double noise, std::uint64_t seed) {
  Chance chance(seed);
  Points points;
  for (int i = 0; i < count; i++) {
    const double active = least * std::pow(greatest / least, chance.uniform());
    points.push_back({active, law.at(active) * (1 + noise * chance.normal()), 1});
  }
  return points;
}

// The knee found by trying every pool size.
int knee_by_search(const Law &law, int low, int high) {
  double greatest = 0;
  for (int n = low; n <= high; n++) greatest = std::fmax(greatest, law.at(n));
  int knee = low;
  while (law.at(knee) < kKneeShare * greatest) knee++;
  return knee;
}

// pgbench on PostgreSQL 9.1 with 1 to 24 clients: measured by Robert Haas, and
// analysed with this law by Neil Gunther, "PostgreSQL Scalability Analysis
// Deconstructed", The Pith of Performance, 11 April 2012 (rounded here).  The
// measured best is 20 clients; 16 come to 96.7 % of it.
void postgresql_9_1_levels_off_at_about_twenty_clients(void **) {
  const Points points = {{1, 4373, 1},   {4, 15583, 1},  {8, 27354, 1}, {12, 37502, 1},
                         {16, 45365, 1}, {20, 46927, 1}, {24, 42854, 1}};
  const ScalabilityFit fit = fit_of(points);
  assert_true(fit.verdict == ScalabilityVerdict::knee_found);
  // The curve is smooth and the measured summit is not: it lies 6 % beside it.
  assert_true(fit.confidence == Confidence::medium);
  assert_true(fit.scatter > 0.05 && fit.scatter < 0.08);
  assert_true(fit.r_squared > 0.98);
  assert_true(near(fit.lambda, 4373, 0.15));
  assert_true(fit.peak_active > 17 && fit.peak_active < 26);
  assert_true(near(fit.peak_commits_per_s, 46927, 0.05));
  // Seven points, one of which is the summit, do not exclude that there is no peak.
  assert_true(fit.peak_low > 10 && fit.peak_low < 20);
  assert_true(fit.knee >= 16 && fit.knee <= 20);
  assert_true(fit.knee_high - fit.knee_low <= 4);
}

// SPEC SDM91 on a SPARCcenter 2000: the example of the package "usl" for R, whose
// documentation and tests give the coefficients and the peak (97).
void agrees_with_the_published_fit_of_spec_sdm91(void **) {
  const Points points = {{1, 64.9, 1},     {18, 995.9, 1}, {36, 1652.4, 1}, {72, 1853.2, 1},
                         {108, 1828.9, 1}, {144, 1775, 1}, {216, 1702.2, 1}};
  const ScalabilityFit fit = fit_of(points);
  assert_true(near(fit.sigma, 0.0277, 0.01));
  assert_true(near(fit.kappa, 0.000104, 0.01));
  assert_true(near(fit.peak_active, 97, 0.01));
  assert_true(fit.verdict == ScalabilityVerdict::knee_found);
  assert_true(fit.peak_low < 97 && (fit.peak_high < 0 || fit.peak_high > 97));
}

// A ray tracer's benchmark, also of that package, whose tests have 21.8488, 0.0578 and 0: the bound is met.
void agrees_with_the_published_fit_of_the_ray_tracer(void **) {
  const Points points = {{1, 20, 1},   {4, 78, 1},   {8, 130, 1},  {12, 170, 1}, {16, 190, 1}, {20, 200, 1},
                         {24, 210, 1}, {28, 230, 1}, {32, 260, 1}, {48, 280, 1}, {64, 310, 1}};
  const ScalabilityFit fit = fit_of(points);
  assert_true(near(fit.lambda, 21.8488, 0.0001));
  assert_true(near(fit.sigma, 0.0578, 0.001));
  assert_true(fit.kappa == 0);
  assert_true(fit.peak_active < 0 && fit.peak_commits_per_s < 0 && fit.peak_high < 0);
  assert_true(fit.verdict == ScalabilityVerdict::still_growing);
  assert_true(fit.confidence == Confidence::low);
}

void known_coefficients_are_found_again(void **) {
  for (const Law &law : {Law{1000, 0.03, 0.0008}, Law{4, 0.2, 0.003}, Law{2e5, 0, 0.001}, Law{50, 0.05, 0.1}}) {
    const ScalabilityFit fit = fit_of(points_of(law, {0.5, 1, 2, 3, 5, 8, 12, 20, 32, 50, 80}));
    assert_true(near(fit.lambda, law.lambda, 1e-4));
    assert_true(std::fabs(fit.sigma - law.sigma) < 1e-4);
    assert_true(near(fit.kappa, law.kappa, 1e-3));
    assert_true(near(fit.peak_active, law.peak(), 1e-3));
    assert_true(near(fit.peak_commits_per_s, law.at(law.peak()), 1e-3));
    assert_int_equal(fit.knee, knee_by_search(law, 1, 80));
    assert_true(near(fit.knee_commits_per_s, law.at(fit.knee), 1e-3));
    assert_true(fit.scatter < 1e-4 && fit.r_squared > 0.9999);
    assert_true(fit.verdict == ScalabilityVerdict::knee_found);
    assert_true(fit.confidence == Confidence::high);
  }
}

void coefficients_are_found_through_noise(void **) {
  const Law law = {1000, 0.03, 0.0008};  // peak 34.8
  for (std::uint64_t seed = 1; seed <= 40; seed++) {
    const ScalabilityFit fit = fit_of(windows_of(law, 1, 64, 60, 0.01, seed));
    assert_true(fit.verdict == ScalabilityVerdict::knee_found);
    assert_true(fit.confidence == Confidence::high);
    assert_true(near(fit.lambda, law.lambda, 0.03));
    assert_true(std::fabs(fit.sigma - law.sigma) < 0.006);
    assert_true(near(fit.kappa, law.kappa, 0.07));
    assert_true(near(fit.peak_active, law.peak(), 0.05));
    assert_true(std::abs(fit.knee - knee_by_search(law, 1, 64)) <= 2);
  }
}

// In proportion to the throughput, as measured throughputs scatter, and all alike.
void the_interval_of_the_peak_contains_it_nineteen_times_of_twenty(void **) {
  const Law law = {1000, 0.03, 0.0008};
  int inside_proportional = 0;
  int inside_alike = 0;
  const auto contains_it = [&](const ScalabilityFit &fit) {
    return fit.peak_low <= law.peak() && (fit.peak_high < 0 || law.peak() <= fit.peak_high) ? 1 : 0;
  };
  for (std::uint64_t seed = 1; seed <= 200; seed++) {
    inside_proportional += contains_it(fit_of(windows_of(law, 1, 64, 60, 0.03, seed)));
    Chance chance(seed + 1000);
    Points points = windows_of(law, 1, 64, 60, 0, seed);
    for (LoadPoint &point : points) point.commits_per_s += 400 * chance.normal();
    inside_alike += contains_it(fit_of(points));
  }
  // 190 are expected; 10 more or fewer are three standard deviations.
  assert_in_range(inside_proportional, 180, 199);
  assert_in_range(inside_alike, 180, 199);
}

void standard_errors_are_how_far_the_coefficients_scatter(void **) {
  const Law law = {1000, 0.1, 0.0008};
  constexpr int kRounds = 200;
  double squares[3] = {};  // of the true errors
  double errors[3] = {};   // as told
  for (std::uint64_t seed = 1; seed <= kRounds; seed++) {
    const ScalabilityFit fit = fit_of(windows_of(law, 1, 64, 60, 0.03, seed));
    const double off[3] = {fit.lambda - law.lambda, fit.sigma - law.sigma, fit.kappa - law.kappa};
    const double told[3] = {fit.lambda_error, fit.sigma_error, fit.kappa_error};
    for (int i = 0; i < 3; i++) {
      assert_true(told[i] > 0);
      squares[i] += off[i] * off[i] / kRounds;
      errors[i] += told[i] / kRounds;
    }
  }
  for (int i = 0; i < 3; i++) assert_true(near(errors[i], std::sqrt(squares[i]), 0.15));
}

void noise_lowers_the_confidence(void **) {
  const Law law = {1000, 0.03, 0.0008};
  assert_true(fit_of(windows_of(law, 1, 64, 60, 0.01, 7)).confidence == Confidence::high);
  assert_true(fit_of(windows_of(law, 1, 64, 60, 0.08, 7)).confidence <= Confidence::medium);
  assert_true(fit_of(windows_of(law, 1, 64, 60, 0.15, 7)).confidence <= Confidence::low);
  refuses(windows_of(law, 1, 64, 60, 0.5, 7), ScalabilityVerdict::fit_explains_too_little);
}

// Fewer clients than cores: nothing is to be seen of the knee, and that is said.
void windows_below_saturation_give_a_lower_bound(void **) {
  const Law law = {1000, 0.03, 0.0008};
  const ScalabilityFit fit = fit_of(windows_of(law, 0.3, 8, 60, 0.02, 3));
  assert_true(fit.verdict == ScalabilityVerdict::still_growing);
  assert_true(fit.confidence == Confidence::low);
  assert_int_equal(fit.knee, 8);
  assert_true(near(fit.lambda, law.lambda, 0.05));
}

void linear_growth_has_no_peak(void **) {
  const ScalabilityFit fit = fit_of(points_of({500, 0, 0}, {0.7, 1.5, 3, 6, 12, 24.5}));
  assert_true(near(fit.lambda, 500, 1e-6));
  assert_true(fit.sigma < 1e-6 && fit.kappa < 1e-9);
  assert_true(fit.peak_active < 0 || fit.peak_active > 1000);
  assert_true(fit.verdict == ScalabilityVerdict::still_growing);
  assert_int_equal(fit.knee, 25);  // 24.5 is rounded up, and 97 % of 25 are more than 24
}

void constant_throughput_needs_the_least_that_was_seen(void **) {
  const ScalabilityFit fit = fit_of(points_of({900, 1, 0}, {4, 6, 9, 14, 20, 30}));
  assert_true(fit.verdict == ScalabilityVerdict::already_flat);
  assert_true(fit.confidence == Confidence::low);
  assert_int_equal(fit.knee, 4);
  assert_true(near(fit.knee_commits_per_s, 900, 1e-6));
}

void retrograde_throughput_needs_few_backends(void **) {
  const Law law = {1000, 0, 0.5};  // peak 1.4
  const ScalabilityFit fit = fit_of(points_of(law, {0.5, 1, 2, 3, 5, 8, 13, 20}));
  assert_true(near(fit.peak_active, law.peak(), 0.01));
  assert_int_equal(fit.knee, 1);
  assert_true(fit.verdict == ScalabilityVerdict::knee_found);

  // The best pool size is above the peak if the peak is nearer to it.
  assert_int_equal(fit_of(points_of({1000, 0, 0.277}, {0.5, 1, 2, 3, 5, 8, 13, 20})).knee, 2);  // peak 1.9

  // Only the decline has been seen.
  const ScalabilityFit decline = fit_of(points_of(law, {4, 6, 8, 12, 16, 24}));
  assert_true(decline.verdict == ScalabilityVerdict::already_flat);
  assert_int_equal(decline.knee, 4);
}

void one_outlier_costs_confidence_rather_than_the_answer(void **) {
  const Law law = {1000, 0.03, 0.0008};
  Points points = points_of(law, {1, 2, 3, 4, 6, 8, 11, 15, 20, 27, 36, 48, 64});
  const ScalabilityFit before = fit_of(points);
  points[8].commits_per_s *= 0.7;  // a checkpoint, say
  const ScalabilityFit after = fit_of(points);
  assert_true(before.confidence == Confidence::high && after.confidence == Confidence::low);
  assert_true(std::abs(after.knee - before.knee) <= 5);
  assert_true(after.knee_low <= before.knee && before.knee <= after.knee_high);
  assert_true(after.peak_low < law.peak() && (after.peak_high < 0 || law.peak() < after.peak_high));
}

void a_point_counts_as_much_as_it_weighs(void **) {
  const Law law = {1000, 0.03, 0.0008};
  Points points = points_of(law, {1, 2, 4, 8, 16, 32, 64});
  points.push_back({20, 1, 1e-9});
  const ScalabilityFit fit = fit_of(points);
  assert_true(near(fit.lambda, law.lambda, 1e-3) && near(fit.peak_active, law.peak(), 1e-3));

  // All weights in another unit: the same answer.
  Points scaled = windows_of(law, 1, 64, 30, 0.05, 11);
  const ScalabilityFit one = fit_of(scaled);
  for (LoadPoint &point : scaled) point.weight *= 1000;
  const ScalabilityFit other = fit_of(scaled);
  assert_true(near(other.residual_error, one.residual_error, 1e-6));
  assert_true(near(other.lambda_error, one.lambda_error, 1e-6));
  assert_int_equal(other.knee, one.knee);
}

void too_little_data_is_no_fit(void **) {
  const Law law = {1000, 0.03, 0.0008};
  refuses({}, ScalabilityVerdict::too_few_points);
  assert_true(fit_scalability(nullptr, 0).verdict == ScalabilityVerdict::too_few_points);
  refuses(points_of(law, {1, 2, 4, 8, 16}), ScalabilityVerdict::too_few_points);
  refuses(points_of(law, {2, 2, 2, 2, 16, 16, 16, 16}), ScalabilityVerdict::too_few_levels);
  refuses(points_of(law, {5, 5, 5, 5, 5, 5, 5, 5}), ScalabilityVerdict::too_few_levels);
  refuses(points_of(law, {2, 2.05, 2.1, 8, 8.1, 8.2, 16, 16.5}), ScalabilityVerdict::too_few_levels);
  refuses(points_of(law, {10, 12, 14, 17, 20, 24, 29}), ScalabilityVerdict::range_too_narrow);
  refuses(points_of(law, {0.2, 0.4, 0.6, 0.9, 1.2, 1.6}), ScalabilityVerdict::concurrency_too_low);
}

void throughput_that_has_nothing_to_do_with_concurrency_is_no_fit(void **) {
  Chance chance(99);
  Points points;
  for (int i = 0; i < 60; i++) points.push_back({1 + 40 * chance.uniform(), 20 + 5000 * chance.uniform(), 1});
  refuses(points, ScalabilityVerdict::fit_explains_too_little);
}

void unusable_points_are_left_out(void **) {
  const Law law = {1000, 0.03, 0.0008};
  Points points = points_of(law, {1, 2, 4, 8, 16, 32, 64});
  const ScalabilityFit clean = fit_of(points);
  for (const double bad : {0.0, -1.0, kNaN, kInfinite, -kInfinite, 1e300}) {
    points.push_back({bad, 100, 1});
    points.push_back({10, bad, 1});
    points.push_back({10, 100, bad});
  }
  const ScalabilityFit fit = fit_of(points);
  assert_int_equal(fit.points, 7);
  assert_int_equal(fit.knee, clean.knee);
  assert_true(fit.lambda == clean.lambda && fit.greatest_active == 64);
}

void extreme_numbers_are_only_numbers(void **) {
  const Law law = {1, 0.03, 0.0008};
  for (const double unit : {1e-9, 1e12}) {
    Points points = points_of(law, {1, 2, 4, 8, 16, 32, 64});
    for (LoadPoint &point : points) point.commits_per_s *= unit;
    const ScalabilityFit fit = fit_of(points);
    assert_true(near(fit.lambda, unit, 1e-3));
    assert_true(near(fit.peak_active, law.peak(), 1e-3));
  }
  fit_of(points_of(law, {0.01, 0.1, 1, 100, 1e4, 1e6}));
  fit_of(points_of({1e9, 1, 0}, {0.01, 0.1, 1, 100, 1e4, 1e6}));
  fit_of({{1, 1e-300, 1}, {2, 1e15, 1}, {3, 1, 1e-12}, {1e6, 1e15, 1e12}, {0.01, 1e15, 1}, {70, 1e-300, 1}});
}

// Anything may come; every answer is sound and comes soon.
void arbitrary_data_get_a_sound_answer(void **) {
  Chance chance(2024);
  const auto magnitude = [&](double decades) { return std::pow(10, decades * (chance.uniform() - 0.5)); };
  for (int round = 0; round < 1500; round++) {
    const double decades = 1 + static_cast<double>(round % 13);
    Points points;
    const int count = 6 + static_cast<int>(chance.uniform() * 30);
    for (int i = 0; i < count; i++) {
      points.push_back({5 * magnitude(decades / 2), 1000 * magnitude(decades), magnitude(decades)});
    }
    fit_of(points);
  }
  // And any law, without and with noise.
  for (int round = 0; round < 1500; round++) {
    const Law law = {magnitude(12), chance.uniform() < 0.2 ? 0 : chance.uniform(),
                     chance.uniform() < 0.2 ? 0 : magnitude(8)};
    fit_of(windows_of(law, 1 + 20 * chance.uniform(), 70, 20, round % 3 * 0.1, static_cast<std::uint64_t>(round)));
  }
}

void many_points_are_as_good_as_few(void **) {
  const Law law = {1000, 0.03, 0.0008};
  const ScalabilityFit fit = fit_of(windows_of(law, 0.3, 64, 3600, 0.05, 5));
  assert_true(near(fit.peak_active, law.peak(), 0.02));
  assert_int_equal(fit.points, 3600);
}

void predictions_follow_the_law(void **) {
  const Law law = {1000, 0.03, 0.0008};
  const ScalabilityFit fit = fit_of(points_of(law, {1, 2, 4, 8, 16, 32, 64}));
  for (const double active : {0.5, 1.0, 10.0, 100.0}) {
    assert_true(near(predict_commits_per_s(fit, active), law.at(active), 1e-3));
  }
  assert_true(predict_commits_per_s(fit, 0) == 0);
  assert_true(predict_commits_per_s(fit, -1) == 0);
  assert_true(predict_commits_per_s(fit, kNaN) == 0);
  assert_true(predict_commits_per_s(ScalabilityFit{}, 10) == 0);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(postgresql_9_1_levels_off_at_about_twenty_clients),
      cmocka_unit_test(agrees_with_the_published_fit_of_spec_sdm91),
      cmocka_unit_test(agrees_with_the_published_fit_of_the_ray_tracer),
      cmocka_unit_test(known_coefficients_are_found_again),
      cmocka_unit_test(coefficients_are_found_through_noise),
      cmocka_unit_test(the_interval_of_the_peak_contains_it_nineteen_times_of_twenty),
      cmocka_unit_test(standard_errors_are_how_far_the_coefficients_scatter),
      cmocka_unit_test(noise_lowers_the_confidence),
      cmocka_unit_test(windows_below_saturation_give_a_lower_bound),
      cmocka_unit_test(linear_growth_has_no_peak),
      cmocka_unit_test(constant_throughput_needs_the_least_that_was_seen),
      cmocka_unit_test(retrograde_throughput_needs_few_backends),
      cmocka_unit_test(one_outlier_costs_confidence_rather_than_the_answer),
      cmocka_unit_test(a_point_counts_as_much_as_it_weighs),
      cmocka_unit_test(too_little_data_is_no_fit),
      cmocka_unit_test(throughput_that_has_nothing_to_do_with_concurrency_is_no_fit),
      cmocka_unit_test(unusable_points_are_left_out),
      cmocka_unit_test(extreme_numbers_are_only_numbers),
      cmocka_unit_test(arbitrary_data_get_a_sound_answer),
      cmocka_unit_test(many_points_are_as_good_as_few),
      cmocka_unit_test(predictions_follow_the_law),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
