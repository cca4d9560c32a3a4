// SPDX-License-Identifier: PostgreSQL
//
// A direct connection applies the settings of its start-up packet once, with
// source "client": they become the values RESET returns to.  Here they are
// applied whenever a backend changes between clients that brought different
// ones, in the same way, and taken back to what they were: value, source and all
// that pg_settings shows about it (a setting left with source "client" would not
// follow a reload of postgresql.conf any more).
//
// Clients with equal settings (by hash) change nothing, and application_name,
// which nearly every client brings and which differs most, has a path of its own.

#include "pg/compat.hpp"

#include "pg/session/client_settings.hpp"

extern "C" {
#include "access/xact.h"
#include "libpq/pqformat.h"
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"
#include "utils/memutils.h"
}

#include "pg/session/client_store.hpp"
#include "pg/session/client_stream.hpp"
#include "pg/session/session.hpp"
#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"

namespace sluice::pg {

// A setting as it was before the client's start-up settings.
struct SavedSetting {
  SavedSetting *next;
  config_generic *record;
  GucSource source, reset_source;
  GucContext scontext, reset_scontext;
  Oid srole, reset_srole;
  int sourceline;
  char *sourcefile;
  bool has_value;
  char value[1];
};

static SavedSetting *saved_settings = nullptr;  // latest first
static std::uint64_t applied_hash = 0;
static char base_application_name[NAMEDATALEN];
static int base_setting_count = 0;

static int count_settings() {
  int count;
  (void)all_settings(&count);
  return count;
}

void remember_baseline_settings() {
  strlcpy(base_application_name, application_name, NAMEDATALEN);
  base_setting_count = count_settings();
}

bool settings_were_added() { return count_settings() != base_setting_count; }

std::uint64_t startup_settings_hash() { return applied_hash; }

static config_generic *find_setting(const char *name) {
  int count;
  config_generic **records = all_settings(&count);
  for (int i = 0; i < count; i++)
    if (pg_strcasecmp(records[i]->name, name) == 0) return records[i];
  return nullptr;
}

static void save_setting(const char *name) {
  config_generic *record = find_setting(name);
  if (record == nullptr) return;  // an old alias or unknown: the server judges
  const char *value = GetConfigOption(record->name, true, false);
  const std::size_t length = value == nullptr ? 0 : strlen(value);
  auto *saved = static_cast<SavedSetting *>(
      MemoryContextAlloc(TopMemoryContext, offsetof(SavedSetting, value) + length + 1));
  saved->record = record;
  saved->source = record->source;
  saved->reset_source = record->reset_source;
  saved->scontext = record->scontext;
  saved->reset_scontext = record->reset_scontext;
  saved->srole = record->srole;
  saved->reset_srole = record->reset_srole;
  saved->sourcefile = record->sourcefile == nullptr ? nullptr : MemoryContextStrdup(TopMemoryContext, record->sourcefile);
  saved->sourceline = record->sourceline;
  saved->has_value = value != nullptr;
  memcpy(saved->value, value == nullptr ? "" : value, length + 1);
  saved->next = saved_settings;
  saved_settings = saved;
}

static void restore_setting(const SavedSetting *saved) {
  config_generic *record = saved->record;
  if (saved->has_value)
    (void)set_config_option(record->name, saved->value, PGC_SU_BACKEND, PGC_S_CLIENT, GUC_ACTION_SET, true, ERROR,
                            false);
  record->source = saved->source;
  record->reset_source = saved->reset_source;
  record->scontext = saved->scontext;
  record->reset_scontext = saved->reset_scontext;
  record->srole = saved->srole;
  record->reset_srole = saved->reset_srole;
}

// Setting changes between clients are nobody's news: each client was told its
// values when it came in.
static void report_to_nobody() {
  mute_stream(true);
  ReportChangedGUCOptions();
  mute_stream(false);
}

static void restore_all() {
  while (saved_settings != nullptr) {
    SavedSetting *saved = saved_settings;
    restore_setting(saved);
    saved_settings = saved->next;
    if (saved->sourcefile != nullptr) pfree(saved->sourcefile);
    pfree(saved);
  }
  applied_hash = 0;
}

static void change_startup_settings(const StartupSettings *settings) {
  // Checks of some settings look into catalogs.
  StartTransactionCommand();
  restore_all();
  if (settings != nullptr) {
    const GucContext context = superuser() ? PGC_SU_BACKEND : PGC_BACKEND;
    const char *next = settings->bytes;
    const char *end = settings->bytes + settings->length;
    while (next < end) {
      const char *name = next;
      const char *value = name + strlen(name) + 1;
      next = value + strlen(value) + 1;
      save_setting(name);
      SetConfigOption(name, value, context, PGC_S_CLIENT);
    }
    applied_hash = settings->hash;
  }
  CommitTransactionCommand();
}

static void apply_application_name(const char *name) {
  if (strcmp(application_name, name) != 0) SetConfigOption("application_name", name, PGC_USERSET, PGC_S_CLIENT);
}

void apply_startup_settings(const ClientSlot *client) {
  const StartupSettings *settings = startup_settings(client);
  const std::uint64_t wanted = settings == nullptr ? 0 : settings->hash;

  if (wanted != applied_hash || (settings == nullptr && saved_settings != nullptr)) change_startup_settings(settings);
  // Without a name of its own the client may have set one through "options".
  if (client->application_name[0] != '\0')
    apply_application_name(client->application_name);
  else if (settings == nullptr)
    apply_application_name(base_application_name);
  report_to_nobody();
}

void apply_no_startup_settings() {
  if (saved_settings != nullptr) change_startup_settings(nullptr);
  apply_application_name(base_application_name);
  report_to_nobody();
}

bool session_settings_changed() {
  int count;
  config_generic **records = all_settings(&count);
  for (int i = 0; i < count; i++)
    if (records[i]->source == PGC_S_SESSION) return true;
  return false;
}

void reset_session_settings() {
  StartTransactionCommand();
  SetConfigOption("session_authorization", nullptr, PGC_USERSET, PGC_S_SESSION);
  SetConfigOption("role", nullptr, PGC_USERSET, PGC_S_SESSION);
  ResetAllOptions();
  CommitTransactionCommand();
}

void publish_pool_settings() {
  PoolSlot *pool = session.pool;
  pool->mode.store(setting_pool_mode);
  pool->min_size.store(setting_min_pool_size);
  pool->configured_max_size.store(setting_max_pool_size);
  pool->max_size.store(setting_max_pool_size > 0 ? setting_max_pool_size
                                                 : Max(shared().header->machine.rule_size.load(), 1));
  pool->acquire_timeout_ms.store(setting_acquire_timeout);
  pool->idle_timeout_ms.store(setting_idle_timeout);
  pool->max_lifetime_ms.store(setting_max_lifetime);
  pool->idle_session_timeout_ms.store(IdleSessionTimeout);
}

void reload_configuration() {
  if (session.client != nullptr && saved_settings != nullptr && !IsTransactionState()) {
    change_startup_settings(nullptr);
    ProcessConfigFile(PGC_SIGHUP);
    apply_startup_settings(session.client);
  } else {
    ProcessConfigFile(PGC_SIGHUP);
  }
  // A session that has set one of these for itself does not speak for the pool.
  if (session.client == nullptr) publish_pool_settings();
}

void send_all_parameters() {
  int count;
  config_generic **records = all_settings(&count);
  StringInfoData message;

  for (int i = 0; i < count; i++) {
    if ((records[i]->flags & GUC_REPORT) == 0) continue;
    const char *value = GetConfigOption(records[i]->name, true, false);
    pq_beginmessage(&message, 'S');
    pq_sendstring(&message, records[i]->name);
    pq_sendstring(&message, value == nullptr ? "" : value);
    pq_endmessage(&message);
  }
}

}  // namespace sluice::pg
