// SPDX-License-Identifier: PostgreSQL
//
// A pooled backend, as far as it hands clients over: pg/pool/lease.cpp,
// pg/session/interrupts.cpp and the loop of pg/session/backend.cpp, step by step
// and in their order, without the work between.  The names are theirs.

#include "model/world.hpp"

namespace model {

using namespace sluice;

namespace {

using Self = BackendMemory;

PoolSlot &pool() { return world->pool(); }
Client &model_client(Self &me) { return world->clients[me.copies[me.client_ref.slot]]; }

void enter_state(Self &me, BackendState state) {
  me.slot->state_since_us.store(now_us(), std::memory_order_relaxed);
  me.slot->state.store(static_cast<std::uint32_t>(state));
}

// SIGUSR2.
void handle_mail(Self &me) {
  const std::uint64_t lease = me.lease;
  if (lease == 0) return;
  const std::uint64_t cancelled = me.slot->cancel_lease.load();
  if (cancelled == lease || (wrong(Mistake::cancels_any_lease) && cancelled != 0)) {
    me.slot->cancel_lease.store(0);
    if (me.in_query) me.cancel_pending = true;
  }
  if (me.slot->leave_lease.load() == lease) {
    me.slot->leave_lease.store(0);
    me.told_to_leave = true;
    if (me.in_query) me.cancel_pending = true;
  }
  if (me.slot->vanished_lease.load() == lease) {
    me.slot->vanished_lease.store(0);
    if (me.in_query && model_client(me).socket.has_ended_early()) me.client_vanished = me.cancel_pending = true;
  }
}

// Signals arrive between any two steps.

void take_signal(Self &me) {
  if (!me.process->pending.exchange(false)) return;
  me.mail = true;
  handle_mail(me);
}

void step_of(Self &me) {
  step();
  take_signal(me);
}

// ------------------------------------------------------------------ waits, with signals blocked while looking

bool set_or_signal(int actor) {
  return world->memories[actor - 1].process->pending.load() || world->set.has_event() || world->over.load();
}
bool socket_or_signal(int actor) {
  Self &me = world->memories[actor - 1];
  return me.process->pending.load() || model_client(me).socket.has_input();
}
bool signal_only(int actor) { return world->memories[actor - 1].process->pending.load(); }

bool anything_pending(Self &me) {
  if (!wrong(Mistake::loses_signals)) return me.mail;
  const bool looked = me.mail;
  step_of(me);  // handled here, and what it says comes too late
  return looked;
}

enum class Wake { ready, interrupted };

Wake wait_for_event(Self &me, Event *event) {
  while (!anything_pending(me)) {
    wait_until(set_or_signal);
    if (world->set.take(event)) return Wake::ready;
    if (world->over.load()) break;
    if (me.process->pending.load()) break;
  }
  take_signal(me);
  return Wake::interrupted;
}

Wake wait_for_socket(Self &me) {
  if (!anything_pending(me)) wait_until(socket_or_signal);
  if (model_client(me).socket.has_input()) return Wake::ready;
  take_signal(me);
  return Wake::interrupted;
}

void handle_interrupts(Self &me) {
  me.mail = false;
  me.cancel_pending = false;
}

// ------------------------------------------------------------------ leasing

void ask_dispatcher_to_watch() {
  std::uint32_t unwatched = 0;
  if (!pool().watched.compare_exchange_strong(unwatched, 1)) return;
  send_signal(world->header().dispatcher_pid.load());
}

void see_to_the_set() {
  if (wrong(Mistake::leaves_without_looking)) return;
  if (!needs_watcher(pool().waiters.load(), pool().armed.load(), pool().queued.load())) return;
  step();
  // Whether the processors are busy is not known here: both must do.
  if (should_poke(pool().lingerers.load(), one_in(2) ? 2 : 0, 2)) poke_lingering_backend();
  ask_dispatcher_to_watch();
}

bool win_client(Self &me, ClientRef client, ClientState from) {
  ClientSlot &slot = world->shared.clients[client.slot];
  std::uint64_t word = slot.word.load();
  const ClientWord seen = ClientWord::unpack(word);

  if (seen.state != from) return false;
  if (seen.generation != client.generation && !wrong(Mistake::takes_without_generation)) return false;
  step_of(me);
  const std::uint64_t leased = ClientWord{seen.generation, me.index, ClientState::leased}.pack();
  if (wrong(Mistake::takes_without_comparing)) {
    slot.word.store(leased);
    return true;
  }
  return slot.word.compare_exchange_strong(word, leased);
}

void open_lease(Self &me, ClientRef client) {
  const std::uint64_t lease = me.slot->lease.load() + 1;
  me.client_ref = client;
  me.client_vanished = me.told_to_leave = false;
  me.lease = lease;
  me.slot->lease.store(lease);
  step_of(me);
  me.slot->client.store(client.slot);
  me.slot->client_generation.store(client.generation);
}

// pidfd_getfd(): whatever has the number now.
void obtain_copy(Self &me) {
  const ClientRef client = me.client_ref;
  const bool known = me.known_generations[client.slot] == client.generation + 1;
  if (known || (wrong(Mistake::trusts_copies) && me.known_generations[client.slot] != 0)) return;
  me.copies[client.slot] = world->descriptors[client.slot].load();
  me.known_generations[client.slot] = client.generation + 1;
}

void judge_lease(Self &me) {
  Client &client = model_client(me);
  if (client.serving.fetch_add(1) != 0) violated("a client is served by two backends at once");
  if (me.slot->role_setting_changes.load() < client.least_settings)
    violated("a client is served by a backend that started before its role got the settings it has");
  if (client.slot.load() != me.client_ref.slot + 1 || client.generation.load() != me.client_ref.generation)
    violated("a backend serves the socket of another client than it has leased");
}

bool take_client(Self &me, ClientRef client, ClientState from) {
  open_lease(me, client);
  step_of(me);
  if (!win_client(me, client, from)) {
    me.slot->client.store(kNoIndex);
    return false;
  }
  (from == ClientState::idle ? pool().armed : pool().queued).fetch_sub(1);
  me.client = &world->shared.clients[client.slot];
  enter_state(me, BackendState::active);
  step_of(me);
  see_to_the_set();
  obtain_copy(me);
  judge_lease(me);
  return true;
}

void leave_in_queue(std::uint64_t entry) {
  if (!pool().wait_queue.get().bounded_push(entry))
    world->shared.clients[ClientRef::unpack(entry).slot].flags.fetch_or(kClientUnqueued);
  step();
  if (!wrong(Mistake::puts_back_without_looking) && pool().waiters.load() > 0) ask_dispatcher_to_watch();
}

// wait_queue.cpp.

std::int64_t ready_since_us(std::uint64_t entry) {
  const ClientRef client = ClientRef::unpack(entry);
  const ClientSlot &slot = world->shared.clients[client.slot];
  const ClientWord seen = ClientWord::unpack(slot.word.load());
  if (seen.generation != client.generation || seen.state != ClientState::ready) return -1;
  return slot.ready_since_us.load(std::memory_order_relaxed);
}

bool pop_youngest(Self &me, std::uint64_t *youngest) {
  std::int64_t youngest_us = -1;
  std::uint64_t first = 0;
  std::uint64_t entry;
  bool any = false;

  int left = pool().queued.load();
  for (left = left > 1 ? left : 1; left > 0 && pool().wait_queue.get().pop(entry); left--) {
    step_of(me);
    if (any && entry == first) {
      leave_in_queue(entry);
      break;
    }
    if (!any) first = entry;
    any = true;
    const std::int64_t since_us = ready_since_us(entry);
    if (since_us < 0) continue;
    if (youngest_us >= 0 && !wrong(Mistake::keeps_the_others)) {
      leave_in_queue(since_us >= youngest_us ? *youngest : entry);
      step_of(me);
    }
    if (since_us < youngest_us) continue;
    *youngest = entry;
    youngest_us = since_us;
  }
  return youngest_us >= 0;
}

bool take_youngest_from_queue(Self &me) {
  std::uint64_t entry = 0;
  while (pop_youngest(me, &entry)) {
    step_of(me);
    if (me.slot->retire_requested.load() != 0) {
      leave_in_queue(entry);
      see_to_the_set();
      return false;
    }
    if (take_client(me, ClientRef::unpack(entry), ClientState::ready)) return true;
  }
  return false;
}

bool take_from_queue(Self &me) {
  std::uint64_t entry;
  if (me.slot->retire_requested.load() != 0) return false;
  step_of(me);
  if (world->scenario.youngest_first && one_in(2)) return take_youngest_from_queue(me);
  while (pool().wait_queue.get().pop(entry)) {
    step_of(me);
    if (!wrong(Mistake::serves_though_outdated) && me.slot->retire_requested.load() != 0) {
      leave_in_queue(entry);
      see_to_the_set();
      return false;
    }
    if (take_client(me, ClientRef::unpack(entry), ClientState::ready)) return true;
  }
  return false;
}

void pass_on(const Event &event) {
  const ClientRef client = ClientRef::unpack(event.data);
  if (event.data == kBell) return see_to_the_set();
  ClientSlot &slot = world->shared.clients[client.slot];
  std::uint64_t word = slot.word.load();
  const ClientWord seen = ClientWord::unpack(word);
  if (seen.generation != client.generation || seen.state != ClientState::idle) return;
  step();
  if (!slot.word.compare_exchange_strong(word, ClientWord{client.generation, kNoIndex, ClientState::ready}.pack()))
    return;
  pool().armed.fetch_sub(1);
  pool().queued.fetch_add(1);
  step();
  leave_in_queue(client.pack());
  see_to_the_set();
}

bool take_event(Self &me, const Event &event) {
  if (event.data == kBell) return take_from_queue(me);
  const ClientRef client = ClientRef::unpack(event.data);
  if (event.hangup && (world->shared.clients[client.slot].flags.load() & kClientHungUp) == 0) return false;
  if (me.slot->retire_requested.load() != 0) {
    pass_on(event);
    return false;
  }
  return take_client(me, client, ClientState::idle);
}

bool take_assignment(Self &me) {
  auto waiting = static_cast<std::uint32_t>(BackendState::waiting);
  if (me.slot->state.compare_exchange_strong(waiting, static_cast<std::uint32_t>(BackendState::active))) return false;
  step_of(me);
  open_lease(me, ClientRef::unpack(me.slot->assigned_client.load()));
  me.client = &world->shared.clients[me.client_ref.slot];
  enter_state(me, BackendState::active);
  obtain_copy(me);
  judge_lease(me);
  return true;
}

enum class Sleep { event, assignment, nothing };

Sleep sleep_in_set(Self &me, Event *event) {
  enter_state(me, BackendState::waiting);
  step_of(me);
  pool().waiters.fetch_add(1);
  step_of(me);
  bool ready = false;
  if (wrong(Mistake::sleeps_without_looking) || pool().wait_queue.get().empty())
    ready = wait_for_event(me, event) == Wake::ready;
  step_of(me);
  pool().waiters.fetch_sub(1);
  step_of(me);
  if (take_assignment(me)) {
    if (!ready)
      see_to_the_set();
    else if (!wrong(Mistake::drops_event_of_assignment))
      pass_on(*event);
    return Sleep::assignment;
  }
  return ready ? Sleep::event : Sleep::nothing;
}

// False when the backend is to leave.
bool lease_client(Self &me) {
  Event event;
  for (;;) {
    step_of(me);
    if (me.mail) handle_interrupts(me);
    if (me.slot->retire_requested.load() != 0 || world->over.load()) return false;
    if (take_from_queue(me)) return true;
    if (world->set.take(&event)) {
      step_of(me);
      if (take_event(me, event)) return true;
      continue;
    }
    const Sleep slept = sleep_in_set(me, &event);
    if (slept == Sleep::assignment) return true;
    if (slept == Sleep::event) {
      if (take_event(me, event)) return true;
      see_to_the_set();
    } else {
      handle_interrupts(me);
    }
  }
}

// ------------------------------------------------------------------ parting

bool is_wanted_elsewhere(Self &me) {
  return me.slot->retire_requested.load() != 0 ||
         !should_linger(pool().waiters.load(), pool().armed.load(), pool().queued.load());
}

bool linger_on_client(Self &me) {
  Wake wake = Wake::interrupted;

  if (me.client->transactions.load(std::memory_order_relaxed) <= 1) return false;
  if (is_wanted_elsewhere(me)) return false;
  me.slot->poked.store(0);
  step_of(me);
  enter_state(me, BackendState::lingering);
  step_of(me);
  pool().lingerers.fetch_add(1);
  step_of(me);
  const bool deaf = wrong(Mistake::lingers_without_looking);
  while ((deaf || (!is_wanted_elsewhere(me) && me.slot->poked.load() == 0)) && !me.told_to_leave) {
    wake = wait_for_socket(me);
    if (wake == Wake::ready) break;
    handle_interrupts(me);
  }
  pool().lingerers.fetch_sub(1);
  step_of(me);
  enter_state(me, BackendState::active);
  return wake == Wake::ready || me.told_to_leave;
}

void close_lease(Self &me) {
  model_client(me).serving.fetch_sub(1);
  me.slot->client.store(kNoIndex);
  me.client = nullptr;
  me.lease = 0;
}

// Now and then the dispatcher is to see what the client says next, as after a
// client's first transaction.
void arm_client(ClientRef client, std::uint32_t number, Socket *socket, bool at_the_door) {
  if (at_the_door)
    socket->watch_input(true);
  else
    world->set.arm(client, number, socket);
}

void give_back_client(Self &me) {
  const ClientRef client = me.client_ref;
  ClientSlot *slot = me.client;
  const std::uint32_t number = me.copies[client.slot];
  Socket *socket = &model_client(me).socket;

  close_lease(me);
  const bool at_the_door = (slot->flags.fetch_or(kClientInSet) & kClientInSet) != 0 && one_in(2);
  pool().armed.fetch_add(1);
  step_of(me);
  if (wrong(Mistake::gives_back_in_wrong_order)) {
    arm_client(client, number, socket, at_the_door);
    step_of(me);
  }
  slot->word.store(ClientWord{client.generation, kNoIndex, ClientState::idle}.pack());
  step_of(me);
  if (!wrong(Mistake::gives_back_in_wrong_order)) arm_client(client, number, socket, at_the_door);
}

void dismiss_leased_client(Self &me) {
  const ClientRef client = me.client_ref;
  ClientSlot *slot = me.client;
  Socket &socket = model_client(me).socket;

  close_lease(me);
  step_of(me);
  slot->word.store(ClientWord{client.generation, kNoIndex, ClientState::closing}.pack());
  step_of(me);
  socket.shut();
  me.known_generations[client.slot] = 0;
}

// ------------------------------------------------------------------ serving

void execute(Self &me, const Command &command) {
  Client &client = model_client(me);

  me.cancel_pending = false;  // one that came before is not meant for this command
  me.in_query = true;
  step_of(me);
  if (!wrong(Mistake::looks_at_no_flag) && (me.client->flags.load() & (kClientVanished | kClientHungUp)) != 0 &&
      client.socket.has_ended_early())
    me.client_vanished = me.cancel_pending = true;
  if (command.number != client.begun + 1) violated("a client's commands are not served in order, each once");
  client.begun = command.number;
  me.client->sequences++;  // the slot's own plain memory goes from owner to owner likewise
  step_of(me);
  while (command.runs_until_cancelled && !me.cancel_pending) {
    wait_until(signal_only);
    take_signal(me);
  }
  if (me.cancel_pending && !me.client_vanished && !client.cancel_asked.load() && !client.end_asked.load())
    violated("a cancel has hit another client's command");
  me.in_query = false;
  world->served.fetch_add(1);
  client.socket.answer();
}

enum class End { given_back, dismissed, died };

End serve_client(Self &me) {
  Client &client = model_client(me);
  bool in_transaction = false;
  bool ready_for_query = false;

  if ((me.client->flags.load() & kClientGreeted) == 0) {
    me.client->flags.fetch_or(kClientGreeted);
    client.socket.answer();
    ready_for_query = true;
  }
  for (;;) {
    step_of(me);
    if (world->scenario.changes && one_in(400)) return End::died;
    if (ready_for_query && !in_transaction && !client.socket.has_input()) {
      if (!linger_on_client(me)) {
        give_back_client(me);
        return End::given_back;
      }
    }
    ready_for_query = false;
    Command command;
    Reading reading;
    while ((reading = me.told_to_leave ? Reading::end : client.socket.read(&command)) == Reading::nothing) {
      enter_state(me, in_transaction ? BackendState::thinking : BackendState::held);
      if (wait_for_socket(me) == Wake::interrupted) handle_interrupts(me);
      enter_state(me, BackendState::active);
    }
    if (reading == Reading::end) {
      if (me.told_to_leave) client.ended_by_server.store(true);
      dismiss_leased_client(me);
      return End::dismissed;
    }
    execute(me, command);
    if (me.client_vanished || me.told_to_leave) {
      client.ended_by_server.store(true);
      dismiss_leased_client(me);
      return End::dismissed;
    }
    in_transaction = !command.ends_transaction;
    ready_for_query = true;
    if (command.ends_transaction) me.client->transactions.fetch_add(1);
  }
}

void live(Self &me) {
  me.client = nullptr;
  me.lease = 0;
  me.in_query = me.cancel_pending = me.told_to_leave = me.client_vanished = false;
  me.mail = false;
  for (std::uint32_t &generation : me.known_generations) generation = 0;
  while (lease_client(me)) {
    if (serve_client(me) != End::died) continue;
    model_client(me).ended_by_server.store(true);
    dismiss_leased_client(me);
    break;
  }
  enter_state(me, BackendState::retiring);
  see_to_the_set();  // leave_pool()
}

bool asked_to_start(int actor) {
  return world->start_asked[actor - 1].load() != 0 || world->over.load();
}

}  // namespace

void run_backend(std::uint32_t index) {
  Self &me = world->memories[index];
  int serial = 0;
  for (;;) {
    wait_until(asked_to_start);
    if (world->start_asked[index].exchange(0) == 0) return;
    me.index = index;
    me.slot = &world->shared.backends[index];
    me.process = &world->backends[index];
    me.process->pending.store(false);
    const int pid = 1000 + static_cast<int>(index) + ++serial * 16;
    me.process->pid.store(pid);
    me.slot->pid.store(pid);
    step();
    live(me);
    step();
    me.slot->pid.store(0);
    me.process->pid.store(0);
    world->worker_ended[index].store(true);
    send_signal(world->dispatcher.pid.load());
    if (world->over.load()) return;
  }
}

}  // namespace model
