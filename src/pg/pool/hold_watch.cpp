// SPDX-License-Identifier: PostgreSQL
#include "pg/compat.hpp"

#include "pg/pool/hold_watch.hpp"

extern "C" {
#include "mb/pg_wchar.h"
#include "pgstat.h"
#include "utils/backend_status.h"
}

#include "core/pool/leak.hpp"
#include "core/pool/nested_acquire.hpp"
#include "pg/accept/client_registry.hpp"
#include "pg/shared_memory.hpp"

namespace sluice::pg {

constexpr std::int64_t kNestedLookUs = 50'000;
constexpr std::int64_t kLeakLookUs = 250'000;
constexpr int kLoggedQueryBytes = 1024;

static std::int64_t next_nested_look_us = 0;
static std::int64_t next_leak_look_us = 0;

static BackendState state_of(const BackendSlot &backend) { return static_cast<BackendState>(backend.state.load()); }

static bool is_open(const PoolSlot &pool) { return pool.state.load() == static_cast<std::uint32_t>(PoolState::open); }

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
  // The text stays where it is for as long as the process does; a torn one does no harm in a log.
  const char *query = pgstat_get_backend_current_activity(pid, false);
  const int length = static_cast<int>(strnlen(query, kLoggedQueryBytes));
  ereport(LOG,
          (errmsg("client %u of pool \"%s/%s\" has held backend %d for " INT64_FORMAT " ms while %d clients wait",
                  backend.client.load(), pool.role, pool.database, pid, hold.held_us / 1000, hold.waiting),
           errdetail("Its application is \"%s\". The transaction is %s. Latest query: %.*s", client.application_name,
                     thinking ? "idle" : "executing", pg_mbcliplen(query, length, length), query),
           errhint("See the view sluice.holders. \"sluice.leak_threshold\" is %d ms.",
                   static_cast<int>(hold.threshold_us / 1000))));
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
}

static void look_for_leaks(std::int64_t now_us) {
  SharedState &state = shared();
  int waiting = 0;
  for (std::uint32_t i = 0; i < state.header->max_pools; i++)
    if (is_open(state.pools[i])) waiting += Max(state.pools[i].queued.load(), 0);
  const bool full = server_is_full();
  for (std::uint32_t i = 0; i < state.header->backend_slots; i++) look_for_leak(i, now_us, full, waiting);
}

// ------------------------------------------------------------------ nested acquires

// Everybody's pool.
constexpr std::uint32_t kAllPools = kNoIndex;

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
    case BackendState::held:
      break;
    default:
      return search.add_busy();
  }
  const ClientSlot *client = client_of(backend);
  if (client == nullptr) return search.add_busy();
  search.add_holder(identity_of(*client), now_us - backend.state_since_us.load(std::memory_order_relaxed));
}

static NestedAcquire search_nested_acquire(std::uint32_t pool_index, std::int64_t now_us) {
  const SharedState &state = shared();
  NestedAcquireSearch search;

  for (std::uint32_t i = 0; i < state.header->backend_slots; i++)
    if (pool_index == kAllPools || state.backends[i].pool.load() == pool_index)
      add_backend(search, state.backends[i], now_us);
  for (std::uint32_t i = 0; i < client_high_water(); i++) {
    const ClientSlot &client = state.clients[i];
    if (ClientWord::unpack(client.word.load(std::memory_order_relaxed)).state == ClientState::ready &&
        (pool_index == kAllPools || client.pool.load(std::memory_order_relaxed) == pool_index))
      search.add_waiter(identity_of(client));
  }
  return search.decide();
}

static void report_nested_acquire(const PoolSlot &pool, const NestedAcquire &nested) {
  ereport(LOG,
          (errmsg("clients of pool \"%s/%s\" probably wait for themselves: all backends are held by applications that "
                  "wait for another one",
                  pool.role, pool.database),
           errdetail("%d clients wait. Where each of Tn = %d threads may hold Cm = 2 connections, Tn * (Cm - 1) + 1 = "
                     "%d backends are needed.",
                     nested.threads, nested.threads, nested.minimum),
           errhint("Let the application use one connection at a time, raise \"sluice.max_backends\", or set "
                   "\"sluice.nested_reserve\".")));
}

static void note_nested_acquire(std::uint32_t pool_index, const NestedAcquire &nested, std::int64_t now_us) {
  PoolSlot &pool = shared().pools[pool_index];
  if (!nested.probable) {
    pool.nested_since_us.store(0);
    return;
  }
  pool.nested_threads.store(nested.threads);
  pool.nested_minimum.store(nested.minimum);
  if (pool.nested_since_us.load() != 0) return;
  pool.nested_since_us.store(now_us);
  pool.nested_acquires.fetch_add(1);
  report_nested_acquire(pool, nested);
}

// Only in session mode do clients whose turn it is count against their pool's size.
static bool is_full_of_sessions(const PoolSlot &pool) {
  return pool.mode.load() == static_cast<std::int32_t>(PoolMode::session) &&
         pool.backends.load() >= pool.max_size.load();
}

static void look_for_nested_acquires(std::int64_t now_us) {
  SharedState &state = shared();
  const bool full = server_is_full();
  const NestedAcquire everywhere = full ? search_nested_acquire(kAllPools, now_us) : NestedAcquire{};
  for (std::uint32_t i = 0; i < state.header->max_pools; i++) {
    PoolSlot &pool = state.pools[i];
    if (!is_open(pool)) continue;
    NestedAcquire nested;
    if (pool.queued.load() > 0) {
      nested = everywhere;
      if (!nested.probable && is_full_of_sessions(pool)) nested = search_nested_acquire(i, now_us);
    }
    note_nested_acquire(i, nested, now_us);
  }
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
