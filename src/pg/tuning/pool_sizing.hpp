// SPDX-License-Identifier: PostgreSQL
//
// All that is known about the best size of a pool, collected for the views that
// show it and for what follows from it.

#ifndef SLUICE_PG_TUNING_POOL_SIZING_HPP
#define SLUICE_PG_TUNING_POOL_SIZING_HPP

#include "pg/compat.hpp"

#include <cstdint>

#include "core/tuning/knee_facts.hpp"
#include "core/tuning/machine_snapshot.hpp"
#include "core/tuning/sizing.hpp"

namespace sluice::pg {

struct Machine {
  bool known;  // the statistician has looked at least once
  MachineSnapshot facts;
};

Machine look_at_machine();

struct PoolSizing {
  SizingQuestion question;
  SizingTable table;
  bool has_knee;
  KneeFacts knee;
  bool has_calibration;
  CalibrationFacts calibration;
};

// kNoIndex: for a pool that does not exist yet.
void look_at_pool_sizing(std::uint32_t pool_index, const Machine &machine, PoolSizing &sizing);

// Predicted throughput of one size; 0 if nothing has been measured there.
double predicted_commits_per_s(const PoolSizing &sizing, int size);

// Keeps what a calibration in this database has found.  Whoever comes while another
// is being kept is not.  From any process.
void remember_calibration(const CalibrationFacts &facts);

}  // namespace sluice::pg

#endif
