// SPDX-License-Identifier: PostgreSQL
//
// A pool is known by the OIDs of its database and its role.  What becomes of these
// the server tells every process through its invalidation messages, also on a
// standby.  The message says only that something in the catalog is not what it
// was, so both catalogs are read, once for all pools, not more often than the
// dispatcher asks, and not at all while nothing changes.
//
//   A pool is made for a database that is dropped at that moment.  Whoever makes it
//   has read the catalog, and messages that come later lead to another look.

#include "pg/compat.hpp"

#include "pg/pool/catalog_watch.hpp"

#include "core/accept/log_throttle.hpp"

extern "C" {
#include "access/xact.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
}

#include <cstdlib>

#include "pg/accept/dispatcher.hpp"
#include "pg/auth/shared_catalog.hpp"
#include "pg/pool/keeper_books.hpp"
#include "pg/shared_memory.hpp"

namespace sluice::pg {

static bool catalogs_changed = true;

// The pools in the order of one of their OIDs.
struct PoolOfObject {
  Oid oid;
  std::uint32_t pool;
};

struct Wanted {
  PoolOfObject *pools;
  std::size_t count;
  bool of_roles;
  bool *found;  // [max_pools]
};

extern "C" {

static void note_change(Datum, int, uint32) { catalogs_changed = true; }

static int compare_oids(const void *left, const void *right) {
  const Oid a = static_cast<const PoolOfObject *>(left)->oid, b = static_cast<const PoolOfObject *>(right)->oid;
  return a < b ? -1 : a > b ? 1 : 0;
}

}  // extern "C"

static Wanted list_pools(bool of_roles) {
  const SharedState &state = shared();
  const std::uint32_t max_pools = state.header->max_pools;
  Wanted wanted{static_cast<PoolOfObject *>(palloc(sizeof(PoolOfObject) * max_pools)), 0, of_roles,
                static_cast<bool *>(palloc0(sizeof(bool) * max_pools))};
  for (std::uint32_t i = 0; i < max_pools; i++)
    if (is_open(state.pools[i]))
      wanted.pools[wanted.count++] =
          PoolOfObject{of_roles ? state.pools[i].role_oid : state.pools[i].database_oid, i};
  qsort(wanted.pools, wanted.count, sizeof(PoolOfObject), compare_oids);
  return wanted;
}

// Readers may see a name that is half the old and half the new one, for a moment.
static void visit(Oid oid, const char *name, void *argument) {
  const auto *wanted = static_cast<const Wanted *>(argument);
  const PoolOfObject key{oid, 0};
  const auto *first =
      static_cast<const PoolOfObject *>(bsearch(&key, wanted->pools, wanted->count, sizeof(key), compare_oids));
  if (first == nullptr) return;
  while (first > wanted->pools && first[-1].oid == oid) first--;
  for (; first < wanted->pools + wanted->count && first->oid == oid; first++) {
    PoolSlot &pool = shared().pools[first->pool];
    char *known = wanted->of_roles ? pool.role : pool.database;
    wanted->found[first->pool] = true;
    if (strcmp(known, name) != 0) strlcpy(known, name, kNameLength);
  }
}

static void look_at_catalogs() {
  Wanted roles = list_pools(true);
  Wanted databases = list_pools(false);
  visit_roles(visit, &roles);
  visit_databases(visit, &databases);
  for (std::uint32_t i = 0; i < shared().header->max_pools; i++)
    pool_books[i].gone = is_open(shared().pools[i]) && !(roles.found[i] && databases.found[i]);
}

static void watch_catalogs() {
  static bool watching = false;
  if (watching) return;
  watching = true;
  CacheRegisterSyscacheCallback(AUTHOID, note_change, 0);
  CacheRegisterSyscacheCallback(DATABASEOID, note_change, 0);
}

// Reads the messages, too.
static void follow_in_transaction() {
  watch_catalogs();
  StartTransactionCommand();
  XactIsoLevel = XACT_READ_COMMITTED;
  if (catalogs_changed) {
    catalogs_changed = false;
    look_at_catalogs();
  }
  CommitTransactionCommand();
}

static void report_failed_look(const ErrorData *error) {
  static LogThrottle log{60 * 1000000};
  if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE || !log.note(monotonic_us()).log) return;
  ereport(LOG, (errcode(error->sqlerrcode), errmsg("could not look for dropped or renamed roles and databases: %s",
                                                   error->message)));
}

void follow_catalogs() {
  MemoryContext caller = CurrentMemoryContext;

  PG_TRY();
  {
    follow_in_transaction();
  }
  PG_CATCH();
  {
    // Mostly that somebody has a catalog locked: another time.
    MemoryContextSwitchTo(caller);
    ErrorData *error = CopyErrorData();
    FlushErrorState();
    AbortCurrentTransaction();
    report_failed_look(error);
    FreeErrorData(error);
    catalogs_changed = true;
  }
  PG_END_TRY();
  MemoryContextSwitchTo(caller);
}

}  // namespace sluice::pg
