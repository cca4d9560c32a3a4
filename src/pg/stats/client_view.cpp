// SPDX-License-Identifier: PostgreSQL
//
// sluice.clients: a row for each client slot in use.
//
// Everyone may see that a client exists, in which pool and in which state; where
// it comes from, what it calls itself and the process number it was told is for
// those who may see the same in pg_stat_activity.

#include "pg/stats/view_row.hpp"

extern "C" {
#include "mb/pg_wchar.h"
}

#include "pg/accept/dispatcher.hpp"
#include "pg/shared_memory.hpp"
#include "pg/stats/snapshot.hpp"
#include "pg/stats/state_words.hpp"

namespace sluice::pg {

namespace {

// The process that serves a leased client; 0 if it is not known.
std::int32_t pid_of_backend(std::uint32_t backend) {
  const SharedState &state = shared();
  return backend < state.header->backend_slots ? state.backends[backend].pid.load(std::memory_order_relaxed) : 0;
}

// A copy of what a row shows, taken before anything that allocates.
struct ClientCopy {
  ClientWord word;
  std::uint32_t pool;
  std::uint32_t flags;
  std::int64_t state_since_us;
  std::int64_t ready_since_us;
  std::uint64_t transactions;
  std::uint64_t waited_us;
  std::uint32_t pins;
  std::int64_t pinned_since_us;
  TimestampTz connected_at;
  std::uint32_t cancel_pid;
  ClientAddress address;
  TlsFacts tls;  // if the flags say so
  char application_name[kNameLength];
};

// False if the slot is free, or was given to another client meanwhile.
bool copy_client(std::uint32_t slot, ClientCopy &copy) {
  const ClientSlot &client = shared().clients[slot];
  copy.word = ClientWord::unpack(client.word.load(std::memory_order_acquire));
  if (copy.word.state == ClientState::free) {
    return false;
  }
  copy.pool = client.pool.load(std::memory_order_relaxed);
  copy.flags = client.flags.load(std::memory_order_acquire);  // before the facts they speak of
  copy.state_since_us = client.state_since_us.load(std::memory_order_relaxed);
  copy.ready_since_us = client.ready_since_us.load(std::memory_order_relaxed);
  copy.transactions = client.transactions.load(std::memory_order_relaxed);
  copy.waited_us = client.waited_us.load(std::memory_order_relaxed);
  copy.pins = client.pins.load(std::memory_order_relaxed);
  copy.pinned_since_us = client.pinned_since_us.load(std::memory_order_relaxed);
  copy.connected_at = client.connected_at;
  copy.cancel_pid = client.cancel_pid.load(std::memory_order_relaxed);
  copy.address = client.address;
  if ((copy.flags & kClientTls) != 0) copy.tls = shared().tls[slot];
  copy_name(copy.application_name, client.application_name);

  std::atomic_thread_fence(std::memory_order_acquire);
  return ClientWord::unpack(client.word.load(std::memory_order_relaxed)).generation == copy.word.generation;
}

// Names of certificates are UTF-8, and their owners' choice.
void put_certificate_name(ViewRow &row, char *name, bool present) {
  if (present && (GetDatabaseEncoding() != PG_UTF8 || !pg_verifymbstr(name, static_cast<int>(strlen(name)), true)))
    for (char *byte = name; *byte != '\0'; byte++)
      if (IS_HIGHBIT_SET(*byte)) *byte = '?';
  put_text_or_null(row, name, present);
}

void put_tls(ViewRow &row, ClientCopy &client, bool may_see) {
  const bool encrypted = may_see && (client.flags & kClientTls) != 0;
  const bool certified = encrypted && client.tls.client_dn[0] != '\0';

  if (may_see)
    put_bool(row, encrypted);
  else
    put_null(row);
  put_text_or_null(row, (client.flags & kClientKernelTls) != 0 ? "kernel" : "dispatcher", encrypted);
  put_text_or_null(row, client.tls.version, encrypted);
  put_text_or_null(row, client.tls.cipher, encrypted);
  put_int_or_null(row, client.tls.bits, encrypted);
  put_certificate_name(row, client.tls.client_dn, certified);
  if (certified && client.tls.client_serial[0] != '\0')
    put_numeric(row, client.tls.client_serial);
  else
    put_null(row);
  put_certificate_name(row, client.tls.issuer_dn, certified);
}

void put_client(ViewRow &row, std::uint32_t slot, ClientCopy &client, std::int64_t now_us) {
  PoolNames names;
  const bool in_pool = copy_pool_names(client.pool, names);
  const bool details = may_see_details(names.role_oid);
  const bool leased = client.word.state == ClientState::leased;
  const bool waiting = client.word.state == ClientState::ready && client.ready_since_us != 0;
  const std::int32_t backend_pid = leased ? pid_of_backend(client.word.backend) : 0;

  put_int(row, static_cast<std::int32_t>(slot));
  put_name_or_null(row, names.database, in_pool);
  put_name_or_null(row, names.role, in_pool);
  put_text(row, client_state_word(client.word.state));
  put_text_or_null(row, client.application_name, details);
  put_address(row, client.address, details);
  put_int_or_null(row, backend_pid, backend_pid != 0);
  put_timestamp(row, client.connected_at);
  put_double(row, age_ms(now_us, client.state_since_us));
  put_double_or_null(row, age_ms(now_us, client.ready_since_us), waiting);
  put_bigint(row, client.transactions);
  put_bigint(row, client.waited_us);
  put_bool(row, leased && (client.flags & kClientHeld) != 0);
  put_pins(row, client.pins);
  put_double_or_null(row, age_ms(now_us, client.pinned_since_us), client.pins != 0 && client.pinned_since_us != 0);
  put_int_or_null(row, static_cast<std::int32_t>(client.cancel_pid), details && client.cancel_pid != 0);
  put_tls(row, client, details && in_pool);
}

}  // namespace

extern "C" {

PG_FUNCTION_INFO_V1(sluice_clients);

PGDLLEXPORT Datum sluice_clients(PG_FUNCTION_ARGS) {
  require_shared_memory();
  InitMaterializedSRF(fcinfo, 0);

  const SharedState &state = shared();
  const std::int64_t now_us = coarse_monotonic_us();
  for (std::uint32_t i = 0; i < state.header->max_clients; i++) {
    ClientCopy client;
    if (!copy_client(i, client)) {
      continue;
    }
    CHECK_FOR_INTERRUPTS();
    ViewRow row;
    start_row(row);
    put_client(row, i, client, now_us);
    emit_row(fcinfo, row);
  }
  return static_cast<Datum>(0);
}

}  // extern "C"

}  // namespace sluice::pg
