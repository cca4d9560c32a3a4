// SPDX-License-Identifier: PostgreSQL
//
// A load client for what pgbench cannot do: thousands of connections that are idle, and one query from all of them at
// the same moment.
//
// It speaks just enough of the frontend/backend protocol (version 3.0, trust authentication, simple queries) on plain
// sockets, from one thread, so that ten thousand clients cost the machine little besides what the server spends on
// them. Connections are opened one after the other: opening is not what is measured here.
//
//   raw_client idle  N HOST PORT DATABASE USER COMMAND         N idle connections while COMMAND runs
//   raw_client spike N HOST PORT DATABASE USER COMMAND QUERY   N idle connections, COMMAND, then QUERY from all at once
//
// HOST is an IPv4 address, or the directory of a Unix socket.  COMMAND is a shell command; what it prints goes to
// standard output.  "spike" prints one line, "first_ms median_ms last_ms": the time from the first byte sent to the end
// of the first, the middle and the last answer.  Exit status 0 means that each connection was accepted and stayed open,
// and that each answer was complete and no error.

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
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
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

namespace {

constexpr int kConnectTimeoutSeconds = 20;
constexpr int kAnswerTimeoutMs = 60 * 1000;

[[noreturn]] void die(const std::string &what) {
  fprintf(stderr, "raw_client: %s\n", what.c_str());
  exit(1);
}

[[noreturn]] void die_errno(const std::string &what) { die(what + ": " + strerror(errno)); }

double now_ms() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
}

void append_int32(std::string &out, uint32_t value) {
  const uint32_t network = htonl(value);
  out.append(reinterpret_cast<const char *>(&network), sizeof(network));
}

uint32_t read_int32(const char *bytes) {
  uint32_t network;
  memcpy(&network, bytes, sizeof(network));
  return ntohl(network);
}

std::string startup_message(const std::string &database, const std::string &user) {
  std::string body;
  append_int32(body, 3u << 16);
  for (const std::string &word : {std::string("user"), user, std::string("database"), database}) {
    body += word;
    body += '\0';
  }
  body += '\0';
  std::string message;
  append_int32(message, static_cast<uint32_t>(body.size() + 4));
  return message + body;
}

std::string query_message(const std::string &query) {
  std::string message = "Q";
  append_int32(message, static_cast<uint32_t>(query.size() + 5));
  message += query;
  message += '\0';
  return message;
}

// The readable part of an ErrorResponse body: the field M.
std::string error_text(const std::string &body) {
  size_t at = 0;
  while (at < body.size() && body[at] != '\0') {
    const std::string value = body.c_str() + at + 1;
    if (body[at] == 'M') return value;
    at += value.size() + 2;
  }
  return "an error without a message";
}

// One connection: what has arrived and is not a whole message yet.
struct Connection {
  int fd = -1;
  std::string input;
  bool ready = false;
};

// Takes the whole messages off the input; true at ReadyForQuery.
bool take_messages(Connection &connection) {
  size_t at = 0;
  bool ready = false;
  const std::string &input = connection.input;
  while (input.size() - at >= 5) {
    const size_t length = read_int32(input.data() + at + 1);
    if (length < 4) die("the server sent a message with an impossible length");
    if (input.size() - at < length + 1) break;
    const char type = input[at];
    const std::string body = input.substr(at + 5, length - 4);
    at += length + 1;
    if (type == 'E') die("the server answered: " + error_text(body));
    if (type == 'R' && read_int32(body.data()) != 0) die("the server asks for a password; trust is expected here");
    if (type == 'Z') ready = true;
  }
  connection.input.erase(0, at);
  return ready;
}

void receive(Connection &connection) {
  char buffer[16384];
  const ssize_t got = recv(connection.fd, buffer, sizeof(buffer), 0);
  if (got == 0) die("the server closed a connection");
  if (got < 0 && errno != EINTR) die_errno("could not receive from the server");
  if (got > 0) connection.input.append(buffer, static_cast<size_t>(got));
}

void send_all(int fd, const std::string &message) {
  size_t sent = 0;
  while (sent < message.size()) {
    const ssize_t wrote = send(fd, message.data() + sent, message.size() - sent, MSG_NOSIGNAL);
    if (wrote < 0 && errno != EINTR) die_errno("could not send to the server");
    if (wrote > 0) sent += static_cast<size_t>(wrote);
  }
}

int open_socket(const std::string &host, const std::string &port) {
  sockaddr_un local = {};
  sockaddr_in inet = {};
  const bool is_local = host[0] == '/';
  const sockaddr *address;
  socklen_t length;
  if (is_local) {
    const std::string path = host + "/.s.PGSQL." + port;
    if (path.size() >= sizeof(local.sun_path)) die("the socket directory's name is too long");
    local.sun_family = AF_UNIX;
    memcpy(local.sun_path, path.c_str(), path.size() + 1);
    address = reinterpret_cast<const sockaddr *>(&local);
    length = sizeof(local);
  } else {
    inet.sin_family = AF_INET;
    inet.sin_port = htons(static_cast<uint16_t>(atoi(port.c_str())));
    if (inet_pton(AF_INET, host.c_str(), &inet.sin_addr) != 1) die("not an IPv4 address: " + host);
    address = reinterpret_cast<const sockaddr *>(&inet);
    length = sizeof(inet);
  }
  const int fd = socket(is_local ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) die_errno("could not create a socket");
  const timeval limit = {kConnectTimeoutSeconds, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
  if (connect(fd, address, length) != 0) die_errno("could not connect to " + host + " port " + port);
  if (!is_local) {
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  }
  return fd;
}

void raise_descriptor_limit(size_t wanted) {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) die_errno("could not read the limit of open files");
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) die_errno("could not raise the limit of open files");
  if (limit.rlim_max < wanted + 32) die("the limit of open files is too low: " + std::to_string(limit.rlim_max));
}

// An idle connection has nothing to say: anything readable is an error or the end.
void require_silence(const std::vector<Connection> &connections) {
  for (const Connection &connection : connections) {
    pollfd ask = {connection.fd, POLLIN, 0};
    if (poll(&ask, 1, 0) != 0) die("the server did not leave an idle connection alone");
  }
}

void run_command(const char *command) {
  fflush(stdout);
  const int status = system(command);
  if (status == -1 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
    die("the command failed: " + std::string(command));
}

void spike(std::vector<Connection> &connections, const std::string &query) {
  const int set = epoll_create1(EPOLL_CLOEXEC);
  if (set < 0) die_errno("could not create an epoll set");
  for (size_t i = 0; i < connections.size(); i++) {
    epoll_event event = {};
    event.events = EPOLLIN;
    event.data.u64 = i;
    if (epoll_ctl(set, EPOLL_CTL_ADD, connections[i].fd, &event) != 0) die_errno("could not watch a socket");
  }
  const std::string message = query_message(query);
  std::vector<double> answered_ms;
  const double start_ms = now_ms();
  for (Connection &connection : connections) send_all(connection.fd, message);
  while (answered_ms.size() < connections.size()) {
    epoll_event events[64];
    const int count = epoll_wait(set, events, 64, kAnswerTimeoutMs);
    if (count < 0 && errno != EINTR) die_errno("could not wait for answers");
    if (count == 0) die("only " + std::to_string(answered_ms.size()) + " clients were answered");
    for (int i = 0; i < count; i++) {
      Connection &connection = connections[events[i].data.u64];
      receive(connection);
      if (!take_messages(connection)) continue;
      if (connection.ready) die("a client was answered twice");
      connection.ready = true;
      answered_ms.push_back(now_ms() - start_ms);
    }
  }
  std::sort(answered_ms.begin(), answered_ms.end());
  printf("%.1f %.1f %.1f\n", answered_ms.front(), answered_ms[answered_ms.size() / 2], answered_ms.back());
  close(set);
}

}  // namespace

int main(int argc, char **argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  if (!(mode == "idle" && argc == 8) && !(mode == "spike" && argc == 9))
    die("usage: raw_client idle|spike N HOST PORT DATABASE USER COMMAND [QUERY]");
  const size_t count = strtoul(argv[2], nullptr, 10);
  if (count == 0) die("the number of connections must be positive");
  raise_descriptor_limit(count);
  signal(SIGPIPE, SIG_IGN);

  const std::string startup = startup_message(argv[5], argv[6]);
  std::vector<Connection> connections(count);
  for (Connection &connection : connections) {
    connection.fd = open_socket(argv[3], argv[4]);
    send_all(connection.fd, startup);
    do receive(connection);
    while (!take_messages(connection));
  }
  run_command(argv[7]);
  require_silence(connections);
  if (mode == "spike") spike(connections, argv[8]);
  for (const Connection &connection : connections) {
    send_all(connection.fd, std::string("X\0\0\0\4", 5));
    close(connection.fd);
  }
  return 0;
}
