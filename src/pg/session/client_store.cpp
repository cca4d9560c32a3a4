// SPDX-License-Identifier: PostgreSQL
#include "pg/session/client_store.hpp"

extern "C" {
#include "common/hashfn.h"
#include "storage/lwlock.h"
#include "utils/dsa.h"
}

#include <new>

#include "pg/shared_memory.hpp"

namespace sluice::pg {

// One of the client's names for a statement; a list with the latest used in front.
struct NamedStatement {
  dsa_pointer next;
  dsa_pointer statement;
  std::uint32_t name_hash;
  char name[1];
};

template <typename T>
static T *at(dsa_pointer pointer) {
  return static_cast<T *>(dsa_get_address(client_area(), pointer));
}

static std::uint64_t hash_of(const void *bytes, std::size_t length, std::uint64_t seed) {
  return hash_bytes_extended(static_cast<const unsigned char *>(bytes), static_cast<int>(length), seed);
}

// ------------------------------------------------------------------ start-up settings

std::uint64_t store_startup_settings(ClientSlot *slot, const char *bytes, std::uint32_t length) {
  if (length == 0) return 0;
  const dsa_pointer stored =
      dsa_allocate_extended(client_area(), offsetof(StartupSettings, bytes) + length, DSA_ALLOC_NO_OOM);
  if (!DsaPointerIsValid(stored)) return 0;
  auto *settings = at<StartupSettings>(stored);
  settings->hash = hash_of(bytes, length, 1);
  settings->length = length;
  memcpy(settings->bytes, bytes, length);
  slot->startup_settings = stored;
  return stored;
}

const StartupSettings *startup_settings(const ClientSlot *slot) {
  return slot->startup_settings == 0 ? nullptr : at<StartupSettings>(slot->startup_settings);
}

// ------------------------------------------------------------------ statements

const StoredStatement *stored_statement(std::uint64_t statement) { return at<StoredStatement>(statement); }

static Size types_bytes(int type_count) { return static_cast<Size>(Max(type_count, 1)) * sizeof(Oid); }

const char *stored_query(const StoredStatement *statement) {
  return reinterpret_cast<const char *>(statement->types) + types_bytes(statement->type_count);
}

static bool is_same_statement(const StoredStatement *stored, std::uint64_t hash, const char *query,
                              std::size_t query_length, const Oid *types, int type_count,
                              std::uint64_t settings_hash) {
  return stored->hash == hash && stored->settings_hash == settings_hash && stored->type_count == type_count &&
         stored->query_length == query_length && memcmp(stored_query(stored), query, query_length) == 0 &&
         (type_count == 0 || memcmp(stored->types, types, static_cast<std::size_t>(type_count) * sizeof(Oid)) == 0);
}

std::uint64_t acquire_statement(const char *query, const Oid *types, int type_count, std::uint64_t settings_hash) {
  const std::size_t query_length = strlen(query);
  std::uint64_t hash = hash_of(query, query_length, settings_hash);
  if (type_count > 0) hash = hash_of(types, static_cast<std::size_t>(type_count) * sizeof(Oid), hash);
  const int bucket = static_cast<int>(hash % kStatementBuckets);
  std::uint64_t *head = &statement_buckets()[bucket];

  LWLockAcquire(statement_lock(bucket), LW_EXCLUSIVE);
  for (dsa_pointer seen = *head; DsaPointerIsValid(seen); seen = at<StoredStatement>(seen)->next) {
    auto *stored = at<StoredStatement>(seen);
    if (!is_same_statement(stored, hash, query, query_length, types, type_count, settings_hash)) continue;
    stored->references.fetch_add(1);
    LWLockRelease(statement_lock(bucket));
    return seen;
  }
  // An error here releases the lock with the transaction, and has changed nothing.
  const dsa_pointer created =
      dsa_allocate(client_area(), offsetof(StoredStatement, types) + types_bytes(type_count) + query_length + 1);
  auto *stored = new (at<StoredStatement>(created)) StoredStatement;
  stored->hash = hash;
  stored->settings_hash = settings_hash;
  stored->references.store(1);
  stored->query_length = static_cast<std::uint32_t>(query_length);
  stored->type_count = static_cast<std::uint16_t>(type_count);
  if (type_count > 0) memcpy(stored->types, types, static_cast<std::size_t>(type_count) * sizeof(Oid));
  memcpy(reinterpret_cast<char *>(stored->types) + types_bytes(type_count), query, query_length + 1);
  stored->next = *head;
  *head = created;
  LWLockRelease(statement_lock(bucket));
  return created;
}

void release_statement(std::uint64_t statement) {
  auto *stored = at<StoredStatement>(statement);
  const int bucket = static_cast<int>(stored->hash % kStatementBuckets);

  LWLockAcquire(statement_lock(bucket), LW_EXCLUSIVE);
  if (stored->references.fetch_sub(1) == 1) {
    std::uint64_t *link = &statement_buckets()[bucket];
    while (*link != statement) link = &at<StoredStatement>(*link)->next;
    *link = stored->next;
    dsa_free(client_area(), statement);
  }
  LWLockRelease(statement_lock(bucket));
}

// ------------------------------------------------------------------ the client's names

static std::uint32_t name_hash(const char *name) { return static_cast<std::uint32_t>(hash_of(name, strlen(name), 0)); }

static std::uint64_t *find_link(ClientSlot *slot, const char *name) {
  const std::uint32_t hash = name_hash(name);
  std::uint64_t *link = &slot->statements;
  while (*link != 0) {
    auto *entry = at<NamedStatement>(*link);
    if (entry->name_hash == hash && strcmp(entry->name, name) == 0) return link;
    link = &entry->next;
  }
  return nullptr;
}

std::uint64_t find_named_statement(ClientSlot *slot, const char *name) {
  std::uint64_t *link = find_link(slot, name);
  if (link == nullptr) return 0;
  const std::uint64_t found = *link;
  auto *entry = at<NamedStatement>(found);
  if (link != &slot->statements) {
    *link = entry->next;
    entry->next = slot->statements;
    slot->statements = found;
  }
  return entry->statement;
}

int count_named_statements(const ClientSlot *slot) {
  int count = 0;
  for (std::uint64_t next = slot->statements; next != 0; next = at<NamedStatement>(next)->next) count++;
  return count;
}

void add_named_statement(ClientSlot *slot, const char *name, std::uint64_t statement) {
  const dsa_pointer created =
      dsa_allocate(client_area(), offsetof(NamedStatement, name) + strlen(name) + 1);
  auto *entry = at<NamedStatement>(created);
  entry->statement = statement;
  entry->name_hash = name_hash(name);
  memcpy(entry->name, name, strlen(name) + 1);
  entry->next = slot->statements;
  slot->statements = created;
}

bool remove_named_statement(ClientSlot *slot, const char *name) {
  std::uint64_t *link = find_link(slot, name);
  if (link == nullptr) return false;
  const dsa_pointer removed = *link;
  auto *entry = at<NamedStatement>(removed);
  *link = entry->next;
  release_statement(entry->statement);
  dsa_free(client_area(), removed);
  return true;
}

void remove_all_named_statements(ClientSlot *slot) {
  while (slot->statements != 0) {
    const dsa_pointer removed = slot->statements;
    auto *entry = at<NamedStatement>(removed);
    slot->statements = entry->next;
    release_statement(entry->statement);
    dsa_free(client_area(), removed);
  }
}

void release_client_store(ClientSlot *slot) {
  remove_all_named_statements(slot);
  if (slot->unnamed_statement != 0) {
    const std::uint64_t statement = slot->unnamed_statement;
    slot->unnamed_statement = 0;
    release_statement(statement);
  }
  if (slot->startup_settings != 0) {
    const dsa_pointer settings = slot->startup_settings;
    slot->startup_settings = 0;
    dsa_free(client_area(), settings);
  }
}

}  // namespace sluice::pg
