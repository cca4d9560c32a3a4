// SPDX-License-Identifier: PostgreSQL
#include "pg/compat.hpp"

#include "pg/session/statements.hpp"

extern "C" {
#include "access/xact.h"
#include "commands/prepare.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "parser/analyze.h"
#include "tcop/cmdtag.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
}

#include "pg/session/client_settings.hpp"
#include "pg/session/client_store.hpp"
#include "pg/session/session.hpp"
#include "pg/session/session_reset.hpp"
#include "pg/session/transaction.hpp"
#include "pg/settings.hpp"

namespace sluice::pg {

// A text this backend has met.  Holds one reference to the stored statement.
struct CachedStatement {
  std::uint64_t statement;  // dsa_pointer: the key
  CachedPlanSource *source;
  std::uint64_t last_use;
};

static HTAB *cached_statements = nullptr;
static std::uint64_t use_counter = 0;
static std::uint64_t pending_statement = 0;

static CachedPlanSource *unnamed_source = nullptr;
static Oid *unnamed_types = nullptr;  // as given, for parsing it elsewhere
static int unnamed_type_count = 0;
static bool unnamed_is_stored = false;

static bool keeps_names_itself() {
  return session.pool->mode.load(std::memory_order_relaxed) == static_cast<std::int32_t>(PoolMode::transaction) &&
         !session.held;
}

// The name in EXECUTE <name>, or null.  What such a statement returns depends on a
// name of this client, which the server looks up when it analyses the statement
// and when it starts a portal: it has to find it then, and others must not share
// what came out.
static const char *executed_name(const RawStmt *raw) {
  if (raw == nullptr || !IsA(raw->stmt, ExecuteStmt)) return nullptr;
  return reinterpret_cast<const ExecuteStmt *>(raw->stmt)->name;
}

// ------------------------------------------------------------------ parsing

// Parses and analyses one statement into an unsaved plan source, a child of
// MessageContext.  `types` may be extended with deduced ones.
static CachedPlanSource *analyze_statement(const char *query, Oid *types, int type_count) {
  MemoryContext caller = MemoryContextSwitchTo(MessageContext);
  List *statements = pg_parse_query(query);
  CachedPlanSource *source;
  List *queries = NIL;

  if (list_length(statements) > 1)
    ereport(ERROR, (errcode(ERRCODE_SYNTAX_ERROR),
                    errmsg("cannot insert multiple commands into a prepared statement")));
  if (statements != NIL) {
    RawStmt *raw = linitial_node(RawStmt, statements);
    if (IsAbortedTransactionBlockState() && !ends_transaction(raw->stmt)) refuse_in_aborted_transaction();
    if (executed_name(raw) != nullptr) offer_statement_to_sql(executed_name(raw));
    // Before analysis, which scribbles on the raw tree.
    source = CreateCachedPlan(raw, query, CreateCommandTag(raw->stmt));
    const bool needs_snapshot = analyze_requires_snapshot(raw);
    if (needs_snapshot) PushActiveSnapshot(GetTransactionSnapshot());
    queries = pg_analyze_and_rewrite_varparams(raw, query, &types, &type_count, nullptr);
    if (needs_snapshot) PopActiveSnapshot();
  } else {
    source = CreateCachedPlan(nullptr, query, CMDTAG_UNKNOWN);
  }
  CompleteCachedPlan(source, queries, nullptr, types, type_count, nullptr, nullptr, CURSOR_OPT_PARALLEL_OK, true);
  CHECK_FOR_INTERRUPTS();
  MemoryContextSwitchTo(caller);
  return source;
}

// ------------------------------------------------------------------ this backend's plans

static void open_cache() {
  HASHCTL control;
  memset(&control, 0, sizeof(control));
  control.keysize = sizeof(std::uint64_t);
  control.entrysize = sizeof(CachedStatement);
  control.hcxt = TopMemoryContext;
  cached_statements = hash_create("pg_sluice statements", 256, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

static CachedPlanSource *look_up(std::uint64_t statement) {
  if (cached_statements == nullptr) return nullptr;
  auto *cached = static_cast<CachedStatement *>(hash_search(cached_statements, &statement, HASH_FIND, nullptr));
  if (cached == nullptr || executed_name(cached->source->raw_parse_tree) != nullptr) return nullptr;
  cached->last_use = ++use_counter;
  return cached->source;
}

static void drop_cached(CachedStatement *cached) {
  const std::uint64_t statement = cached->statement;
  DropCachedPlan(cached->source);
  hash_search(cached_statements, &statement, HASH_REMOVE, nullptr);
  release_statement(statement);
}

// Makes room: drops what was not used for as many uses as there are places.
static void evict_old() {
  const long limit = setting_max_prepared_statements;
  HASH_SEQ_STATUS scan;

  if (hash_get_num_entries(cached_statements) < limit) return;
  const std::uint64_t recent = use_counter > static_cast<std::uint64_t>(limit) / 2
                                   ? use_counter - static_cast<std::uint64_t>(limit) / 2
                                   : 0;
  hash_seq_init(&scan, cached_statements);
  while (auto *cached = static_cast<CachedStatement *>(hash_seq_search(&scan)))
    if (cached->last_use < recent) drop_cached(cached);
}

// Takes an unsaved source into the cache, under a reference of its own.
static void remember(std::uint64_t statement, CachedPlanSource *source) {
  bool found;
  if (cached_statements == nullptr) open_cache();
  evict_old();
  auto *cached = static_cast<CachedStatement *>(hash_search(cached_statements, &statement, HASH_ENTER, &found));
  if (found) DropCachedPlan(cached->source);
  cached->source = source;
  cached->last_use = ++use_counter;
  SaveCachedPlan(source);
  if (!found) {
    const StoredStatement *stored = stored_statement(statement);
    const_cast<StoredStatement *>(stored)->references.fetch_add(1);
  }
}

void release_cached_statements() {
  HASH_SEQ_STATUS scan;
  if (cached_statements == nullptr) return;
  hash_seq_init(&scan, cached_statements);
  while (auto *cached = static_cast<CachedStatement *>(hash_seq_search(&scan))) release_statement(cached->statement);
  cached_statements = nullptr;
}

// ------------------------------------------------------------------ named statements

void release_pending_statement() {
  if (pending_statement == 0) return;
  const std::uint64_t statement = pending_statement;
  pending_statement = 0;
  release_statement(statement);
}

// Texts parsed under changed settings are nobody else's: their constants and
// names may mean something different.
static std::uint64_t sharing_key() {
  const std::uint64_t hash = startup_settings_hash();
  if (!session_settings_changed()) return hash;
  return hash ^ (session.lease << 16) ^ session.index ^ (std::uint64_t{1} << 63);
}

static void raise_duplicate(const char *name) {
  ereport(ERROR, (errcode(ERRCODE_DUPLICATE_PSTATEMENT), errmsg("prepared statement \"%s\" already exists", name)));
}

void prepare_statement(const char *name, const char *query, Oid *types, int type_count) {
  if (!keeps_names_itself()) {
    StorePreparedStatement(name, analyze_statement(query, types, type_count), false);
    return;
  }
  const Oid *given_types = types;
  pending_statement = acquire_statement(query, given_types, type_count, sharing_key());
  const CachedPlanSource *known = look_up(pending_statement);
  // What this backend has analysed before, and nothing has invalidated since,
  // need not be analysed again.
  CachedPlanSource *fresh = nullptr;
  if (known == nullptr || !known->is_valid || IsAbortedTransactionBlockState())
    fresh = analyze_statement(query, types, type_count);
  if (find_named_statement(session.client, name) != 0 || FetchPreparedStatement(name, false) != nullptr)
    raise_duplicate(name);
  if (count_named_statements(session.client) >= setting_max_prepared_statements)
    ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                    errmsg("too many prepared statements: a client may keep %d", setting_max_prepared_statements),
                    errhint("Close statements that are not needed, or increase \"%s\".",
                            "sluice.max_prepared_statements")));
  if (fresh != nullptr) remember(pending_statement, fresh);
  add_named_statement(session.client, name, pending_statement);
  pending_statement = 0;
}

static CachedPlanSource *parse_stored(std::uint64_t statement) {
  const StoredStatement *stored = stored_statement(statement);
  const int type_count = stored->type_count;
  Oid *types = nullptr;
  MemoryContext caller = MemoryContextSwitchTo(MessageContext);
  if (type_count > 0) {
    types = static_cast<Oid *>(palloc(static_cast<Size>(type_count) * sizeof(Oid)));
    memcpy(types, stored->types, static_cast<Size>(type_count) * sizeof(Oid));
  }
  CachedPlanSource *source = analyze_statement(pstrdup(stored_query(stored)), types, type_count);
  MemoryContextSwitchTo(caller);
  return source;
}

static CachedPlanSource *find_own(const char *name) {
  const std::uint64_t statement = find_named_statement(session.client, name);
  if (statement == 0) return nullptr;
  CachedPlanSource *source = look_up(statement);
  if (source == nullptr) {
    source = parse_stored(statement);
    remember(statement, source);
  }
  return source;
}

CachedPlanSource *find_statement(const char *name) {
  if (keeps_names_itself()) {
    begin_command();  // it may have to be parsed here
    CachedPlanSource *source = find_own(name);
    if (source != nullptr) return source;
  }
  return FetchPreparedStatement(name, true)->plansource;
}

void close_statement(const char *name) {
  if (keeps_names_itself()) (void)remove_named_statement(session.client, name);
  DropPreparedStatement(name, false);  // there may be a copy for SQL
}

bool deallocate_statement(const char *name) {
  if (session.client == nullptr || !keeps_names_itself()) return false;
  if (name != nullptr) return remove_named_statement(session.client, name);
  remove_all_named_statements(session.client);
  return false;
}

void offer_statement_to_sql(const char *name) {
  if (session.client == nullptr || !keeps_names_itself() || FetchPreparedStatement(name, false) != nullptr) return;
  check_stack_depth();  // a statement may execute itself by name
  CachedPlanSource *source = find_own(name);
  if (source == nullptr) return;
  // A copy needs a valid source; planning it once validates it.
  MemoryContext caller = MemoryContextSwitchTo(MessageContext);
  CachedPlanSource *copy = parse_stored(find_named_statement(session.client, name));
  MemoryContextSwitchTo(caller);
  StorePreparedStatement(name, copy, false);
  note_sql_statement();
}

// ------------------------------------------------------------------ the unnamed statement

void drop_local_unnamed_statement() {
  CachedPlanSource *source = unnamed_source;
  unnamed_source = nullptr;
  unnamed_is_stored = false;
  if (unnamed_types != nullptr) pfree(unnamed_types);
  unnamed_types = nullptr;
  unnamed_type_count = 0;
  if (source != nullptr) DropCachedPlan(source);
}

void forget_unnamed_statement() {
  drop_local_unnamed_statement();
  if (session.client->unnamed_statement == 0) return;
  const std::uint64_t statement = session.client->unnamed_statement;
  session.client->unnamed_statement = 0;
  release_statement(statement);
}

static void keep_types(const Oid *types, int type_count) {
  if (type_count == 0) return;
  unnamed_types =
      static_cast<Oid *>(MemoryContextAlloc(TopMemoryContext, static_cast<Size>(type_count) * sizeof(Oid)));
  memcpy(unnamed_types, types, static_cast<Size>(type_count) * sizeof(Oid));
  unnamed_type_count = type_count;
}

void prepare_unnamed_statement(const char *query, Oid *types, int type_count) {
  forget_unnamed_statement();
  // Before the analysis, which fills in and may move the array: what was given is
  // what another backend needs.
  keep_types(types, type_count);
  CachedPlanSource *source = analyze_statement(query, types, type_count);
  SaveCachedPlan(source);
  unnamed_source = source;
}

CachedPlanSource *find_unnamed_statement() {
  if (unnamed_source == nullptr && session.client->unnamed_statement != 0) {
    begin_command();
    CachedPlanSource *source = parse_stored(session.client->unnamed_statement);
    SaveCachedPlan(source);
    unnamed_source = source;
    unnamed_is_stored = true;
  } else if (unnamed_source != nullptr && executed_name(unnamed_source->raw_parse_tree) != nullptr) {
    begin_command();
    offer_statement_to_sql(executed_name(unnamed_source->raw_parse_tree));
  }
  return unnamed_source;
}

void store_unnamed_statement() {
  if (unnamed_source == nullptr || unnamed_is_stored) return;
  const std::uint64_t statement =
      acquire_statement(unnamed_source->query_string, unnamed_types, unnamed_type_count, startup_settings_hash());
  const std::uint64_t earlier = session.client->unnamed_statement;
  session.client->unnamed_statement = statement;
  if (earlier != 0) release_statement(earlier);
  unnamed_is_stored = true;
}

}  // namespace sluice::pg
