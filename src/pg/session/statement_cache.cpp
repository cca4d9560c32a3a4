// SPDX-License-Identifier: PostgreSQL
#include "pg/compat.hpp"

#include "pg/session/statement_cache.hpp"

extern "C" {
#include "access/xact.h"
#include "commands/prepare.h"
#include "common/hashfn.h"
#include "parser/analyze.h"
#include "parser/parser.h"
#include "tcop/cmdtag.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
}

#include <cctype>

#include "pg/session/name_changes.hpp"
#include "pg/session/session.hpp"
#include "pg/session/statements.hpp"
#include "pg/session/sql_statements.hpp"
#include "pg/session/transaction.hpp"
#include "pg/settings.hpp"

namespace sluice::pg {

static HTAB *cached_statements = nullptr;
static std::uint64_t use_counter = 0;
static std::uint64_t pending_statement = 0;
static std::uint64_t names_before_analysis = 0;

// The pool's mode may change while this client is served.
bool keeps_names_itself() { return !session.held || session.client->statements != 0; }

const char *executed_name(const RawStmt *raw) {
  if (raw == nullptr || !IsA(raw->stmt, ExecuteStmt)) return nullptr;
  return reinterpret_cast<const ExecuteStmt *>(raw->stmt)->name;
}

// ------------------------------------------------------------------ analysis

void note_analysis() { names_before_analysis = name_changes(); }

static CachedPlanSource *analyze_raw(RawStmt *raw, const char *query, Oid *types, int type_count) {
  // Before analysis, which scribbles on the raw tree.
  CachedPlanSource *source = CreateCachedPlan(raw, query, CreateCommandTag(raw->stmt));
  const bool needs_snapshot = analyze_requires_snapshot(raw);
  note_analysis();
  if (needs_snapshot) PushActiveSnapshot(GetTransactionSnapshot());
  List *queries = pg_analyze_and_rewrite_varparams(raw, query, &types, &type_count, nullptr);
  if (needs_snapshot) PopActiveSnapshot();
  CompleteCachedPlan(source, queries, nullptr, types, type_count, nullptr, nullptr, CURSOR_OPT_PARALLEL_OK, true);
  return source;
}

CachedPlanSource *analyze_statement(const char *query, Oid *types, int type_count) {
  MemoryContext caller = MemoryContextSwitchTo(MessageContext);
  List *statements = pg_parse_query(query);
  CachedPlanSource *source;

  if (list_length(statements) > 1)
    ereport(ERROR, (errcode(ERRCODE_SYNTAX_ERROR),
                    errmsg("cannot insert multiple commands into a prepared statement")));
  if (statements != NIL) {
    RawStmt *raw = linitial_node(RawStmt, statements);
    if (IsAbortedTransactionBlockState() && !ends_transaction(raw->stmt)) refuse_in_aborted_transaction();
    // What EXECUTE returns is looked up by name while it is analysed.
    if (executed_name(raw) != nullptr) offer_statement_to_sql(executed_name(raw));
    source = analyze_raw(raw, query, types, type_count);
  } else {
    source = CreateCachedPlan(nullptr, query, CMDTAG_UNKNOWN);
    CompleteCachedPlan(source, NIL, nullptr, types, type_count, nullptr, nullptr, CURSOR_OPT_PARALLEL_OK, true);
  }
  CHECK_FOR_INTERRUPTS();
  MemoryContextSwitchTo(caller);
  return source;
}

RawStmt *find_prepare(const char *query, std::int32_t location) {
  ListCell *cell;

  foreach (cell, pg_parse_query(query)) {
    RawStmt *raw = lfirst_node(RawStmt, cell);
    if (IsA(raw->stmt, PrepareStmt) && (location < 0 || raw->stmt_location == location)) {
      RawStmt *prepared = makeNode(RawStmt);
      prepared->stmt = reinterpret_cast<PrepareStmt *>(raw->stmt)->query;
      prepared->stmt_location = raw->stmt_location;
      prepared->stmt_len = raw->stmt_len;
      return prepared;
    }
  }
  elog(ERROR, "there is no PREPARE in the text of a prepared statement");
}

static CachedPlanSource *analyze_copy(const StoredStatement *stored) {
  const int type_count = stored->type_count;
  Oid *types = nullptr;

  if (type_count > 0) {
    types = static_cast<Oid *>(palloc(static_cast<Size>(type_count) * sizeof(Oid)));
    memcpy(types, stored->types, static_cast<Size>(type_count) * sizeof(Oid));
  }
  const char *query = pstrdup(stored_query(stored));
  if (stored->location == kWholeText) return analyze_statement(query, types, type_count);
  return analyze_raw(find_prepare(query, stored->location), query, types, type_count);
}

// 'now' and its like are constants from the PREPARE on, and mean the start of its
// transaction.  The server offers a way to pretend another one to its parallel
// workers only, and insists on that where assertions are compiled in.
static CachedPlanSource *analyze_as_of(const StoredStatement *stored) {
#ifndef USE_ASSERT_CHECKING
  const TimestampTz transaction_start = GetCurrentTransactionStartTimestamp();
  const TimestampTz statement_start = GetCurrentStatementStartTimestamp();
  CachedPlanSource *volatile source = nullptr;

  PG_TRY();
  {
    SetParallelStartTimestamps(stored->dated, statement_start);
    source = analyze_copy(stored);
  }
  PG_FINALLY();
  { SetParallelStartTimestamps(transaction_start, statement_start); }
  PG_END_TRY();
  return source;
#else
  return analyze_copy(stored);
#endif
}

CachedPlanSource *analyze_stored(std::uint64_t statement) {
  const StoredStatement *stored = stored_statement(statement);
  MemoryContext caller = MemoryContextSwitchTo(MessageContext);

  const int level = assume_settings(stored_settings(stored), stored->settings_length);
  CachedPlanSource *source = stored->dated != 0 ? analyze_as_of(stored) : analyze_copy(stored);
  resume_settings(level);
  MemoryContextSwitchTo(caller);
  return source;
}

// ------------------------------------------------------------------ texts

static bool is_word_character(char c) {
  return isalnum(static_cast<unsigned char>(c)) || c == '_' || (static_cast<unsigned char>(c) & 0x80) != 0;
}

static bool is_moment(const char *word, std::size_t length) {
  static const char *const kMoments[] = {"now", "today", "tomorrow", "yesterday"};
  for (const char *moment : kMoments)
    if (strlen(moment) == length && pg_strncasecmp(word, moment, length) == 0) return true;
  return false;
}

// Looks at every word but a call of now(), not only between quotes: those can stand in comments and names, and
// there are other ways to write a literal.  Taking too much for one costs nothing but sharing.
std::int64_t date_of(const char *query) {
  const char *next = query;
  while (*next != '\0') {
    const char *word = next;
    while (is_word_character(*next)) next++;
    if (next == word)
      next++;
    else if (*next != '(' && is_moment(word, static_cast<std::size_t>(next - word)))
      return GetCurrentTransactionStartTimestamp();
  }
  return 0;
}

StatementText describe_text(const char *query, std::int32_t location, const Oid *types, int type_count) {
  const ParseSettings settings = current_parse_settings();
  return StatementText{query,           location,      types,           type_count,    settings.key,
                       settings.meaning, settings.text, settings.length, date_of(query)};
}

std::uint64_t acquire_pending_statement(const StatementText &text) {
  release_pending_statement();  // of an error that somebody has caught
  pending_statement = acquire_statement(text);
  return pending_statement;
}

void keep_pending_statement() { pending_statement = 0; }

void release_pending_statement() {
  if (pending_statement == 0) return;
  const std::uint64_t statement = pending_statement;
  pending_statement = 0;
  release_statement(statement);
}

// ------------------------------------------------------------------ this backend's plans

static bool is_analyzed_again(const CachedPlanSource *source) {
  return source->raw_parse_tree != nullptr && analyze_requires_snapshot(source->raw_parse_tree);
}

std::uint64_t result_hash(const CachedPlanSource *source) {
  if (!is_analyzed_again(source)) return 0;
  std::uint64_t hash = 1;
  const TupleDesc columns = source->resultDesc;
  for (int i = 0; columns != nullptr && i < columns->natts; i++) {
    const Form_pg_attribute column = TupleDescAttr(columns, i);
    const std::int32_t properties[] = {static_cast<std::int32_t>(column->atttypid), column->atttypmod,
                                       static_cast<std::int32_t>(column->attcollation)};
    hash = hash_bytes_extended(reinterpret_cast<const unsigned char *>(properties), sizeof(properties), hash);
    hash = hash_bytes_extended(reinterpret_cast<const unsigned char *>(NameStr(column->attname)),
                               static_cast<int>(strlen(NameStr(column->attname))), hash);
  }
  return hash;
}

void describe_name(NamedStatement *named, const CachedPlanSource *source, bool from_sql) {
  named->result = result_hash(source);
  named->prepare_time = GetCurrentStatementStartTimestamp();
  named->as_of = GetCurrentTimestamp();
  named->from_sql = from_sql;
}

static void open_cache() {
  HASHCTL control;
  watch_names();
  memset(&control, 0, sizeof(control));
  control.keysize = sizeof(std::uint64_t);
  control.entrysize = sizeof(CachedStatement);
  control.hcxt = TopMemoryContext;
  cached_statements = hash_create("pg_sluice statements", 256, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

extern "C" {

// The server discards the query tree: to analyse the text again, if it is not dropped
// altogether.
static void note_discarded_tree(void *argument) {
  auto *cached = static_cast<CachedStatement *>(argument);
  cached->watched = cached->fresh = false;
  if (current_meaning() != cached->meaning) cached->foreign = true;
  cached->names = name_changes();
  cached->as_of = GetCurrentStatementStartTimestamp();
}

}  // extern "C"

void watch_tree(CachedStatement *cached) {
  if (cached->watched || cached->source->query_context == nullptr) return;
  cached->watch.func = note_discarded_tree;
  cached->watch.arg = cached;
  MemoryContextRegisterResetCallback(cached->source->query_context, &cached->watch);
  cached->watched = true;
}

CachedStatement *look_up_statement(std::uint64_t statement) {
  if (cached_statements == nullptr) return nullptr;
  auto *cached = static_cast<CachedStatement *>(hash_search(cached_statements, &statement, HASH_FIND, nullptr));
  if (cached == nullptr) return nullptr;
  // What EXECUTE <name> returns depends on a name of this client, and must not be that of
  // another's.
  if (executed_name(cached->source->raw_parse_tree) != nullptr) return nullptr;
  if (cached->foreign) return nullptr;
  if (!cached->source->is_valid && current_meaning() != cached->meaning) return nullptr;
  watch_tree(cached);
  cached->last_use = ++use_counter;
  return cached;
}

static bool has_types_given(const CachedStatement *cached) {
  const StoredStatement *stored = stored_statement(cached->statement);
  return stored->type_count == cached->source->num_params &&
         memcmp(stored->types, cached->source->param_types, static_cast<Size>(stored->type_count) * sizeof(Oid)) == 0;
}

bool has_current_names(const CachedStatement *cached) { return cached->names == name_changes(); }

// Analysis would have locked the tables, and so heard of changes.
CachedStatement *look_up_current_statement(std::uint64_t statement) {
  if (IsAbortedTransactionBlockState()) return nullptr;
  AcceptInvalidationMessages();
  CachedStatement *cached = look_up_statement(statement);
  if (cached == nullptr || !cached->source->is_valid || !cached->silent || !has_current_names(cached)) return nullptr;
  return cached->fresh || has_types_given(cached) ? cached : nullptr;
}

// Warnings of the scanner: about escapes in strings, where they are not standard, and about
// identifiers it has to truncate.
static bool is_silent(const char *query) {
  int word_length = 0;
  for (const char *next = query; *next != '\0'; next++) {
    const auto c = static_cast<unsigned char>(*next);
    if (c == '\\' && !standard_conforming_strings) return false;
    word_length = isalnum(c) || c == '_' || c == '$' || c == '"' || c >= 0x80 ? word_length + 1 : 0;
    if (word_length >= NAMEDATALEN) return false;
  }
  return true;
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
    if (cached->last_use < recent && cached->lent == 0) drop_cached(cached);
}

static bool says_the_same(const CachedStatement *cached, const CachedPlanSource *source) {
  const CachedPlanSource *earlier = cached->source;
  return earlier->is_valid && !cached->foreign && is_analyzed_again(earlier) &&
         earlier->num_params == source->num_params &&
         (source->num_params == 0 || memcmp(earlier->param_types, source->param_types,
                                            static_cast<Size>(source->num_params) * sizeof(Oid)) == 0) &&
         equal(earlier->query_list, source->query_list);
}

static void note_freshness(CachedStatement *cached) {
  cached->last_use = ++use_counter;
  cached->fresh = true;
  cached->names = names_before_analysis;
  cached->as_of = GetCurrentStatementStartTimestamp();
}

CachedStatement *remember_statement(std::uint64_t statement, CachedPlanSource *source) {
  bool found;
  if (cached_statements == nullptr) open_cache();
  evict_old();
  auto *cached = static_cast<CachedStatement *>(hash_search(cached_statements, &statement, HASH_ENTER, &found));
  if (found && says_the_same(cached, source)) {
    DropCachedPlan(source);
    note_freshness(cached);
    return cached;
  }
  if (found) {
    if (cached->lent > 0) call_in_lent(cached);
    DropCachedPlan(cached->source);
  } else {
    const StoredStatement *stored = stored_statement(statement);
    const_cast<StoredStatement *>(stored)->references.fetch_add(1);
    cached->meaning = stored->settings_meaning;
    cached->lent = 0;
  }
  cached->source = source;
  cached->watched = cached->foreign = false;
  note_freshness(cached);
  cached->silent = is_silent(source->query_string);
  if (!source->is_saved) SaveCachedPlan(source);
  watch_tree(cached);
  return cached;
}

void release_cached_statements() {
  HASH_SEQ_STATUS scan;
  release_pending_statement();
  if (cached_statements == nullptr) return;
  hash_seq_init(&scan, cached_statements);
  while (auto *cached = static_cast<CachedStatement *>(hash_seq_search(&scan))) release_statement(cached->statement);
  cached_statements = nullptr;
}

// ------------------------------------------------------------------ a client's names

static bool has_types_of(const CachedPlanSource *source, const NamedStatement *named) {
  return source->num_params == named->type_count &&
         (named->type_count == 0 ||
          memcmp(source->param_types, named->types, static_cast<Size>(named->type_count) * sizeof(Oid)) == 0);
}

// Types were deduced when the name was made, and the same deduction gives others now.  A
// direct connection keeps the first ones; so the name gets a statement that has them given.
static void fix_types(NamedStatement *named) {
  const StoredStatement *stored = stored_statement(named->statement);
  const std::uint64_t old = named->statement;

  if (stored->type_count == named->type_count &&
      memcmp(stored->types, named->types, static_cast<Size>(named->type_count) * sizeof(Oid)) == 0)
    elog(ERROR, "parameter types of prepared statement \"%s\" have changed", statement_name(named));
  named->statement = acquire_statement(StatementText{
      stored_query(stored), stored->location, named->types, named->type_count, stored->settings_key,
      stored->settings_meaning, stored_settings(stored), stored->settings_length, stored->dated});
  release_statement(old);
}

// What the server would have found for this name, or later.
static CachedStatement *look_up_recent_statement(const NamedStatement *named) {
  CachedStatement *cached = look_up_statement(named->statement);
  if (cached == nullptr || cached->as_of >= named->as_of) return cached;
  if (!has_current_names(cached)) return nullptr;
  cached->as_of = named->as_of;
  return cached;
}

CachedStatement *find_plan(NamedStatement *named) {
  for (;;) {
    CachedStatement *cached = look_up_recent_statement(named);
    if (cached == nullptr || has_types_of(cached->source, named)) {
      if (cached != nullptr && result_hash(cached->source) == named->result) return cached;
      // The one here may be that of an earlier or later definition of a table.
      CachedPlanSource *source = analyze_stored(named->statement);
      if (has_types_of(source, named)) {
        if (result_hash(source) != named->result)
          ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("cached plan must not change result type")));
        return remember_statement(named->statement, source);
      }
    }
    fix_types(named);
  }
}

}  // namespace sluice::pg
