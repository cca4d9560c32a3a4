// SPDX-License-Identifier: PostgreSQL
//
// Copying MachineFacts in and out of shared memory as a whole.
//
// A sequence lock: the one writer makes `version` odd, writes, and makes it even
// again; a reader that sees an odd version, or another one after its copy than
// before, tries again.  Readers never hold up the writer, and nobody can die
// holding anything: an odd version left behind by a writer that was killed is
// passed over by the next one.
//
// Memory order.  Writer: the release fence after the odd version keeps the
// fields from becoming visible before it; the release store of the even version
// keeps them from becoming visible after it.  Reader: the acquire load of the
// version keeps the copy from starting before it, the acquire fence keeps the
// second look from moving ahead of the copy.  Every byte is read and written
// atomically (relaxed), the texts included, so that a torn copy is thrown away
// and never undefined.

#ifndef SLUICE_CORE_TUNING_MACHINE_SNAPSHOT_HPP
#define SLUICE_CORE_TUNING_MACHINE_SNAPSHOT_HPP

#include "core/pool/shared_state.hpp"

namespace sluice {

// The fields of MachineFacts with the same meanings.
struct MachineSnapshot {
  int logical_cpus = 0;
  int physical_cores = 0;
  double quota_cores = -1;
  double cores = 0;
  int spindles = -1;
  double miss_ratio = -1;
  int rule_size = 0;
  char spindles_reason[sizeof(MachineFacts::spindles_reason)] = "";
  char cores_reason[sizeof(MachineFacts::cores_reason)] = "";
};

// One process at a time.
void publish_machine_facts(MachineFacts &facts, const MachineSnapshot &snapshot) noexcept;

// False if nothing has been published yet, or if no whole copy could be had in a
// great number of tries (the writer stopped in the middle).
bool read_machine_facts(const MachineFacts &facts, MachineSnapshot &snapshot) noexcept;

}  // namespace sluice

#endif
