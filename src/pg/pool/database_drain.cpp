// SPDX-License-Identifier: PostgreSQL
//
// Runs in the process that executes the statement, pooled or not, before the
// server's own code does.
//
// The server counts processes.  A pooled backend without a client is one, but no
// session to anybody; an idle pooled client is a session, but no process.  So
// before the server counts, the former are sent away, and the latter stand in the
// way as sessions do: the statement is refused in the server's words, or, with
// FORCE, they are ended.
//
// Nobody may disturb the pools of a database that is not his.  So first is asked
// what the server is going to ask -owner, rights, transaction block, names- and
// where it is going to refuse, nothing is done here.  Then the lock on the database
// is taken that the server will take.  It keeps new backends from attaching to the
// database (they wait for it when they start), it is given back by the server
// whatever the end of the statement may be, and nothing else has to be undone: if
// the statement fails, the next client that needs a backend starts one.
//
// FORCE.  The server ends processes, unless one of them is not to be ended by this
// role, or there are prepared transactions; then it ends none.  Here likewise: the
// roles of all clients are looked at first, then the server's own function is
// called, and only when it has agreed clients without a backend are told.

#include "pg/compat.hpp"

#include "pg/pool/database_drain.hpp"

extern "C" {
#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_subscription.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/tablespace.h"
#include "nodes/parsenodes.h"
#include "replication/slot.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "tcop/utility.h"
#include "utils/syscache.h"
#include "utils/wait_event.h"
}

#include <signal.h>

#include "core/pool/database_drain.hpp"
#include "core/pool/growth_governor.hpp"
#include "pg/accept/dispatcher.hpp"
#include "pg/shared_memory.hpp"

namespace sluice::pg {

constexpr long kLookAgainMs = 10;

static ProcessUtility_hook_type previous_utility_hook = nullptr;

// ------------------------------------------------------------------ which database

// What a statement wants for itself.
struct Wanted {
  const char *name;
  LOCKMODE lock;   // that the server takes
  bool force;
  bool as_source;  // it is copied, and worded so
};

static const DefElem *find_option(const List *options, const char *name) {
  ListCell *cell;
  foreach (cell, options) {
    const DefElem *option = lfirst_node(DefElem, cell);
    if (strcmp(option->defname, name) == 0) return option;
  }
  return nullptr;
}

static const char *text_of(const DefElem *option) {
  return option != nullptr && option->arg != nullptr ? defGetString(const_cast<DefElem *>(option)) : nullptr;
}

static bool may_create_databases() {
  if (superuser()) return true;
  HeapTuple tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
  if (!HeapTupleIsValid(tuple)) return false;
  const bool may = (reinterpret_cast<Form_pg_authid> GETSTRUCT(tuple))->rolcreatedb;
  ReleaseSysCache(tuple);
  return may;
}

// Can the statement still be refused for what has been written in it?
static bool is_sound(const Node *statement, bool top_level) {
  switch (nodeTag(statement)) {
    case T_RenameStmt:  // is allowed in a transaction block
      return may_create_databases() &&
             !OidIsValid(get_database_oid(reinterpret_cast<const RenameStmt *>(statement)->newname, true));
    case T_CreatedbStmt:
      return !IsInTransactionBlock(top_level) && may_create_databases() &&
             !OidIsValid(get_database_oid(reinterpret_cast<const CreatedbStmt *>(statement)->dbname, true));
    default:
      return !IsInTransactionBlock(top_level);
  }
}

// False for every other statement.
static bool wants_database(const Node *statement, Wanted *wanted) {
  *wanted = Wanted{nullptr, AccessExclusiveLock, false, false};
  switch (nodeTag(statement)) {
    case T_DropdbStmt: {
      const auto *drop = reinterpret_cast<const DropdbStmt *>(statement);
      wanted->name = drop->dbname;
      wanted->force = find_option(drop->options, "force") != nullptr;
      return true;
    }
    case T_RenameStmt:
      wanted->name = reinterpret_cast<const RenameStmt *>(statement)->subname;
      return reinterpret_cast<const RenameStmt *>(statement)->renameType == OBJECT_DATABASE;
    case T_AlterDatabaseStmt:
      wanted->name = reinterpret_cast<const AlterDatabaseStmt *>(statement)->dbname;
      return find_option(reinterpret_cast<const AlterDatabaseStmt *>(statement)->options, "tablespace") != nullptr;
    case T_CreatedbStmt:
      wanted->name = text_of(find_option(reinterpret_cast<const CreatedbStmt *>(statement)->options, "template"));
      if (wanted->name == nullptr) wanted->name = "template1";
      wanted->lock = ShareLock;
      wanted->as_source = true;
      return true;
    default:
      return false;
  }
}

// Would the server let this role do that to this database, sessions apart?
static bool is_allowed(const Node *statement, Oid database) {
  HeapTuple tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
  if (!HeapTupleIsValid(tuple)) return false;
  const bool is_template = (reinterpret_cast<Form_pg_database> GETSTRUCT(tuple))->datistemplate;
  const Oid current_tablespace = (reinterpret_cast<Form_pg_database> GETSTRUCT(tuple))->dattablespace;
  ReleaseSysCache(tuple);

  if (IsA(statement, CreatedbStmt)) return is_template || owns_database(database, GetUserId());
  if (database == MyDatabaseId || !owns_database(database, GetUserId())) return false;
  if (IsA(statement, AlterDatabaseStmt)) {
    const char *name =
        text_of(find_option(reinterpret_cast<const AlterDatabaseStmt *>(statement)->options, "tablespace"));
    const Oid tablespace = name != nullptr ? get_tablespace_oid(name, true) : InvalidOid;
    return OidIsValid(tablespace) && tablespace != current_tablespace &&
           may_create_in_tablespace(tablespace, GetUserId());
  }
  if (!IsA(statement, DropdbStmt)) return true;
  int slots, active_slots;
  (void)ReplicationSlotsCountDBSlots(database, &slots, &active_slots);
  return !is_template && active_slots == 0 && CountDBSubscriptions(database) == 0;
}

static bool is_pooled(Oid database) {
  const SharedState &state = shared();
  for (std::uint32_t i = 0; i < state.header->max_pools; i++)
    if (is_open(state.pools[i]) && state.pools[i].database_oid == database) return true;
  return false;
}

// ------------------------------------------------------------------ who is there

static const PoolSlot *pool_of(std::uint32_t index, Oid database) {
  if (index >= shared().header->max_pools) return nullptr;
  const PoolSlot &pool = shared().pools[index];
  return is_open(pool) && pool.database_oid == database ? &pool : nullptr;
}

// A client that has not been greeted is still on its way in: it waits, as it would
// for the lock on the server's own port.
static bool is_session(const ClientSlot &client) {
  const ClientWord word = ClientWord::unpack(client.word.load());
  // The one this statement is executed for.
  if (word.state == ClientState::leased && word.backend < shared().header->backend_slots &&
      shared().backends[word.backend].pid.load() == MyProcPid)
    return false;
  switch (word.state) {
    case ClientState::ready:
    case ClientState::leased:
    case ClientState::idle:
      return (client.flags.load() & kClientGreeted) != 0;
    default:
      return false;
  }
}

// Counts the clients of all pools of the database, or of one.
static int count_clients(Oid database, std::uint32_t pool = kNoIndex) {
  const SharedState &state = shared();
  int count = 0;
  for (std::uint32_t i = 0; i < state.header->max_clients; i++) {
    const std::uint32_t index = state.clients[i].pool.load(std::memory_order_relaxed);
    if (index == kNoIndex || (pool != kNoIndex && index != pool)) continue;
    if (pool_of(index, database) != nullptr && is_session(state.clients[i])) count++;
  }
  return count;
}

// One that waits for the lock while it starts is not attached, and will not be.
static bool is_attached(const BackendSlot &backend, Oid database) {
  const std::int32_t pid = backend.pid.load();
  if (pid == 0 || pid == MyProcPid || pool_of(backend.pool.load(), database) == nullptr) return false;
  const PGPROC *process = BackendPidGetProc(pid);
  return process != nullptr && process->databaseId == database;
}

static void tell_to_leave(BackendSlot &backend) {
  std::uint32_t nobody_asked = 0;
  const std::int32_t pid = backend.pid.load();
  if (backend.retire_requested.compare_exchange_strong(nobody_asked,
                                                       static_cast<std::uint32_t>(RetireReason::database_wanted)) &&
      pid != 0)
    kill(pid, SIGUSR2);
}

// Of all pools of the database, or of those without clients.
static int count_backends(Oid database, bool without_clients, bool tell) {
  SharedState &state = shared();
  int count = 0;
  for (std::uint32_t i = 0; i < state.header->backend_slots; i++) {
    if (!is_attached(state.backends[i], database)) continue;
    if (without_clients && count_clients(database, state.backends[i].pool.load()) > 0) continue;
    count++;
    if (tell) tell_to_leave(state.backends[i]);
  }
  return count;
}

static void pause_a_moment() {
  (void)WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, kLookAgainMs, PG_WAIT_EXTENSION);
  ResetLatch(MyLatch);
  CHECK_FOR_INTERRUPTS();
}

// ------------------------------------------------------------------ the dispatcher

// Who is greeted without a backend would not have to wait for the lock.
static void stop_quick_greetings(Oid database) {
  SharedState &state = shared();
  for (std::uint32_t i = 0; i < state.header->max_pools; i++)
    if (is_open(state.pools[i]) && state.pools[i].database_oid == database) state.pools[i].greeting.length.store(0);
}

static std::uint32_t request_look() {
  SharedHeader &header = *shared().header;
  const std::uint32_t request = header.look_requests.fetch_add(1) + 1;
  const std::int32_t pid = header.dispatcher_pid.load();
  if (pid != 0) kill(pid, SIGUSR2);
  return request;
}

static bool look_is_done(std::uint32_t request) {
  const SharedHeader &header = *shared().header;
  return header.dispatcher_pid.load() == 0 || static_cast<std::int32_t>(header.looks.load() - request) >= 0;
}

// ------------------------------------------------------------------ FORCE

static void require_right_to_end_clients(Oid database) {
  const SharedState &state = shared();
  for (std::uint32_t i = 0; i < state.header->max_pools; i++) {
    const PoolSlot &pool = state.pools[i];
    if (!is_open(pool) || pool.database_oid != database || count_clients(database, i) == 0) continue;
    if (superuser_arg(pool.role_oid) && !superuser()) refuse_termination(true);
    if (!has_privs_of_role(GetUserId(), pool.role_oid) && !has_privs_of_role(GetUserId(), ROLE_PG_SIGNAL_BACKEND))
      refuse_termination(false);
  }
}

// The flag knows no generation; see control_functions.cpp.
static void tell_client_to_leave(ClientSlot &client, Oid database) {
  const std::uint32_t generation = ClientWord::unpack(client.word.load()).generation;
  if (pool_of(client.pool.load(), database) == nullptr || !is_session(client)) return;
  client.flags.fetch_or(kClientToLeave);
  if (ClientWord::unpack(client.word.load()).generation != generation) client.flags.fetch_and(~kClientToLeave);
}

// Whoever is being let in at this moment is a client afterwards; who comes later has to
// wait for the lock.
static void close_the_door(Oid database) {
  stop_quick_greetings(database);
  const std::uint32_t request = request_look();
  const std::int64_t until_us = monotonic_us() + kDrainPatienceUs;
  while (!look_is_done(request) && monotonic_us() < until_us) pause_a_moment();
}

static void tell_clients_to_leave(Oid database) {
  SharedState &state = shared();
  for (std::uint32_t i = 0; i < state.header->max_clients; i++) tell_client_to_leave(state.clients[i], database);
  (void)request_look();
}

// Ends all sessions, or raises an error and ends none.
static void end_sessions(Oid database) {
  close_the_door(database);
  require_right_to_end_clients(database);
  // Backends without clients are nobody's session: whose role they have is no reason to refuse.
  const std::int64_t until_us = monotonic_us() + kDrainPatienceUs;
  while (count_backends(database, true, true) > 0 && monotonic_us() < until_us) pause_a_moment();
  // Of clients that were on their way to a backend meanwhile, too.
  require_right_to_end_clients(database);
  TerminateOtherDBBackends(database);
  tell_clients_to_leave(database);
}

// ------------------------------------------------------------------ the statement waits

static void refuse_statement(Oid database, const Wanted &wanted, int clients) {
  // Other processes, less those of the pools.
  const int own = MyDatabaseId == database ? 1 : 0;
  const int sessions = Max(CountDBBackends(database) - own - count_backends(database, false, false), 0);
  ereport(ERROR,
          (errcode(ERRCODE_OBJECT_IN_USE),
           wanted.as_source ? errmsg("source database \"%s\" is being accessed by other users", wanted.name)
                            : errmsg("database \"%s\" is being accessed by other users", wanted.name),
           sessions > 0
               ? errdetail_plural("There is %d pooled client using the database, and other sessions: %d.",
                                  "There are %d pooled clients using the database, and other sessions: %d.",
                                  static_cast<unsigned long>(clients), clients, sessions)
               : errdetail_plural("There is %d pooled client using the database.",
                                  "There are %d pooled clients using the database.",
                                  static_cast<unsigned long>(clients), clients)));
}

static void drain(Oid database, const Wanted &wanted) {
  DrainView view;
  std::int64_t since_us = monotonic_us();
  std::uint32_t request = 0;
  bool asked = false;

  view.force = wanted.force;
  for (;;) {
    // Before the count: whoever was let in before that look is in it.
    view.dispatcher_has_looked = asked && look_is_done(request);
    view.clients = count_clients(database);
    const int backends = count_backends(database, false, false);
    // Those that have attached since they were told have not been told.
    if (backends > view.backends) view.backends_told = false;
    view.backends = backends;
    view.waited_us = monotonic_us() - since_us;
    switch (decide_drain(view)) {
      case DrainStep::tell_clients:
        end_sessions(database);
        view.clients_told = true;
        since_us = monotonic_us();
        break;
      case DrainStep::tell_backends:
        (void)count_backends(database, false, true);
        view.backends_told = true;
        break;
      case DrainStep::ask_dispatcher:
        if (!asked) {
          stop_quick_greetings(database);
          request = request_look();
          asked = true;
        } else {
          pause_a_moment();
        }
        break;
      case DrainStep::wait:
        // A backend on its way out may still have greeted one, or given one back, since they were told.
        if (view.clients_told && view.clients > 0) {
          require_right_to_end_clients(database);
          tell_clients_to_leave(database);
        }
        pause_a_moment();
        break;
      case DrainStep::proceed:
        return;
      case DrainStep::refuse:
        refuse_statement(database, wanted, view.clients);
    }
  }
}

static void make_way_for(const Node *statement, bool top_level) {
  Wanted wanted;

  if (!wants_database(statement, &wanted) || wanted.name == nullptr || !shared_memory_exists() ||
      RecoveryInProgress() || XactReadOnly || !IsTransactionState() || !is_sound(statement, top_level))
    return;
  const Oid database = get_database_oid(wanted.name, true);
  if (!OidIsValid(database) || !is_pooled(database) || !is_allowed(statement, database)) return;
  LockSharedObject(DatabaseRelationId, database, 0, wanted.lock);
  // What was committed while we waited.
  if (get_database_oid(wanted.name, true) != database || !is_allowed(statement, database)) return;
  drain(database, wanted);
}

extern "C" {

static void watch_utility(PlannedStmt *planned, const char *query, bool read_only_tree, ProcessUtilityContext context,
                          ParamListInfo parameters, QueryEnvironment *environment, DestReceiver *destination,
                          QueryCompletion *completion) {
  make_way_for(planned->utilityStmt, context == PROCESS_UTILITY_TOPLEVEL);
  (previous_utility_hook != nullptr ? previous_utility_hook : standard_ProcessUtility)(
      planned, query, read_only_tree, context, parameters, environment, destination, completion);
}

}  // extern "C"

void install_database_drain() {
  previous_utility_hook = ProcessUtility_hook;
  ProcessUtility_hook = watch_utility;
}

}  // namespace sluice::pg
