// SPDX-License-Identifier: PostgreSQL
//
// The dispatcher's side of the pools.
//
// Pressure.  While some backend of a pool sleeps in the pool's epoll set the
// kernel hands clients over and nothing is to be done here.  The backend that
// finds nobody left to watch the set (needs_watcher) sets PoolSlot::watched and
// signals the dispatcher (backends that linger may be left lingering then), which then ticks once a millisecond for this pool: it
// drains ready clients from the set into the wait queue, with the time, and asks
// the governor whether another backend is worth starting.  It stops when nothing
// has been waiting for a while.  If still no backend sleeps in the set then -they
// all execute for long, or think, or there are none- the set itself is put into
// the dispatcher's own set until the next event.
//
//   Race: the dispatcher stops watching while a backend finds the set unwatched.
//   Answer: it clears `watched` first and then looks again; the backend looks
//   first and then sets `watched`.  Both orders are sequentially consistent, so
//   one of the two sees the other.
//
//   Race: a client is queued while a backend goes to sleep.  Answer: the backend
//   counts itself into `waiters` and then looks at the queue; the dispatcher
//   queues and then looks at `waiters`, and rings the bell (an eventfd in the set).

#include "pg/compat.hpp"

#include "pg/pool/pool_keeper.hpp"

extern "C" {
#include "utils/memutils.h"
#include "utils/timestamp.h"
}

#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/pool/hand_over.hpp"
#include "core/pool/pool_reuse.hpp"
#include "core/stats/pool_totals.hpp"
#include "pg/accept/client_registry.hpp"
#include "pg/accept/dispatcher.hpp"
#include "pg/error_response.hpp"
#include "pg/pool/backend_keeper.hpp"
#include "pg/pool/catalog_watch.hpp"
#include "pg/pool/control_server.hpp"
#include "pg/pool/hold_watch.hpp"
#include "pg/pool/keeper_books.hpp"
#include "pg/pool/time_limits.hpp"
#include "pg/pool/wake_up.hpp"
#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"
#include "pg/stats/error_count.hpp"
#include "pg/stats/event_log.hpp"

namespace sluice::pg {

constexpr std::int64_t kTickUs = 1000;
constexpr std::int64_t kIdleSleepUs = 1000000;
constexpr int kCalmTicks = 50;
constexpr std::int64_t kTimeoutScanUs = 20000;
constexpr std::int64_t kRetirementScanUs = 1000000;

int keeper_epoll = -1;
PoolBook *pool_books = nullptr;
BackendBook *backend_books = nullptr;
static std::int64_t next_timeout_scan_us = 0;
static std::int64_t next_retirement_scan_us = 0;

void open_pool_keeper(int epoll) {
  SharedState &state = shared();

  keeper_epoll = epoll;
  pool_books = static_cast<PoolBook *>(
      MemoryContextAllocZero(TopMemoryContext, sizeof(PoolBook) * state.header->max_pools));
  backend_books = static_cast<BackendBook *>(
      MemoryContextAllocZero(TopMemoryContext, sizeof(BackendBook) * state.header->backend_slots));
  for (std::uint32_t i = 0; i < state.header->max_pools; i++) state.pools[i].state.store(0);
  for (std::uint32_t i = 0; i < state.header->backend_slots; i++) backend_books[i].channel = -1;
}

// ------------------------------------------------------------------ pools

static void resolve_pool_size(PoolSlot &pool) {
  const std::int32_t configured = pool.configured_max_size.load();
  const std::int32_t size = configured > 0 ? configured : shared().header->machine.rule_size.load();
  pool.max_size.store(Max(size, 1));
}

// But for what the role or the database has of its own.
static void apply_server_settings(PoolSlot &pool) {
  const std::uint32_t own = pool.own_settings.load();
  if ((own & kOwnMode) == 0) pool.mode.store(setting_pool_mode);
  if ((own & kOwnMinSize) == 0) pool.min_size.store(setting_min_pool_size);
  if ((own & kOwnMaxSize) == 0) pool.configured_max_size.store(setting_max_pool_size);
  if ((own & kOwnAcquireTimeout) == 0) pool.acquire_timeout_ms.store(setting_acquire_timeout);
  if ((own & kOwnIdleTimeout) == 0) pool.idle_timeout_ms.store(setting_idle_timeout);
  if ((own & kOwnMaxLifetime) == 0) pool.max_lifetime_ms.store(setting_max_lifetime);
  if ((own & kOwnLeakThreshold) == 0) pool.leak_threshold_ms.store(setting_leak_threshold);
  resolve_pool_size(pool);
}

static void reset_pool_counters(PoolSlot &pool) {
  for (std::atomic<std::int32_t> *gauge :
       {&pool.clients, &pool.backends, &pool.starting, &pool.thinking, &pool.pinned, &pool.waiters, &pool.lingerers,
        &pool.armed, &pool.queued, &pool.peak_waiting, &pool.peak_backends, &pool.second_peak_waiting,
        &pool.second_peak_in_use})
    gauge->store(0);
  for (std::atomic<std::uint64_t> *counter :
       {&pool.acquire_timeouts, &pool.starts, &pool.start_failures, &pool.starts_elided, &pool.retirements,
        &pool.clients_total, &pool.cancels, &pool.clients_lost, &pool.pins_refused, &pool.pin_timeouts, &pool.leaks,
        &pool.nested_acquires})
    counter->store(0);
  pool.nested_since_us.store(0);
  pool.nested_until_us.store(0);
  pool.nested_threads.store(0);
  pool.nested_minimum.store(0);
  for (std::atomic<std::uint64_t> &pins : pool.pins) pins.store(0);
  pool.watched.store(0);
  pool.drained_us.store(0);
  reset_pool_totals(pool);
  pool.statistics_since_at.store(GetCurrentTimestamp());
}

static void close_pool_set(PoolBook &book) {
  if (book.epoll > 0) {
    epoll_ctl(keeper_epoll, EPOLL_CTL_DEL, book.epoll, nullptr);
    close(book.epoll);
  }
  if (book.bell > 0) close(book.bell);
  book.epoll = book.bell = 0;
}

static bool create_pool(std::uint32_t index, Oid database, Oid role, const char *database_name,
                        const char *role_name) {
  PoolSlot &pool = shared().pools[index];
  PoolBook &book = pool_books[index];

  // Nobody finds it until it is complete; whoever has begun to read it notices both changes of the generation.
  pool.state.store(static_cast<std::uint32_t>(PoolState::free));
  pool.generation.fetch_add(1);
  close_pool_set(book);
  memset(&book, 0, sizeof(book));
  book.unused_since_us = monotonic_us();
  book.epoll = epoll_create1(EPOLL_CLOEXEC);
  book.bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  epoll_event bell_event{};
  bell_event.events = EPOLLIN | EPOLLET;
  bell_event.data.u64 = kBellEvent;
  if (book.epoll < 0 || book.bell < 0 || epoll_ctl(book.epoll, EPOLL_CTL_ADD, book.bell, &bell_event) != 0) {
    ereport(LOG, (errcode_for_socket_access(), errmsg("could not create the epoll set of a pool: %m")));
    close_pool_set(book);
    return false;
  }
  // Stale entries are no harm, but the storage must be constructed once.
  pool.wait_queue.construct();
  pool.database_oid = database;
  pool.role_oid = role;
  strlcpy(pool.database, database_name, kNameLength);
  strlcpy(pool.role, role_name, kNameLength);
  pool.created_at = GetCurrentTimestamp();
  reset_pool_counters(pool);
  pool.own_settings.store(0);
  pool.idle_session_timeout_ms.store(0);
  pool.idle_transaction_timeout_ms.store(0);
  apply_server_settings(pool);
  pool.greeting.length.store(0);
  pool.generation.fetch_add(1);
  pool.state.store(static_cast<std::uint32_t>(PoolState::open));
  log_event(EventKind::pool_created, index, kNoProcess, kNoClient, "first client of its database and role");
  return true;
}

static PoolUse use_of_pool(std::uint32_t index) {
  const PoolSlot &pool = shared().pools[index];
  const PoolBook &book = pool_books[index];
  return PoolUse{is_open(pool), book.gone, pool.clients.load(), pool.backends.load(), book.unused_since_us};
}

static SlotChoice choose_slot() {
  SlotChoice choice;
  for (std::uint32_t i = 0; i < shared().header->max_pools; i++) choice = better_slot(choice, i, use_of_pool(i));
  return choice;
}

bool pool_slot_is_coming() { return choose_slot().action != SlotAction::none; }

// Statistics and backends of databases and roles that are no more.
static void release_pool(std::uint32_t index) {
  PoolSlot &pool = shared().pools[index];
  if (pool.backends.load() > 0) {
    retire_pool_backends(index, RetireReason::pool_released);
    return;
  }
  pool.watched.store(0);
  pool.greeting.length.store(0);
  pool.state.store(static_cast<std::uint32_t>(PoolState::free));
  close_pool_set(pool_books[index]);
}

std::uint32_t find_or_create_pool(Oid database, Oid role, const char *database_name, const char *role_name) {
  SharedState &state = shared();

  for (std::uint32_t i = 0; i < state.header->max_pools; i++) {
    PoolSlot &pool = state.pools[i];
    if (is_open(pool) && pool.database_oid == database && pool.role_oid == role) {
      // Both may have been renamed.
      if (strcmp(pool.database, database_name) != 0) strlcpy(pool.database, database_name, kNameLength);
      if (strcmp(pool.role, role_name) != 0) strlcpy(pool.role, role_name, kNameLength);
      return i;
    }
  }
  const SlotChoice choice = choose_slot();
  if (choice.action == SlotAction::vacate) retire_pool_backends(choice.index, RetireReason::pool_released);
  if (choice.action != SlotAction::take ||
      !create_pool(choice.index, database, role, database_name, role_name))
    return kNoIndex;
  return choice.index;
}

void pool_learns_superuser(std::uint32_t pool_index, bool superuser) {
  PoolSlot &pool = shared().pools[pool_index];
  const std::uint32_t now = superuser ? 1 : 0;
  if (pool.superuser.exchange(now) == now || pool.backends.load() == 0) return;
  pool.greeting.length.store(0);
  retire_pool_backends(pool_index, RetireReason::requested);
}

void pool_learns_changed_settings(std::uint32_t pool_index) {
  PoolBook &book = pool_books[pool_index];
  const std::uint64_t changes = shared().pools[pool_index].role_setting_changes.load();
  if (changes == book.role_setting_changes) return;
  book.role_setting_changes = changes;
  retire_outdated_backends(pool_index, changes);
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

void pool_forgets_client(std::uint32_t pool_index, ClientRef client) {
  if ((shared().clients[client.slot].flags.load() & kClientInSet) != 0)
    epoll_ctl(pool_books[pool_index].epoll, EPOLL_CTL_DEL, client_descriptor(client.slot), nullptr);
  if (shared().pools[pool_index].clients.fetch_sub(1) == 1) pool_books[pool_index].unused_since_us = monotonic_us();
}

// ------------------------------------------------------------------ waiting clients

// A full queue is full of clients that wait already; scan_clients() puts this one
// back later.
static void enqueue(std::uint32_t pool_index, ClientRef client, std::int64_t now_us) {
  PoolSlot &pool = shared().pools[pool_index];
  ClientSlot &slot = shared().clients[client.slot];

  slot.ready_since_us.store(now_us);
  if (!pool.wait_queue.get().bounded_push(client.pack())) slot.flags.fetch_or(kClientUnqueued);
}

static void ring_or_poke(std::uint32_t pool_index) {
  PoolSlot &pool = shared().pools[pool_index];
  if (pool.waiters.load() > 0) {
    const std::uint64_t one = 1;
    ssize_t written = write(pool_books[pool_index].bell, &one, sizeof(one));
    (void)written;
  } else if (pool.lingerers.load() > 0) {
    poke_lingering_backends(pool_index, 1, Max(Min(pool.queued.load(), pool.lingerers.load()), 1));
  }
}

// A backend that sleeps, the latest to have come to rest: its caches are warmest.
static std::uint32_t find_sleeper(std::uint32_t pool_index) {
  SharedState &state = shared();
  std::uint32_t best = kNoIndex;
  std::int64_t best_since_us = -1;

  for (std::uint32_t i = 0; i < state.header->backend_slots; i++) {
    const BackendSlot &backend = state.backends[i];
    if (backend.state.load(std::memory_order_relaxed) != static_cast<std::uint32_t>(BackendState::waiting) ||
        backend.pool.load(std::memory_order_relaxed) != pool_index || backend_books[i].channel < 0 ||
        backend.retire_requested.load(std::memory_order_relaxed) != 0)
      continue;
    const std::int64_t since_us = backend.state_since_us.load(std::memory_order_relaxed);
    if (since_us > best_since_us) {
      best = i;
      best_since_us = since_us;
    }
  }
  return best;
}

// Leases a new client to a sleeping backend, socket included, so that connecting
// wakes one process once.  False when nobody sleeps.
static bool assign_client(std::uint32_t pool_index, ClientRef client) {
  const std::uint32_t index = find_sleeper(pool_index);
  if (index == kNoIndex) return false;
  BackendSlot &backend = shared().backends[index];
  auto waiting = static_cast<std::uint32_t>(BackendState::waiting);

  backend.assigned_client.store(client.pack());
  if (!backend_books[index].pulls_descriptors) send_client(index, client);
  // Leased before the backend can know: nobody else may touch the client.
  shared().clients[client.slot].word.store(ClientWord{client.generation, index, ClientState::leased}.pack());
  if (!backend.state.compare_exchange_strong(waiting, static_cast<std::uint32_t>(BackendState::assigned))) {
    shared().clients[client.slot].word.store(
        ClientWord{client.generation, kNoIndex, ClientState::authenticating}.pack());
    return false;
  }
  kill(backend.pid.load(), SIGUSR2);
  return true;
}

void pool_receives_client(std::uint32_t pool_index, ClientRef client) {
  PoolSlot &pool = shared().pools[pool_index];

  pool.clients.fetch_add(1);
  pool.clients_total.fetch_add(1);
  if (pool.queued.load() <= 0 && assign_client(pool_index, client)) return;

  const std::int64_t now_us = monotonic_us();
  pool.queued.fetch_add(1);
  shared().clients[client.slot].ready_since_us.store(now_us);
  change_client_state(client, ClientState::authenticating, ClientState::ready);
  enqueue(pool_index, client, now_us);
  note_waiting(pool);
  ring_or_poke(pool_index);
  pool.watched.store(1);
  govern_growth(pool_index, now_us);
}

void pool_resumes_client(ClientRef client) {
  const std::uint32_t pool_index = shared().clients[client.slot].pool.load();
  PoolSlot &pool = shared().pools[pool_index];
  const std::int64_t now_us = monotonic_us();

  pool.queued.fetch_add(1);
  if (!change_client_state(client, ClientState::idle, ClientState::ready)) {
    pool.queued.fetch_sub(1);
    return;
  }
  pool.armed.fetch_sub(1);
  enqueue(pool_index, client, now_us);
  note_waiting(pool);
  ring_or_poke(pool_index);
  pool.watched.store(1);
}

// Nobody would ever see what it sends.
static void end_unwatched_client(PoolSlot &pool, ClientRef client) {
  constexpr const char *kMessage = "could not watch the client's connection";
  StringInfoData words;
  const int saved_errno = errno;

  if (!change_client_state(client, ClientState::idle, ClientState::closing)) return;
  pool.armed.fetch_sub(1);
  errno = saved_errno;
  ereport(LOG, (errcode(ERRCODE_INSUFFICIENT_RESOURCES), errmsg("%s: %m", kMessage)));
  count_error(ErrorClass::limit, ERRCODE_INSUFFICIENT_RESOURCES, pool.role_oid, kMessage);
  initStringInfo(&words);
  append_fatal_response(&words, ERRCODE_INSUFFICIENT_RESOURCES, kMessage, nullptr, nullptr);
  send_last_words(client.slot, words.data, words.len);
  pfree(words.data);
  forget_client(client);
}

static void arm_client(std::uint32_t pool_index, ClientRef client, int operation) {
  PoolSlot &pool = shared().pools[pool_index];
  epoll_event event{};

  event.events = EPOLLIN | EPOLLRDHUP | EPOLLONESHOT;
  event.data.u64 = client.pack();
  if (epoll_ctl(pool_books[pool_index].epoll, operation, client_descriptor(client.slot), &event) != 0) {
    end_unwatched_client(pool, client);
    return;
  }
  if (!needs_watcher(pool.waiters.load(), pool.armed.load(), pool.queued.load())) return;
  if (pool.lingerers.load() > 0) poke_lingering_backend(pool_index);
  pool.watched.store(1);
}

void pool_parks_client(std::uint32_t pool_index, ClientRef client) {
  PoolSlot &pool = shared().pools[pool_index];

  pool.clients.fetch_add(1);
  pool.clients_total.fetch_add(1);
  shared().clients[client.slot].flags.fetch_or(kClientInSet);
  pool.armed.fetch_add(1);
  change_client_state(client, ClientState::authenticating, ClientState::idle);
  arm_client(pool_index, client, EPOLL_CTL_ADD);
}

void pool_arms_client(ClientRef client) {
  const ClientSlot &slot = shared().clients[client.slot];
  const ClientWord word = ClientWord::unpack(slot.word.load());
  if (word.generation == client.generation && word.state == ClientState::idle)
    arm_client(slot.pool.load(), client, EPOLL_CTL_MOD);
}

// When the clients found ready now became so: at some time since the last look,
// and on the average in the middle.  Unless that was long ago: then somebody else
// watched in between.
static std::int64_t ready_since(PoolSlot &pool, std::int64_t now_us) {
  const std::int64_t last_us = pool.drained_us.exchange(now_us);
  return now_us - last_us < kDrainedRecentlyUs ? last_us + (now_us - last_us) / 2 : now_us;
}

// True if there were any.
static bool drain_ready_clients(std::uint32_t pool_index, std::int64_t now_us) {
  PoolSlot &pool = shared().pools[pool_index];
  const std::int64_t since_us = ready_since(pool, now_us);
  epoll_event events[128];
  bool any = false;

  for (;;) {
    const int room = static_cast<int>(kWaitQueueCapacity) - pool.queued.load() - 256;
    if (room < static_cast<int>(lengthof(events))) {
      any = true;
      break;
    }
    const int count = epoll_wait(pool_books[pool_index].epoll, events, lengthof(events), 0);
    for (int i = 0; i < count; i++) {
      if (events[i].data.u64 == kBellEvent) continue;
      const ClientRef client = ClientRef::unpack(events[i].data.u64);
      // No backend is started for a goodbye.
      if (pool.backends.load() <= 0 && end_if_gone(client)) continue;
      pool.queued.fetch_add(1);
      if (!change_client_state(client, ClientState::idle, ClientState::ready)) {
        pool.queued.fetch_sub(1);
        continue;
      }
      pool.armed.fetch_sub(1);
      enqueue(pool_index, client, since_us);
      any = true;
    }
    if (count < static_cast<int>(lengthof(events))) break;
  }
  const std::int32_t waiting = pool.queued.load();
  note_waiting(pool);
  if (waiting > 0 && (pool.waiters.load() > 0 || pool.lingerers.load() > 0)) ring_or_poke(pool_index);
  return any;
}

// Ends the ticking for a pool that still has no backend in its set.  The set is
// looked at as it is added, so a client that became ready just now is an event; one
// that a backend has queued just now (pass_on) is not, and whoever did that may have
// found `watched` still set.
static void await_events(std::uint32_t index) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = ClientRef{kPoolTag, index}.pack();
  shared().pools[index].watched.store(0);
  if (epoll_ctl(keeper_epoll, EPOLL_CTL_ADD, pool_books[index].epoll, &event) != 0 && errno != EEXIST)
    shared().pools[index].watched.store(1);
  if (shared().pools[index].queued.load() > 0) shared().pools[index].watched.store(1);
}

void pool_has_events(std::uint32_t index) {
  epoll_ctl(keeper_epoll, EPOLL_CTL_DEL, pool_books[index].epoll, nullptr);
  shared().pools[index].watched.store(1);
}

static void keep_watched_pool(std::uint32_t index, std::int64_t now_us) {
  PoolSlot &pool = shared().pools[index];
  PoolBook &book = pool_books[index];

  if (needs_watcher(pool.waiters.load(), pool.armed.load(), pool.queued.load())) {
    if (drain_ready_clients(index, now_us) || pool.queued.load() > 0) {
      book.calm_ticks = 0;
    } else if (++book.calm_ticks > kCalmTicks) {
      book.calm_ticks = 0;
      await_events(index);
      return;
    }
  } else if (pool.queued.load() > 0) {
    book.calm_ticks = 0;
    ring_or_poke(index);
  } else if (++book.calm_ticks > kCalmTicks) {
    book.calm_ticks = 0;
    pool.watched.store(0);
    if (needs_watcher(pool.waiters.load(), pool.armed.load(), pool.queued.load())) pool.watched.store(1);
    return;
  }
  if (pool.queued.load() > 0 || book.waiting_since_us != 0 || pool.backends.load() < pool.min_size.load())
    govern_growth(index, now_us);
}

static bool any_pool_is_watched() {
  SharedState &state = shared();
  for (std::uint32_t i = 0; i < state.header->max_pools; i++)
    if (state.pools[i].state.load(std::memory_order_relaxed) != 0 && state.pools[i].watched.load() != 0) return true;
  return false;
}

// Somebody has asked for it, and waits until it is done; see SharedHeader::looks.
static void look_if_asked(std::int64_t now_us) {
  SharedHeader &header = *shared().header;
  const std::uint32_t requests = header.look_requests.load();
  if (header.looks.load() == requests) return;
  scan_clients(now_us);
  header.looks.store(requests);
}

void keep_pools(std::int64_t now_us) {
  SharedState &state = shared();
  bool clients_wait = false;

  bury_dead_backends(now_us);
  look_if_asked(now_us);
  for (std::uint32_t i = 0; i < state.header->max_pools; i++) {
    if (state.pools[i].state.load(std::memory_order_relaxed) == 0) continue;
    if (state.pools[i].watched.load() != 0) keep_watched_pool(i, now_us);
    clients_wait |= state.pools[i].queued.load() > 0;
  }
  watch_holds(now_us, clients_wait);
  if (now_us >= next_retirement_scan_us) {
    next_retirement_scan_us = now_us + kRetirementScanUs;
    follow_catalogs();
    for (std::uint32_t i = 0; i < state.header->max_pools; i++) {
      if (state.pools[i].state.load() == 0) continue;
      if (is_to_be_released(use_of_pool(i))) {
        release_pool(i);
        continue;
      }
      resolve_pool_size(state.pools[i]);
      pool_learns_changed_settings(i);  // for those who are connected already
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
  // they reload, but not before they have finished what they execute.
  for (std::uint32_t i = 0; i < state.header->max_pools; i++)
    if (state.pools[i].state.load() != 0) apply_server_settings(state.pools[i]);
}

}  // namespace sluice::pg
