// SPDX-License-Identifier: PostgreSQL
#include "pg/session/client_store.hpp"

extern "C" {
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "utils/dsa.h"
}

#include <new>

#include "pg/session/sequences.hpp"
#include "pg/session/session_settings.hpp"
#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"

namespace sluice::pg {

template <typename T>
static T *at(dsa_pointer pointer) {
  return static_cast<T *>(dsa_get_address(client_area(), pointer));
}

static std::uint64_t hash_of(const void *bytes, std::size_t length, std::uint64_t seed) {
  return hash_bytes_extended(static_cast<const unsigned char *>(bytes), static_cast<int>(length), seed);
}

// What has been given out is counted, so each piece has its size in front.  The
// area itself does not tell before PostgreSQL 17.
constexpr std::size_t kPieceHeader = sizeof(std::uint64_t);
static_assert(kPieceHeader % MAXIMUM_ALIGNOF == 0);

static std::atomic<std::int64_t> &bytes_given_out() { return shared().header->client_memory_bytes; }

static void free_piece(dsa_pointer pointer) {
  const dsa_pointer piece = pointer - kPieceHeader;
  bytes_given_out().fetch_sub(static_cast<std::int64_t>(*at<std::uint64_t>(piece)), std::memory_order_relaxed);
  dsa_free(client_area(), piece);
}

// The area's own limit makes the server answer with none, the machine's makes it raise: when there is no room in
// /dev/shm, say.  What it has locked by then are the area's locks.
static dsa_pointer allocate_piece(std::size_t bytes) {
  const MemoryContext context = CurrentMemoryContext;
  const uint32 interrupts_held = InterruptHoldoffCount, cancels_held = QueryCancelHoldoffCount;
  volatile dsa_pointer allocated = InvalidDsaPointer;

  PG_TRY();
  {
    allocated = dsa_allocate_extended(client_area(), bytes + kPieceHeader, DSA_ALLOC_NO_OOM | DSA_ALLOC_HUGE);
  }
  PG_CATCH();
  {
    MemoryContextSwitchTo(context);
    LWLockReleaseAll();
    InterruptHoldoffCount = interrupts_held;
    QueryCancelHoldoffCount = cancels_held;
    ErrorData *error = CopyErrorData();
    FlushErrorState();
    ereport(LOG_SERVER_ONLY,
            (errcode(error->sqlerrcode), errmsg("no room for the state of a client: %s", error->message)));
    FreeErrorData(error);
  }
  PG_END_TRY();
  if (!DsaPointerIsValid(allocated)) return 0;
  *at<std::uint64_t>(allocated) = bytes + kPieceHeader;
  bytes_given_out().fetch_add(static_cast<std::int64_t>(bytes + kPieceHeader), std::memory_order_relaxed);
  return allocated + kPieceHeader;
}

// ------------------------------------------------------------------ what each client is charged with

// Only the owner of the slot writes it.
static void charge(ClientSlot *slot, std::int64_t bytes) {
  const std::int64_t charged = slot->memory_bytes.load(std::memory_order_relaxed) + bytes;
  slot->memory_bytes.store(static_cast<std::uint32_t>(Max(charged, 0)), std::memory_order_relaxed);
}

static bool has_room_for(const ClientSlot *slot, std::size_t bytes) {
  return slot->memory_bytes.load(std::memory_order_relaxed) + static_cast<std::uint64_t>(bytes) <=
         static_cast<std::uint64_t>(setting_max_client_memory) * 1024;
}

std::uint64_t allocate_for_client(ClientSlot *slot, std::size_t bytes) {
  if (!has_room_for(slot, bytes + kPieceHeader)) return 0;
  const dsa_pointer allocated = allocate_piece(bytes);
  if (DsaPointerIsValid(allocated)) charge(slot, static_cast<std::int64_t>(bytes + kPieceHeader));
  return allocated;
}

void free_for_client(ClientSlot *slot, std::uint64_t *pointer) {
  const dsa_pointer freed = *pointer;
  *pointer = 0;
  if (!DsaPointerIsValid(freed)) return;
  charge(slot, -static_cast<std::int64_t>(*at<std::uint64_t>(freed - kPieceHeader)));
  free_piece(freed);
}

// ------------------------------------------------------------------ start-up settings

std::uint64_t store_startup_settings(ClientSlot *slot, const char *bytes, std::uint32_t length) {
  if (length == 0) return 0;
  const dsa_pointer stored = allocate_for_client(slot, offsetof(StartupSettings, bytes) + length);
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

const char *stored_settings(const StoredStatement *statement) {
  return stored_query(statement) + statement->query_length + 1;
}

static std::size_t given_types_bytes(int type_count) { return static_cast<std::size_t>(type_count) * sizeof(Oid); }

static bool is_same_statement(const StoredStatement *stored, std::uint64_t hash, std::size_t query_length,
                              const StatementText &text) {
  return stored->hash == hash && stored->settings_key == text.settings_key && stored->location == text.location &&
         stored->dated == text.dated && stored->type_count == text.type_count &&
         stored->query_length == query_length && memcmp(stored_query(stored), text.query, query_length) == 0 &&
         (text.type_count == 0 || memcmp(stored->types, text.types, given_types_bytes(text.type_count)) == 0);
}

static void fill_statement(StoredStatement *stored, std::uint64_t hash, std::size_t query_length,
                           const StatementText &text) {
  stored->hash = hash;
  stored->settings_key = text.settings_key;
  stored->settings_meaning = text.settings_meaning;
  stored->dated = text.dated;
  stored->references.store(1);
  stored->query_length = static_cast<std::uint32_t>(query_length);
  stored->settings_length = text.settings_length;
  stored->location = text.location;
  stored->type_count = text.type_count;
  if (text.type_count > 0) memcpy(stored->types, text.types, given_types_bytes(text.type_count));
  memcpy(const_cast<char *>(stored_query(stored)), text.query, query_length + 1);
  memcpy(const_cast<char *>(stored_settings(stored)), text.settings, text.settings_length);
}

static dsa_pointer create_statement(std::uint64_t hash, std::size_t query_length, const StatementText &text) {
  const dsa_pointer created = allocate_piece(offsetof(StoredStatement, types) + types_bytes(text.type_count) +
                                             query_length + 1 + text.settings_length);
  if (DsaPointerIsValid(created))
    fill_statement(new (at<StoredStatement>(created)) StoredStatement, hash, query_length, text);
  return created;
}

// Under the bucket's lock.
static dsa_pointer share_statement(std::uint64_t head, std::uint64_t hash, std::size_t query_length,
                                   const StatementText &text) {
  for (dsa_pointer seen = head; DsaPointerIsValid(seen); seen = at<StoredStatement>(seen)->next) {
    auto *stored = at<StoredStatement>(seen);
    if (!is_same_statement(stored, hash, query_length, text)) continue;
    stored->references.fetch_add(1);
    return seen;
  }
  return InvalidDsaPointer;
}

std::uint64_t try_acquire_statement(const StatementText &text) {
  const std::size_t query_length = strlen(text.query);
  std::uint64_t hash = hash_of(text.query, query_length, text.settings_key + static_cast<std::uint32_t>(text.location));
  if (text.type_count > 0) hash = hash_of(text.types, given_types_bytes(text.type_count), hash);
  const int bucket = static_cast<int>(hash % kStatementBuckets);
  std::uint64_t *head = &statement_buckets()[bucket];

  LWLockAcquire(statement_lock(bucket), LW_EXCLUSIVE);
  const dsa_pointer seen = share_statement(*head, hash, query_length, text);
  LWLockRelease(statement_lock(bucket));
  if (DsaPointerIsValid(seen)) return seen;

  const dsa_pointer created = create_statement(hash, query_length, text);
  if (!DsaPointerIsValid(created)) return 0;
  LWLockAcquire(statement_lock(bucket), LW_EXCLUSIVE);
  const dsa_pointer others = share_statement(*head, hash, query_length, text);  // of who was faster
  if (!DsaPointerIsValid(others)) {
    at<StoredStatement>(created)->next = *head;
    *head = created;
  }
  LWLockRelease(statement_lock(bucket));
  if (!DsaPointerIsValid(others)) return created;
  free_piece(created);
  return others;
}

static void raise_out_of_memory() {
  ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory"),
                  errdetail("There is no room for another prepared statement of a client."),
                  errhint("You may need to increase \"%s\".", "sluice.client_memory")));
}

static void raise_too_much_memory() {
  ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY),
                  errmsg("too much memory for prepared statements: a client may use %d kB", setting_max_client_memory),
                  errhint("Close statements that are not needed, or increase \"%s\".", "sluice.max_client_memory")));
}

std::uint64_t acquire_statement(const StatementText &text) {
  const std::uint64_t statement = try_acquire_statement(text);
  if (statement == 0) raise_out_of_memory();
  return statement;
}

void release_statement(std::uint64_t statement) {
  auto *stored = at<StoredStatement>(statement);
  const int bucket = static_cast<int>(stored->hash % kStatementBuckets);

  LWLockAcquire(statement_lock(bucket), LW_EXCLUSIVE);
  if (stored->references.fetch_sub(1) == 1) {
    std::uint64_t *link = &statement_buckets()[bucket];
    while (*link != statement) link = &at<StoredStatement>(*link)->next;
    *link = stored->next;
    free_piece(statement);
  }
  LWLockRelease(statement_lock(bucket));
}

// ------------------------------------------------------------------ the client's names

static std::size_t name_length(const char *name) { return strnlen(name, NAMEDATALEN - 1); }

static std::uint32_t hash_name(const char *name, std::size_t length) {
  return static_cast<std::uint32_t>(hash_of(name, length, 0));
}

const char *statement_name(const NamedStatement *named) {
  return reinterpret_cast<const char *>(named->types + named->type_count);
}

static std::uint64_t *find_link(ClientSlot *slot, const char *name) {
  const std::size_t length = name_length(name);
  const std::uint32_t hash = hash_name(name, length);
  std::uint64_t *link = &slot->statements;
  while (*link != 0) {
    auto *named = at<NamedStatement>(*link);
    if (named->name_hash == hash && strncmp(statement_name(named), name, length) == 0 &&
        statement_name(named)[length] == '\0')
      return link;
    link = &named->next;
  }
  return nullptr;
}

NamedStatement *find_named_statement(ClientSlot *slot, const char *name) {
  std::uint64_t *link = find_link(slot, name);
  if (link == nullptr) return nullptr;
  const std::uint64_t found = *link;
  auto *named = at<NamedStatement>(found);
  if (link != &slot->statements) {
    *link = named->next;
    named->next = slot->statements;
    slot->statements = found;
  }
  return named;
}

NamedStatement *first_named_statement(const ClientSlot *slot) {
  return slot->statements == 0 ? nullptr : at<NamedStatement>(slot->statements);
}

NamedStatement *next_named_statement(const NamedStatement *named) {
  return named->next == 0 ? nullptr : at<NamedStatement>(named->next);
}

int count_named_statements(const ClientSlot *slot) {
  int count = 0;
  for (std::uint64_t next = slot->statements; next != 0; next = at<NamedStatement>(next)->next) count++;
  return count;
}

// A statement that others have, too, counts in full: whether they do is their affair, and may change.
static std::size_t statement_charge(std::uint64_t statement) {
  return statement == 0 ? 0 : static_cast<std::size_t>(*at<std::uint64_t>(statement - kPieceHeader));
}

static std::size_t name_bytes(const char *name, int type_count) {
  return offsetof(NamedStatement, types) + given_types_bytes(type_count) + name_length(name) + 1;
}

// 0 when there is no memory.  The client is not charged yet.
static dsa_pointer create_name(const char *name, std::uint64_t statement, const Oid *types, int type_count) {
  const std::size_t length = name_length(name);
  const dsa_pointer created = allocate_piece(name_bytes(name, type_count));
  if (!DsaPointerIsValid(created)) return 0;
  auto *named = at<NamedStatement>(created);
  memset(static_cast<void *>(named), 0, offsetof(NamedStatement, types));
  named->statement = statement;
  named->generic_cost = -1;
  named->name_hash = hash_name(name, length);
  named->type_count = type_count;
  if (type_count > 0) memcpy(named->types, types, given_types_bytes(type_count));
  char *stored_name = const_cast<char *>(statement_name(named));
  memcpy(stored_name, name, length);
  stored_name[length] = '\0';
  return created;
}

NamedStatement *add_named_statement(ClientSlot *slot, const char *name, std::uint64_t statement, const Oid *types,
                                    int type_count) {
  const std::size_t bytes = name_bytes(name, type_count) + kPieceHeader + statement_charge(statement);
  if (!has_room_for(slot, bytes)) raise_too_much_memory();
  const dsa_pointer created = create_name(name, statement, types, type_count);
  if (created == 0) raise_out_of_memory();
  auto *named = at<NamedStatement>(created);
  named->charged = static_cast<std::uint32_t>(bytes);
  charge(slot, static_cast<std::int64_t>(bytes));
  named->next = slot->statements;
  slot->statements = created;
  return named;
}

static void remove_link(ClientSlot *slot, std::uint64_t *link) {
  const dsa_pointer removed = *link;
  auto *named = at<NamedStatement>(removed);
  charge(slot, -static_cast<std::int64_t>(named->charged));
  *link = named->next;
  if (named->statement != 0) release_statement(named->statement);
  free_piece(removed);
}

bool remove_named_statement(ClientSlot *slot, const char *name) {
  std::uint64_t *link = find_link(slot, name);
  if (link == nullptr) return false;
  remove_link(slot, link);
  return true;
}

void remove_all_named_statements(ClientSlot *slot) {
  while (slot->statements != 0) remove_link(slot, &slot->statements);
}

// ------------------------------------------------------------------ the unnamed statement

// Its place stays when it goes: another one soon follows.
NamedStatement *stored_unnamed_statement(const ClientSlot *slot) {
  if (slot->unnamed_statement == 0) return nullptr;
  auto *named = at<NamedStatement>(slot->unnamed_statement);
  return named->statement == 0 ? nullptr : named;
}

void remove_unnamed_statement(ClientSlot *slot) {
  NamedStatement *named = stored_unnamed_statement(slot);
  if (named == nullptr) return;
  const std::uint64_t statement = named->statement;
  named->statement = 0;
  charge(slot, -static_cast<std::int64_t>(named->charged));
  named->charged = 0;
  release_statement(statement);
}

bool set_unnamed_statement(ClientSlot *slot, std::uint64_t statement, std::uint64_t result) {
  remove_unnamed_statement(slot);
  const std::size_t bytes = statement_charge(statement);
  if (!has_room_for(slot, bytes)) return false;
  if (slot->unnamed_statement == 0) slot->unnamed_statement = create_name("", 0, nullptr, 0);
  if (slot->unnamed_statement == 0) return false;
  auto *named = at<NamedStatement>(slot->unnamed_statement);
  named->statement = statement;
  named->charged = static_cast<std::uint32_t>(bytes);
  charge(slot, static_cast<std::int64_t>(bytes));
  named->result = result;
  return true;
}

void release_client_store(ClientSlot *slot) {
  release_session_settings(slot);
  release_stored_sequences(slot);
  remove_all_named_statements(slot);
  if (slot->unnamed_statement != 0) remove_link(slot, &slot->unnamed_statement);
  free_for_client(slot, &slot->startup_settings);
  slot->memory_bytes.store(0, std::memory_order_relaxed);
}

}  // namespace sluice::pg
