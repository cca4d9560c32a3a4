// SPDX-License-Identifier: PostgreSQL
//
// The checks between "who are you" and the first command, in the order in which
// the server makes them for a connection of its own (InitializeSessionUserId,
// InitPostgres, CheckMyDatabase), so that a client with two problems hears of the
// same one first.
//
// Left out on purpose: the lock that holds off DROP DATABASE, which could block,
// and the look at the database's directory.  The answer is a snapshot either way;
// the pooled backend that attaches to the database takes the lock and looks.

#include "pg/auth/authorization.hpp"

#include "pg/auth/secret_memory.hpp"
#include "pg/auth/shared_catalog.hpp"

extern "C" {
#include "catalog/pg_database.h"
#include "postmaster/postmaster.h"
#include "common/hashfn.h"
#include "utils/inval.h"
#include "utils/syscache.h"
}

namespace sluice::pg {
namespace {

void require_login_role(const char *name, RoleRow *role) {
  if (!read_role(name, role))
    ereport(ERROR, (errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION), errmsg("role \"%s\" does not exist", name)));
  wipe_text(role->secret);  // of no use here
  if (!role->may_log_in)
    ereport(ERROR, (errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
                    errmsg("role \"%s\" is not permitted to log in", role->name)));
  // Trust and peer need no secret, but no backend can start for such a role: the
  // server itself looks the role up before the backend has a database.
  if (role->secret_out_of_reach)
    ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("password of role \"%s\" is too long", role->name),
                    errdetail("The server cannot read the role before it has connected to a database."),
                    errhint("Set a shorter password with ALTER ROLE.")));
}

void require_usable_database(const char *name, DatabaseRow *database) {
  if (!read_database(name, database))
    ereport(ERROR, (errcode(ERRCODE_UNDEFINED_DATABASE), errmsg("database \"%s\" does not exist", name)));
#ifdef DATCONNLIMIT_INVALID_DB
  if (database->connection_limit == DATCONNLIMIT_INVALID_DB)
    ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                    errmsg("cannot connect to invalid database \"%s\"", database->name),
                    errhint("Use DROP DATABASE to drop invalid databases.")));
#endif
  if (!database->allows_connections)
    ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                    errmsg("database \"%s\" is not currently accepting connections", database->name)));
}

void require_connect_privilege(const RoleRow *role, const DatabaseRow *database) {
  if (role->superuser) return;
  if (database->permissions_out_of_reach)
    ereport(ERROR,
            (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
             errmsg("privileges on database \"%s\" cannot be checked on the pooled port", database->name),
             errdetail("Its list of privileges is too long to be read without connecting to a database."),
             errhint("Grant CONNECT to fewer roles, for instance to a group, or connect to port %d.", PostPortNumber)));
  if (!has_connect_privilege(role->oid, database))
    ereport(ERROR,
            (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("permission denied for database \"%s\"", database->name),
             errdetail("User does not have CONNECT privilege.")));
}

// Logins that were allowed.  Looking a login up in the catalogs costs three scans;
// applications log in as the same role a thousand times.  All of it is forgotten
// when anything in pg_authid, pg_database or pg_auth_members changes.
struct AllowedLogin {
  char user[NAMEDATALEN];  // as asked for; empty = no entry
  char database[NAMEDATALEN];
  LoginTarget target;
};
constexpr uint32 kAllowedLogins = 64;
AllowedLogin allowed_logins[kAllowedLogins];
uint64 catalog_changes = 0;  // that this process has heard of

extern "C" {

static void forget_allowed_logins(Datum, int, uint32) {
  catalog_changes++;
  memset(allowed_logins, 0, sizeof(allowed_logins));
}

}  // extern "C"

void watch_catalogs() {
  static bool watching = false;
  if (watching) return;
  watching = true;
  CacheRegisterSyscacheCallback(AUTHOID, forget_allowed_logins, 0);
  CacheRegisterSyscacheCallback(DATABASEOID, forget_allowed_logins, 0);
  CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, forget_allowed_logins, 0);
}

AllowedLogin *place_of(const Port *port) {
  const uint32 hash = string_hash(port->user_name, NAMEDATALEN) ^ (string_hash(port->database_name, NAMEDATALEN) * 31);
  return &allowed_logins[hash % kAllowedLogins];
}

}  // namespace

void authorize_login(const Port *port, LoginTarget *target, CheckRoleLimits check_role_limits) {
  RoleRow role;
  DatabaseRow database;

  watch_catalogs();
  // What was committed while the client typed its password must count.
  AcceptInvalidationMessages();
  AllowedLogin *known = place_of(port);
  if (strcmp(known->user, port->user_name) == 0 && strcmp(known->database, port->database_name) == 0) {
    *target = known->target;
    check_role_limits(*target);
    return;
  }

  // Each lock taken below may bring news about what was read before it.  What was
  // read then decides this login, as on the server's own port, but is not remembered.
  const uint64 changes = catalog_changes;
  require_login_role(port->user_name, &role);
  memset(target, 0, sizeof(*target));
  target->role = role.oid;
  strlcpy(target->role_name, role.name, sizeof(target->role_name));
  target->superuser = role.superuser;
  target->role_connection_limit = role.connection_limit;
  check_role_limits(*target);

  require_usable_database(port->database_name, &database);
  require_connect_privilege(&role, &database);
  target->database = database.oid;
  strlcpy(target->database_name, database.name, sizeof(target->database_name));
  target->database_connection_limit = database.connection_limit;
  if (changes != catalog_changes) return;
  strlcpy(known->user, port->user_name, NAMEDATALEN);
  strlcpy(known->database, port->database_name, NAMEDATALEN);
  known->target = *target;
}

}  // namespace sluice::pg
