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
#include "access/xlog.h"
#include "common/hashfn.h"
#include "libpq/pqformat.h"
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"
#include "utils/memutils.h"
}

#include "pg/pool/quick_greeting.hpp"
#include "pg/session/client_store.hpp"
#include "pg/session/client_stream.hpp"
#include "pg/session/session.hpp"
#include "pg/session/session_settings.hpp"
#include "pg/session/setting_records.hpp"
#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"

namespace sluice::pg {

// A setting as it was before the client's start-up settings.  Found again by name:
// a library that is loaded meanwhile replaces the records of its settings.
struct SavedSetting {
  SavedSetting *next;
  char *name;
  bool made_up;  // by the client: nobody knew it before
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
static bool named_by_client = false;  // application_name is the one the last client brought
static config_generic *application_name_record = nullptr;
static GucSource base_name_source, base_name_reset_source;
static char base_application_name[NAMEDATALEN];
static int base_setting_count = 0;
static List *base_prefixes = NIL;  // "auto_explain.", of libraries that every session has
static std::uint64_t base_parameters = 0;  // see reported_base_parameters()
static bool base_is_outdated = false;
static bool base_is_standby = false;  // so in_hot_standby says

// Those that somebody has defined; not what clients have made up.
static int count_settings() {
  int count, defined = 0;
  config_generic **records = all_settings(&count);
  for (int i = 0; i < count; i++)
    if ((records[i]->flags & GUC_CUSTOM_PLACEHOLDER) == 0 && !is_hidden(records[i])) defined++;
  return defined;
}

bool settings_were_added() { return count_settings() != base_setting_count; }

// "a." of "a.b"; 0 for a setting of the server.
static std::size_t prefix_length(const char *name) {
  const char *dot = strchr(name, '.');
  return dot == nullptr ? 0 : static_cast<std::size_t>(dot - name) + 1;
}

static bool is_base_prefix(const char *name, std::size_t length) {
  ListCell *cell;
  foreach (cell, base_prefixes)
    if (pg_strncasecmp(static_cast<const char *>(lfirst(cell)), name, length) == 0) return true;
  return false;
}

static void note_base_prefixes() {
  int count;
  config_generic **records = all_settings(&count);
  MemoryContext caller = MemoryContextSwitchTo(TopMemoryContext);

  for (int i = 0; i < count; i++) {
    const std::size_t length = prefix_length(records[i]->name);
    if (length == 0 || (records[i]->flags & GUC_CUSTOM_PLACEHOLDER) != 0 || is_base_prefix(records[i]->name, length))
      continue;
    base_prefixes = lappend(base_prefixes, pnstrdup(records[i]->name, length));
  }
  MemoryContextSwitchTo(caller);
}

// Claimed by a library that has come to this backend, but does not come to every session.
static bool is_claimed_here(const char *name) {
  int count;
  const std::size_t length = prefix_length(name);

  if (length == 0 || is_base_prefix(name, length)) return false;
  config_generic **records = all_settings(&count);
  for (int i = 0; i < count; i++)
    if ((records[i]->flags & GUC_CUSTOM_PLACEHOLDER) == 0 && !is_hidden(records[i]) &&
        pg_strncasecmp(records[i]->name, name, length) == 0)
      return true;
  return false;
}

static void note_base_parameters() {
  int count;
  config_generic **records = all_settings(&count);
  StringInfoData values;

  initStringInfo(&values);
  for (int i = 0; i < count; i++) {
    if ((records[i]->flags & GUC_REPORT) == 0 || records[i] == application_name_record) continue;
    append_setting_value(&values, records[i]);
    appendStringInfoChar(&values, '\0');
    if (strcmp(records[i]->name, "in_hot_standby") == 0)
      base_is_standby = *reinterpret_cast<const config_bool *>(records[i])->variable;
  }
  base_parameters = hash_bytes_extended(reinterpret_cast<const unsigned char *>(values.data), values.len, 3);
  base_is_outdated = false;
  pfree(values.data);
}

std::uint64_t reported_base_parameters() { return base_parameters; }

void remember_baseline_settings() {
  application_name_record = find_setting("application_name");
  base_name_source = application_name_record->source;
  base_name_reset_source = application_name_record->reset_source;
  strlcpy(base_application_name, application_name, NAMEDATALEN);
  base_setting_count = count_settings();
  note_base_prefixes();
  note_base_parameters();
}

static void save_setting(config_generic *record, bool made_up) {
  if (record->context <= PGC_SIGHUP) return;  // not for clients to set: it will stay as it is
  const char *value = GetConfigOption(record->name, true, false);
  const std::size_t length = value == nullptr ? 0 : strlen(value);
  auto *saved = static_cast<SavedSetting *>(
      MemoryContextAlloc(TopMemoryContext, offsetof(SavedSetting, value) + length + 1));
  saved->name = MemoryContextStrdup(TopMemoryContext, record->name);
  saved->made_up = made_up;
  saved->source = record->source;
  saved->reset_source = record->reset_source;
  saved->scontext = record->scontext;
  saved->reset_scontext = record->reset_scontext;
  saved->srole = record->srole;
  saved->reset_srole = record->reset_srole;
  saved->sourcefile =
      record->sourcefile == nullptr ? nullptr : MemoryContextStrdup(TopMemoryContext, record->sourcefile);
  saved->sourceline = record->sourceline;
  saved->has_value = value != nullptr;
  memcpy(saved->value, value == nullptr ? "" : value, length + 1);
  saved->next = saved_settings;
  saved_settings = saved;
}

// A name the client has made up is forgotten with its value.  Unless a library has come and knows the name.
static void forget_made_up(config_generic *record) {
  const bool known_now = (record->flags & GUC_CUSTOM_PLACEHOLDER) == 0;
  record->source = record->reset_source = PGC_S_DEFAULT;
  (void)set_config_option(record->name, known_now ? nullptr : "", PGC_SU_BACKEND, PGC_S_DEFAULT, GUC_ACTION_SET, true,
                          ERROR, false);
  if (!known_now) hide_setting(record);
}

static void restore_setting(const SavedSetting *saved) {
  config_generic *record = find_setting(saved->name);
  if (record == nullptr) return;
  if (saved->made_up) {
    forget_made_up(record);
    return;
  }
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
  const bool was_muted = mute_stream(true);
  ReportChangedGUCOptions();
  mute_stream(was_muted);
}

static void restore_all() {
  while (saved_settings != nullptr) {
    SavedSetting *saved = saved_settings;
    restore_setting(saved);
    saved_settings = saved->next;
    if (saved->sourcefile != nullptr) pfree(saved->sourcefile);
    pfree(saved->name);
    pfree(saved);
  }
  applied_hash = 0;
}

// A name unknown to the server may be one that the client makes up ("app.tenant").
static void apply_setting(const char *name, const char *value, GucContext context) {
  config_generic *record = find_setting(name);
  const bool made_up = record == nullptr;
  if (made_up) {
    (void)unhide_setting(name);
    SetConfigOption(name, "", context, PGC_S_DEFAULT);  // which overlooks what is wrong with the name
    record = find_setting(name);
  }
  if (record != nullptr) save_setting(record, made_up);
  // A direct connection takes the name as made up; that it will not do is a warning when the library comes.
  const int elevel = is_claimed_here(name) ? DEBUG5 : ERROR;
  (void)set_config_option(name, value, context, PGC_S_CLIENT, GUC_ACTION_SET, true, elevel, false);
}

// Below one that was SET and is common to both clients, it is the name RESET returns to.
static void apply_application_name(const char *name) {
  if (application_name_record->source == PGC_S_SESSION || strcmp(application_name, name) != 0)
    SetConfigOption("application_name", name, PGC_USERSET, PGC_S_CLIENT);
}

static void apply_base_application_name() {
  apply_application_name(base_application_name);
  application_name_record->source = base_name_source;
  application_name_record->reset_source = base_name_reset_source;
  named_by_client = false;
}

static void change_startup_settings(const StartupSettings *settings) {
  // They lie below those of the session.
  withdraw_session_settings();
  // Checks of some settings look into catalogs.
  StartTransactionCommand();
  restore_all();
  apply_base_application_name();  // "options" may hold another
  if (settings != nullptr) {
    const GucContext context = superuser_arg(GetAuthenticatedUserId()) ? PGC_SU_BACKEND : PGC_BACKEND;
    const char *next = settings->bytes;
    const char *end = settings->bytes + settings->length;
    while (next < end) {
      const char *name = next;
      const char *value = name + strlen(name) + 1;
      next = value + strlen(value) + 1;
      apply_setting(name, value, context);
    }
    applied_hash = settings->hash;
  }
  CommitTransactionCommand();
}

static void apply_startup_settings(const ClientSlot *client) {
  const StartupSettings *settings = startup_settings(client);
  const std::uint64_t wanted = settings == nullptr ? 0 : settings->hash;
  const bool has_name = client->application_name[0] != '\0';

  // Without a name of its own the client has that of its "options", or none: never that of the last client.
  if (wanted != applied_hash || (settings == nullptr && saved_settings != nullptr) || (named_by_client && !has_name))
    change_startup_settings(settings);
  if (has_name) {
    apply_application_name(client->application_name);
    named_by_client = true;
  }
}

// A reload, or a promotion, reaches a client while it is served, and those who are away when they come back.
static void report_what_was_missed(ClientSlot *client) {
  if (client->told_parameters == base_parameters) return;
  client->told_parameters = base_parameters;
  if ((client->flags.load(std::memory_order_relaxed) & kClientGreeted) != 0) send_all_parameters();
}

void apply_client_settings(ClientSlot *client) {
  base_is_outdated = base_is_outdated || (base_is_standby && !RecoveryInProgress());
  if (base_is_outdated) withdraw_client_settings();
  withdraw_other_session_settings(client);
  apply_startup_settings(client);
  establish_session_settings(client);
  report_to_nobody();
  report_what_was_missed(client);
}

void withdraw_client_settings() {
  withdraw_session_settings();
  if (saved_settings != nullptr) change_startup_settings(nullptr);
  apply_base_application_name();
  report_to_nobody();
  if (!base_is_outdated) return;
  note_base_parameters();
  publish_greeting();
}

// Which settings of the pool come from the role or the database: the dispatcher,
// which follows a reload even while all backends are busy, cannot see those.
static std::uint32_t find_own_settings() {
  static const struct {
    const char *name;
    std::uint32_t bit;
  } kPoolSettings[] = {
      {"sluice.pool_mode", kOwnMode},
      {"sluice.min_pool_size", kOwnMinSize},
      {"sluice.max_pool_size", kOwnMaxSize},
      {"sluice.acquire_timeout", kOwnAcquireTimeout},
      {"sluice.idle_timeout", kOwnIdleTimeout},
      {"sluice.max_lifetime", kOwnMaxLifetime},
      {"sluice.leak_threshold", kOwnLeakThreshold},
  };
  std::uint32_t own = 0;
  for (const auto &setting : kPoolSettings) {
    const config_generic *record = find_setting(setting.name);
    if (record != nullptr && record->source >= PGC_S_DATABASE && record->source <= PGC_S_DATABASE_USER)
      own |= setting.bit;
  }
  return own;
}

void publish_pool_settings() {
  PoolSlot *pool = session.pool;
  pool->own_settings.store(find_own_settings());
  pool->mode.store(setting_pool_mode);
  pool->min_size.store(setting_min_pool_size);
  pool->configured_max_size.store(setting_max_pool_size);
  pool->max_size.store(setting_max_pool_size > 0 ? setting_max_pool_size
                                                 : Max(shared().header->machine.rule_size.load(), 1));
  pool->acquire_timeout_ms.store(setting_acquire_timeout);
  pool->idle_timeout_ms.store(setting_idle_timeout);
  pool->max_lifetime_ms.store(setting_max_lifetime);
  pool->leak_threshold_ms.store(setting_leak_threshold);
  pool->idle_session_timeout_ms.store(IdleSessionTimeout);
  pool->idle_transaction_timeout_ms.store(IdleInTransactionSessionTimeout);
}

void reload_configuration() {
  if (session.client == nullptr) {
    // A session that has set something for itself does not speak for the pool.
    withdraw_client_settings();
    ProcessConfigFile(PGC_SIGHUP);
    report_to_nobody();
    note_base_parameters();
    publish_pool_settings();
    publish_greeting();
  } else if (saved_settings != nullptr && !IsTransactionState() && store_session_settings()) {
    change_startup_settings(nullptr);
    base_is_outdated = true;
    ProcessConfigFile(PGC_SIGHUP);
    apply_startup_settings(session.client);
    establish_session_settings(session.client);
  } else {
    base_is_outdated = true;
    ProcessConfigFile(PGC_SIGHUP);
  }
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
