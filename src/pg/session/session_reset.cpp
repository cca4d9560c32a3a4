// SPDX-License-Identifier: PostgreSQL
//
// Session state is found by looking at the server's own state.  Where that
// cannot be seen from outside, or looking would cost too much, a utility hook
// remembers that a statement of the kind was executed (also inside functions,
// since they too go through ProcessUtility).

#include "pg/compat.hpp"

#include "pg/session/session_reset.hpp"

extern "C" {
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "commands/async.h"
#include "commands/prepare.h"
#include "commands/sequence.h"
#include "nodes/parsenodes.h"
#include "replication/origin.h"
#include "replication/slot.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "tcop/utility.h"
#include "utils/plancache.h"
#include "utils/portal.h"
}

#include "pg/session/client_settings.hpp"
#include "pg/session/session.hpp"
#include "pg/session/statements.hpp"

namespace sluice::pg {

struct Traces {
  bool prepared;       // PREPARE
  bool held_cursor;    // DECLARE ... WITH HOLD
  bool listened;       // LISTEN
  bool temporary;      // the temporary schema was used
  bool loaded;         // LOAD
};

static Traces traces;
static ProcessUtility_hook_type previous_utility_hook = nullptr;

static void note_statement(const Node *statement) {
  switch (nodeTag(statement)) {
    case T_PrepareStmt:
      traces.prepared = true;
      break;
    case T_DeclareCursorStmt:
      if ((reinterpret_cast<const DeclareCursorStmt *>(statement)->options & CURSOR_OPT_HOLD) != 0)
        traces.held_cursor = true;
      break;
    case T_ListenStmt:
      traces.listened = true;
      break;
    case T_LoadStmt:
      traces.loaded = true;
      break;
    case T_ExecuteStmt:
      offer_statement_to_sql(reinterpret_cast<const ExecuteStmt *>(statement)->name);
      traces.prepared = true;
      break;
    case T_DiscardStmt:
      if (reinterpret_cast<const DiscardStmt *>(statement)->target == DISCARD_ALL) deallocate_statement(nullptr);
      break;
    default:
      break;
  }
}

extern "C" {

// EXPLAIN EXECUTE and CREATE TABLE AS EXECUTE look the statement up themselves.
static const char *executed_name(const Node *statement) {
  const Node *query = nullptr;
  if (IsA(statement, ExplainStmt))
    query = reinterpret_cast<const ExplainStmt *>(statement)->query;
  else if (IsA(statement, CreateTableAsStmt))
    query = reinterpret_cast<const CreateTableAsStmt *>(statement)->query;
  if (query != nullptr && IsA(query, Query)) query = reinterpret_cast<const Query *>(query)->utilityStmt;
  return query != nullptr && IsA(query, ExecuteStmt) ? reinterpret_cast<const ExecuteStmt *>(query)->name : nullptr;
}

static void watch_utility(PlannedStmt *planned, const char *query, bool read_only_tree, ProcessUtilityContext context,
                          ParamListInfo parameters, QueryEnvironment *environment, DestReceiver *receiver,
                          QueryCompletion *completion) {
  const Node *statement = planned->utilityStmt;

  note_statement(statement);
  if (const char *name = executed_name(statement)) {
    offer_statement_to_sql(name);
    traces.prepared = true;
  }
  if (IsA(statement, DeallocateStmt)) {
    const char *name = reinterpret_cast<const DeallocateStmt *>(statement)->name;
    if (deallocate_statement(name)) {
      DropPreparedStatement(name, false);
      if (completion != nullptr) SetQueryCompletion(completion, CMDTAG_DEALLOCATE, 0);
      return;
    }
  }
  if (previous_utility_hook != nullptr)
    previous_utility_hook(planned, query, read_only_tree, context, parameters, environment, receiver, completion);
  else
    standard_ProcessUtility(planned, query, read_only_tree, context, parameters, environment, receiver, completion);
}

static void watch_transaction(XactEvent event, void *) {
  if ((event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PRE_PREPARE) &&
      (MyXactFlags & XACT_FLAGS_ACCESSEDTEMPNAMESPACE) != 0)
    traces.temporary = true;
}

}  // extern "C"

void install_session_watch() {
  previous_utility_hook = ProcessUtility_hook;
  ProcessUtility_hook = watch_utility;
  RegisterXactCallback(watch_transaction, nullptr);
}

void note_sql_statement() { traces.prepared = true; }

// Session-level locks are what is left in this process's lock lists when no
// transaction is open.
static bool holds_locks() {
  for (int i = 0; i < NUM_LOCK_PARTITIONS; i++)
    if (lock_list_has_entries(i)) return true;
  return false;
}

static void reset_objects() {
  const bool needs_transaction = traces.temporary || traces.listened;

  if (needs_transaction) StartTransactionCommand();
  if (traces.listened) Async_UnlistenAll();
  if (traces.temporary) ResetTempTableNamespace();
  if (needs_transaction) CommitTransactionCommand();
  if (traces.held_cursor) PortalHashTableDeleteAll();
  if (traces.prepared) DropAllPreparedStatements();
  traces = Traces{};
}

static bool has_temporary_slots() {
  for (int i = 0; i < max_replication_slots; i++) {
    const ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];
    if (slot->in_use && slot->active_pid == MyProcPid) return true;
  }
  return false;
}

// What functions for administrators leave behind in the process that ran them.
static void reset_administration() {
  if (replorigin_session_origin != InvalidRepOriginId) {
    replorigin_session_reset();
    replorigin_session_origin = InvalidRepOriginId;
    replorigin_session_origin_lsn = InvalidXLogRecPtr;
    replorigin_session_origin_timestamp = 0;
  }
  if (get_backup_status() != SESSION_BACKUP_NONE) do_pg_abort_backup(0, BoolGetDatum(true));
  if (has_temporary_slots()) drop_temporary_slots();
}

void reset_after_transaction() {
  if (session_settings_changed()) reset_session_settings();
  if (traces.prepared || traces.held_cursor || traces.listened || traces.temporary || traces.loaded) reset_objects();
  if (holds_locks()) LockReleaseAll(USER_LOCKMETHOD, true);
  reset_administration();
  ResetSequenceCaches();
}

// A temporary schema, once made, belongs to its process for good.  Emptied, it still shows: pg_my_temp_schema() is not
// 0, and a search path that ends in pg_temp finds it without the transaction being marked.
static bool has_temporary_schema() {
  Oid schema, toast_schema;
  GetTempNamespaceState(&schema, &toast_schema);
  return OidIsValid(schema);
}

bool reset_after_session() {
  const bool loaded = traces.loaded || settings_were_added();

  PortalHashTableDeleteAll();
  reset_session_settings();
  traces.prepared = traces.listened = traces.temporary = true;
  reset_objects();
  drop_local_unnamed_statement();
  LockReleaseAll(USER_LOCKMETHOD, true);
  reset_administration();
  ResetPlanCache();
  ResetSequenceCaches();
  return !loaded && !has_temporary_schema();
}

}  // namespace sluice::pg
