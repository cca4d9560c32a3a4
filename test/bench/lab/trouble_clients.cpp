// SPDX-License-Identifier: PostgreSQL
//
// Clients for trouble.sh: each sends one operation after the other, each operation carries a number of its own, and
// each answer is held against it.
//
// An operation inserts its number into the table "done" and asks for it back (RETURNING).  A third of the clients does
// that in one message, a third in a transaction of three messages (BEGIN, INSERT, COMMIT), a third by the extended
// protocol.  A client that has lost its connection comes back at once, and every 20 ms if that fails.  No number is
// used twice, and no operation is repeated: so a number that is in the table twice was executed twice.
//
//   trouble_clients --host H --ports P[,P] --clients N --seconds S --outcomes FILE --samples FILE
//     [--database bench] [--user bench] [--first-id 1] [--patience 20]
//
// Client i takes the i-th of the ports in turn.  An answer that has not come after so many seconds (--patience) counts
// as none, and its connection is left.  It ends after S seconds, or at SIGTERM: no operation is begun any more, but
// those under way are waited for as patiently as all others, so that none which hangs is taken for one that was cut off.
//
// OUTCOMES has one line for each operation, "id,client,outcome,began_us,ended_us,sqlstate", times since the epoch:
//   told       the answer said that it is committed
//   refused    an error was answered instead
//   unsent     the connection was lost before the message was sent that may commit it: cannot be committed
//   unknown    it was lost after that, and before the answer: only the table knows
//   unanswered the connection stayed, and there was no answer within the time; the place of the SQLSTATE has what was
//              waited for: begin, insert, commit; or, with the operation 0, rollback after an error, or login, of a
//              server that had accepted the connection
// and one for each thing that must never happen, with the operation the client was at:
//   wrong      an answer with another number, which is told in the place of the SQLSTATE
//   unasked    a row, or the end of a command, that belongs to no question, or a second one of these
//   odd        an answer that is of the wrong kind, for example a transaction that is open after COMMIT
// and one for each attempt to connect that failed:
//   connect    SQLSTATE is what the server said, or the system's error: refused, reset, closed ...
//
// SAMPLES has a line for each 100 ms until the end begins: "at_ms,told_1,told_2,failed,connected,slowest_us", at_ms since
// the epoch, operations told through the first and the second port.
// Exit status 0 means that it ran.  Standard output: "NAME NUMBER" lines, one for each outcome, and "told" first.

#include <signal.h>
#include <sys/epoll.h>

#include <map>

#include "herd_wire.hpp"

using namespace wire;

namespace {

constexpr const char *kUsage =
    "trouble_clients --host H --ports P[,P] --clients N --seconds S --outcomes FILE --samples FILE\n"
    "  [--database D] [--user U] [--first-id 1] [--patience 20]";
constexpr int64_t kComeBackUs = 20000;
constexpr int64_t kSampleUs = 100000;
constexpr int64_t kConnectPatienceUs = 20 * 1000000;

enum class Kind { one_message, transaction, extended };
enum class Stage { away, connecting, logging_in, begin, insert, commit, rollback };

struct Client {
  int number = 0;
  int fd = -1;
  size_t port = 0;
  Kind kind = Kind::one_message;
  Stage stage = Stage::away;
  int64_t since_us = 0;       // of this stage, for patience; if away: when to come back
  int64_t began_us = 0;       // of the operation, by the clock of the day
  uint64_t id = 0;            // of the operation; 0: none
  std::string input;
  // What the answer under way has said so far.
  int rows = 0;
  std::string tag;
  std::string sqlstate;
};

struct Sample {
  int64_t told[2] = {0, 0};
  int64_t failed = 0;
  int64_t slowest_us = 0;
};

volatile sig_atomic_t over = 0;
bool last_orders = false;
std::vector<Client> clients;
std::vector<Address> addresses;
std::string startup;
uint64_t next_id = 1;
int epoll_set = -1;
int64_t patience_us = 0;
int64_t connected = 0;
FILE *outcomes = nullptr;
FILE *samples = nullptr;
Sample sample;
std::map<std::string, int64_t> counts;

void end(int) { over = 1; }

int64_t day_us() { return clock_us(CLOCK_REALTIME); }

// ---- what has become of an operation

void write_down(const Client &client, const char *outcome, const std::string &sqlstate) {
  fprintf(outcomes, "%llu,%d,%s,%lld,%lld,%s\n", static_cast<unsigned long long>(client.id), client.number, outcome,
          static_cast<long long>(client.began_us), static_cast<long long>(day_us()), sqlstate.c_str());
  counts[outcome]++;
}

// The operation has ended.
void conclude(Client &client, const char *outcome, const std::string &sqlstate = "") {
  if (client.id == 0) return;
  write_down(client, outcome, sqlstate);
  if (strcmp(outcome, "told") == 0) {
    sample.told[std::min<size_t>(client.port, 1)]++;
    sample.slowest_us = std::max(sample.slowest_us, day_us() - client.began_us);
  } else {
    sample.failed++;
  }
  client.id = 0;
}

// ---- connections

void go_to(Client &client, Stage stage) {
  client.stage = stage;
  client.since_us = now_us();
  client.rows = 0;
  client.tag.clear();
  client.sqlstate.clear();
}

// The connection is over, why says a word or a SQLSTATE.
void lose(Client &client, const std::string &why) {
  const bool was_coming = client.stage == Stage::connecting || client.stage == Stage::logging_in;
  const bool may_be_done =
      client.stage == Stage::commit || (client.stage == Stage::insert && client.kind != Kind::transaction);
  if (was_coming) {
    client.began_us = day_us();
    write_down(client, "connect", why);
  } else {
    connected--;
    conclude(client, may_be_done ? "unknown" : "unsent", why);
  }
  reset(client.fd);
  client.fd = -1;
  client.input.clear();
  go_to(client, Stage::away);
  client.since_us += was_coming ? kComeBackUs : 0;
}

std::string word_for(int error) {
  switch (error) {
    case ECONNREFUSED: return "refused";
    case ECONNRESET: return "reset";
    case EPIPE: return "closed";
    case ENOENT: return "no socket";
    case EAGAIN: return "backlog";
    case ETIMEDOUT: return "timeout";
    default: return "errno " + std::to_string(error);
  }
}

bool say(Client &client, const std::string &words) {
  const ssize_t wrote = send(client.fd, words.data(), words.size(), MSG_NOSIGNAL);
  if (wrote == static_cast<ssize_t>(words.size())) return true;
  // There may be last words of the server to read; a message half sent does not happen with sizes like these.
  if (wrote < 0 && (errno == EPIPE || errno == ECONNRESET)) return true;
  die_errno("could not send a message as a whole");
}

void come(Client &client) {
  client.fd = new_socket(addresses[client.port]);
  epoll_event event = {};
  event.data.u64 = static_cast<uint64_t>(client.number);
  const int status = connect(client.fd, &addresses[client.port].any, addresses[client.port].length);
  const int error = errno;
  go_to(client, Stage::connecting);
  if (status != 0 && error != EINPROGRESS) {
    lose(client, word_for(error));
    return;
  }
  event.events = EPOLLOUT;
  if (epoll_ctl(epoll_set, EPOLL_CTL_ADD, client.fd, &event) != 0) die_errno("could not watch a socket");
}

// ---- operations

std::string insertion(const Client &client) {
  return "insert into done (id, client) values (" + std::to_string(client.id) + ", " + std::to_string(client.number) +
         ") returning id";
}

std::string extended_insertion(const Client &client) {
  std::string parse = text("") + text("insert into done (id, client) values ($1, $2) returning id");
  append_int16(parse, 0);
  std::string bind = text("") + text("");
  append_int16(bind, 0);
  append_int16(bind, 2);
  for (const std::string &value : {std::to_string(client.id), std::to_string(client.number)}) {
    append_int32(bind, static_cast<uint32_t>(value.size()));
    bind += value;
  }
  append_int16(bind, 0);
  std::string execute = text("");
  append_int32(execute, 0);
  return message('P', parse) + message('B', bind) + message('E', execute) + message('S', "");
}

void start_operation(Client &client) {
  if (last_orders) {
    connected--;
    say(client, goodbye());
    close(client.fd);
    client.fd = -1;
    go_to(client, Stage::away);
    return;
  }
  client.id = next_id++;
  client.began_us = day_us();
  if (client.kind == Kind::transaction) {
    go_to(client, Stage::begin);
    say(client, query_message("begin"));
  } else {
    go_to(client, Stage::insert);
    say(client, client.kind == Kind::extended ? extended_insertion(client) : query_message(insertion(client)));
  }
}

void complain(const Client &client, const char *outcome, const std::string &what) {
  std::string plain = what;
  std::replace(plain.begin(), plain.end(), ',', ';');
  write_down(client, outcome, plain);
}

// What the answer to this stage has to be.
const char *expected_tag(const Client &client) {
  switch (client.stage) {
    case Stage::begin: return "BEGIN";
    case Stage::insert: return "INSERT 0 1";
    case Stage::commit: return "COMMIT";
    default: return "ROLLBACK";
  }
}

// The whole answer is there; STATUS is the state of the transaction.
void answered(Client &client, char status) {
  if (client.stage == Stage::logging_in) {
    connected++;
    start_operation(client);
    return;
  }
  if (!client.sqlstate.empty()) {
    conclude(client, "refused", client.sqlstate);
    if (status == 'I') {
      start_operation(client);
    } else {
      go_to(client, Stage::rollback);
      say(client, query_message("rollback"));
    }
    return;
  }
  const int rows = client.stage == Stage::insert ? 1 : 0;
  const bool inside =
      client.stage == Stage::begin || (client.stage == Stage::insert && client.kind == Kind::transaction);
  if (client.tag != expected_tag(client) || client.rows != rows || status != (inside ? 'T' : 'I'))
    complain(client, "odd", std::string(expected_tag(client)) + " gave " + std::to_string(client.rows) + " rows; tag " +
                                client.tag + "; state " + status);
  if (client.stage == Stage::begin) {
    go_to(client, Stage::insert);
    say(client, query_message(insertion(client)));
  } else if (inside) {
    go_to(client, Stage::commit);
    say(client, query_message("commit"));
  } else {
    if (client.stage != Stage::rollback) conclude(client, "told");
    start_operation(client);
  }
}

// The only column of a DataRow.
std::string first_column(const std::string &body) {
  if (body.size() < 6) return "";
  const uint32_t length = read_int32(body.data() + 2);
  return length > body.size() - 6 ? "" : body.substr(6, length);
}

// False: the connection is over.
bool understand(Client &client, char type, const std::string &body) {
  switch (type) {
    case 'D':
      if (client.stage != Stage::insert || client.rows > 0) complain(client, "unasked", "row " + first_column(body));
      else if (first_column(body) != std::to_string(client.id)) complain(client, "wrong", first_column(body));
      client.rows++;
      return true;
    case 'C':
      if (client.stage == Stage::logging_in || !client.tag.empty()) complain(client, "unasked", body.c_str());
      client.tag = body.c_str();
      return true;
    case 'E':
      client.sqlstate = error_field(body, 'C');
      if (error_field(body, 'V') != "FATAL" && error_field(body, 'V') != "PANIC" && client.stage != Stage::logging_in)
        return true;
      lose(client, client.sqlstate);
      return false;
    case 'R':
      if (client.stage != Stage::logging_in || read_int32(body.data()) != 0) complain(client, "odd", "authentication");
      return true;
    case 'Z':
      answered(client, body[0]);
      return client.fd >= 0;
    case 'T': case 'S': case 'K': case 'N': case '1': case '2':
      return true;
    default:
      complain(client, "odd", std::string("message of type ") + type);
      return true;
  }
}

void listen_to_server(Client &client) {
  char buffer[16384];
  const ssize_t got = recv(client.fd, buffer, sizeof(buffer), 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) {
    lose(client, got == 0 ? "closed" : word_for(errno));
    return;
  }
  client.input.append(buffer, static_cast<size_t>(got));
  size_t at = 0;
  char type;
  std::string body, input;
  // Answering may end the connection, and with it what has been heard.
  input.swap(client.input);
  while (next_message(input, at, type, body)) {
    // A question is asked only when all before it has been read: what is there already answers no question.
    const bool is_over = type == 'Z' && input.size() > at;
    if (is_over && input[at] != 'E' && input[at] != 'N' && input[at] != 'S')
      complain(client, "unasked", std::string("after the end of an answer, a message of type ") + input[at]);
    if (!understand(client, type, body)) return;
  }
  client.input = input.substr(at);
}

void introduce(Client &client) {
  int error = 0;
  socklen_t length = sizeof(error);
  getsockopt(client.fd, SOL_SOCKET, SO_ERROR, &error, &length);
  if (error != 0) {
    lose(client, word_for(error));
    return;
  }
  epoll_event event = {};
  event.events = EPOLLIN;
  event.data.u64 = static_cast<uint64_t>(client.number);
  epoll_ctl(epoll_set, EPOLL_CTL_MOD, client.fd, &event);
  go_to(client, Stage::logging_in);
  say(client, startup);
}

// ---- the run

const char *name_of(Stage stage) {
  switch (stage) {
    case Stage::begin: return "begin";
    case Stage::insert: return "insert";
    case Stage::commit: return "commit";
    default: return "rollback";
  }
}

void look_at_clocks(int64_t time_us) {
  for (Client &client : clients) {
    if (client.stage == Stage::away) {
      if (!last_orders && time_us >= client.since_us) come(client);
    } else if (client.stage == Stage::connecting || client.stage == Stage::logging_in) {
      if (time_us - client.since_us <= kConnectPatienceUs) continue;
      if (client.stage == Stage::logging_in) {
        client.began_us = day_us() - kConnectPatienceUs;
        write_down(client, "unanswered", "login");
      }
      lose(client, "timeout");
    } else if (time_us - client.since_us > patience_us) {
      if (client.id != 0) conclude(client, "unanswered", name_of(client.stage));
      else write_down(client, "unanswered", name_of(client.stage));
      lose(client, "patience");
    }
  }
}

void write_sample() {
  fprintf(samples, "%lld,%lld,%lld,%lld,%lld,%lld\n", static_cast<long long>(day_us() / 1000),
          static_cast<long long>(sample.told[0]), static_cast<long long>(sample.told[1]),
          static_cast<long long>(sample.failed), static_cast<long long>(connected),
          static_cast<long long>(sample.slowest_us));
  fflush(samples);
  sample = Sample();
}

// Whoever is there waits for an answer, be it to a log-in.  Patience ends each of these.
bool somebody_is_busy() {
  for (const Client &client : clients)
    if (client.stage != Stage::away) return true;
  return false;
}

void run(int64_t for_us) {
  const int64_t until_us = now_us() + for_us;
  int64_t sample_us = now_us() + kSampleUs, looked_us = 0;
  for (;;) {
    const int64_t time_us = now_us();
    if (over || time_us >= until_us) last_orders = true;
    if (last_orders && !somebody_is_busy()) break;
    // With fewer and fewer clients at work, what is told says nothing.
    if (time_us >= sample_us && !last_orders) {
      write_sample();
      sample_us += kSampleUs;
    }
    if (time_us - looked_us >= 5000) {
      look_at_clocks(time_us);
      looked_us = time_us;
    }
    epoll_event events[256];
    const int count = epoll_wait(epoll_set, events, 256, 5);
    for (int i = 0; i < count; i++) {
      Client &client = clients[events[i].data.u64];
      if (client.fd < 0) continue;
      if (client.stage == Stage::connecting) introduce(client);
      else listen_to_server(client);
    }
  }
}

FILE *create(const std::string &name, const char *head) {
  FILE *file = fopen(name.c_str(), "w");
  if (!file) die_errno("could not create " + name);
  fprintf(file, "%s\n", head);
  return file;
}

}  // namespace

int main(int argc, char **argv) {
  program = "trouble_clients";
  Options options(argc, argv, kUsage);
  const std::string host = options.text("host", "");
  const std::string ports = options.text("ports", "");
  const size_t count = static_cast<size_t>(options.number("clients", 0));
  const int64_t for_us = options.microseconds("seconds", "0");
  const std::string outcome_file = options.text("outcomes", ""), sample_file = options.text("samples", "");
  const std::string database = options.text("database", "bench"), user = options.text("user", "bench");
  next_id = static_cast<uint64_t>(options.number("first-id", 1));
  patience_us = options.microseconds("patience", "20");
  options.finish();
  if (host.empty() || ports.empty() || count == 0 || for_us == 0 || outcome_file.empty() || sample_file.empty() ||
      next_id == 0)
    options.complain();

  struct sigaction action = {};
  action.sa_handler = end;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);
  raise_descriptor_limit(count);
  for (size_t at = 0; at != std::string::npos;) {
    const size_t comma = ports.find(',', at);
    addresses.push_back(address_of(host, atoi(ports.substr(at, comma - at).c_str())));
    at = comma == std::string::npos ? comma : comma + 1;
  }
  startup = startup_message({"user", user, "database", database, "application_name", "trouble"});
  epoll_set = epoll_create1(EPOLL_CLOEXEC);
  if (epoll_set < 0) die_errno("could not create an epoll set");
  outcomes = create(outcome_file, "id,client,outcome,began_us,ended_us,sqlstate");
  samples = create(sample_file, "at_ms,told_1,told_2,failed,connected,slowest_us");

  clients.resize(count);
  for (size_t i = 0; i < count; i++) {
    clients[i].number = static_cast<int>(i);
    clients[i].port = i % addresses.size();
    clients[i].kind = static_cast<Kind>(i / addresses.size() % 3);
  }
  run(for_us);
  fclose(outcomes);
  fclose(samples);
  printf("told %lld\n", static_cast<long long>(counts["told"]));
  for (const auto &entry : counts)
    if (entry.first != "told") printf("%s %lld\n", entry.first.c_str(), static_cast<long long>(entry.second));
  return 0;
}
