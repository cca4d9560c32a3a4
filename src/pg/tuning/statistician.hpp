// SPDX-License-Identifier: PostgreSQL
//
// The statistician: the background worker that watches the machine.

#ifndef SLUICE_PG_TUNING_STATISTICIAN_HPP
#define SLUICE_PG_TUNING_STATISTICIAN_HPP

namespace sluice::pg {

// Registers the worker.  From _PG_init, in the postmaster.
void register_statistician();

}  // namespace sluice::pg

#endif
