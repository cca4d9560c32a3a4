// SPDX-License-Identifier: PostgreSQL
//
// Signals of a pooled backend.
//
// The server's handlers do for SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGALRM what
// they do in any backend: they set flags.  SIGUSR2 is ours: somebody wrote into
// this backend's slot (cancel, client gone, disconnect, poke, retire).
//
//   Race: a flag is set after we looked and before we sleep.  Answer: signals are
//   blocked while looking, and unblocked by ppoll() / epoll_pwait() itself.
//   SIGURG (a latch set by another process) is unblocked there too; its handler
//   does nothing but end the wait.
//
//   Race: a cancel meant for one client's query arrives in the next client's.
//   Answer: requests name a lease; the handler runs in the process that changes
//   `session.lease`, so what it compares cannot change under it.
//
// `DoingCommandRead` is private to the server's own loop, so ProcessInterrupts()
// would raise "canceling statement due to user request" while this backend waits
// for a command.  Therefore a pending cancel is dropped before it is called here.
// During recovery it may stand for a conflict, which must not be dropped.

#include "pg/compat.hpp"

#include "pg/session/interrupts.hpp"

extern "C" {
#include "access/xact.h"
#include "access/xlog.h"
#include "commands/async.h"
#include "libpq/pqsignal.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/pmsignal.h"
#include "storage/procsignal.h"
#include "storage/sinval.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
}

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "pg/accept/dispatcher.hpp"
#include "pg/session/client_settings.hpp"
#include "pg/session/client_stream.hpp"
#include "pg/session/session.hpp"

namespace sluice::pg {

static sigset_t wait_mask;

static void request_cancel() {
  InterruptPending = true;
  QueryCancelPending = true;
}

extern "C" {

static void handle_mail(SIGNAL_ARGS) {
  const int saved_errno = errno;
  const std::uint64_t lease = session.lease;
  BackendSlot *backend = session.backend;

  (void)postgres_signal_arg;
  session.mail = 1;
  SetLatch(MyLatch);
  errno = saved_errno;
  if (lease == 0) return;  // no client: the number that stands for no request, too
  if (backend->cancel_lease.load() == lease) {
    backend->cancel_lease.store(0);
    if (session.in_query) request_cancel();
  }
  if (backend->leave_lease.load() == lease) {
    backend->leave_lease.store(0);
    session.told_to_leave = 1;
    if (session.in_query) request_cancel();
    cut_copy_in_short();
  }
  if (backend->vanished_lease.load() == lease) {
    backend->vanished_lease.store(0);
    // A client that said all it had to say and goodbye is not lost: its commands
    // are executed, as a direct connection would.
    if (session.in_query && !session.told_to_leave && stream_has_ended_early()) {
      session.client_vanished = 1;
      request_cancel();
    }
  }
  errno = saved_errno;
}

static void end_wait(SIGNAL_ARGS) { (void)postgres_signal_arg; }

}  // extern "C"

void install_signal_handlers() {
  pqsignal(SIGHUP, SignalHandlerForConfigReload);
  pqsignal(SIGINT, StatementCancelHandler);
  pqsignal(SIGTERM, die);
  pqsignal(SIGUSR2, handle_mail);
  pqsignal(SIGURG, end_wait);
  wait_mask = UnBlockSig;
  sigdelset(&wait_mask, SIGURG);
}

static bool anything_pending() {
  // Notifications wait for the end of a transaction; to look at them before would be a busy loop.
  return InterruptPending || ConfigReloadPending || catchupInterruptPending || session.mail || MyLatch->is_set ||
         (notifyInterruptPending && !IsTransactionOrTransactionBlock());
}

static bool set_timeout(std::int64_t deadline_us, std::int64_t *left_us) {
  if (deadline_us < 0) return false;
  *left_us = deadline_us - monotonic_us();
  if (*left_us < 0) *left_us = 0;
  return true;
}

Wake wait_for_socket(int descriptor, short events, std::int64_t deadline_us) {
  pollfd interest{descriptor, events, 0};
  std::int64_t left_us = 0;
  const bool limited = set_timeout(deadline_us, &left_us);
  timespec timeout{static_cast<time_t>(left_us / 1000000), static_cast<long>(left_us % 1000000 * 1000)};
  int result = -1;

  PG_SETMASK(&BlockSig);
  const bool pending = anything_pending();
  if (!pending) result = ppoll(&interest, 1, limited ? &timeout : nullptr, &wait_mask);
  PG_SETMASK(&UnBlockSig);
  if (result > 0) return Wake::ready;
  if (result == 0) return Wake::timed_out;
  return Wake::interrupted;
}

Wake wait_for_event(int epoll, epoll_event *event, std::int64_t deadline_us) {
  std::int64_t left_us = 0;
  const bool limited = set_timeout(deadline_us, &left_us);
  int result = -1;

  PG_SETMASK(&BlockSig);
  const bool pending = anything_pending();
  if (!pending)
    result = epoll_pwait(epoll, event, 1, limited ? static_cast<int>((left_us + 999) / 1000) : -1, &wait_mask);
  PG_SETMASK(&UnBlockSig);
  if (result > 0) return Wake::ready;
  if (result == 0) return Wake::timed_out;
  return Wake::interrupted;
}

void handle_interrupts() {
  session.mail = 0;
  if (!PostmasterIsAlive()) proc_exit(1);
  ResetLatch(MyLatch);
  if (QueryCancelPending && !ProcDiePending && !(IsTransactionState() && RecoveryInProgress()))
    QueryCancelPending = false;
  CHECK_FOR_INTERRUPTS();
  if (ConfigReloadPending) {
    ConfigReloadPending = false;
    reload_configuration();
  }
  if (catchupInterruptPending) ProcessCatchupInterrupt();
  if (notifyInterruptPending && session.client != nullptr) ProcessNotifyInterrupt(true);
  if (notifyInterruptPending && session.client == nullptr) notifyInterruptPending = false;
}

void begin_query() {
  // A cancel that came while the client was idle is not meant for this query.
  if (QueryCancelPending && !ProcDiePending && !(IsTransactionState() && RecoveryInProgress()))
    QueryCancelPending = false;
  session.in_query = 1;
}

void end_query() { session.in_query = 0; }

}  // namespace sluice::pg
