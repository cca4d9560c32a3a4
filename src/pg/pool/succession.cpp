// SPDX-License-Identifier: PostgreSQL
//
// The clients of a dispatcher that has ended cannot be served any more: their
// sockets, the control channels and the epoll sets were its own.  Its backends
// may still be executing.  They write into their clients' slots and their pools'
// gauges until they have gone, so nothing of that may be given to anybody else
// before: the new dispatcher waits.  They are told to terminate and do so at
// their next check for interrupts, as for any pg_terminate_backend().
//
//   Race: a worker that the earlier dispatcher has asked for starts while we look.
//   Answer: we change the generation of each slot and then look at its pid; the
//   worker enters its pid and then looks at the generation.  One sees the other:
//   either we wait for the worker, or it leaves the slot alone.

#include "pg/compat.hpp"

#include "pg/pool/succession.hpp"

extern "C" {
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/wait_event.h"
}

#include <signal.h>

#include "pg/shared_memory.hpp"

namespace sluice::pg {

constexpr long kLookAgainMs = 10;
constexpr int kLooksBeforeLog = 500;

// How many are still there; each is told once.
static int count_earlier_backends(bool tell) {
  SharedState &state = shared();
  int count = 0;
  for (std::uint32_t i = 0; i < state.header->backend_slots; i++) {
    BackendSlot &backend = state.backends[i];
    if (tell) backend.generation.fetch_add(1);
    const std::int32_t pid = backend.pid.load();
    if (pid == 0) continue;
    count++;
    if (tell) kill(pid, SIGTERM);
  }
  return count;
}

void end_earlier_backends() {
  SharedState &state = shared();

  int left = count_earlier_backends(true);
  for (int looks = 1; left > 0; looks++) {
    if (looks == kLooksBeforeLog)
      ereport(LOG, (errmsg_plural("waiting for %d pooled backend of the earlier dispatcher to terminate",
                                  "waiting for %d pooled backends of the earlier dispatcher to terminate",
                                  static_cast<unsigned long>(left), left)));
    (void)WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, kLookAgainMs, PG_WAIT_EXTENSION);
    ResetLatch(MyLatch);
    if (ShutdownRequestPending) proc_exit(1);
    CHECK_FOR_INTERRUPTS();
    left = count_earlier_backends(false);
  }
  for (std::uint32_t i = 0; i < state.header->backend_slots; i++) {
    state.backends[i].client.store(kNoIndex);
    state.backends[i].state.store(static_cast<std::uint32_t>(BackendState::free));
  }
  state.header->backends.store(0);
}

}  // namespace sluice::pg
