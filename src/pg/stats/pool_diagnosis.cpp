// SPDX-License-Identifier: PostgreSQL
//
// Collects what core/stats/pool_diagnosis judges.
//
// Slots are read as views read them (snapshot.hpp): no lock, and a value may be a
// moment old.  Behind lock waits the lock manager is asked (lock_chain.hpp).
//
// The state of a process outside the pools comes from the table that
// pg_stat_activity shows.  A process that has a transaction keeps the copy of that
// table it may have made before, as the functions behind pg_stat_activity do; one
// without throws it away, because nobody else would.

#include "pg/compat.hpp"

#include "pg/stats/pool_diagnosis.hpp"

extern "C" {
#include "access/xact.h"
#include "storage/lwlock.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
}

#include <atomic>

#include "core/pool/shared_state.hpp"
#include "pg/accept/dispatcher.hpp"
#include "pg/shared_memory.hpp"
#include "pg/stats/snapshot.hpp"

namespace sluice::pg {

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

constexpr int kMostChains = 16;  // backends whose blocker is looked for
constexpr std::int64_t kLatelyUs = 250'000;

// ------------------------------------------------------------------ backends in the hands of clients

std::int64_t elapsed(std::int64_t now_us, std::int64_t since_us) {
  return since_us != 0 && now_us > since_us ? now_us - since_us : 0;
}

// What its client is pinned by, and for how long.
void look_at_pin(const BackendSlot &backend, std::int64_t now_us, HeldBackend &held) {
  const std::uint32_t index = backend.client.load(kRelaxed);
  if (index >= shared().header->max_clients) return;
  const ClientSlot &client = shared().clients[index];
  const std::int64_t since_us = client.pinned_since_us.load(kRelaxed);
  held.pins = client.pins.load(kRelaxed);
  if (since_us != 0) held.age_us = elapsed(now_us, since_us);
}

// False if it is not in the hands of a client.
bool look_at_held(const BackendSlot &backend, BackendState state, std::int64_t now_us, HeldBackend &held) {
  held = HeldBackend{};
  held.pool = backend.pool.load(kRelaxed);
  held.pid = backend.pid.load(kRelaxed);
  held.age_us = elapsed(now_us, backend.state_since_us.load(kRelaxed));
  switch (state) {
    case BackendState::active: held.wait = wait_class_of(wait_event_of(held.pid)); break;
    case BackendState::assigned: break;  // wakes up
    case BackendState::thinking: held.state = HolderState::thinking; break;
    case BackendState::held: held.state = HolderState::held; break;
    case BackendState::pinned:
      held.state = HolderState::pinned;
      look_at_pin(backend, now_us, held);
      break;
    default: return false;
  }
  return true;
}

void look_at_backends(std::uint32_t pool_index, std::int64_t now_us, HeldBackend *held, PoolObservation &seen) {
  const SharedState &state = shared();
  for (std::uint32_t i = 0; i < state.header->backend_slots; i++) {
    const BackendSlot &backend = state.backends[i];
    const auto backend_state = static_cast<BackendState>(backend.state.load(std::memory_order_acquire));
    if (backend_state == BackendState::free) continue;
    if (look_at_held(backend, backend_state, now_us, held[seen.held_count])) {
      seen.held_count++;
      continue;
    }
    const bool ours = backend.pool.load(kRelaxed) == pool_index;
    const bool idle = backend_state == BackendState::waiting || backend_state == BackendState::lingering;
    if (idle) (ours ? seen.idle : seen.idle_elsewhere)++;
    if (!idle && ours) seen.coming_and_going++;
  }
}

// ------------------------------------------------------------------ blockers

const BackendSlot *find_pooled(std::int32_t pid) {
  const SharedState &state = shared();
  for (std::uint32_t i = 0; i < state.header->backend_slots; i++)
    if (state.backends[i].pid.load(kRelaxed) == pid &&
        state.backends[i].state.load(kRelaxed) != static_cast<std::uint32_t>(BackendState::free))
      return &state.backends[i];
  return nullptr;
}

Oid role_of_pool(std::uint32_t index) {
  PoolNames names;
  (void)copy_pool_names(index, names);
  return names.role_oid;
}

void describe_pooled(const BackendSlot &backend, std::int64_t now_us, Blocker &blocker) {
  blocker.role_oid = role_of_pool(backend.pool.load(kRelaxed));
  blocker.age_us = elapsed(now_us, backend.state_since_us.load(kRelaxed));
  switch (static_cast<BackendState>(backend.state.load(kRelaxed))) {
    case BackendState::active:
    case BackendState::assigned: blocker.activity = BlockerActivity::executing; break;
    case BackendState::thinking: blocker.activity = BlockerActivity::idle_in_transaction; break;
    default: blocker.activity = BlockerActivity::idle; break;
  }
}

void describe_other(std::int32_t pid, Blocker &blocker) {
  const PgBackendStatus *status = nullptr;
  for (int i = 1; status == nullptr && i <= pgstat_fetch_stat_numbackends(); i++) {
    const LocalPgBackendStatus *entry = backend_status_entry(i);
    if (entry != nullptr && entry->backendStatus.st_procpid == pid) status = &entry->backendStatus;
  }
  if (status == nullptr) return;
  blocker.role_oid = status->st_userid;
  TimestampTz since = status->st_state_start_timestamp;
  switch (status->st_state) {
    case STATE_RUNNING:
    case STATE_FASTPATH:
      blocker.activity = BlockerActivity::executing;
      since = status->st_activity_start_timestamp;
      break;
    case STATE_IDLEINTRANSACTION:
    case STATE_IDLEINTRANSACTION_ABORTED: blocker.activity = BlockerActivity::idle_in_transaction; break;
    case STATE_IDLE: blocker.activity = BlockerActivity::idle; break;
    default: return;
  }
  blocker.age_us = elapsed(GetCurrentTimestamp(), since);
}

void describe_blocker(std::int32_t pid, std::int64_t now_us, Blocker &blocker) {
  blocker.known = true;
  blocker.pid = pid;
  if (pid == 0) {
    blocker.activity = BlockerActivity::prepared;
    return;
  }
  const BackendSlot *pooled = find_pooled(pid);
  if (pooled != nullptr)
    describe_pooled(*pooled, now_us, blocker);
  else
    describe_other(pid, blocker);
  if (blocker.activity == BlockerActivity::executing) blocker.wait = wait_class_of(wait_event_of(pid));
}

void look_behind_locks(std::int64_t now_us, HeldBackend *held, const PoolObservation &seen, LockLookups &lookups) {
  const DiagnosisScope scope = find_scope(seen);
  LockChain chain;
  int chains = 0;

  for (std::size_t i = 0; i < seen.held_count && chains < kMostChains; i++) {
    if (held[i].wait != WaitClass::lock || !is_in_the_way(seen, scope, held[i])) continue;
    chains++;
    follow_lock_chain(held[i].pid, lookups, chain);
    if (chain.complete) describe_blocker(chain.pids[chain.length - 1], now_us, held[i].blocker);
  }
}

// ------------------------------------------------------------------ the whole

// May raise.
PoolDiagnosis look(std::uint32_t pool_index, LockLookups &lookups) {
  const SharedState &state = shared();
  const PoolSlot &pool = state.pools[pool_index];
  const std::int64_t now_us = coarse_monotonic_us();
  const std::int64_t nested_since_us = pool.nested_since_us.load(kRelaxed);
  auto *held = static_cast<HeldBackend *>(palloc(sizeof(HeldBackend) * state.header->backend_slots));
  PoolObservation seen;

  seen.pool = pool_index;
  seen.held = held;
  seen.max_size = pool.max_size.load(kRelaxed);
  seen.waiting = pool.queued.load(kRelaxed);
  seen.server_backends = state.header->backends.load(kRelaxed);
  seen.max_backends = static_cast<int>(state.header->max_backends);
  seen.cores = state.header->machine.cores.load(kRelaxed);
  seen.nested = nested_since_us != 0;
  seen.nested_threads = pool.nested_threads.load(kRelaxed);
  seen.nested_minimum = pool.nested_minimum.load(kRelaxed);
  look_at_backends(pool_index, now_us, held, seen);
  look_behind_locks(now_us, held, seen, lookups);
  return diagnose_pool(seen);
}

// Throws away what a process without a transaction would keep for ever.
void forget_activity() {
  if (!IsTransactionState()) pgstat_clear_backend_activity_snapshot();
}

}  // namespace

PoolDiagnosis look_at_pool(std::uint32_t pool_index, LockLookups &lookups) {
  PoolDiagnosis result;
  MemoryContext caller = CurrentMemoryContext;
  MemoryContext volatile scratch = nullptr;
  const uint32 holdoffs = InterruptHoldoffCount;
  const uint32 cancel_holdoffs = QueryCancelHoldoffCount;

  if (pool_index >= shared().header->max_pools) return result;
  // Out of memory, and what comes between while others' activity is read: a query that is
  // cancelled, a time limit.  Whoever has a transaction must hear of those; whoever has
  // none has nothing that could be cancelled, and cleans up here.  No LWLock is held by
  // callers.
  PG_TRY();
  {
    forget_activity();
    scratch = AllocSetContextCreate(caller, "pg_sluice diagnosis", ALLOCSET_DEFAULT_SIZES);
    MemoryContextSwitchTo(scratch);
    result = look(pool_index, lookups);
  }
  PG_CATCH();
  {
    if (IsTransactionState()) PG_RE_THROW();
    LWLockReleaseAll();
    InterruptHoldoffCount = holdoffs;
    QueryCancelHoldoffCount = cancel_holdoffs;
    FlushErrorState();
    result = PoolDiagnosis{};
  }
  PG_END_TRY();
  MemoryContextSwitchTo(caller);
  if (scratch != nullptr) MemoryContextDelete(scratch);
  forget_activity();
  return result;
}

const PoolDiagnosis &look_at_pool_lately(std::uint32_t pool_index, std::int64_t now_us) {
  struct Look {
    std::int64_t at_us;  // 0 = none
    std::uint32_t generation;
    PoolDiagnosis diagnosis;
  };
  static Look *looks = nullptr;  // [max_pools]
  static Look single;            // in need of memory
  static LockLookups lookups;    // of all pools
  static std::int64_t lookups_since_us = 0;
  const SharedState &state = shared();

  if (looks == nullptr)
    looks = static_cast<Look *>(MemoryContextAllocExtended(TopMemoryContext, sizeof(Look) * state.header->max_pools,
                                                           MCXT_ALLOC_ZERO | MCXT_ALLOC_NO_OOM));
  if (looks == nullptr) single.at_us = 0;
  Look &look = looks != nullptr ? looks[pool_index] : single;
  const std::uint32_t generation = state.pools[pool_index].generation.load(kRelaxed);
  if (look.at_us == 0 || look.generation != generation || now_us - look.at_us >= kLatelyUs) {
    if (now_us - lookups_since_us >= kLatelyUs) {
      lookups.count = 0;
      lookups_since_us = now_us;
    }
    look.diagnosis = look_at_pool(pool_index, lookups);
    look.generation = generation;
    look.at_us = now_us;
  }
  return look.diagnosis;
}

void hide_from_role(PoolDiagnosis &diagnosis, Oid role) {
  if (diagnosis.blocker.role_oid != role) hide_blocker(diagnosis);
  if (role_of_pool(diagnosis.worst_pool) != role) hide_worst_pool(diagnosis);
}

void append_pool_verdict(StringInfo text, std::uint32_t pool_index, LockLookups &lookups) {
  PoolDiagnosis diagnosis = look_at_pool(pool_index, lookups);
  if (!may_see_details(diagnosis.blocker.role_oid)) hide_blocker(diagnosis);
  if (!may_see_details(role_of_pool(diagnosis.worst_pool))) hide_worst_pool(diagnosis);
  append_verdict(text, diagnosis);
}

}  // namespace sluice::pg
