// SPDX-License-Identifier: PostgreSQL
#include "pg/compat.hpp"

#include "pg/pool/hold_watch.hpp"

extern "C" {
#include "mb/pg_wchar.h"
#include "pgstat.h"
#include "utils/backend_status.h"
#include "utils/memutils.h"
}

#include "core/pool/leak.hpp"
#include "core/pool/nested_acquire.hpp"
#include "core/stats/pool_totals.hpp"
#include "pg/accept/client_registry.hpp"
#include "pg/shared_memory.hpp"
#include "pg/stats/event_log.hpp"

namespace sluice::pg {

constexpr std::int64_t kNestedLookUs = 50'000;
constexpr std::int64_t kLeakLookUs = 250'000;
constexpr std::int64_t kUsualThinkingUs = 1'000'000;
constexpr int kLoggedQueryBytes = 1024;

static std::int64_t next_nested_look_us = 0;
static std::int64_t next_leak_look_us = 0;

static BackendState state_of(const BackendSlot &backend) { return static_cast<BackendState>(backend.state.load()); }

static bool server_is_full() {
  const SharedHeader &header = *shared().header;
  return header.backends.load() >= static_cast<std::int32_t>(header.max_backends);
}

// The client that a backend holds, or null.
static const ClientSlot *client_of(const BackendSlot &backend) {
  const std::uint32_t client = backend.client.load();
  return client < shared().header->max_clients ? &shared().clients[client] : nullptr;
}

// ------------------------------------------------------------------ leaks

static void log_leak(const BackendSlot &backend, const PoolSlot &pool, const ClientSlot &client,
                     const HoldObservation &hold, bool thinking) {
  const std::int32_t pid = backend.pid.load();
  const char *query = pgstat_get_backend_current_activity(pid, false);
  const int length = static_cast<int>(strnlen(query, kLoggedQueryBytes));
  ereport(LOG,
          (errmsg_plural("client %u of pool \"%s/%s\" has held backend %d for " INT64_FORMAT
                         " ms while %d client waits",
                         "client %u of pool \"%s/%s\" has held backend %d for " INT64_FORMAT
                         " ms while %d clients wait",
                         static_cast<unsigned long>(hold.waiting), backend.client.load(), pool.role, pool.database, pid,
                         hold.held_us / 1000, hold.waiting),
           errdetail("Its application is \"%s\". The transaction is %s. Latest query: %.*s", client.application_name,
                     thinking ? "idle" : "executing", pg_mbcliplen(query, length, length), query),
           errhint("See the view sluice.holders. \"sluice.leak_threshold\" is %d ms.",
                   static_cast<int>(hold.threshold_us / 1000))));
}

static void log_leak_event(const BackendSlot &backend, const HoldObservation &hold, bool thinking) {
  char reason[kEventReasonLength];
  snprintf(reason, sizeof(reason), "held for " INT64_FORMAT " ms, %d waiting, transaction %s",
           hold.held_us / 1000, hold.waiting, thinking ? "idle" : "executing");
  log_event(EventKind::leak, backend.pool.load(), backend.pid.load(),
            static_cast<std::int32_t>(backend.client.load()), reason);
}

static void look_for_leak(std::uint32_t index, std::int64_t now_us, bool server_full, int waiting_anywhere) {
  BackendSlot &backend = shared().backends[index];
  const BackendState state = state_of(backend);
  if (state != BackendState::thinking && state != BackendState::active) return;
  const ClientSlot *client = client_of(backend);
  const std::int64_t since_us = backend.transaction_since_us.load(std::memory_order_relaxed);
  if (client == nullptr || since_us == 0) return;

  PoolSlot &pool = shared().pools[backend.pool.load()];
  HoldObservation hold;
  hold.held_us = now_us - since_us;
  hold.threshold_us = std::int64_t{pool.leak_threshold_ms.load()} * 1000;
  // Those that need this backend: of its own pool, or of any if the server is full.
  hold.waiting = server_full ? waiting_anywhere : pool.queued.load();
  hold.reported = backend.leaked_transaction_us.load(std::memory_order_relaxed) == since_us;
  if (!is_leak(hold)) return;
  backend.leaked_transaction_us.store(since_us);
  pool.leaks.fetch_add(1);
  log_leak(backend, pool, *client, hold, state == BackendState::thinking);
  log_leak_event(backend, hold, state == BackendState::thinking);
}

// In a memory context of its own: the dispatcher's lives as long as it does, and
// texts of queries are copied.
static void look_for_leaks(std::int64_t now_us) {
  static MemoryContext scratch = nullptr;
  if (scratch == nullptr) scratch = AllocSetContextCreate(TopMemoryContext, "pg_sluice leaks", ALLOCSET_SMALL_SIZES);
  const MemoryContext caller = MemoryContextSwitchTo(scratch);
  SharedState &state = shared();
  int waiting = 0;
  for (std::uint32_t i = 0; i < state.header->max_pools; i++)
    if (is_open(state.pools[i])) waiting += Max(state.pools[i].queued.load(), 0);
  const bool full = server_is_full();
  for (std::uint32_t i = 0; i < state.header->backend_slots; i++) look_for_leak(i, now_us, full, waiting);
  MemoryContextSwitchTo(caller);
  MemoryContextReset(scratch);
}

// ------------------------------------------------------------------ nested acquires

// What the looks need.  [max_pools] each, made at the first one.
static bool *concerned = nullptr;              // have clients that may be waiting for themselves
static std::int64_t *last_seen_us = nullptr;   // the latest case
static PoolTotals *totals = nullptr;

static void allocate() {
  const std::size_t pools = shared().header->max_pools;
  concerned = static_cast<bool *>(MemoryContextAllocZero(TopMemoryContext, pools * sizeof(bool)));
  last_seen_us = static_cast<std::int64_t *>(MemoryContextAllocZero(TopMemoryContext, pools * sizeof(std::int64_t)));
  totals = static_cast<PoolTotals *>(MemoryContextAllocZero(TopMemoryContext, sizeof(PoolTotals)));
}

static std::uint64_t identity_of(const ClientSlot &client) {
  return identify_client(client.address, client.peer_pid, client.application_name);
}

static void add_backend(NestedAcquireSearch &search, const BackendSlot &backend, std::int64_t now_us) {
  switch (state_of(backend)) {
    case BackendState::free:
    case BackendState::failed:
    case BackendState::pinned:  // bound by something else, and nobody's second connection waits for it
      return;
    case BackendState::thinking:
      break;
    default:  // in session mode also a client that is idle: it may come back at any time
      return search.add_busy();
  }
  const ClientSlot *client = client_of(backend);
  if (client == nullptr) return search.add_busy();
  search.add_holder(identity_of(*client), static_cast<std::uint32_t>(client - shared().clients),
                    now_us - backend.state_since_us.load(std::memory_order_relaxed));
}

// How long clients think, at most, nearly always.  Worth a few hundred microseconds,
// and therefore not looked up at each look.
static std::int64_t usual_thinking_us(std::int64_t now_us) {
  static std::int64_t looked_us = 0;
  static std::int64_t usual_us = 0;

  if (looked_us != 0 && now_us - looked_us < kUsualThinkingUs) return usual_us;
  HistogramCounts thinking;
  for (std::uint32_t i = 0; i < shared().header->max_pools; i++) {
    if (!is_open(shared().pools[i])) continue;
    collect_pool_totals(shared(), i, true, *totals);
    thinking.add(totals->times[static_cast<std::size_t>(Measure::thinking)]);
  }
  looked_us = now_us;
  usual_us = static_cast<std::int64_t>(thinking.percentile(0.95));
  return usual_us;
}

static NestedAcquire search_nested_acquire(std::int64_t now_us) {
  const SharedState &state = shared();
  NestedAcquireSearch search;

  memset(concerned, 0, state.header->max_pools * sizeof(bool));
  for (std::uint32_t i = 0; i < state.header->backend_slots; i++)
    add_backend(search, state.backends[i], now_us);
  for (std::uint32_t i = 0; i < client_high_water(); i++) {
    const ClientSlot &client = state.clients[i];
    const std::uint32_t pool = client.pool.load(std::memory_order_relaxed);
    if (ClientWord::unpack(client.word.load(std::memory_order_relaxed)).state != ClientState::ready ||
        pool >= state.header->max_pools)
      continue;
    if (search.add_waiter(identity_of(client))) concerned[pool] = true;
  }
  const NestedAcquire nested = search.decide(kLeastNestedPatienceUs);
  return nested.probable ? search.decide(nested_patience_us(usual_thinking_us(now_us))) : nested;
}

static void report_nested_acquire(const PoolSlot &pool, const NestedAcquire &nested) {
  ereport(LOG,
          (errmsg("clients of pool \"%s/%s\" probably wait for themselves: all backends are held by applications that "
                  "wait for another one",
                  pool.role, pool.database),
           errdetail("The application \"%s\" holds most. %d clients wait. Where each of Tn = %d threads may hold "
                     "Cm = 2 connections, Tn * (Cm - 1) + 1 = %d backends are needed.",
                     shared().clients[nested.client].application_name, nested.threads, nested.threads, nested.minimum),
           errhint("Let the application use one connection at a time, raise \"sluice.max_backends\", or raise "
                   "\"sluice.nested_reserve\".")));
}

static void log_nested_acquire_event(std::uint32_t pool_index, const NestedAcquire &nested) {
  char reason[kEventReasonLength];
  snprintf(reason, sizeof(reason), "probable: Tn = %d threads need %d backends", nested.threads, nested.minimum);
  log_event(EventKind::nested_acquire, pool_index, 0, static_cast<std::int32_t>(nested.client), reason);
}

// A reserve that starts ends the case for a moment; that is no other case.
static void note_nested_acquire(std::uint32_t pool_index, const NestedAcquire &nested, std::int64_t now_us) {
  PoolSlot &pool = shared().pools[pool_index];
  const bool is_same_case = last_seen_us[pool_index] != 0 && now_us - last_seen_us[pool_index] < kNestedCalmUs;
  if (!nested.probable) {
    pool.nested_since_us.store(0);
    return;
  }
  last_seen_us[pool_index] = now_us;
  pool.nested_until_us.store(now_us + kNestedCalmUs);
  if (nested.threads > pool.nested_threads.load()) {
    pool.nested_threads.store(nested.threads);
    pool.nested_minimum.store(nested.minimum);
  }
  if (pool.nested_since_us.load() == 0) pool.nested_since_us.store(now_us);
  if (is_same_case) return;
  pool.nested_acquires.fetch_add(1);
  report_nested_acquire(pool, nested);
  log_nested_acquire_event(pool_index, nested);
}

static void look_for_nested_acquires(std::int64_t now_us) {
  SharedState &state = shared();
  if (totals == nullptr) allocate();
  // As long as there is room on the server a pool grows for them: clients that think do not count against its size.
  const NestedAcquire nested = server_is_full() ? search_nested_acquire(now_us) : NestedAcquire{};
  for (std::uint32_t i = 0; i < state.header->max_pools; i++)
    if (is_open(state.pools[i])) note_nested_acquire(i, concerned[i] ? nested : NestedAcquire{}, now_us);
}

void watch_holds(std::int64_t now_us, bool clients_wait) {
  static bool clients_waited = false;

  // Once more after the last one has been served, to take back what was found.
  if (!clients_wait && !clients_waited) return;
  if (now_us >= next_nested_look_us) {
    next_nested_look_us = now_us + kNestedLookUs;
    look_for_nested_acquires(now_us);
    clients_waited = clients_wait;
  }
  if (clients_wait && now_us >= next_leak_look_us) {
    next_leak_look_us = now_us + kLeakLookUs;
    look_for_leaks(now_us);
  }
}

}  // namespace sluice::pg
