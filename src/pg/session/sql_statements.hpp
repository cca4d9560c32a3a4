// SPDX-License-Identifier: PostgreSQL
//
// The client's prepared statements in the server's own table (commands/prepare.c),
// where EXECUTE, EXPLAIN EXECUTE, CREATE TABLE AS EXECUTE and pg_prepared_statements
// look for them.  What of this the rest of the room needs is in statements.hpp.

#ifndef SLUICE_PG_SESSION_SQL_STATEMENTS_HPP
#define SLUICE_PG_SESSION_SQL_STATEMENTS_HPP

#include "pg/session/statement_cache.hpp"

namespace sluice::pg {

// Takes the source back from all entries it is lent to.
void call_in_lent(CachedStatement *cached);

// Takes the name out of the table, if it is there.
void withdraw_statement_from_sql(const char *name);

// Raises 54000 when the client has sluice.max_prepared_statements already.
void check_statement_limit();
[[noreturn]] void raise_duplicate_statement(const char *name);

// The PREPARE at that place of a text, as a statement of its own; parses it in the current
// memory context.
RawStmt *find_prepare(const char *query, std::int32_t location);

}  // namespace sluice::pg

#endif
