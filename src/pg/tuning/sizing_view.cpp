// SPDX-License-Identifier: PostgreSQL
//
// sluice.sizing and sluice.sizing_inputs: each rule about the size of a pool beside
// the others, and what the rule for the machine rests on.  What binds and what is
// advised is decided in core/tuning/sizing.

#include "pg/stats/view_row.hpp"

extern "C" {
#include "miscadmin.h"
#include "utils/timestamp.h"
}

#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"
#include "pg/stats/snapshot.hpp"
#include "pg/tuning/pool_sizing.hpp"
#include "pg/tuning/system_files.hpp"

namespace sluice::pg {

namespace {

// ---------------------------------------------------------------- words

const char *rule_note(const Machine &machine) {
  if (!machine.known) return "the statistician has not looked at the machine yet";
  const MachineSnapshot &facts = machine.facts;
  const double spindles = effective_spindles(facts.spindles, facts.miss_ratio);
  const char *note = psprintf("%.4g * 2 + %.4g, rounded, at least 1; see sluice.sizing_inputs", facts.cores, spindles);
  if (facts.spindles < 0) return psprintf("%s; unknown spindles count as 0, sluice.spindles sets them", note);
  if (facts.spindles > 0 && facts.miss_ratio < 0) return psprintf("%s; nothing has been read yet", note);
  return note;
}

const char *describe_peak(const ScalabilityFit &fit) {
  if (fit.peak_active < 0) return "throughput never falls";
  if (fit.peak_low < 0) return psprintf("peak of %.0f/s at %.1f", fit.peak_commits_per_s, fit.peak_active);
  if (fit.peak_high < 0)
    return psprintf("peak of %.0f/s at %.1f (95 %% interval: from %.1f on)", fit.peak_commits_per_s, fit.peak_active,
                    fit.peak_low);
  return psprintf("peak of %.0f/s at %.1f (95 %% interval: %.1f to %.1f)", fit.peak_commits_per_s, fit.peak_active,
                  fit.peak_low, fit.peak_high);
}

const char *knee_note(const PoolSizing &sizing) {
  if (shared().header->history_seconds == 0) return "not enough data: sluice.history_seconds is 0";
  if (!setting_track_timing) return "not enough data: sluice.track_timing is off";
  if (!sizing.has_knee) return "not enough data: no load has been sampled yet";
  const KneeFacts &facts = sizing.knee;
  const ScalabilityFit &fit = facts.fit;
  const char *data = psprintf("%d seconds of one query mix at %d levels of %.1f to %.1f active backends; %d of other "
                              "mixes and %d that were too quiet left out",
                              facts.used, fit.levels, fit.least_active, fit.greatest_active, facts.other_mixes,
                              facts.too_quiet);
  const std::string_view verdict = describe(fit.verdict);
  if (fit.confidence == Confidence::none)
    return psprintf("%.*s (%s)", static_cast<int>(verdict.size()), verdict.data(), data);
  return psprintf("%.*s: %.0f commits/s predicted where %d execute at a time, of a pool of this size; Universal Scalability Law with lambda %.4g, sigma %.4g, kappa "
                  "%.4g, %s; knee %d to %d when parts are left out; %s",
                  static_cast<int>(verdict.size()), verdict.data(), fit.knee_commits_per_s, fit.knee, fit.lambda, fit.sigma,
                  fit.kappa, describe_peak(fit), fit.knee_low, fit.knee_high, data);
}

const char *calibration_note(const PoolSizing &sizing) {
  if (!sizing.has_calibration) return "not calibrated; see the function sluice.calibrate()";
  const CalibrationFacts &facts = sizing.calibration;
  const char *role = GetUserNameFromId(facts.role_oid, true);
  return psprintf("best of %d sizes in sluice.calibrate() by role \"%s\" at %s: %.0f transactions/s", facts.count,
                  role != nullptr ? role : "?", timestamptz_to_str(facts.at),
                  calibrated_transactions_per_s(facts, facts.best_size));
}

const char *deadlock_note(const SizingRow &row, const SizingQuestion &question) {
  if (row.size < 0) return "Tn * (Cm - 1) + 1 for Tn threads that hold Cm connections each; no clients now";
  if (question.nested_threads > 0)
    return psprintf("Tn * (Cm - 1) + 1 backends of the server for the Tn = %d threads that were seen waiting for "
                    "themselves, if they hold Cm = 2 connections each",
                    question.nested_threads);
  return psprintf("Tn * (Cm - 1) + 1 if each of Tn = " INT64_FORMAT " threads held Cm = 2 of the " INT64_FORMAT
                  " connections of now; of no interest if each holds one",
                  (question.clients + 1) / 2, question.clients);
}

const char *sizing_note(const SizingRow &row, const PoolSizing &sizing, const Machine &machine) {
  switch (row.rule) {
    case SizingRule::cores_and_spindles:
      return rule_note(machine);
    case SizingRule::measured_knee:
      return knee_note(sizing);
    case SizingRule::calibrated:
      return calibration_note(sizing);
    case SizingRule::configured:
      return row.size < 0 ? "sluice.max_pool_size is -1: the pool follows the rule" : "sluice.max_pool_size";
    case SizingRule::max_backends:
      return "sluice.max_backends, for all pools together";
    case SizingRule::deadlock_minimum:
      return deadlock_note(row, sizing.question);
  }
  return "";
}

// How much the size rests on; null for those that are no estimate.
const char *confidence_of(const SizingRow &row, const PoolSizing &sizing) {
  switch (row.rule) {
    case SizingRule::cores_and_spindles:
      return "rule of thumb";
    case SizingRule::measured_knee:
      return describe(sizing.question.knee_confidence).data();
    case SizingRule::calibrated:
      return sizing.has_calibration ? "measured" : "none";
    default:
      return nullptr;
  }
}

// names: null for the rows about a pool that does not exist yet.
void emit_sizing(FunctionCallInfo fcinfo, const PoolNames *names, const PoolSizing &sizing, const Machine &machine) {
  for (const SizingRow &rule : sizing.table.rows) {
    const char *confidence = confidence_of(rule, sizing);
    ViewRow row;
    start_row(row);
    put_name_or_null(row, names ? names->database : "", names != nullptr);
    put_name_or_null(row, names ? names->role : "", names != nullptr);
    put_text(row, sizing_rule_phrase(rule.rule).data());
    put_int_or_null(row, static_cast<std::int32_t>(rule.size), rule.size >= 0);
    put_bool(row, rule.binds);
    put_bool(row, rule.advised);
    put_text_or_null(row, confidence, confidence != nullptr);
    put_text(row, sizing_note(rule, sizing, machine));
    emit_row(fcinfo, row);
  }
}

// ---------------------------------------------------------------- inputs

// value: shown if it is known.
void emit_input(FunctionCallInfo fcinfo, const char *input, double value, bool known, const char *reason,
                const char *setting) {
  ViewRow row;
  start_row(row);
  put_text(row, input);
  put_double_or_null(row, value, known);
  put_text(row, reason);
  put_text_or_null(row, setting, setting != nullptr);
  emit_row(fcinfo, row);
}

void emit_inputs(FunctionCallInfo fcinfo, const Machine &machine) {
  const MachineSnapshot &facts = machine.facts;
  const char *not_yet = "the statistician has not looked at the machine yet";
  const bool known = machine.known;
  emit_input(fcinfo, "logical CPUs", facts.logical_cpus, known && facts.logical_cpus > 0,
             !known                   ? not_yet
             : facts.logical_cpus > 0 ? "hardware threads inside the affinity mask"
                                      : "unknown: the affinity mask cannot be read",
             nullptr);
  emit_input(fcinfo, "physical cores", facts.physical_cores, known && facts.physical_cores > 0,
             !known                     ? not_yet
             : facts.physical_cores > 0 ? "distinct cores of these"
                                        : "unknown: the topology of the processors cannot be read",
             nullptr);
  emit_input(fcinfo, "CPU quota", facts.quota_cores, known && facts.quota_cores > 0,
             !known                  ? not_yet
             : facts.quota_cores > 0 ? "least quota of the control group and those above it, in cores"
                                     : "none found",
             nullptr);
  emit_input(fcinfo, "cores", facts.cores, known, known ? shown_system_text(facts.cores_reason) : not_yet,
             "sluice.cores");
  emit_input(fcinfo, "spindles", facts.spindles, known && facts.spindles >= 0,
             known ? shown_system_text(facts.spindles_reason) : not_yet, "sluice.spindles");
  emit_input(fcinfo, "miss ratio", facts.miss_ratio, known && facts.miss_ratio >= 0,
             !known                  ? not_yet
             : facts.miss_ratio >= 0 ? "share of block accesses that the buffer cache did not answer, recent ones "
                                       "weighing more; blocks cached by the operating system count as missed"
                                     : "unknown: nothing has been read yet",
             nullptr);
  emit_input(fcinfo, "effective spindles", effective_spindles(facts.spindles, facts.miss_ratio), known,
             known ? "spindles * miss ratio; 0 where either is unknown" : not_yet, nullptr);
  emit_input(fcinfo, "cores * 2 + spindles", facts.rule_size, known, known ? "rounded, at least 1" : not_yet,
             "sluice.max_pool_size");
}

}  // namespace

extern "C" {

PG_FUNCTION_INFO_V1(sluice_sizing);
PG_FUNCTION_INFO_V1(sluice_sizing_inputs);

PGDLLEXPORT Datum sluice_sizing(PG_FUNCTION_ARGS) {
  require_shared_memory();
  InitMaterializedSRF(fcinfo, 0);

  const Machine machine = look_at_machine();
  PoolSizing sizing;
  bool any = false;
  for (std::uint32_t i = 0; i < shared().header->max_pools; i++) {
    PoolNames names;
    if (!copy_pool_names(i, names)) continue;
    look_at_pool_sizing(i, machine, sizing);
    emit_sizing(fcinfo, &names, sizing, machine);
    any = true;
  }
  if (!any) {
    look_at_pool_sizing(kNoIndex, machine, sizing);
    emit_sizing(fcinfo, nullptr, sizing, machine);
  }
  return static_cast<Datum>(0);
}

PGDLLEXPORT Datum sluice_sizing_inputs(PG_FUNCTION_ARGS) {
  require_shared_memory();
  InitMaterializedSRF(fcinfo, 0);
  emit_inputs(fcinfo, look_at_machine());
  return static_cast<Datum>(0);
}

}  // extern "C"

}  // namespace sluice::pg
