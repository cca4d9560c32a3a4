// SPDX-License-Identifier: PostgreSQL
//
// Clients, several to an actor: they connect, send commands one at a time or two,
// think, cancel, and leave in every way there is.  Now and then somebody changes
// the settings of their role, or an administrator ends one of them.

#include "model/world.hpp"

namespace model {

using namespace sluice;

namespace {

constexpr int kLookupAttempts = 1000;

int first_crowd() { return 1 + static_cast<int>(world->scenario.backends); }

bool is_mine(std::uint32_t client, int actor) {
  return static_cast<int>(client % world->scenario.crowds) == actor - first_crowd();
}

// How many of this crowd's may be connected at a time.
std::uint32_t quota() { return world->scenario.slots / world->scenario.crowds; }

std::uint32_t count_connected(int actor) {
  std::uint32_t count = 0;
  for (std::uint32_t i = 0; i < world->scenario.clients; i++)
    if (is_mine(i, actor) && world->clients[i].phase == Client::Phase::connected) count++;
  return count;
}

bool has_turn(Client &client, bool room) {
  switch (client.phase) {
    case Client::Phase::unborn:
      return room;
    case Client::Phase::connected:
      if (client.forgotten.load()) return true;
      if (client.closing || client.end_asked.load() || client.socket.is_shut()) return false;
      if (client.thinks_until != 0 && world->clients[client.thinks_until - 1].phase != Client::Phase::ended)
        return false;
      return client.long_under_way || client.socket.answers() > client.sent;
    case Client::Phase::ended:
      break;
  }
  return false;
}

bool all_ended(int actor) {
  for (std::uint32_t i = 0; i < world->scenario.clients; i++)
    if (is_mine(i, actor) && world->clients[i].phase != Client::Phase::ended) return false;
  return true;
}

bool anybody_has_turn(int actor) {
  const bool room = count_connected(actor) < quota();
  for (std::uint32_t i = 0; i < world->scenario.clients; i++)
    if (is_mine(i, actor) && has_turn(world->clients[i], room)) return true;
  return all_ended(actor);
}

void leave(Client &client) {
  client.closing = true;
  client.socket.close();
}

void send_command(Client &client, bool runs_until_cancelled) {
  client.sent++;
  client.in_transaction = client.sent < client.wanted && one_in(3);
  client.long_under_way = runs_until_cancelled;
  client.socket.send(Command{client.sent, !client.in_transaction, runs_until_cancelled});
}

void connect(Client &client, std::uint32_t number) {
  if (world->scenario.changes && one_in(8)) world->pool().role_setting_changes.fetch_add(1);
  client.least_settings = world->pool().role_setting_changes.load();
  client.phase = Client::Phase::connected;
  client.wanted = 1 + random_below(world->scenario.commands);
  world->listener.push(Arrival{false, number});
}

void stop_thinking(Client &client) {
  client.thinks_until = 0;
  if (client.holds_open) world->held_open.store(0);
  client.holds_open = false;
}

// Until another one has left that is connected already: for as long as it takes, but not for ever.
void think(Client &client, std::uint32_t number) {
  if (number == 0 || !one_in(4)) return;
  const std::uint32_t other = random_below(number);
  if (!is_mine(other, this_actor()) || world->clients[other].phase != Client::Phase::connected) return;
  // A transaction keeps its backend: one at a time, or none would be left for those who are waited for.
  std::uint32_t none = 0;
  if (client.in_transaction && !world->held_open.compare_exchange_strong(none, 1)) return;
  client.holds_open = client.in_transaction;
  client.thinks_until = other + 1;
}

void work(Client &client, std::uint32_t number) {
  stop_thinking(client);
  const bool endings = world->scenario.endings;
  if (client.long_under_way) {
    if (client.socket.answers() > client.sent) {
      client.long_under_way = false;
    } else if (one_in(2)) {
      leave(client);  // once, and whoever executes for it has to learn of it
    } else {
      client.cancel_asked.store(true);
      world->listener.push(Arrival{true, number});
      step();
    }
    return;
  }
  if (endings && one_in(40)) {
    client.end_asked.store(true);
    disconnect_client(world->shared.clients[client.slot.load() - 1], client.generation.load());
    return;
  }
  if (client.sent == client.wanted || (endings && one_in(20))) return leave(client);
  send_command(client, endings && one_in(10));
  if (client.long_under_way || client.sent == client.wanted) {
    if (endings && one_in(2)) leave(client);
  } else if (one_in(4)) {
    step();
    send_command(client, false);
  }
  if (!client.long_under_way) think(client, number);
}

void judge_end(Client &client) {
  client.phase = Client::Phase::ended;
  stop_thinking(client);
  if (client.serving.load() != 0) violated("a client has been forgotten while it was served");
  if (client.begun > client.sent) violated("more commands have been served than sent");
  if (client.begun < client.sent && !client.ended_by_server.load())
    violated("a command of a client that left of its own accord has not been served");
}

}  // namespace

void run_crowd(std::uint32_t) {
  const int actor = this_actor();
  const std::uint32_t count = world->scenario.clients;
  while (!all_ended(actor)) {
    wait_until(anybody_has_turn);
    const bool room = count_connected(actor) < quota();
    const std::uint32_t first = random_below(count);
    for (std::uint32_t i = 0; i < count; i++) {
      const std::uint32_t number = (first + i) % count;
      Client &client = world->clients[number];
      if (!is_mine(number, actor) || !has_turn(client, room)) continue;
      if (client.phase == Client::Phase::unborn)
        connect(client, number);
      else if (client.forgotten.load())
        judge_end(client);
      else
        work(client, number);
      break;
    }
    step();
  }
  world->living_crowds.fetch_sub(1);
  send_signal(world->dispatcher.pid.load());
}

std::uint64_t find_lease(std::uint32_t slot, std::uint32_t *backend) {
  const std::uint64_t packed = world->shared.clients[slot].word.load();
  const ClientWord word = ClientWord::unpack(packed);

  if (word.state != ClientState::leased || word.backend >= world->scenario.backends) return 0;
  step();
  const BackendSlot &leasing = world->shared.backends[word.backend];
  const std::uint64_t lease = leasing.lease.load();
  if (leasing.client.load() != slot || leasing.client_generation.load() != word.generation ||
      world->shared.clients[slot].word.load() != packed)
    return 0;
  *backend = word.backend;
  return lease;
}

// control_functions.cpp
void disconnect_client(ClientSlot &slot, std::uint32_t generation) {
  if (ClientWord::unpack(slot.word.load()).generation != generation) return;
  if (!wrong(Mistake::leaves_no_flag)) slot.flags.fetch_or(kClientToLeave);
  step();
  if (ClientWord::unpack(slot.word.load()).generation != generation) {
    slot.flags.fetch_and(~kClientToLeave);
    return;
  }
  std::uint32_t index = 0;
  std::uint64_t lease = 0;
  for (int attempt = 0; lease == 0 && attempt < kLookupAttempts; attempt++) {
    const ClientWord word = ClientWord::unpack(slot.word.load());
    if (word.generation != generation || word.state != ClientState::leased) break;
    lease = find_lease(static_cast<std::uint32_t>(&slot - world->shared.clients), &index);
    step();
  }
  if (lease == 0) return send_signal(world->dispatcher.pid.load());
  world->shared.backends[index].leave_lease.store(lease);
  send_signal(world->shared.backends[index].pid.load());
}

// wake_up.cpp
void poke_lingering_backend() {
  for (std::uint32_t i = 0; i < world->scenario.backends; i++) {
    BackendSlot &backend = world->shared.backends[i];
    if (backend.state.load() != static_cast<std::uint32_t>(BackendState::lingering)) continue;
    step();
    std::uint32_t unpoked = 0;
    const std::int32_t pid = backend.pid.load();
    if (pid == 0 || !backend.poked.compare_exchange_strong(unpoked, 1)) continue;
    send_signal(pid);
    return;
  }
}

}  // namespace model
