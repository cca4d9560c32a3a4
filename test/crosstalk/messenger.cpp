// SPDX-License-Identifier: PostgreSQL
//
// LISTEN and NOTIFY.  Each client has a channel; what is sent to it must arrive there once the sender has committed,
// and nowhere else: not at the next client in its place, not in another database, not after UNLISTEN.
//
// LISTEN and UNLISTEN take effect somewhere inside their commit.  Whoever notifies meanwhile could not say whether it
// will be heard; so clients whose state is not certain are left alone, and those who are being notified keep theirs.

#include <utility>

#include "operations.hpp"

namespace crosstalk {

namespace {

std::string channel_of(const Client &client) { return "news_" + std::to_string(client.number); }

// May it begin or cease to listen now?
bool free_to_change(Client &client) {
  if (client.notifiers > 0) return false;
  if (client.expected_notifications.empty()) return true;
  // What is under way arrives between transactions only.
  if (client.model.in_block()) return false;
  client.unsure = true;
  client.wait_for_notifications();
  client.unsure = false;
  return client.notifiers == 0;
}

bool listen(Client &client) {
  if (!free_to_change(client) || !client.may_pin()) return false;
  client.unsure = true;
  client.expect("LISTEN " + channel_of(client), "LISTEN");
  client.model.now.listening = true;
  if (!client.model.in_block()) client.unsure = false;
  return true;
}

bool unlisten(Client &client) {
  if (!free_to_change(client)) return false;
  client.unsure = true;
  client.expect("UNLISTEN " + (client.dice.percent(50) ? "*" : channel_of(client)), "UNLISTEN");
  client.model.now.listening = false;
  if (!client.model.in_block()) client.unsure = false;
  return true;
}

bool notify(Client &client) {
  // What a savepoint takes back is not sent; blocks with savepoints send nothing.
  if (client.model.savepoints() > 0) return false;
  Client *other = client.dice.one_of(client.world.clients).get();
  for (int i = 0; i < 40 && !other->model.now.listening; i++) other = client.dice.one_of(client.world.clients).get();
  if (!other->connected() || other->unsure) return false;

  const bool in_block = client.model.in_block();
  static long count = 0;
  const std::string payload = "from " + std::to_string(client.uid) + ", number " + std::to_string(++count);
  const bool arrives = other->database == client.database && other->model.listening_for_certain();
  other->notifiers++;
  client.messages.push_back({other, other->uid, arrives, channel_of(*other) + ": " + payload});
  // It may arrive before the answer.
  if (!in_block && arrives) other->expected_notifications.insert(client.messages.back().text);
  if (client.dice.percent(50))
    client.expect("NOTIFY " + channel_of(*other) + ", '" + payload + "'", "NOTIFY");
  else
    client.expect("SELECT pg_notify('" + channel_of(*other) + "', '" + payload + "')", "");
  if (!in_block) settle_notifications(client);
  return true;
}

}  // namespace

void settle_notifications(Client &client) {
  for (const Client::Message &message : std::exchange(client.messages, {}))
    if (message.listener->uid == message.listener_uid) message.listener->notifiers--;
}

std::vector<Operation> messenger_operations() {
  using Where = Operation::Where;
  return {
      {"listen", 3, Where::anywhere, listen},
      {"unlisten", 3, Where::anywhere, unlisten},
      {"notify", 14, Where::anywhere, notify},
  };
}

}  // namespace crosstalk
