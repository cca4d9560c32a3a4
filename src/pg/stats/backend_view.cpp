// SPDX-License-Identifier: PostgreSQL
//
// sluice.backends: a row for each backend slot in use.
//
// What a backend executes and waits for is already in pg_stat_activity, in which
// pooled backends appear like any other: join on pid.  A backend that could not
// start keeps its slot, with the reason, until the dispatcher has told the
// clients that waited for it.

#include "pg/stats/view_row.hpp"

#include <cstring>

#include "core/pool/growth_governor.hpp"
#include "pg/accept/dispatcher.hpp"
#include "pg/shared_memory.hpp"
#include "pg/stats/snapshot.hpp"
#include "pg/stats/state_words.hpp"

namespace sluice::pg {

namespace {

// A copy of what a row shows, taken before anything that allocates.
struct BackendCopy {
  BackendState state;
  std::int32_t pid;
  std::uint32_t pool;
  std::uint32_t client;
  std::uint32_t client_generation;
  std::uint32_t pins;  // of that client
  std::int64_t state_since_us;
  std::int64_t lease_since_us;
  TimestampTz started_at;
  std::int64_t expires_us;
  std::uint64_t transactions;
  RetireReason retire_reason;
  char failure_sqlstate[sizeof(BackendSlot::failure_sqlstate)];
  char failure_message[kFailureLength];
};

// What the client of a lease is pinned by; 0 if that client has left.
std::uint32_t copy_pins(std::uint32_t slot, std::uint32_t generation) {
  const SharedState &state = shared();
  if (slot >= state.header->max_clients) {
    return 0;
  }
  const ClientSlot &client = state.clients[slot];
  const std::uint32_t pins = client.pins.load(std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_acquire);
  return ClientWord::unpack(client.word.load(std::memory_order_relaxed)).generation == generation ? pins : 0;
}

// False if the slot is free, or was given to another process meanwhile.
bool copy_backend(const BackendSlot &backend, BackendCopy &copy) {
  const std::uint32_t generation = backend.generation.load(std::memory_order_acquire);
  copy.state = static_cast<BackendState>(backend.state.load(std::memory_order_acquire));
  if (copy.state == BackendState::free) {
    return false;
  }
  copy.pid = backend.pid.load(std::memory_order_relaxed);
  copy.pool = backend.pool.load(std::memory_order_relaxed);
  copy.client = backend.client.load(std::memory_order_relaxed);
  copy.client_generation = backend.client_generation.load(std::memory_order_relaxed);
  copy.pins = copy_pins(copy.client, copy.client_generation);
  copy.state_since_us = backend.state_since_us.load(std::memory_order_relaxed);
  copy.lease_since_us = backend.lease_since_us.load(std::memory_order_relaxed);
  copy.started_at = backend.started_at.load(std::memory_order_relaxed);
  copy.expires_us = backend.expires_us.load(std::memory_order_relaxed);
  copy.transactions = backend.transactions.load(std::memory_order_relaxed);
  copy.retire_reason = static_cast<RetireReason>(backend.retire_requested.load(std::memory_order_relaxed));
  memcpy(copy.failure_sqlstate, backend.failure_sqlstate, sizeof(copy.failure_sqlstate));
  copy.failure_sqlstate[sizeof(copy.failure_sqlstate) - 1] = '\0';
  memcpy(copy.failure_message, backend.failure_message, sizeof(copy.failure_message));
  copy.failure_message[sizeof(copy.failure_message) - 1] = '\0';

  std::atomic_thread_fence(std::memory_order_acquire);
  return backend.generation.load(std::memory_order_relaxed) == generation;
}

// What the client of a lease calls itself; false if that client has left.
bool copy_application_name(std::uint32_t slot, std::uint32_t generation, char (&name)[kNameLength]) {
  const SharedState &state = shared();
  if (slot >= state.header->max_clients) {
    return false;
  }
  const ClientSlot &client = state.clients[slot];
  copy_name(name, client.application_name);
  std::atomic_thread_fence(std::memory_order_acquire);
  const ClientWord word = ClientWord::unpack(client.word.load(std::memory_order_relaxed));
  return word.state != ClientState::free && word.generation == generation;
}

void put_backend(ViewRow &row, std::uint32_t slot, const BackendCopy &backend, std::int64_t now_us) {
  PoolNames names;
  const bool in_pool = copy_pool_names(backend.pool, names);
  const bool details = may_see_details(names.role_oid);
  const bool leased = backend.client != kNoIndex;
  const bool failed = backend.state == BackendState::failed;
  char application_name[kNameLength];
  const bool has_name =
      leased && details && copy_application_name(backend.client, backend.client_generation, application_name);
  const double process_age_ms = age_ms(GetCurrentTimestamp(), backend.started_at);  // both in microseconds
  const double expires_in_s = age_ms(backend.expires_us, now_us) / 1000.0;

  put_int(row, static_cast<std::int32_t>(slot));
  put_int_or_null(row, backend.pid, backend.pid != 0);
  put_name_or_null(row, names.database, in_pool);
  put_name_or_null(row, names.role, in_pool);
  put_text(row, backend_state_word(backend.state));
  put_int_or_null(row, static_cast<std::int32_t>(backend.client), leased);
  put_text_or_null(row, application_name, has_name);
  put_pins(row, backend.pins);
  put_double(row, age_ms(now_us, backend.state_since_us));
  put_double_or_null(row, age_ms(now_us, backend.lease_since_us), leased);
  put_timestamp(row, backend.started_at);
  put_double_or_null(row, process_age_ms, backend.started_at != 0);
  put_double_or_null(row, expires_in_s, backend.expires_us != 0);
  put_bigint(row, backend.transactions);
  put_text_or_null(row, describe(backend.retire_reason), backend.retire_reason != RetireReason::none);
  put_text_or_null(row, backend.failure_sqlstate, failed);
  put_text_or_null(row, backend.failure_message, failed && details);
}

}  // namespace

extern "C" {

PG_FUNCTION_INFO_V1(sluice_backends);

PGDLLEXPORT Datum sluice_backends(PG_FUNCTION_ARGS) {
  require_shared_memory();
  InitMaterializedSRF(fcinfo, 0);

  const SharedState &state = shared();
  const std::int64_t now_us = coarse_monotonic_us();
  for (std::uint32_t i = 0; i < state.header->backend_slots; i++) {
    BackendCopy backend;
    if (!copy_backend(state.backends[i], backend)) {
      continue;
    }
    ViewRow row;
    start_row(row);
    put_backend(row, i, backend, now_us);
    emit_row(fcinfo, row);
  }
  return static_cast<Datum>(0);
}

}  // extern "C"

}  // namespace sluice::pg
