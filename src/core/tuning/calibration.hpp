// SPDX-License-Identifier: PostgreSQL
//
// How many backends are best for one script: which sizes are tried, in which
// order, and what follows from what was measured.
//
// The sizes of the sweep grow by about a third or a half each (1, 2, 3, 4, 6, 8,
// 12, 16 ...): throughput over size is steep where it is small and flat where it
// is large, so equal ratios tell more than equal distances.
//
// The order is shuffled, and every second round goes backwards: whatever drifts
// while the sweep runs (caches that fill, tables that bloat, a processor that gets
// hot, a neighbour) then favours neither small sizes nor large ones.  The shuffle
// is a fixed one, so that two sweeps of the same sizes can be compared.
//
// The best size is the smallest whose throughput comes within kGoodEnough of the
// greatest: the curve is flat at its top, measurements have noise, and a backend
// that adds next to nothing costs memory and makes everybody's latency longer.

#ifndef SLUICE_CORE_TUNING_CALIBRATION_HPP
#define SLUICE_CORE_TUNING_CALIBRATION_HPP

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace sluice {

constexpr std::size_t kMostCalibrationSizes = 64;
constexpr std::size_t kMostCalibrationRounds = 100;
constexpr int kGreatestCalibrationSize = 1000;
constexpr double kLongestCalibration_s = 3600;
constexpr double kShortestMeasurement_s = 0.01;
constexpr double kLeastGrace_s = 2;
constexpr double kGoodEnough = 0.97;

struct CalibrationSizes {
  int sizes[kMostCalibrationSizes];
  std::size_t count;
};

// 1, 2, 3, 4, 6, 8, 12, 16 ... and `rule_size` itself, up to
// max(4 * rule_size, 16), kGreatestCalibrationSize and `available`.  Ascending,
// without duplicates.  rule_size < 1: not known.  available < 1: one size, 1.
CalibrationSizes choose_calibration_sizes(int rule_size, int available) noexcept;

// Sorts, and removes duplicates.
void normalize(CalibrationSizes &sizes) noexcept;

// How many worker processes a sweep may take of those that are free.  A quarter
// of the free ones, and two at least, stay for pools that want to grow and for
// parallel queries.  0 if there are not more than these.
int slots_for_calibration(int free_slots) noexcept;

// What is wrong with the arguments.
enum class CalibrationRefusal {
  none = 0,
  no_sizes,
  too_many_sizes,
  size_out_of_range,
  seconds_out_of_range,
  pause_out_of_range,
  rounds_out_of_range,
  takes_too_long,
};

// One lower-case phrase each.
std::string_view calibration_refusal_phrase(CalibrationRefusal refusal) noexcept;

struct CalibrationPlan {
  CalibrationSizes sizes;
  double seconds_per_size;
  double pause_s;
  int rounds;
};

// Seconds from the beginning of a phase after which the transactions that are
// still under way are cancelled: twice seconds_per_size, but at least
// kLeastGrace_s more than it.
double cut_off_s(const CalibrationPlan &plan) noexcept;

// Seconds, the trial and the warm-up included, if every phase lasts until its
// cut-off: (rounds * sizes + 2) * cut_off_s + rounds * sizes * pause_s.  The
// workers' start and end come on top of it.
double longest_duration_s(const CalibrationPlan &plan) noexcept;

CalibrationRefusal check(const CalibrationPlan &plan) noexcept;

// The order in which the sizes are measured in a round (from 0): `order[i]` is an
// index into the sizes, all of 0 .. count - 1 once.
struct CalibrationOrder {
  std::size_t order[kMostCalibrationSizes];
};

CalibrationOrder order_of_round(std::size_t count, int round) noexcept;

// The middle one, or the mean of the two in the middle; 0 of none.  Sorts the
// values.
double median(double *values, std::size_t count) noexcept;

// What was measured at one size.
struct CalibrationPoint {
  int size = 0;
  bool candidate = false;  // measured, with as many backends as it should have
  double per_second = 0;   // median over the rounds
};

constexpr std::size_t kNoBestSize = ~std::size_t{0};

struct CalibrationVerdict {
  double greatest_per_second;  // among the candidates; 0: there is none
  std::size_t best;            // index of the point; kNoBestSize: nothing was done at any size
};

CalibrationVerdict judge(const CalibrationPoint *points, std::size_t count) noexcept;

// The throughput of one worker: `transactions` in `elapsed_us`.  A size's is the
// sum over its workers, each in its own time: so a transaction that was begun in
// time and ended late is counted with all the time it took.
double per_second(std::uint64_t transactions, std::int64_t elapsed_us) noexcept;

}  // namespace sluice

#endif
