// SPDX-License-Identifier: PostgreSQL
//
// Pooled backends as the dispatcher sees them.
//
// A backend slot is `starting` from registration until the process says hello on
// its control channel (control_server.cpp).  If the worker ends before, its slot holds the reason, and
// clients of a pool without any other backend are told.

#include "pg/compat.hpp"

#include "pg/pool/backend_keeper.hpp"

extern "C" {
#include "postmaster/bgworker.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
}

#include <cstdio>
#include <signal.h>

#include "core/pool/growth_governor.hpp"
#include "core/pool/hand_over.hpp"
#include "core/stats/pool_totals.hpp"
#include "pg/accept/client_registry.hpp"
#include "pg/pool/control_server.hpp"
#include "pg/pool/keeper_books.hpp"
#include "pg/pool/time_limits.hpp"
#include "pg/pool/wake_up.hpp"
#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"
#include "pg/stats/event_log.hpp"
#include "pg/tuning/system_pressure.hpp"

namespace sluice::pg {

constexpr std::int64_t kDemandMomentUs = 2000;

// ------------------------------------------------------------------ census

// What the client of this backend is pinned to it by; 0 if it is not.  A client that has left meanwhile, or its slot's
// next owner, makes the answer a moment old.
static std::uint32_t pins_of(const BackendSlot &backend) {
  const std::uint32_t client = backend.client.load(std::memory_order_relaxed);
  return client < shared().header->max_clients ? shared().clients[client].pins.load(std::memory_order_relaxed) : 0;
}

// Who is pinned for longest.  Since the pin, not since the last statement.
static void count_pinned(PoolCensus &census, const BackendSlot &backend, std::int64_t now_us) {
  const std::uint32_t client = backend.client.load(std::memory_order_relaxed);
  const std::int64_t since_us =
      client < shared().header->max_clients ? shared().clients[client].pinned_since_us.load(std::memory_order_relaxed)
                                            : 0;
  const std::int64_t age_us =
      now_us - (since_us != 0 ? since_us : backend.state_since_us.load(std::memory_order_relaxed));
  census.pinned++;
  if (census.longest_pinned_pid != 0 && age_us <= census.longest_pinned_us) return;
  census.longest_pinned_us = age_us;
  census.longest_pinned_pid = backend.pid.load(std::memory_order_relaxed);
  census.longest_pinned_reasons = pins_of(backend);
}

PoolCensus take_census(std::uint32_t pool_index, std::int64_t now_us) {
  SharedState &state = shared();
  PoolCensus census;

  for (std::uint32_t i = 0; i < state.header->backend_slots; i++) {
    const BackendSlot &backend = state.backends[i];
    if (backend.pool.load(std::memory_order_relaxed) != pool_index) continue;
    const auto backend_state = static_cast<BackendState>(backend.state.load(std::memory_order_relaxed));
    const bool stays = backend.retire_requested.load(std::memory_order_relaxed) == 0;
    if ((backend_state == BackendState::thinking || backend_state == BackendState::pinned) && stays)
      census.resting_and_staying++;
    switch (backend_state) {
      case BackendState::assigned:
      case BackendState::active: census.active++; break;
      case BackendState::waiting:
      case BackendState::lingering: census.idle++; break;
      case BackendState::held: census.held++; break;
      case BackendState::pinned: count_pinned(census, backend, now_us); break;
      case BackendState::starting: census.starting++; break;
      case BackendState::failed: census.failed++; break;
      case BackendState::thinking: {
        const std::int64_t age_us = now_us - backend.state_since_us.load(std::memory_order_relaxed);
        census.thinking++;
        if (stays && age_us < kBriefThoughtUs) census.brief++;
        if (age_us > census.longest_thinking_us) {
          census.longest_thinking_us = age_us;
          census.longest_thinking_pid = backend.pid.load(std::memory_order_relaxed);
        }
        break;
      }
      default: break;
    }
  }
  return census;
}

// ------------------------------------------------------------------ starts

static std::uint32_t find_free_backend_slot() {
  SharedState &state = shared();
  for (std::uint32_t i = 0; i < state.header->backend_slots; i++)
    if (state.backends[i].state.load() == static_cast<std::uint32_t>(BackendState::free) &&
        state.backends[i].pid.load() == 0)
      return i;
  return kNoIndex;
}

static void prepare_backend_slot(BackendSlot &backend, std::uint32_t pool_index, std::int64_t now_us) {
  backend.generation.fetch_add(1);
  backend.pid.store(0);
  shared().statistics[&backend - shared().backends].epoch.store(0);  // before anybody counts it for this pool
  backend.pool.store(pool_index);
  backend.client.store(kNoIndex);
  backend.lease.fetch_add(1);
  backend.start_requested_us.store(now_us);
  backend.state_since_us.store(now_us);
  backend.started_at.store(0);
  backend.transactions.store(0);
  backend.notifier.store(0);
  backend.process.store(0);
  // Before the process can read the settings: what it reads is not older than this.
  backend.role_setting_changes.store(shared().pools[pool_index].role_setting_changes.load());
  backend.retire_requested.store(0);
  backend.poked.store(0);
  backend.cancel_lease.store(0);
  backend.vanished_lease.store(0);
  backend.leave_lease.store(0);
  backend.assigned_client.store(0);
  backend.failure_sqlstate[0] = '\0';
  backend.failure_message[0] = '\0';
  backend.expires_us.store(0);
  for (std::atomic<std::int64_t> *time :
       {&backend.hold_since_us, &backend.active_since_us, &backend.thinking_since_us, &backend.transaction_since_us,
        &backend.leaked_transaction_us})
    time->store(0);
  backend.state.store(static_cast<std::uint32_t>(BackendState::starting));
}

static void note_failed_start(std::uint32_t pool_index, std::int64_t now_us) {
  PoolBook &book = pool_books[pool_index];
  shared().pools[pool_index].start_failures.fetch_add(1);
  book.failed_starts++;
  book.retry_after_us = now_us + kStartRetryUs;
  book.minimum_retry_after_us = now_us + minimum_retry_us(book.failed_starts);
}

static constexpr const char *kNoWorkerSlot = "could not start a pooled backend: no worker process slot is free";

// Clients that were let in before.  A session of theirs on the server's own port would not be asked again whether it
// may connect, so a backend that they need is not asked either; who is new is asked by it as well as by the login.
static bool has_established_clients(std::uint32_t pool_index) {
  const SharedState &state = shared();
  for (std::uint32_t i = 0; i < client_high_water(); i++) {
    const ClientSlot &client = state.clients[i];
    if (client.pool.load(std::memory_order_relaxed) == pool_index &&
        (client.flags.load(std::memory_order_relaxed) & kClientGreeted) != 0)
      return true;
  }
  return false;
}

static void start_backend(std::uint32_t pool_index, GrowthReason reason, std::int64_t now_us) {
  SharedState &state = shared();
  PoolSlot &pool = state.pools[pool_index];
  const std::uint32_t index = find_free_backend_slot();
  BackgroundWorker worker;

  if (index == kNoIndex) return;
  BackendSlot &backend = state.backends[index];
  prepare_backend_slot(backend, pool_index, now_us);

  memset(&worker, 0, sizeof(worker));
  worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
  worker.bgw_start_time = BgWorkerStart_ConsistentState;
  worker.bgw_restart_time = BGW_NEVER_RESTART;
  strlcpy(worker.bgw_library_name, "pg_sluice", sizeof(worker.bgw_library_name));
  strlcpy(worker.bgw_function_name, "sluice_backend_main", sizeof(worker.bgw_function_name));
  snprintf(worker.bgw_name, BGW_MAXLEN, "pg_sluice backend: %.40s %.40s", pool.role, pool.database);
  strlcpy(worker.bgw_type, "pg_sluice backend", BGW_MAXLEN);
  worker.bgw_main_arg = UInt32GetDatum(index);
  const BackendOrder order{backend.generation.load(), has_established_clients(pool_index)};
  memcpy(worker.bgw_extra, &order, sizeof(order));
  worker.bgw_notify_pid = MyProcPid;

  MemoryContext caller = MemoryContextSwitchTo(TopMemoryContext);
  BackgroundWorkerHandle *handle = nullptr;
  const bool registered = RegisterDynamicBackgroundWorker(&worker, &handle);
  MemoryContextSwitchTo(caller);
  pool.starts.fetch_add(1);
  if (!registered) {
    backend.state.store(static_cast<std::uint32_t>(BackendState::free));
    note_failed_start(pool_index, now_us);
    log_event(EventKind::start_failed, pool_index, kNoProcess, kNoClient, kNoWorkerSlot);
    if (pool.backends.load() == 0)
      fail_waiting_clients(pool_index, ERRCODE_CONFIGURATION_LIMIT_EXCEEDED, kNoWorkerSlot,
                           "You may need to increase max_worker_processes.");
    return;
  }
  backend_books[index].handle = handle;
  backend_books[index].channel = -1;
  backend_books[index].greeted = false;
  backend_books[index].start_reason = reason;
  backend_books[index].pid = 0;
  raise_resource(Resource::backends, state.header->backends.fetch_add(1) + 1);
  const int now_in_pool = pool.backends.fetch_add(1) + 1;
  pool.starting.fetch_add(1);
  if (now_in_pool > pool.peak_backends.load()) pool.peak_backends.store(now_in_pool);
}

static void request_retirement(std::uint32_t index, RetireReason reason) {
  BackendSlot &backend = shared().backends[index];
  backend.retire_requested.store(static_cast<std::uint32_t>(reason));
  const std::int32_t pid = backend.pid.load();
  if (pid != 0) kill(pid, SIGUSR2);
}

// Why a backend has left that could serve clients.  `retiring` without a request: see leave_for_good() in backend.cpp.
static const char *describe_end(const BackendSlot &backend, BackendState last_state) {
  const auto asked = static_cast<RetireReason>(backend.retire_requested.load());
  if (asked != RetireReason::none) return describe(asked);
  return last_state == BackendState::retiring ? "renewed to get rid of session state"
                                              : "terminated, or ended by an error";
}

// The process knew its database and its role by number only; clients know them by name.
static const char *name_what_is_missing(const PoolSlot &pool, const BackendSlot &backend, char *text, std::size_t size) {
  char numbered[kFailureLength];
  snprintf(numbered, sizeof(numbered), _("role with OID %u does not exist"), pool.role_oid);
  if (strcmp(backend.failure_sqlstate, "3D000") == 0)
    snprintf(text, size, _("database \"%s\" does not exist"), pool.database);
  else if (strcmp(backend.failure_message, numbered) == 0)
    snprintf(text, size, _("role \"%s\" does not exist"), pool.role);
  else
    return backend.failure_message;
  return text;
}

static void tell_failed_start(std::uint32_t pool_index, const BackendSlot &backend, std::int32_t pid) {
  const bool known = backend.failure_message[0] != '\0';
  char named[kFailureLength];
  const char *message = known ? name_what_is_missing(shared().pools[pool_index], backend, named, sizeof(named))
                              : "could not start a pooled backend";
  const char *sqlstate = backend.failure_sqlstate;
  const int sqlerrcode = known ? MAKE_SQLSTATE(sqlstate[0], sqlstate[1], sqlstate[2], sqlstate[3], sqlstate[4])
                               : ERRCODE_CANNOT_CONNECT_NOW;

  pool_books[pool_index].refusal_sqlerrcode = sqlerrcode;
  strlcpy(pool_books[pool_index].refusal, message, sizeof(pool_books[pool_index].refusal));
  log_event(EventKind::start_failed, pool_index, pid, kNoClient, message);
  if (shared().pools[pool_index].backends.load() != 0) return;
  fail_waiting_clients(pool_index, sqlerrcode, message, known ? nullptr : "The server log may say why.");
}

// A worker has ended.
static void bury_backend(std::uint32_t index, std::int64_t now_us) {
  SharedState &state = shared();
  BackendSlot &backend = state.backends[index];
  BackendBook &book = backend_books[index];
  const std::uint32_t pool_index = backend.pool.load();
  PoolSlot &pool = state.pools[pool_index];
  const auto last_state = static_cast<BackendState>(backend.state.load());

  close_control_channel(index);
  pfree(book.handle);
  book.handle = nullptr;
  forget_clients_of_backend(index);
  fold_into_pool(pool, state.statistics[index]);
  pool.backends.fetch_sub(1);
  state.header->backends.fetch_sub(1);
  if (!book.greeted) pool.starting.fetch_sub(1);
  if (last_state == BackendState::starting || last_state == BackendState::failed) {
    note_failed_start(pool_index, now_us);
    tell_failed_start(pool_index, backend, book.pid);
  } else {
    pool.retirements.fetch_add(1);
    log_event(EventKind::backend_retired, pool_index, book.pid, kNoClient, describe_end(backend, last_state));
  }
  backend.pid.store(0);
  backend.state.store(static_cast<std::uint32_t>(BackendState::free));
  // It may have been the last one to watch the set.
  if (needs_watcher(pool.waiters.load(), pool.armed.load(), pool.queued.load())) pool.watched.store(1);
}

void bury_dead_backends(std::int64_t now_us) {
  for (std::uint32_t i = 0; i < shared().header->backend_slots; i++) {
    BackendBook &book = backend_books[i];
    pid_t pid;
    if (book.handle != nullptr && GetBackgroundWorkerPid(book.handle, &pid) == BGWH_STOPPED) bury_backend(i, now_us);
  }
}

// ------------------------------------------------------------------ growth and retirement

// Where the kernel does not tell, they never are.
static bool processors_are_short(std::int64_t now_us) {
  static ProcessorShortage shortage;
  std::int64_t stalled_us;
  if (shortage.is_due(now_us)) shortage.look(read_processor_stall(&stalled_us) ? stalled_us : 0, now_us);
  return shortage.is_short;
}

// Backends that do not count against the pool's maximum, of so many that rest.
static int count_resting(const PoolCensus &census, int resting, std::int64_t now_us) {
  return census.brief > 0 && processors_are_short(now_us) ? resting - census.brief : resting;
}

// The backend of another pool that has been idle longest gives way.
static void make_room(std::uint32_t for_pool) {
  SharedState &state = shared();
  std::uint32_t victim = kNoIndex;

  for (std::uint32_t i = 0; i < state.header->backend_slots; i++) {
    const BackendSlot &backend = state.backends[i];
    const auto backend_state = static_cast<BackendState>(backend.state.load());
    if (backend_state == BackendState::retiring) return;  // one is leaving already
    if (backend_state != BackendState::waiting && backend_state != BackendState::lingering) continue;
    // One that has been told to leave but has a client may take its time.
    if (backend.retire_requested.load() != 0) return;
    if (backend.pool.load() == for_pool) continue;
    if (victim == kNoIndex || backend.state_since_us.load() < state.backends[victim].state_since_us.load())
      victim = i;
  }
  if (victim != kNoIndex) request_retirement(victim, RetireReason::gave_way);
}

// A start that was put off because another was under way, and then not needed.  What is under way is for one client: it
// takes more to want another.
static void note_elision(std::uint32_t pool_index, const GrowthDecision &decision, const PoolLoad &load) {
  PoolBook &book = pool_books[pool_index];
  if (decision.reason == GrowthReason::enough_starting) {
    if (load.waiting > load.starting) book.start_put_off = true;
    return;
  }
  if (book.start_put_off && decision.reason == GrowthReason::nobody_waits) {
    shared().pools[pool_index].starts_elided.fetch_add(1, std::memory_order_relaxed);
    log_event(EventKind::start_elided, pool_index, kNoProcess, kNoClient, describe(decision.reason));
  }
  book.start_put_off = false;
}

// How many clients wait, if some have for a moment.  A client that became ready
// while its backend was on the way to the set is served before any start could be.
static int count_lasting_demand(std::uint32_t pool_index, std::int64_t now_us) {
  const PoolSlot &pool = shared().pools[pool_index];
  PoolBook &book = pool_books[pool_index];
  const int queued = pool.queued.load();

  if (queued <= 0)
    book.waiting_since_us = 0;
  else if (book.waiting_since_us == 0)
    book.waiting_since_us = now_us;
  const bool lasting = pool.backends.load() <= 0 || now_us - book.waiting_since_us >= kDemandMomentUs;
  return lasting ? queued : 0;
}

void govern_growth(std::uint32_t pool_index, std::int64_t now_us) {
  SharedState &state = shared();
  PoolSlot &pool = state.pools[pool_index];
  const PoolCensus census = take_census(pool_index, now_us);

  pool.thinking.store(census.thinking);
  pool.pinned.store(census.pinned);
  PoolLoad load{};
  load.waiting = count_lasting_demand(pool_index, now_us);
  load.backends = pool.backends.load();
  // Until it has taken its first client or gone to sleep: to have said hello is not
  // enough, the client it was started for still waits then.  One that has failed
  // counts until it is buried, or another would be started before anyone is told.
  load.starting = census.starting + census.failed;
  load.resting = count_resting(census, census.thinking + census.pinned, now_us);
  load.working_lately = pool_books[pool_index].working.look(Max(load.backends - load.resting, 0), now_us);
  load.min_size = pool.min_size.load();
  load.max_size = pool.max_size.load();
  load.clients = pool.clients.load();
  load.now_us = now_us;
  load.retry_after_us = pool_books[pool_index].retry_after_us;
  load.minimum_retry_after_us = pool_books[pool_index].minimum_retry_after_us;
  ServerLoad server{state.header->backends.load(), static_cast<int>(state.header->max_backends)};
  if (pool.nested_since_us.load() != 0)
    server.reserve = static_cast<int>(state.header->backend_slots - state.header->max_backends);
  const GrowthDecision decision = decide_growth(load, server);
  if (decision.start)
    start_backend(pool_index, decision.reason, now_us);
  else if (decision.make_room)
    make_room(pool_index);
  note_elision(pool_index, decision, load);
}

void retire_pool_backends(std::uint32_t pool_index, RetireReason reason) {
  for (std::uint32_t i = 0; i < shared().header->backend_slots; i++) {
    const BackendSlot &backend = shared().backends[i];
    if (backend.pool.load() == pool_index && backend.state.load() != static_cast<std::uint32_t>(BackendState::free) &&
        backend.retire_requested.load() == 0)
      request_retirement(i, reason);
  }
}

void retire_outdated_backends(std::uint32_t pool_index, std::uint64_t role_setting_changes) {
  for (std::uint32_t i = 0; i < shared().header->backend_slots; i++) {
    const BackendSlot &backend = shared().backends[i];
    if (backend.pool.load() == pool_index && backend.state.load() != static_cast<std::uint32_t>(BackendState::free) &&
        backend.role_setting_changes.load() < role_setting_changes && backend.retire_requested.load() == 0)
      request_retirement(i, RetireReason::changed_defaults);
  }
}

static int count_beyond_maximum() {
  return shared().header->backends.load() - static_cast<int>(shared().header->max_backends);
}

// How many backends of the pool, or of all (kNoIndex), have been told to leave already.
static int count_retiring(std::uint32_t pool_index) {
  SharedState &state = shared();
  int count = 0;
  for (std::uint32_t i = 0; i < state.header->backend_slots; i++) {
    const BackendSlot &backend = state.backends[i];
    if ((pool_index == kNoIndex || backend.pool.load() == pool_index) &&
        backend.state.load() != static_cast<std::uint32_t>(BackendState::free) && backend.retire_requested.load() != 0)
      count++;
  }
  return count;
}

// Asks each backend of the pool that has no work, or each that has some.
static void retire_where_due(std::uint32_t pool_index, BackendLoad &load, bool without_work) {
  SharedState &state = shared();
  for (std::uint32_t i = 0; i < state.header->backend_slots; i++) {
    const BackendSlot &backend = state.backends[i];
    const auto backend_state = static_cast<BackendState>(backend.state.load());
    if (backend.pool.load() != pool_index || backend_state == BackendState::free ||
        backend_state == BackendState::starting || backend.retire_requested.load() != 0)
      continue;
    const bool idle = backend_state == BackendState::waiting || backend_state == BackendState::lingering;
    if (idle != without_work) continue;
    load.pinned = pins_of(backend) != 0;
    load.age.idle_since_us = idle ? backend.state_since_us.load() : 0;
    load.age.expires_us = backend.expires_us.load();
    const RetireReason reason = decide_retirement(load);
    if (reason == RetireReason::none) continue;
    request_retirement(i, reason);
    load.retiring++;
  }
}

void govern_retirement(std::uint32_t pool_index, std::int64_t now_us) {
  PoolSlot &pool = shared().pools[pool_index];
  PoolBook &book = pool_books[pool_index];
  BackendLoad load{};

  load.age.now_us = now_us;
  load.backends = pool.backends.load();
  load.retiring = count_retiring(pool_index);
  const PoolCensus census = take_census(pool_index, now_us);
  load.resting = count_resting(census, census.resting_and_staying, now_us);
  load.clients = pool.clients.load();
  load.min_size = pool.min_size.load();
  load.max_size = pool.max_size.load();
  load.idle_timeout_us = static_cast<std::int64_t>(pool.idle_timeout_ms.load()) * 1000;
  if (!is_above_maximum(load.backends, load.retiring, load.resting, load.max_size))
    book.above_maximum_since_us = 0;
  else if (book.above_maximum_since_us == 0)
    book.above_maximum_since_us = now_us;
  load.above_maximum_since_us = book.above_maximum_since_us;
  load.beyond_server =
      pool.nested_since_us.load() != 0 ? 0 : count_beyond_maximum() - (count_retiring(kNoIndex) - load.retiring);

  // Those without work first: they leave at once.
  retire_where_due(pool_index, load, true);
  retire_where_due(pool_index, load, false);
}

}  // namespace sluice::pg
