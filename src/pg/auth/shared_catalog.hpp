// SPDX-License-Identifier: PostgreSQL
//
// Single rows of pg_authid and pg_database, read by a process that is attached
// to no database.
//
// Why not the system caches, as the server does when it authenticates
//   A cache copies whole rows, and to copy a value that was moved out of line it
//   opens the TOAST table, which needs pg_class, which needs a database: the
//   process ends with FATAL.  In a connection of its own that is that client's
//   loss.  In the dispatcher it would be everybody's, and any role can arrange it
//   by giving itself a very long password.  So rows are read here straight from
//   the table, and a value that cannot be had is reported as such.
//   A cache also remembers each name that does not exist.  A process that lives
//   for months would remember every name an attacker has ever tried.
//
// The price is a scan of the table for each look-up: the indexes of shared
// catalogs are usable only if some process had written the shared relation cache
// file before this one started, which after a restart of the server is hardly
// ever so.  A scan costs about 25 us for each thousand roles.
//
// All functions need a transaction and allocate what they return in
// CurrentMemoryContext.  They raise ERROR; 55P03 at once where they would have to
// wait for a lock.  The locks last until the transaction ends.

#ifndef SLUICE_PG_AUTH_SHARED_CATALOG_HPP
#define SLUICE_PG_AUTH_SHARED_CATALOG_HPP

#include "pg/compat.hpp"

extern "C" {
#include "datatype/timestamp.h"
#include "utils/acl.h"
}

namespace sluice::pg {

struct RoleRow {
  Oid oid;
  char name[NAMEDATALEN];
  bool superuser;
  bool may_log_in;
  int connection_limit;  // -1 = none
  char *secret;          // as stored in pg_authid.rolpassword; null if there is none or it is out of reach
  bool secret_out_of_reach;
  bool expires;
  TimestampTz valid_until;  // meaningful if `expires`
};

struct DatabaseRow {
  Oid oid;
  char name[NAMEDATALEN];
  Oid owner;
  bool allows_connections;
  int connection_limit;  // -1 = none; may be the server's mark for an invalid database
  Acl *permissions;      // never null unless out of reach
  bool permissions_out_of_reach;
};

// False if there is no such role or database.
bool read_role(const char *name, RoleRow *row);
bool read_database(const char *name, DatabaseRow *row);

// Calls `visit` for each role or database.
using CatalogVisit = void (*)(Oid oid, const char *name, void *argument);
void visit_roles(CatalogVisit visit, void *argument);
void visit_databases(CatalogVisit visit, void *argument);

// Whether `role` (InvalidOid: nobody) is, directly or indirectly, a member of the
// role `group_name`.  A superuser is a member only of what was granted to it.
bool is_member_of(Oid role, const char *group_name);

// Whether `role` may connect: its own privilege, the public's, or one it
// inherits.  Not for superusers, who always may, nor for permissions that are
// out of reach.  Raises ERROR 54000 where inheritance cannot be followed.
bool has_connect_privilege(Oid role, const DatabaseRow *database);

}  // namespace sluice::pg

#endif
