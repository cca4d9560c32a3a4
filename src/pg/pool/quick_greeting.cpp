// SPDX-License-Identifier: PostgreSQL
//
// What is published is only good for new clients as long as role and database have
// the settings the backend that published it has started with: it carries that
// backend's number of PoolSlot::role_setting_changes.
//
// The published text is guarded by a version that is odd while it is written
// (a sequence lock): any backend of the pool may write, one at a time; the
// dispatcher copies and looks whether the version has stayed.

#include "pg/compat.hpp"

#include "pg/pool/quick_greeting.hpp"

extern "C" {
#include "access/xlog.h"
#include "port/pg_bswap.h"
#include "utils/guc.h"
}

#include "pg/session/client_settings.hpp"
#include "pg/session/session.hpp"
#include "pg/shared_memory.hpp"

namespace sluice::pg {

static void append_message(StringInfo output, char type, const char *body, int length) {
  const uint32 length_word = pg_hton32(static_cast<uint32>(length + 4));
  appendStringInfoChar(output, type);
  appendBinaryStringInfo(output, reinterpret_cast<const char *>(&length_word), 4);
  appendBinaryStringInfo(output, body, length);
}

static void append_parameter(StringInfo output, const char *name, const char *value) {
  const int name_length = static_cast<int>(strlen(name)) + 1;
  const int value_length = static_cast<int>(strlen(value)) + 1;
  const uint32 length_word = pg_hton32(static_cast<uint32>(name_length + value_length + 4));
  appendStringInfoChar(output, 'S');
  appendBinaryStringInfo(output, reinterpret_cast<const char *>(&length_word), 4);
  appendBinaryStringInfo(output, name, name_length);
  appendBinaryStringInfo(output, value, value_length);
}

void publish_greeting() {
  PoolGreeting &greeting = session.pool->greeting;
  const std::uint64_t changes = session.backend->role_setting_changes.load();
  if (changes != session.pool->role_setting_changes.load()) return;  // nobody would be told
  int count;
  config_generic **records = all_settings(&count);
  StringInfoData text;

  initStringInfo(&text);
  for (int i = 0; i < count; i++) {
    if ((records[i]->flags & GUC_REPORT) == 0 || strcmp(records[i]->name, "application_name") == 0) continue;
    const char *value = GetConfigOption(records[i]->name, true, false);
    append_parameter(&text, records[i]->name, value == nullptr ? "" : value);
  }
  std::uint32_t version = greeting.version.load();
  // in_hot_standby will not stay what it is during recovery.
  const bool fits = text.len <= static_cast<int>(sizeof(greeting.text)) && !RecoveryInProgress();
  // Another backend is writing the same.
  if ((version & 1) != 0 || !greeting.version.compare_exchange_strong(version, version + 1)) {
    pfree(text.data);
    return;
  }
  greeting.length.store(fits ? static_cast<std::uint32_t>(text.len) : 0);
  if (fits) memcpy(greeting.text, text.data, static_cast<std::size_t>(text.len));
  greeting.role_setting_changes = changes;
  greeting.parameters = reported_base_parameters();
  strlcpy(greeting.application_name, application_name, sizeof(greeting.application_name));
  greeting.version.store(version + 2);
  pfree(text.data);
}

// Copies the published text behind what is in `output`.
static bool copy_text(PoolSlot &pool, StringInfo output, char *application_name_of_pool, std::uint64_t *parameters) {
  PoolGreeting &greeting = pool.greeting;
  const int start = output->len;
  const std::uint32_t version = greeting.version.load();
  const std::uint32_t length = greeting.length.load();

  if ((version & 1) != 0 || length == 0 || length > sizeof(greeting.text)) return false;
  appendBinaryStringInfo(output, greeting.text, static_cast<int>(length));
  memcpy(application_name_of_pool, greeting.application_name, kNameLength);
  *parameters = greeting.parameters;
  const bool current = greeting.role_setting_changes == pool.role_setting_changes.load();
  std::atomic_thread_fence(std::memory_order_acquire);
  if (current && greeting.version.load() == version) return true;
  output->len = start;
  output->data[start] = '\0';
  return false;
}

bool append_greeting(std::uint32_t pool_index, ClientRef client, StringInfo output) {
  PoolSlot &pool = shared().pools[pool_index];
  ClientSlot &slot = shared().clients[client.slot];
  char pool_name[kNameLength];
  uint32 key[2];

  // in_hot_standby changes by itself; a session-mode client is told its backend's
  // process id; a pool without backends may turn out to be unable to have any.
  if (slot.startup_settings != 0 || pool.backends.load() - pool.starting.load() <= 0 || RecoveryInProgress() ||
      pool.mode.load() == static_cast<std::int32_t>(PoolMode::session))
    return false;
  if (!copy_text(pool, output, pool_name, &slot.told_parameters)) return false;
  append_parameter(output, "application_name", slot.application_name[0] != '\0' ? slot.application_name : pool_name);
  key[0] = pg_hton32(slot.cancel_pid.load());
  key[1] = pg_hton32(slot.cancel_key.load());
  append_message(output, 'K', reinterpret_cast<const char *>(key), sizeof(key));
  append_message(output, 'Z', "I", 1);
  slot.flags.fetch_or(kClientGreeted | kClientUncounted);
  return true;
}

}  // namespace sluice::pg
