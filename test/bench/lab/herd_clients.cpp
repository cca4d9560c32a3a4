// SPDX-License-Identifier: PostgreSQL
//
// A herd of connections for herd.sh: opened many at a time, then idle, and then some of them active while all others
// stay idle.
//
// One thread, one epoll set and plain sockets, so that a client costs this side little besides its socket.  What is
// timed of a connection is from connect() to ReadyForQuery.  Once it is open it is taken out of our epoll set: an idle
// client costs the kernel its socket on this side, and nothing else.
//
//   herd_clients --host H --port P [--database bench] [--user bench]
//     --clients N           connections
//     --under-way 64        of these, so many are being opened at a time
//     --step K              a line for each K of them (N / 10)
//     --per-source K        TCP: so many connections from one source address (127.0.0.2, 127.0.0.3 ...); 0: let the
//                           kernel choose address and port for all
//     --at-rest COMMAND     a shell command, when all are open and idle; its output goes to standard error
//     --active M            then so many of them, evenly spread, ask one query after the other ...
//     --seconds S           ... for so long (0), and the others are idle
//     --query SQL           (select 1)
//     --limit S             for opening all of them (120 s)
//
// HOST is an IPv4 address, or the directory of a Unix socket.  Prints one line for each step, one for all steps
// together, and one for what was active, whose rate is of answers within the time, and whose times are of all answers:
//   opening,CLIENTS,RATE_PER_S,P50_US,P99_US,MAX_US
//   opened,CLIENTS,RATE_PER_S,P50_US,P99_US,MAX_US
//   active,CLIENTS,RATE_PER_S,P50_US,P99_US,MAX_US
// Exit status 0 means that each connection was accepted and stayed open, that an idle one heard nothing, and that each
// answer was complete and no error.

#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/wait.h>

#include "herd_wire.hpp"

using namespace wire;

namespace {

constexpr const char *kUsage =
    "herd_clients --host H --port P --clients N [--database D] [--user U] [--under-way 64] [--step K]\n"
    "  [--per-source 0] [--at-rest COMMAND] [--active M] [--seconds S] [--query SQL] [--limit 120]";

enum class Stage { connecting, greeted_soon, open };

struct Client {
  int fd = -1;
  Stage stage = Stage::connecting;
  int64_t since_us = 0;  // of its connect(), or of its query
  std::string input;
};

struct Step {
  int64_t began_us = 0;
  std::vector<int64_t> times_us;
};

std::string startup;
Address server;
int epoll_set = -1;
size_t per_source = 0;
std::vector<Client> clients;

void watch(size_t index, uint32_t events) {
  epoll_event event = {};
  event.events = events;
  event.data.u64 = index;
  if (epoll_ctl(epoll_set, EPOLL_CTL_ADD, clients[index].fd, &event) != 0) die_errno("could not watch a socket");
}

void unwatch(const Client &client) {
  if (epoll_ctl(epoll_set, EPOLL_CTL_DEL, client.fd, nullptr) != 0) die_errno("could not leave a socket alone");
}

// True when there is a whole answer.  DURING says what an error is reported with.
bool receive_until_ready(Client &client, const std::string &during) {
  char buffer[16384];
  const ssize_t got = recv(client.fd, buffer, sizeof(buffer), 0);
  if (got == 0) die("the server closed a connection " + during);
  if (got < 0) {
    if (errno == EAGAIN || errno == EINTR) return false;
    die_errno("could not receive from the server " + during);
  }
  client.input.append(buffer, static_cast<size_t>(got));
  size_t at = 0;
  char type;
  std::string body;
  bool ready = false;
  while (next_message(client.input, at, type, body)) {
    if (type == 'E') die("the server answered " + during + ": " + error_field(body, 'M'));
    if (type == 'R' && read_int32(body.data()) != 0) die("the server asks for a password; trust is expected here");
    if (ready) die("a client was told more than it had asked for");
    ready = type == 'Z';
  }
  client.input.erase(0, at);
  return ready;
}

// ---- opening

// One port of an address is enough for many connections only if their other ends differ; they do not here.
void choose_source(const Client &client, size_t index) {
  if (server.is_local || per_source == 0) return;
  const int on = 1;
  setsockopt(client.fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
  sockaddr_in source = {};
  source.sin_family = AF_INET;
  source.sin_addr.s_addr = htonl((127u << 24) + 2 + static_cast<uint32_t>(index / per_source));
  if (bind(client.fd, reinterpret_cast<sockaddr *>(&source), sizeof(source)) != 0)
    die_errno("could not choose a source address");
}

// The start-up packet, if the connection is made.  False: it is not yet.
bool introduce(Client &client) {
  const ssize_t wrote = send(client.fd, startup.data(), startup.size(), MSG_NOSIGNAL);
  if (wrote < 0 && (errno == EAGAIN || errno == ENOTCONN)) return false;
  if (wrote < 0) die_errno("could not connect");
  if (wrote != static_cast<ssize_t>(startup.size())) die("a start-up packet was not taken as a whole");
  client.stage = Stage::greeted_soon;
  return true;
}

// False: the backlog is full, come again.
bool begin(size_t index) {
  Client &client = clients[index];
  if (client.fd < 0) {
    client.fd = new_socket(server);
    choose_source(client, index);
    client.since_us = now_us();
  }
  if (connect(client.fd, &server.any, server.length) != 0) {
    if (errno == EAGAIN && server.is_local) return false;
    if (errno != EINPROGRESS) die_errno("could not connect client " + std::to_string(index + 1));
  }
  // On loopback it mostly is made by now.
  const bool introduced = introduce(client);
  watch(index, introduced ? EPOLLIN : EPOLLIN | EPOLLOUT);
  return true;
}

// True when the client has come in.
bool go_on(size_t index) {
  Client &client = clients[index];
  if (client.stage == Stage::connecting) {
    int error = 0;
    socklen_t length = sizeof(error);
    getsockopt(client.fd, SOL_SOCKET, SO_ERROR, &error, &length);
    errno = error;
    if (error != 0) die_errno("could not connect client " + std::to_string(index + 1));
    if (!introduce(client)) return false;
    epoll_event event = {};
    event.events = EPOLLIN;
    event.data.u64 = index;
    epoll_ctl(epoll_set, EPOLL_CTL_MOD, client.fd, &event);
    return false;
  }
  if (!receive_until_ready(client, "while client " + std::to_string(index + 1) + " came in")) return false;
  if (!client.input.empty()) die("a client was told more than it had asked for");
  client.stage = Stage::open;
  client.input.shrink_to_fit();
  unwatch(client);
  return true;
}

// COUNTED of what was timed was done by then.
void report(const char *what, size_t count, Step &step, int64_t until_us, size_t counted) {
  const double seconds = static_cast<double>(until_us - step.began_us) / 1e6;
  printf("%s,%zu,%.0f,%lld,%lld,%lld\n", what, count,
         seconds > 0 ? static_cast<double>(counted) / seconds : 0.0,
         static_cast<long long>(percentile(step.times_us, 0.5)),
         static_cast<long long>(percentile(step.times_us, 0.99)),
         static_cast<long long>(percentile(step.times_us, 1.0)));
  fflush(stdout);
}

void open_all(size_t under_way_limit, size_t step_size, int64_t limit_us) {
  const int64_t began_us = now_us();
  size_t begun = 0, open = 0;
  Step step, all;
  step.began_us = all.began_us = began_us;
  all.times_us.reserve(clients.size());
  while (open < clients.size()) {
    bool refused = false;
    while (!refused && begun < clients.size() && begun - open < under_way_limit) {
      refused = !begin(begun);
      if (!refused) begun++;
    }
    epoll_event events[256];
    const int count = epoll_wait(epoll_set, events, 256, refused ? 1 : 100);
    if (count < 0 && errno != EINTR) die_errno("could not wait");
    for (int i = 0; i < count; i++) {
      const size_t index = events[i].data.u64;
      if (!go_on(index)) continue;
      const int64_t time_us = now_us();
      open++;
      step.times_us.push_back(time_us - clients[index].since_us);
      all.times_us.push_back(step.times_us.back());
      if (open % step_size != 0 && open != clients.size()) continue;
      report("opening", open, step, time_us, step.times_us.size());
      if (open == clients.size()) report("opened", open, all, time_us, open);
      step = Step();
      step.began_us = time_us;
    }
    if (now_us() - began_us > limit_us) die("only " + std::to_string(open) + " clients had come in when time was up");
  }
}

// ---- being idle, and being active

void run_command(const std::string &command) {
  const int status = system(("( " + command + " ) >&2").c_str());
  if (status == -1 || !WIFEXITED(status) || WEXITSTATUS(status) != 0) die("the command failed: " + command);
}

// An idle connection has nothing to say: anything readable is an error or the end.
void require_silence() {
  for (const Client &client : clients) {
    pollfd ask = {client.fd, POLLIN, 0};
    if (poll(&ask, 1, 0) != 0) die("the server did not leave an idle connection alone");
  }
}

void ask(Client &client, const std::string &query) {
  client.since_us = now_us();
  if (send(client.fd, query.data(), query.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(query.size()))
    die_errno("could not ask");
}

void be_active(size_t count, int64_t for_us, const std::string &query) {
  for (size_t i = 0; i < count; i++) {
    const size_t index = i * clients.size() / count;
    watch(index, EPOLLIN);
    ask(clients[index], query);
  }
  Step all;
  all.began_us = now_us();
  const int64_t until_us = all.began_us + for_us;
  int64_t time_us = all.began_us;
  size_t in_time = 0;
  for (size_t pending = count; pending > 0;) {
    epoll_event events[256];
    const int ready = epoll_wait(epoll_set, events, 256, 60000);
    if (ready < 0 && errno != EINTR) die_errno("could not wait for answers");
    if (ready == 0) die(std::to_string(pending) + " clients were not answered within a minute");
    for (int i = 0; i < ready; i++) {
      Client &client = clients[events[i].data.u64];
      if (!receive_until_ready(client, "to a query")) continue;
      time_us = now_us();
      // Answers after the end are no throughput.  How long they took counts: the longest are among them.
      all.times_us.push_back(time_us - client.since_us);
      if (time_us < until_us) {
        in_time++;
        ask(client, query);
      } else {
        pending--;
      }
    }
  }
  report("active", count, all, until_us, in_time);
}

}  // namespace

int main(int argc, char **argv) {
  program = "herd_clients";
  Options options(argc, argv, kUsage);
  const std::string host = options.text("host", "");
  const long port = options.number("port", 0);
  const std::string database = options.text("database", "bench");
  const std::string user = options.text("user", "bench");
  const size_t count = static_cast<size_t>(options.number("clients", 0));
  const size_t under_way = static_cast<size_t>(options.number("under-way", 64));
  const size_t step = static_cast<size_t>(options.number("step", static_cast<long>(std::max<size_t>(1, count / 10))));
  per_source = static_cast<size_t>(options.number("per-source", 0));
  const std::string command = options.text("at-rest", "");
  const size_t active = static_cast<size_t>(options.number("active", 0));
  const int64_t active_us = options.microseconds("seconds", "0");
  const std::string query = query_message(options.text("query", "select 1"));
  const int64_t limit_us = options.microseconds("limit", "120");
  options.finish();
  if (host.empty() || port == 0 || count == 0 || under_way == 0 || step == 0 || active > count) options.complain();

  signal(SIGPIPE, SIG_IGN);
  raise_descriptor_limit(count);
  server = address_of(host, static_cast<int>(port));
  startup = startup_message({"user", user, "database", database});
  epoll_set = epoll_create1(EPOLL_CLOEXEC);
  if (epoll_set < 0) die_errno("could not create an epoll set");
  clients.resize(count);

  open_all(under_way, step, limit_us);
  if (!command.empty()) run_command(command);
  require_silence();
  if (active > 0 && active_us > 0) be_active(active, active_us, query);
  require_silence();
  const std::string bye = goodbye();
  for (const Client &client : clients) {
    if (send(client.fd, bye.data(), bye.size(), MSG_NOSIGNAL) < 0) die_errno("could not say goodbye");
    close(client.fd);
  }
  return 0;
}
