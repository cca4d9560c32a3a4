// SPDX-License-Identifier: PostgreSQL
//
// The simple query protocol, as the documentation describes it ("Message Flow"),
// over the server's exported steps: parse, analyse and rewrite, plan, portal.

#include "pg/compat.hpp"

#include "pg/session/simple_query.hpp"

extern "C" {
#include "access/printtup.h"
#include "access/xact.h"
#include "nodes/parsenodes.h"
#include "parser/analyze.h"
#include "pgstat.h"
#include "tcop/cmdtag.h"
#include "tcop/dest.h"
#include "tcop/pquery.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/backend_status.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/ps_status.h"
#include "utils/snapmgr.h"
}

#include "pg/session/statements.hpp"
#include "pg/session/transaction.hpp"

namespace sluice::pg {

// FETCH from a binary cursor answers in binary, even here.
static int16 result_format(const RawStmt *raw) {
  if (!IsA(raw->stmt, FetchStmt)) return 0;
  const auto *fetch = reinterpret_cast<const FetchStmt *>(raw->stmt);
  if (fetch->ismove) return 0;
  const Portal cursor = GetPortalByName(fetch->portalname);
  return PortalIsValid(cursor) && (cursor->cursorOptions & CURSOR_OPT_BINARY) != 0 ? 1 : 0;
}

static List *plan_statement(RawStmt *raw, const char *query) {
  const bool needs_snapshot = analyze_requires_snapshot(raw);

  // Whether its rows can be sent at once is decided before it is executed.
  if (IsA(raw->stmt, ExecuteStmt)) offer_statement_to_sql(reinterpret_cast<const ExecuteStmt *>(raw->stmt)->name);
  if (needs_snapshot) PushActiveSnapshot(GetTransactionSnapshot());
  List *queries = pg_analyze_and_rewrite_fixedparams(raw, query, nullptr, 0, nullptr);
  List *plans = pg_plan_queries(queries, query, CURSOR_OPT_PARALLEL_OK, nullptr);
  if (needs_snapshot) PopActiveSnapshot();
  return plans;
}

static void run_statement(RawStmt *raw, const char *query, CommandTag tag, List *plans, MemoryContext transaction,
                          QueryCompletion *completion) {
  Portal portal = CreatePortal("", true, true);
  portal->visible = false;
  PortalDefineQuery(portal, nullptr, query, tag, plans, nullptr);
  PortalStart(portal, nullptr, 0, InvalidSnapshot);
  int16 format = result_format(raw);
  PortalSetResultFormat(portal, 1, &format);
  DestReceiver *receiver = CreateDestReceiver(DestRemote);
  SetRemoteDestReceiverParams(receiver, portal);
  MemoryContextSwitchTo(transaction);
  (void)run_portal(portal, FETCH_ALL, receiver, completion);
  receiver->rDestroy(receiver);
  PortalDrop(portal, false);
}

// One statement of the string.  `last`: it is the last; `several`: there are more
// than one, so they share an implicit transaction block.
static void execute_statement(RawStmt *raw, const char *query, bool last, bool several) {
  MemoryContext own_context = nullptr;
  QueryCompletion completion;
  const CommandTag tag = CreateCommandTag(raw->stmt);

  pgstat_report_query_id(0, true);
  set_ps_display(GetCommandTagName(tag));
  BeginCommand(tag, DestRemote);
  if (IsAbortedTransactionBlockState() && !ends_transaction(raw->stmt)) refuse_in_aborted_transaction();
  begin_command();
  if (several) BeginImplicitTransactionBlock();
  CHECK_FOR_INTERRUPTS();

  // Plans outlive the transaction's own context (COMMIT ends it), but those of
  // earlier statements need not stay until the end of the string.
  MemoryContext plan_context = MessageContext;
  if (!last)
    plan_context = own_context =
        AllocSetContextCreate(MessageContext, "pg_sluice statement", ALLOCSET_DEFAULT_SIZES);
  MemoryContext transaction = MemoryContextSwitchTo(plan_context);
  List *plans = plan_statement(raw, query);
  CHECK_FOR_INTERRUPTS();
  run_statement(raw, query, tag, plans, transaction, &completion);

  if (last) {
    // Before CommandComplete, so that errors at commit come first.
    if (several) EndImplicitTransactionBlock();
    finish_command();
  } else if (IsA(raw->stmt, TransactionStmt)) {
    finish_command();
  } else {
    CommandCounterIncrement();
    disarm_statement_timeout();  // it applies to each statement of the string
  }
  EndCommand(&completion, DestRemote, false);
  if (own_context != nullptr) MemoryContextDelete(own_context);
}

static void log_duration(const char *query, const List *statements, bool was_logged) {
  char elapsed_ms[32];
  switch (check_log_duration(elapsed_ms, was_logged)) {
    case 1:
      ereport(LOG, (errmsg("duration: %s ms", elapsed_ms), errhidestmt(true)));
      break;
    case 2:
      ereport(LOG, (errmsg("duration: %s ms  statement: %s", elapsed_ms, query), errhidestmt(true),
                    errdetail_prepared(statements)));
      break;
    default:
      break;
  }
}

void execute_simple_query(const char *query) {
  const bool log_usage = log_statement_stats;
  ListCell *cell;

  debug_query_string = query;
  pgstat_report_activity(STATE_RUNNING, query);
  if (log_usage) ResetUsage();
  begin_command();
  // The simple protocol counts as a use of the unnamed statement.
  forget_unnamed_statement();

  MemoryContext transaction = MemoryContextSwitchTo(MessageContext);
  List *statements = pg_parse_query(query);
  bool was_logged = false;
  if (wants_logging(statements)) {
    ereport(LOG, (errmsg("statement: %s", query), errhidestmt(true), errdetail_prepared(statements)));
    was_logged = true;
  }
  MemoryContextSwitchTo(transaction);

  const bool several = list_length(statements) > 1;
  foreach (cell, statements)
    execute_statement(lfirst_node(RawStmt, cell), query, lnext(statements, cell) == nullptr, several);
  finish_command();
  if (statements == NIL) NullCommand(DestRemote);

  log_duration(query, statements, was_logged);
  if (log_usage) ShowUsage("QUERY STATISTICS");
  debug_query_string = nullptr;
}

}  // namespace sluice::pg
