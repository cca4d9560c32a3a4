// SPDX-License-Identifier: PostgreSQL
//
// A stored set is a sequence of entries in the order of the names:
//   kind (1 byte), name, 0, and but for `made_up`: value, 0, context (1 byte),
//   role (4 bytes) that has set it; and for the two kinds of role its OID (4) and
//   whether it is a superuser (1).
// Roles are carried by OID with what the server knew about them when they were
// set, in the way the server gives them to its parallel workers: a role that was
// dropped, renamed or taken away meanwhile has the effect it has on a direct
// connection.

#include "pg/compat.hpp"

#include "pg/session/session_settings.hpp"

extern "C" {
#include "access/parallel.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "lib/stringinfo.h"
#include "utils/dsa.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timeout.h"
}

#include "pg/session/client_store.hpp"
#include "pg/session/session.hpp"
#include "pg/session/setting_records.hpp"
#include "pg/shared_memory.hpp"

namespace sluice::pg {

// `claim` is the value of a name that no library had claimed where it was set.
enum class EntryKind : char { value = 'v', claim = 'c', made_up = 'm', role = 'r', session_authorization = 's' };

static bool has_role(EntryKind kind) { return kind == EntryKind::role || kind == EntryKind::session_authorization; }

struct Entry {
  EntryKind kind;
  const char *name;
  const char *value;
  GucContext context;
  Oid set_by;
  Oid role;
  bool is_superuser;
};

struct StoredSettings {
  std::uint64_t hash;
  std::uint32_t length;
  char bytes[1];
};

// Enough for any settings, but not for data kept in some.
constexpr std::size_t kMostBytes = 64 * 1024 * 1024;

static StringInfoData scratch;        // the set that is being read from the records
static StringInfoData present_value;  // one value
static std::uint64_t established_hash = 0;  // of the set in force, 0 = none
static bool is_known = true;                // false while it is being changed
static config_generic *application_name_record = nullptr;
static config_generic *idle_session_timeout_record = nullptr;

void open_session_settings() {
  MemoryContext caller = MemoryContextSwitchTo(TopMemoryContext);
  initStringInfo(&scratch);
  initStringInfo(&present_value);
  MemoryContextSwitchTo(caller);
  application_name_record = find_setting("application_name");
  idle_session_timeout_record = find_setting("idle_session_timeout");
}

// ------------------------------------------------------------------ which settings

// The properties of a transaction are settings too; and the seed is no state, but a command.
static bool ends_with_transaction(const config_generic *record) {
  static const char *const kNames[] = {"seed", "transaction_deferrable", "transaction_isolation",
                                       "transaction_read_only"};
  for (const char *name : kNames)
    if (strcmp(record->name, name) == 0) return true;
  return false;
}

static bool is_own(const config_generic *record) {
  return record->source == PGC_S_SESSION && !ends_with_transaction(record);
}

// ------------------------------------------------------------------ entries

static void append_entry(const config_generic *record) {
  EntryKind kind = EntryKind::value;
  if (!is_own(record))
    kind = EntryKind::made_up;
  else if (strcmp(record->name, "role") == 0)
    kind = EntryKind::role;
  else if (strcmp(record->name, "session_authorization") == 0)
    kind = EntryKind::session_authorization;
  else if ((record->flags & GUC_CUSTOM_PLACEHOLDER) != 0)
    kind = EntryKind::claim;

  appendStringInfoChar(&scratch, static_cast<char>(kind));
  appendBinaryStringInfo(&scratch, record->name, static_cast<int>(strlen(record->name)) + 1);
  if (kind == EntryKind::made_up) return;
  append_setting_value(&scratch, record);
  appendStringInfoChar(&scratch, '\0');
  appendStringInfoChar(&scratch, static_cast<char>(record->scontext));
  appendBinaryStringInfo(&scratch, reinterpret_cast<const char *>(&record->srole), sizeof(Oid));
  if (!has_role(kind)) return;
  const bool is_role = kind == EntryKind::role;
  const Oid role = is_role ? GetCurrentRoleId() : GetSessionUserId();
  appendBinaryStringInfo(&scratch, reinterpret_cast<const char *>(&role), sizeof(Oid));
  appendStringInfoChar(&scratch, (is_role ? session_auth_is_superuser : GetSessionUserIsSuperuser()) ? 1 : 0);
}

static const char *read_entry(const char *next, Entry *entry) {
  entry->kind = static_cast<EntryKind>(*next++);
  entry->name = next;
  next += strlen(next) + 1;
  if (entry->kind == EntryKind::made_up) return next;
  entry->value = next;
  next += strlen(next) + 1;
  entry->context = static_cast<GucContext>(*next++);
  memcpy(&entry->set_by, next, sizeof(Oid));
  next += sizeof(Oid);
  if (!has_role(entry->kind)) return next;
  memcpy(&entry->role, next, sizeof(Oid));
  next += sizeof(Oid);
  entry->is_superuser = *next++ != 0;
  return next;
}

// ------------------------------------------------------------------ storing

static StoredSettings *stored_settings(const ClientSlot *slot) {
  if (slot->session_settings == 0) return nullptr;
  return static_cast<StoredSettings *>(dsa_get_address(client_area(), slot->session_settings));
}

void release_session_settings(ClientSlot *slot) { free_for_client(slot, &slot->session_settings); }

static bool has_room(const config_generic *record) {
  std::size_t length = strlen(record->name);
  if (record->vartype == PGC_STRING) {
    const char *value = *reinterpret_cast<const config_string *>(record)->variable;
    if (value != nullptr) length += strlen(value);
  }
  return static_cast<std::size_t>(scratch.len) + length < kMostBytes;
}

// False when they are more than can be carried.
static bool read_records() {
  int count;
  config_generic **records = all_settings(&count);

  resetStringInfo(&scratch);
  for (int i = 0; i < count; i++) {
    if (!(records[i]->source == PGC_S_SESSION ? is_own(records[i]) : is_made_up_in_session(records[i]))) continue;
    if (!has_room(records[i])) return false;
    append_entry(records[i]);
  }
  return true;
}

static bool store_scratch(ClientSlot *slot, std::uint64_t hash) {
  const StoredSettings *earlier = stored_settings(slot);
  if (earlier != nullptr && earlier->hash == hash) return true;
  const auto length = static_cast<std::uint32_t>(scratch.len);
  const dsa_pointer created = allocate_for_client(slot, offsetof(StoredSettings, bytes) + length);
  if (!DsaPointerIsValid(created)) return false;
  auto *settings = static_cast<StoredSettings *>(dsa_get_address(client_area(), created));
  settings->hash = hash;
  settings->length = length;
  memcpy(settings->bytes, scratch.data, length);
  release_session_settings(slot);
  slot->session_settings = created;
  return true;
}

bool store_session_settings() {
  ClientSlot *slot = session.client;

  if (!read_records()) return false;
  std::uint64_t hash = 0;
  if (scratch.len > 0) {
    hash = hash_bytes_extended(reinterpret_cast<const unsigned char *>(scratch.data), scratch.len, 2) | 1;
    if (!store_scratch(slot, hash)) return false;
  } else {
    release_session_settings(slot);
  }
  slot->idle_session_timeout_ms.store(
      idle_session_timeout_record->source >= PGC_S_CLIENT ? IdleSessionTimeout : -1, std::memory_order_relaxed);
  established_hash = hash;
  is_known = true;
  return true;
}

// ------------------------------------------------------------------ taking away

static void reset_value(config_generic *record) {
  if (ends_with_transaction(record))
    record->source = record->reset_source;
  else if (record->source == PGC_S_SESSION)
    (void)set_config_option(record->name, nullptr, PGC_SUSET, PGC_S_SESSION, GUC_ACTION_SET, true, ERROR, false);
}

// Everything but what is named in `wanted` (sorted by name, like the records).
static void withdraw_all_but(const char *wanted, const char *end) {
  int count;
  config_generic **records = all_settings(&count);
  Entry entry{};
  bool has_entry = false;

  for (int i = 0; i < count; i++) {
    config_generic *record = records[i];
    if (record->source != PGC_S_SESSION && !is_made_up_in_session(record)) continue;
    while (!(has_entry && compare_setting_names(entry.name, record->name) >= 0) && wanted < end) {
      wanted = read_entry(wanted, &entry);
      has_entry = true;
    }
    const bool is_wanted = has_entry && compare_setting_names(entry.name, record->name) == 0;
    // The start-up name of the next client is compared with what RESET would give, and nothing is applied in the role
    // of the one before.
    if (!is_wanted || entry.kind == EntryKind::made_up || has_role(entry.kind) || record == application_name_record)
      reset_value(record);
    if (!is_wanted && is_made_up_in_session(record)) hide_setting(record);
  }
}

void withdraw_session_settings() {
  withdraw_all_but(nullptr, nullptr);
  established_hash = 0;
  is_known = true;
}

void withdraw_other_session_settings(const ClientSlot *client) {
  const StoredSettings *wanted = stored_settings(client);
  if (is_known && established_hash == (wanted == nullptr ? 0 : wanted->hash)) return;
  is_known = false;
  if (wanted == nullptr)
    withdraw_session_settings();
  else
    withdraw_all_but(wanted->bytes, wanted->bytes + wanted->length);
}

// ------------------------------------------------------------------ applying

static bool has_value(const config_generic *record, const Entry &entry) {
  if (record->source != PGC_S_SESSION) return false;
  resetStringInfo(&present_value);
  append_setting_value(&present_value, record);
  return strcmp(present_value.data, entry.value) == 0;
}

static bool try_to_set(const char *name, const char *value, int elevel) {
  return set_config_option(name, value, PGC_SUSET, PGC_S_SESSION, GUC_ACTION_SET, true, elevel, false) > 0;
}

// Checks of some settings need a transaction (client_encoding looks for a
// conversion); most look into catalogs only if there is one, and then find fault
// with what has become invalid.  So the second is the exception.
static void set_value(const char *name, const char *value) {
  if (try_to_set(name, value, DEBUG5)) return;
  StartTransactionCommand();
  (void)try_to_set(name, value, ERROR);
  CommitTransactionCommand();
}

static void note_origin(const Entry &entry) {
  config_generic *record = find_setting(entry.name);
  if (record == nullptr) return;
  record->scontext = entry.context;
  record->srole = entry.set_by;
}

static const config_generic *find_or_unhide(const char *name) {
  const config_generic *record = find_setting(name);
  return record == nullptr && unhide_setting(name) ? find_setting(name) : record;
}

// False if it could not be set as long as others have the values of the last client.
static bool apply_value(const Entry &entry, bool is_last_try) {
  const config_generic *record = find_or_unhide(entry.name);
  if (record == nullptr || !has_value(record, entry)) {
    if (is_last_try)
      set_value(entry.name, entry.value);
    else if (!try_to_set(entry.name, entry.value, DEBUG5))
      return false;
  }
  note_origin(entry);
  return true;
}

// A library may have claimed the name on this backend.  Then the value counts as
// it would if the library were loaded under it: by the privileges of whoever has
// set it, and not at all if it is none for this setting.
static void apply_claim(const Entry &entry) {
  const config_generic *record = find_or_unhide(entry.name);
  if (record == nullptr || (record->flags & GUC_CUSTOM_PLACEHOLDER) != 0) {
    if ((record != nullptr && has_value(record, entry)) || try_to_set(entry.name, entry.value, DEBUG5))
      note_origin(entry);
    return;
  }
  StartTransactionCommand();  // privileges are looked up
  if (record->source == PGC_S_SESSION) (void)try_to_set(entry.name, nullptr, DEBUG5);
  (void)set_config_option_ext(entry.name, entry.value, entry.context, PGC_S_SESSION, entry.set_by, GUC_ACTION_SET, true,
                              DEBUG5, false);
  CommitTransactionCommand();
}

static void apply_made_up(const Entry &entry) {
  if (find_setting(entry.name) != nullptr || unhide_setting(entry.name)) return;
  (void)try_to_set(entry.name, nullptr, DEBUG5);
}

static void apply_role(const Entry &entry) {
  if (entry.kind == EntryKind::role)
    SetCurrentRoleId(entry.role, entry.is_superuser);
  else
    SetSessionAuthorization(entry.role, entry.is_superuser);
  volatile bool done = false;
  InitializingParallelWorker = true;  // takes what was just set, and looks nothing up
  PG_TRY();
  {
    done = try_to_set(entry.name, entry.value, DEBUG5);
  }
  PG_FINALLY();
  {
    InitializingParallelWorker = false;
  }
  PG_END_TRY();
  if (!done)
    ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not restore parameter \"%s\"", entry.name)));
}

static bool apply_values(const StoredSettings *wanted, bool is_last_try) {
  const char *end = wanted->bytes + wanted->length;
  bool complete = true;

  for (const char *next = wanted->bytes; next < end;) {
    Entry entry{};
    next = read_entry(next, &entry);
    if (entry.kind == EntryKind::value && !apply_value(entry, is_last_try)) complete = false;
  }
  return complete;
}

void establish_session_settings(const ClientSlot *client) {
  const StoredSettings *wanted = stored_settings(client);
  if (wanted == nullptr || (is_known && established_hash == wanted->hash)) return;
  Entry role{}, authorization{};

  // Some values exclude each other (log_statement_stats and its like).
  if (!apply_values(wanted, false)) (void)apply_values(wanted, true);
  for (const char *next = wanted->bytes, *end = next + wanted->length; next < end;) {
    Entry entry{};
    next = read_entry(next, &entry);
    switch (entry.kind) {
      case EntryKind::value:
        break;
      case EntryKind::claim:
        apply_claim(entry);
        break;
      case EntryKind::made_up:
        apply_made_up(entry);
        break;
      case EntryKind::role:
        role = entry;
        break;
      case EntryKind::session_authorization:
        authorization = entry;
        break;
    }
  }
  // In this order: to change the session authorization takes the role back.
  if (authorization.name != nullptr) apply_role(authorization);
  if (role.name != nullptr) apply_role(role);
  established_hash = wanted->hash;
  is_known = true;
}

}  // namespace sluice::pg
