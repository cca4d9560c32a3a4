// SPDX-License-Identifier: PostgreSQL
//
// Where more backends stop bringing more throughput, from what was measured.
//
// The law   X(N) = lambda * N / (1 + sigma * (N - 1) + kappa * N * (N - 1))
//   Neil J. Gunther's Universal Scalability Law ("Guerrilla Capacity Planning",
//   2007, chapter 4), in the form with three coefficients, so that the
//   throughput of one backend need not have been measured: lambda, commits per
//   second of one backend that is alone; sigma, the share of the work that is
//   done one at a time (contention); kappa, what each pair of backends costs each
//   other (coherency).  For N above the peak the throughput falls.
//
// The load is what happened to be there: N is the mean number of backends that
// were active during a window, X what they committed in it.  Below saturation N
// follows from the load (Little's law, N = X * R) and not the other way round,
// but the pair lies on the same curve, as the time R that a transaction takes at
// a concurrency of N does not depend on which of the two was set.
//
// The fit is nonlinear least squares in X, weighted, with sigma in 0..1 and
// kappa >= 0 (the same problem and the same bounds as the function usl() of
// Stefan Moeding's package for R).  Standard errors are robust ones (MacKinnon and
// White's HC3, 1985), as a throughput scatters the more the greater it is; they
// are wide for few points.  The interval of the peak comes from the delta method
// on 1 / peak^2, which unlike the peak itself stays finite when kappa vanishes;
// the range of the knee from leaving out each part of the points in turn.
//
// A fit is a description of what was seen.  The knee is never placed outside the
// observed range; if the throughput had not levelled off there, the verdict says
// so.  Nothing published is NaN or infinite.

#ifndef SLUICE_CORE_TUNING_SCALABILITY_HPP
#define SLUICE_CORE_TUNING_SCALABILITY_HPP

#include <cstddef>
#include <string_view>

namespace sluice {

struct LoadPoint {
  double active;  // mean number of active backends; may be a fraction
  double commits_per_s;
  double weight;  // relative; the variance of commits_per_s is taken to be proportional to 1 / weight
};

// Points outside of these, with a weight of 0 or less, or NaN are left out.  A
// window without a commit is a stall, and no measurement of the law.
constexpr double kLeastActive = 0.01;
constexpr double kGreatestActive = 1e6;  // MAX_BACKENDS of the server is 262143
constexpr double kGreatestCommitsPerSecond = 1e15;

// Below any of these there is no fit.
constexpr int kLeastPoints = 6;            // three coefficients, and as many degrees of freedom to judge them by
constexpr int kLeastLevels = 4;            // three levels determine the curve, whatever they are
constexpr double kLevelStep = 1.1;         // levels closer than 10 % are one
constexpr double kLeastConcurrency = 2;    // somewhere: less than two backends have nothing to contend for
constexpr double kLeastRange = 3;          // greatest / least concurrency: on a short arc, any curve looks like a line
constexpr double kGreatestScatter = 0.20;  // residual error / mean throughput: above, the law explains too little

// What the answer rests on, for `medium` and for `high`; all of it is needed.
// Two per cent of throughput move the knee by about ten per cent of its size, as
// the curve is flat there; hence the limits for the scatter are strict.
constexpr double kMediumScatter = 0.10;
constexpr double kHighScatter = 0.05;
constexpr int kHighPoints = 10;
constexpr double kMediumKneeSpread = 0.5;  // (greatest - least knee of the jackknife) / knee, beyond one backend
constexpr double kHighKneeSpread = 0.25;

// The knee: the smallest pool that reaches this share of the greatest throughput
// predicted for any pool size in the observed range.  The last per cents are the
// dearest: close below the peak each costs many backends, and every one of them
// holds memory, locks and snapshots.
constexpr double kKneeShare = 0.97;

// If one per cent more backends still bring more than this many per cent of
// throughput at the greatest observed concurrency (1 is linear growth, 0 the
// peak), the curve has not levelled off.  At the limit, twice as many would bring
// at most 7 %; above it, the knee would move along with the end of the range.
constexpr double kGrowingElasticity = 0.10;

// Peaks beyond this are none.
constexpr double kGreatestPeak = 1e6;

enum class Confidence { none, low, medium, high };

enum class ScalabilityVerdict {
  knee_found,
  still_growing,   // the knee is a lower bound: more backends than were ever active may bring more
  already_flat,    // the knee is an upper bound: fewer backends than were ever active may do as well
  too_few_points,  // from here on: no fit
  too_few_levels,
  range_too_narrow,
  concurrency_too_low,
  fit_explains_too_little,
};

std::string_view describe(Confidence confidence) noexcept;
std::string_view describe(ScalabilityVerdict verdict) noexcept;

// No fit: confidence is `none`, and nothing else is set but what was observed and
// the verdict; after fit_explains_too_little, also the coefficients and the
// measures of the fit.
struct ScalabilityFit {
  ScalabilityVerdict verdict = ScalabilityVerdict::too_few_points;
  Confidence confidence = Confidence::none;

  int points = 0;           // that were used
  int levels = 0;           // of concurrency among them
  double least_active = 0;  // of these points
  double greatest_active = 0;

  double lambda = 0;         // commits per second of one backend, > 0 if there is a fit
  double sigma = 0;          // 0..1
  double kappa = 0;          // >= 0
  double lambda_error = -1;  // standard errors; < 0: unknown
  double sigma_error = -1;
  double kappa_error = -1;

  double r_squared = 0;       // 1 - residual / total sum of squares; may be below 0, and says little about a flat curve
  double residual_error = 0;  // residual standard error, commits per second, at the mean weight
  double scatter = 0;         // residual_error / weighted mean of the throughput

  // sqrt((1 - sigma) / kappa), at least 1; < 0: none, as throughput never falls.  It may lie beyond greatest_active,
  // and is an extrapolation then.
  double peak_active = -1;
  double peak_commits_per_s = -1;  // predicted there; < 0: there is no peak
  double peak_low = -1;            // 95 % interval of peak_active, at least 1; < 0: unknown
  double peak_high = -1;           // < 0: no upper end

  int knee = 0;                   // pool size; 0: no fit
  double knee_commits_per_s = 0;  // predicted there
  int knee_low = 0;               // least and greatest knee when a part of the points is left out
  int knee_high = 0;
};

// The points in any order; `points` may be null if `count` is 0.
ScalabilityFit fit_scalability(const LoadPoint *points, std::size_t count) noexcept;

// The throughput that a fit predicts for `active` > 0 backends; 0 if there is no fit.
double predict_commits_per_s(const ScalabilityFit &fit, double active) noexcept;

}  // namespace sluice

#endif
