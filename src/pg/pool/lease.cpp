// SPDX-License-Identifier: PostgreSQL
//
// The hand-over of clients between the backends of one pool.
//
// A ready client must never be overlooked: whenever a client is armed in the
// pool's epoll set, or left to the dispatcher's, some backend sleeps in that set, or all backends work, and
// then the dispatcher watches (pool_keeper.cpp).  A *lingering* backend stays on
// its last client instead of sleeping in the set (if nobody sleeps there the
// dispatcher watches and calls it when needed), so that with no more clients
// than backends each transaction costs what it costs on a direct connection.
//
// Counters (PoolSlot): waiters, backends asleep in the set; lingerers; armed, idle
// clients, in the set or left to the dispatcher; queued, clients in the wait queue.
// All changes and checks below are sequentially consistent, because each answer rests on two processes
// that first write one counter and then read the other's:
//
//   A backend starts lingering while the last waiter leaves.  The lingerer counts
//   itself, then looks at waiters and armed; the waiter takes itself out, then
//   looks at lingerers.  One sees the other: either the lingerer does not linger,
//   or it is poked.  While the processors are busy (should_poke()) it is not: then the
//   dispatcher, which is asked to watch in any case, pokes it when a client waits.
//
//   A client is armed while everyone lingers.  Whoever arms it is a backend on
//   its way to the set, hence a waiter in a moment.
//
//   A client is queued while a backend goes to sleep.  The backend counts itself
//   into waiters, then looks at queued; the dispatcher counts queued, then looks
//   at waiters and rings the bell.
//
//   A client that has had its first transaction is left to the dispatcher's set
//   (is_left_at_the_door), whose registration of it is changed after its state is
//   idle.  Changing it reports what is there already, a hang-up too; from then on
//   only the dispatcher can make it anything but idle, until it is armed again.
//
//   A new client is assigned while its backend wakes for something else.  The
//   dispatcher changes the backend's state from waiting to assigned; the backend
//   changes it from waiting to active.  Who comes first decides; an event that
//   came together with an assignment is passed on through the wait queue.
//
// Taking a client is won by compare-and-set on its state word; events and queue
// entries that outlived their client lose there.
//
// Descriptors.  A copy of each client's socket is kept at the same number as in
// the dispatcher; `known_generations` says which client the copy is of.

#include "pg/compat.hpp"

#include "pg/pool/lease.hpp"

extern "C" {
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"
}

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/pool/growth_governor.hpp"
#include "core/pool/hand_over.hpp"
#include "pg/accept/dispatcher.hpp"
#include "pg/pool/control_channel.hpp"
#include "pg/pool/descriptor_pull.hpp"
#include "pg/pool/wait_queue.hpp"
#include "pg/pool/wake_up.hpp"
#include "pg/session/interrupts.hpp"
#include "pg/session/lease_clock.hpp"
#include "pg/session/session.hpp"
#include "pg/session/statistics.hpp"
#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"

namespace sluice::pg {

static int control = -1;
static int pool_epoll = -1;
static int dispatcher_epoll = -1;  // a copy of the dispatcher's own set; -1: could not be had
static std::uint32_t *known_generations = nullptr;  // [max_clients]; generation + 1, 0 = no copy
static bool counted_as_waiter = false;
static bool counted_as_lingerer = false;
static bool queue_is_for_others = false;  // as of the last look: see is_for_another()
static bool was_at_rest = true;           // asleep, lingering or not here since its last client: see note_use()
static std::int64_t without_work_since_us = 0;  // waking for statistics does not end that
static bool found_awake = false;          // the event at hand was there before this process could sleep

constexpr int kControlPatienceMs = 1000;
constexpr int kWelcomeAttempts = 10;
constexpr std::int64_t kForcedSwitchPatienceUs = 2'000'000;
constexpr long kForcedSwitchPauseUs = 200;

// ------------------------------------------------------------------ joining

static void see_to_the_set();

extern "C" {

// The counters outlive this process, and so do the clients it watched.
static void leave_pool(int, Datum) {
  if (counted_as_waiter) session.pool->waiters.fetch_sub(1);
  if (counted_as_lingerer) session.pool->lingerers.fetch_sub(1);
  counted_as_waiter = counted_as_lingerer = false;
  if (session.client != nullptr) dismiss_leased_client();
  hand_over_application_times();
  see_to_the_set();
}

}  // extern "C"

static void raise_descriptor_limit() {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
}

static int client_descriptor(std::uint32_t slot) {
  return static_cast<int>(shared().header->descriptor_base + slot);
}

// Takes what the dispatcher has sent.  True when there was something.
static bool take_control_message(ControlMessage *message) {
  int descriptor;
  switch (receive_control_message(control, message, &descriptor)) {
    case ControlReceipt::nothing:
      return false;
    case ControlReceipt::closed:
      ereport(FATAL, (errcode(ERRCODE_CONNECTION_FAILURE), errmsg("the dispatcher of pg_sluice has gone")));
    case ControlReceipt::message:
      break;
  }
  if (descriptor < 0) return true;
  if (message->kind == ControlKind::welcome) {
    pool_epoll = descriptor;
    return true;
  }
  if (message->kind == ControlKind::client && message->slot < shared().header->max_clients &&
      dup3(descriptor, client_descriptor(message->slot), O_CLOEXEC) >= 0)
    known_generations[message->slot] = message->generation + 1;
  close(descriptor);
  return true;
}

void join_pool() {
  ControlMessage message;

  raise_descriptor_limit();
  known_generations = static_cast<std::uint32_t *>(
      MemoryContextAllocHuge(TopMemoryContext, sizeof(std::uint32_t) * shared().header->max_clients));
  memset(known_generations, 0, sizeof(std::uint32_t) * shared().header->max_clients);
  before_shmem_exit(leave_pool, 0);
  control = connect_to_control_channel();
  const int peer = control < 0 ? 0 : control_peer(control);
  if (peer != 0 && peer != shared().header->dispatcher_pid.load())
    ereport(FATAL, (errcode(ERRCODE_CONNECTION_FAILURE), errmsg("could not connect to the dispatcher of pg_sluice"),
                    errdetail("Process %d listens on its control socket.", peer)));
  if (peer == 0)
    ereport(FATAL, (errcode_for_socket_access(), errmsg("could not connect to the dispatcher of pg_sluice: %m")));
  const bool pulls = open_descriptor_pull(shared().header->dispatcher_pid.load());
  if (pulls) dispatcher_epoll = pull_copy(shared().header->dispatcher_epoll.load());
  const ControlMessage hello{ControlKind::hello, session.index, session.backend->generation.load(), pulls ? 1u : 0u};
  if (!send_control_message(control, hello, -1))
    ereport(FATAL, (errcode_for_socket_access(), errmsg("could not speak to the dispatcher of pg_sluice: %m")));
  for (int attempt = 0; pool_epoll < 0 && attempt < kWelcomeAttempts; attempt++) {
    wait_readable(control, kControlPatienceMs);
    CHECK_FOR_INTERRUPTS();
    while (pool_epoll < 0 && take_control_message(&message)) {
    }
  }
  if (pool_epoll < 0)
    ereport(FATAL, (errcode(ERRCODE_CONNECTION_FAILURE), errmsg("the dispatcher of pg_sluice did not answer")));
}

// ------------------------------------------------------------------ the client's socket

static bool has_copy(ClientRef client) { return known_generations[client.slot] == client.generation + 1; }

// Makes sure a copy of the client's socket is here.  The client is leased, so the
// dispatcher keeps its own until we are done.
static bool obtain_copy(ClientRef client) {
  ControlMessage message;

  if (!has_copy(client) && can_pull_descriptors() && pull_descriptor(client_descriptor(client.slot)))
    known_generations[client.slot] = client.generation + 1;
  while (!has_copy(client) && take_control_message(&message)) {
  }
  // Signals end a wait early: what counts is the time.
  const std::int64_t until_us = monotonic_us() + kWelcomeAttempts * kControlPatienceMs * std::int64_t{1000};
  while (!has_copy(client) && monotonic_us() < until_us) {
    const ControlMessage request{ControlKind::request, session.index, client.slot, client.generation};
    if (!send_control_message(control, request, -1)) return false;
    wait_readable(control, kControlPatienceMs);
    CHECK_FOR_INTERRUPTS();
    // An answer without the socket: there is no descriptor number left here.
    while (!has_copy(client) && take_control_message(&message))
      if ((message.kind == ControlKind::gone || (message.kind == ControlKind::client && !has_copy(client))) &&
          message.slot == client.slot && message.generation == client.generation)
        return false;
  }
  return has_copy(client);
}

// ------------------------------------------------------------------ leasing

static bool win_client(ClientRef client, ClientState from) {
  ClientSlot &slot = shared().clients[client.slot];
  std::uint64_t word = slot.word.load();
  const ClientWord seen = ClientWord::unpack(word);

  if (seen.generation != client.generation || seen.state != from) return false;
  return slot.word.compare_exchange_strong(
      word, ClientWord{client.generation, session.index, ClientState::leased}.pack());
}

// The number must be there before anyone can look it up through the client.
static void open_lease(ClientRef client) {
  BackendSlot *backend = session.backend;
  const std::uint64_t lease = backend->lease.load() + 1;

  session.client_ref = client;
  session.client_vanished = 0;
  session.told_to_leave = 0;
  session.lease = lease;
  backend->lease.store(lease);
  backend->client.store(client.slot);
  backend->client_generation.store(client.generation);
}

// How long a client that was found in the set has been ready there.  It woke a
// sleeper: not at all.  Nobody slept there: it became ready at some time since the
// dispatcher drained the set, on the average in the middle.
static std::int64_t unqueued_wait_us(std::int64_t now_us) {
  if (!found_awake || session.pool->watched.load(std::memory_order_relaxed) == 0) return 0;
  const std::int64_t since_us = now_us - session.pool->drained_us.load(std::memory_order_relaxed);
  return since_us > 0 && since_us < kDrainedRecentlyUs ? since_us / 2 : 0;
}

static void count_lease(std::int64_t now_us, bool queued) {
  ClientSlot *client = session.client;
  std::int64_t waited_us = unqueued_wait_us(now_us);

  if (queued) {
    const std::int64_t fine_us = setting_track_timing ? now_us : monotonic_us();
    waited_us = Max(fine_us - client->ready_since_us.load(std::memory_order_relaxed), 0);
    client->ready_since_us.store(0, std::memory_order_relaxed);
  }
  add_alone(client->waited_us, static_cast<std::uint64_t>(waited_us));
  client->state_since_us.store(now_us, std::memory_order_relaxed);
  session.backend->lease_since_us.store(now_us, std::memory_order_relaxed);
  start_hold(now_us, waited_us, queued);
  if (was_at_rest) note_use(*session.pool);
  was_at_rest = false;
}

// If this was the last one to watch the set, somebody else has to.
static void see_to_the_set() {
  PoolSlot *pool = session.pool;
  if (!needs_watcher(pool->waiters.load(), pool->armed.load(), pool->queued.load())) return;
  if (pool->lingerers.load() > 0) poke_lingering_backends(session.pool_index, 0, 1);
  ask_dispatcher_to_watch(session.pool_index);
}

// The dispatcher, which has the socket, tells the client.
static void lose_socket(ClientRef client) {
  ereport(LOG, (errcode(ERRCODE_INSUFFICIENT_RESOURCES), errmsg("could not get the socket of client %u", client.slot)));
  session.client->flags.fetch_or(kClientSocketLost);
  dismiss_leased_client();
}

// Tries to take this client.  On success its socket is here.
static bool take_client(ClientRef client, ClientState from) {
  // Announced before it is won, so that a cancel that finds the client leased
  // finds this lease's number.
  open_lease(client);
  if (!win_client(client, from)) {
    session.backend->client.store(kNoIndex);
    return false;
  }
  PoolSlot *pool = session.pool;
  (from == ClientState::idle ? pool->armed : pool->queued).fetch_sub(1);
  session.client = &shared().clients[client.slot];
  const std::int64_t now_us = lease_clock_us();
  enter_state(BackendState::active, now_us);
  count_lease(now_us, from == ClientState::ready);
  see_to_the_set();
  if (obtain_copy(client)) return true;
  lose_socket(client);
  return false;
}

// sluice.debug_force_switch: a client is not for the backend that had it last, for as long as another can be hoped for.
static bool is_for_another(ClientRef client, ClientState from) {
  if (!setting_debug_force_switch) return false;
  const ClientSlot &slot = shared().clients[client.slot];
  const ClientWord seen = ClientWord::unpack(slot.word.load());
  if (seen.generation != client.generation || seen.state != from) return false;  // for nobody
  const std::int64_t since_us = slot.ready_since_us.load(std::memory_order_relaxed);
  return slot.last_backend.load(std::memory_order_relaxed) == session.index && session.pool->max_size.load() > 1 &&
         (since_us == 0 || monotonic_us() - since_us < kForcedSwitchPatienceUs);
}

static bool take_preferred_from_queue() {
  std::uint64_t entry;

  while (pop_preferred(&entry)) {
    if (session.backend->retire_requested.load() != 0) {
      leave_in_queue(entry);
      see_to_the_set();
      return false;
    }
    if (take_client(ClientRef::unpack(entry), ClientState::ready)) return true;
  }
  return false;
}

static bool take_from_queue() {
  std::uint64_t entry;
  PoolSlot *pool = session.pool;

  queue_is_for_others = false;
  if (session.backend->retire_requested.load() != 0) return false;
  if (is_served_by_preference()) return take_preferred_from_queue();
  // Also when nobody is queued: entries of clients that have gone are cleared away here, or nobody could sleep.
  for (int for_others = 0; for_others <= Max(pool->queued.load(), 0) && pool->wait_queue.get().pop(entry);) {
    // Told to leave since: this may be a client that was queued afterwards because it must not be served here.
    if (session.backend->retire_requested.load() != 0) {
      leave_in_queue(entry);
      see_to_the_set();
      return false;
    }
    if (is_for_another(ClientRef::unpack(entry), ClientState::ready)) {
      leave_in_queue(entry);
      queue_is_for_others = true;
      for_others++;
    } else if (take_client(ClientRef::unpack(entry), ClientState::ready)) {
      return true;
    }
  }
  return false;
}

// An event that came together with an assignment is somebody else's work.
static void pass_on(const epoll_event &event) {
  const ClientRef client = ClientRef::unpack(event.data.u64);
  if (event.data.u64 == kBellEvent) return see_to_the_set();
  ClientSlot &slot = shared().clients[client.slot];
  std::uint64_t word = slot.word.load();
  const ClientWord seen = ClientWord::unpack(word);
  if (seen.generation != client.generation || seen.state != ClientState::idle) return;
  slot.ready_since_us.store(monotonic_us());
  if (!slot.word.compare_exchange_strong(word,
                                         ClientWord{client.generation, kNoIndex, ClientState::ready}.pack()))
    return;
  session.pool->armed.fetch_sub(1);
  session.pool->queued.fetch_add(1);
  leave_in_queue(client.pack());
  see_to_the_set();
}

// A client that hung up while it was idle is the dispatcher's, which is told of
// every hang-up once: it forgets the client, or finds that something is left to
// be read, and says so (kClientHungUp); then a backend has to see to the end.  The
// dispatcher sets that flag and then looks at the state again; we look at the flag
// after the state has changed.
static bool is_left_to_the_dispatcher(const epoll_event &event) {
  if ((event.events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) == 0) return false;
  const ClientRef client = ClientRef::unpack(event.data.u64);
  return (shared().clients[client.slot].flags.load() & kClientHungUp) == 0;
}

static bool take_event(const epoll_event &event) {
  if (event.data.u64 == kBellEvent) return take_from_queue();
  if (is_left_to_the_dispatcher(event)) return false;
  if (session.backend->retire_requested.load() != 0) {
    pass_on(event);
    return false;
  }
  if (is_for_another(ClientRef::unpack(event.data.u64), ClientState::idle)) {
    pass_on(event);
    if (!wake_sleeping_backend(session.pool_index)) ask_dispatcher_to_watch(session.pool_index);
    return false;
  }
  return take_client(ClientRef::unpack(event.data.u64), ClientState::idle);
}

static void retire_if_asked() {
  const auto reason = static_cast<RetireReason>(session.backend->retire_requested.load());
  if (reason == RetireReason::none) return;
  enter_state(BackendState::retiring, coarse_monotonic_us());
  ereport(DEBUG1, (errmsg_internal("pooled backend leaves: %s", describe(reason))));
  proc_exit(0);
}

// Has the dispatcher leased a client to this backend while it slept?  Whoever
// changes the state from `waiting` first decides.
static bool take_assignment() {
  auto waiting = static_cast<std::uint32_t>(BackendState::waiting);
  if (session.backend->state.compare_exchange_strong(waiting, static_cast<std::uint32_t>(BackendState::active)))
    return false;
  const ClientRef client = ClientRef::unpack(session.backend->assigned_client.load());
  open_lease(client);
  session.client = &shared().clients[client.slot];
  const std::int64_t now_us = lease_clock_us();
  enter_state(BackendState::active, now_us);
  count_lease(now_us, false);
  if (obtain_copy(client)) return true;
  lose_socket(client);
  return false;
}

enum class Sleep { event, assignment, nothing };

// Sleeps in the pool's set until there is a client, an interrupt, or statistics
// are due.
static Sleep sleep_in_set(epoll_event *event) {
  PoolSlot *pool = session.pool;

  enter_state(BackendState::waiting, without_work_since_us);
  counted_as_waiter = true;
  pool->waiters.fetch_add(1);
  bool ready = false;
  // The queue, not the number of clients that wait: some may not have found room in it.
  if (pool->wait_queue.get().empty()) {
    pgstat_report_wait_start(WAIT_EVENT_CLIENT_READ);
    ready = wait_for_event(pool_epoll, event, statistics_deadline_us()) == Wake::ready;
    pgstat_report_wait_end();
  }
  pool->waiters.fetch_sub(1);
  counted_as_waiter = false;
  was_at_rest = true;
  if (take_assignment()) {
    if (ready)
      pass_on(*event);
    else
      see_to_the_set();
    return Sleep::assignment;
  }
  return ready ? Sleep::event : Sleep::nothing;
}

int lease_client() {
  epoll_event event;

  without_work_since_us = coarse_monotonic_us();

  for (;;) {
    if (session.mail || InterruptPending || ConfigReloadPending) handle_interrupts();
    retire_if_asked();
    if (take_from_queue()) break;
    if (epoll_wait(pool_epoll, &event, 1, 0) > 0) {
      found_awake = true;
      const bool taken = take_event(event);
      found_awake = false;
      if (taken) break;
      continue;
    }
    flush_due_statistics();
    if (queue_is_for_others) {  // not asleep, but not wanted either
      pg_usleep(kForcedSwitchPauseUs);
      continue;
    }
    const Sleep slept = sleep_in_set(&event);
    if (slept == Sleep::assignment) break;
    if (slept == Sleep::event) {
      if (take_event(event)) break;
      // Woken for nothing: somebody else must not be left waiting for us.
      see_to_the_set();
    } else {
      handle_interrupts();
    }
  }
  return client_descriptor(session.client_ref.slot);
}

// ------------------------------------------------------------------ parting

static bool is_wanted_elsewhere() {
  PoolSlot *pool = session.pool;
  return session.backend->retire_requested.load() != 0 ||
         !should_linger(pool->waiters.load(), pool->armed.load(), pool->queued.load());
}

bool linger_on_client(std::int64_t deadline_us) {
  PoolSlot *pool = session.pool;
  const int descriptor = client_descriptor(session.client_ref.slot);
  Wake wake = Wake::interrupted;

  // Many clients connect for one transaction: no backend goes to sleep on those.
  if (session.client->transactions.load(std::memory_order_relaxed) <= 1 || setting_debug_force_switch) return false;
  if (is_wanted_elsewhere()) return false;
  session.backend->poked.store(0);
  finish_hold(false);
  enter_state(BackendState::lingering, coarse_monotonic_us());
  counted_as_lingerer = true;
  was_at_rest = true;
  pool->lingerers.fetch_add(1);
  pgstat_report_wait_start(WAIT_EVENT_CLIENT_READ);
  while (!is_wanted_elsewhere() && session.backend->poked.load() == 0 && !session.told_to_leave) {
    std::int64_t until_us = deadline_us;
    if (statistics_deadline_us() >= 0 && (until_us < 0 || statistics_deadline_us() < until_us))
      until_us = statistics_deadline_us();
    wake = wait_for_socket(descriptor, POLLIN, until_us);
    if (wake == Wake::ready) break;
    if (wake == Wake::interrupted) handle_interrupts();
    flush_due_statistics();
    if (wake == Wake::timed_out && deadline_us >= 0 && monotonic_us() >= deadline_us) break;
  }
  pgstat_report_wait_end();
  pool->lingerers.fetch_sub(1);
  counted_as_lingerer = false;
  const std::int64_t now_us = lease_clock_us();
  enter_state(BackendState::active, now_us);
  const bool timed_out = deadline_us >= 0 && monotonic_us() >= deadline_us;
  if (wake == Wake::ready) {
    note_use(*pool);
    was_at_rest = false;
  }
  if (wake == Wake::ready || timed_out) resume_hold(now_us);
  return wake == Wake::ready || session.told_to_leave || timed_out;
}

static void close_lease() {
  if (counted_as_lingerer) session.pool->lingerers.fetch_sub(1);  // an error has ended the wait
  counted_as_lingerer = false;
  session.backend->client.store(kNoIndex);
  session.client = nullptr;
  session.held = false;
  session.pins = 0;
  session.lease = 0;
}

// Many clients connect for one transaction, and the next thing to come from them is
// their goodbye.  In the pool's set it would wake a backend, and its hang-up the
// dispatcher as well; so a client that has had its first transaction is left to the
// dispatcher, in whose own set it is anyway.  If it speaks after all, the dispatcher
// puts it into the pool's set (pool_arms_client): a wake-up more, once in a client's
// life.  Not an encrypted one: relayed, its goodbye wakes the dispatcher anyway; where
// the kernel encrypts, a record without data makes a peek fail as if the stream had
// ended.  Nor one that a backend has greeted: it is not in the pool's set yet, where
// the dispatcher will need it.
static bool is_left_at_the_door(const ClientSlot &slot, std::uint32_t flags) {
  return dispatcher_epoll >= 0 && (flags & (kClientInSet | kClientTls)) == kClientInSet &&
         slot.transactions.load(std::memory_order_relaxed) <= 1 && !setting_debug_force_switch;
}

// False: the dispatcher does not watch this socket, or not any more.
static bool watch_for_goodbye(ClientRef client) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLRDHUP | EPOLLET;
  event.data.u64 = client.pack();
  return epoll_ctl(dispatcher_epoll, EPOLL_CTL_MOD, client_descriptor(client.slot), &event) == 0;
}

void give_back_client() {
  const ClientRef client = session.client_ref;
  ClientSlot *slot = session.client;
  epoll_event event{};

  slot->state_since_us.store(coarse_monotonic_us(), std::memory_order_relaxed);
  slot->last_backend.store(session.index, std::memory_order_relaxed);
  finish_hold(false);
  close_lease();
  const std::uint32_t flags = slot->flags.fetch_or(kClientInSet);
  const bool in_set = (flags & kClientInSet) != 0;
  const bool at_the_door = is_left_at_the_door(*slot, flags);
  session.pool->armed.fetch_add(1);
  slot->word.store(ClientWord{client.generation, kNoIndex, ClientState::idle}.pack());
  // From here on the client may be anybody's.  If it has been forgotten already,
  // this fails, or adds a dead socket whose only event nobody will heed.
  if (at_the_door && watch_for_goodbye(client)) return;
  event.events = EPOLLIN | EPOLLRDHUP | EPOLLONESHOT;
  event.data.u64 = client.pack();
  epoll_ctl(pool_epoll, in_set ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, client_descriptor(client.slot), &event);
}

void dismiss_leased_client() {
  const ClientRef client = session.client_ref;
  ClientSlot *slot = session.client;

  slot->state_since_us.store(coarse_monotonic_us(), std::memory_order_relaxed);
  finish_hold(true);
  close_lease();
  slot->word.store(ClientWord{client.generation, kNoIndex, ClientState::closing}.pack());
  // The dispatcher sees the hang-up of its own copy and forgets the client.
  if (has_copy(client)) {
    shutdown(client_descriptor(client.slot), SHUT_RDWR);
    close(client_descriptor(client.slot));
    known_generations[client.slot] = 0;
  }
}

}  // namespace sluice::pg
