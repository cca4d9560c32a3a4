// SPDX-License-Identifier: PostgreSQL
//
// The sizing rules: see sizing.hpp.

#include "core/tuning/sizing.hpp"

#include <cmath>

namespace sluice {

std::string_view cores_limit_phrase(CoresLimit limit) noexcept {
  switch (limit) {
    case CoresLimit::configured:
      return "set by sluice.cores";
    case CoresLimit::quota:
      return "limited by the CPU quota of a control group";
    case CoresLimit::physical_cores:
      return "physical cores inside the affinity mask";
    case CoresLimit::logical_cpus:
      return "logical CPUs inside the affinity mask, as their cores are unknown";
    case CoresLimit::unknown:
      return "assumed, as the CPUs cannot be counted";
  }
  return "";
}

CoresDecision decide_cores(const CoresFound &found) noexcept {
  if (found.configured > 0) return {found.configured, CoresLimit::configured};

  CoresDecision decision{1, CoresLimit::unknown};
  if (found.physical_cores > 0) {
    decision = {static_cast<double>(found.physical_cores), CoresLimit::physical_cores};
  } else if (found.logical_cpus > 0) {
    decision = {static_cast<double>(found.logical_cpus), CoresLimit::logical_cpus};
  }
  if (found.quota_cores > 0 && (found.quota_cores < decision.cores || decision.limit == CoresLimit::unknown)) {
    decision = {found.quota_cores, CoresLimit::quota};
  }
  return decision;
}

double effective_spindles(int spindles, double miss_ratio) noexcept {
  if (spindles <= 0 || !(miss_ratio > 0)) return 0;
  return spindles * (miss_ratio < 1 ? miss_ratio : 1);
}

int rule_size(double cores, double effective_spindles) noexcept {
  const double size = cores * 2 + effective_spindles;
  if (!(size > 1)) return 1;
  if (size >= kGreatestRuleSize) return kGreatestRuleSize;
  return static_cast<int>(std::lround(size));
}

std::int64_t deadlock_minimum(std::int64_t threads, std::int64_t connections_per_thread) noexcept {
  if (threads < 1 || connections_per_thread < 2) return 1;
  return threads * (connections_per_thread - 1) + 1;
}

void MissRatio::look(std::int64_t fetched, std::int64_t hit) noexcept {
  if (fetched < 0 || hit < 0) return;
  if (!looked_ || fetched < last_fetched_ || hit < last_hit_) {
    looked_ = true;
    fetched_ = 0;
    missed_ = 0;
  } else {
    const double decay = std::exp2(-1.0 / kHalfLife);
    const auto more = static_cast<double>(fetched - last_fetched_);
    // Counters of many databases are not read at one instant: more hits than
    // fetches can appear.
    const double misses = more - static_cast<double>(hit - last_hit_);
    fetched_ = fetched_ * decay + more;
    missed_ = missed_ * decay + (misses > 0 ? misses : 0);
  }
  last_fetched_ = fetched;
  last_hit_ = hit;
}

double MissRatio::ratio() const noexcept {
  if (fetched_ >= kEnoughFetches) return missed_ < fetched_ ? missed_ / fetched_ : 1;
  if (last_fetched_ <= 0) return -1;
  const std::int64_t missed = last_fetched_ - last_hit_;
  return missed > 0 ? static_cast<double>(missed) / static_cast<double>(last_fetched_) : 0;
}

std::string_view sizing_rule_phrase(SizingRule rule) noexcept {
  switch (rule) {
    case SizingRule::cores_and_spindles:
      return "cores * 2 + spindles";
    case SizingRule::measured_knee:
      return "measured knee";
    case SizingRule::calibrated:
      return "calibrated";
    case SizingRule::configured:
      return "configured";
    case SizingRule::max_backends:
      return "max_backends";
    case SizingRule::deadlock_minimum:
      return "deadlock minimum";
  }
  return "";
}

namespace {

struct Advised {
  std::int64_t size;  // < 1: none
  SizingRule by;
  SizeBound bound = SizeBound::exact;
};

Advised without_knee(const SizingQuestion &question) noexcept {
  if (question.calibrated >= 1) return {question.calibrated, SizingRule::calibrated};
  return {question.rule_size, SizingRule::cores_and_spindles};
}

Advised choose_advice(const SizingQuestion &question) noexcept {
  if (question.session_mode) return {0, SizingRule::cores_and_spindles};
  const Advised other = without_knee(question);
  Advised knee{question.knee, SizingRule::measured_knee, SizeBound::exact};
  if (question.knee < 1 || question.knee_confidence == Confidence::none) return other;
  if (question.calibrated >= 1 && question.knee_confidence < Confidence::medium) return other;
  switch (question.knee_verdict) {
    case ScalabilityVerdict::still_growing:
      knee.bound = SizeBound::at_least;
      return other.size > knee.size ? other : knee;
    case ScalabilityVerdict::already_flat:
      knee.bound = SizeBound::at_most;
      return other.size >= 1 && other.size < knee.size ? other : knee;
    default:
      return question.knee_confidence >= Confidence::medium ? knee : other;
  }
}

}  // namespace

SizingTable decide_sizing(const SizingQuestion &question) noexcept {
  const std::int64_t rule = question.rule_size < 1 ? -1 : question.rule_size;
  const std::int64_t configured = question.configured < 1 ? -1 : question.configured;
  const std::int64_t threads = question.nested_threads > 0 ? question.nested_threads : (question.clients + 1) / 2;
  const std::int64_t minimum = threads < 1 ? -1 : deadlock_minimum(threads, 2);

  const bool follows_rule = configured < 0;
  const std::int64_t wanted = follows_rule ? rule : configured;
  const bool clamped = wanted > question.max_backends;
  const Advised advised = choose_advice(question);

  SizingTable table{{
      {SizingRule::cores_and_spindles, rule, follows_rule && !clamped, false},
      {SizingRule::measured_knee, question.knee < 1 ? -1 : question.knee, false, false},
      {SizingRule::calibrated, question.calibrated < 1 ? -1 : question.calibrated, false, false},
      {SizingRule::configured, configured, !follows_rule && !clamped, false},
      {SizingRule::max_backends, question.max_backends, clamped, false},
      {SizingRule::deadlock_minimum, minimum, false, false},
  }, 0, advised.by, advised.bound};
  if (advised.size < 1) return table;
  const bool limited = advised.size > question.max_backends;
  table.advised_size = static_cast<int>(limited ? question.max_backends : advised.size);
  for (SizingRow &row : table.rows) {
    row.advised = row.rule == (limited ? SizingRule::max_backends : advised.by);
  }
  return table;
}

}  // namespace sluice
