// SPDX-License-Identifier: PostgreSQL
//
// sluice.holders: a row for each backend in the hands of a client.
//
// Who keeps backends from others, since when, and what for.  Slots are read as
// views read them (snapshot.hpp); what the process executes comes from the table that
// pg_stat_activity shows, which keeps its copy until the transaction ends; wait events
// and lock chains are of this moment.  Lock waits are followed for a limited number of
// processes (kMostLockLookups): beyond that, chains end early or are missing.
//
// A backend may end while it is looked at: then it has no row, or no query in it.

#include "pg/stats/view_row.hpp"

extern "C" {
#include "utils/backend_status.h"
#include "utils/wait_event.h"
}

#include "pg/accept/dispatcher.hpp"
#include "pg/shared_memory.hpp"
#include "pg/stats/lock_chain.hpp"
#include "pg/stats/snapshot.hpp"

namespace sluice::pg {

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

// A copy of what a row shows, taken before anything that allocates.
struct Holder {
  BackendState state;
  std::int32_t pid;
  std::uint32_t pool;
  std::uint32_t client;
  std::uint32_t pins;
  ClientAddress address;
  std::int64_t since_us;
  double active_share;  // < 0: not timed
  bool leaked;
  std::uint32_t wait_event;
  LockChain chain;
};

bool is_held(BackendState state) {
  return state == BackendState::assigned || state == BackendState::active || state == BackendState::thinking ||
         state == BackendState::held || state == BackendState::pinned;
}

// The share of the hold that was spent executing.
double active_share(const BackendSlot &backend, std::int64_t hold_since_us, std::int64_t now_us) {
  const std::int64_t active_since_us = backend.active_since_us.load(kRelaxed);
  const double hold_us = static_cast<double>(now_us - hold_since_us);
  double active_us = static_cast<double>(backend.hold_active_us.load(kRelaxed));
  if (hold_since_us == 0 || hold_us <= 0) return -1.0;
  if (active_since_us != 0 && active_since_us < now_us) active_us += static_cast<double>(now_us - active_since_us);
  return active_us < hold_us ? active_us / hold_us : 1.0;
}

// False if that client has left meanwhile.
bool copy_client(std::uint32_t slot, std::uint32_t generation, Holder &copy) {
  const SharedState &state = shared();
  if (slot >= state.header->max_clients) return false;
  const ClientSlot &client = state.clients[slot];
  copy.address = client.address;
  copy.pins = client.pins.load(kRelaxed);
  std::atomic_thread_fence(std::memory_order_acquire);
  const ClientWord word = ClientWord::unpack(client.word.load(kRelaxed));
  return word.state == ClientState::leased && word.generation == generation;
}

// False if it is in nobody's hands, or changed hands meanwhile.
bool copy_holder(const BackendSlot &backend, std::int64_t now_us, Holder &copy) {
  const std::uint32_t generation = backend.generation.load(std::memory_order_acquire);
  copy.state = static_cast<BackendState>(backend.state.load(std::memory_order_acquire));
  if (!is_held(copy.state)) return false;
  const std::uint64_t lease = backend.lease.load(std::memory_order_acquire);
  const std::uint32_t client_generation = backend.client_generation.load(kRelaxed);
  const std::int64_t hold_since_us = backend.hold_since_us.load(kRelaxed);
  copy.pid = backend.pid.load(kRelaxed);
  copy.pool = backend.pool.load(kRelaxed);
  copy.client = backend.client.load(kRelaxed);
  copy.since_us = hold_since_us != 0 ? hold_since_us : backend.lease_since_us.load(kRelaxed);
  copy.active_share = active_share(backend, hold_since_us, now_us);
  const std::int64_t transaction_since_us = backend.transaction_since_us.load(kRelaxed);
  const bool inside = copy.state != BackendState::held && copy.state != BackendState::pinned;
  copy.leaked = inside && transaction_since_us != 0 &&
                backend.leaked_transaction_us.load(kRelaxed) == transaction_since_us;
  if (!copy_client(copy.client, client_generation, copy)) return false;
  std::atomic_thread_fence(std::memory_order_acquire);
  return backend.lease.load(kRelaxed) == lease && backend.generation.load(kRelaxed) == generation;
}

// Of another role it is another process, which got the number of one that has ended.
const PgBackendStatus *find_status(std::int32_t pid, Oid role) {
  const int count = pgstat_fetch_stat_numbackends();
  for (int i = 1; i <= count; i++) {
    const LocalPgBackendStatus *entry = backend_status_entry(i);
    if (entry == nullptr || entry->backendStatus.st_procpid != pid) continue;
    return entry->backendStatus.st_userid == role ? &entry->backendStatus : nullptr;
  }
  return nullptr;
}

const char *state_words(BackendState state, const PgBackendStatus *status) {
  switch (state) {
    case BackendState::thinking:
      return status != nullptr && status->st_state == STATE_IDLEINTRANSACTION_ABORTED ? "idle in transaction (aborted)"
                                                                                      : "idle in transaction";
    case BackendState::pinned: return "pinned";
    case BackendState::held: return "held";
    default: return "executing";
  }
}

bool is_behind(const Holder &holder, std::int32_t pid) {
  for (int i = 0; i < holder.chain.length; i++)
    if (holder.chain.pids[i] == pid) return true;
  return false;
}

int count_blocked(const Holder *holders, int count, std::int32_t pid) {
  int blocked = 0;
  for (int i = 0; i < count; i++) blocked += is_behind(holders[i], pid) ? 1 : 0;
  return blocked;
}

void put_query(ViewRow &row, const PgBackendStatus *status, bool details) {
  const bool present = details && status != nullptr && status->st_activity_raw != nullptr;
  char *query = present ? pgstat_clip_activity(status->st_activity_raw) : nullptr;
  put_text_or_null(row, query, present);
}

void put_holder(ViewRow &row, const Holder *holders, int count, int number, std::int64_t now_us) {
  const Holder &holder = holders[number];
  const TimestampTz now = GetCurrentTimestamp();
  PoolNames names;
  const bool in_pool = copy_pool_names(holder.pool, names);
  const PgBackendStatus *status = in_pool ? find_status(holder.pid, names.role_oid) : nullptr;
  const bool details = may_see_details(names.role_oid);
  const bool has_status = details && status != nullptr;
  const double held_ms = age_ms(now_us, holder.since_us);
  const char *wait_type = pgstat_get_wait_event_type(holder.wait_event);
  const char *wait_name = pgstat_get_wait_event(holder.wait_event);
  const TimestampTz transaction_start = has_status ? status->st_xact_start_timestamp : 0;
  const TimestampTz query_start = has_status ? status->st_activity_start_timestamp : 0;

  put_name_or_null(row, names.database, in_pool);
  put_name_or_null(row, names.role, in_pool);
  put_int(row, holder.pid);
  put_int(row, static_cast<std::int32_t>(holder.client));
  put_text_or_null(row, has_status ? status->st_appname : nullptr, has_status && status->st_appname != nullptr);
  put_address(row, holder.address, details);
  put_timestamp(row, now - static_cast<std::int64_t>(held_ms * 1000.0));
  put_double(row, held_ms);
  put_text(row, state_words(holder.state, status));
  put_text_or_null(row, wait_type, details && wait_type != nullptr);
  put_text_or_null(row, wait_name, details && wait_name != nullptr);
  put_double_or_null(row, age_ms(now, transaction_start), transaction_start != 0);
  put_double_or_null(row, age_ms(now, query_start), query_start != 0);
  put_rounded(row, holder.active_share, 4, holder.active_share >= 0);
  put_int_array(row, holder.chain.pids, holder.chain.length);
  put_int(row, count_blocked(holders, count, holder.pid));
  put_pins(row, holder.pins);
  put_bool(row, holder.leaked);
  put_query(row, status, details);
}

int compare_holders(const void *left, const void *right) {
  const std::int64_t a = static_cast<const Holder *>(left)->since_us;
  const std::int64_t b = static_cast<const Holder *>(right)->since_us;
  return a < b ? -1 : a > b;
}

// Those that wait for locks are followed, longest holders first.
int collect_holders(Holder *holders, std::int64_t now_us) {
  const SharedState &state = shared();
  auto *lookups = static_cast<LockLookups *>(palloc(sizeof(LockLookups)));
  int count = 0;

  for (std::uint32_t i = 0; i < state.header->backend_slots; i++)
    if (copy_holder(state.backends[i], now_us, holders[count])) count++;
  qsort(holders, static_cast<std::size_t>(count), sizeof(Holder), compare_holders);
  *lookups = LockLookups{};
  for (int i = 0; i < count; i++) {
    CHECK_FOR_INTERRUPTS();
    holders[i].wait_event = wait_event_of(holders[i].pid);
    follow_lock_chain(holders[i].pid, *lookups, holders[i].chain);
  }
  return count;
}

}  // namespace

extern "C" {

PG_FUNCTION_INFO_V1(sluice_holders);

PGDLLEXPORT Datum sluice_holders(PG_FUNCTION_ARGS) {
  require_shared_memory();
  InitMaterializedSRF(fcinfo, 0);

  const std::int64_t now_us = monotonic_us();
  auto *holders = static_cast<Holder *>(palloc(sizeof(Holder) * shared().header->backend_slots));
  const int count = collect_holders(holders, now_us);
  for (int i = 0; i < count; i++) {
    ViewRow row;
    start_row(row);
    put_holder(row, holders, count, i, now_us);
    emit_row(fcinfo, row);
  }
  return static_cast<Datum>(0);
}

}  // extern "C"

}  // namespace sluice::pg
