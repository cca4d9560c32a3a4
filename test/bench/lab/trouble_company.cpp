// SPDX-License-Identifier: PostgreSQL
//
// Who makes trouble in trouble.sh, besides the script itself: a network that may freeze, and clients that behave badly.
//
//   trouble_company proxy PORT HOST TO_PORT
//       forwards each connection to PORT of 127.0.0.1; whoever stops the process (SIGSTOP) freezes all bytes on their
//       way
//   trouble_company victims N HOST PORT
//       clients that begin a transaction, insert a row into "done" (-1, -1), and never commit: half of them hang up
//       inside the transaction, half in the middle of a great answer, with a reset; and come again.  Whoever kills the
//       process kills all of them wherever they are
//   trouble_company stall N SECONDS HOST PORT
//       clients that ask for 100 MB, take a little, read nothing for so long, and then the rest: "complete N" and
//       "cut N" are printed at the end
//
// The database and the role are "bench".  A process for each client and two threads for each connection forwarded: they
// are few, and what each does is easily told.  Clients reach the server at an IPv4 address.  Proxy and victims, who have
// no end of their own, do not outlive the process that has started them, even when they are stopped, nor a quarter of
// an hour.

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <random>
#include <thread>

#include "herd_wire.hpp"

using namespace wire;

namespace {

constexpr int kRows = 100;
constexpr const char *kGreatAnswer = "select repeat('x', 1000000) from generate_series(1, 100)";
constexpr int kSomeBytes = 65536;
constexpr unsigned kLongestSeconds = 900;

[[noreturn]] void explain_use() {
  fputs("use: trouble_company proxy PORT HOST TO_PORT | victims N HOST PORT | stall N SECONDS HOST PORT\n", stderr);
  exit(2);
}

int number(const char *text) {
  const int value = atoi(text);
  if (value <= 0) explain_use();
  return value;
}

void wait_ms(int64_t time_ms) { usleep(static_cast<useconds_t>(time_ms * 1000)); }

bool send_all(int fd, const char *bytes, size_t count) {
  while (count > 0) {
    const ssize_t wrote = send(fd, bytes, count, MSG_NOSIGNAL);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return false;
    bytes += wrote;
    count -= static_cast<size_t>(wrote);
  }
  return true;
}

// A connection that blocks; -1 if there is none.
int connect_to(const Address &address) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) die_errno("could not create a socket");
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  if (connect(fd, &address.any, address.length) == 0) return fd;
  close(fd);
  return -1;
}

// ---- the network

void forward(int from, int to) {
  std::vector<char> bytes(kSomeBytes);
  for (;;) {
    const ssize_t got = recv(from, bytes.data(), bytes.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0 || !send_all(to, bytes.data(), static_cast<size_t>(got))) break;
  }
  // What ends one direction ends the other; the descriptors are closed by who has begun.
  shutdown(from, SHUT_RDWR);
  shutdown(to, SHUT_RDWR);
}

void serve(int client, Address to) {
  const int server = connect_to(to);
  if (server >= 0) {
    std::thread back(forward, server, client);
    forward(client, server);
    back.join();
    close(server);
  }
  reset(client);
}

[[noreturn]] void be_the_network(int port, const Address &to) {
  const Address here = address_of("127.0.0.1", port);
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (bind(listener, &here.any, here.length) != 0 || listen(listener, 1024) != 0) die_errno("could not listen");
  for (;;) {
    const int client = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (client < 0) continue;
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    std::thread(serve, client, to).detach();
  }
}

// ---- clients

struct Client {
  int fd = -1;
  std::string input;
  int rows = 0;
};

// Reads until an answer has ended, or until so many bytes have come.  False: the connection is over, or an error came.
bool read_answer(Client &client, size_t at_most = SIZE_MAX) {
  char buffer[kSomeBytes];
  size_t seen = 0;
  for (;;) {
    size_t at = 0;
    char type;
    std::string body;
    while (next_message(client.input, at, type, body)) {
      if (type == 'E') return false;
      if (type == 'D') client.rows++;
      if (type == 'Z') {
        client.input.erase(0, at);
        return true;
      }
    }
    client.input.erase(0, at);
    if (seen >= at_most) return true;
    const ssize_t got = recv(client.fd, buffer, sizeof(buffer), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    client.input.append(buffer, static_cast<size_t>(got));
    seen += static_cast<size_t>(got);
  }
}

bool say(const Client &client, const std::string &words) { return send_all(client.fd, words.data(), words.size()); }

bool log_in(Client &client, const Address &server) {
  client = Client();
  client.fd = connect_to(server);
  return client.fd >= 0 &&
         say(client, startup_message({"user", "bench", "database", "bench", "application_name", "company"})) &&
         read_answer(client);
}

[[noreturn]] void be_a_victim(int which, const Address &server) {
  std::minstd_rand random(static_cast<unsigned>(which) + 1);
  std::uniform_int_distribution<int> some_ms(0, 60);
  for (;;) {
    Client client;
    if (log_in(client, server) && say(client, query_message("begin")) && read_answer(client) &&
        say(client, query_message("insert into done (id, client) values (-1, -1)")) && read_answer(client)) {
      if (which % 2 != 0) {
        say(client, query_message(kGreatAnswer));
        read_answer(client, kSomeBytes);
      }
      wait_ms(some_ms(random));
    }
    if (client.fd >= 0) reset(client.fd);
    wait_ms(20);
  }
}

// True if all of the answer has come, late as it is read.
bool stall(int for_ms, const Address &server) {
  Client client;
  if (!log_in(client, server) || !say(client, query_message(kGreatAnswer)) || !read_answer(client, kSomeBytes))
    return false;
  wait_ms(for_ms);
  const bool whole = read_answer(client) && client.rows == kRows;
  close(client.fd);
  return whole;
}

// Of a process whose parent is PARENT: a signal that ends even one that is stopped.
void not_outlive(pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
}

// A process for each, which does not outlive this one.
template <typename Work>
void be_many(int count, Work work) {
  const pid_t parent = getpid();
  for (int i = 0; i < count; i++) {
    const pid_t child = fork();
    if (child < 0) die_errno("could not fork");
    if (child > 0) continue;
    not_outlive(parent);
    _exit(work(i));
  }
}

}  // namespace

int main(int argc, char **argv) {
  program = "trouble_company";
  signal(SIGPIPE, SIG_IGN);
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "proxy" || what == "victims") {
    not_outlive(getppid());
    alarm(kLongestSeconds);
  }
  if (what == "proxy" && argc == 5) be_the_network(number(argv[2]), address_of(argv[3], number(argv[4])));
  if (what == "victims" && argc == 5) {
    const Address server = address_of(argv[3], number(argv[4]));
    be_many(number(argv[2]), [&](int i) -> int { be_a_victim(i, server); });
    for (;;) pause();
  }
  if (what != "stall" || argc != 6) explain_use();
  const Address server = address_of(argv[4], number(argv[5]));
  const int count = number(argv[2]), for_ms = static_cast<int>(atof(argv[3]) * 1000);
  be_many(count, [&](int) { return stall(for_ms, server) ? 0 : 1; });
  int complete = 0, status;
  while (wait(&status) > 0)
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) complete++;
  printf("complete %d\ncut %d\n", complete, count - complete);
  return 0;
}
