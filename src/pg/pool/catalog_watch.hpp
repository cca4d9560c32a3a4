// SPDX-License-Identifier: PostgreSQL
//
// Roles and databases that are dropped or renamed, as far as the pools of the
// dispatcher are concerned.

#ifndef SLUICE_PG_POOL_CATALOG_WATCH_HPP
#define SLUICE_PG_POOL_CATALOG_WATCH_HPP

#include "pg/compat.hpp"

namespace sluice::pg {

// By the dispatcher, every now and then: gives the pools the names that their
// databases and roles have now, and notes in PoolBook::gone which of them do not
// exist any more.  Looks only if something has changed; never waits for a lock.
void follow_catalogs();

}  // namespace sluice::pg

#endif
