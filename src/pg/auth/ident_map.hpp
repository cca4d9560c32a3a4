// SPDX-License-Identifier: PostgreSQL
//
// pg_ident.conf as the dispatcher knows it: which operating-system user may act
// as which role.

#ifndef SLUICE_PG_AUTH_IDENT_MAP_HPP
#define SLUICE_PG_AUTH_IDENT_MAP_HPP

#include "pg/compat.hpp"

namespace sluice::pg {

// Reads pg_ident.conf.  False, with the reasons in the log: the maps read before
// stay in force.  Needs no transaction, and may be called inside one.
bool load_ident_map();

// Whether `system_user` may log in as `role_name` (`role`, or InvalidOid) by the map `map_name`; without
// a map (null or empty) the two must be the same.  Logs why not.  Needs a
// transaction.
bool is_mapped(const char *map_name, const char *role_name, Oid role, const char *system_user);

}  // namespace sluice::pg

#endif
