// SPDX-License-Identifier: PostgreSQL
//
// What the server calls when it loads the library.

#include "pg/compat.hpp"

extern "C" {
#include "postmaster/bgworker.h"

PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);
}

#include <cstdio>

#include "core/auth/name_lookup.hpp"
#include "pg/accept/dispatcher.hpp"
#include "pg/accept/tls_context.hpp"
#include "pg/pool/database_drain.hpp"
#include "pg/pool/role_settings.hpp"
#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"
#include "pg/tuning/statistician.hpp"

extern "C" void _PG_init(void) {
  using namespace sluice::pg;

  // Loaded by a session that calls one of the SQL functions: nothing to set up,
  // and the functions say what is missing.
  if (!process_shared_preload_libraries_in_progress) return;

  define_settings();

  // The user sets one number, not two.  MaxBackends is computed after the
  // preloaded libraries, so the server makes room for these workers.
  max_worker_processes += setting_max_backends + setting_nested_reserve + 2 + static_cast<int>(sluice::kResolvers);

  request_shared_memory();
  install_role_settings_watch();
  install_database_drain();
  keep_server_tls_context();
  register_dispatcher();
  register_statistician();
}
