// SPDX-License-Identifier: PostgreSQL
//
// SQL functions that change something: cancel a client's query, end a client,
// send backends away, start the statistics afresh.
//
// They ask; the process concerned acts.  A request is a store in shared memory
// followed by SIGUSR2, never SIGINT or SIGTERM by process number: between
// looking up a client and signalling its backend, the backend may have turned to
// another client.  So a request names a *lease* (a number the backend raises with
// every hand-over), and the backend obeys only while that is its current lease.
//
//   read the client's word; leased by backend b?
//   L = lease number of b
//   read the word again: unchanged, so L is the number of this lease, or of an
//     earlier one if b has not raised it yet.  An earlier one hits nobody.
//   store L as b's cancel_lease or leave_lease; SIGUSR2
//
// A client that no backend serves is the dispatcher's: it is told by a flag in
// the client's slot.  The flag is also set for a leased client, first: should the
// lease end before its backend hears of it (transactions can be shorter than a
// signal takes), the dispatcher ends the client when it finds it idle.  The flag
// knows no generation, so it is taken back if the slot turns out to have been
// given away while it was set; its new owner is watched for a closed connection
// anyway.
//
// A cancel may come too late, and then does nothing.  `true` means that someone
// was told.

#include "pg/compat.hpp"

extern "C" {
#include "utils/builtins.h"
#include "utils/timestamp.h"
}

#include <csignal>
#include <cstring>

#include "core/pool/growth_governor.hpp"
#include "core/stats/pool_totals.hpp"
#include "pg/shared_memory.hpp"
#include "pg/stats/event_log.hpp"
#include "pg/stats/snapshot.hpp"

namespace sluice::pg {

namespace {

// How often to start again when a client changes hands while we look.
constexpr int kLookupAttempts = 16;

// False if there is no such process.
bool wake(std::int32_t pid) {
  return pid > 0 && kill(pid, SIGUSR2) == 0;  // 0 would be our own process group
}

// The slot with this number, or an error.
ClientSlot &client_slot(std::int32_t number) {
  const SharedState &state = shared();
  if (number < 0 || static_cast<std::uint32_t>(number) >= state.header->max_clients) {
    ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("client slot %d does not exist", number),
                    errdetail("Client slots are numbered from 0 to %u.", state.header->max_clients - 1),
                    errhint("See the column \"client\" of the view sluice.clients.")));
  }
  return state.clients[number];
}

// As with pg_cancel_backend: only a superuser may interfere with a superuser.
// Answers the generation of the client that was looked at: the only one that the
// caller may touch now.
std::uint32_t require_right_over(const ClientSlot &client) {
  const std::uint32_t generation = ClientWord::unpack(client.word.load()).generation;
  PoolNames names;
  if (copy_pool_names(client.pool.load(std::memory_order_relaxed), names) && superuser_arg(names.role_oid) &&
      !superuser()) {
    ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
                    errmsg("must be superuser to end a client or a query of a superuser")));
  }
  return generation;
}

// A lease of one client, as found at one moment.
struct Lease {
  BackendSlot *backend;
  std::uint64_t number;
};

enum class Lookup { leased, unleased, nobody };

bool is_alive(const ClientWord &word, std::uint32_t generation) {
  return word.generation == generation && word.state != ClientState::free && word.state != ClientState::closing;
}

// What this generation of the slot is doing.  `lease` is set if it is leased.
Lookup find_lease(const ClientSlot &client, std::uint32_t generation, Lease &lease) {
  const SharedState &state = shared();
  for (int attempt = 0; attempt < kLookupAttempts; attempt++) {
    const std::uint64_t before = client.word.load();
    const ClientWord word = ClientWord::unpack(before);
    if (!is_alive(word, generation)) {
      return Lookup::nobody;
    }
    if (word.state != ClientState::leased || word.backend >= state.header->backend_slots) {
      return Lookup::unleased;
    }
    lease.backend = &state.backends[word.backend];
    lease.number = lease.backend->lease.load();
    // An assigned backend may not have opened this client's lease yet.
    const auto slot = static_cast<std::uint32_t>(&client - state.clients);
    if (lease.backend->client.load() == slot && lease.backend->client_generation.load() == generation &&
        client.word.load() == before) {
      return Lookup::leased;
    }
  }
  return Lookup::unleased;  // too busy changing hands: whatever ran has ended
}

// Leaves word for the dispatcher that this client is to be ended once no backend
// serves it.  False if it is leaving by itself.
bool mark_for_end(ClientSlot &client, std::uint32_t generation) {
  if (!is_alive(ClientWord::unpack(client.word.load()), generation)) {
    return false;
  }
  client.flags.fetch_or(kClientToLeave);
  if (!is_alive(ClientWord::unpack(client.word.load()), generation)) {
    client.flags.fetch_and(~kClientToLeave);
    return false;
  }
  return true;
}

bool matches(const char *wanted, const char *name) {
  return wanted == nullptr || strcmp(wanted, name) == 0;
}

// Tells one backend to leave; true if it had not been told before.
bool ask_to_retire(BackendSlot &backend) {
  std::uint32_t expected = 0;
  const auto requested = static_cast<std::uint32_t>(RetireReason::requested);
  if (!backend.retire_requested.compare_exchange_strong(expected, requested)) {
    return false;
  }
  wake(backend.pid.load());  // one that is still starting looks at the request when it is done
  return true;
}

bool can_retire(BackendState state) {
  return state != BackendState::free && state != BackendState::retiring && state != BackendState::failed;
}

void reset_pool(PoolSlot &pool, TimestampTz now) {
  std::atomic<std::uint64_t> *const counters[] = {
      &pool.acquire_timeouts, &pool.starts,  &pool.start_failures, &pool.starts_elided, &pool.retirements,
      &pool.clients_total,    &pool.cancels, &pool.clients_lost,   &pool.pins_refused,  &pool.pin_timeouts,
      &pool.leaks,            &pool.nested_acquires,
  };
  for (std::atomic<std::uint64_t> *counter : counters) {
    counter->store(0, std::memory_order_relaxed);
  }
  for (std::atomic<std::uint64_t> &pins : pool.pins) {
    pins.store(0, std::memory_order_relaxed);
  }
  reset_pool_totals(pool);
  pool.nested_threads.store(0, std::memory_order_relaxed);
  pool.nested_minimum.store(0, std::memory_order_relaxed);
  pool.peak_waiting.store(pool.queued.load(std::memory_order_relaxed), std::memory_order_relaxed);
  pool.peak_backends.store(pool.backends.load(std::memory_order_relaxed), std::memory_order_relaxed);
  pool.statistics_since_at.store(now, std::memory_order_relaxed);
}

// The sampler forgets the peaks when it sees the number; see core/stats/resource_track.hpp.
void reset_peaks(TimestampTz now) {
  SharedHeader &header = *shared().header;
  header.resources_since_at.store(now, std::memory_order_relaxed);
  header.resource_resets.fetch_add(1);
  for (ResourceTrack &resource : header.resources) {
    resource.raised.store(0, std::memory_order_relaxed);
  }
}

}  // namespace

extern "C" {

PG_FUNCTION_INFO_V1(sluice_cancel_client);

PGDLLEXPORT Datum sluice_cancel_client(PG_FUNCTION_ARGS) {
  require_shared_memory();
  const ClientSlot &client = client_slot(PG_GETARG_INT32(0));
  const std::uint32_t generation = require_right_over(client);

  Lease lease;
  if (find_lease(client, generation, lease) != Lookup::leased) {
    PG_RETURN_BOOL(false);
  }
  lease.backend->cancel_lease.store(lease.number);
  PG_RETURN_BOOL(wake(lease.backend->pid.load()));
}

PG_FUNCTION_INFO_V1(sluice_disconnect_client);

PGDLLEXPORT Datum sluice_disconnect_client(PG_FUNCTION_ARGS) {
  require_shared_memory();
  ClientSlot &client = client_slot(PG_GETARG_INT32(0));
  const std::uint32_t generation = require_right_over(client);

  if (!mark_for_end(client, generation)) {
    PG_RETURN_BOOL(false);
  }
  Lease lease;
  switch (find_lease(client, generation, lease)) {
    case Lookup::leased:
      lease.backend->leave_lease.store(lease.number);
      PG_RETURN_BOOL(wake(lease.backend->pid.load()));
    case Lookup::unleased:
      PG_RETURN_BOOL(wake(shared().header->dispatcher_pid.load()));
    case Lookup::nobody:
      break;
  }
  PG_RETURN_BOOL(false);
}

PG_FUNCTION_INFO_V1(sluice_retire_backends);

PGDLLEXPORT Datum sluice_retire_backends(PG_FUNCTION_ARGS) {
  require_shared_memory();
  const char *database = PG_ARGISNULL(0) ? nullptr : text_to_cstring(PG_GETARG_TEXT_PP(0));
  const char *role = PG_ARGISNULL(1) ? nullptr : text_to_cstring(PG_GETARG_TEXT_PP(1));

  const SharedState &state = shared();
  std::int32_t told = 0;
  for (std::uint32_t i = 0; i < state.header->backend_slots; i++) {
    BackendSlot &backend = state.backends[i];
    PoolNames names;
    // The slot may be given to a new process between the look and the request.
    // Then that one leaves after its first lease, and the pool starts another.
    if (can_retire(static_cast<BackendState>(backend.state.load())) && copy_pool_names(backend.pool.load(), names) &&
        matches(database, names.database) && matches(role, names.role) && ask_to_retire(backend)) {
      told++;
    }
  }
  PG_RETURN_INT32(told);
}

PG_FUNCTION_INFO_V1(sluice_reset_statistics);

// Counters go to zero one by one while backends go on counting: a transaction
// that ends meanwhile may be counted in one and not in another.
PGDLLEXPORT Datum sluice_reset_statistics(PG_FUNCTION_ARGS) {
  require_shared_memory();
  (void)fcinfo;
  const SharedState &state = shared();
  const TimestampTz now = GetCurrentTimestamp();
  for (std::uint32_t i = 0; i < state.header->max_pools; i++) {
    if (is_open(state.pools[i])) {
      reset_pool(state.pools[i], now);
    }
  }
  for (std::uint32_t i = 0; i < state.header->max_applications; i++) {
    state.applications[i].reset();
  }
  reset_peaks(now);
  reset_errors(*state.errors, now);
  log_event(EventKind::statistics_reset, kNoIndex, kNoProcess, kNoClient, "reset on request");
  PG_RETURN_TIMESTAMPTZ(now);
}

}  // extern "C"

}  // namespace sluice::pg
