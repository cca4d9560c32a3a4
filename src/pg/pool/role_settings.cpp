// SPDX-License-Identifier: PostgreSQL
//
// ALTER ROLE ... SET and ALTER DATABASE ... SET hold for sessions that start after
// they have been committed.  A pooled backend has read them when it started, so
// with such a change it is outdated, and a client that connects afterwards must
// not be served by it.
//
// The catalog says nothing when it is changed, so the change is noticed where it
// is made: in any process of the server, pooled or not.  The object access hook
// names database and role, and at commit the pools concerned count one change.
// The dispatcher compares that number with the one each backend was started
// under, before it admits a client (pool_learns_changed_settings), and tells
// outdated backends to leave; those take nobody new.
//
//   Who has been told of the commit connects.  The number has grown before the
//   answer to COMMIT is sent, so the dispatcher sees it.
//   A backend starts meanwhile.  The dispatcher notes the number before it asks
//   for the process, so what the process reads is never older than its number.
//   A pool is made meanwhile.  If the committing process does not find it, then it
//   is opened later, and its backends read the catalog later still.
//
// Not noticed: what is replayed on a standby, or written into the catalog by other
// means than ALTER.

#include "pg/compat.hpp"

#include "pg/pool/role_settings.hpp"

extern "C" {
#include "access/xact.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_db_role_setting.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
}

#include "pg/shared_memory.hpp"

namespace sluice::pg {

static object_access_hook_type previous_object_access_hook = nullptr;
static ProcessUtility_hook_type previous_utility_hook = nullptr;

// What the transaction under way has changed.  InvalidOid: of all databases, or of
// all roles.  Part of it may be rolled back; then a few backends leave for nothing.
struct ChangedSetting {
  Oid database;
  Oid role;
};
constexpr int kMostChanges = 8;
static ChangedSetting changes[kMostChanges];
static int change_count = 0;

static void note_change(Oid database, Oid role) {
  for (int i = 0; i < change_count; i++)
    if (changes[i].database == database && changes[i].role == role) return;
  if (change_count < kMostChanges)
    changes[change_count++] = ChangedSetting{database, role};
  else
    changes[0] = ChangedSetting{InvalidOid, InvalidOid};  // too many to tell apart: everyone is concerned
}

static void count_change(const ChangedSetting &change) {
  SharedState &state = shared();
  for (std::uint32_t i = 0; i < state.header->max_pools; i++) {
    PoolSlot &pool = state.pools[i];
    if (is_open(pool) &&
        (!OidIsValid(change.database) || change.database == pool.database_oid) &&
        (!OidIsValid(change.role) || change.role == pool.role_oid))
      pool.role_setting_changes.fetch_add(1);
  }
}

extern "C" {

static void watch_object_access(ObjectAccessType access, Oid class_oid, Oid object, int sub_object, void *argument) {
  if (previous_object_access_hook != nullptr)
    previous_object_access_hook(access, class_oid, object, sub_object, argument);
  // The object is the database; the role is the auxiliary one.
  if (access == OAT_POST_ALTER && class_oid == DbRoleSettingRelationId)
    note_change(object, static_cast<ObjectAccessPostAlter *>(argument)->auxiliary_id);
}

// At XACT_EVENT_COMMIT others see the transaction's changes already.
static void watch_transaction(XactEvent event, void *) {
  if (change_count == 0) return;
  switch (event) {
    case XACT_EVENT_COMMIT:
      if (shared_memory_exists())
        for (int i = 0; i < change_count; i++) count_change(changes[i]);
      change_count = 0;
      break;
    case XACT_EVENT_PRE_PREPARE:
      // Before anyone can commit it.
      if (shared_memory_exists()) shared().header->role_settings_prepared.store(1);
      break;
    case XACT_EVENT_PREPARE:
    case XACT_EVENT_ABORT:
      change_count = 0;
      break;
    default:
      break;
  }
}

// What a prepared transaction has changed is not kept with it: all pools are
// concerned, if there ever was one that has changed a setting.
static void watch_utility(PlannedStmt *statement, const char *query, bool read_only_tree,
                          ProcessUtilityContext context, ParamListInfo parameters, QueryEnvironment *environment,
                          DestReceiver *destination, QueryCompletion *completion) {
  const bool commits_prepared =
      IsA(statement->utilityStmt, TransactionStmt) &&
      reinterpret_cast<TransactionStmt *>(statement->utilityStmt)->kind == TRANS_STMT_COMMIT_PREPARED;

  (previous_utility_hook != nullptr ? previous_utility_hook : standard_ProcessUtility)(
      statement, query, read_only_tree, context, parameters, environment, destination, completion);
  if (commits_prepared && shared_memory_exists() && shared().header->role_settings_prepared.load() != 0)
    count_change(ChangedSetting{InvalidOid, InvalidOid});
}

}  // extern "C"

void install_role_settings_watch() {
  previous_object_access_hook = object_access_hook;
  object_access_hook = watch_object_access;
  previous_utility_hook = ProcessUtility_hook;
  ProcessUtility_hook = watch_utility;
  RegisterXactCallback(watch_transaction, nullptr);
}

}  // namespace sluice::pg
