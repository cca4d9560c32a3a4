// SPDX-License-Identifier: PostgreSQL
//
// See pool_diagnosis.hpp.

#include "core/stats/pool_diagnosis.hpp"

namespace sluice {

namespace {

constexpr std::size_t index_of(PoolCause cause) noexcept { return static_cast<std::size_t>(cause); }
static_assert(index_of(PoolCause::unknown) + 1 == kPoolCauseCount);

bool rests(const HeldBackend &backend) noexcept {
  return backend.state == HolderState::thinking || backend.state == HolderState::pinned;
}

bool is_on_processor(const HeldBackend &backend) noexcept {
  return backend.state == HolderState::executing && backend.wait == WaitClass::none;
}

// What this one would be the cause of, if most were like it.
PoolCause cause_of(const HeldBackend &backend, bool processors_are_busy) noexcept {
  switch (backend.state) {
    case HolderState::thinking: return PoolCause::idle_in_transaction;
    case HolderState::pinned: return PoolCause::pinned;
    case HolderState::held: return PoolCause::held_by_sessions;
    case HolderState::executing: break;
  }
  switch (backend.wait) {
    case WaitClass::lock: return PoolCause::lock_convoy;
    case WaitClass::lwlock: return PoolCause::internal_contention;
    case WaitClass::io: return PoolCause::io_bound;
    case WaitClass::client: return PoolCause::slow_clients;
    case WaitClass::ipc:
    case WaitClass::timeout:
    case WaitClass::extension: return PoolCause::waiting_elsewhere;
    case WaitClass::none: break;
  }
  return processors_are_busy ? PoolCause::cpu_bound : PoolCause::executing;
}

int count_on_processors(const PoolObservation &seen) noexcept {
  int count = 0;
  for (std::size_t i = 0; i < seen.held_count; i++) count += is_on_processor(seen.held[i]) ? 1 : 0;
  return count;
}

// The first of those that have the half; `mixed` if none has it.
PoolCause find_cause(const PoolDiagnosis &result) noexcept {
  for (std::size_t i = index_of(PoolCause::lock_convoy); i <= index_of(PoolCause::starting); i++)
    if (result.counts[i] > 0 && result.counts[i] * 2 >= result.counted) return static_cast<PoolCause>(i);
  return PoolCause::mixed;
}

struct View {
  const PoolObservation &seen;
  DiagnosisScope scope;
  bool processors_are_busy;

  // Who holds backends for an application that waits for itself cannot be told from the others.
  bool shows(const HeldBackend &backend, PoolCause cause) const noexcept {
    return is_in_the_way(seen, scope, backend) &&
           (cause == PoolCause::nested_acquire || cause_of(backend, processors_are_busy) == cause);
  }
};

int count_of_pool(const View &view, PoolCause cause, std::uint32_t pool) noexcept {
  int count = 0;
  for (std::size_t i = 0; i < view.seen.held_count; i++) {
    const HeldBackend &backend = view.seen.held[i];
    count += backend.pool == pool && view.shows(backend, cause) ? 1 : 0;
  }
  return count;
}

void find_longest_and_worst_pool(const View &view, PoolDiagnosis &result) noexcept {
  for (std::size_t i = 0; i < view.seen.held_count; i++) {
    const HeldBackend &backend = view.seen.held[i];
    if (!view.shows(backend, result.cause)) continue;
    if (result.pid == 0 || backend.age_us > result.age_us) {
      result.pid = backend.pid;
      result.age_us = backend.age_us;
      result.pins = backend.pins;
    }
    if (result.in_worst_pool != 0 && backend.pool == result.worst_pool) continue;
    const int count = count_of_pool(view, result.cause, backend.pool);
    if (count <= result.in_worst_pool) continue;
    result.in_worst_pool = count;
    result.worst_pool = backend.pool;
  }
}

int count_behind(const View &view, const Blocker &blocker) noexcept {
  int count = 0;
  for (std::size_t i = 0; i < view.seen.held_count; i++) {
    const HeldBackend &backend = view.seen.held[i];
    count += view.shows(backend, PoolCause::lock_convoy) && backend.blocker.known &&
                     backend.blocker.pid == blocker.pid && backend.blocker.activity == blocker.activity
                 ? 1
                 : 0;
  }
  return count;
}

// Quadratic in the number of chains that were followed, which is small.
void find_blocker(const View &view, PoolDiagnosis &result) noexcept {
  for (std::size_t i = 0; i < view.seen.held_count; i++) {
    const HeldBackend &backend = view.seen.held[i];
    if (!view.shows(backend, PoolCause::lock_convoy) || !backend.blocker.known) continue;
    result.chains++;
    const int blocked = count_behind(view, backend.blocker);
    if (blocked <= result.blocked) continue;
    result.blocked = blocked;
    result.blocker = backend.blocker;
  }
  result.pid = result.blocker.pid;
  result.age_us = result.blocker.age_us;
  result.pins = 0;
}

PoolAdvice advise_about_blocker(const Blocker &blocker) noexcept {
  switch (blocker.activity) {
    case BlockerActivity::idle_in_transaction: return PoolAdvice::end_blocking_transaction;
    case BlockerActivity::prepared: return PoolAdvice::finish_prepared;
    case BlockerActivity::unknown:
    case BlockerActivity::executing:
    case BlockerActivity::idle: break;
  }
  return PoolAdvice::stop_blocker;
}

// Also when those are left out that would give way.
bool server_is_full(const PoolObservation &seen) noexcept {
  return seen.server_backends - seen.idle_elsewhere >= seen.max_backends;
}

PoolAdvice advise_to_raise(const PoolObservation &seen, DiagnosisScope scope) noexcept {
  if (scope != DiagnosisScope::pool) return PoolAdvice::raise_max_backends;
  return server_is_full(seen) ? PoolAdvice::raise_both : PoolAdvice::raise_max_pool_size;
}

MoreBackends would_more_help(PoolCause cause, bool processors_are_busy, bool cores_are_known) noexcept {
  switch (cause) {
    case PoolCause::nested_acquire:
    case PoolCause::held_by_sessions:
    case PoolCause::server_full:
    case PoolCause::unknown: return MoreBackends::perhaps;
    case PoolCause::executing: return cores_are_known ? MoreBackends::yes : MoreBackends::perhaps;
    case PoolCause::slow_clients:
    case PoolCause::io_bound:
    case PoolCause::waiting_elsewhere:
    case PoolCause::mixed: return processors_are_busy ? MoreBackends::no : MoreBackends::perhaps;
    case PoolCause::not_full:
    case PoolCause::lock_convoy:
    case PoolCause::idle_in_transaction:
    case PoolCause::pinned:
    case PoolCause::internal_contention:
    case PoolCause::cpu_bound:
    case PoolCause::starting: break;
  }
  return MoreBackends::no;
}

PoolAdvice advise(const PoolObservation &seen, const PoolDiagnosis &result) noexcept {
  switch (result.cause) {
    case PoolCause::not_full:
    case PoolCause::starting:
    case PoolCause::unknown: return PoolAdvice::none;
    case PoolCause::nested_acquire: return PoolAdvice::avoid_nesting;
    case PoolCause::lock_convoy: return advise_about_blocker(result.blocker);
    case PoolCause::idle_in_transaction: return PoolAdvice::end_idle_transactions;
    case PoolCause::pinned: return PoolAdvice::limit_pins;
    case PoolCause::held_by_sessions: return PoolAdvice::use_transaction_mode;
    case PoolCause::internal_contention:
    case PoolCause::cpu_bound: return PoolAdvice::look_at_statements;
    case PoolCause::slow_clients: return PoolAdvice::look_at_clients;
    case PoolCause::io_bound:
    case PoolCause::waiting_elsewhere:
    case PoolCause::executing:
    case PoolCause::server_full:
    case PoolCause::mixed: break;
  }
  return result.more_backends_help == MoreBackends::no ? PoolAdvice::look_at_statements
                                                       : advise_to_raise(seen, result.scope);
}

struct PoolCounts {
  int held = 0;     // resting ones included
  int resting = 0;
};

PoolCounts count_pool(const PoolObservation &seen) noexcept {
  PoolCounts counts;
  for (std::size_t i = 0; i < seen.held_count; i++) {
    if (seen.held[i].pool != seen.pool) continue;
    counts.held++;
    counts.resting += rests(seen.held[i]) ? 1 : 0;
  }
  return counts;
}

// Who is in the way, and of which cause.
void count_causes(const View &view, PoolDiagnosis &result) noexcept {
  for (std::size_t i = 0; i < view.seen.held_count; i++) {
    const HeldBackend &backend = view.seen.held[i];
    if (!is_in_the_way(view.seen, view.scope, backend)) continue;
    result.counted++;
    result.counts[index_of(cause_of(backend, view.processors_are_busy))]++;
  }
  result.counted += view.seen.coming_and_going;
  result.counts[index_of(PoolCause::starting)] += view.seen.coming_and_going;
}

PoolCause judge(const PoolObservation &seen, const PoolDiagnosis &result) noexcept {
  if (seen.nested) return PoolCause::nested_acquire;
  if (result.scope != DiagnosisScope::none) return result.counted > 0 ? find_cause(result) : PoolCause::server_full;
  if (seen.waiting <= 0 || seen.idle > 0) return PoolCause::not_full;
  if (seen.coming_and_going > 0) return PoolCause::starting;
  return seen.server_backends >= seen.max_backends ? PoolCause::server_full : PoolCause::not_full;
}

}  // namespace

const char *describe(PoolCause cause) noexcept {
  switch (cause) {
    case PoolCause::not_full: return "not full";
    case PoolCause::nested_acquire: return "clients that have a backend wait for another";
    case PoolCause::lock_convoy: return "waits for locks";
    case PoolCause::idle_in_transaction: return "clients are idle in transaction";
    case PoolCause::pinned: return "clients are pinned";
    case PoolCause::held_by_sessions: return "clients keep their backends while idle";
    case PoolCause::internal_contention: return "contention inside the server";
    case PoolCause::cpu_bound: return "processors are busy";
    case PoolCause::slow_clients: return "clients are slow to read or to send";
    case PoolCause::io_bound: return "waits for I/O";
    case PoolCause::waiting_elsewhere: return "waits for timers, extensions or other processes";
    case PoolCause::executing: return "executing";
    case PoolCause::starting: return "backends are starting or leaving";
    case PoolCause::server_full: return "other pools have all backends";
    case PoolCause::mixed: return "several causes";
    case PoolCause::unknown: return "not known";
  }
  return "unknown";
}

const char *describe(BlockerActivity activity) noexcept {
  switch (activity) {
    case BlockerActivity::unknown: return "unknown";
    case BlockerActivity::executing: return "executing";
    case BlockerActivity::idle_in_transaction: return "idle in transaction";
    case BlockerActivity::idle: return "idle";
    case BlockerActivity::prepared: return "prepared transaction";
  }
  return "unknown";
}

DiagnosisScope find_scope(const PoolObservation &seen) noexcept {
  if (seen.idle > 0) return DiagnosisScope::none;
  const PoolCounts counts = count_pool(seen);
  if (counts.held - counts.resting + seen.coming_and_going >= seen.max_size) return DiagnosisScope::pool;
  return server_is_full(seen) ? DiagnosisScope::server : DiagnosisScope::none;
}

bool is_in_the_way(const PoolObservation &seen, DiagnosisScope scope, const HeldBackend &backend) noexcept {
  switch (scope) {
    case DiagnosisScope::server: return true;
    case DiagnosisScope::pool: return backend.pool == seen.pool && !rests(backend);
    case DiagnosisScope::none: break;
  }
  return false;
}

PoolDiagnosis diagnose_pool(const PoolObservation &seen) noexcept {
  PoolDiagnosis result;
  const int on_processors = count_on_processors(seen);
  const bool cores_are_known = seen.cores > 0.0;
  const bool processors_are_busy = cores_are_known && on_processors >= seen.cores;
  const View view{seen, find_scope(seen), processors_are_busy};

  result.scope = view.scope;
  result.on_processors = on_processors;
  result.cores = cores_are_known ? seen.cores : 0.0;
  result.in_use = count_pool(seen).held + seen.coming_and_going;
  result.max_size = seen.max_size;
  result.nested_threads = seen.nested_threads;
  result.nested_minimum = seen.nested_minimum;
  count_causes(view, result);
  result.cause = judge(seen, result);
  result.affected = result.counts[index_of(result.cause)];
  find_longest_and_worst_pool(view, result);
  if (result.cause == PoolCause::lock_convoy) find_blocker(view, result);
  result.more_backends_help = would_more_help(result.cause, processors_are_busy, cores_are_known);
  result.advice = advise(seen, result);
  return result;
}

void hide_blocker(PoolDiagnosis &diagnosis) noexcept {
  Blocker &blocker = diagnosis.blocker;
  if (diagnosis.cause != PoolCause::lock_convoy || blocker.activity == BlockerActivity::prepared) return;
  blocker.activity = BlockerActivity::unknown;
  blocker.wait = WaitClass::none;
  blocker.age_us = 0;
  diagnosis.age_us = 0;
  diagnosis.advice = advise_about_blocker(blocker);  // the other one would tell
}

void hide_worst_pool(PoolDiagnosis &diagnosis) noexcept {
  diagnosis.worst_pool = 0;
  diagnosis.in_worst_pool = 0;
}

}  // namespace sluice
