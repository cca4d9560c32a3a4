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

// A protocol-level statement as Parse gave it.
struct StoredStatement {
  std::uint64_t next;  // dsa_pointer, in its bucket
  std::uint64_t hash;
  std::uint64_t settings_hash;  // of the settings under which it was parsed
  std::atomic<std::uint32_t> references;
  std::uint32_t query_length;  // without the terminating zero
  std::uint16_t type_count;
  Oid types[1];  // [type_count], then the query text
};

// Both return 0 and leave the slot alone when there is no memory.
std::uint64_t store_startup_settings(ClientSlot *slot, const char *bytes, std::uint32_t length);
const StartupSettings *startup_settings(const ClientSlot *slot);

// Finds or stores a statement and counts one more reference.  Raises 53200 when
// there is no memory.
std::uint64_t acquire_statement(const char *query, const Oid *types, int type_count, std::uint64_t settings_hash);
void release_statement(std::uint64_t statement);
const StoredStatement *stored_statement(std::uint64_t statement);
const char *stored_query(const StoredStatement *statement);

// The client's named statements.  `find` returns 0 when there is none of that name.
std::uint64_t find_named_statement(ClientSlot *slot, const char *name);
int count_named_statements(const ClientSlot *slot);
void add_named_statement(ClientSlot *slot, const char *name, std::uint64_t statement);  // takes over the reference
bool remove_named_statement(ClientSlot *slot, const char *name);
void remove_all_named_statements(ClientSlot *slot);

// Frees everything the slot points to.
void release_client_store(ClientSlot *slot);

}  // namespace sluice::pg

#endif
