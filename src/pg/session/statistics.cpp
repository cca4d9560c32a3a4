// SPDX-License-Identifier: PostgreSQL
#include "pg/compat.hpp"

#include "pg/session/statistics.hpp"

extern "C" {
#include "pgstat.h"
}

#include <csignal>

#include "pg/accept/dispatcher.hpp"
#include "pg/session/lease_clock.hpp"
#include "pg/session/session.hpp"
#include "pg/shared_memory.hpp"

namespace sluice::pg {

constexpr std::int64_t kFlushPatienceUs = 1'000'000;
constexpr long kFlushPauseUs = 500;

static std::int64_t deadline_us = -1;

// True if one of the pool's backends has asked for it since the last time.
static bool flush_if_asked() {
  const std::uint32_t asked = session.pool->flush_requests.load();
  if (session.backend->flushes.load(std::memory_order_relaxed) == asked) return false;
  deadline_us = -1;
  pgstat_report_stat(true);
  session.backend->flushes.store(asked);
  return true;
}

void report_statistics() {
  if (flush_if_asked()) return;
  const long wait_ms = pgstat_report_stat(false);
  if (wait_ms <= 0)
    deadline_us = -1;
  else if (deadline_us < 0)
    deadline_us = monotonic_us() + wait_ms * 1000;
}

void report_statistics_at_parting() {
  if (deadline_us < 0 || session.pool->waiters.load(std::memory_order_relaxed) <= 0 ||
      session.client->transactions.load(std::memory_order_relaxed) <= 1)
    return;
  deadline_us = -1;
  pgstat_report_stat(true);
}

std::int64_t statistics_deadline_us() {
  const std::int64_t application_us = application_times_deadline_us();
  return deadline_us < 0 || (application_us >= 0 && application_us < deadline_us) ? application_us : deadline_us;
}

void flush_due_statistics() {
  if (application_times_deadline_us() >= 0 && monotonic_us() >= application_times_deadline_us())
    hand_over_application_times();
  if (flush_if_asked() || deadline_us < 0 || monotonic_us() < deadline_us) return;
  deadline_us = -1;
  pgstat_report_stat(true);
}

// A backend that executes does it when it has finished.
static bool is_at_rest(const BackendSlot &backend) {
  switch (static_cast<BackendState>(backend.state.load())) {
    case BackendState::waiting:
    case BackendState::lingering:
    case BackendState::held:
    case BackendState::pinned:
      return true;
    default:
      return false;
  }
}

static bool all_have_flushed(std::uint32_t asked) {
  const SharedState &state = shared();
  for (std::uint32_t i = 0; i < state.header->backend_slots; i++) {
    const BackendSlot &backend = state.backends[i];
    if (backend.pid.load() != 0 && backend.pool.load() == session.pool_index && is_at_rest(backend) &&
        static_cast<std::int32_t>(backend.flushes.load() - asked) < 0)
      return false;
  }
  return true;
}

void force_flush_in_pool() {
  const SharedState &state = shared();
  const std::uint32_t asked = session.pool->flush_requests.fetch_add(1) + 1;

  (void)flush_if_asked();
  for (std::uint32_t i = 0; i < state.header->backend_slots; i++) {
    const std::int32_t pid = state.backends[i].pid.load();
    if (i != session.index && pid != 0 && state.backends[i].pool.load() == session.pool_index) kill(pid, SIGUSR2);
  }
  const std::int64_t until_us = monotonic_us() + kFlushPatienceUs;
  while (!all_have_flushed(asked) && monotonic_us() < until_us) pg_usleep(kFlushPauseUs);
}

}  // namespace sluice::pg
