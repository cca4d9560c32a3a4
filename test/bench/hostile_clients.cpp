// SPDX-License-Identifier: PostgreSQL
//
// Strangers at the door, for hostile.sh: clients that hold a connection and do not get anywhere, or that come and go as
// fast as they can.
//
// One thread and plain sockets, so that ten thousand clients cost the machine little besides what the server spends on
// them.  Every second client comes over the Unix socket.
//
//   hostile_clients hold N HOST DIRECTORY PORT DATABASE USER SCRAM_USER
//       N clients, a quarter each: connected and silent; a start-up packet of which a byte comes each second; in a SASL
//       exchange that does not go on (as SCRAM_USER); authenticated and idle (as USER, who needs no password).  Whoever
//       is thrown out comes again a second later.
//   hostile_clients flood silent HOST DIRECTORY PORT DATABASE USER SCRAM_USER
//       connects, says nothing and leaves, one after the other
//   hostile_clients flood login HOST DIRECTORY PORT DATABASE USER SCRAM_USER
//       50 at a time try to log in as SCRAM_USER with a wrong proof
//
// HOST is an IPv4 address, DIRECTORY that of the Unix socket.  Prints "ready" when all are where they are meant to be
// (hold) or when it begins (flood), goes on until SIGTERM, and then prints one line:
//   seconds S attempts N refused N ended N held N
// where an attempt is a connection that was made, a refusal an ErrorResponse, an end what came without a word.

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <deque>
#include <string>
#include <vector>

namespace {

constexpr int kConnectTimeoutSeconds = 20;
constexpr int64_t kComeAgainMs = 1000;
constexpr int kLoginsAtATime = 50;
constexpr size_t kSlowPacketBytes = 9000;  // no authentication_timeout is long enough for it

enum class Kind { silent, slow, sasl, idle, failing };

struct Client {
  int descriptor = -1;
  Kind kind = Kind::silent;
  bool over_unix = false;
  bool arrived = false;  // where it is meant to stay
  size_t sent = 0;       // bytes of the slow packet
  std::string input;
};

volatile sig_atomic_t ended = 0;

std::string host, directory, database, user, scram_user, slow_packet;
int port = 0;
int epoll_set = -1;
int64_t attempts = 0, refused = 0, thrown_out = 0, held = 0;
std::vector<Client> clients;
std::deque<std::pair<int64_t, size_t>> absent;  // when to come again, and who

void end(int) { ended = 1; }

[[noreturn]] void die(const std::string &what) {
  fprintf(stderr, "hostile_clients: %s: %s\n", what.c_str(), strerror(errno));
  exit(1);
}

int64_t now_ms() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<int64_t>(now.tv_sec) * 1000 + now.tv_nsec / 1000000;
}

// ------------------------------------------------------------------ messages

std::string word(uint32_t value) {
  const uint32_t network = htonl(value);
  return std::string(reinterpret_cast<const char *>(&network), sizeof(network));
}

uint32_t read_word(const char *bytes) {
  uint32_t network;
  memcpy(&network, bytes, sizeof(network));
  return ntohl(network);
}

std::string message(char type, const std::string &body) {
  return type + word(static_cast<uint32_t>(body.size() + 4)) + body;
}

std::string startup_packet(const std::string &name, const std::string &application) {
  std::string body = word(3u << 16);
  for (const std::string &text : {std::string("user"), name, std::string("database"), database,
                                  std::string("application_name"), application}) {
    body += text;
    body += '\0';
  }
  body += '\0';
  return word(static_cast<uint32_t>(body.size() + 4)) + body;
}

std::string scram_first() {
  const std::string first = "n,,n=,r=stranger0123456789";
  return message('p', std::string("SCRAM-SHA-256") + '\0' + word(static_cast<uint32_t>(first.size())) + first);
}

// A proof of the right length that is none.
std::string scram_final(const std::string &challenge) {
  const size_t start = challenge.find("r=") + 2;
  const std::string nonce = challenge.substr(start, challenge.find(',', start) - start);
  return message('p', "c=biws,r=" + nonce + ",p=" + std::string(43, 'A') + "=");
}

// ------------------------------------------------------------------ connections

int connect_to_server(bool over_unix) {
  const int descriptor = socket(over_unix ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) die("socket");
  // Also the limit of connect().
  timeval limit{kConnectTimeoutSeconds, 0};
  setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
  int status;
  if (over_unix) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/.s.PGSQL.%d", directory.c_str(), port);
    status = connect(descriptor, reinterpret_cast<sockaddr *>(&address), sizeof(address));
  } else {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    if (inet_pton(AF_INET, host.c_str(), &address.sin_addr) != 1) die("not an IPv4 address: " + host);
    status = connect(descriptor, reinterpret_cast<sockaddr *>(&address), sizeof(address));
  }
  if (status != 0) {
    const int reason = errno;
    close(descriptor);
    errno = reason;
    // The server may be so busy that it does not take us; that is no error of ours.
    if (reason == EAGAIN || reason == EINPROGRESS || reason == ECONNREFUSED || reason == ECONNRESET || reason == EINTR)
      return -1;
    die("connect");
  }
  attempts++;
  return descriptor;
}

// Leaves no port of ours waiting for the connection to be forgotten.
void hang_up(int descriptor) {
  linger at_once{1, 0};
  setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  close(descriptor);
}

bool say(const Client &client, const std::string &bytes) {
  return send(client.descriptor, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT) ==
         static_cast<ssize_t>(bytes.size());
}

void leave(size_t index, int64_t comes_again_ms) {
  Client &client = clients[index];
  if (client.arrived) held--;
  hang_up(client.descriptor);
  client.descriptor = -1;
  client.arrived = false;
  absent.emplace_back(comes_again_ms, index);
}

void arrive(Client &client) {
  if (!client.arrived) held++;
  client.arrived = true;
}

void come(size_t index) {
  Client &client = clients[index];
  client.input.clear();
  client.sent = 0;
  client.descriptor = connect_to_server(client.over_unix);
  if (client.descriptor < 0) {
    absent.emplace_back(now_ms() + kComeAgainMs, index);
    return;
  }
  epoll_event event{};
  event.events = EPOLLIN | EPOLLRDHUP;
  event.data.u64 = index;
  if (epoll_ctl(epoll_set, EPOLL_CTL_ADD, client.descriptor, &event) != 0) die("epoll_ctl");
  switch (client.kind) {
    case Kind::silent:
    case Kind::slow:
      arrive(client);
      return;
    case Kind::sasl:
    case Kind::failing:
      say(client, startup_packet(scram_user, "stranger"));
      return;
    case Kind::idle:
      say(client, startup_packet(user, "idle"));
      return;
  }
}

void come_again(int64_t time_ms) {
  for (int i = 0; i < 100 && !absent.empty() && absent.front().first <= time_ms; i++) {
    const size_t index = absent.front().second;
    absent.pop_front();
    come(index);
  }
}

// A whole message has come.  False: the client has no more to do here.
bool understand(Client &client, char type, const std::string &body) {
  if (type == 'E') {
    refused++;
    return false;
  }
  const uint32_t request = type == 'R' && body.size() >= 4 ? read_word(body.data()) : 0;
  if (client.kind == Kind::sasl && request == 10) arrive(client);
  if (client.kind == Kind::idle && type == 'Z') arrive(client);
  if (client.kind == Kind::failing && request == 10) return say(client, scram_first());
  if (client.kind == Kind::failing && request == 11) return say(client, scram_final(body));
  return true;
}

// False when it is over.
bool listen_to_server(Client &client) {
  char bytes[4096];
  const ssize_t got = recv(client.descriptor, bytes, sizeof(bytes), MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return true;
  if (got <= 0) {
    thrown_out++;
    return false;
  }
  client.input.append(bytes, static_cast<size_t>(got));
  while (client.input.size() >= 5) {
    const size_t whole = read_word(client.input.data() + 1) + 1u;
    if (client.input.size() < whole) break;
    const std::string body = client.input.substr(5, whole - 5);
    if (!understand(client, client.input[0], body)) return false;
    client.input.erase(0, whole);
  }
  return true;
}

// ------------------------------------------------------------------ what they do

void look_around(int timeout_ms) {
  epoll_event events[256];
  const int count = epoll_wait(epoll_set, events, 256, timeout_ms);
  for (int i = 0; i < count; i++) {
    const size_t index = events[i].data.u64;
    if (clients[index].descriptor < 0 || listen_to_server(clients[index])) continue;
    leave(index, now_ms() + (clients[index].kind == Kind::failing ? 0 : kComeAgainMs));
  }
}

// Each slow client gets its turn once a second, a tenth of them at a time.
void dribble(int64_t tick) {
  for (size_t i = 0; i < clients.size(); i++) {
    Client &client = clients[i];
    if (client.kind != Kind::slow || client.descriptor < 0 || static_cast<int64_t>(i / 4 % 10) != tick % 10) continue;
    if (client.sent < slow_packet.size() - 1) say(client, slow_packet.substr(client.sent++, 1));
  }
}

void hold(size_t count) {
  constexpr Kind kKinds[] = {Kind::silent, Kind::slow, Kind::sasl, Kind::idle};
  clients.resize(count);
  for (size_t i = 0; i < count; i++) {
    clients[i].kind = kKinds[i % 4];
    clients[i].over_unix = i / 4 % 2 != 0;
    absent.emplace_back(0, i);
  }
  bool ready = false;
  int64_t tick = 0;
  while (!ended) {
    const int64_t time_ms = now_ms();
    come_again(time_ms);
    look_around(absent.empty() || absent.front().first > time_ms ? 20 : 0);
    if (now_ms() / 100 != tick) {
      tick = now_ms() / 100;
      dribble(tick);
    }
    if (!ready && held == static_cast<int64_t>(count)) {
      ready = true;
      puts("ready");
      fflush(stdout);
    }
  }
}

void flood_silently() {
  for (int64_t i = 0; !ended; i++) {
    const int descriptor = connect_to_server(i % 2 != 0);
    if (descriptor >= 0) hang_up(descriptor);
  }
}

void flood_with_logins() {
  clients.resize(kLoginsAtATime);
  for (size_t i = 0; i < clients.size(); i++) {
    clients[i].kind = Kind::failing;
    clients[i].over_unix = i % 2 != 0;
    absent.emplace_back(0, i);
  }
  while (!ended) {
    come_again(now_ms());
    look_around(absent.empty() ? 20 : 0);
  }
}

[[noreturn]] void explain_use() {
  fputs("use: hostile_clients hold N | flood silent | flood login, then HOST DIRECTORY PORT DATABASE USER SCRAM_USER\n",
        stderr);
  exit(2);
}

}  // namespace

int main(int argc, char **argv) {
  if (argc != 9) explain_use();
  const std::string what = argv[1], how = argv[2];
  host = argv[3];
  directory = argv[4];
  port = atoi(argv[5]);
  database = argv[6];
  user = argv[7];
  scram_user = argv[8];
  slow_packet = startup_packet(scram_user, std::string(kSlowPacketBytes, 'x'));

  struct sigaction action {};
  action.sa_handler = end;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  epoll_set = epoll_create1(EPOLL_CLOEXEC);
  if (epoll_set < 0) die("epoll_create1");

  const int64_t started_ms = now_ms();
  if (what == "hold" && atoi(how.c_str()) > 0) {
    hold(static_cast<size_t>(atoi(how.c_str())));
  } else if (what == "flood" && (how == "silent" || how == "login")) {
    puts("ready");
    fflush(stdout);
    how == "silent" ? flood_silently() : flood_with_logins();
  } else {
    explain_use();
  }
  printf("seconds %.3f attempts %lld refused %lld ended %lld held %lld\n",
         static_cast<double>(now_ms() - started_ms) / 1000, static_cast<long long>(attempts),
         static_cast<long long>(refused), static_cast<long long>(thrown_out), static_cast<long long>(held));
  return 0;
}
