// SPDX-License-Identifier: PostgreSQL
//
// The plans of this backend: one for each stored statement it has met, shared by
// all clients that have a name for it, and the analysis that makes them.
//
// A plan source is the server's (utils/plancache.h): saved, and analysed again by
// the server when something it depends on has changed.  That happens under the
// settings then in force; if those give the text another meaning than the stored
// ones, the source is of no use to others and is made anew at the next look-up.
// So it is for a client that has prepared the text later than that, if names in it
// may have come to mean something else in between (name_changes.hpp).
//
// A source may be lent to the server's table of prepared statements
// (sql_statements.cpp); while it is, it is not dropped.

#ifndef SLUICE_PG_SESSION_STATEMENT_CACHE_HPP
#define SLUICE_PG_SESSION_STATEMENT_CACHE_HPP

#include "pg/compat.hpp"

#include <cstdint>

extern "C" {
#include "nodes/parsenodes.h"
#include "utils/palloc.h"
#include "utils/plancache.h"
}

#include "pg/session/client_store.hpp"
#include "pg/session/parse_settings.hpp"

namespace sluice::pg {

struct CachedStatement {
  std::uint64_t statement;  // dsa_pointer: the key; counts as a reference
  CachedPlanSource *source;
  std::uint64_t last_use;
  std::uint64_t meaning;  // of the settings it is to be analysed under
  int lent;               // entries of the server's table that point to the source
  bool watched;           // `watch` is registered on the source's query tree
  bool foreign;           // was analysed again under other settings
  bool fresh;             // has not been analysed again at all: its parameter types are what the text says
  bool silent;            // scanning the text gives rise to no warning
  std::uint64_t names;    // name_changes() before it was analysed
  std::int64_t as_of;     // TimestampTz: analysis then would have come to the same
  MemoryContextCallback watch;
};

// Does this backend keep the client's names itself?  In session mode the server does, but for a client that has
// brought some along from before the mode was changed.
bool keeps_names_itself();

// The name in EXECUTE <name>, or null.
const char *executed_name(const RawStmt *raw);

// Parses and analyses a text of one statement into an unsaved source, a child of
// MessageContext.  `types` may be extended with deduced ones.
CachedPlanSource *analyze_statement(const char *query, Oid *types, int type_count);

// The same for a stored statement, under its settings.
CachedPlanSource *analyze_stored(std::uint64_t statement);

// Hash of the names, types, type modifiers and collations of the result's columns:
// what must not change.  0 for statements the server does not analyse again.
std::uint64_t result_hash(const CachedPlanSource *source);

// The types, PREPARE's time and result of a new name.
void describe_name(NamedStatement *named, const CachedPlanSource *source, bool from_sql);

// Before a text is analysed.
void note_analysis();

// What this backend has of it, null if nothing that can be used.
CachedStatement *look_up_statement(std::uint64_t statement);

// To be told when the server discards the source's query tree.
void watch_tree(CachedStatement *cached);

// The same, if analysing the text now would come to nothing else.
CachedStatement *look_up_current_statement(std::uint64_t statement);

// Could names in the text mean something else by now?
bool has_current_names(const CachedStatement *cached);

// Takes a source that has just been analysed into the cache.  An earlier one gives way, unless it says the
// same: then that stays, with its plan, and the new one is dropped.
CachedStatement *remember_statement(std::uint64_t statement, CachedPlanSource *source);

// What the client's name stands for, analysed here if need be.  Raises 0A000 when the
// result is not that of the PREPARE any more.
CachedStatement *find_plan(NamedStatement *named);

// Finds or stores a statement; the reference is pending until it has found its owner.
// After an error release_pending_statement() gives it back.
std::uint64_t acquire_pending_statement(const StatementText &text);
void keep_pending_statement();

// The text with the settings in force.
StatementText describe_text(const char *query, std::int32_t location, const Oid *types, int type_count);

// 0, or the time that literals like 'now' and 'today' in the text refer to.
std::int64_t date_of(const char *query);

// Gives back all references (the backend ends).
void release_cached_statements();

}  // namespace sluice::pg

#endif
