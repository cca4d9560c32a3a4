// SPDX-License-Identifier: PostgreSQL
//
// log_connections and log_disconnections are fixed when a session starts: the
// server ignores a change of theirs in any process but the postmaster, from which
// new sessions inherit them.  To the server the dispatcher is one session, but it
// sees many begin and end; so it looks these two up in the files itself.

#include "pg/accept/connection_logging.hpp"

extern "C" {
#include "utils/guc.h"
#include "utils/guc_tables.h"
#include "utils/memutils.h"
}

#include "pg/session/setting_records.hpp"

namespace sluice::pg {

static void follow_files(const char *name, const ConfigVariable *lines) {
  config_generic *record = find_setting(name);
  const char *value = nullptr;

  if (record == nullptr || record->source > PGC_S_FILE) return;  // the command line has the say
  for (const ConfigVariable *line = lines; line != nullptr; line = line->next)
    if (!line->ignore && line->errmsg == nullptr && pg_strcasecmp(line->name, name) == 0) value = line->value;
  if (value == nullptr) record->source = record->reset_source = PGC_S_DEFAULT;
  // A bad value has been reported by the postmaster, and changes nothing.
  (void)set_config_option(name, value, PGC_SU_BACKEND, value != nullptr ? PGC_S_FILE : PGC_S_DEFAULT, GUC_ACTION_SET,
                          true, 0, false);
}

void reread_connection_logging() {
  ConfigVariable *first = nullptr;
  ConfigVariable *last = nullptr;
  MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "sluice configuration", ALLOCSET_SMALL_SIZES);
  MemoryContext caller_context = MemoryContextSwitchTo(context);

  if (ParseConfigFile(ConfigFileName, true, nullptr, 0, 0, DEBUG3, &first, &last) &&
      ParseConfigFile(PG_AUTOCONF_FILENAME, false, nullptr, 0, 0, DEBUG3, &first, &last)) {
    follow_files("log_connections", first);
    follow_files("log_disconnections", first);
  }
  MemoryContextSwitchTo(caller_context);
  MemoryContextDelete(context);
}

}  // namespace sluice::pg
