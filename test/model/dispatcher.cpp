// SPDX-License-Identifier: PostgreSQL
//
// The dispatcher, as far as it hands clients over: pg/pool/pool_keeper.cpp, the
// scan of pg/pool/time_limits.cpp, burial and retirement of
// pg/pool/backend_keeper.cpp, pg/accept/client_registry.cpp, cancel.cpp and the
// hang-ups of dispatcher.cpp.  The names are theirs.

#include "model/world.hpp"

namespace model {

using namespace sluice;

namespace {

constexpr int kCalmTicks = 3;
constexpr int kScanTicks = 20;

DispatcherMemory &mine() { return world->dispatcher_memory; }
PoolSlot &pool() { return world->pool(); }
Socket &socket_of(std::uint32_t slot) { return world->clients[world->descriptors[slot].load()].socket; }

bool change_client_state(ClientRef client, ClientState from, ClientState to) {
  ClientSlot &slot = world->shared.clients[client.slot];
  std::uint64_t word = slot.word.load();
  const ClientWord seen = ClientWord::unpack(word);

  if (seen.generation != client.generation || seen.state != from) return false;
  step();
  return slot.word.compare_exchange_strong(word, ClientWord{seen.generation, kNoIndex, to}.pack());
}

void forget_client(ClientRef client) {
  ClientSlot &slot = world->shared.clients[client.slot];
  const ClientWord word = ClientWord::unpack(slot.word.load());
  if (word.generation != client.generation) return;
  Client &gone = world->clients[world->descriptors[client.slot].load()];
  world->set.forget(world->descriptors[client.slot].load());
  pool().clients.fetch_sub(1);
  step();
  gone.socket.shut();
  (void)gone.socket.take_hangup();
  slot.sequences = 0;
  world->header().clients.fetch_sub(1);
  slot.word.store(ClientWord{word.generation + 1, kNoIndex, ClientState::free}.pack());
  mine().free_slots[mine().free_count++] = client.slot;
  gone.forgotten.store(true);
}

// ------------------------------------------------------------------ into the pool

void enqueue(ClientRef client) {
  ClientSlot &slot = world->shared.clients[client.slot];
  slot.ready_since_us.store(now_us());
  if (!pool().wait_queue.get().bounded_push(client.pack())) slot.flags.fetch_or(kClientUnqueued);
}

void ring_or_poke() {
  if (pool().waiters.load() > 0)
    world->set.ring();
  else if (pool().lingerers.load() > 0)
    poke_lingering_backend();
}

bool assign_client(ClientRef client) {
  std::uint32_t index = kNoIndex;
  for (std::uint32_t i = 0; i < world->scenario.backends; i++) {
    const BackendSlot &backend = world->shared.backends[i];
    if (backend.state.load(std::memory_order_relaxed) == static_cast<std::uint32_t>(BackendState::waiting) &&
        backend.retire_requested.load(std::memory_order_relaxed) == 0)
      index = i;
  }
  if (index == kNoIndex) return false;
  BackendSlot &backend = world->shared.backends[index];
  auto waiting = static_cast<std::uint32_t>(BackendState::waiting);

  backend.assigned_client.store(client.pack());
  world->shared.clients[client.slot].word.store(ClientWord{client.generation, index, ClientState::leased}.pack());
  step();
  if (!backend.state.compare_exchange_strong(waiting, static_cast<std::uint32_t>(BackendState::assigned))) {
    world->shared.clients[client.slot].word.store(
        ClientWord{client.generation, kNoIndex, ClientState::authenticating}.pack());
    return false;
  }
  step();
  send_signal(backend.pid.load());
  return true;
}

void pool_receives_client(ClientRef client) {
  pool().clients.fetch_add(1);
  if (pool().queued.load() <= 0 && assign_client(client)) return;
  step();
  pool().queued.fetch_add(1);
  change_client_state(client, ClientState::authenticating, ClientState::ready);
  step();
  enqueue(client);
  step();
  ring_or_poke();
  pool().watched.store(1);
}

void arm_client(ClientRef client) {
  world->set.arm(client, world->descriptors[client.slot].load(), &socket_of(client.slot));
  step();
  if (!needs_watcher(pool().waiters.load(), pool().armed.load(), pool().queued.load())) return;
  if (pool().lingerers.load() > 0) poke_lingering_backend();
  pool().watched.store(1);
}

void pool_parks_client(ClientRef client) {
  ClientSlot &slot = world->shared.clients[client.slot];
  Socket &socket = socket_of(client.slot);
  pool().clients.fetch_add(1);
  slot.flags.fetch_or(kClientInSet | kClientGreeted);
  socket.answer();
  pool().armed.fetch_add(1);
  change_client_state(client, ClientState::authenticating, ClientState::idle);
  step();
  arm_client(client);
}

void pool_arms_client(ClientRef client) {
  const ClientWord word = ClientWord::unpack(world->shared.clients[client.slot].word.load());
  if (word.generation == client.generation && word.state == ClientState::idle) arm_client(client);
}

void pool_resumes_client(ClientRef client) {
  pool().queued.fetch_add(1);
  if (!change_client_state(client, ClientState::idle, ClientState::ready)) {
    pool().queued.fetch_sub(1);
    return;
  }
  pool().armed.fetch_sub(1);
  step();
  enqueue(client);
  step();
  ring_or_poke();
  pool().watched.store(1);
}

// ------------------------------------------------------------------ backends

void start_backend(std::uint32_t index) {
  BackendSlot &backend = world->shared.backends[index];
  backend.generation.fetch_add(1);
  backend.pid.store(0);
  backend.pool.store(0);
  backend.client.store(kNoIndex);
  backend.lease.fetch_add(1);
  backend.role_setting_changes.store(pool().role_setting_changes.load());
  backend.retire_requested.store(0);
  backend.poked.store(0);
  backend.cancel_lease.store(0);
  backend.vanished_lease.store(0);
  backend.leave_lease.store(0);
  backend.assigned_client.store(0);
  backend.state.store(static_cast<std::uint32_t>(BackendState::starting));
  pool().backends.fetch_add(1);
  world->start_asked[index].store(backend.generation.load() + 1);
}

void bury_dead_backends() {
  for (std::uint32_t index = 0; index < world->scenario.backends; index++) {
    if (!world->worker_ended[index].exchange(false)) continue;
    BackendSlot &backend = world->shared.backends[index];
    pool().backends.fetch_sub(1);
    backend.state.store(static_cast<std::uint32_t>(BackendState::free));
    step();
    if (needs_watcher(pool().waiters.load(), pool().armed.load(), pool().queued.load())) pool().watched.store(1);
    if (!world->over.load()) start_backend(index);
  }
}

void pool_learns_changed_settings() {
  const std::uint64_t changes = pool().role_setting_changes.load();
  if (changes == mine().seen_changes) return;
  mine().seen_changes = changes;
  for (std::uint32_t index = 0; index < world->scenario.backends; index++) {
    BackendSlot &backend = world->shared.backends[index];
    if (backend.state.load() == static_cast<std::uint32_t>(BackendState::free) ||
        backend.role_setting_changes.load() >= changes || backend.retire_requested.load() != 0)
      continue;
    backend.retire_requested.store(1);
    step();
    send_signal(backend.pid.load());
  }
}

// ------------------------------------------------------------------ arrivals and hang-ups

void receive_client(std::uint32_t number) {
  const std::uint32_t index = mine().free_slots[--mine().free_count];
  ClientSlot &slot = world->shared.clients[index];
  const ClientRef client{index, ClientWord::unpack(slot.word.load()).generation};

  world->descriptors[index].store(number);
  world->clients[number].generation.store(client.generation);
  world->clients[number].slot.store(index + 1);
  slot.pool.store(0, std::memory_order_relaxed);
  slot.flags.store(0, std::memory_order_relaxed);
  slot.transactions.store(0, std::memory_order_relaxed);
  slot.connected_at = now_us();
  slot.sequences = 0;
  slot.word.store(ClientWord{client.generation, kNoIndex, ClientState::authenticating}.pack());
  world->header().clients.fetch_add(1);
  step();
  pool_learns_changed_settings();
  if (one_in(2))
    pool_parks_client(client);
  else
    pool_receives_client(client);
}

bool end_if_gone(ClientRef client) {
  ClientSlot &slot = world->shared.clients[client.slot];
  const ClientWord word = ClientWord::unpack(slot.word.load());

  if (word.generation != client.generation || (word.state != ClientState::idle && word.state != ClientState::ready) ||
      !socket_of(client.slot).has_ended_early() || !change_client_state(client, word.state, ClientState::closing))
    return false;
  (word.state == ClientState::idle ? pool().armed : pool().queued).fetch_sub(1);
  forget_client(client);
  return true;
}

void client_hung_up(ClientRef client) {
  ClientSlot &slot = world->shared.clients[client.slot];
  for (;;) {
    step();
    const ClientWord word = ClientWord::unpack(slot.word.load());
    if (word.generation != client.generation) return;
    switch (word.state) {
      case ClientState::free:
      case ClientState::authenticating:
        return;
      case ClientState::closing:
        forget_client(client);
        return;
      case ClientState::leased:
        slot.flags.fetch_or(kClientVanished | kClientHungUp);
        step();
        if (slot.word.load() != word.pack()) continue;
        report_vanished(client.slot);
        return;
      case ClientState::idle:
      case ClientState::ready:
        if (end_if_gone(client)) return;
        slot.flags.fetch_or(kClientHungUp);
        step();
        if (slot.word.load() != word.pack()) continue;
        if (word.state == ClientState::idle) pool_resumes_client(client);
        return;
    }
  }
}

void client_speaks(ClientRef client) {
  step();
  if (end_if_gone(client)) return;
  if (!wrong(Mistake::arms_before_unwatching)) socket_of(client.slot).watch_input(false);
  step();
  if (!wrong(Mistake::does_not_arm_who_speaks)) pool_arms_client(client);
  if (wrong(Mistake::arms_before_unwatching)) {
    step();
    socket_of(client.slot).watch_input(false);
  }
}

// ------------------------------------------------------------------ watching

bool drain_ready_clients() {
  Event event;
  bool any = false;
  while (world->set.take(&event)) {
    if (event.data == kBell) continue;
    const ClientRef client = ClientRef::unpack(event.data);
    if (pool().backends.load() <= 0 && end_if_gone(client)) continue;
    pool().queued.fetch_add(1);
    if (!change_client_state(client, ClientState::idle, ClientState::ready)) {
      pool().queued.fetch_sub(1);
      continue;
    }
    pool().armed.fetch_sub(1);
    step();
    enqueue(client);
    step();
    any = true;
  }
  if (pool().queued.load() > 0 && (pool().waiters.load() > 0 || pool().lingerers.load() > 0)) ring_or_poke();
  return any;
}

void keep_watched_pool() {
  const bool needed = needs_watcher(pool().waiters.load(), pool().armed.load(), pool().queued.load());
  step();
  if (needed) {
    if (drain_ready_clients() || pool().queued.load() > 0) {
      mine().calm_ticks = 0;
    } else if (++mine().calm_ticks > kCalmTicks) {
      mine().calm_ticks = 0;
      pool().watched.store(0);
      step();
      world->set_is_watched.store(true);
      step();
      if (pool().queued.load() > 0) pool().watched.store(1);
    }
  } else if (pool().queued.load() > 0) {
    mine().calm_ticks = 0;
    ring_or_poke();
  } else if (++mine().calm_ticks > kCalmTicks) {
    mine().calm_ticks = 0;
    step();
    pool().watched.store(0);
    step();
    if (!wrong(Mistake::stops_watching_without_looking) &&
        needs_watcher(pool().waiters.load(), pool().armed.load(), pool().queued.load()))
      pool().watched.store(1);
  }
}

void scan_clients() {
  for (std::uint32_t i = 0; i < world->scenario.slots; i++) {
    ClientSlot &slot = world->shared.clients[i];
    const ClientWord word = ClientWord::unpack(slot.word.load());
    const ClientRef client{i, word.generation};
    const std::uint32_t flags = slot.flags.load(std::memory_order_relaxed);
    const bool waits = word.state == ClientState::ready || word.state == ClientState::idle;
    if ((flags & kClientToLeave) != 0 && waits && change_client_state(client, word.state, ClientState::closing)) {
      (word.state == ClientState::idle ? pool().armed : pool().queued).fetch_sub(1);
      world->clients[world->descriptors[i].load()].ended_by_server.store(true);
      forget_client(client);
    } else if (word.state == ClientState::ready && (flags & kClientUnqueued) != 0 &&
               !wrong(Mistake::forgets_the_unqueued)) {
      if (pool().wait_queue.get().bounded_push(client.pack())) slot.flags.fetch_and(~kClientUnqueued);
    }
  }
}

// ------------------------------------------------------------------ the loop

bool any_event_of_clients() {
  for (std::uint32_t i = 0; i < world->scenario.slots; i++)
    if (ClientWord::unpack(world->shared.clients[i].word.load()).state != ClientState::free &&
        (socket_of(i).hangup_is_news() || socket_of(i).input_is_news()))
      return true;
  return false;
}

bool all_have_left() { return world->living_crowds.load() == 0 && world->header().clients.load() == 0; }

bool has_work(int) {
  return world->dispatcher.pending.load() || pool().watched.load() != 0 || !world->listener.empty() ||
         (world->set_is_watched.load() && world->set.has_event()) || world->scan_due.load() || any_event_of_clients() ||
         all_have_left();
}

void handle_events() {
  Arrival arrival;
  if (world->set_is_watched.load() && world->set.has_event()) {
    world->set_is_watched.store(false);
    pool().watched.store(1);
  }
  for (std::uint32_t i = 0; i < world->scenario.slots; i++) {
    const ClientWord word = ClientWord::unpack(world->shared.clients[i].word.load());
    if (word.state == ClientState::free) continue;
    if (socket_of(i).take_hangup())
      client_hung_up(ClientRef{i, word.generation});
    else if (socket_of(i).take_input())
      client_speaks(ClientRef{i, word.generation});
  }
  // Others than arrivals first, or a slot might not be free yet.
  while (mine().free_count > 0 && world->listener.pop(&arrival)) {
    if (arrival.cancels) {
      const std::uint32_t slot = world->clients[arrival.client].slot.load();
      // The key is the client's own: it names the client, as long as that has the slot.
      if (slot != 0 && world->descriptors[slot - 1].load() == arrival.client) handle_cancel_request(slot - 1);
    } else {
      receive_client(arrival.client);
    }
  }
}

}  // namespace

std::int64_t now_us() { return world->ticks.load(std::memory_order_relaxed) * 1000; }

void run_dispatcher() {
  for (std::uint32_t i = world->scenario.slots; i-- > 0;) mine().free_slots[mine().free_count++] = i;
  world->dispatcher.pid.store(1);
  world->header().dispatcher_pid.store(1);
  for (std::uint32_t i = 0; i < world->scenario.backends; i++) start_backend(i);
  while (!all_have_left()) {
    world->dispatcher.pending.store(false);
    world->ticks.fetch_add(1);
    bury_dead_backends();
    if (pool().watched.load() != 0) keep_watched_pool();
    const bool due = world->scan_due.exchange(false);
    if (due || (pool().queued.load() > 0 && world->ticks.load() % kScanTicks == 0)) scan_clients();
    step();
    wait_until(has_work);
    handle_events();
    step();
  }
  world->over.store(true);
}

void handle_cancel_request(std::uint32_t slot) {
  std::uint32_t index;
  const std::uint64_t lease = find_lease(slot, &index);
  if (lease == 0) return;
  BackendSlot &backend = world->shared.backends[index];
  backend.cancel_lease.store(lease);
  step();
  send_signal(backend.pid.load());
}

void report_vanished(std::uint32_t slot) {
  std::uint32_t index;
  const std::uint64_t lease = find_lease(slot, &index);
  if (lease == 0) return;
  BackendSlot &backend = world->shared.backends[index];
  if (static_cast<BackendState>(backend.state.load()) != BackendState::active) return;
  backend.vanished_lease.store(lease);
  step();
  send_signal(backend.pid.load());
}

}  // namespace model
