// SPDX-License-Identifier: PostgreSQL
//
// What a client brings along and leaves behind outside its slot: start-up
// settings and prepared statements, in the client area (pg/shared_memory.hpp).
//
// Ownership: a client's store is touched by the dispatcher while the client is
// authenticating or closing, and by the backend that leases it; so it needs no
// lock.  Statements are shared between clients by text and counted; the buckets
// that find them are guarded by locks.

#ifndef SLUICE_PG_SESSION_CLIENT_STORE_HPP
#define SLUICE_PG_SESSION_CLIENT_STORE_HPP

#include "pg/compat.hpp"

#include <atomic>
#include <cstdint>

#include "core/pool/shared_state.hpp"

namespace sluice::pg {

// Settings of the start-up packet, in the order they apply: name\0value\0...
struct StartupSettings {
  std::uint64_t hash;
  std::uint32_t length;
  char bytes[1];
};

// StatementText::location of a statement of the protocol: it is the whole text.
constexpr std::int32_t kWholeText = -2;

// What tells statements apart.
struct StatementText {
  const char *query;
  std::int32_t location;  // kWholeText, or where in the text the PREPARE begins (-1: the only one)
  const Oid *types;       // of parameters; 0 = to be deduced
  int type_count;
  std::uint64_t settings_key;      // parse_settings.hpp
  std::uint64_t settings_meaning;
  const char *settings;            // their values
  std::uint32_t settings_length;
  std::int64_t dated;  // TimestampTz that 'now' and 'today' in the text mean; 0 = there is no such literal
};

// One of them, shared by all clients that prepared the same.
struct StoredStatement {
  std::uint64_t next;  // dsa_pointer, in its bucket
  std::uint64_t hash;
  std::uint64_t settings_key;
  std::uint64_t settings_meaning;
  std::int64_t dated;
  std::atomic<std::uint32_t> references;
  std::uint32_t query_length;     // without the terminating zero
  std::uint32_t settings_length;
  std::int32_t location;
  std::int32_t type_count;
  Oid types[1];  // [type_count], then the query text, then the settings
};

// A client's name for a statement, and what its PREPARE or Parse came to.
struct NamedStatement {
  std::uint64_t next;       // dsa_pointer; a list with the latest used in front
  std::uint64_t statement;  // dsa_pointer; counts as a reference
  std::uint64_t result;     // hash of the names and types of its result; see result_hash()
  std::int64_t prepare_time;  // TimestampTz
  std::int64_t as_of;         // TimestampTz: when it had been analysed
  // Of statements from SQL: what the choice between custom and generic plans rests on.
  double generic_cost;
  double total_custom_cost;
  std::int64_t generic_plans;
  std::int64_t custom_plans;
  std::uint32_t charged;  // bytes its client is charged with: its own and the statement's
  std::uint32_t name_hash;
  std::int32_t type_count;
  bool from_sql;
  Oid types[1];  // [type_count] of parameters, none left to be deduced; then the name
};

// Memory of the client area for this client, a dsa_pointer; 0 when the client has sluice.max_client_memory, or, after a
// word in the log, when there is none.  Never raises.  No LWLock may be held.  Only for who owns the slot.
//
// Each client is charged (ClientSlot::memory_bytes) with what it keeps: these pieces, its names of statements, and the
// statements in full, shared with others or not.  Beyond its share a statement raises 53200; settings and sequence
// values pin it to its backend instead, as without memory.
std::uint64_t allocate_for_client(ClientSlot *slot, std::size_t bytes);

// Frees what `pointer` is the dsa_pointer of, and makes it 0; nothing if it is.
void free_for_client(ClientSlot *slot, std::uint64_t *pointer);

// Returns 0 and leaves the slot alone when there is no memory.
std::uint64_t store_startup_settings(ClientSlot *slot, const char *bytes, std::uint32_t length);
const StartupSettings *startup_settings(const ClientSlot *slot);

// Finds or stores a statement and counts one more reference.  When there is no memory, the one
// raises 53200, the other returns 0.
std::uint64_t acquire_statement(const StatementText &text);
std::uint64_t try_acquire_statement(const StatementText &text);
void release_statement(std::uint64_t statement);
const StoredStatement *stored_statement(std::uint64_t statement);
const char *stored_query(const StoredStatement *statement);
const char *stored_settings(const StoredStatement *statement);

// The client's named statements.  Names are as long as identifiers: of a longer one
// only the beginning counts, as in the server's table.  Pointers are valid in this
// process until the statement is removed.
NamedStatement *find_named_statement(ClientSlot *slot, const char *name);  // null: none of that name
NamedStatement *first_named_statement(const ClientSlot *slot);
NamedStatement *next_named_statement(const NamedStatement *named);
int count_named_statements(const ClientSlot *slot);
const char *statement_name(const NamedStatement *named);

// Takes over the reference of `statement`, unless it raises (53200).  The rest is the
// caller's to fill in.
NamedStatement *add_named_statement(ClientSlot *slot, const char *name, std::uint64_t statement, const Oid *types,
                                    int type_count);
bool remove_named_statement(ClientSlot *slot, const char *name);
void remove_all_named_statements(ClientSlot *slot);

// The unnamed statement, null when there is none.  Setting takes over the reference, or
// returns false when there is no memory.
NamedStatement *stored_unnamed_statement(const ClientSlot *slot);
bool set_unnamed_statement(ClientSlot *slot, std::uint64_t statement, std::uint64_t result);
void remove_unnamed_statement(ClientSlot *slot);

// Frees everything the slot points to.
void release_client_store(ClientSlot *slot);

}  // namespace sluice::pg

#endif
