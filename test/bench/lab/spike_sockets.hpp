// SPDX-License-Identifier: PostgreSQL
//
// What the programs of the spike share: sockets that do not block and a loop that waits for them, numbers as the
// protocol has them, the clock, and options.

#ifndef SLUICE_BENCH_LAB_SPIKE_SOCKETS_HPP
#define SLUICE_BENCH_LAB_SPIKE_SOCKETS_HPP

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace spike {

constexpr size_t kReadBytes = 65536;

[[noreturn]] inline void die(const std::string &what) {
  fprintf(stderr, "%s: %s\n", program_invocation_short_name, what.c_str());
  exit(1);
}

[[noreturn]] inline void die_errno(const std::string &what) {
  die(what + ": " + strerror(errno));
}

// The server's clock_timestamp() reads the same clock.
inline int64_t now_us() {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<int64_t>(now.tv_sec) * 1'000'000 + now.tv_nsec / 1000;
}

inline uint32_t read_int32(const char *bytes) {
  uint32_t network;
  memcpy(&network, bytes, sizeof(network));
  return ntohl(network);
}

inline uint32_t read_int16(const char *bytes) {
  uint16_t network;
  memcpy(&network, bytes, sizeof(network));
  return ntohs(network);
}

inline void append_int32(std::string &out, uint32_t value) {
  const uint32_t network = htonl(value);
  out.append(reinterpret_cast<const char *>(&network), sizeof(network));
}

// ---- sockets

struct Address {
  std::string host;  // an IPv4 address, or the directory of a Unix socket
  int port = 0;
};

// A socket that does not block, connecting or connected.
inline int open_socket(const Address &to) {
  sockaddr_un local = {};
  sockaddr_in inet = {};
  const bool is_local = !to.host.empty() && to.host[0] == '/';
  const int fd = socket(is_local ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) die_errno("could not create a socket");
  int result;
  if (is_local) {
    const std::string path = to.host + "/.s.PGSQL." + std::to_string(to.port);
    if (path.size() >= sizeof(local.sun_path)) die("the socket directory's name is too long");
    local.sun_family = AF_UNIX;
    memcpy(local.sun_path, path.c_str(), path.size() + 1);
    result = connect(fd, reinterpret_cast<const sockaddr *>(&local), sizeof(local));
  } else {
    inet.sin_family = AF_INET;
    inet.sin_port = htons(static_cast<uint16_t>(to.port));
    if (inet_pton(AF_INET, to.host.c_str(), &inet.sin_addr) != 1) die("not an IPv4 address: " + to.host);
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    result = connect(fd, reinterpret_cast<const sockaddr *>(&inet), sizeof(inet));
  }
  if (result == 0 || errno == EINPROGRESS) return fd;
  const int reason = errno;
  close(fd);
  errno = reason;
  return -1;
}

// Descriptors and what to do about their events.
class Loop {
 public:
  using Handler = std::function<void(uint32_t events)>;

  Loop() : set_(epoll_create1(EPOLL_CLOEXEC)) {
    if (set_ < 0) die_errno("could not create an epoll set");
  }

  void add(int fd, uint32_t events, Handler handler) {
    handlers_[fd] = std::make_shared<Handler>(std::move(handler));
    control(EPOLL_CTL_ADD, fd, events);
  }

  void change(int fd, uint32_t events) { control(EPOLL_CTL_MOD, fd, events); }

  // Also closes it.
  void remove(int fd) {
    handlers_.erase(fd);
    close(fd);
  }

  // Waits for events, until `until_us` at the longest, and handles them.
  void step(int64_t until_us) {
    epoll_event events[64];
    const int64_t left_us = until_us - now_us();
    const timespec wait = {left_us > 0 ? left_us / 1'000'000 : 0, left_us > 0 ? left_us % 1'000'000 * 1000 : 0};
    const int count = epoll_pwait2(set_, events, 64, &wait, nullptr);
    if (count < 0 && errno != EINTR) die_errno("could not wait for events");
    for (int i = 0; i < count; i++) {
      // A handler of this round may have removed it, or itself.
      const auto found = handlers_.find(events[i].data.fd);
      if (found == handlers_.end()) continue;
      const std::shared_ptr<Handler> handler = found->second;
      (*handler)(events[i].events);
    }
  }

 private:
  void control(int what, int fd, uint32_t wanted) {
    epoll_event event = {};
    event.events = wanted;
    event.data.fd = fd;
    if (epoll_ctl(set_, what, fd, &event) != 0) die_errno("could not watch a socket");
  }

  int set_;
  std::map<int, std::shared_ptr<Handler>> handlers_;
};

// ---- options

using Options = std::map<std::string, std::string>;

// --NAME VALUE for each of `names`, and --connect.
inline Options read_options(int argc, char **argv, std::initializer_list<const char *> names) {
  std::vector<option> known;
  for (const char *name : names) known.push_back({name, required_argument, nullptr, 0});
  known.push_back({"connect", no_argument, nullptr, 0});
  known.push_back({nullptr, 0, nullptr, 0});
  Options options;
  int index = 0;
  for (int got; (got = getopt_long(argc, argv, "", known.data(), &index)) != -1;) {
    if (got == '?') exit(1);
    options[known[index].name] = optarg ? optarg : "yes";
  }
  if (optind != argc) die(std::string("not an option: ") + argv[optind]);
  return options;
}

inline const std::string &need(const Options &options, const char *name) {
  const auto found = options.find(name);
  if (found == options.end()) die(std::string("--") + name + " is missing");
  return found->second;
}

inline std::string text(const Options &options, const char *name) {
  const auto found = options.find(name);
  return found == options.end() ? "" : found->second;
}

inline long number(const Options &options, const char *name, long otherwise) {
  const std::string value = text(options, name);
  if (value.empty()) return otherwise;
  char *end;
  const long result = strtol(value.c_str(), &end, 10);
  if (*end != '\0' || result < 0) die(std::string("--") + name + " is not a number: " + value);
  return result;
}

}  // namespace spike

#endif
