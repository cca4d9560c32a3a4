// SPDX-License-Identifier: PostgreSQL
//
// The times under way are in the backend's slot, so that views can show them; the
// finished ones in its LeaseStatistics.  Nobody else writes either while this
// process lives.

#include "pg/compat.hpp"

#include "pg/session/lease_clock.hpp"

extern "C" {
#include "executor/instrument.h"
#include "utils/guc.h"
}

#include "core/pool/nested_acquire.hpp"
#include "core/stats/application_table.hpp"
#include "pg/accept/dispatcher.hpp"
#include "pg/session/session.hpp"
#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"

namespace sluice::pg {

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

// Holds after which the row of an application is brought up to date, and the age
// that makes it due earlier.
constexpr std::uint64_t kBatchLeases = 64;
constexpr std::int64_t kBatchUs = 100'000;

struct {
  std::int64_t ready_us = 0;        // of the hold under way
  std::uint64_t waited_us = 0;
  std::uint64_t transactions = 0;
  bool queued = false;               // it went through the wait queue
  bool settled = true;               // the lease has been counted
  bool used = false;                 // the client has wanted something in this hold
  bool thought_long = false;         // in this transaction
  std::int64_t last_command_us = 0;  // when the last command cycle was answered
  std::int64_t blocks = 0;           // of pgBufferUsage, when they were counted last
  std::int64_t wal_records = 0;      // likewise of pgWalUsage
  std::uint32_t application = kOtherApplications;  // row that `pending` is for
  std::int64_t pending_since_us = 0;               // 0 = nothing is pending
  std::uint32_t pending_epoch = 0;                 // the pool's, when it was begun
  ApplicationTimes pending;
} lease_clock;

LeaseStatistics &statistics() { return shared().statistics[session.index]; }

LeaseStatistics &current_statistics() {
  LeaseStatistics &mine = statistics();
  mine.keep_up(session.pool->statistics_epoch.load(kRelaxed));
  return mine;
}

std::uint64_t elapsed(std::int64_t since_us, std::int64_t now_us) {
  return now_us > since_us ? static_cast<std::uint64_t>(now_us - since_us) : 0;
}

void record(LeaseStatistics &mine, Measure measure, std::uint64_t time_us) {
  mine.totals.times[static_cast<std::size_t>(measure)].record_alone(time_us);
}

// Ends what is under way, executing or thinking.
void finish_part(std::int64_t now_us) {
  BackendSlot &backend = *session.backend;
  const std::int64_t active_us = backend.active_since_us.load(kRelaxed);
  const std::int64_t thinking_us = backend.thinking_since_us.load(kRelaxed);
  if (active_us != 0) {
    const std::uint64_t took_us = elapsed(active_us, now_us);
    record(current_statistics(), Measure::active, took_us);
    add_alone(backend.hold_active_us, took_us);
    backend.active_since_us.store(0, std::memory_order_release);  // after it has been recorded: see pool_sampler
  }
  if (thinking_us != 0) {
    const std::uint64_t took_us = elapsed(thinking_us, now_us);
    record(current_statistics(), Measure::thinking, took_us);
    if (took_us >= static_cast<std::uint64_t>(kLongThoughtUs)) lease_clock.thought_long = true;
    add_alone(backend.hold_thinking_us, took_us);
    backend.thinking_since_us.store(0, std::memory_order_release);
  }
}

// The row of the client's name as it is now: it may have been SET.
void choose_application() {
  SharedState &state = shared();
  const ApplicationSlot &row = state.applications[lease_clock.application];
  const char *name = application_name != nullptr ? application_name : "";
  if (lease_clock.application != kOtherApplications && row.role_oid == session.pool->role_oid &&
      strncmp(row.name, name, kApplicationNameLength - 1) == 0)
    return;
  hand_over_application_times();
  lease_clock.application =
      find_application(state.applications, state.header->max_applications, session.pool->role_oid, name);
}

void note_application_times(std::uint64_t hold_us, std::int64_t now_us) {
  ApplicationTimes &pending = lease_clock.pending;
  const std::uint32_t epoch = session.pool->statistics_epoch.load(kRelaxed);
  if (lease_clock.pending_since_us != 0 && lease_clock.pending_epoch != epoch) hand_over_application_times();
  pending.leases++;
  pending.transactions += lease_clock.transactions;
  pending.waited_us += lease_clock.waited_us;
  pending.hold_us += hold_us;
  pending.active_us += session.backend->hold_active_us.load(kRelaxed);
  pending.thinking_us += session.backend->hold_thinking_us.load(kRelaxed);
  if (hold_us > pending.longest_hold_us) pending.longest_hold_us = hold_us;
  if (lease_clock.pending_since_us == 0) {
    lease_clock.pending_since_us = now_us;
    lease_clock.pending_epoch = epoch;
  }
  if (pending.leases >= kBatchLeases || now_us - lease_clock.pending_since_us >= kBatchUs)
    hand_over_application_times();
}

// The client wants something, and has not only come to say goodbye.  Whose name the
// hold goes to is looked up while the client is here: later its settings are gone.
void note_use() {
  lease_clock.used = true;
  if (session.backend->hold_since_us.load(kRelaxed) != 0) choose_application();
  if (lease_clock.settled) return;
  LeaseStatistics &mine = current_statistics();
  lease_clock.settled = true;
  add_alone(mine.totals.leases, 1);
  if (lease_clock.queued) add_alone(mine.totals.waits, 1);
  if (setting_track_timing) record(mine, Measure::wait, lease_clock.waited_us);
}

void begin_hold(std::int64_t now_us, std::int64_t ready_us, std::uint64_t waited_us) {
  BackendSlot &backend = *session.backend;
  lease_clock.ready_us = ready_us;
  lease_clock.waited_us = waited_us;
  lease_clock.transactions = 0;
  lease_clock.used = false;
  backend.hold_active_us.store(0, kRelaxed);
  backend.hold_thinking_us.store(0, kRelaxed);
  backend.thinking_since_us.store(0, kRelaxed);
  backend.active_since_us.store(now_us, kRelaxed);
  backend.transaction_since_us.store(now_us, kRelaxed);
  backend.hold_since_us.store(now_us, kRelaxed);
}

void forget_hold() {
  BackendSlot &backend = *session.backend;
  for (std::atomic<std::int64_t> *since : {&backend.hold_since_us, &backend.active_since_us,
                                           &backend.thinking_since_us, &backend.transaction_since_us})
    since->store(0, kRelaxed);
}

}  // namespace

std::int64_t lease_clock_us() { return setting_track_timing ? monotonic_us() : coarse_monotonic_us(); }

void start_hold(std::int64_t now_us, std::int64_t waited_us, bool queued) {
  const auto waited = static_cast<std::uint64_t>(Max(waited_us, 0));
  lease_clock.queued = queued;
  lease_clock.settled = false;
  lease_clock.waited_us = waited;
  lease_clock.thought_long = false;  // its predecessor may have left in the middle of a transaction
  if (setting_track_timing) begin_hold(now_us, now_us - static_cast<std::int64_t>(waited), waited);
}

void resume_hold(std::int64_t now_us) {
  if (setting_track_timing && session.backend->hold_since_us.load(kRelaxed) == 0) begin_hold(now_us, now_us, 0);
}

void start_command() {
  BackendSlot &backend = *session.backend;
  if (backend.hold_since_us.load(kRelaxed) == 0 || backend.active_since_us.load(kRelaxed) != 0) return;
  const std::int64_t now_us = monotonic_us();
  if (backend.thinking_since_us.load(kRelaxed) == 0) backend.transaction_since_us.store(now_us, kRelaxed);
  finish_part(now_us);
  backend.active_since_us.store(now_us, kRelaxed);
}

void note_thought(std::int64_t thought_us) {
  if (!setting_track_timing && thought_us >= kLongThoughtUs) lease_clock.thought_long = true;
}

void finish_command_cycle(bool in_transaction) {
  BackendSlot &backend = *session.backend;
  note_use();
  if (backend.hold_since_us.load(kRelaxed) == 0) return;
  const std::int64_t now_us = monotonic_us();
  finish_part(now_us);
  lease_clock.last_command_us = now_us;
  if (in_transaction) backend.thinking_since_us.store(now_us, kRelaxed);
}

void finish_hold(bool now) {
  BackendSlot &backend = *session.backend;
  const std::int64_t since_us = backend.hold_since_us.load(kRelaxed);
  if (since_us == 0) return;
  const std::int64_t end_us = now ? monotonic_us() : lease_clock.last_command_us;
  const std::uint64_t hold_us = elapsed(since_us, end_us);
  if (!lease_clock.used) return forget_hold();  // a goodbye is no use of a backend
  finish_part(end_us);
  LeaseStatistics &mine = current_statistics();
  record(mine, Measure::hold, hold_us);
  mine.record_hold(lease_clock.ready_us, hold_us, backend.hold_active_us.load(kRelaxed), lease_clock.waited_us);
  note_application_times(hold_us, end_us);
  forget_hold();
}

void count_statement() {
  note_use();
  add_alone(current_statistics().totals.statements, 1);
}

void count_transaction() {
  LeaseTotals &totals = current_statistics().totals;
  const std::int64_t blocks = pgBufferUsage.shared_blks_hit + pgBufferUsage.shared_blks_read;
  const std::int64_t wal_records = pgWalUsage.wal_records;
  add_alone(totals.transactions, 1);
  add_alone(totals.blocks, static_cast<std::uint64_t>(Max(blocks - lease_clock.blocks, 0)));
  add_alone(totals.wal_records, static_cast<std::uint64_t>(Max(wal_records - lease_clock.wal_records, 0)));
  lease_clock.blocks = blocks;
  lease_clock.wal_records = wal_records;
  add_alone(session.client->transactions, 1);
  const std::uint32_t thoughts = session.client->thoughts.load(kRelaxed);
  if (thoughts > 0 || lease_clock.thought_long) {
    session.client->thoughts.store(remember_thought(thoughts, lease_clock.thought_long), kRelaxed);
    lease_clock.thought_long = false;
  }
  add_alone(session.backend->transactions, 1);
  lease_clock.transactions++;
}

std::int64_t application_times_deadline_us() {
  return lease_clock.pending_since_us == 0 ? -1 : lease_clock.pending_since_us + kBatchUs;
}

void hand_over_application_times() {
  if (lease_clock.pending_since_us == 0) return;
  // What is from before a reset is forgotten.
  if (lease_clock.pending_epoch == session.pool->statistics_epoch.load(kRelaxed))
    shared().applications[lease_clock.application].add(lease_clock.pending);
  lease_clock.pending = ApplicationTimes{};
  lease_clock.pending_since_us = 0;
}

}  // namespace sluice::pg
