// SPDX-License-Identifier: PostgreSQL
//
// Hundreds of clients that must not notice each other.
//
// Each of them changes its session in every way PostgreSQL has, at random, and knows what the server must answer.  The
// first answer that differs by one character is reported, with what the client did before.  The program is right about
// that if it finds nothing on the server's own port; then it can be held against a pooled one.
//
//   crosstalk --host DIR --port N --databases a,b --roles x,y --superusers z [options]
//
//   --clients 300         connections at a time
//   --transactions 4000   how many to run; or by the environment, CROSSTALK_TRANSACTIONS
//   --in-flight 8         clients in the middle of something, some of them thinking with a transaction open
//   --max-pinned 20       clients with state that keeps them on one backend
//   --seed 20231          what the clients do; or by the environment, CROSSTALK_SEED.  The order among them also
//                         depends on who is answered first, unless there is:
//   --serial              one statement at a time: each run with one seed is the same
//   --timeout 180         seconds to wait for any answer
//   --without a,b         operations to leave out, by the names the report gives them, to see what lies behind a defect
//
// Databases and roles must be as roles.sql and objects.sql leave them, and have no other guests.  The exit status is 0
// if all was well, 1 after a mismatch (the program goes on until there are ten), 2 if it could not run.
//
// Covered, each in transactions of its own, in blocks, behind savepoints, committed, rolled back and failed:
//
//   settings     SET, SET LOCAL, set_config() in queries, functions and DO, RESET, RESET ALL, start-up options, own
//                settings and those never mentioned, a superuser's settings, ParameterStatus, and what they do to
//                output
//   roles        SET ROLE, SET SESSION AUTHORIZATION, and row-level security by an own setting
//   statements   PREPARE and Parse of the same names with different texts, parameters of own enums and composites of
//                the search path, EXECUTE, Bind, EXPLAIN EXECUTE, DEALLOCATE, pg_prepared_statements, pipelines
//   objects      temporary tables (also ON COMMIT), WITH HOLD cursors, session and transaction advisory locks as seen
//                by their owner and by others, nextval, setval, currval, lastval, values kept in advance
//   messages     LISTEN, UNLISTEN, NOTIFY; notices, errors, large answers, COPY both ways
//   sessions     DISCARD, disconnects in every state, and that each new session is fresh
//
// Not covered: LOAD, setseed(), replication origins and slots, online backup.

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include <algorithm>
#include <numeric>
#include <sstream>

#include "operations.hpp"

namespace crosstalk {
namespace {

[[noreturn]] void usage(const std::string &what) {
  fprintf(stderr, "crosstalk: %s\n", what.c_str());
  exit(2);
}

std::vector<std::string> split(const std::string &list) {
  std::vector<std::string> items;
  std::istringstream stream(list);
  for (std::string item; std::getline(stream, item, ',');) items.push_back(item);
  return items;
}

long number(const std::string &text, long least, long most) {
  char *end = nullptr;
  const long value = strtol(text.c_str(), &end, 10);
  if (end == text.c_str() || *end != '\0' || value < least || value > most)
    usage("\"" + text + "\" is no number from " + std::to_string(least) + " to " + std::to_string(most));
  return value;
}

Options read_options(int argc, char **argv) {
  static const option known[] = {
      {"host", required_argument, nullptr, 'h'},         {"port", required_argument, nullptr, 'p'},
      {"databases", required_argument, nullptr, 'd'},    {"roles", required_argument, nullptr, 'r'},
      {"superusers", required_argument, nullptr, 's'},   {"clients", required_argument, nullptr, 'c'},
      {"transactions", required_argument, nullptr, 't'}, {"in-flight", required_argument, nullptr, 'f'},
      {"max-pinned", required_argument, nullptr, 'm'},   {"seed", required_argument, nullptr, 'e'},
      {"timeout", required_argument, nullptr, 'o'},      {"serial", no_argument, nullptr, 'i'},
      {"without", required_argument, nullptr, 'w'},
      {nullptr, 0, nullptr, 0},
  };
  Options options;
  for (int c; (c = getopt_long(argc, argv, "", known, nullptr)) != -1;) {
    const std::string value = optarg != nullptr ? optarg : "";
    switch (c) {
      case 'h': options.host = value; break;
      case 'p': options.port = value; break;
      case 'd': options.databases = split(value); break;
      case 'r': options.roles = split(value); break;
      case 's': options.superusers = split(value); break;
      // There are so many sequences of their own.
      case 'c': options.clients = static_cast<int>(number(value, 2, 1000)); break;
      case 't': options.transactions = number(value, 1, 1000000000); break;
      case 'f': options.in_flight = static_cast<int>(number(value, 1, 1000)); break;
      case 'm': options.max_pinned = static_cast<int>(number(value, 0, 1000)); break;
      case 'e': options.seed = static_cast<std::uint64_t>(number(value, 0, 1000000000)); break;
      case 'o': options.timeout_s = static_cast<int>(number(value, 1, 100000)); break;
      case 'i': options.serial = true; break;
      case 'w':
        for (const std::string &name : split(value)) options.without.insert(name);
        break;
      default: usage("see the top of crosstalk.cpp");
    }
  }
  if (const char *value = getenv("CROSSTALK_TRANSACTIONS")) options.transactions = number(value, 1, 1000000000);
  if (const char *value = getenv("CROSSTALK_SEED"))
    options.seed = static_cast<std::uint64_t>(number(value, 0, 1000000000));
  if (options.port.empty() || options.databases.empty() || options.roles.empty() || options.superusers.empty())
    usage("--port, --databases, --roles and --superusers are needed");
  for (const std::string &name : options.without)
    if (std::none_of(all_operations().begin(), all_operations().end(),
                     [&name](const Operation &operation) { return operation.name == name; }))
      usage("there is no operation \"" + name + "\"");
  // Whoever is in the middle of something is not chosen.
  options.in_flight = std::min(options.in_flight, options.clients / 2);
  return options;
}

void give_up(Client &client) {
  settle_notifications(client);
  client.hang_up(true);
  client.notifiers = 0;
  client.unsure = false;
}

// What RESET returns to, for each kind of client, before anybody has changed anything.
void learn_defaults(World &world) {
  std::map<std::string, Values> defaults;
  for (const std::string &database : world.options.databases) {
    for (const auto *roles : {&world.options.roles, &world.options.superusers}) {
      for (const std::string &role : *roles) {
        Client client(world, 0);
        client.connect(database, role, Values());
        defaults[database + "/" + role] = client.read_defaults();
        // What an earlier run has left.
        if (client.superuser) client.expect("TRUNCATE crosstalk.notes", "TRUNCATE TABLE");
      }
    }
  }
  world.defaults = defaults;
}

// Those with state that pins them come more often, or they would keep it for too long; and those that have just been
// here, since their backend may still be theirs.
Client *choose_client(World &world, std::vector<Client *> &recent) {
  const auto available = [](const Client *client) { return !client->busy; };
  if (world.dice.percent(30)) {
    std::vector<Client *> pinned;
    for (const auto &client : world.clients)
      if (available(client.get()) && client->model.pinning()) pinned.push_back(client.get());
    if (!pinned.empty()) return world.dice.one_of(pinned);
  }
  if (!recent.empty() && world.dice.percent(25)) {
    Client *client = world.dice.one_of(recent);
    if (available(client)) return client;
  }
  for (;;) {
    Client *client = world.dice.one_of(world.clients).get();
    if (available(client)) return client;
  }
}

void work(World &world, std::vector<Client *> &recent) {
  while (world.transactions < world.options.transactions && world.mismatches < world.options.max_mismatches) {
    Client *client = choose_client(world, recent);
    client->busy = true;
    try {
      take_turn(*client);
    } catch (const GivenUp &) {
      give_up(*client);
    }
    client->busy = false;
    recent.push_back(client);
    if (recent.size() > 12) recent.erase(recent.begin());
  }
}

// Runs `body` for each client, several at a time.
template <typename Body>
void for_each_client(World &world, Body body) {
  std::size_t next = 0;
  for (int i = 0; i < world.options.in_flight; i++)
    world.fibers.start([&world, &next, body] {
      while (next < world.clients.size() && world.mismatches < world.options.max_mismatches) {
        Client &client = *world.clients[next++];
        try {
          body(client);
        } catch (const GivenUp &) {
          give_up(client);
        }
      }
    });
  world.fibers.run();
}

void report(const World &world) {
  printf("operations:");
  int column = 0;
  for (const auto &[operation, count] : world.counts)
    printf("%s%s %ld", column++ % 5 == 0 ? "\n  " : ", ", operation.c_str(), count);
  const auto &seen = world.backends_seen;
  const double all_seen = std::accumulate(seen.begin(), seen.end(), 0.0);
  const double mean = seen.empty() ? 0 : all_seen / static_cast<double>(seen.size());
  printf("\ntransactions: %ld\nmost clients with a transaction open: %d\nmost pinned clients: %d\n"
         "connections that asked for their backend three times and more: %zu\n"
         "mean backends per client: %.2f\nmismatches: %d\n",
         world.transactions, world.most_in_block, world.most_pinned, seen.size(), mean, world.mismatches);
}

int run(const Options &options) {
  World world(options);
  printf("seed %llu, %d clients, %d of them at a time%s\n", static_cast<unsigned long long>(options.seed),
         options.clients, options.in_flight, options.serial ? ", one statement at a time" : "");
  fflush(stdout);
  world.fibers.start([&world] {
    try {
      learn_defaults(world);
    } catch (const GivenUp &) {
      // Without any client below.
    }
  });
  world.fibers.run();
  if (world.mismatches > 0) return 1;

  for (int i = 1; i <= options.clients; i++) world.clients.push_back(std::make_unique<Client>(world, i));
  for_each_client(world, [](Client &client) {
    client.connect_at_random();
    check_everything(client);
  });
  world.transactions = 0;

  std::vector<Client *> recent;
  for (int i = 0; i < options.in_flight; i++) world.fibers.start([&world, &recent] { work(world, recent); });
  world.fibers.run();
  const long transactions = world.transactions;

  // At last nobody has anything that is not his own, and nothing has got lost.
  for_each_client(world, [](Client &client) {
    if (!client.connected()) return;
    client.wait_for_notifications();
    check_everything(client);
    client.check_state_of_connection();
  });
  world.transactions = transactions;
  for (const auto &client : world.clients) client->hang_up(false);
  report(world);
  return world.mismatches > 0 ? 1 : 0;
}

}  // namespace
}  // namespace crosstalk

int main(int argc, char **argv) {
  // What a caller's environment would add to each session.
  for (const char *name : {"PGAPPNAME", "PGOPTIONS", "PGCLIENTENCODING", "PGDATESTYLE", "PGTZ"}) unsetenv(name);
  const crosstalk::Options options = crosstalk::read_options(argc, argv);
  return crosstalk::run(options);
}
