// SPDX-License-Identifier: PostgreSQL
//
// The dispatcher's loop.
//
// One epoll set: listeners, the control listener, control channels, and every
// client (for input while it logs in, and once more after its first transaction;
// otherwise only for the end of its stream).  Signals are blocked from looking at what they have left until the wait
// itself (epoll_pwait), so that none is lost in between: SIGHUP reloads, SIGTERM ends,
// SIGUSR1 is the postmaster's news about workers, SIGUSR2 a backend's, a resolver's
// or a SQL function's request to look around.

#include "pg/compat.hpp"

#include "pg/accept/dispatcher.hpp"

extern "C" {
#include "access/xact.h"
#include "common/pg_prng.h"
#include "libpq/pqsignal.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/pmsignal.h"
#include "storage/proc.h"
#include "storage/procsignal.h"
#include "storage/sinval.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"

PGDLLEXPORT void sluice_dispatcher_main(Datum arg);
}

#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "pg/accept/cancel.hpp"
#include "pg/accept/client_limits.hpp"
#include "pg/accept/client_registry.hpp"
#include "pg/accept/connection_logging.hpp"
#include "pg/accept/listener.hpp"
#include "pg/accept/login.hpp"
#include "pg/accept/tls_context.hpp"
#include "pg/accept/tls_relay.hpp"
#include "pg/auth/authentication.hpp"
#include "pg/auth/name_board.hpp"
#include "pg/error_response.hpp"
#include "pg/pool/control_channel.hpp"
#include "pg/pool/control_server.hpp"
#include "pg/pool/descriptor_pull.hpp"
#include "pg/pool/pool_keeper.hpp"
#include "pg/pool/succession.hpp"
#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"
#include "pg/stats/error_count.hpp"

namespace sluice::pg {

static std::int64_t clock_us(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return static_cast<std::int64_t>(now.tv_sec) * 1000000 + now.tv_nsec / 1000;
}

std::int64_t monotonic_us() { return clock_us(CLOCK_MONOTONIC); }
std::int64_t coarse_monotonic_us() { return clock_us(CLOCK_MONOTONIC_COARSE); }

void register_dispatcher() {
  BackgroundWorker worker;
  memset(&worker, 0, sizeof(worker));
  worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
  worker.bgw_start_time = BgWorkerStart_ConsistentState;
  worker.bgw_restart_time = 1;
  strlcpy(worker.bgw_library_name, "pg_sluice", sizeof(worker.bgw_library_name));
  strlcpy(worker.bgw_function_name, "sluice_dispatcher_main", sizeof(worker.bgw_function_name));
  strlcpy(worker.bgw_name, "pg_sluice dispatcher", BGW_MAXLEN);
  strlcpy(worker.bgw_type, "pg_sluice dispatcher", BGW_MAXLEN);
  RegisterBackgroundWorker(&worker);
}

struct Dispatcher {
  int epoll;
  int control_listener;
  Listeners listeners;
  std::int64_t accept_paused_until_us;
};

static Dispatcher dispatcher;

extern "C" {

static void end_wait(SIGNAL_ARGS) { (void)postgres_signal_arg; }

// Somebody wants us to look around.  The latch remembers it until we do.
static void look_around(SIGNAL_ARGS) {
  const int saved_errno = errno;
  (void)postgres_signal_arg;
  SetLatch(MyLatch);
  errno = saved_errno;
}

static void leave(int, Datum) {
  shared().header->dispatcher_pid.store(0);
  shared().header->port.store(0);
  remove_listener_files();
}

}  // extern "C"

static void watch_descriptor(int descriptor, std::uint32_t tag, std::uint32_t number) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = ClientRef{tag, number}.pack();
  if (epoll_ctl(dispatcher.epoll, EPOLL_CTL_ADD, descriptor, &event) != 0)
    ereport(FATAL, (errcode_for_socket_access(), errmsg("could not watch a socket for pooled clients: %m")));
}

static void start_up() {
  pqsignal(SIGHUP, SignalHandlerForConfigReload);
  pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
  pqsignal(SIGUSR2, look_around);
  pqsignal(SIGURG, end_wait);
  BackgroundWorkerUnblockSignals();
  BackgroundWorkerInitializeConnection(nullptr, nullptr, 0);
  install_severity_hook();
  permit_descriptor_pull();
  shared().header->dispatcher_epoch.fetch_add(1);
  before_shmem_exit(leave, 0);
  end_earlier_backends();

  dispatcher.epoll = epoll_create1(EPOLL_CLOEXEC);
  if (dispatcher.epoll < 0) ereport(FATAL, (errmsg("could not create an epoll set: %m")));
  open_client_registry(dispatcher.epoll);
  open_client_limits();
  open_pool_keeper(dispatcher.epoll);
  open_relays(dispatcher.epoll, client_descriptor(client_capacity()));
  open_logins();
  open_name_board();
  load_tls_context();
  if (!load_authentication_rules()) ereport(FATAL, (errmsg("could not load pg_hba.conf for pooled clients")));

  dispatcher.control_listener = listen_on_control_channel();
  if (dispatcher.control_listener < 0)
    ereport(FATAL, (errcode_for_socket_access(), errmsg("could not create the control socket of pg_sluice: %m")));
  watch_descriptor(dispatcher.control_listener, kControlListenerTag, 0);
  if (!open_listeners(&dispatcher.listeners))
    ereport(FATAL, (errmsg("could not listen for pooled clients on any address"),
                    errhint("See the messages above; the next attempt follows shortly.")));
  for (int i = 0; i < dispatcher.listeners.count; i++)
    watch_descriptor(dispatcher.listeners.descriptors[i], kListenerTag, static_cast<std::uint32_t>(i));
  shared().header->port.store(setting_port);
  shared().header->dispatcher_pid.store(MyProcPid);
}

// Without descriptors a listener would be ready all the time.
static void watch_listeners(bool on) {
  for (int i = 0; i < dispatcher.listeners.count; i++) {
    epoll_event event{};
    event.events = on ? static_cast<std::uint32_t>(EPOLLIN) : 0u;
    event.data.u64 = ClientRef{kListenerTag, static_cast<std::uint32_t>(i)}.pack();
    epoll_ctl(dispatcher.epoll, EPOLL_CTL_MOD, dispatcher.listeners.descriptors[i], &event);
  }
}

static void resume_accepting(std::int64_t now_us) {
  if (dispatcher.accept_paused_until_us == 0 || now_us < dispatcher.accept_paused_until_us) return;
  dispatcher.accept_paused_until_us = 0;
  watch_listeners(true);
}

// Accepts at most a batch, so that a flood of new clients does not keep the
// others waiting.
constexpr int kAcceptBatch = 32;
constexpr std::int64_t kAcceptPauseUs = 100000;
constexpr std::int64_t kLastWordsUs = 2000000;
constexpr int kLastWordsPauseMs = 20;

static void pause_accepting(std::int64_t pause_us) {
  dispatcher.accept_paused_until_us = monotonic_us() + pause_us;
  watch_listeners(false);
}

static void accept_clients(int listener) {
  for (int i = 0; i < kAcceptBatch; i++) {
    const std::int64_t wait_us = accept_wait_us();
    if (wait_us > 0) {
      pause_accepting(wait_us);
      return;
    }
    SockAddr peer;
    memset(&peer, 0, sizeof(peer));
    peer.salen = sizeof(peer.addr);
    const int descriptor =
        accept4(listener, reinterpret_cast<sockaddr *>(&peer.addr), &peer.salen, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (descriptor >= 0) {
      if (peer.salen == 0) peer.addr.ss_family = AF_UNIX;
      count_accept();
      begin_login(descriptor, peer);
      continue;
    }
    if (errno == EINTR || errno == ECONNABORTED) continue;
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      note_accept_failure(errno);
      pause_accepting(kAcceptPauseUs);
    }
    return;
  }
}

// What a client whose stream ended has left to read: nothing but a goodbye, or a
// query that a backend must still execute?
static bool stream_has_ended(int descriptor) {
  char first;
  const ssize_t got = recv(descriptor, &first, 1, MSG_PEEK | MSG_DONTWAIT);
  if (got > 0) return first == 'X';
  return got == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

bool end_if_gone(ClientRef client) {
  ClientSlot &slot = shared().clients[client.slot];
  const ClientWord word = ClientWord::unpack(slot.word.load());

  if (word.generation != client.generation || (word.state != ClientState::idle && word.state != ClientState::ready) ||
      !stream_has_ended(client_descriptor(client.slot)) ||
      !change_client_state(client, word.state, ClientState::closing))
    return false;
  PoolSlot &pool = shared().pools[slot.pool.load()];
  (word.state == ClientState::idle ? pool.armed : pool.queued).fetch_sub(1);
  forget_client(client);
  return true;
}

static void client_hung_up(ClientRef client) {
  ClientSlot &slot = shared().clients[client.slot];

  for (;;) {
    const ClientWord word = ClientWord::unpack(slot.word.load());
    if (word.generation != client.generation) return;
    switch (word.state) {
      case ClientState::free:
        return;
      case ClientState::authenticating:
        continue_login(client);
        return;
      case ClientState::closing:
        forget_client(client);
        return;
      case ClientState::leased:
        slot.flags.fetch_or(kClientVanished | kClientHungUp);
        // If it has been given back meanwhile, its backend has not seen the flag.
        if (slot.word.load() != word.pack()) continue;
        report_vanished(client.slot);
        return;
      case ClientState::idle:
      case ClientState::ready:
        if (end_if_gone(client)) return;
        // A backend has to read the rest, and the end: it will not be reported again.
        slot.flags.fetch_or(kClientHungUp);
        if (slot.word.load() != word.pack()) continue;
        if (word.state == ClientState::idle) pool_resumes_client(client);
        return;
    }
  }
}

// A client that was left here after its first transaction (give_back_client): most say
// goodbye.  Otherwise its hang-up is all that is watched for from here on; one that has
// come meanwhile is reported again.
static void client_speaks(ClientRef client) {
  if (end_if_gone(client)) return;
  watch_for_hangup(client, false);
  pool_arms_client(client);
}

static void handle_event(const epoll_event &event) {
  const ClientRef source = ClientRef::unpack(event.data.u64);

  switch (source.slot) {
    case kListenerTag:
      accept_clients(dispatcher.listeners.descriptors[source.generation]);
      return;
    case kControlListenerTag:
      accept_control_channel(dispatcher.control_listener);
      return;
    case kControlTag:
      serve_control_channel(source.generation);
      return;
    case kPoolTag:
      pool_has_events(source.generation);
      return;
    case kRelayNetworkTag:
    case kRelayPairTag:
      serve_relay(source.generation, source.slot == kRelayNetworkTag, event.events);
      return;
    default:
      break;
  }
  const ClientWord word = ClientWord::unpack(shared().clients[source.slot].word.load());
  if (word.generation != source.generation) return;
  if (word.state == ClientState::authenticating)
    continue_login(source);
  else if ((event.events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) == 0)
    client_speaks(source);
  else
    client_hung_up(source);
}

static void say_goodbye() {
  constexpr const char *kMessage = "terminating connection due to administrator command";
  StringInfoData words;
  initStringInfo(&words);
  append_fatal_response(&words, ERRCODE_ADMIN_SHUTDOWN, kMessage, nullptr, nullptr);
  for (std::uint32_t i = 0; i < client_high_water(); i++) {
    const ClientWord word = ClientWord::unpack(shared().clients[i].word.load());
    if (word.state != ClientState::idle && word.state != ClientState::ready) continue;
    count_error(ErrorClass::client_end, ERRCODE_ADMIN_SHUTDOWN, InvalidOid, kMessage);
    send_last_words(i, words.data, words.len);
  }
}

static bool some_relayed_client_is_leased() {
  const SharedState &state = shared();
  for (std::uint32_t i = 0; i < client_high_water(); i++) {
    const std::uint32_t flags = state.clients[i].flags.load();
    if (ClientWord::unpack(state.clients[i].word.load()).state == ClientState::leased && (flags & kClientTls) != 0 &&
        (flags & kClientKernelTls) == 0)
      return true;
  }
  return false;
}

// Backends that were told to leave as well tell their clients so; of encrypted ones
// the dispatcher passes it on.
static void relay_last_words() {
  epoll_event events[64];
  const std::int64_t until_us = monotonic_us() + kLastWordsUs;
  while (some_relayed_client_is_leased() && monotonic_us() < until_us) {
    const int count = epoll_wait(dispatcher.epoll, events, lengthof(events), kLastWordsPauseMs);
    for (int i = 0; i < count; i++) {
      const ClientRef source = ClientRef::unpack(events[i].data.u64);
      if (source.slot == kRelayNetworkTag || source.slot == kRelayPairTag) handle_event(events[i]);
    }
    if (count == static_cast<int>(lengthof(events))) pg_usleep(kLastWordsPauseMs * 1000);
  }
  flush_relays();
}

static void handle_interrupts() {
  if (ShutdownRequestPending) {
    say_goodbye();
    relay_last_words();
    // Not 0: if only this worker was told to leave, it is to be started again.
    proc_exit(1);
  }
  if (!PostmasterIsAlive()) proc_exit(1);
  if (ConfigReloadPending) {
    ConfigReloadPending = false;
    ProcessConfigFile(PGC_SIGHUP);
    reread_connection_logging();
    load_tls_context();
    load_authentication_rules();
    pools_reread_settings();
  }
  ResetLatch(MyLatch);
  CHECK_FOR_INTERRUPTS();
  if (catchupInterruptPending) ProcessCatchupInterrupt();
}

static int choose_timeout_ms(std::int64_t now_us) {
  const std::int64_t login_us = expire_logins(now_us);
  std::int64_t sleep_us = pool_keeper_sleep_us();
  if (login_us >= 0 && login_us < sleep_us) sleep_us = login_us;
  if (retry_admissions(now_us) && sleep_us > kAdmissionRetryUs) sleep_us = kAdmissionRetryUs;
  const std::int64_t relay_us = expire_relays(now_us);
  if (relay_us >= 0 && relay_us < sleep_us) sleep_us = relay_us;
  if (relays_have_more()) return 0;
  if (dispatcher.accept_paused_until_us > 0)
    sleep_us = Min(sleep_us, Max(dispatcher.accept_paused_until_us - now_us, 0));
  return static_cast<int>((sleep_us + 999) / 1000);
}

}  // namespace sluice::pg

extern "C" void sluice_dispatcher_main(Datum) {
  using namespace sluice::pg;
  epoll_event events[64];
  sigset_t wait_mask;

  start_up();
  wait_mask = UnBlockSig;
  sigdelset(&wait_mask, SIGURG);

  for (;;) {
    MemoryContextSwitchTo(TopMemoryContext);
    handle_interrupts();
    const std::int64_t now_us = monotonic_us();
    keep_pools(now_us);
    resume_accepting(now_us);
    continue_parked_logins(now_us);
    const int timeout_ms = choose_timeout_ms(now_us);

    PG_SETMASK(&BlockSig);
    const bool pending = ShutdownRequestPending || ConfigReloadPending || InterruptPending || MyLatch->is_set;
    pgstat_report_wait_start(PG_WAIT_EXTENSION);
    const int count =
        epoll_pwait(dispatcher.epoll, events, lengthof(events), pending ? 0 : timeout_ms, &wait_mask);
    pgstat_report_wait_end();
    PG_SETMASK(&UnBlockSig);
    begin_turn_of_logins();
    serve_relays_with_more();
    for (int i = 0; i < count; i++) handle_event(events[i]);
  }
}
