// SPDX-License-Identifier: PostgreSQL
//
// Protocol-level prepared statements of the client this backend serves.
//
// In session mode they are the server's own (commands/prepare.c).  In
// transaction mode the client may meet another backend next time: its names and
// the texts behind them are kept in its store (client_store.hpp), and this
// backend keeps the plan of each text it has met, shared by all clients that
// prepared the same text with the same parameter types under the same start-up
// settings.  Here "name" is never empty; the unnamed statement has its own calls.

#ifndef SLUICE_PG_SESSION_STATEMENTS_HPP
#define SLUICE_PG_SESSION_STATEMENTS_HPP

#include "pg/compat.hpp"

extern "C" {
#include "utils/plancache.h"
}

namespace sluice::pg {

// Prepares `query` under `name`.  Raises what a direct connection raises, and
// 54000 when the client has sluice.max_prepared_statements already.
void prepare_statement(const char *name, const char *query, Oid *types, int type_count);

// The statement of that name, parsed on this backend if need be (a transaction
// must be open).  Raises 26000 when there is none.
CachedPlanSource *find_statement(const char *name);

// Forgets it; no error when there is none.
void close_statement(const char *name);

// The unnamed statement.
void prepare_unnamed_statement(const char *query, Oid *types, int type_count);
CachedPlanSource *find_unnamed_statement();  // null when there is none
void forget_unnamed_statement();

// The client is about to leave this backend / has come: the unnamed statement
// goes with it.
void store_unnamed_statement();
void drop_local_unnamed_statement();

// After an error: gives back what the interrupted call had taken.
void release_pending_statement();

// DEALLOCATE and DISCARD reach the client's store, EXECUTE finds what was
// prepared through the protocol.  Called by the utility hook before the server's
// own processing.
bool deallocate_statement(const char *name);  // null: all.  True when it was one of ours
void offer_statement_to_sql(const char *name);

// Gives back all references (the backend ends).
void release_cached_statements();

}  // namespace sluice::pg

#endif
