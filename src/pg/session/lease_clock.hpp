// SPDX-License-Identifier: PostgreSQL
//
// Times what a lease is spent on: executing, and waiting for the client inside a
// transaction.
//
// A *hold* begins when a client is leased, or when a backend that lingers on its
// client gets a command, and ends when the backend is free for others again: when
// the client is given back, leaves, or is lingered on.  In session mode, and while
// a client is pinned, a hold outlasts transactions.
//
// Two looks at the fine clock for each command cycle, and records in memory of this
// process's own (core/stats/lease_statistics.hpp).  With sluice.track_timing off,
// neither; then only leases and transactions are counted.
//
// Sums for each application are handed over in batches, because all backends
// share a row.

#ifndef SLUICE_PG_SESSION_LEASE_CLOCK_HPP
#define SLUICE_PG_SESSION_LEASE_CLOCK_HPP

#include "pg/compat.hpp"

#include <cstdint>

namespace sluice::pg {

// Now, on the clock of all that follows; on the coarse one while nothing is timed.
std::int64_t lease_clock_us();

// The client has been leased.  waited_us: since it was ready; queued: it went
// through the wait queue.  The lease is counted as soon as the client wants
// something: one that only says goodbye has used nothing.
void start_hold(std::int64_t now_us, std::int64_t waited_us, bool queued);

// A lingering backend has got a command.  Nothing to do in the middle of a hold.
void resume_hold(std::int64_t now_us);

// The first message of a command cycle has come.  Nothing to do if one is under way.
void start_command();

// ... after the backend has waited for it inside a transaction for so long, on the coarse clock: for where nothing is
// timed.
void note_thought(std::int64_t thought_us);

// It is answered; from here on it is the client's turn.
void finish_command_cycle(bool in_transaction);

// The backend is free for others: since the last command cycle, or right now.
void finish_hold(bool now);

// Query and Execute; a transaction that has ended.
void count_statement();
void count_transaction();

// What has been summed up for an application is handed over in batches, or when
// it is due (monotonic microseconds, -1 = nothing is pending).
std::int64_t application_times_deadline_us();
void hand_over_application_times();

}  // namespace sluice::pg

#endif
