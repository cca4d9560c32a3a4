// SPDX-License-Identifier: PostgreSQL
//
// Fitting the Universal Scalability Law: see scalability.hpp.
//
// Three other coefficients are fitted, in which the law reads
//
//   N / X(N) = base + shared * N + pair * N * (N - 1)
//   lambda = 1 / (base + shared), sigma = shared * lambda, kappa = pair * lambda
//
// They are seconds: what a transaction of N backends costs by itself, for each
// that it has to queue with, for each pair.  The bounds sigma >= 0, sigma <= 1,
// kappa >= 0 are shared >= 0, base >= 0, pair >= 0; the peak is at
// sqrt(base / pair); and N / X is linear in them, so linear least squares (the
// weights are those of X carried over, w * X^4 / N^2) give a starting point next
// to the answer.  From there, Levenberg and Marquardt's method, with Marquardt's
// scaling, which makes the units irrelevant; a coefficient at its bound whose
// gradient points outwards is left alone in that step.  Throughput is measured
// in the greatest one observed.

#include "core/tuning/scalability.hpp"

#include <algorithm>
#include <cmath>

namespace sluice {

namespace {

constexpr int kCoefficients = 3;
constexpr int kMostSteps = 200;            // ten are usual
constexpr double kGreatestDamping = 1e16;  // no direction leads downwards any more
constexpr double kConverged = 1e-13;       // relative change of the sum of squares
constexpr double kSingular = 1e-13;        // of a matrix with ones on its diagonal
// A point that determines the curve by itself has no residual; it is taken to have
// this share of what is its own.
constexpr double kLeastOwnShare = 0.1;
// lambda is at most this many times the best throughput per backend that was seen.
constexpr double kGreatestExtrapolation = 1e3;
constexpr int kMostParts = 32;   // of the jackknife
constexpr int kMostLevels = 32;  // counted no further
constexpr double kMostWeight = 1e12;

using Vector = double[kCoefficients];
using Matrix = double[kCoefficients][kCoefficients];

struct Curve {
  Vector cost;  // base, shared, pair
};

// The points to be fitted: those that are usable, without one part of them.
struct Points {
  const LoadPoint *all;
  std::size_t count;
  double greatest_throughput;  // the unit
  double mean_weight;
  double least_cost;  // least N / X, in that unit
  std::size_t parts;
  std::size_t left_out;  // part; == parts: none
};

bool usable(const LoadPoint &point) noexcept {
  return point.active >= kLeastActive && point.active <= kGreatestActive && point.commits_per_s > 0 &&
         point.commits_per_s <= kGreatestCommitsPerSecond && point.weight > 0 && point.weight <= kMostWeight;
}

// Calls see(N, X, weight) for each point, X in the unit, with a mean weight of 1.
template <typename See>
void for_each_point(const Points &points, See see) noexcept {
  std::size_t number = 0;
  for (std::size_t i = 0; i < points.count; i++) {
    const LoadPoint &point = points.all[i];
    if (!usable(point) || number++ % points.parts == points.left_out) continue;
    see(point.active, point.commits_per_s / points.greatest_throughput, point.weight / points.mean_weight);
  }
}

double cost_at(const Curve &curve, double active) noexcept {
  return curve.cost[0] + curve.cost[1] * active + curve.cost[2] * active * (active - 1);
}

double throughput_at(const Curve &curve, double active) noexcept {
  return active / cost_at(curve, active);
}

// Relative growth of the throughput over that of the concurrency.
double elasticity_at(const Curve &curve, double active) noexcept {
  return (curve.cost[0] - curve.cost[2] * active * active) / cost_at(curve, active);
}

// Infinite where the law has a pole or lambda is out of bounds.
double sum_of_squares(const Points &points, const Curve &curve) noexcept {
  if (!(curve.cost[0] + curve.cost[1] >= points.least_cost / kGreatestExtrapolation)) return HUGE_VAL;
  double sum = 0;
  for_each_point(points, [&](double active, double throughput, double weight) noexcept {
    const double cost = cost_at(curve, active);
    const double residual = cost > 0 ? throughput - active / cost : HUGE_VAL;
    sum += weight * residual * residual;
  });
  return std::isfinite(sum) ? sum : HUGE_VAL;
}

// Solves a * x = b for the coefficients that are not fixed (x is 0 for those),
// a symmetric and positive definite with ones on the diagonal.
bool solve(const Matrix &a, const Vector &b, const bool (&fixed)[kCoefficients], Vector *x) noexcept {
  Matrix lower = {};  // Cholesky
  Vector y = {};
  for (int i = 0; i < kCoefficients; i++) {
    if (fixed[i]) continue;
    for (int j = 0; j <= i; j++) {
      if (fixed[j]) continue;
      double rest = a[i][j];
      for (int k = 0; k < j; k++) rest -= lower[i][k] * lower[j][k];
      if (j < i) {
        lower[i][j] = rest / lower[j][j];
      } else {
        if (!(rest > kSingular)) return false;
        lower[i][i] = std::sqrt(rest);
      }
    }
    y[i] = b[i];
    for (int k = 0; k < i; k++) y[i] -= lower[i][k] * y[k];
    y[i] /= lower[i][i];
  }
  for (int i = kCoefficients - 1; i >= 0; i--) {
    (*x)[i] = 0;
    if (fixed[i]) continue;
    double rest = y[i];
    for (int k = i + 1; k < kCoefficients; k++) rest -= lower[k][i] * (*x)[k];
    (*x)[i] = rest / lower[i][i];
  }
  return true;
}

// Normal equations, scaled so that the matrix has ones on its diagonal.
struct Normal {
  Matrix matrix;
  Vector right;
  Vector scale;  // a coefficient is its scaled value / scale
};

void add(Normal *normal, const Vector &derivative, double value, double weight) noexcept {
  for (int i = 0; i < kCoefficients; i++) {
    for (int j = 0; j <= i; j++) normal->matrix[i][j] += weight * derivative[i] * derivative[j];
    normal->right[i] += weight * derivative[i] * value;
  }
}

void equilibrate(Normal *normal) noexcept {
  for (int i = 0; i < kCoefficients; i++) {
    const double length = std::sqrt(normal->matrix[i][i]);
    normal->scale[i] = length > 0 && std::isfinite(length) ? length : 1;
  }
  for (int i = 0; i < kCoefficients; i++) {
    for (int j = 0; j <= i; j++) {
      normal->matrix[i][j] /= normal->scale[i] * normal->scale[j];
      normal->matrix[j][i] = normal->matrix[i][j];
    }
    normal->right[i] /= normal->scale[i];
  }
}

// The law linearised around a curve: what a change of the coefficients does to X.
Normal linearise(const Points &points, const Curve &curve) noexcept {
  Normal normal = {};
  for_each_point(points, [&](double active, double throughput, double weight) noexcept {
    const double cost = cost_at(curve, active);
    const double slope = -active / (cost * cost);
    add(&normal, {slope, slope * active, slope * active * (active - 1)}, throughput - active / cost, weight);
  });
  equilibrate(&normal);
  return normal;
}

// N / X by linear least squares, with the coefficients at bounds that serve best.
Curve starting_curve(const Points &points) noexcept {
  Normal normal = {};
  for_each_point(points, [&](double active, double throughput, double weight) noexcept {
    const double carried = weight * std::pow(throughput, 4) / (active * active);
    add(&normal, {1, active, active * (active - 1)}, active / throughput, carried);
  });
  equilibrate(&normal);

  Curve best = {{points.least_cost, 0, 0}};
  double best_sum = sum_of_squares(points, best);
  for (int bounds = 0; bounds < (1 << kCoefficients) - 1; bounds++) {
    const bool fixed[kCoefficients] = {(bounds & 1) != 0, (bounds & 2) != 0, (bounds & 4) != 0};
    Vector solution;
    if (!solve(normal.matrix, normal.right, fixed, &solution)) continue;
    Curve curve;
    bool inside = true;
    for (int i = 0; i < kCoefficients; i++) {
      curve.cost[i] = solution[i] / normal.scale[i];
      inside = inside && curve.cost[i] >= 0;
    }
    const double sum = inside ? sum_of_squares(points, curve) : HUGE_VAL;
    if (sum < best_sum) {
      best_sum = sum;
      best = curve;
    }
  }
  return best;
}

// One damped step from a curve, inside the bounds.
bool step_from(const Curve &from, const Normal &normal, double damping, Curve *to) noexcept {
  Matrix matrix;
  bool fixed[kCoefficients];
  for (int i = 0; i < kCoefficients; i++) {
    for (int j = 0; j < kCoefficients; j++) matrix[i][j] = normal.matrix[i][j] / (i == j ? 1 : 1 + damping);
    fixed[i] = from.cost[i] <= 0 && normal.right[i] <= 0;
  }
  // The matrix has been divided by 1 + damping, for the sake of its diagonal.
  Vector step;
  if (!solve(matrix, normal.right, fixed, &step)) return false;
  for (int i = 0; i < kCoefficients; i++) {
    to->cost[i] = std::max(0.0, from.cost[i] + step[i] / (1 + damping) / normal.scale[i]);
  }
  return true;
}

// The best curve found from a starting point, and its sum of squares.
double descend(const Points &points, Curve *curve) noexcept {
  double sum = sum_of_squares(points, *curve);
  double damping = 1e-3;
  for (int step = 0; step < kMostSteps && sum > 0 && std::isfinite(sum); step++) {
    const Normal normal = linearise(points, *curve);
    bool better = false;
    double before = sum;
    while (!better && damping < kGreatestDamping) {
      Curve next;
      if (step_from(*curve, normal, damping, &next)) {
        const double next_sum = sum_of_squares(points, next);
        if (next_sum < sum) {
          better = true;
          *curve = next;
          sum = next_sum;
        }
      }
      damping *= better ? 0.1 : 10;
    }
    if (!better || before - sum <= kConverged * before) break;
    damping = std::max(damping, 1e-12);
  }
  return sum;
}

Points gather(const LoadPoint *all, std::size_t count, ScalabilityFit *fit) noexcept {
  Points points = {all, count, 0, 0, HUGE_VAL, 1, 1};
  double weights = 0;
  for (std::size_t i = 0; i < count; i++) {
    if (!usable(all[i])) continue;
    fit->least_active = fit->points == 0 ? all[i].active : std::min(fit->least_active, all[i].active);
    fit->greatest_active = std::max(fit->greatest_active, all[i].active);
    fit->points++;
    weights += all[i].weight;
    points.greatest_throughput = std::max(points.greatest_throughput, all[i].commits_per_s);
  }
  if (fit->points == 0) return points;
  points.mean_weight = weights / fit->points;
  points.parts = static_cast<std::size_t>(std::min(fit->points, kMostParts));
  points.left_out = points.parts;
  for_each_point(points, [&](double active, double throughput, double) noexcept {
    points.least_cost = std::min(points.least_cost, active / throughput);
  });
  return points;
}

// From the least concurrency upwards, each level the next one a step above.
int count_levels(const Points &points) noexcept {
  int levels = 0;
  double reached = 0;
  while (levels < kMostLevels) {
    double next = HUGE_VAL;
    for_each_point(points, [&](double active, double, double) noexcept {
      if (active > reached * kLevelStep) next = std::min(next, active);
    });
    if (!std::isfinite(next)) break;
    levels++;
    reached = next;
  }
  return levels;
}

struct WholeRange {
  int low;
  int high;
};

// The pool sizes that were observed.
WholeRange whole_range(const ScalabilityFit &fit) noexcept {
  return {std::max(1, static_cast<int>(std::floor(fit.least_active))),
          std::max(1, static_cast<int>(std::ceil(fit.greatest_active)))};
}

int knee_of(const Curve &curve, const WholeRange &range) noexcept {
  // The throughput grows up to the peak and falls after it, so the best whole
  // number is one of the peak's neighbours.
  int best = range.high;
  if (curve.cost[2] > 0) {
    const double peak = std::sqrt(curve.cost[0] / curve.cost[2]);
    if (peak < range.high) {
      best = std::max(range.low, static_cast<int>(peak));
      if (best < range.high && throughput_at(curve, best + 1) > throughput_at(curve, best)) best++;
    }
  }
  const double enough = kKneeShare * throughput_at(curve, best);
  int too_few = range.low - 1;
  int knee = best;
  while (knee - too_few > 1) {
    const int middle = too_few + (knee - too_few) / 2;
    (throughput_at(curve, middle) >= enough ? knee : too_few) = middle;
  }
  return knee;
}

// The greatest value that 2.5 % of Student's distribution lie above.
double student_975(int freedom) noexcept {
  constexpr double kFirst[] = {12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281};
  if (freedom <= 10) return kFirst[std::max(freedom, 1) - 1];
  // Abramowitz and Stegun, 26.7.5.
  constexpr double z = 1.959964;
  constexpr double z3 = z * z * z;
  constexpr double z5 = z3 * z * z;
  return z + (z3 + z) / (4.0 * freedom) + (5 * z5 + 16 * z3 + 3 * z) / (96.0 * freedom * freedom);
}

double finite_or(double value, double otherwise) noexcept {
  return std::isfinite(value) ? value : otherwise;
}

// The covariance of the coefficients, without the assumption that all points
// scatter alike: in truth a throughput scatters in proportion to itself.
// MacKinnon and White's HC3 (1985): each point contributes its own residual, made
// greater by the leverage with which the point has pulled the curve to itself.
bool estimate_covariance(const Points &points, const Curve &curve, Matrix *covariance) noexcept {
  constexpr bool kNoneFixed[kCoefficients] = {};
  const Normal normal = linearise(points, curve);
  Matrix sum = {};
  bool regular = true;
  for_each_point(points, [&](double active, double throughput, double weight) noexcept {
    const double cost = cost_at(curve, active);
    const double slope = -active / (cost * cost);
    const Vector scaled = {slope / normal.scale[0], slope * active / normal.scale[1],
                           slope * active * (active - 1) / normal.scale[2]};
    Vector pull;
    if (!solve(normal.matrix, scaled, kNoneFixed, &pull)) {
      regular = false;
      return;
    }
    double leverage = 0;
    for (int i = 0; i < kCoefficients; i++) leverage += weight * scaled[i] * pull[i];
    const double own = weight * (throughput - active / cost) / std::max(1 - leverage, kLeastOwnShare);
    for (int i = 0; i < kCoefficients; i++) {
      for (int j = 0; j < kCoefficients; j++) sum[i][j] += own * own * pull[i] * pull[j];
    }
  });
  for (int i = 0; i < kCoefficients; i++) {
    for (int j = 0; j < kCoefficients; j++) (*covariance)[i][j] = sum[i][j] / (normal.scale[i] * normal.scale[j]);
  }
  return regular;
}

// The standard error of a function of the coefficients, from its gradient.
double delta_error(const Matrix &covariance, const Vector &gradient) noexcept {
  double sum = 0;
  for (int i = 0; i < kCoefficients; i++) {
    for (int j = 0; j < kCoefficients; j++) sum += gradient[i] * covariance[i][j] * gradient[j];
  }
  return finite_or(std::sqrt(std::max(0.0, sum)), -1);
}

double as_peak(double inverse_square) noexcept {
  if (!(inverse_square > 1 / (kGreatestPeak * kGreatestPeak))) return -1;
  return std::max(1.0, 1 / std::sqrt(inverse_square));
}

void set_errors(const Points &points, const Curve &curve, ScalabilityFit *fit) noexcept {
  Matrix covariance;
  if (!estimate_covariance(points, curve, &covariance)) return;
  const double base = curve.cost[0];
  const double pair = curve.cost[2];
  const double lambda = 1 / (base + curve.cost[1]);  // in the unit
  const double square = lambda * lambda;

  fit->lambda_error = finite_or(delta_error(covariance, {square, square, 0}) * points.greatest_throughput, -1);
  fit->sigma_error = delta_error(covariance, {-fit->sigma * lambda, (1 - fit->sigma) * lambda, 0});
  fit->kappa_error = delta_error(covariance, {-fit->kappa * lambda, -fit->kappa * lambda, lambda});

  // pair / base is 1 / peak^2, and is normal where the peak is not.
  if (!(base > 0)) return;
  const double inverse = pair / base;
  const double error = delta_error(covariance, {-inverse / base, 0, 1 / base});
  if (error < 0) return;
  const double margin = student_975(fit->points - kCoefficients) * error;
  fit->peak_low = as_peak(inverse + margin);
  fit->peak_high = as_peak(inverse - margin);
}

void set_coefficients(const Points &points, const Curve &curve, ScalabilityFit *fit) noexcept {
  const double lambda = 1 / (curve.cost[0] + curve.cost[1]);
  fit->lambda = lambda * points.greatest_throughput;
  fit->sigma = std::min(1.0, curve.cost[1] * lambda);
  fit->kappa = curve.cost[2] * lambda;
}

void set_measures(const Points &points, double residual_sum, ScalabilityFit *fit) noexcept {
  double sum = 0;
  double weights = 0;
  for_each_point(points, [&](double, double throughput, double weight) noexcept {
    sum += weight * throughput;
    weights += weight;
  });
  const double mean = sum / weights;
  double total_sum = 0;
  for_each_point(points, [&](double, double throughput, double weight) noexcept {
    total_sum += weight * (throughput - mean) * (throughput - mean);
  });
  const double variance = residual_sum / (fit->points - kCoefficients);
  fit->r_squared = total_sum > 0 ? finite_or(1 - residual_sum / total_sum, 0) : 0;
  fit->residual_error = std::sqrt(variance) * points.greatest_throughput;
  fit->scatter = std::sqrt(variance) / mean;
}

void set_peak(const Curve &curve, ScalabilityFit *fit) noexcept {
  const double peak = curve.cost[0] > 0 ? as_peak(curve.cost[2] / curve.cost[0]) : 1.0;
  fit->peak_active = peak;
  if (peak > 0) fit->peak_commits_per_s = predict_commits_per_s(*fit, peak);
}

void set_knee(Points points, const Curve &curve, ScalabilityFit *fit) noexcept {
  const WholeRange range = whole_range(*fit);
  fit->knee = fit->knee_low = fit->knee_high = knee_of(curve, range);
  fit->knee_commits_per_s = predict_commits_per_s(*fit, fit->knee);
  for (points.left_out = 0; points.left_out < points.parts; points.left_out++) {
    Curve other = curve;
    if (!std::isfinite(descend(points, &other))) continue;
    const int knee = knee_of(other, range);
    fit->knee_low = std::min(fit->knee_low, knee);
    fit->knee_high = std::max(fit->knee_high, knee);
  }
  if (elasticity_at(curve, fit->greatest_active) > kGrowingElasticity) {
    fit->verdict = ScalabilityVerdict::still_growing;
  } else if (fit->knee == range.low && range.low > 1) {
    fit->verdict = ScalabilityVerdict::already_flat;
  } else {
    fit->verdict = ScalabilityVerdict::knee_found;
  }
}

Confidence judge(const ScalabilityFit &fit) noexcept {
  if (fit.verdict != ScalabilityVerdict::knee_found) return Confidence::low;
  // A whole number cannot be nearer than one.
  const double spread = std::max(0, fit.knee_high - fit.knee_low - 1) / static_cast<double>(fit.knee);
  if (fit.scatter <= kHighScatter && fit.points >= kHighPoints && spread <= kHighKneeSpread) return Confidence::high;
  if (fit.scatter <= kMediumScatter && spread <= kMediumKneeSpread) {
    return Confidence::medium;
  }
  return Confidence::low;
}

}  // namespace

std::string_view describe(Confidence confidence) noexcept {
  switch (confidence) {
    case Confidence::none:
      return "none";
    case Confidence::low:
      return "low";
    case Confidence::medium:
      return "medium";
    case Confidence::high:
      return "high";
  }
  return "";
}

std::string_view describe(ScalabilityVerdict verdict) noexcept {
  switch (verdict) {
    case ScalabilityVerdict::knee_found:
      return "throughput levels off within the observed range";
    case ScalabilityVerdict::still_growing:
      return "throughput still grows at the greatest observed concurrency";
    case ScalabilityVerdict::already_flat:
      return "throughput does not grow from the least observed concurrency on";
    case ScalabilityVerdict::too_few_points:
      return "not enough data: too few windows with load";
    case ScalabilityVerdict::too_few_levels:
      return "not enough data: too few levels of concurrency";
    case ScalabilityVerdict::range_too_narrow:
      return "not enough data: the range of concurrency is too narrow";
    case ScalabilityVerdict::concurrency_too_low:
      return "not enough data: there were never two backends active at once";
    case ScalabilityVerdict::fit_explains_too_little:
      return "not enough data: throughput does not follow from concurrency alone";
  }
  return "";
}

double predict_commits_per_s(const ScalabilityFit &fit, double active) noexcept {
  if (!(fit.lambda > 0) || !(active > 0)) return 0;
  const double slowdown = 1 + fit.sigma * (active - 1) + fit.kappa * active * (active - 1);
  return slowdown > 0 ? finite_or(fit.lambda * active / slowdown, 0) : 0;
}

ScalabilityFit fit_scalability(const LoadPoint *all, std::size_t count) noexcept {
  ScalabilityFit fit;
  const Points points = gather(all, count, &fit);
  if (fit.points > 0) fit.levels = count_levels(points);

  // The reason that is cured first by waiting comes first.
  if (fit.points < kLeastPoints) {
    fit.verdict = ScalabilityVerdict::too_few_points;
    return fit;
  }
  if (fit.greatest_active < kLeastConcurrency) {
    fit.verdict = ScalabilityVerdict::concurrency_too_low;
    return fit;
  }
  if (fit.levels < kLeastLevels) {
    fit.verdict = ScalabilityVerdict::too_few_levels;
    return fit;
  }
  if (fit.greatest_active < fit.least_active * kLeastRange) {
    fit.verdict = ScalabilityVerdict::range_too_narrow;
    return fit;
  }

  Curve curve = starting_curve(points);
  const double residual_sum = descend(points, &curve);
  set_coefficients(points, curve, &fit);
  set_measures(points, residual_sum, &fit);
  set_errors(points, curve, &fit);
  if (!(fit.scatter <= kGreatestScatter)) {
    fit.verdict = ScalabilityVerdict::fit_explains_too_little;
    return fit;
  }
  set_peak(curve, &fit);
  set_knee(points, curve, &fit);
  fit.confidence = judge(fit);
  return fit;
}

}  // namespace sluice
