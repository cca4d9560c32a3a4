// SPDX-License-Identifier: PostgreSQL
//
// What an authenticated client may do: log in as its role, connect to its
// database.

#ifndef SLUICE_PG_AUTH_AUTHORIZATION_HPP
#define SLUICE_PG_AUTH_AUTHORIZATION_HPP

#include "pg/compat.hpp"

extern "C" {
#include "libpq/libpq-be.h"
}

namespace sluice::pg {

struct LoginTarget {
  Oid database;
  Oid role;
  char database_name[NAMEDATALEN];
  char role_name[NAMEDATALEN];
  bool superuser;
  int role_connection_limit;      // -1 = none
  int database_connection_limit;  // -1 = none
};

// Checks port->user_name and port->database_name and fills `target`.  Raises
// ERROR with the message and SQLSTATE a direct connection gives (28000, 3D000,
// 55000, 42501), or 54000 or 55P03 where the catalogs cannot be read from here.
// The connection limits are returned, not enforced: they do not apply to
// superusers, and the caller counts.  `check_role_limits` is called where the
// server counts the role's connections, before it looks for the database: the
// fields that concern the role are filled by then, and it raises ERROR to refuse.
// The limit of the database is checked after everything else, by the caller.
//
// Needs a transaction.  What it allocates in CurrentMemoryContext is a few
// hundred bytes that nobody needs afterwards.
using CheckRoleLimits = void (*)(const LoginTarget &target);
void authorize_login(const Port *port, LoginTarget *target, CheckRoleLimits check_role_limits);

}  // namespace sluice::pg

#endif
