// SPDX-License-Identifier: PostgreSQL
//
// sluice.pools: a row for each open pool.
//
// Backends and clients are counted by looking at their slots, which are the
// truth, and not at the gauges of the pool, which are hints for the hand-over.
// One pass over each array counts for all pools at once; 10,000 client slots
// cost some tens of microseconds.

#include "pg/stats/view_row.hpp"

#include "core/stats/pool_totals.hpp"
#include "pg/shared_memory.hpp"
#include "pg/stats/snapshot.hpp"
#include "pg/stats/state_words.hpp"

namespace sluice::pg {

namespace {

struct PoolCounts {
  std::int32_t active;
  std::int32_t idle;
  std::int32_t in_transaction;
  std::int32_t held;
  std::int32_t pinned;
  std::int32_t starting;
  std::int32_t retiring;
  std::int32_t clients;
  std::int32_t waiting;

  std::int32_t backends() const { return active + idle + in_transaction + held + pinned + starting + retiring; }
};

void count_backend(PoolCounts &counts, BackendState state) {
  switch (state) {
    case BackendState::starting:
      counts.starting++;
      break;
    case BackendState::waiting:
    case BackendState::lingering:
      counts.idle++;
      break;
    case BackendState::assigned:
    case BackendState::active:
      counts.active++;
      break;
    case BackendState::thinking:
      counts.in_transaction++;
      break;
    case BackendState::held:
      counts.held++;
      break;
    case BackendState::pinned:
      counts.pinned++;
      break;
    case BackendState::retiring:
      counts.retiring++;
      break;
    case BackendState::free:
    case BackendState::failed:
      break;
  }
}

// An array of max_pools counts, in the current memory context.
PoolCounts *count_slots() {
  const SharedState &state = shared();
  const std::uint32_t pools = state.header->max_pools;
  auto *counts = static_cast<PoolCounts *>(palloc0(pools * sizeof(PoolCounts)));

  for (std::uint32_t i = 0; i < state.header->backend_slots; i++) {
    const BackendSlot &backend = state.backends[i];
    const auto backend_state = static_cast<BackendState>(backend.state.load(std::memory_order_acquire));
    const std::uint32_t pool = backend.pool.load(std::memory_order_relaxed);
    if (backend_state != BackendState::free && pool < pools) {
      count_backend(counts[pool], backend_state);
    }
  }
  for (std::uint32_t i = 0; i < state.header->max_clients; i++) {
    const ClientSlot &client = state.clients[i];
    const ClientState client_state = ClientWord::unpack(client.word.load(std::memory_order_acquire)).state;
    if (client_state == ClientState::free || client_state == ClientState::authenticating) {
      continue;
    }
    const std::uint32_t pool = client.pool.load(std::memory_order_relaxed);
    if (pool < pools) {
      counts[pool].clients++;
      counts[pool].waiting += client_state == ClientState::ready ? 1 : 0;
    }
  }
  return counts;
}

void put_counts(ViewRow &row, const PoolCounts &counts) {
  put_int(row, counts.backends());
  put_int(row, counts.active);
  put_int(row, counts.idle);
  put_int(row, counts.in_transaction);
  put_int(row, counts.held);
  put_int(row, counts.pinned);
  put_int(row, counts.starting);
  put_int(row, counts.retiring);
  put_int(row, counts.clients);
  put_int(row, counts.waiting);
}

void put_waits(ViewRow &row, const HistogramCounts &waits) {
  const bool recorded = waits.total > 0;
  put_bigint_or_null(row, waits.percentile(0.50), recorded);
  put_bigint_or_null(row, waits.percentile(0.95), recorded);
  put_bigint_or_null(row, waits.percentile(0.99), recorded);
  put_bigint_or_null(row, waits.max, recorded);
}

void put_counters(ViewRow &row, const PoolSlot &pool, const PoolTotals &totals) {
  put_bigint(row, totals.transactions);
  put_bigint(row, totals.leases);
  put_bigint(row, totals.waits);
  put_waits(row, totals.times[static_cast<std::size_t>(Measure::wait)]);
  put_bigint(row, pool.acquire_timeouts.load(std::memory_order_relaxed));
  put_bigint(row, pool.starts.load(std::memory_order_relaxed));
  put_bigint(row, pool.start_failures.load(std::memory_order_relaxed));
  put_bigint(row, pool.starts_elided.load(std::memory_order_relaxed));
  put_bigint(row, pool.retirements.load(std::memory_order_relaxed));
  put_bigint(row, pool.clients_total.load(std::memory_order_relaxed));
  put_bigint(row, pool.cancels.load(std::memory_order_relaxed));
  put_bigint(row, pool.clients_lost.load(std::memory_order_relaxed));
  for (const std::atomic<std::uint64_t> &pins : pool.pins) {
    put_bigint(row, pins.load(std::memory_order_relaxed));
  }
  put_bigint(row, pool.pins_refused.load(std::memory_order_relaxed));
  put_bigint(row, pool.pin_timeouts.load(std::memory_order_relaxed));
  put_bigint(row, pool.leaks.load(std::memory_order_relaxed));
  put_bigint(row, pool.nested_acquires.load(std::memory_order_relaxed));
  put_int(row, pool.peak_waiting.load(std::memory_order_relaxed));
  put_int(row, pool.peak_backends.load(std::memory_order_relaxed));
}

}  // namespace

extern "C" {

PG_FUNCTION_INFO_V1(sluice_pools);

PGDLLEXPORT Datum sluice_pools(PG_FUNCTION_ARGS) {
  require_shared_memory();
  InitMaterializedSRF(fcinfo, 0);

  const SharedState &state = shared();
  const PoolCounts *counts = count_slots();
  auto *totals = static_cast<PoolTotals *>(palloc(sizeof(PoolTotals)));
  for (std::uint32_t i = 0; i < state.header->max_pools; i++) {
    const PoolSlot &pool = state.pools[i];
    const std::uint32_t generation = pool.generation.load(std::memory_order_acquire);
    PoolNames names;
    if (!copy_pool_names(i, names)) {
      continue;
    }
    ViewRow row;
    start_row(row);
    put_name_or_null(row, names.database, true);
    put_name_or_null(row, names.role, true);
    put_text(row, pool_mode_word(static_cast<PoolMode>(pool.mode.load(std::memory_order_relaxed))));
    put_counts(row, counts[i]);
    put_int(row, pool.min_size.load(std::memory_order_relaxed));
    put_int(row, pool.max_size.load(std::memory_order_relaxed));
    collect_pool_totals(state, i, true, *totals);
    put_counters(row, pool, *totals);
    put_timestamp(row, pool.created_at);
    put_timestamp(row, pool.statistics_since_at.load(std::memory_order_relaxed));

    std::atomic_thread_fence(std::memory_order_acquire);
    if (pool.generation.load(std::memory_order_relaxed) == generation) {
      emit_row(fcinfo, row);
    }
  }
  return static_cast<Datum>(0);
}

}  // extern "C"

}  // namespace sluice::pg
