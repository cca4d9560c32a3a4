// SPDX-License-Identifier: PostgreSQL
#include "pg/compat.hpp"

#include "pg/pool/wake_up.hpp"

#include <poll.h>
#include <signal.h>

#include "core/pool/hand_over.hpp"
#include "pg/process_number.hpp"
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

// Logical ones of the affinity mask, and not more than the CPU quota.  0 until the statistician has looked.
static int usable_processors() {
  const MachineFacts &machine = shared().header->machine;
  const int logical = machine.logical_cpus.load(std::memory_order_relaxed);
  const double quota = machine.quota_cores.load(std::memory_order_relaxed);
  return quota > 0 && quota < logical ? static_cast<int>(quota + 0.999) : logical;
}

// How many backends, of all pools, execute and report no wait: they have a processor, or want one.  A hint; does not
// count beyond `enough`.
static int count_running_backends(int enough) {
  const SharedState &state = shared();
  int running = 0;
  for (std::uint32_t i = 0; i < state.header->backend_slots && running < enough; i++) {
    const BackendSlot &backend = state.backends[i];
    if (backend.state.load(std::memory_order_relaxed) != static_cast<std::uint32_t>(BackendState::active)) continue;
    const std::uint32_t process = backend.process.load(std::memory_order_relaxed);
    if (process == 0) continue;
    if (read_wait_event(process_of_number(process)) == 0) running++;
  }
  return running;
}

void poke_lingering_backends(std::uint32_t pool, int least, int most) {
  const int processors = usable_processors();
  const int running = count_running_backends(Max(processors, 2));
  for (int called = 0; called < most; called++) {
    if (called >= least && !should_poke(most - called, running + called, processors)) return;
    poke_lingering_backend(pool);
  }
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
