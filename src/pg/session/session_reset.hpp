// SPDX-License-Identifier: PostgreSQL
//
// What a client leaves in a backend besides committed data, and taking it away.

#ifndef SLUICE_PG_SESSION_SESSION_RESET_HPP
#define SLUICE_PG_SESSION_SESSION_RESET_HPP

namespace sluice::pg {

// Watches utility statements and transactions of this backend for session state.
// Once per process.
void install_session_watch();

// A SQL-level prepared statement was made without PREPARE.
void note_sql_statement();

// After a transaction in transaction mode: settings, SQL-level prepared
// statements, cursors WITH HOLD, LISTEN, session-level advisory locks, temporary
// objects, sequence and plan caches.  Does nothing but look when nothing is left
// (under a microsecond).  No transaction may be open.
void reset_after_transaction();

// The same for everything, after a client of a session-mode pool has left.
// Returns false if something remains that only a new process gets rid of.
bool reset_after_session();

}  // namespace sluice::pg

#endif
