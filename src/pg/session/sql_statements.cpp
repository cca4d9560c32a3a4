// SPDX-License-Identifier: PostgreSQL
//
// An entry of the server's table owns its plan source: it is dropped with the entry.
// To have EXECUTE use a plan of this backend's cache without giving it away, an entry
// is made with an empty source of its own, and then *lent* the cached one: its pointer
// is changed, and changed back before anything may drop the entry.  The server keeps
// nothing but that pointer, and what is being executed holds a reference of its own to
// its plan; so a loan can be called in at any time between two look-ups.
//
// An entry that was never lent anything is for show: it has text and types, and is lent
// the plan when somebody executes it.
//
// The counters by which the server chooses between custom and generic plans are kept with
// the client's name for statements from SQL: brought in with the loan, saved when it
// is called in.  Statements of the protocol share the counters of the plan, so that what
// one client's executions have shown is of use to the next.

#include "pg/compat.hpp"

#include "pg/session/sql_statements.hpp"

extern "C" {
#include "commands/prepare.h"
#include "miscadmin.h"
#include "tcop/cmdtag.h"
#include "tcop/tcopprot.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
}

#include "pg/session/session.hpp"
#include "pg/session/statements.hpp"

namespace sluice::pg {

// An entry of the server's table that this backend has made.
struct Loan {
  char name[NAMEDATALEN];
  NamedStatement *named;
  CachedPlanSource *own;    // the entry's own source while it is lent another
  CachedStatement *cached;  // what is lent, or null
};

// Names on the way into the table: a statement may execute itself by name.
struct Offering {
  const char *name;
  Offering *outer;
};

static HTAB *loans = nullptr;
static bool table_is_used = false;
static Offering *offerings = nullptr;

static Loan *find_loan(const char *name) {
  return loans == nullptr ? nullptr : static_cast<Loan *>(hash_search(loans, name, HASH_FIND, nullptr));
}

static void open_loans() {
  HASHCTL control;
  memset(&control, 0, sizeof(control));
  control.keysize = NAMEDATALEN;
  control.entrysize = sizeof(Loan);
  control.hcxt = TopMemoryContext;
  loans = hash_create("pg_sluice statements for SQL", 32, &control, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
}

static bool keeps_names_of_client() { return session.client != nullptr && keeps_names_itself(); }

// ------------------------------------------------------------------ lending

static void bring_counters(CachedPlanSource *source, const NamedStatement *named) {
  source->generic_cost = named->generic_cost;
  source->total_custom_cost = named->total_custom_cost;
  source->num_generic_plans = named->generic_plans;
  source->num_custom_plans = named->custom_plans;
}

static void save_counters(const CachedPlanSource *source, NamedStatement *named) {
  named->generic_cost = source->generic_cost;
  named->total_custom_cost = source->total_custom_cost;
  named->generic_plans = source->num_generic_plans;
  named->custom_plans = source->num_custom_plans;
}

// An entry with a source that is nothing but text and types.
static Loan *make_entry(NamedStatement *named, const char *query) {
  bool found;
  if (loans == nullptr) open_loans();
  table_is_used = true;
  const char *name = statement_name(named);
  auto *loan = static_cast<Loan *>(hash_search(loans, name, HASH_ENTER, &found));
  loan->named = named;
  loan->own = nullptr;
  loan->cached = nullptr;
  if (FetchPreparedStatement(name, false) != nullptr) return loan;

  MemoryContext caller = MemoryContextSwitchTo(MessageContext);
  CachedPlanSource *source = CreateCachedPlan(nullptr, query, CMDTAG_UNKNOWN);
  CompleteCachedPlan(source, NIL, nullptr, named->types, named->type_count, nullptr, nullptr, CURSOR_OPT_PARALLEL_OK,
                     true);
  MemoryContextSwitchTo(caller);
  StorePreparedStatement(name, source, named->from_sql);
  FetchPreparedStatement(name, true)->prepare_time = named->prepare_time;
  if (named->from_sql) bring_counters(source, named);
  return loan;
}

static void lend(Loan *loan, CachedStatement *cached) {
  PreparedStatement *entry = FetchPreparedStatement(loan->name, true);
  loan->own = entry->plansource;
  loan->cached = cached;
  cached->lent++;
  entry->plansource = cached->source;
  if (loan->named->from_sql) bring_counters(cached->source, loan->named);
}

static void call_in(Loan *loan) {
  if (loan->cached == nullptr) return;
  if (loan->named->from_sql) save_counters(loan->cached->source, loan->named);
  PreparedStatement *entry = FetchPreparedStatement(loan->name, false);
  if (entry != nullptr) entry->plansource = loan->own;
  loan->cached->lent--;
  loan->cached = nullptr;
}

static void remove_entry(Loan *loan) {
  call_in(loan);
  DropPreparedStatement(loan->name, false);
  hash_search(loans, loan->name, HASH_REMOVE, nullptr);
}

void call_in_lent(CachedStatement *cached) {
  HASH_SEQ_STATUS scan;
  hash_seq_init(&scan, loans);
  while (auto *loan = static_cast<Loan *>(hash_seq_search(&scan)))
    if (loan->cached == cached) remove_entry(loan);
}

void withdraw_statement_from_sql(const char *name) {
  Loan *loan = find_loan(name);
  if (loan != nullptr) remove_entry(loan);
}

void withdraw_statements_from_sql() {
  HASH_SEQ_STATUS scan;
  if (!table_is_used) return;
  if (loans != nullptr) {
    hash_seq_init(&scan, loans);
    while (auto *loan = static_cast<Loan *>(hash_seq_search(&scan))) remove_entry(loan);
  }
  // What a PREPARE has left that was interrupted on its way back from the server.
  DropAllPreparedStatements();
  table_is_used = false;
}

// ------------------------------------------------------------------ before SQL looks at the table

static bool is_being_offered(const char *name) {
  for (const Offering *offering = offerings; offering != nullptr; offering = offering->outer)
    if (strcmp(offering->name, name) == 0) return true;
  return false;
}

const char *executed_statement_name(const Node *statement) {
  while (statement != nullptr) {
    switch (nodeTag(statement)) {
      case T_ExecuteStmt:
        return reinterpret_cast<const ExecuteStmt *>(statement)->name;
      case T_ExplainStmt:
        statement = reinterpret_cast<const ExplainStmt *>(statement)->query;
        break;
      case T_CreateTableAsStmt:
        statement = reinterpret_cast<const CreateTableAsStmt *>(statement)->query;
        break;
      case T_Query:
        statement = reinterpret_cast<const Query *>(statement)->utilityStmt;
        break;
      case T_RawStmt:
        statement = reinterpret_cast<const RawStmt *>(statement)->stmt;
        break;
      case T_PlannedStmt:
        statement = reinterpret_cast<const PlannedStmt *>(statement)->utilityStmt;
        break;
      default:
        return nullptr;
    }
  }
  return nullptr;
}

void offer_statement_to_sql(const char *name) {
  if (!keeps_names_of_client()) return;
  const Loan *made = find_loan(name);
  if (made != nullptr && made->cached != nullptr) {
    watch_tree(made->cached);  // the server may analyse it again, as after the last time
    return;
  }
  if (is_being_offered(name)) return;
  NamedStatement *named = find_named_statement(session.client, name);
  if (named == nullptr) return;
  check_stack_depth();

  Offering *const outer = offerings;
  Offering offering{name, outer};
  CachedStatement *volatile cached = nullptr;
  PG_TRY();
  {
    offerings = &offering;
    cached = find_plan(named);
  }
  PG_FINALLY();
  { offerings = outer; }
  PG_END_TRY();
  // Its own text is seen by nobody.  Making it does not touch the cache.
  lend(make_entry(named, ""), cached);
}

void offer_all_statements_to_sql() {
  if (!keeps_names_of_client()) return;
  for (NamedStatement *named = first_named_statement(session.client); named != nullptr;
       named = next_named_statement(named))
    if (FetchPreparedStatement(statement_name(named), false) == nullptr)
      (void)make_entry(named, stored_query(stored_statement(named->statement)));
}

// ------------------------------------------------------------------ PREPARE and DEALLOCATE

void expect_sql_prepare() {
  if (!keeps_names_of_client()) return;
  table_is_used = true;
  note_analysis();
}

// Puts the new statement into the store, and its plan into the cache if that has none as good.
// Whatever may fail is done before the entry is changed.
static void adopt_entry(const char *name, PreparedStatement *entry) {
  CachedPlanSource *source = entry->plansource;

  if (find_named_statement(session.client, name) != nullptr) raise_duplicate_statement(name);
  check_statement_limit();
  const StatementText text = describe_text(source->query_string, source->raw_parse_tree->stmt_location,
                                           source->param_types, source->num_params);
  const std::uint64_t statement = acquire_pending_statement(text);
  CachedStatement *cached = look_up_statement(statement);
  const std::uint64_t result = result_hash(source);
  const bool has_better = cached != nullptr && cached->source->is_valid && has_current_names(cached) &&
                          result_hash(cached->source) == result;
  NamedStatement *named =
      add_named_statement(session.client, name, statement, source->param_types, source->num_params);
  keep_pending_statement();
  describe_name(named, source, true);
  if (!has_better) {
    // From here on the source is the cache's: the entry goes, and with it an empty one.
    MemoryContext caller = MemoryContextSwitchTo(MessageContext);
    CachedPlanSource *empty = CreateCachedPlan(nullptr, "", CMDTAG_UNKNOWN);
    CompleteCachedPlan(empty, NIL, nullptr, nullptr, 0, nullptr, nullptr, CURSOR_OPT_PARALLEL_OK, true);
    MemoryContextSwitchTo(caller);
    (void)remember_statement(statement, source);
    SaveCachedPlan(empty);
    entry->plansource = empty;
  }
  DropPreparedStatement(name, false);
}

void note_sql_prepare(const PrepareStmt *statement) {
  if (!keeps_names_of_client()) return;
  const char *name = statement->name;
  PreparedStatement *entry = FetchPreparedStatement(name, false);
  if (entry == nullptr) return;

  const bool was_known = find_named_statement(session.client, name) != nullptr;
  PG_TRY();
  { adopt_entry(name, entry); }
  PG_CATCH();
  {
    DropPreparedStatement(name, false);
    if (!was_known) (void)remove_named_statement(session.client, name);
    PG_RE_THROW();
  }
  PG_END_TRY();
}

bool deallocate_statement(const char *name) {
  if (!keeps_names_of_client()) return false;
  if (name != nullptr) {
    withdraw_statement_from_sql(name);
    return remove_named_statement(session.client, name);
  }
  withdraw_statements_from_sql();
  remove_all_named_statements(session.client);
  return false;
}

// ------------------------------------------------------------------ for the log

static const StoredStatement *find_stored(const char *name) {
  if (!keeps_names_of_client()) return nullptr;
  const NamedStatement *named = find_named_statement(session.client, name);
  return named == nullptr ? nullptr : stored_statement(named->statement);
}

const char *prepared_text(const char *name) {
  if (const StoredStatement *stored = find_stored(name)) return stored_query(stored);
  const PreparedStatement *entry = FetchPreparedStatement(name, false);
  return entry == nullptr ? nullptr : entry->plansource->query_string;
}

const Node *prepared_raw_tree(const char *name) {
  const StoredStatement *stored = find_stored(name);
  if (stored == nullptr) {
    const PreparedStatement *entry = FetchPreparedStatement(name, false);
    return entry == nullptr || entry->plansource->raw_parse_tree == nullptr ? nullptr
                                                                          : entry->plansource->raw_parse_tree->stmt;
  }
  const int level = assume_settings(stored_settings(stored), stored->settings_length);
  const char *query = stored_query(stored);
  const RawStmt *raw = nullptr;
  if (stored->location != kWholeText) {
    raw = find_prepare(query, stored->location);
  } else {
    const List *statements = pg_parse_query(query);
    if (statements != NIL) raw = linitial_node(RawStmt, statements);
  }
  resume_settings(level);
  return raw == nullptr ? nullptr : raw->stmt;
}

}  // namespace sluice::pg
