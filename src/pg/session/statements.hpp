// SPDX-License-Identifier: PostgreSQL
//
// Prepared statements of the client this backend serves, of the protocol and of
// SQL.
//
// In session mode they are the server's own (commands/prepare.c).  In the other
// modes the client may meet another backend next time: its names and the texts
// behind them are kept in its store (client_store.hpp), and this backend keeps the
// plan of each text it has met (statement_cache.hpp).  The server's table holds, on
// loan, what SQL has asked for by name, and nothing when the client has gone.

#ifndef SLUICE_PG_SESSION_STATEMENTS_HPP
#define SLUICE_PG_SESSION_STATEMENTS_HPP

#include "pg/compat.hpp"

extern "C" {
#include "nodes/parsenodes.h"
#include "utils/plancache.h"
}

namespace sluice::pg {

// ---------------------------------------------------------------- the protocol; "name" is never empty

// Prepares `query` under `name`.  Raises what a direct connection raises, and
// 54000 when the client has sluice.max_prepared_statements already.
void prepare_statement(const char *name, const char *query, Oid *types, int type_count);

// The statement of that name, analysed on this backend if need be (a transaction
// must be open).  Raises 26000 when there is none, 0A000 when its result has changed.
CachedPlanSource *find_statement(const char *name);

// Forgets it; no error when there is none.
void close_statement(const char *name);

// The unnamed statement.
void prepare_unnamed_statement(const char *query, Oid *types, int type_count);
CachedPlanSource *find_unnamed_statement();  // null when there is none
void forget_unnamed_statement();

// The client is about to leave this backend / has come: the unnamed statement
// goes with it.  Storing never raises: false when there is no memory.
bool store_unnamed_statement();
void drop_local_unnamed_statement();

// After an error: gives back what the interrupted call had taken.
void release_pending_statement();

// ---------------------------------------------------------------- SQL; called by the utility hook and its kin

// Before PREPARE, and after it has succeeded.  The latter raises 42P05 and 54000, and takes the
// statement away again when it raises anything.
void expect_sql_prepare();
void note_sql_prepare(const PrepareStmt *statement);

// The name in EXECUTE, EXPLAIN EXECUTE, CREATE TABLE AS EXECUTE and their combination, or null.
// Takes raw and analysed statements.
const char *executed_statement_name(const Node *statement);

// Before these are analysed, started or executed: puts
// the statement into the server's table.  Nothing happens when there is none of that name.
void offer_statement_to_sql(const char *name);

// Before the server looks at all of them (pg_prepared_statements).  Needs no analysis, and so
// cannot fail for what has become of the tables.
void offer_all_statements_to_sql();

// Before DEALLOCATE; name null: all, also after DISCARD ALL.  True: there was one of that name, it is
// gone, and the server has nothing left to do.
bool deallocate_statement(const char *name);

// When the client leaves this backend, and before DISCARD ALL: the server's table is empty
// afterwards.  Costs nothing when nothing had been put there.
void withdraw_statements_from_sql();

// For the log: the text of the statement, and its raw parse tree; null when there is none of that
// name.  The tree is made in the current memory context.
const char *prepared_text(const char *name);
const Node *prepared_raw_tree(const char *name);

// Gives back all references (the backend ends).
void release_cached_statements();

}  // namespace sluice::pg

#endif
