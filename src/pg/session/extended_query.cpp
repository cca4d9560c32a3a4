// SPDX-License-Identifier: PostgreSQL
//
// The extended query protocol, but for Bind (bind.cpp), written from the
// documentation of its messages over the server's exported functions.

#include "pg/compat.hpp"

#include "pg/session/extended_query.hpp"

extern "C" {
#include "access/printtup.h"
#include "access/xact.h"
#include "libpq/pqformat.h"
#include "nodes/parsenodes.h"
#include "nodes/plannodes.h"
#include "pgstat.h"
#include "tcop/cmdtag.h"
#include "tcop/dest.h"
#include "tcop/pquery.h"
#include "tcop/tcopprot.h"
#include "utils/backend_status.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/portal.h"
#include "utils/ps_status.h"
}

#include "pg/session/session.hpp"
#include "pg/session/statements.hpp"
#include "pg/session/transaction.hpp"

namespace sluice::pg {

static StringInfoData description;  // reused: RowDescription is built often

void open_extended_protocol() {
  MemoryContext caller = MemoryContextSwitchTo(TopMemoryContext);
  initStringInfo(&description);
  MemoryContextSwitchTo(caller);
}

// ------------------------------------------------------------------ Parse

static void log_parse_duration(const char *name, const char *query) {
  char elapsed_ms[32];
  switch (check_log_duration(elapsed_ms, false)) {
    case 1:
      ereport(LOG, (errmsg("duration: %s ms", elapsed_ms), errhidestmt(true)));
      break;
    case 2:
      ereport(LOG, (errmsg("duration: %s ms  parse %s: %s", elapsed_ms, name[0] != '\0' ? name : "<unnamed>", query),
                    errhidestmt(true)));
      break;
    default:
      break;
  }
}

void handle_parse(StringInfo message) {
  const bool log_usage = log_statement_stats;
  const char *name = pq_getmsgstring(message);
  const char *query = pq_getmsgstring(message);
  const int type_count = static_cast<int>(pq_getmsgint(message, 2));
  Oid *types = nullptr;

  if (type_count > 0) {
    types = static_cast<Oid *>(palloc(static_cast<Size>(type_count) * sizeof(Oid)));
    for (int i = 0; i < type_count; i++) types[i] = pq_getmsgint(message, 4);
  }
  pq_getmsgend(message);

  debug_query_string = query;
  pgstat_report_activity(STATE_RUNNING, query);
  set_ps_display("PARSE");
  if (log_usage) ResetUsage();
  begin_command();
  if (name[0] != '\0')
    prepare_statement(name, query, types, type_count);
  else
    prepare_unnamed_statement(query, types, type_count);
  // The transaction goes on until Sync.
  CommandCounterIncrement();
  pq_putemptymessage('1');
  log_parse_duration(name, query);
  if (log_usage) ShowUsage("PARSE MESSAGE STATISTICS");
  debug_query_string = nullptr;
}

// ------------------------------------------------------------------ Describe

static void describe_statement(const char *name) {
  begin_command();
  MemoryContextSwitchTo(MessageContext);
  CachedPlanSource *source = name[0] != '\0' ? find_statement(name) : find_unnamed_statement();
  if (source == nullptr)
    ereport(ERROR, (errcode(ERRCODE_UNDEFINED_PSTATEMENT), errmsg("unnamed prepared statement does not exist")));
  // Describing a result needs the catalogs, which an aborted transaction cannot read.
  if (IsAbortedTransactionBlockState() && source->resultDesc != nullptr) refuse_in_aborted_transaction();

  pq_beginmessage_reuse(&description, 't');
  pq_sendint16(&description, static_cast<uint16>(source->num_params));
  for (int i = 0; i < source->num_params; i++) pq_sendint32(&description, source->param_types[i]);
  pq_endmessage_reuse(&description);
  if (source->resultDesc != nullptr)
    SendRowDescriptionMessage(&description, source->resultDesc, CachedPlanGetTargetList(source, nullptr), nullptr);
  else
    pq_putemptymessage('n');
}

static Portal get_portal(const char *name) {
  Portal portal = GetPortalByName(name);
  if (!PortalIsValid(portal))
    ereport(ERROR, (errcode(ERRCODE_UNDEFINED_CURSOR), errmsg("portal \"%s\" does not exist", name)));
  return portal;
}

static void describe_portal(const char *name) {
  begin_command();
  MemoryContextSwitchTo(MessageContext);
  Portal portal = get_portal(name);
  if (IsAbortedTransactionBlockState() && portal->tupDesc != nullptr) refuse_in_aborted_transaction();
  if (portal->tupDesc != nullptr)
    SendRowDescriptionMessage(&description, portal->tupDesc, FetchPortalTargetList(portal), portal->formats);
  else
    pq_putemptymessage('n');
}

void handle_describe(StringInfo message) {
  const int kind = pq_getmsgbyte(message);
  const char *name = pq_getmsgstring(message);

  pq_getmsgend(message);
  if (kind == 'S')
    describe_statement(name);
  else if (kind == 'P')
    describe_portal(name);
  else
    ereport(ERROR, (errcode(ERRCODE_PROTOCOL_VIOLATION), errmsg("invalid DESCRIBE message subtype %d", kind)));
}

// ------------------------------------------------------------------ Execute

static bool is_single_utility(const List *statements, Node **utility) {
  if (list_length(statements) != 1) return false;
  const PlannedStmt *planned = linitial_node(PlannedStmt, statements);
  if (planned->commandType != CMD_UTILITY) return false;
  *utility = planned->utilityStmt;
  return true;
}

// What is said about an Execute in the log; copied, since the portal may be gone
// by then.
struct ExecuteLog {
  const char *verb;
  const char *statement;
  const char *separator;
  const char *portal;
  const char *query;
};

static ExecuteLog prepare_log(const Portal portal, const char *portal_name) {
  // Going on with a portal fetches more rows; it does not execute again.
  return ExecuteLog{portal->atStart ? _("execute") : _("execute fetch from"),
                    portal->prepStmtName != nullptr ? pstrdup(portal->prepStmtName) : "<unnamed>",
                    portal_name[0] != '\0' ? "/" : "", portal_name, pstrdup(portal->sourceText)};
}

static void log_execute_duration(const ExecuteLog &log, ParamListInfo parameters, bool was_logged) {
  char elapsed_ms[32];
  switch (check_log_duration(elapsed_ms, was_logged)) {
    case 1:
      ereport(LOG, (errmsg("duration: %s ms", elapsed_ms), errhidestmt(true)));
      break;
    case 2:
      ereport(LOG, (errmsg("duration: %s ms  %s %s%s%s: %s", elapsed_ms, log.verb, log.statement, log.separator,
                           log.portal, log.query),
                    errhidestmt(true), errdetail_parameters(parameters)));
      break;
    default:
      break;
  }
}

static void report_query_id(const List *statements) {
  ListCell *cell;
  foreach (cell, statements) {
    const PlannedStmt *planned = lfirst_node(PlannedStmt, cell);
    if (planned->queryId == 0) continue;
    pgstat_report_query_id(planned->queryId, false);
    break;
  }
}

// Runs the portal with its parameters in the context of errors.
static bool run_with_context(Portal portal, long max_rows, DestReceiver *receiver, QueryCompletion *completion) {
  ParamsErrorCbData data;
  ErrorContextCallback callback;

  data.portalName = portal->name;
  data.params = portal->portalParams;
  callback.previous = error_context_stack;
  callback.callback = ParamsErrorCallback;
  callback.arg = &data;
  error_context_stack = &callback;
  const bool completed = run_portal(portal, max_rows <= 0 ? FETCH_ALL : max_rows, receiver, completion);
  receiver->rDestroy(receiver);
  error_context_stack = callback.previous;
  return completed;
}

// Ends an Execute.  Returns true if the transaction was committed, and with it
// everything the portal held.
static bool conclude_execute(bool completed, bool is_transaction_command, QueryCompletion *completion) {
  bool committed = false;

  if (!completed) {
    pq_putemptymessage('s');
    MyXactFlags |= XACT_FLAGS_PIPELINING;
    return false;
  }
  if (is_transaction_command || (MyXactFlags & XACT_FLAGS_NEEDIMMEDIATECOMMIT) != 0) {
    // Not only at Sync: what follows in the pipeline must see it done.
    finish_command();
    committed = true;
  } else {
    CommandCounterIncrement();
    MyXactFlags |= XACT_FLAGS_PIPELINING;
    disarm_statement_timeout();
  }
  EndCommand(completion, DestRemoteExecute, false);
  return committed;
}

static void execute_portal(Portal portal, const char *name, long max_rows) {
  const bool log_usage = log_statement_stats;
  Node *utility = nullptr;
  const bool is_utility = is_single_utility(portal->stmts, &utility);
  const bool is_transaction_command = is_utility && IsA(utility, TransactionStmt);
  const ExecuteLog log = prepare_log(portal, name);
  QueryCompletion completion;
  bool was_logged = false;

  debug_query_string = log.query;
  pgstat_report_activity(STATE_RUNNING, log.query);
  report_query_id(portal->stmts);
  set_ps_display(GetCommandTagName(portal->commandTag));
  if (log_usage) ResetUsage();
  BeginCommand(portal->commandTag, DestRemoteExecute);
  // In MessageContext: VACUUM ends the transaction's own.
  DestReceiver *receiver = CreateDestReceiver(DestRemoteExecute);
  SetRemoteDestReceiverParams(receiver, portal);
  begin_command();
  if (wants_logging(portal->stmts)) {
    ereport(LOG, (errmsg("%s %s%s%s: %s", log.verb, log.statement, log.separator, log.portal, log.query),
                  errhidestmt(true), errdetail_parameters(portal->portalParams)));
    was_logged = true;
  }
  if (IsAbortedTransactionBlockState() && !(is_utility && ends_transaction(utility))) refuse_in_aborted_transaction();
  CHECK_FOR_INTERRUPTS();

  const ParamListInfo parameters = portal->portalParams;
  const bool completed = run_with_context(portal, max_rows, receiver, &completion);
  const bool committed = conclude_execute(completed, is_transaction_command, &completion);
  log_execute_duration(log, committed ? nullptr : parameters, was_logged);
  if (log_usage) ShowUsage("EXECUTE MESSAGE STATISTICS");
  debug_query_string = nullptr;
}

void handle_execute(StringInfo message) {
  const char *name = pq_getmsgstring(message);
  const auto max_rows = static_cast<int32>(pq_getmsgint(message, 4));

  pq_getmsgend(message);
  Portal portal = get_portal(name);
  if (portal->commandTag == CMDTAG_UNKNOWN)
    NullCommand(DestRemoteExecute);  // an empty query
  else
    execute_portal(portal, name, max_rows);
}

// ------------------------------------------------------------------ Close

void handle_close(StringInfo message) {
  const int kind = pq_getmsgbyte(message);
  const char *name = pq_getmsgstring(message);

  pq_getmsgend(message);
  if (kind == 'S') {
    if (name[0] != '\0')
      close_statement(name);
    else
      forget_unnamed_statement();
  } else if (kind == 'P') {
    Portal portal = GetPortalByName(name);
    if (PortalIsValid(portal)) PortalDrop(portal, false);
  } else {
    ereport(ERROR, (errcode(ERRCODE_PROTOCOL_VIOLATION), errmsg("invalid CLOSE message subtype %d", kind)));
  }
  pq_putemptymessage('3');
}

}  // namespace sluice::pg
