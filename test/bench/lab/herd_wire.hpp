// SPDX-License-Identifier: PostgreSQL
//
// As much of the frontend/backend protocol (version 3.0) as the clients of "herd" and "trouble" speak, on plain
// sockets: so that one process with one thread can be thousands of clients, and so that a client may do what no library
// does, such as hanging up in the middle of an answer.

#pragma once

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <initializer_list>
#include <string>
#include <vector>

namespace wire {

inline std::string program = "client";

[[noreturn]] inline void die(const std::string &what) {
  fprintf(stderr, "%s: %s\n", program.c_str(), what.c_str());
  exit(1);
}

[[noreturn]] inline void die_errno(const std::string &what) { die(what + ": " + strerror(errno)); }

inline int64_t clock_us(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return static_cast<int64_t>(now.tv_sec) * 1000000 + now.tv_nsec / 1000;
}

inline int64_t now_us() { return clock_us(CLOCK_MONOTONIC); }

// ---- messages

inline void append_int16(std::string &out, uint16_t value) {
  out += static_cast<char>(value >> 8);
  out += static_cast<char>(value & 0xff);
}

inline void append_int32(std::string &out, uint32_t value) {
  append_int16(out, static_cast<uint16_t>(value >> 16));
  append_int16(out, static_cast<uint16_t>(value & 0xffff));
}

inline uint32_t read_int32(const char *bytes) {
  uint32_t network;
  memcpy(&network, bytes, sizeof(network));
  return ntohl(network);
}

inline std::string message(char type, const std::string &body) {
  std::string whole(1, type);
  append_int32(whole, static_cast<uint32_t>(body.size() + 4));
  return whole + body;
}

inline std::string text(const std::string &words) { return words + '\0'; }

// SETTINGS: name, value, name, value ...
inline std::string startup_message(std::initializer_list<std::string> settings) {
  std::string body;
  append_int32(body, 3u << 16);
  for (const std::string &word : settings) body += text(word);
  body += '\0';
  std::string whole;
  append_int32(whole, static_cast<uint32_t>(body.size() + 4));
  return whole + body;
}

inline std::string query_message(const std::string &query) { return message('Q', text(query)); }
inline std::string goodbye() { return message('X', ""); }

// A field of an ErrorResponse: C is the SQLSTATE, M the text.
inline std::string error_field(const std::string &body, char field) {
  for (size_t at = 0; at < body.size() && body[at] != '\0';) {
    const std::string value = body.c_str() + at + 1;
    if (body[at] == field) return value;
    at += value.size() + 2;
  }
  return "";
}

// Takes the next whole message off INPUT, from AT on.  False: there is none yet.
inline bool next_message(const std::string &input, size_t &at, char &type, std::string &body) {
  if (input.size() - at < 5) return false;
  const size_t length = read_int32(input.data() + at + 1);
  if (length < 4) die("the server sent a message with an impossible length");
  if (input.size() - at < length + 1) return false;
  type = input[at];
  body.assign(input, at + 5, length - 4);
  at += length + 1;
  return true;
}

// ---- addresses

// An IPv4 address and a port, or the Unix socket of that number in a directory.
struct Address {
  union {
    sockaddr any;
    sockaddr_in inet;
    sockaddr_un local;
  };
  socklen_t length = 0;
  bool is_local = false;

  Address() : local() {}
};

inline Address address_of(const std::string &host, int port) {
  Address address;
  address.is_local = !host.empty() && host[0] == '/';
  if (address.is_local) {
    const std::string path = host + "/.s.PGSQL." + std::to_string(port);
    if (path.size() >= sizeof(address.local.sun_path)) die("the socket directory's name is too long");
    address.local.sun_family = AF_UNIX;
    memcpy(address.local.sun_path, path.c_str(), path.size() + 1);
    address.length = sizeof(address.local);
  } else {
    address.inet = sockaddr_in{};
    address.inet.sin_family = AF_INET;
    address.inet.sin_port = htons(static_cast<uint16_t>(port));
    if (inet_pton(AF_INET, host.c_str(), &address.inet.sin_addr) != 1) die("not an IPv4 address: " + host);
    address.length = sizeof(address.inet);
  }
  return address;
}

// A socket that does not block, for that address.
inline int new_socket(const Address &address) {
  const int fd = socket(address.is_local ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) die_errno("could not create a socket");
  const int on = 1;
  if (!address.is_local) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  return fd;
}

// Closes without a word: a TCP peer gets a reset, and no port of ours waits for the connection to be forgotten.
inline void reset(int fd) {
  const linger at_once = {1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  close(fd);
}

// ---- the rest

inline void raise_descriptor_limit(size_t wanted) {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) die_errno("could not read the limit of open files");
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) die_errno("could not raise the limit of open files");
  if (limit.rlim_max < wanted + 32) die("the limit of open files is too low: " + std::to_string(limit.rlim_max));
}

// The value below which a share of them lies; sorts them.
inline int64_t percentile(std::vector<int64_t> &values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1) + 0.5)];
}

// --name value ... after the program's name; exits with the text of USAGE if something is wrong.
class Options {
 public:
  Options(int argc, char **argv, const char *usage) : usage_(usage) {
    for (int i = 1; i < argc; i += 2) {
      if (strncmp(argv[i], "--", 2) != 0 || i + 1 == argc) complain();
      given_.emplace_back(argv[i] + 2, argv[i + 1]);
    }
  }

  std::string text(const std::string &name, const std::string &otherwise) {
    for (auto &option : given_)
      if (option.first == name) {
        const std::string value = option.second;
        option.first.clear();
        return value;
      }
    return otherwise;
  }

  long number(const std::string &name, long otherwise) {
    const std::string value = text(name, std::to_string(otherwise));
    char *end;
    const long result = strtol(value.c_str(), &end, 10);
    if (value.empty() || *end != '\0' || result < 0) complain();
    return result;
  }

  // In seconds; 0.5 is half of one.
  int64_t microseconds(const std::string &name, const std::string &otherwise) {
    const std::string value = text(name, otherwise);
    char *end;
    const double result = strtod(value.c_str(), &end);
    if (value.empty() || *end != '\0' || !(result >= 0 && result < 1e9)) complain();
    return static_cast<int64_t>(result * 1e6);
  }

  // All must have been asked for by now.
  void finish() const {
    for (const auto &option : given_)
      if (!option.first.empty()) complain();
  }

  [[noreturn]] void complain() const {
    fprintf(stderr, "use: %s\n", usage_);
    exit(2);
  }

 private:
  const char *usage_;
  std::vector<std::pair<std::string, std::string>> given_;
};

}  // namespace wire
