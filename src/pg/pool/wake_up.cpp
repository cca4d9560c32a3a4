// SPDX-License-Identifier: PostgreSQL
#include "pg/compat.hpp"

#include "pg/pool/wake_up.hpp"

extern "C" {
#include "storage/proc.h"
}

#include <poll.h>
#include <signal.h>

#include "pg/shared_memory.hpp"

namespace sluice::pg {

void poke_lingering_backend(std::uint32_t pool) {
  SharedState &state = shared();
  for (std::uint32_t i = 0; i < state.header->backend_slots; i++) {
    BackendSlot &backend = state.backends[i];
    if (backend.state.load() != static_cast<std::uint32_t>(BackendState::lingering) || backend.pool.load() != pool)
      continue;
    std::uint32_t unpoked = 0;
    const std::int32_t pid = backend.pid.load();
    if (pid == 0 || !backend.poked.compare_exchange_strong(unpoked, 1)) continue;
    kill(pid, SIGUSR2);
    return;
  }
}

int usable_processors() {
  const MachineFacts &machine = shared().header->machine;
  const int logical = machine.logical_cpus.load(std::memory_order_relaxed);
  const double quota = machine.quota_cores.load(std::memory_order_relaxed);
  return quota > 0 && quota < logical ? static_cast<int>(quota + 0.999) : logical;
}

int count_running_backends(int enough) {
  const SharedState &state = shared();
  int running = 0;
  for (std::uint32_t i = 0; i < state.header->backend_slots && running < enough; i++) {
    const BackendSlot &backend = state.backends[i];
    if (backend.state.load(std::memory_order_relaxed) != static_cast<std::uint32_t>(BackendState::active)) continue;
    const std::uint32_t process = backend.process.load(std::memory_order_relaxed);
    if (process == 0) continue;
    const PGPROC &proc = ProcGlobal->allProcs[process - 1];
    if (*static_cast<const volatile uint32 *>(&proc.wait_event_info) == 0) running++;
  }
  return running;
}

bool wake_sleeping_backend(std::uint32_t pool) {
  SharedState &state = shared();
  for (std::uint32_t i = 0; i < state.header->backend_slots; i++) {
    const BackendSlot &backend = state.backends[i];
    const std::int32_t pid = backend.pid.load();
    if (backend.state.load() != static_cast<std::uint32_t>(BackendState::waiting) || backend.pool.load() != pool ||
        pid == 0)
      continue;
    kill(pid, SIGUSR2);
    return true;
  }
  return false;
}

void ask_dispatcher_to_watch(std::uint32_t pool) {
  SharedState &state = shared();
  std::uint32_t unwatched = 0;
  if (!state.pools[pool].watched.compare_exchange_strong(unwatched, 1)) return;
  const std::int32_t pid = state.header->dispatcher_pid.load();
  if (pid != 0) kill(pid, SIGUSR2);
}

bool wait_readable(int descriptor, int timeout_ms) {
  pollfd interest{descriptor, POLLIN, 0};
  return poll(&interest, 1, timeout_ms) > 0;
}

}  // namespace sluice::pg
