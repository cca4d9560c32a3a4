// SPDX-License-Identifier: PostgreSQL
//
// A client: one connection, the model of its session, and the comparison of the two.
//
// All that the server says in answer to one request is put into one line of text, and that is compared with the text
// that the model expects:
//
//   rows         fields joined by "|", rows by "\n", NULL as "<NULL>", no rows as "(none)"
//   commands     their tag, "SET"
//   errors       "ERROR: division by zero"; notices and warnings likewise
//   COPY         the data, and then the tag
//   several      joined by ";"

#ifndef CROSSTALK_CLIENT_HPP
#define CROSSTALK_CLIENT_HPP

#include <libpq-fe.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "fibers.hpp"
#include "model.hpp"

namespace crosstalk {

class Client;

struct Options {
  std::string host;
  std::string port;
  std::vector<std::string> databases;
  std::vector<std::string> roles;
  std::vector<std::string> superusers;
  int clients = 300;
  long transactions = 4000;
  int in_flight = 8;    // clients that are in the middle of something
  int max_pinned = 20;  // clients with state that keeps them on their backend
  std::uint64_t seed = 20231;
  bool serial = false;
  int timeout_s = 180;
  int max_mismatches = 10;
  std::set<std::string> without;  // operations
};

// The same numbers with each library, unlike the standard distributions.
class Dice {
 public:
  explicit Dice(std::uint64_t seed) : engine_(seed) {}
  std::size_t below(std::size_t limit) { return static_cast<std::size_t>(engine_() % limit); }
  bool percent(unsigned chance) { return below(100) < chance; }
  template <typename Container>
  const typename Container::value_type &one_of(const Container &container) {
    return *std::next(container.begin(), static_cast<std::ptrdiff_t>(below(container.size())));
  }

 private:
  std::mt19937_64 engine_;
};

struct World {
  explicit World(Options given) : options(std::move(given)), fibers(options.serial), dice(options.seed) {}

  const Options options;
  Fibers fibers;
  Dice dice;
  std::vector<std::unique_ptr<Client>> clients;
  std::map<std::string, Values> defaults;  // by "database/role"
  std::map<std::string, long> counts;      // of operations
  long transactions = 0;
  int pinned = 0;
  int most_pinned = 0;
  int in_block = 0;
  int most_in_block = 0;
  int mismatches = 0;
  std::vector<std::size_t> backends_seen;  // by connections that are over
};

// Thrown after a mismatch has been reported: the client is given up.
struct GivenUp {};

class Client {
 public:
  Client(World &world, int number);
  ~Client();
  Client(const Client &) = delete;
  Client &operator=(const Client &) = delete;

  World &world;
  const int number;  // of the place; a connection in it has a uid of its own
  long uid = 0;
  std::string database, role;
  bool superuser = false;
  Model model;
  Dice dice;
  bool busy = false;    // a fiber has it
  int notifiers = 0;    // transactions that are about to notify it
  bool unsure = false;  // LISTEN or UNLISTEN is not committed yet
  std::string isolation;  // of the block it is in
  std::multiset<std::string> expected_notifications;
  struct Message {
    Client *listener;
    long listener_uid;
    bool arrives;
    std::string text;
  };
  std::vector<Message> messages;  // of the transaction that is open

  // --- connection
  // As anybody, anywhere, and half of them with settings of their own.
  void connect_at_random();
  // The fiber waits until there is a session, fresh as the model.
  void connect(const std::string &database_name, const std::string &role_name, const Values &settings);
  // Without a word, as all that follows must cope with.
  void hang_up(bool cut_the_line);
  bool connected() const { return connection_ != nullptr; }
  Values read_defaults();

  // --- conversation
  void expect(const std::string &sql, const std::string &expected);
  std::string ask(const std::string &sql);
  // As expect(); an error ends the block, if there is one.
  void expect_error(const std::string &sql, const std::string &message);
  void expect_prepare(const std::string &name, const std::string &sql, const std::string &parameter_type,
                      const std::string &expected);
  void expect_execute(const std::string &name, const std::string &parameter, const std::string &expected);
  void expect_parameter(const std::string &sql, const std::string &parameter, const std::string &expected);
  void expect_copy_in(const std::string &sql, const std::string &data, const std::string &expected);
  void send_only(const std::string &sql);

  struct Piece {
    enum class Kind { query, prepare, execute, sync } kind;
    std::string text, name, expected;
    std::optional<std::string> parameter;
  };
  void expect_pipeline(const std::vector<Piece> &pieces);

  // Compares what has nothing to do with a request.
  void check_state_of_connection();
  void wait_for_notifications();
  void compare(const std::string &what, const std::string &expected, const std::string &got);
  [[noreturn]] void mismatch(const std::string &what, const std::string &expected, const std::string &got);
  void note_backend(const std::string &pid);
  std::string type_oid(const std::string &qualified_name);

  // --- limits
  bool may_pin();
  void settle_pin();
  void think();
  void remember(const std::string &what);
  std::string name() const;

 private:
  void check_sent(int sent);
  void flush();
  PGresult *next_result();
  std::string render(PGresult *result);
  std::string converse();
  void drain_notifications();
  static void receive_notice(void *client, const PGresult *notice);

  PGconn *connection_ = nullptr;
  bool has_pin_ = false;
  int generation_ = 0;
  std::string notices_, copy_in_;
  std::deque<std::string> history_;
  std::set<std::string> backends_;
  int backend_notes_ = 0;
};

}  // namespace crosstalk

#endif
