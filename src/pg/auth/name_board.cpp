// SPDX-License-Identifier: PostgreSQL
//
// Questions about the names of clients, on their way to the resolvers and back.  The
// states of slots and seats, and the races, are described in core/auth/name_lookup.hpp.
//
// Clients of one address that come at the same time share one question.  So a name
// service that never answers for some address holds up one resolver, however often a
// client of that address connects; one that never answers for a network (of IPv6) holds
// up half of them.
//
// No answer is kept for the next client: what the name service says now counts, as on
// the server's own port, and its own caches (nscd, systemd-resolved) do that better.

#include "pg/auth/name_board.hpp"

extern "C" {
#include <netdb.h>
#include <netinet/in.h>

#include "postmaster/bgworker.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/memutils.h"
}

#include "core/accept/address_key.hpp"
#include "core/auth/name_lookup.hpp"
#include "pg/accept/client_port.hpp"
#include "pg/process_number.hpp"
#include "pg/shared_memory.hpp"

namespace sluice::pg {

namespace {

static_assert(kHostNameBytes == NI_MAXHOST && kSocketAddressBytes == sizeof(sockaddr_storage));

// After a start that failed; until then logins that need a name are refused at once.
constexpr std::int64_t kRetryAfterFailureUs = 1000000;

std::uint32_t waiting[kNameSlots];  // logins, for each slot
bool slots_became_free = false;
std::uint32_t answers_seen = 0;

BackgroundWorkerHandle *starts[kResolvers];  // of seats that were `starting` when last looked at
std::int64_t start_failed_until_us = 0;

NameBoard &board() {
  return *shared().names;
}

NameQuestion make_question(const Port *port) {
  NameQuestion question;
  ClientAddress address;

  memset(&question, 0, sizeof(question));
  question.kind = port->remote_hostname == nullptr ? NameQuestionKind::reverse : NameQuestionKind::forward;
  question.address_bytes = static_cast<std::uint32_t>(port->raddr.salen);
  memcpy(question.address, &port->raddr.addr, Min(sizeof(question.address), port->raddr.salen));
  // The port is no part of the question, and differs from client to client.
  if (port->raddr.addr.ss_family == AF_INET)
    reinterpret_cast<sockaddr_in *>(question.address)->sin_port = 0;
  else if (port->raddr.addr.ss_family == AF_INET6)
    reinterpret_cast<sockaddr_in6 *>(question.address)->sin6_port = 0;
  remember_address(&address, port->raddr);
  question.source = address_key(address, 0);  // who comes through a Unix socket is not looked up
  if (port->remote_hostname != nullptr) strlcpy(question.name, port->remote_hostname, sizeof(question.name));
  return question;
}

void take_answer(const NameSlot &slot, Port *port, MemoryContext context) {
  const NameAnswer &answer = slot.answer;

  if (answer.error != 0) {
    port->remote_hostname_resolv = static_cast<int>(ForwardLookup::failed);
    port->remote_hostname_errcode = answer.error;
  } else if (slot.question.kind == NameQuestionKind::reverse) {
    port->remote_hostname = MemoryContextStrdup(context, answer.name);
  } else {
    port->remote_hostname_resolv = static_cast<int>(answer.matches ? ForwardLookup::matches : ForwardLookup::differs);
  }
}

// ---------------------------------------------------------------- resolvers

// A seat that is no longer `starting` is the resolver's own affair.
void look_after_starts(std::int64_t now_us) {
  for (std::uint32_t i = 0; i < kResolvers; i++) {
    if (starts[i] == nullptr) continue;
    ResolverState state = ResolverState::starting;
    if (board().resolvers[i].state.load() == state) {
      pid_t pid;
      if (GetBackgroundWorkerPid(starts[i], &pid) != BGWH_STOPPED) continue;
      // It may have come and gone between the two looks.
      if (board().resolvers[i].state.compare_exchange_strong(state, ResolverState::free))
        start_failed_until_us = now_us + kRetryAfterFailureUs;
    }
    pfree(starts[i]);
    starts[i] = nullptr;
  }
}

// False if the seat is taken, or no worker slot is free.
bool start_resolver(std::uint32_t seat) {
  BackgroundWorker worker;
  ResolverState state = ResolverState::free;

  if (!board().resolvers[seat].state.compare_exchange_strong(state, ResolverState::starting)) return true;
  memset(&worker, 0, sizeof(worker));
  worker.bgw_flags = BGWORKER_SHMEM_ACCESS;
  worker.bgw_start_time = BgWorkerStart_ConsistentState;
  worker.bgw_restart_time = BGW_NEVER_RESTART;
  strlcpy(worker.bgw_library_name, "pg_sluice", sizeof(worker.bgw_library_name));
  strlcpy(worker.bgw_function_name, "sluice_resolver_main", sizeof(worker.bgw_function_name));
  strlcpy(worker.bgw_name, "pg_sluice resolver", BGW_MAXLEN);
  strlcpy(worker.bgw_type, "pg_sluice resolver", BGW_MAXLEN);
  worker.bgw_main_arg = UInt32GetDatum(seat);
  worker.bgw_notify_pid = MyProcPid;

  MemoryContext caller = MemoryContextSwitchTo(TopMemoryContext);
  const bool registered = RegisterDynamicBackgroundWorker(&worker, &starts[seat]);
  MemoryContextSwitchTo(caller);
  if (registered) return true;
  starts[seat] = nullptr;
  board().resolvers[seat].state.store(ResolverState::free);
  return false;
}

void wake_resolvers(std::uint32_t count) {
  for (std::uint32_t i = 0; i < kResolvers && count > 0; i++) {
    const ResolverSeat &seat = board().resolvers[i];
    if (seat.state.load() != ResolverState::idle) continue;
    count--;
    // Whoever has the place of a process that has gone wakes for nothing.
    const std::uint32_t process = seat.process.load();
    if (process != 0) SetLatch(&process_of_number(process).procLatch);
  }
}

}  // namespace

void open_name_board() {
  reopen_board(board());
}

bool look_up_client_name(NameWait *wait, Port *port, MemoryContext context) {
  if (wait->place == 0) {
    const NameQuestion question = make_question(port);
    std::uint32_t index = find_question(board(), question);
    if (index == kNoNameSlot) index = ask(board(), question);
    if (index == kNoNameSlot) return false;
    wait->place = index + 1;
    waiting[index]++;
  }
  const NameSlot &slot = board().slots[wait->place - 1];
  if (slot.state.load() != NameSlotState::answered) return false;
  take_answer(slot, port, context);
  end_name_wait(wait);
  return true;
}

void end_name_wait(NameWait *wait) {
  if (wait->place == 0) return;
  const std::uint32_t index = wait->place - 1;
  wait->place = 0;
  if (--waiting[index] == 0 && withdraw(board().slots[index])) slots_became_free = true;
}

bool name_board_has_news() {
  const std::uint32_t answers = board().answers.load();
  const bool news = slots_became_free || answers != answers_seen;

  // What nobody waits for any more could not be withdrawn while a resolver had it.
  if (answers != answers_seen)
    for (std::uint32_t i = 0; i < kNameSlots; i++)
      if (waiting[i] == 0) (void)withdraw(board().slots[i]);
  answers_seen = answers;
  slots_became_free = false;
  return news;
}

bool staff_resolvers(std::int64_t now_us) {
  look_after_starts(now_us);
  hand_out_questions(board());
  const ResolverNeed need = count_need(board());
  wake_resolvers(need.wake);
  if (now_us >= start_failed_until_us) {
    std::uint32_t wanted = need.start;
    for (std::uint32_t i = 0; i < kResolvers && wanted > 0; i++) {
      if (starts[i] != nullptr || board().resolvers[i].state.load() != ResolverState::free) continue;
      wanted--;
      if (start_resolver(i)) continue;
      start_failed_until_us = now_us + kRetryAfterFailureUs;
      break;
    }
  }
  return need.asked == 0 || count_need(board()).present > 0;
}

}  // namespace sluice::pg
