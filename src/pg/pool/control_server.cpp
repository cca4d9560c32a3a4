// SPDX-License-Identifier: PostgreSQL
//
// Who may ask the dispatcher for clients' sockets, and what it answers.
//
// A connection is worth nothing by itself: the kernel says which process has made it
// (control_peer), and that has to be the worker the dispatcher itself has started for
// a slot.  It is watched under the number of that slot, and heard about that slot
// only; a second connection of the same worker takes the place of the first.  With
// its hello it names its slot and the slot's generation once more, and gets the epoll
// set of its pool; only then does PoolSlot::starting not count it any more.
//
//   Race: the worker of a slot has ended, and its process number is somebody else's.
//   Answer: the number is free only when the postmaster has noticed the end, and from
//   then on it says that the worker has stopped: nobody is the worker of that slot
//   until the dispatcher has buried it and started another.

#include "pg/compat.hpp"

#include "pg/pool/control_server.hpp"

extern "C" {
#include "postmaster/bgworker.h"
}

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/accept/log_throttle.hpp"
#include "core/pool/growth_governor.hpp"
#include "pg/accept/client_registry.hpp"
#include "pg/accept/dispatcher.hpp"
#include "pg/pool/control_channel.hpp"
#include "pg/pool/keeper_books.hpp"
#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"
#include "pg/stats/error_count.hpp"
#include "pg/stats/event_log.hpp"

namespace sluice::pg {

void send_client(std::uint32_t backend, ClientRef client) {
  const ClientWord word = ClientWord::unpack(shared().clients[client.slot].word.load());
  const bool here = word.generation == client.generation && word.state != ClientState::free;
  const ControlMessage message{here ? ControlKind::client : ControlKind::gone, backend, client.slot,
                               client.generation};
  send_control_message(backend_books[backend].channel, message, here ? client_descriptor(client.slot) : -1);
}

void close_control_channel(std::uint32_t index) {
  BackendBook &book = backend_books[index];
  if (book.channel < 0) return;
  epoll_ctl(keeper_epoll, EPOLL_CTL_DEL, book.channel, nullptr);
  close(book.channel);
  book.channel = -1;
}

// Is this process the worker of this slot?  It has entered its number there before it
// connected; the postmaster may know it a moment later.
static bool is_worker_of(std::uint32_t index, int pid) {
  pid_t started;
  if (backend_books[index].handle == nullptr || shared().backends[index].pid.load() != pid) return false;
  switch (GetBackgroundWorkerPid(backend_books[index].handle, &started)) {
    case BGWH_STARTED:
      return started == pid;
    case BGWH_NOT_YET_STARTED:
      return true;
    default:
      return false;
  }
}

// kNoIndex: it is no pooled backend of this dispatcher.
static std::uint32_t find_worker(int pid) {
  for (std::uint32_t i = 0; i < shared().header->backend_slots; i++)
    if (is_worker_of(i, pid)) return i;
  return kNoIndex;
}

static void report_stranger(int pid) {
  constexpr const char *kMessage = "refused a connection to the control socket of pg_sluice";
  static LogThrottle log{5 * 1000000};
  count_error(ErrorClass::protocol, ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION, InvalidOid, kMessage);
  if (!log.note(monotonic_us()).log) return;
  if (pid == 0)
    ereport(LOG, (errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION), errmsg("%s", kMessage),
                  errdetail("It came from another user or another pid namespace.")));
  else
    ereport(LOG, (errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION), errmsg("%s", kMessage),
                  errdetail("Process %d is not a pooled backend, or not the one it says it is.", pid)));
}

static void watch_control_channel(std::uint32_t index, int channel) {
  epoll_event event{};
  close_control_channel(index);
  event.events = EPOLLIN | EPOLLRDHUP;
  event.data.u64 = ClientRef{kControlTag, index}.pack();
  if (epoll_ctl(keeper_epoll, EPOLL_CTL_ADD, channel, &event) == 0)
    backend_books[index].channel = channel;
  else
    close(channel);
}

// Only the worker of the slot may connect, and be heard.  What it has to say, its hello
// first, is waited for like everything else.
void accept_control_channel(int listener) {
  const int channel = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);

  if (channel < 0) return;
  const int peer = control_peer(channel);
  const std::uint32_t worker = peer == 0 ? kNoIndex : find_worker(peer);
  if (worker != kNoIndex) {
    watch_control_channel(worker, channel);
  } else {
    report_stranger(peer);
    close(channel);
  }
}

// False: it is not the worker it says it is.
static bool greet_backend(std::uint32_t index, const ControlMessage &hello) {
  BackendSlot &backend = shared().backends[index];
  BackendBook &book = backend_books[index];
  const std::uint32_t pool_index = backend.pool.load();

  if (hello.backend != index || hello.slot != backend.generation.load()) {
    report_stranger(backend.pid.load());
    return false;
  }
  book.pulls_descriptors = hello.generation != 0;
  const ControlMessage welcome{ControlKind::welcome, index, 0, 0};
  if (!send_control_message(book.channel, welcome, pool_books[pool_index].epoll)) return false;
  if (!book.greeted) {
    const std::int64_t took_us = monotonic_us() - backend.start_requested_us.load(std::memory_order_relaxed);
    shared().pools[pool_index].starting.fetch_sub(1);
    pool_books[pool_index].failed_starts = 0;
    book.pid = backend.pid.load();
    log_event(EventKind::backend_started, pool_index, book.pid, kNoClient, describe(book.start_reason));
    if (setting_track_timing) shared().pools[pool_index].start_us.record(static_cast<std::uint64_t>(Max(took_us, 0)));
  }
  book.greeted = true;
  return true;
}

// False: the channel is to be closed.
static bool obey_backend(std::uint32_t index, const ControlMessage &message) {
  switch (message.kind) {
    case ControlKind::hello:
      return greet_backend(index, message);
    case ControlKind::request:
      if (message.slot < shared().header->max_clients) send_client(index, ClientRef{message.slot, message.generation});
      return true;
    default:
      return true;
  }
}

void serve_control_channel(std::uint32_t index) {
  BackendBook &book = backend_books[index];
  ControlMessage message;
  int descriptor;

  while (book.channel >= 0) {
    switch (receive_control_message(book.channel, &message, &descriptor)) {
      case ControlReceipt::nothing:
        return;
      case ControlReceipt::closed:
        close_control_channel(index);
        return;
      case ControlReceipt::message:
        if (descriptor >= 0) close(descriptor);
        if (!obey_backend(index, message)) close_control_channel(index);
        break;
    }
  }
}

}  // namespace sluice::pg
