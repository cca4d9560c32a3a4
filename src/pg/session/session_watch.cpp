// SPDX-License-Identifier: PostgreSQL
#include "pg/compat.hpp"

#include "pg/session/session_watch.hpp"

extern "C" {
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "commands/defrem.h"
#include "commands/prepare.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"
#include "utils/lsyscache.h"
#include "utils/varlena.h"
}

#include <link.h>

#include "core/session/pin.hpp"
#include "pg/session/pins.hpp"
#include "pg/session/session.hpp"
#include "pg/session/setting_records.hpp"
#include "pg/session/statements.hpp"
#include "pg/settings.hpp"
#include "pg/stats/event_log.hpp"

namespace sluice::pg {

SessionTraces traces;

static int libraries_at_start = 0;

static ProcessUtility_hook_type previous_utility_hook = nullptr;
static object_access_hook_type previous_access_hook = nullptr;
static GucRealCheckHook previous_seed_check = nullptr;
static needs_fmgr_hook_type previous_needs_hook = nullptr;

// ------------------------------------------------------------------ refusing

static bool is_pooled_by_transaction() { return session.client != nullptr && !session.held; }

static bool refuses_pins() {
  return setting_on_session_state == static_cast<int>(OnSessionState::error) && is_pooled_by_transaction();
}

static void refuse_pin(PinReason reason) {
  if (!refuses_pins()) return;
  session.pool->pins_refused.fetch_add(1, std::memory_order_relaxed);
  log_event(EventKind::pin_refused, session.pool_index, MyProcPid, static_cast<std::int32_t>(session.client_ref.slot),
            name_of(reason));
  ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                  errmsg("statement would bind this client to one backend"),
                  errdetail("Session state that cannot be carried between backends: %s (%s).", describe(reason),
                            name_of(reason)),
                  errhint("For roles or databases that need it, set \"%s\" to \"pin\" or \"%s\" to \"session\", with "
                          "ALTER ROLE or ALTER DATABASE.",
                          "sluice.on_session_state", "sluice.pool_mode")));
}

static void refuse_transaction_block(const Node *statement) {
  if (!is_pooled_by_transaction() ||
      session.pool->mode.load(std::memory_order_relaxed) != static_cast<std::int32_t>(PoolMode::statement))
    return;
  const TransactionStmtKind kind = reinterpret_cast<const TransactionStmt *>(statement)->kind;
  if (kind != TRANS_STMT_BEGIN && kind != TRANS_STMT_START) return;
  ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                  errmsg("transaction blocks not allowed in statement pooling mode"),
                  errhint("For roles or databases that need them, set \"%s\" to \"transaction\", with ALTER ROLE or "
                          "ALTER DATABASE.",
                          "sluice.pool_mode")));
}

// ------------------------------------------------------------------ utility statements

// A custom setting that others have used before.
static void note_set(const VariableSetStmt *set) {
  const bool gives_value = set->kind == VAR_SET_VALUE || set->kind == VAR_SET_DEFAULT;
  if (gives_value && set->name != nullptr) (void)unhide_setting(set->name);
}

static void note_discard(const DiscardStmt *discard) {
  if (discard->target == DISCARD_ALL) {
    withdraw_statements_from_sql();  // what is only lent must not be dropped
    traces.listened = true;
  }
  if (discard->target == DISCARD_ALL || discard->target == DISCARD_TEMP) traces.temporary = true;
}

static void before_statement(const Node *statement) {
  switch (nodeTag(statement)) {
    case T_TransactionStmt:
      refuse_transaction_block(statement);
      break;
    case T_DeclareCursorStmt:
      if ((reinterpret_cast<const DeclareCursorStmt *>(statement)->options & CURSOR_OPT_HOLD) == 0) break;
      refuse_pin(PinReason::held_cursor);
      note_held_cursor(reinterpret_cast<const DeclareCursorStmt *>(statement)->portalname);
      break;
    case T_NotifyStmt:
      traces.notified = true;
      break;
    case T_ListenStmt:
      refuse_pin(PinReason::listen);
      traces.listened = true;
      break;
    case T_UnlistenStmt:
      traces.listened = true;
      break;
    case T_LoadStmt:
      refuse_pin(PinReason::loaded_library);
      break;
    case T_VariableSetStmt:
      note_set(reinterpret_cast<const VariableSetStmt *>(statement));
      break;
    case T_PrepareStmt:
      expect_sql_prepare();
      break;
    case T_DiscardStmt:
      note_discard(reinterpret_cast<const DiscardStmt *>(statement));
      break;
    default:
      break;
  }
  if (const char *name = executed_statement_name(statement)) offer_statement_to_sql(name);
}

extern "C" {

static int count_library(struct dl_phdr_info *, size_t, void *count) {
  ++*static_cast<int *>(count);
  return 0;
}

}  // extern "C"

static int count_loaded_libraries() {
  int count = 0;
  dl_iterate_phdr(count_library, &count);
  return count;
}

static void after_statement(const Node *statement) {
  if (IsA(statement, PrepareStmt))
    note_sql_prepare(reinterpret_cast<const PrepareStmt *>(statement));
  else if (IsA(statement, LoadStmt))
    traces.loaded = traces.loaded || count_loaded_libraries() != libraries_at_start;  // else every session has it
  else if (IsA(statement, DiscardStmt) && reinterpret_cast<const DiscardStmt *>(statement)->target == DISCARD_ALL)
    deallocate_statement(nullptr);
}

static bool executes(const ExplainStmt *explain) {
  bool analyze = false;
  ListCell *cell;
  foreach (cell, explain->options) {
    DefElem *option = lfirst_node(DefElem, cell);
    if (strcmp(option->defname, "analyze") == 0) analyze = defGetBoolean(option);
  }
  return analyze;
}

// Does the statement, if it makes something temporary, make what outlives the transaction?
static bool makes_objects_that_stay(const Node *statement) {
  switch (nodeTag(statement)) {
    case T_CreateStmt:
      return reinterpret_cast<const CreateStmt *>(statement)->oncommit != ONCOMMIT_DROP;
    case T_CreateTableAsStmt:
      return reinterpret_cast<const CreateTableAsStmt *>(statement)->into->onCommit != ONCOMMIT_DROP;
    case T_ExplainStmt: {
      const auto *explain = reinterpret_cast<const ExplainStmt *>(statement);
      const Node *explained = explain->query;
      if (IsA(explained, Query)) explained = reinterpret_cast<const Query *>(explained)->utilityStmt;
      return explained != nullptr && executes(explain) && makes_objects_that_stay(explained);
    }
    case T_CreateForeignTableStmt:
    case T_CreateStatsStmt:
    case T_CreateConversionStmt:
    case T_CreateOpClassStmt:
    case T_CreateOpFamilyStmt:
    case T_ViewStmt:
    case T_CreateSeqStmt:
    case T_CreateFunctionStmt:
    case T_CompositeTypeStmt:
    case T_CreateEnumStmt:
    case T_CreateRangeStmt:
    case T_CreateDomainStmt:
    case T_DefineStmt:
      return true;
    default:
      return false;
  }
}

// The path to the temporary schema may be a search path: what counts is what the statement has touched.
static bool watches_temporary(const Node *statement) { return refuses_pins() && makes_objects_that_stay(statement); }

extern "C" {

static void watch_utility(PlannedStmt *planned, const char *query, bool read_only_tree, ProcessUtilityContext context,
                          ParamListInfo parameters, QueryEnvironment *environment, DestReceiver *receiver,
                          QueryCompletion *completion) {
  const Node *statement = planned->utilityStmt;
  const volatile int flags = MyXactFlags;
  const volatile bool watching = watches_temporary(statement);

  before_statement(statement);
  if (IsA(statement, DeallocateStmt)) {
    const char *name = reinterpret_cast<const DeallocateStmt *>(statement)->name;
    if (deallocate_statement(name)) {
      if (completion != nullptr) SetQueryCompletion(completion, CMDTAG_DEALLOCATE, 0);
      return;
    }
  }
  if (watching) MyXactFlags &= ~XACT_FLAGS_ACCESSEDTEMPNAMESPACE;
  PG_TRY();
  {
    if (previous_utility_hook != nullptr)
      previous_utility_hook(planned, query, read_only_tree, context, parameters, environment, receiver, completion);
    else
      standard_ProcessUtility(planned, query, read_only_tree, context, parameters, environment, receiver, completion);
    after_statement(statement);
    if (watching && (MyXactFlags & XACT_FLAGS_ACCESSEDTEMPNAMESPACE) != 0) refuse_pin(PinReason::temporary_objects);
  }
  PG_FINALLY();
  {
    // An error may cost a subtransaction only.
    if (watching) MyXactFlags |= flags & XACT_FLAGS_ACCESSEDTEMPNAMESPACE;
  }
  PG_END_TRY();
}

// ------------------------------------------------------------------ functions

static bool is_pin_function(Oid function) {
  bool found = false;
  List *names = NIL;
  ListCell *cell;

  if (setting_pin_functions[0] == '\0') return false;
  char *name = get_func_name(function);
  char *copy = pstrdup(setting_pin_functions);
  if (name != nullptr && SplitIdentifierString(copy, ',', &names)) {
    foreach (cell, names)
      found = found || strcmp(static_cast<const char *>(lfirst(cell)), name) == 0;
  }
  list_free(names);
  pfree(copy);
  if (name != nullptr) pfree(name);
  return found;
}

static void note_pin_function(Oid function) {
  if (!is_pin_function(function)) return;
  refuse_pin(PinReason::function);
  traces.function = true;
}

// The first look at a search path that begins with pg_temp makes a temporary schema, which marks the transaction.  Here
// others may have made it; to this client it is the first look all the same.
static void note_look_at_search_path() {
  const Oid schema = temporary_schema();

  if (!OidIsValid(schema) || !is_pooled_by_transaction()) return;
  if ((session.client->flags.load(std::memory_order_relaxed) & kClientUsedTemporary) != 0) return;
  List *path = fetch_search_path(false);
  if (path != NIL && linitial_oid(path) == schema) MyXactFlags |= XACT_FLAGS_ACCESSEDTEMPNAMESPACE;
  list_free(path);
}

static void watch_function(Oid function) {
  switch (function) {
    case F_PG_ADVISORY_LOCK_INT8:
    case F_PG_ADVISORY_LOCK_SHARED_INT8:
    case F_PG_TRY_ADVISORY_LOCK_INT8:
    case F_PG_TRY_ADVISORY_LOCK_SHARED_INT8:
    case F_PG_ADVISORY_LOCK_INT4_INT4:
    case F_PG_ADVISORY_LOCK_SHARED_INT4_INT4:
    case F_PG_TRY_ADVISORY_LOCK_INT4_INT4:
    case F_PG_TRY_ADVISORY_LOCK_SHARED_INT4_INT4:
      refuse_pin(PinReason::advisory_lock);
      break;
    case F_SETSEED:
      refuse_pin(PinReason::random_seed);
      traces.seeded = true;
      break;
    case F_CURRENT_SCHEMA:
    case F_CURRENT_SCHEMAS:
      note_look_at_search_path();
      break;
    case F_PG_NOTIFY:
      traces.notified = true;
      break;
    case F_PG_PREPARED_STATEMENT:
      offer_all_statements_to_sql();
      break;
    case F_PG_STAT_FORCE_NEXT_FLUSH:
      traces.flush = true;
      break;
    case F_PG_BACKUP_START:
      refuse_pin(PinReason::backup);
      break;
    case F_PG_REPLICATION_ORIGIN_SESSION_SETUP:
      refuse_pin(PinReason::replication);
      break;
    case F_PG_CREATE_PHYSICAL_REPLICATION_SLOT:
    case F_PG_CREATE_LOGICAL_REPLICATION_SLOT:
    case F_PG_COPY_PHYSICAL_REPLICATION_SLOT_NAME_NAME_BOOL:
    case F_PG_COPY_LOGICAL_REPLICATION_SLOT_NAME_NAME_BOOL:
    case F_PG_COPY_LOGICAL_REPLICATION_SLOT_NAME_NAME_BOOL_NAME:
      traces.slot = true;
      break;
    default:
      note_pin_function(function);
      break;
  }
}

// Triggers, and the handlers of languages, are called without a word to the other hook.  But they are looked up, unless
// they are built in.
static bool watch_lookup(Oid function) {
  if (session.client != nullptr) note_pin_function(function);
  return previous_needs_hook != nullptr && previous_needs_hook(function);
}

// "seed" is no setting, but setseed() in disguise: obeyed also by SET LOCAL, and for good.
static bool watch_seed(double *value, void **extra, GucSource source) {
  if (source == PGC_S_SESSION) {
    refuse_pin(PinReason::random_seed);
    traces.seeded = true;
  }
  return previous_seed_check == nullptr || previous_seed_check(value, extra, source);
}

// Under its own name, the temporary schema of this process is a schema like any other to the server, and what is made
// there marks no transaction; nor does what is dropped because it depends on something else.
static void note_change() {
  if (OidIsValid(temporary_schema())) traces.changed = true;
}

static void watch_access(ObjectAccessType access, Oid class_id, Oid object, int sub_id, void *arg) {
  if (access == OAT_FUNCTION_EXECUTE && session.client != nullptr) watch_function(object);
  if ((access == OAT_POST_CREATE || access == OAT_DROP) && session.client != nullptr) note_change();
  if (previous_access_hook != nullptr) previous_access_hook(access, class_id, object, sub_id, arg);
}

// ------------------------------------------------------------------ transactions

// Before the notifications can be seen by anyone: whom they come from (client_stream.cpp).
static void name_notifier() {
  if (traces.notified && session.client != nullptr)
    session.backend->notifier.store(session.client->cancel_pid.load(std::memory_order_relaxed));
}

static void watch_transaction(XactEvent event, void *) {
  switch (event) {
    case XACT_EVENT_PRE_COMMIT:
      name_notifier();
      if (traces.slot && refuses_pins() && has_temporary_slots()) refuse_pin(PinReason::replication);
      [[fallthrough]];
    case XACT_EVENT_PRE_PREPARE:
    case XACT_EVENT_ABORT:
      traces.notified = false;
      if ((MyXactFlags & XACT_FLAGS_ACCESSEDTEMPNAMESPACE) == 0) break;
      traces.temporary = true;
      if (event == XACT_EVENT_PRE_COMMIT && session.client != nullptr)
        session.client->flags.fetch_or(kClientUsedTemporary);
      break;
    default:
      break;
  }
}

}  // extern "C"

void install_session_watch() {
  libraries_at_start = count_loaded_libraries();
  previous_utility_hook = ProcessUtility_hook;
  ProcessUtility_hook = watch_utility;
  previous_access_hook = object_access_hook;
  object_access_hook = watch_access;
  previous_needs_hook = needs_fmgr_hook;
  needs_fmgr_hook = watch_lookup;
  RegisterXactCallback(watch_transaction, nullptr);
  auto *seed = reinterpret_cast<config_real *>(find_setting("seed"));
  previous_seed_check = seed->check_hook;
  seed->check_hook = watch_seed;
}

}  // namespace sluice::pg
