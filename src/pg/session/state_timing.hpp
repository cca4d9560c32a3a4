// SPDX-License-Identifier: PostgreSQL
//
// Measures what carrying session state costs, inside a pooled backend, where it
// happens: between transactions.  For test/bench/session_state.sh; the function
// that asks for it is exported, but not part of the extension's SQL.

#ifndef SLUICE_PG_SESSION_STATE_TIMING_HPP
#define SLUICE_PG_SESSION_STATE_TIMING_HPP

namespace sluice::pg {

// Runs the measurement that the transaction just ended has asked for, if it has,
// and reports to the client in NOTICEs.  No transaction may be open.
void run_requested_timing();

}  // namespace sluice::pg

#endif
