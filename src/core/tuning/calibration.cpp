// SPDX-License-Identifier: PostgreSQL
//
// See calibration.hpp.

#include "core/tuning/calibration.hpp"

#include <algorithm>
#include <cmath>

namespace sluice {

namespace {

constexpr int kLeastUpperSize = 16;
constexpr int kLeastSpareSlots = 2;
constexpr double kPhasesBeforeRounds = 2;  // the trial and the warm-up

void add(CalibrationSizes &sizes, int size) noexcept {
  if (sizes.count < kMostCalibrationSizes) {
    sizes.sizes[sizes.count++] = size;
  }
}

// A generator that is the same everywhere; its upper bits are good enough here.
std::uint32_t next_random(std::uint64_t &state) noexcept {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return static_cast<std::uint32_t>(state >> 33);
}

bool in_range(double value, double least, double greatest) noexcept {
  return value >= least && value <= greatest;  // false for NaN
}

}  // namespace

void normalize(CalibrationSizes &sizes) noexcept {
  std::sort(sizes.sizes, sizes.sizes + sizes.count);
  sizes.count = static_cast<std::size_t>(std::unique(sizes.sizes, sizes.sizes + sizes.count) - sizes.sizes);
}

CalibrationSizes choose_calibration_sizes(int rule_size, int available) noexcept {
  const int rule = std::clamp(rule_size, 0, kGreatestCalibrationSize);
  const int wanted = std::max(4 * rule, kLeastUpperSize);
  const int limit = std::clamp(std::min(wanted, available), 1, kGreatestCalibrationSize);

  CalibrationSizes chosen{};
  add(chosen, 1);
  for (int power = 2; power <= limit; power *= 2) {
    add(chosen, power);
    if (power + power / 2 <= limit) {
      add(chosen, power + power / 2);
    }
  }
  if (rule >= 1 && rule <= limit) {
    add(chosen, rule);
  }
  add(chosen, limit);
  normalize(chosen);
  return chosen;
}

int slots_for_calibration(int free_slots) noexcept {
  const int spare = std::max(free_slots / 4, kLeastSpareSlots);
  return std::max(free_slots - spare, 0);
}

std::string_view calibration_refusal_phrase(CalibrationRefusal refusal) noexcept {
  switch (refusal) {
    case CalibrationRefusal::none:
      return "nothing is wrong";
    case CalibrationRefusal::no_sizes:
      return "no size is given";
    case CalibrationRefusal::too_many_sizes:
      return "too many sizes are given";
    case CalibrationRefusal::size_out_of_range:
      return "a size is out of range";
    case CalibrationRefusal::seconds_out_of_range:
      return "the time for each size is out of range";
    case CalibrationRefusal::pause_out_of_range:
      return "the pause is out of range";
    case CalibrationRefusal::rounds_out_of_range:
      return "the number of rounds is out of range";
    case CalibrationRefusal::takes_too_long:
      return "the sweep would take too long";
  }
  return "";
}

double cut_off_s(const CalibrationPlan &plan) noexcept {
  return plan.seconds_per_size + std::max(plan.seconds_per_size, kLeastGrace_s);
}

double longest_duration_s(const CalibrationPlan &plan) noexcept {
  const double measurements = plan.rounds * static_cast<double>(plan.sizes.count);
  return measurements * (plan.pause_s + cut_off_s(plan)) + kPhasesBeforeRounds * cut_off_s(plan);
}

CalibrationRefusal check(const CalibrationPlan &plan) noexcept {
  if (plan.sizes.count == 0) {
    return CalibrationRefusal::no_sizes;
  }
  if (plan.sizes.count > kMostCalibrationSizes) {
    return CalibrationRefusal::too_many_sizes;
  }
  for (std::size_t i = 0; i < plan.sizes.count; i++) {
    if (plan.sizes.sizes[i] < 1 || plan.sizes.sizes[i] > kGreatestCalibrationSize) {
      return CalibrationRefusal::size_out_of_range;
    }
  }
  if (!in_range(plan.seconds_per_size, kShortestMeasurement_s, kLongestCalibration_s)) {
    return CalibrationRefusal::seconds_out_of_range;
  }
  if (!in_range(plan.pause_s, 0, kLongestCalibration_s)) {
    return CalibrationRefusal::pause_out_of_range;
  }
  if (plan.rounds < 1 || plan.rounds > static_cast<int>(kMostCalibrationRounds)) {
    return CalibrationRefusal::rounds_out_of_range;
  }
  return longest_duration_s(plan) > kLongestCalibration_s ? CalibrationRefusal::takes_too_long : CalibrationRefusal::none;
}

CalibrationOrder order_of_round(std::size_t count, int round) noexcept {
  CalibrationOrder order{};
  count = std::min(count, kMostCalibrationSizes);
  for (std::size_t i = 0; i < count; i++) {
    order.order[i] = i;
  }
  // Rounds 0 and 1, 2 and 3 ... share a shuffle; the second of them goes backwards.
  std::uint64_t state = 0x9e3779b97f4a7c15u + static_cast<std::uint64_t>(round / 2);
  for (std::size_t i = count; i > 1; i--) {
    std::swap(order.order[i - 1], order.order[next_random(state) % i]);
  }
  if (round % 2 != 0) {
    std::reverse(order.order, order.order + count);
  }
  return order;
}

double median(double *values, std::size_t count) noexcept {
  if (count == 0) {
    return 0;
  }
  std::sort(values, values + count);
  const std::size_t middle = count / 2;
  return count % 2 != 0 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

CalibrationVerdict judge(const CalibrationPoint *points, std::size_t count) noexcept {
  CalibrationVerdict verdict{0, kNoBestSize};
  for (std::size_t i = 0; i < count; i++) {
    if (points[i].candidate) {
      verdict.greatest_per_second = std::max(verdict.greatest_per_second, points[i].per_second);
    }
  }
  if (verdict.greatest_per_second <= 0) {
    return verdict;
  }
  for (std::size_t i = 0; i < count; i++) {
    const bool good = points[i].candidate && points[i].per_second >= kGoodEnough * verdict.greatest_per_second;
    if (good && (verdict.best == kNoBestSize || points[i].size < points[verdict.best].size)) {
      verdict.best = i;
    }
  }
  return verdict;
}

double per_second(std::uint64_t transactions, std::int64_t elapsed_us) noexcept {
  if (transactions == 0) {
    return 0;
  }
  return static_cast<double>(transactions) * 1e6 / static_cast<double>(std::max<std::int64_t>(elapsed_us, 1));
}

}  // namespace sluice
