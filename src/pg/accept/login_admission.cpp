// SPDX-License-Identifier: PostgreSQL
//
// The last questions to a client that has proved who it is.
//
// They are asked in the server's order, so that whoever is refused for two reasons
// hears the one a direct connection gives: the role, its limits, the database, its
// limits, and only then what is ours: the pool, the settings, shared memory.
// Whatever a login has stored goes with its client's slot, so nothing has to be
// taken back from one that is refused; one that waits for a pool has stored nothing.

#include "pg/compat.hpp"

#include "pg/accept/login_admission.hpp"

extern "C" {
#include "postmaster/postmaster.h"
}

#include "pg/accept/cancel.hpp"
#include "pg/accept/client_limits.hpp"
#include "pg/accept/login_startup.hpp"
#include "pg/auth/authorization.hpp"
#include "pg/pool/pool_keeper.hpp"
#include "pg/session/client_store.hpp"
#include "pg/shared_memory.hpp"

namespace sluice::pg {

static void check_role_limits(const LoginTarget &target) {
  if (target.superuser) return;
  if (target.role_connection_limit >= 0 && count_clients_of_role(target.role) >= target.role_connection_limit)
    ereport(ERROR, (errcode(ERRCODE_TOO_MANY_CONNECTIONS),
                    errmsg("too many connections for role \"%s\"", target.role_name)));
  require_unreserved_slot(target);
}

static void check_database_limits(const LoginTarget &target) {
  if (target.superuser) return;
  if (target.database_connection_limit >= 0 &&
      count_clients_of_database(target.database) >= target.database_connection_limit)
    ereport(ERROR, (errcode(ERRCODE_TOO_MANY_CONNECTIONS),
                    errmsg("too many connections for database \"%s\"", target.database_name)));
  check_clients_per_role_and_database(target);
}

void log_authorized(Login *login) {
  if (!Log_connections) return;
  Port *port = &login->port;
  StringInfoData message;
  initStringInfo(&message);
  appendStringInfo(&message, _("connection authorized: user=%s"), port->user_name);
  appendStringInfo(&message, _(" database=%s"), port->database_name);
  if (port->application_name != nullptr) appendStringInfo(&message, _(" application_name=%s"), port->application_name);
#ifdef USE_SSL
  if (port->ssl_in_use)
    appendStringInfo(&message, _(" SSL enabled (protocol=%s, cipher=%s, bits=%d)"), be_tls_get_version(port),
                     be_tls_get_cipher(port), be_tls_get_cipher_bits(port));
#endif
  ereport(LOG, (errmsg_internal("%s", message.data)));
  pfree(message.data);
}

// Random numbers are drawn for many clients at once.
static std::uint32_t draw_cancel_key() {
  static std::uint32_t keys[64];
  static std::size_t left = 0;
  if (left == 0) {
    if (!pg_strong_random(keys, sizeof(keys)))
      ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate random cancel key")));
    left = lengthof(keys);
  }
  const std::uint32_t key = keys[--left];
  keys[left] = 0;
  return key;
}

// Everything that can be refused.  Runs in a transaction, in the login's context;
// fills the slot and returns the pool; kNoIndex if it has to be asked again soon.
std::uint32_t admit(Login *login) {
  LoginTarget target;
  StringInfoData settings;
  ClientSlot &slot = shared().clients[login->client.slot];

  authorize_login(&login->port, &target, check_role_limits);
  check_database_limits(target);
  const std::uint32_t pool =
      find_or_create_pool(target.database, target.role, target.database_name, target.role_name);
  if (pool == kNoIndex && pool_slot_is_coming()) return kNoIndex;  // nothing has been stored yet
  if (pool == kNoIndex)
    ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
                    errmsg("too many pools: database \"%s\" and role \"%s\" would need another one",
                           target.database_name, target.role_name),
                    errhint("You may need to increase \"%s\".", "sluice.max_pools")));
  initStringInfo(&settings);
  collect_startup_settings(login, &settings);
  if (settings.len > 0 &&
      store_startup_settings(&slot, settings.data, static_cast<std::uint32_t>(settings.len)) == 0)
    ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of shared memory"),
                    errdetail("The start-up settings of the client could not be stored.")));
  if (login->port.application_name != nullptr)
    strlcpy(slot.application_name, login->port.application_name, kNameLength);

  if (login->tls != nullptr) {
    fill_tls_facts(&login->port, &shared().tls[login->client.slot]);
    slot.flags.fetch_or(kClientTls | (tls_is_in_kernel(login->tls) ? kClientKernelTls : 0));
  }
  slot.cancel_key.store(draw_cancel_key());
  slot.cancel_pid.store(client_cancel_number(login->client));

  pool_learns_superuser(pool, target.superuser);
  pool_learns_changed_settings(pool);
  return pool;
}

}  // namespace sluice::pg
