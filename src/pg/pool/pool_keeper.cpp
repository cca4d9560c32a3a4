// SPDX-License-Identifier: PostgreSQL
//
// The dispatcher's side of the pools.
//
// Pressure.  While some backend of a pool sleeps in the pool's epoll set the
// kernel hands clients over and nothing is to be done here.  The backend that
// finds nobody left to watch the set (needs_watcher) sets PoolSlot::watched and
// signals the dispatcher, which then ticks once a millisecond for this pool: it
// drains ready clients from the set into the wait queue, with the time, and asks
// the governor whether another backend is worth starting.  It stops when nothing
// has been waiting for a while.
//
//   Race: the dispatcher stops watching while a backend finds the set unwatched.
//   Answer: it clears `watched` first and then looks again; the backend looks
//   first and then sets `watched`.  Both orders are sequentially consistent, so
//   one of the two sees the other.
//
//   Race: a client is queued while a backend goes to sleep.  Answer: the backend
//   counts itself into `waiters` and then looks at the queue; the dispatcher
//   queues and then looks at `waiters`, and rings the bell (an eventfd in the set).
//
// Starts.  A backend slot is `starting` from registration until the process says
// hello on its control channel.  If the worker ends before, its slot holds the
// reason, and clients of a pool without any other backend are told.

#include "pg/compat.hpp"

#include "pg/pool/pool_keeper.hpp"

extern "C" {
#include "common/pg_prng.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
}

#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/pool/growth_governor.hpp"
#include "core/pool/hand_over.hpp"
#include "pg/accept/client_registry.hpp"
#include "pg/accept/dispatcher.hpp"
#include "pg/error_response.hpp"
#include "pg/pool/control_channel.hpp"
#include "pg/pool/pool_keeper.hpp"
#include "pg/pool/wake_up.hpp"
#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"

namespace sluice::pg {

constexpr std::int64_t kTickUs = 1000;
constexpr std::int64_t kIdleSleepUs = 1000000;
constexpr int kCalmTicks = 50;
constexpr std::int64_t kRetryAfterFailureUs = 1000000;
constexpr std::int64_t kTimeoutScanUs = 20000;
constexpr std::int64_t kRetirementScanUs = 1000000;

struct PoolBook {
  int epoll;
  int bell;
  int calm_ticks;
  std::int64_t retry_after_us;
  std::int64_t above_maximum_since_us;
};

struct BackendBook {
  BackgroundWorkerHandle *handle;
  int channel;
};

static int dispatcher_epoll = -1;
static PoolBook *pool_books = nullptr;
static BackendBook *backend_books = nullptr;
static std::int64_t next_timeout_scan_us = 0;
static std::int64_t next_retirement_scan_us = 0;

void open_pool_keeper(int epoll) {
  SharedState &state = shared();

  dispatcher_epoll = epoll;
  pool_books = static_cast<PoolBook *>(
      MemoryContextAllocZero(TopMemoryContext, sizeof(PoolBook) * state.header->max_pools));
  backend_books = static_cast<BackendBook *>(
      MemoryContextAllocZero(TopMemoryContext, sizeof(BackendBook) * state.header->max_backends));
  for (std::uint32_t i = 0; i < state.header->max_pools; i++) state.pools[i].state.store(0);
  for (std::uint32_t i = 0; i < state.header->max_backends; i++) {
    backend_books[i].channel = -1;
    // Backends of an earlier dispatcher cannot be reached any more.
    const std::int32_t pid = state.backends[i].pid.load();
    if (pid != 0) kill(pid, SIGTERM);
  }
}

// ------------------------------------------------------------------ pools

static void resolve_pool_size(PoolSlot &pool) {
  const std::int32_t configured = pool.configured_max_size.load();
  const std::int32_t size = configured > 0 ? configured : shared().header->machine.rule_size.load();
  pool.max_size.store(Max(size, 1));
}

static void apply_server_settings(PoolSlot &pool) {
  pool.mode.store(setting_pool_mode);
  pool.min_size.store(setting_min_pool_size);
  pool.configured_max_size.store(setting_max_pool_size);
  pool.acquire_timeout_ms.store(setting_acquire_timeout);
  pool.idle_timeout_ms.store(setting_idle_timeout);
  pool.max_lifetime_ms.store(setting_max_lifetime);
  pool.idle_session_timeout_ms.store(0);
  resolve_pool_size(pool);
}

static void reset_pool_counters(PoolSlot &pool) {
  for (std::atomic<std::int32_t> *gauge :
       {&pool.clients, &pool.backends, &pool.starting, &pool.thinking, &pool.waiters, &pool.lingerers, &pool.armed,
        &pool.queued, &pool.peak_waiting, &pool.peak_backends})
    gauge->store(0);
  for (std::atomic<std::uint64_t> *counter :
       {&pool.transactions, &pool.leases, &pool.waits, &pool.acquire_timeouts, &pool.starts, &pool.start_failures,
        &pool.starts_elided, &pool.retirements, &pool.clients_total, &pool.cancels, &pool.clients_lost})
    counter->store(0);
  pool.watched.store(0);
  pool.wait_us.reset();
  pool.statistics_since_at.store(GetCurrentTimestamp());
}

static bool create_pool(std::uint32_t index, Oid database, Oid role, const char *database_name,
                        const char *role_name) {
  PoolSlot &pool = shared().pools[index];
  PoolBook &book = pool_books[index];

  if (book.epoll > 0) close(book.epoll);
  if (book.bell > 0) close(book.bell);
  memset(&book, 0, sizeof(book));
  book.epoll = epoll_create1(EPOLL_CLOEXEC);
  book.bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  epoll_event bell_event{};
  bell_event.events = EPOLLIN | EPOLLET;
  bell_event.data.u64 = kBellEvent;
  if (book.epoll < 0 || book.bell < 0 || epoll_ctl(book.epoll, EPOLL_CTL_ADD, book.bell, &bell_event) != 0) {
    ereport(LOG, (errcode_for_socket_access(), errmsg("could not create the epoll set of a pool: %m")));
    return false;
  }
  // Stale entries are no harm, but the storage must be constructed once.
  pool.wait_queue.construct();
  pool.database_oid = database;
  pool.role_oid = role;
  pool.state.store(static_cast<std::uint32_t>(PoolState::free));  // readers look away while names change
  strlcpy(pool.database, database_name, kNameLength);
  strlcpy(pool.role, role_name, kNameLength);
  pool.created_at = GetCurrentTimestamp();
  reset_pool_counters(pool);
  apply_server_settings(pool);
  pool.generation.fetch_add(1);
  pool.state.store(static_cast<std::uint32_t>(PoolState::open));
  return true;
}

std::uint32_t find_or_create_pool(Oid database, Oid role, const char *database_name, const char *role_name) {
  SharedState &state = shared();
  std::uint32_t unused = kNoIndex;

  for (std::uint32_t i = 0; i < state.header->max_pools; i++) {
    PoolSlot &pool = state.pools[i];
    if (pool.state.load() == static_cast<std::uint32_t>(PoolState::free)) {
      if (unused == kNoIndex || shared().pools[unused].state.load() != 0) unused = i;
      continue;
    }
    if (pool.database_oid == database && pool.role_oid == role) {
      strlcpy(pool.database, database_name, kNameLength);  // both may have been renamed
      strlcpy(pool.role, role_name, kNameLength);
      return i;
    }
    if (unused == kNoIndex && pool.clients.load() == 0 && pool.backends.load() == 0) unused = i;
  }
  if (unused == kNoIndex || !create_pool(unused, database, role, database_name, role_name)) return kNoIndex;
  return unused;
}

int count_clients_of_role(Oid role) {
  int count = 0;
  for (std::uint32_t i = 0; i < shared().header->max_pools; i++) {
    const PoolSlot &pool = shared().pools[i];
    if (pool.state.load() != 0 && pool.role_oid == role) count += pool.clients.load();
  }
  return count;
}

int count_clients_of_database(Oid database) {
  int count = 0;
  for (std::uint32_t i = 0; i < shared().header->max_pools; i++) {
    const PoolSlot &pool = shared().pools[i];
    if (pool.state.load() != 0 && pool.database_oid == database) count += pool.clients.load();
  }
  return count;
}

void pool_forgets_client(std::uint32_t pool_index, int descriptor) {
  epoll_ctl(pool_books[pool_index].epoll, EPOLL_CTL_DEL, descriptor, nullptr);
  shared().pools[pool_index].clients.fetch_sub(1);
}

// ------------------------------------------------------------------ backends

static void fail_waiting_clients(std::uint32_t pool_index, int sqlerrcode, const char *message, const char *hint);

static std::uint32_t find_free_backend_slot() {
  SharedState &state = shared();
  for (std::uint32_t i = 0; i < state.header->max_backends; i++)
    if (state.backends[i].state.load() == static_cast<std::uint32_t>(BackendState::free) &&
        state.backends[i].pid.load() == 0)
      return i;
  return kNoIndex;
}

static void prepare_backend_slot(BackendSlot &backend, std::uint32_t pool_index, std::int64_t now_us) {
  const PoolSlot &pool = shared().pools[pool_index];

  backend.generation.fetch_add(1);
  backend.pid.store(0);
  backend.pool.store(pool_index);
  backend.client.store(kNoIndex);
  backend.lease.fetch_add(1);
  backend.start_requested_us.store(now_us);
  backend.state_since_us.store(now_us);
  backend.started_at.store(0);
  backend.transactions.store(0);
  backend.retire_requested.store(0);
  backend.poked.store(0);
  backend.cancel_lease.store(0);
  backend.vanished_lease.store(0);
  backend.leave_lease.store(0);
  backend.failure_sqlstate[0] = '\0';
  backend.failure_message[0] = '\0';
  const std::int64_t lifetime_us = static_cast<std::int64_t>(pool.max_lifetime_ms.load()) * 1000;
  backend.expires_us.store(
      lifetime_us == 0 ? 0 : now_us + lifetime_with_jitter_us(lifetime_us, pg_prng_uint32(&pg_global_prng_state)));
  backend.state.store(static_cast<std::uint32_t>(BackendState::starting));
}

static void start_backend(std::uint32_t pool_index, std::int64_t now_us) {
  SharedState &state = shared();
  PoolSlot &pool = state.pools[pool_index];
  const std::uint32_t index = find_free_backend_slot();
  BackgroundWorker worker;

  if (index == kNoIndex) return;
  BackendSlot &backend = state.backends[index];
  prepare_backend_slot(backend, pool_index, now_us);

  memset(&worker, 0, sizeof(worker));
  worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
  worker.bgw_start_time = BgWorkerStart_ConsistentState;
  worker.bgw_restart_time = BGW_NEVER_RESTART;
  strlcpy(worker.bgw_library_name, "pg_sluice", sizeof(worker.bgw_library_name));
  strlcpy(worker.bgw_function_name, "sluice_backend_main", sizeof(worker.bgw_function_name));
  snprintf(worker.bgw_name, BGW_MAXLEN, "pg_sluice backend: %.40s %.40s", pool.role, pool.database);
  strlcpy(worker.bgw_type, "pg_sluice backend", BGW_MAXLEN);
  worker.bgw_main_arg = UInt32GetDatum(index);
  const std::uint32_t generation = backend.generation.load();
  memcpy(worker.bgw_extra, &generation, sizeof(generation));
  worker.bgw_notify_pid = MyProcPid;

  MemoryContext caller = MemoryContextSwitchTo(TopMemoryContext);
  BackgroundWorkerHandle *handle = nullptr;
  const bool registered = RegisterDynamicBackgroundWorker(&worker, &handle);
  MemoryContextSwitchTo(caller);
  pool.starts.fetch_add(1);
  if (!registered) {
    backend.state.store(static_cast<std::uint32_t>(BackendState::free));
    pool.start_failures.fetch_add(1);
    pool_books[pool_index].retry_after_us = now_us + kRetryAfterFailureUs;
    if (pool.backends.load() == 0)
      fail_waiting_clients(pool_index, ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
                           "could not start a pooled backend: no worker process slot is free",
                           "You may need to increase max_worker_processes.");
    return;
  }
  backend_books[index].handle = handle;
  backend_books[index].channel = -1;
  state.header->backends.fetch_add(1);
  const int now_in_pool = pool.backends.fetch_add(1) + 1;
  pool.starting.fetch_add(1);
  if (now_in_pool > pool.peak_backends.load()) pool.peak_backends.store(now_in_pool);
}

static void request_retirement(std::uint32_t index, RetireReason reason) {
  BackendSlot &backend = shared().backends[index];
  backend.retire_requested.store(static_cast<std::uint32_t>(reason));
  const std::int32_t pid = backend.pid.load();
  if (pid != 0) kill(pid, SIGUSR2);
}

// A worker has ended.
static void bury_backend(std::uint32_t index, std::int64_t now_us) {
  SharedState &state = shared();
  BackendSlot &backend = state.backends[index];
  BackendBook &book = backend_books[index];
  const std::uint32_t pool_index = backend.pool.load();
  PoolSlot &pool = state.pools[pool_index];
  const auto last_state = static_cast<BackendState>(backend.state.load());

  if (book.channel >= 0) {
    epoll_ctl(dispatcher_epoll, EPOLL_CTL_DEL, book.channel, nullptr);
    close(book.channel);
    book.channel = -1;
  }
  pfree(book.handle);
  book.handle = nullptr;
  pool.backends.fetch_sub(1);
  state.header->backends.fetch_sub(1);
  if (last_state == BackendState::starting || last_state == BackendState::failed) {
    pool.starting.fetch_sub(1);
    pool.start_failures.fetch_add(1);
    pool_books[pool_index].retry_after_us = now_us + kRetryAfterFailureUs;
    if (pool.backends.load() == 0) {
      const bool known = backend.failure_message[0] != '\0';
      const char *sqlstate = backend.failure_sqlstate;
      fail_waiting_clients(
          pool_index,
          known ? MAKE_SQLSTATE(sqlstate[0], sqlstate[1], sqlstate[2], sqlstate[3], sqlstate[4])
                : ERRCODE_CANNOT_CONNECT_NOW,
          known ? backend.failure_message : "could not start a pooled backend",
          known ? nullptr : "The server log may say why.");
    }
  } else {
    pool.retirements.fetch_add(1);
  }
  backend.pid.store(0);
  backend.state.store(static_cast<std::uint32_t>(BackendState::free));
}

static void bury_dead_backends(std::int64_t now_us) {
  for (std::uint32_t i = 0; i < shared().header->max_backends; i++) {
    BackendBook &book = backend_books[i];
    pid_t pid;
    if (book.handle != nullptr && GetBackgroundWorkerPid(book.handle, &pid) == BGWH_STOPPED) bury_backend(i, now_us);
  }
}

// ------------------------------------------------------------------ control channel

static void send_client(std::uint32_t backend, ClientRef client) {
  const ClientWord word = ClientWord::unpack(shared().clients[client.slot].word.load());
  const bool here = word.generation == client.generation && word.state != ClientState::free;
  const ControlMessage message{here ? ControlKind::client : ControlKind::gone, backend, client.slot,
                               client.generation};
  send_control_message(backend_books[backend].channel, message, here ? client_descriptor(client.slot) : -1);
}

// The channel's owner introduces itself with its first message; until then the
// channel has a number of its own.
static void close_control_channel(std::uint32_t index) {
  BackendBook &book = backend_books[index];
  if (book.channel < 0) return;
  epoll_ctl(dispatcher_epoll, EPOLL_CTL_DEL, book.channel, nullptr);
  close(book.channel);
  book.channel = -1;
}

static bool greet_backend(int channel, const ControlMessage &hello) {
  SharedState &state = shared();
  if (hello.backend >= state.header->max_backends) return false;
  BackendSlot &backend = state.backends[hello.backend];
  if (backend.generation.load() != hello.slot || backend_books[hello.backend].handle == nullptr) return false;

  const std::uint32_t pool_index = backend.pool.load();
  close_control_channel(hello.backend);
  backend_books[hello.backend].channel = channel;
  epoll_event event{};
  event.events = EPOLLIN | EPOLLRDHUP;
  event.data.u64 = ClientRef{kControlTag, hello.backend}.pack();
  if (epoll_ctl(dispatcher_epoll, EPOLL_CTL_ADD, channel, &event) != 0) return false;
  const ControlMessage welcome{ControlKind::welcome, hello.backend, 0, 0};
  if (!send_control_message(channel, welcome, pool_books[pool_index].epoll)) return false;
  shared().pools[pool_index].starting.fetch_sub(1);
  return true;
}

// A backend connects and says hello at once, so waiting a moment for it is no
// risk: only the server's own user reaches the socket.
void accept_control_channel(int listener) {
  const int channel = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  ControlMessage hello;
  int descriptor;

  if (channel < 0) return;
  if (!control_peer_is_ours(channel)) {
    close(channel);
    return;
  }
  timeval patience{0, 100000};
  setsockopt(channel, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  if (!wait_readable(channel, 100) ||
      receive_control_message(channel, &hello, &descriptor) != ControlReceipt::message ||
      hello.kind != ControlKind::hello || !greet_backend(channel, hello)) {
    close(channel);
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
        if (message.kind == ControlKind::request && message.slot < shared().header->max_clients)
          send_client(index, ClientRef{message.slot, message.generation});
        break;
    }
  }
}

// ------------------------------------------------------------------ waiting clients

// A likely taker gets a copy of the socket before it asks: the backend of the
// pool that came to rest last (epoll wakes the latest sleeper first).
static void push_client_to_likely_backend(std::uint32_t pool_index, ClientRef client) {
  SharedState &state = shared();
  std::uint32_t best = kNoIndex;
  std::int64_t best_since = -1;

  for (std::uint32_t i = 0; i < state.header->max_backends; i++) {
    const BackendSlot &backend = state.backends[i];
    if (backend_books[i].channel < 0 || backend.pool.load(std::memory_order_relaxed) != pool_index) continue;
    const auto backend_state = static_cast<BackendState>(backend.state.load(std::memory_order_relaxed));
    if (backend_state != BackendState::waiting && backend_state != BackendState::lingering) continue;
    const std::int64_t since = backend.state_since_us.load(std::memory_order_relaxed);
    if (since > best_since) {
      best = i;
      best_since = since;
    }
  }
  if (best != kNoIndex) send_client(best, client);
}

static bool enqueue(std::uint32_t pool_index, ClientRef client, std::int64_t now_us) {
  PoolSlot &pool = shared().pools[pool_index];
  ClientSlot &slot = shared().clients[client.slot];

  slot.ready_since_us.store(now_us);
  if (!pool.wait_queue.get().bounded_push(client.pack())) return false;
  return true;
}

static void ring_or_poke(std::uint32_t pool_index) {
  PoolSlot &pool = shared().pools[pool_index];
  if (pool.waiters.load() > 0) {
    const std::uint64_t one = 1;
    ssize_t written = write(pool_books[pool_index].bell, &one, sizeof(one));
    (void)written;
  } else if (pool.lingerers.load() > 0) {
    poke_lingering_backend(pool_index);
  }
}

static void govern_growth(std::uint32_t pool_index, std::int64_t now_us);

void pool_receives_client(std::uint32_t pool_index, ClientRef client) {
  PoolSlot &pool = shared().pools[pool_index];
  const std::int64_t now_us = monotonic_us();
  epoll_event event{};

  // Registered, but disarmed: the first lease comes from the queue.
  event.events = EPOLLONESHOT;
  event.data.u64 = client.pack();
  epoll_ctl(pool_books[pool_index].epoll, EPOLL_CTL_ADD, client_descriptor(client.slot), &event);
  pool.clients.fetch_add(1);
  pool.clients_total.fetch_add(1);
  push_client_to_likely_backend(pool_index, client);
  pool.queued.fetch_add(1);
  change_client_state(client, ClientState::authenticating, ClientState::ready);
  if (!enqueue(pool_index, client, now_us)) {
    // The queue is full of clients that wait already; the scan requeues this one.
    shared().clients[client.slot].ready_since_us.store(now_us);
  }
  ring_or_poke(pool_index);
  pool.watched.store(1);
  govern_growth(pool_index, now_us);
}

static void drain_ready_clients(std::uint32_t pool_index, std::int64_t now_us) {
  PoolSlot &pool = shared().pools[pool_index];
  epoll_event events[128];

  for (;;) {
    const int room = static_cast<int>(kWaitQueueCapacity) - pool.queued.load() - 256;
    if (room < static_cast<int>(lengthof(events))) return;
    const int count = epoll_wait(pool_books[pool_index].epoll, events, lengthof(events), 0);
    for (int i = 0; i < count; i++) {
      if (events[i].data.u64 == kBellEvent) continue;
      const ClientRef client = ClientRef::unpack(events[i].data.u64);
      pool.queued.fetch_add(1);
      if (!change_client_state(client, ClientState::idle, ClientState::ready)) {
        pool.queued.fetch_sub(1);
        continue;
      }
      pool.armed.fetch_sub(1);
      enqueue(pool_index, client, now_us);
    }
    if (count < static_cast<int>(lengthof(events))) break;
  }
  const std::int32_t waiting = pool.queued.load();
  if (waiting > pool.peak_waiting.load(std::memory_order_relaxed)) pool.peak_waiting.store(waiting);
  if (waiting > 0 && (pool.waiters.load() > 0 || pool.lingerers.load() > 0)) ring_or_poke(pool_index);
}

// Ends a client that waits or is idle: last words, then forgotten.
static void end_client(ClientRef client, ClientState from, const StringInfoData *words) {
  PoolSlot &pool = shared().pools[shared().clients[client.slot].pool.load()];

  if (!change_client_state(client, from, ClientState::closing)) return;
  if (from == ClientState::ready) pool.queued.fetch_sub(1);
  if (from == ClientState::idle) pool.armed.fetch_sub(1);
  send_last_words(client.slot, words->data, words->len);
  forget_client(client);
}

static void fail_waiting_clients(std::uint32_t pool_index, int sqlerrcode, const char *message, const char *hint) {
  SharedState &state = shared();
  StringInfoData words;

  initStringInfo(&words);
  append_fatal_response(&words, sqlerrcode, message, nullptr, hint);
  for (std::uint32_t i = 0; i < client_capacity(); i++) {
    const ClientSlot &slot = state.clients[i];
    const ClientWord word = ClientWord::unpack(slot.word.load());
    if (slot.pool.load() == pool_index && word.state == ClientState::ready)
      end_client(ClientRef{i, word.generation}, ClientState::ready, &words);
  }
  pfree(words.data);
}

// ------------------------------------------------------------------ time limits

struct PoolCensus {
  int active = 0, idle = 0, thinking = 0, held = 0, starting = 0;
  std::int64_t longest_thinking_us = 0;
  std::int32_t longest_thinking_pid = 0;
};

static PoolCensus take_census(std::uint32_t pool_index, std::int64_t now_us) {
  SharedState &state = shared();
  PoolCensus census;

  for (std::uint32_t i = 0; i < state.header->max_backends; i++) {
    const BackendSlot &backend = state.backends[i];
    if (backend.pool.load(std::memory_order_relaxed) != pool_index) continue;
    switch (static_cast<BackendState>(backend.state.load(std::memory_order_relaxed))) {
      case BackendState::active: census.active++; break;
      case BackendState::waiting:
      case BackendState::lingering: census.idle++; break;
      case BackendState::held: census.held++; break;
      case BackendState::starting: census.starting++; break;
      case BackendState::thinking: {
        const std::int64_t age_us = now_us - backend.state_since_us.load(std::memory_order_relaxed);
        census.thinking++;
        if (age_us > census.longest_thinking_us) {
          census.longest_thinking_us = age_us;
          census.longest_thinking_pid = backend.pid.load(std::memory_order_relaxed);
        }
        break;
      }
      default: break;
    }
  }
  return census;
}

static void describe_full_pool(StringInfo detail, std::uint32_t pool_index, std::int64_t now_us) {
  const PoolSlot &pool = shared().pools[pool_index];
  const PoolCensus census = take_census(pool_index, now_us);

  appendStringInfo(detail, "%s%d backends are busy: %d active, %d idle in transaction",
                   pool.backends.load() == 1 ? "" : "All ", pool.backends.load(), census.active, census.thinking);
  if (census.thinking > 0)
    appendStringInfo(detail, " (longest " INT64_FORMAT " s, pid %d)", census.longest_thinking_us / 1000000,
                     census.longest_thinking_pid);
  if (census.held > 0) appendStringInfo(detail, ", %d held by sessions", census.held);
  if (census.starting > 0) appendStringInfo(detail, ", %d starting", census.starting);
  appendStringInfo(detail, "; %d clients are waiting.", pool.queued.load());
}

static void time_out_client(std::uint32_t pool_index, ClientRef client, std::int64_t now_us) {
  PoolSlot &pool = shared().pools[pool_index];
  StringInfoData words, message, detail;

  initStringInfo(&words);
  initStringInfo(&message);
  initStringInfo(&detail);
  appendStringInfo(&message, "could not get a backend from pool \"%s/%s\" within %d ms", pool.role, pool.database,
                   pool.acquire_timeout_ms.load());
  describe_full_pool(&detail, pool_index, now_us);
  const char *hint = "See the view sluice.backends, or consider raising \"sluice.max_pool_size\".";
  append_fatal_response(&words, ERRCODE_TOO_MANY_CONNECTIONS, message.data, detail.data, hint);
  pool.acquire_timeouts.fetch_add(1);
  ErrorData error;
  memset(&error, 0, sizeof(error));
  error.sqlerrcode = ERRCODE_TOO_MANY_CONNECTIONS;
  error.message = message.data;
  error.detail = detail.data;
  error.hint = const_cast<char *>(hint);
  log_as_fatal(&error);
  end_client(client, ClientState::ready, &words);
  pfree(words.data);
  pfree(message.data);
  pfree(detail.data);
}

static void dismiss_client(ClientRef client, ClientState from, int sqlerrcode, const char *message) {
  StringInfoData words;
  initStringInfo(&words);
  append_fatal_response(&words, sqlerrcode, message, nullptr, nullptr);
  end_client(client, from, &words);
  pfree(words.data);
}

// A ready client whose queue entry got lost (the queue was full) stands in no
// queue; it is put back after a while.  A double entry is harmless.
constexpr std::int64_t kRequeueUs = 250000;

static void scan_clients(std::int64_t now_us) {
  SharedState &state = shared();
  for (std::uint32_t i = 0; i < client_capacity(); i++) {
    ClientSlot &slot = state.clients[i];
    const ClientWord word = ClientWord::unpack(slot.word.load(std::memory_order_relaxed));
    const std::uint32_t pool_index = slot.pool.load(std::memory_order_relaxed);
    const ClientRef client{i, word.generation};
    if (word.state == ClientState::closing) {
      forget_client(client);
      continue;
    }
    if (pool_index == kNoIndex) continue;
    PoolSlot &pool = state.pools[pool_index];
    const bool told_to_leave = (slot.flags.load(std::memory_order_relaxed) & kClientToLeave) != 0;
    if (word.state == ClientState::ready) {
      const std::int64_t waited_us = now_us - slot.ready_since_us.load(std::memory_order_relaxed);
      const std::int64_t limit_us = static_cast<std::int64_t>(pool.acquire_timeout_ms.load()) * 1000;
      if (told_to_leave)
        dismiss_client(client, ClientState::ready, ERRCODE_ADMIN_SHUTDOWN,
                       "terminating connection due to administrator command");
      else if (limit_us > 0 && waited_us > limit_us)
        time_out_client(pool_index, client, now_us);
      else if (waited_us > kRequeueUs && pool.wait_queue.get().empty())
        pool.wait_queue.get().bounded_push(client.pack());
    } else if (word.state == ClientState::idle) {
      const std::int64_t idle_us = now_us - slot.state_since_us.load(std::memory_order_relaxed);
      const std::int64_t limit_us = static_cast<std::int64_t>(pool.idle_session_timeout_ms.load()) * 1000;
      if (told_to_leave)
        dismiss_client(client, ClientState::idle, ERRCODE_ADMIN_SHUTDOWN, "terminating connection due to administrator command");
      else if (limit_us > 0 && idle_us > limit_us)
        dismiss_client(client, ClientState::idle, ERRCODE_IDLE_SESSION_TIMEOUT,
                        "terminating connection due to idle-session timeout");
    }
  }
}

// ------------------------------------------------------------------ growth and retirement

// The backend of another pool that has been idle longest gives way.
static void make_room(std::uint32_t for_pool) {
  SharedState &state = shared();
  std::uint32_t victim = kNoIndex;

  for (std::uint32_t i = 0; i < state.header->max_backends; i++) {
    const BackendSlot &backend = state.backends[i];
    if (backend.state.load() == static_cast<std::uint32_t>(BackendState::free)) continue;
    if (backend.retire_requested.load() != 0) return;  // one is leaving already
    const auto backend_state = static_cast<BackendState>(backend.state.load());
    if (backend.pool.load() == for_pool ||
        (backend_state != BackendState::waiting && backend_state != BackendState::lingering))
      continue;
    if (victim == kNoIndex || backend.state_since_us.load() < state.backends[victim].state_since_us.load())
      victim = i;
  }
  if (victim != kNoIndex) request_retirement(victim, RetireReason::gave_way);
}

static void govern_growth(std::uint32_t pool_index, std::int64_t now_us) {
  SharedState &state = shared();
  PoolSlot &pool = state.pools[pool_index];
  const PoolCensus census = take_census(pool_index, now_us);

  pool.thinking.store(census.thinking);
  PoolLoad load{};
  load.waiting = pool.queued.load();
  load.backends = pool.backends.load();
  load.starting = pool.starting.load();
  load.thinking = census.thinking;
  load.min_size = pool.min_size.load();
  load.max_size = pool.max_size.load();
  load.clients = pool.clients.load();
  load.now_us = now_us;
  load.retry_after_us = pool_books[pool_index].retry_after_us;
  const ServerLoad server{state.header->backends.load(), static_cast<int>(state.header->max_backends)};
  const GrowthDecision decision = decide_growth(load, server);
  if (decision.start)
    start_backend(pool_index, now_us);
  else if (decision.make_room)
    make_room(pool_index);
  else if (decision.reason == GrowthReason::enough_starting && load.waiting > 0)
    pool.starts_elided.fetch_add(1, std::memory_order_relaxed);
}

// How many backends of the pool have been told to leave already.
static int count_retiring(std::uint32_t pool_index) {
  SharedState &state = shared();
  int count = 0;
  for (std::uint32_t i = 0; i < state.header->max_backends; i++) {
    const BackendSlot &backend = state.backends[i];
    if (backend.pool.load() == pool_index && backend.state.load() != static_cast<std::uint32_t>(BackendState::free) &&
        backend.retire_requested.load() != 0)
      count++;
  }
  return count;
}

static void govern_retirement(std::uint32_t pool_index, std::int64_t now_us) {
  SharedState &state = shared();
  PoolSlot &pool = state.pools[pool_index];
  PoolBook &book = pool_books[pool_index];
  BackendLoad load{};

  load.backends = pool.backends.load();
  load.retiring = count_retiring(pool_index);
  load.thinking = pool.thinking.load();
  load.clients = pool.clients.load();
  load.min_size = pool.min_size.load();
  load.max_size = pool.max_size.load();
  load.idle_timeout_us = static_cast<std::int64_t>(pool.idle_timeout_ms.load()) * 1000;
  if (!is_above_maximum(load.backends, load.retiring, load.thinking, load.max_size))
    book.above_maximum_since_us = 0;
  else if (book.above_maximum_since_us == 0)
    book.above_maximum_since_us = now_us;
  load.above_maximum_since_us = book.above_maximum_since_us;

  for (std::uint32_t i = 0; i < state.header->max_backends; i++) {
    const BackendSlot &backend = state.backends[i];
    const auto backend_state = static_cast<BackendState>(backend.state.load());
    if (backend.pool.load() != pool_index || backend_state == BackendState::free ||
        backend_state == BackendState::starting || backend.retire_requested.load() != 0)
      continue;
    const bool idle = backend_state == BackendState::waiting || backend_state == BackendState::lingering;
    load.age = BackendAge{now_us, idle ? backend.state_since_us.load() : 0, backend.expires_us.load()};
    const RetireReason reason = decide_retirement(load);
    if (reason == RetireReason::none) continue;
    request_retirement(i, reason);
    load.retiring++;
  }
}

static void keep_watched_pool(std::uint32_t index, std::int64_t now_us) {
  PoolSlot &pool = shared().pools[index];
  PoolBook &book = pool_books[index];

  if (needs_watcher(pool.waiters.load(), pool.armed.load(), pool.queued.load())) {
    book.calm_ticks = 0;
    drain_ready_clients(index, now_us);
  } else if (pool.queued.load() > 0) {
    book.calm_ticks = 0;
    ring_or_poke(index);
  } else if (++book.calm_ticks > kCalmTicks) {
    book.calm_ticks = 0;
    pool.watched.store(0);
    if (needs_watcher(pool.waiters.load(), pool.armed.load(), pool.queued.load())) pool.watched.store(1);
    return;
  }
  if (pool.queued.load() > 0 || pool.backends.load() < pool.min_size.load()) govern_growth(index, now_us);
}

static bool any_pool_is_watched() {
  SharedState &state = shared();
  for (std::uint32_t i = 0; i < state.header->max_pools; i++)
    if (state.pools[i].state.load(std::memory_order_relaxed) != 0 && state.pools[i].watched.load() != 0) return true;
  return false;
}

void keep_pools(std::int64_t now_us) {
  SharedState &state = shared();
  bool clients_wait = false;

  bury_dead_backends(now_us);
  for (std::uint32_t i = 0; i < state.header->max_pools; i++) {
    if (state.pools[i].state.load(std::memory_order_relaxed) == 0) continue;
    if (state.pools[i].watched.load() != 0) keep_watched_pool(i, now_us);
    clients_wait |= state.pools[i].queued.load() > 0;
  }
  if (now_us >= next_retirement_scan_us) {
    next_retirement_scan_us = now_us + kRetirementScanUs;
    for (std::uint32_t i = 0; i < state.header->max_pools; i++) {
      if (state.pools[i].state.load() == 0) continue;
      resolve_pool_size(state.pools[i]);
      govern_growth(i, now_us);
      govern_retirement(i, now_us);
    }
    scan_clients(now_us);
  } else if (clients_wait && now_us >= next_timeout_scan_us) {
    next_timeout_scan_us = now_us + kTimeoutScanUs;
    scan_clients(now_us);
  }
}

std::int64_t pool_keeper_sleep_us() { return any_pool_is_watched() ? kTickUs : kIdleSleepUs; }

void pools_reread_settings() {
  SharedState &state = shared();
  // Backends publish what they see (role and database settings included) when
  // they reload; pools without backends take the server's.
  for (std::uint32_t i = 0; i < state.header->max_pools; i++)
    if (state.pools[i].state.load() != 0 && state.pools[i].backends.load() == 0)
      apply_server_settings(state.pools[i]);
}

}  // namespace sluice::pg
