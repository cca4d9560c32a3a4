// SPDX-License-Identifier: PostgreSQL
//
// Looks at the machine: processors, control groups, disks.

#ifndef SLUICE_PG_TUNING_MACHINE_HPP
#define SLUICE_PG_TUNING_MACHINE_HPP

namespace sluice::pg {

// Reads /proc and /sys (sluice.procfs, sluice.sysfs), works out the sizing rule, and publishes all of it in
// MachineFacts.  For the statistician alone (MachineFacts has one writer).
// miss_ratio: of the buffer cache, < 0 if unknown.  Takes a few milliseconds,
// raises nothing: what cannot be read is unknown, with the reason on record.
// The current directory has to be the data directory, as in every server process.
void refresh_machine_facts(double miss_ratio);

}  // namespace sluice::pg

#endif
