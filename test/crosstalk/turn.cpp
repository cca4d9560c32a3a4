// SPDX-License-Identifier: PostgreSQL
//
// What one client does when it is its turn: a transaction without BEGIN, a block with thinking in between, savepoints
// and errors, or the end of its connection in one of several ways.

#include <algorithm>

#include "operations.hpp"

namespace crosstalk {

namespace {

using Where = Operation::Where;

}  // namespace

const std::vector<Operation> &all_operations() {
  static const std::vector<Operation> operations = [] {
    std::vector<Operation> all;
    for (const auto &some : {setting_operations(), object_operations(), messenger_operations(), statement_operations(),
                             check_operations()})
      all.insert(all.end(), some.begin(), some.end());
    return all;
  }();
  return operations;
}

namespace {

void count(Client &client, const char *what) { client.world.counts[what]++; }

std::string savepoint_name(std::size_t number) { return "sp" + std::to_string(number); }

void move_between_savepoints(Client &client) {
  Model &model = client.model;
  const std::size_t held = model.savepoints();
  if (held == 0 || (held < 3 && client.dice.percent(40))) {
    client.expect("SAVEPOINT " + savepoint_name(held + 1), "SAVEPOINT");
    model.savepoint();
    count(client, "savepoint");
    return;
  }
  const std::size_t number = 1 + client.dice.below(held);
  if (client.dice.percent(60)) {
    client.expect("ROLLBACK TO " + savepoint_name(number), "ROLLBACK");
    model.rollback_to(number);
    count(client, "rollback_to");
  } else {
    client.expect("RELEASE " + savepoint_name(number), "RELEASE");
    model.release(number);
    count(client, "release");
  }
}

void go_on_after_error(Client &client) {
  if (client.dice.percent(30))
    client.expect("SELECT 1", "ERROR: current transaction is aborted, commands ignored until end of transaction block");
  const std::size_t held = client.model.savepoints();
  if (held == 0) return;
  const std::size_t number = 1 + client.dice.below(held);
  client.expect("ROLLBACK TO " + savepoint_name(number), "ROLLBACK");
  client.model.rollback_to(number);
  count(client, "rollback_to_after_error");
}

// Counts the clients that have a block open, whichever way it ends.
class OpenBlock {
 public:
  explicit OpenBlock(World &world) : world_(world) {
    world_.most_in_block = std::max(world_.most_in_block, ++world_.in_block);
  }
  ~OpenBlock() { world_.in_block--; }
  OpenBlock(const OpenBlock &) = delete;
  OpenBlock &operator=(const OpenBlock &) = delete;

 private:
  World &world_;
};

void begin(Client &client) {
  client.isolation = client.model.get("default_transaction_isolation");
  switch (client.dice.below(4)) {
    case 0:
      client.expect("START TRANSACTION", "START TRANSACTION");
      break;
    case 1:
      client.expect("BEGIN ISOLATION LEVEL READ COMMITTED", "BEGIN");
      client.isolation = "read committed";
      break;
    default:
      client.expect("BEGIN", "BEGIN");
      break;
  }
  client.model.begin();
}

void end(Client &client) {
  const bool commit = client.dice.percent(65);
  if (commit && !client.model.aborted())
    for (const Client::Message &message : client.messages)
      if (message.arrives && message.listener->uid == message.listener_uid)
        message.listener->expected_notifications.insert(message.text);
  client.expect(commit ? "COMMIT" : "ROLLBACK", commit && !client.model.aborted() ? "COMMIT" : "ROLLBACK");
  if (commit)
    client.model.commit();
  else
    client.model.rollback();
  client.unsure = false;
  settle_notifications(client);
}

void start_afresh(Client &client, bool cut_the_line) {
  settle_notifications(client);
  client.hang_up(cut_the_line);
  client.notifiers = 0;
  client.connect_at_random();
  check_everything(client);
}

void block(Client &client) {
  const OpenBlock open(client.world);
  begin(client);
  const std::string pid = client.ask("SELECT pg_backend_pid()");
  client.note_backend(pid);
  for (std::size_t left = 1 + client.dice.below(6); left > 0; left--) {
    client.think();
    if (client.model.aborted())
      go_on_after_error(client);
    else if (client.dice.percent(client.model.savepoints() > 0 ? 35 : 15))
      move_between_savepoints(client);
    else
      any_operation(client);
    if (client.model.aborted() && client.model.savepoints() == 0) break;
  }
  client.think();
  if (!client.model.aborted()) client.expect("SELECT pg_backend_pid()", pid);
  if (client.dice.percent(4)) {
    count(client, "disconnect_in_block");
    start_afresh(client, client.dice.percent(50));
    return;
  }
  count(client, "block");
  end(client);
}

void disconnect(Client &client) {
  switch (client.dice.below(4)) {
    case 0:
      count(client, "disconnect_with_command");
      client.send_only("SELECT pg_sleep(0.02)");
      break;
    case 1:
      count(client, "disconnect_with_answer");
      client.send_only("SELECT repeat('y', 1000) FROM generate_series(1, 3000)");
      break;
    default:
      count(client, "disconnect");
      break;
  }
  start_afresh(client, client.dice.percent(40));
}

}  // namespace

void any_operation(Client &client) {
  static const unsigned total = [] {
    unsigned sum = 0;
    for (const Operation &operation : all_operations()) sum += operation.weight;
    return sum;
  }();
  const Where other = client.model.in_block() ? Where::alone : Where::in_block;
  for (;;) {
    std::size_t chosen = client.dice.below(total), i = 0;
    for (; chosen >= all_operations()[i].weight; i++) chosen -= all_operations()[i].weight;
    const Operation &operation = all_operations()[i];
    if (operation.where == other || client.world.options.without.count(operation.name) != 0) continue;
    if (!operation.run(client)) continue;
    count(client, operation.name);
    return;
  }
}

void take_turn(Client &client) {
  if (!client.connected()) {
    start_afresh(client, false);
    return;
  }
  if (client.dice.percent(50)) client.wait_for_notifications();
  const std::size_t what = client.dice.below(100);
  if (what < 3)
    disconnect(client);
  else if (what < 40)
    block(client);
  else
    any_operation(client);
  client.settle_pin();
}

}  // namespace crosstalk
