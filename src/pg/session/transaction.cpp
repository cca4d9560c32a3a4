// SPDX-License-Identifier: PostgreSQL
#include "pg/compat.hpp"

#include "pg/session/transaction.hpp"

extern "C" {
#include "access/xact.h"
#include "nodes/parsenodes.h"
#include "nodes/plannodes.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/guc.h"
#include "utils/plancache.h"
#include "utils/timeout.h"
}

#include "pg/session/session.hpp"
#include "pg/session/statements.hpp"

namespace sluice::pg {

void begin_command() {
  if (!session.transaction_started) {
    StartTransactionCommand();
    session.transaction_started = true;
  }
  // A timeout under way goes on: messages of one extended-protocol cycle share it.
  if (StatementTimeout > 0) {
    if (!get_timeout_active(STATEMENT_TIMEOUT)) enable_timeout_after(STATEMENT_TIMEOUT, StatementTimeout);
  } else {
    disarm_statement_timeout();
  }
}

void finish_command() {
  disarm_statement_timeout();
  if (!session.transaction_started) return;
  CommitTransactionCommand();
  session.transaction_started = false;
}

void disarm_statement_timeout() {
  if (get_timeout_active(STATEMENT_TIMEOUT)) disable_timeout(STATEMENT_TIMEOUT, false);
}

bool ends_transaction(const Node *statement) {
  if (statement == nullptr || !IsA(statement, TransactionStmt)) return false;
  switch (reinterpret_cast<const TransactionStmt *>(statement)->kind) {
    case TRANS_STMT_COMMIT:
    case TRANS_STMT_PREPARE:
    case TRANS_STMT_ROLLBACK:
    case TRANS_STMT_ROLLBACK_TO:
      return true;
    default:
      return false;
  }
}

void refuse_in_aborted_transaction() {
  ereport(ERROR, (errcode(ERRCODE_IN_FAILED_SQL_TRANSACTION),
                  errmsg("current transaction is aborted, commands ignored until end of transaction block"),
                  MyProc->recoveryConflictPending ? errdetail("abort reason: recovery conflict") : 0));
  pg_unreachable();
}

// EXECUTE counts as what it executes, which the server would look for in its own table.
static LogStmtLevel log_level_of(Node *statement) {
  const Node *inner = IsA(statement, RawStmt) ? reinterpret_cast<const RawStmt *>(statement)->stmt
                                              : reinterpret_cast<const PlannedStmt *>(statement)->utilityStmt;
  if (inner == nullptr || !IsA(inner, ExecuteStmt)) return GetCommandLogLevel(statement);
  const Node *executed = prepared_raw_tree(reinterpret_cast<const ExecuteStmt *>(inner)->name);
  return executed == nullptr ? LOGSTMT_ALL : GetCommandLogLevel(const_cast<Node *>(executed));
}

bool wants_logging(const List *statements) {
  ListCell *cell;

  if (log_statement == LOGSTMT_NONE) return false;
  if (log_statement == LOGSTMT_ALL) return true;
  foreach (cell, statements) {
    if (log_level_of(static_cast<Node *>(lfirst(cell))) <= static_cast<LogStmtLevel>(log_statement)) return true;
  }
  return false;
}

int errdetail_prepared(const List *raw_statements) {
  ListCell *cell;

  foreach (cell, raw_statements) {
    const RawStmt *raw = lfirst_node(RawStmt, cell);
    if (!IsA(raw->stmt, ExecuteStmt)) continue;
    const char *text = prepared_text(reinterpret_cast<ExecuteStmt *>(raw->stmt)->name);
    if (text != nullptr) return errdetail("prepare: %s", text);
  }
  return 0;
}

int errdetail_parameters(ParamListInfo parameters) {
  if (parameters == nullptr || parameters->numParams == 0 || log_parameter_max_length == 0) return 0;
  const char *text = BuildParamLogString(parameters, nullptr, log_parameter_max_length);
  return text != nullptr && text[0] != '\0' ? errdetail("parameters: %s", text) : 0;
}

}  // namespace sluice::pg
