// SPDX-License-Identifier: PostgreSQL
#include "pg/compat.hpp"

#include "pg/session/statements.hpp"

extern "C" {
#include "commands/prepare.h"
#include "utils/memutils.h"
}

#include "pg/session/client_store.hpp"
#include "pg/session/parse_settings.hpp"
#include "pg/session/session.hpp"
#include "pg/session/sql_statements.hpp"
#include "pg/session/statement_cache.hpp"
#include "pg/session/transaction.hpp"
#include "pg/settings.hpp"

namespace sluice::pg {

// ------------------------------------------------------------------ named statements

void raise_duplicate_statement(const char *name) {
  ereport(ERROR, (errcode(ERRCODE_DUPLICATE_PSTATEMENT), errmsg("prepared statement \"%s\" already exists", name)));
  pg_unreachable();
}

void check_statement_limit() {
  if (count_named_statements(session.client) < setting_max_prepared_statements) return;
  ereport(ERROR,
          (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
           errmsg("too many prepared statements: a client may keep %d", setting_max_prepared_statements),
           errhint("Close statements that are not needed, or increase \"%s\".", "sluice.max_prepared_statements")));
}

void prepare_statement(const char *name, const char *query, Oid *types, int type_count) {
  if (!keeps_names_itself()) {
    StorePreparedStatement(name, analyze_statement(query, types, type_count), false);
    return;
  }
  const std::uint64_t statement =
      acquire_pending_statement(describe_text(query, kWholeText, types, type_count));
  // What this backend has analysed before need not be analysed again.
  CachedStatement *cached = look_up_current_statement(statement);
  CachedPlanSource *fresh = cached == nullptr ? analyze_statement(query, types, type_count) : nullptr;
  if (find_named_statement(session.client, name) != nullptr) raise_duplicate_statement(name);
  check_statement_limit();
  if (fresh != nullptr) cached = remember_statement(statement, fresh);
  NamedStatement *named = add_named_statement(session.client, name, statement, cached->source->param_types,
                                              cached->source->num_params);
  keep_pending_statement();
  describe_name(named, cached->source, false);
}

CachedPlanSource *find_statement(const char *name) {
  if (keeps_names_itself()) {
    begin_command();  // it may have to be parsed here
    NamedStatement *named = find_named_statement(session.client, name);
    if (named != nullptr) {
      if (named->from_sql) offer_statement_to_sql(name);  // brings its counters
      return find_plan(named)->source;
    }
  }
  return FetchPreparedStatement(name, true)->plansource;
}

void close_statement(const char *name) {
  if (keeps_names_itself())
    (void)deallocate_statement(name);
  else
    DropPreparedStatement(name, false);
}

// ------------------------------------------------------------------ the unnamed statement

static CachedPlanSource *unnamed_source = nullptr;
static bool unnamed_is_stored = false;

// The settings under which it was analysed; kept for the next one, which has the same as a rule.
struct UnnamedSettings {
  std::uint64_t key, meaning;
  std::int64_t dated;
  char *text;
  std::uint32_t length;
};

static UnnamedSettings unnamed_settings;

static void note_unnamed_settings(const char *query) {
  const ParseSettings settings = current_parse_settings();

  unnamed_settings.dated = date_of(query);
  unnamed_settings.key = settings.key;
  if (unnamed_settings.text != nullptr && unnamed_settings.meaning == settings.meaning) return;
  if (unnamed_settings.text != nullptr) pfree(unnamed_settings.text);
  unnamed_settings.text = nullptr;
  unnamed_settings.text = static_cast<char *>(MemoryContextAlloc(TopMemoryContext, settings.length));
  memcpy(unnamed_settings.text, settings.text, settings.length);
  unnamed_settings.length = settings.length;
  unnamed_settings.meaning = settings.meaning;
}

void drop_local_unnamed_statement() {
  CachedPlanSource *source = unnamed_source;
  unnamed_source = nullptr;
  unnamed_is_stored = false;
  if (source != nullptr) DropCachedPlan(source);
}

void forget_unnamed_statement() {
  drop_local_unnamed_statement();
  remove_unnamed_statement(session.client);
}

void prepare_unnamed_statement(const char *query, Oid *types, int type_count) {
  forget_unnamed_statement();
  if (keeps_names_itself()) note_unnamed_settings(query);
  CachedPlanSource *source = analyze_statement(query, types, type_count);
  SaveCachedPlan(source);
  unnamed_source = source;
}

static CachedPlanSource *recreate_unnamed(const NamedStatement *named) {
  CachedPlanSource *source = analyze_stored(named->statement);
  if (result_hash(source) != named->result)
    ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("cached plan must not change result type")));
  return source;
}

CachedPlanSource *find_unnamed_statement() {
  const NamedStatement *named = unnamed_source == nullptr ? stored_unnamed_statement(session.client) : nullptr;
  if (named != nullptr) {
    begin_command();
    CachedPlanSource *source = recreate_unnamed(named);
    SaveCachedPlan(source);
    unnamed_source = source;
    unnamed_is_stored = true;
  } else if (unnamed_source != nullptr && executed_name(unnamed_source->raw_parse_tree) != nullptr) {
    begin_command();
    offer_statement_to_sql(executed_name(unnamed_source->raw_parse_tree));
  }
  return unnamed_source;
}

// With the types that were deduced: a direct connection would keep them, too.
bool store_unnamed_statement() {
  if (unnamed_source == nullptr || unnamed_is_stored) return true;
  const std::uint64_t statement = try_acquire_statement(
      StatementText{unnamed_source->query_string, kWholeText, unnamed_source->param_types, unnamed_source->num_params,
                    unnamed_settings.key, unnamed_settings.meaning, unnamed_settings.text, unnamed_settings.length,
                    unnamed_settings.dated});
  if (statement == 0) return false;
  unnamed_is_stored = set_unnamed_statement(session.client, statement, result_hash(unnamed_source));
  if (!unnamed_is_stored) release_statement(statement);
  return unnamed_is_stored;
}

}  // namespace sluice::pg
