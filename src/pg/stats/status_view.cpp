// SPDX-License-Identifier: PostgreSQL
//
// sluice.status: one row about the whole.
//
// As in sluice.pools, what is in use is counted by looking at the slots.

#include "pg/stats/view_row.hpp"

#include "pg/shared_memory.hpp"

namespace sluice::pg {

namespace {

struct SlotCounts {
  std::int32_t clients;
  std::int32_t unauthenticated;
  std::int32_t backends;
  std::int32_t pools;
};

SlotCounts count_slots_in_use() {
  const SharedState &state = shared();
  SlotCounts counts = {};
  for (std::uint32_t i = 0; i < state.header->max_clients; i++) {
    const auto client = ClientWord::unpack(state.clients[i].word.load(std::memory_order_relaxed)).state;
    counts.clients += client != ClientState::free ? 1 : 0;
    counts.unauthenticated += client == ClientState::authenticating ? 1 : 0;
  }
  for (std::uint32_t i = 0; i < state.header->backend_slots; i++) {
    const auto backend = static_cast<BackendState>(state.backends[i].state.load(std::memory_order_relaxed));
    counts.backends += backend != BackendState::free && backend != BackendState::failed ? 1 : 0;
  }
  for (std::uint32_t i = 0; i < state.header->max_pools; i++) {
    const auto pool = static_cast<PoolState>(state.pools[i].state.load(std::memory_order_relaxed));
    counts.pools += pool == PoolState::open ? 1 : 0;
  }
  return counts;
}

}  // namespace

extern "C" {

PG_FUNCTION_INFO_V1(sluice_status);

PGDLLEXPORT Datum sluice_status(PG_FUNCTION_ARGS) {
  require_shared_memory();
  InitMaterializedSRF(fcinfo, 0);

  const SharedHeader &header = *shared().header;
  const SlotCounts counts = count_slots_in_use();
  const std::int32_t port = header.port.load(std::memory_order_relaxed);
  const std::int32_t dispatcher_pid = header.dispatcher_pid.load(std::memory_order_relaxed);
  const std::int32_t statistician_pid = header.statistician_pid.load(std::memory_order_relaxed);

  ViewRow row;
  start_row(row);
  put_int_or_null(row, port, port != 0);
  put_int_or_null(row, dispatcher_pid, dispatcher_pid != 0);
  put_int_or_null(row, statistician_pid, statistician_pid != 0);
  put_int(row, counts.clients);
  put_int(row, static_cast<std::int32_t>(header.max_clients));
  put_int(row, counts.unauthenticated);
  put_int(row, counts.backends);
  put_int(row, static_cast<std::int32_t>(header.max_backends));
  put_int(row, counts.pools);
  put_int(row, static_cast<std::int32_t>(header.max_pools));
  put_bigint(row, header.connections_total.load(std::memory_order_relaxed));
  put_bigint(row, header.connections_refused.load(std::memory_order_relaxed));
  put_bigint(row, header.authentication_failures.load(std::memory_order_relaxed));
  put_bigint(row, header.protocol_violations.load(std::memory_order_relaxed));
  put_timestamp(row, header.started_at.load(std::memory_order_relaxed));
  emit_row(fcinfo, row);
  return static_cast<Datum>(0);
}

}  // extern "C"

}  // namespace sluice::pg
