// SPDX-License-Identifier: PostgreSQL
//
// A resolver: the process that asks the name service, so that the dispatcher need
// not wait.  It is started when a rule of pg_hba.conf with a host name meets a
// client, and ends when there has been nothing to do for kIdleMs: a server without
// such rules never has one.  Up to kResolvers run at a time, since a name service
// that is slow for one client need not be so for the next.
//
// It has no database connection, not even one without a database.  The server waits
// for all processes that have one when files are to be closed everywhere (DROP DATABASE,
// DROP TABLESPACE), and nobody can say how long the name service takes.  Therefore it is
// not in pg_stat_activity either; its title in the list of the system's processes is
// "pg_sluice resolver".
//
// getnameinfo() and getaddrinfo() cannot be interrupted.  A fast shutdown therefore
// waits until the look-up under way has an answer or has been given up (resolv.conf(5)
// says when, mostly after some seconds), as it does for a direct connection that looks
// up a name.  An immediate one does not wait.

#include "pg/compat.hpp"

extern "C" {
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>

#include "common/ip.h"
#include "libpq/pqsignal.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"

PGDLLEXPORT void sluice_resolver_main(Datum argument);
}

#include "core/auth/name_lookup.hpp"
#include "pg/process_number.hpp"
#include "pg/shared_memory.hpp"

namespace sluice::pg {

namespace {

constexpr long kIdleMs = 10000;

ResolverSeat *seat = nullptr;
std::uint32_t taken_slot = kNoNameSlot;  // taken and not answered

void wake_dispatcher() {
  const std::int32_t pid = shared().header->dispatcher_pid.load();
  if (pid > 0) kill(pid, SIGUSR2);
}

extern "C" void leave(int, Datum) {
  leave_seat(*shared().names, *seat, taken_slot);
  taken_slot = kNoNameSlot;
  wake_dispatcher();
}

// ---------------------------------------------------------------- the name service

bool is_same_address(const sockaddr *found, const sockaddr_storage *client) {
  if (found->sa_family != client->ss_family) return false;
  if (found->sa_family == AF_INET)
    return memcmp(&reinterpret_cast<const sockaddr_in *>(found)->sin_addr,
                  &reinterpret_cast<const sockaddr_in *>(client)->sin_addr, sizeof(in_addr)) == 0;
  if (found->sa_family == AF_INET6)
    return memcmp(&reinterpret_cast<const sockaddr_in6 *>(found)->sin6_addr,
                  &reinterpret_cast<const sockaddr_in6 *>(client)->sin6_addr, sizeof(in6_addr)) == 0;
  return false;
}

void look_up(const NameQuestion &question, NameAnswer *answer) {
  const auto *client = reinterpret_cast<const sockaddr_storage *>(question.address);

  answer->matches = false;
  answer->name[0] = '\0';
  if (question.kind == NameQuestionKind::reverse) {
    answer->error = pg_getnameinfo_all(client, static_cast<int>(question.address_bytes), answer->name,
                                       sizeof(answer->name), nullptr, 0, NI_NAMEREQD);
    return;
  }
  addrinfo *addresses = nullptr;
  answer->error = getaddrinfo(question.name, nullptr, nullptr, &addresses);
  if (answer->error != 0) return;
  for (const addrinfo *each = addresses; each != nullptr && !answer->matches; each = each->ai_next)
    answer->matches = is_same_address(each->ai_addr, client);
  if (addresses != nullptr) freeaddrinfo(addresses);
}

// ---------------------------------------------------------------- the loop

void answer_question(std::uint32_t index) {
  NameBoard &board = *shared().names;
  NameSlot &slot = board.slots[index];

  taken_slot = index;
  seat->state.store(ResolverState::busy);
  // The dispatcher may have counted on us for those.
  if (has_questions(board)) wake_dispatcher();
  pgstat_report_wait_start(PG_WAIT_EXTENSION);
  look_up(slot.question, &slot.answer);
  pgstat_report_wait_end();
  taken_slot = kNoNameSlot;
  publish_answer(board, index);
  seat->state.store(ResolverState::idle);
  wake_dispatcher();
}

void start_up(std::uint32_t index) {
  pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
  BackgroundWorkerUnblockSignals();
  seat = &shared().names->resolvers[index];
  if (!take_seat(*seat)) proc_exit(0);
  before_shmem_exit(leave, 0);
  // Whoever asked before this is visible has not woken us; we look before we sleep.
  seat->process.store(own_process_number());
}

}  // namespace

}  // namespace sluice::pg

extern "C" void sluice_resolver_main(Datum argument) {
  using namespace sluice;
  using namespace sluice::pg;
  std::uint32_t last = 0;

  start_up(DatumGetUInt32(argument));
  while (!ShutdownRequestPending) {
    ResetLatch(MyLatch);
    const std::uint32_t index = take_question(*shared().names, last);
    if (index != kNoNameSlot) {
      answer_question(index);
      last = index;
      continue;
    }
    const int events =
        WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, kIdleMs, PG_WAIT_EXTENSION);
    if ((events & WL_TIMEOUT) != 0) break;
  }
  proc_exit(0);
}
