// SPDX-License-Identifier: PostgreSQL
//
// Transaction commands and statement logging, shared by the simple and the
// extended protocol.

#ifndef SLUICE_PG_SESSION_TRANSACTION_HPP
#define SLUICE_PG_SESSION_TRANSACTION_HPP

#include "pg/compat.hpp"

extern "C" {
#include "nodes/params.h"
#include "nodes/pg_list.h"
}

namespace sluice::pg {

// Opens a transaction command unless one is open, and arms statement_timeout.
void begin_command();

// Commits it (inside a transaction block: ends the command) and disarms the timeout.
void finish_command();

void disarm_statement_timeout();

// May this statement run in an aborted transaction?
bool ends_transaction(const Node *statement);

// Raises "current transaction is aborted ..." .
[[noreturn]] void refuse_in_aborted_transaction();

// Is one of the statements (raw, or planned) to be logged by log_statement?
bool wants_logging(const List *statements);

// For logging: DETAIL with the query of an EXECUTE, or with the parameters.
int errdetail_prepared(const List *raw_statements);
int errdetail_parameters(ParamListInfo parameters);

}  // namespace sluice::pg

#endif
