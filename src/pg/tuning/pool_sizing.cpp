// SPDX-License-Identifier: PostgreSQL
#include "pg/compat.hpp"

#include "pg/tuning/pool_sizing.hpp"

#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"

namespace sluice::pg {

constexpr auto kRelaxed = std::memory_order_relaxed;

Machine look_at_machine() {
  Machine machine{};
  machine.known = read_machine_facts(shared().header->machine, machine.facts);
  return machine;
}

static bool read_calibration(Oid database, CalibrationFacts &facts) {
  const SharedHeader &header = *shared().header;
  return header.calibrations[database % kCalibrationSlots].read(facts) && facts.database_oid == database &&
         facts.best_size > 0;
}

void remember_calibration(const CalibrationFacts &facts) {
  SharedHeader &header = *shared().header;
  if (header.calibrations_guard.exchange(1) != 0) return;
  header.calibrations[facts.database_oid % kCalibrationSlots].publish(facts);
  header.calibrations_guard.store(0);
}

void look_at_pool_sizing(std::uint32_t pool_index, const Machine &machine, PoolSizing &sizing) {
  const SharedState &state = shared();
  SizingQuestion &question = sizing.question;

  sizing = PoolSizing{};
  question.rule_size = machine.known ? machine.facts.rule_size : 0;
  question.max_backends = static_cast<int>(state.header->max_backends);
  question.configured = setting_max_pool_size;
  question.session_mode = setting_pool_mode == static_cast<int>(PoolMode::session);
  if (pool_index != kNoIndex) {
    const PoolSlot &pool = state.pools[pool_index];
    question.configured = pool.configured_max_size.load(kRelaxed);
    question.clients = Max(pool.clients.load(kRelaxed), 0);
    question.session_mode = pool.mode.load(kRelaxed) == static_cast<std::int32_t>(PoolMode::session);
    question.nested_threads = pool.nested_threads.load(kRelaxed);
    sizing.has_knee = pool.knee.read(sizing.knee) && sizing.knee.database_oid == pool.database_oid &&
                      sizing.knee.role_oid == pool.role_oid &&
                      sizing.knee.statistics_epoch == pool.statistics_epoch.load(kRelaxed);
    sizing.has_calibration = read_calibration(pool.database_oid, sizing.calibration);
  }
  if (sizing.has_knee) {
    question.knee = knee_as_pool_size(sizing.knee);
    question.knee_confidence = sizing.knee.fit.confidence;
    question.knee_verdict = sizing.knee.fit.verdict;
  }
  if (sizing.has_calibration) question.calibrated = sizing.calibration.best_size;
  sizing.table = decide_sizing(question);
}

double predicted_commits_per_s(const PoolSizing &sizing, int size) {
  if (sizing.table.advised_by == SizingRule::calibrated)
    return calibrated_transactions_per_s(sizing.calibration, size);
  if (sizing.table.advised_by == SizingRule::measured_knee) 
    return predict_commits_per_s(sizing.knee.fit, size * sizing.knee.active_per_slot);
  return 0;
}

}  // namespace sluice::pg
