// SPDX-License-Identifier: PostgreSQL
//
// DROP DATABASE and the other statements that want a database for themselves: the
// pools of that database make way for them as its sessions would.

#ifndef SLUICE_PG_POOL_DATABASE_DRAIN_HPP
#define SLUICE_PG_POOL_DATABASE_DRAIN_HPP

#include "pg/compat.hpp"

namespace sluice::pg {

// At the start of the server: every process watches its statements.
void install_database_drain();

}  // namespace sluice::pg

#endif
