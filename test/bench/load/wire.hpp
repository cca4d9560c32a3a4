// SPDX-License-Identifier: PostgreSQL
//
// One client's connection to a server: a non-blocking socket that speaks the frontend/backend protocol 3.0, over TCP or
// a Unix socket, with TLS where it is asked for.
//
// A general library buffers, allocates and converts for its caller.  A load generator that shares a machine with what
// it measures cannot afford that: its own processor time dilutes every ratio.  So a request costs one send() of bytes
// that were built beforehand, and its answer one recv() into a buffer that all connections share; the socket is
// registered with epoll once (level-triggered), and again only while something could not be sent.  Only the rest of a
// cut message and what the kernel did not take are kept per connection, so idle ones are small.
//
// Servers must trust their client: one that asks for a password ends the program with a clear message.

#ifndef SLUICE_BENCH_LOAD_WIRE_HPP
#define SLUICE_BENCH_LOAD_WIRE_HPP

#include <openssl/ssl.h>
#include <sys/socket.h>

#include <cstdint>
#include <string>
#include <vector>

#include "messages.hpp"

namespace load {

// Where all connections lead, and what they share.
struct Target {
  sockaddr_storage address = {};
  socklen_t address_length = 0;
  std::string name;     // for messages
  std::string startup;  // StartupMessage
  bool local = false;   // a Unix socket
  bool loopback = false;  // 127.0.0.0/8: there are as many addresses to come from as one likes
  SSL_CTX *tls = nullptr;
  int epoll = -1;
  std::vector<char> buffer;
  uint64_t bytes_received = 0;  // as the protocol sees them, TLS not counted
  uint64_t bytes_sent = 0;
};

// "host= port= dbname= user= sslmode=", values in quotes where they need them; PGHOST, PGPORT, PGDATABASE, PGUSER and
// PGSSLMODE where they are missing.  Also application_name and options.  sslmode: disable, or require, which does not
// verify who the server is; allow and prefer are taken as disable.  Ends the program if it cannot be understood.
Target parse_target(const std::string &conninfo);

class Wire {
 public:
  enum class Progress {
    under_way,
    done,     // open() and continue_opening(): the server is ready; receive(): all there is has been taken
    again,    // open(): the server's queue is full or no port is free now, a moment later it may not be
    failed,   // see failure()
  };

  Wire() = default;
  Wire(const Wire &) = delete;
  Wire &operator=(const Wire &) = delete;
  ~Wire() { drop(); }

  // `tag` comes back with its epoll events.  `number` chooses the address to come from, where that matters.
  Progress open(Target &target, uint64_t tag, size_t number);
  // For each event until it is done.
  Progress continue_opening(Target &target);

  // False if the connection has failed.  What the kernel does not take goes later, by flush().
  bool send(Target &target, const char *bytes, size_t length);
  bool send(Target &target, const std::string &message) { return send(target, message.data(), message.size()); }
  // For an event EPOLLOUT.
  bool flush(Target &target);
  bool has_unsent() const { return !unsent_.empty(); }

  // Calls take(type, body, length) for the messages that have arrived, see MessageReader; it must not close this.
  template <typename Take>
  Progress receive(Target &target, Take &&take);

  // With a goodbye, or without; it may be opened again.
  void leave(Target &target);
  void drop();

  bool is_open() const { return phase_ == Phase::open; }
  bool is_closed() const { return phase_ == Phase::closed; }
  // Why it has failed, and the SQLSTATE if the server told one, or 08P01 if what it told made no sense.
  const std::string &failure() const { return failure_; }
  const std::string &failure_sqlstate() const { return failure_sqlstate_; }
  // The server has said why it is going to hang up.
  void expect_failure(const std::string &message, const std::string &sqlstate);

 private:
  static constexpr int kRounds = 16;
  enum class Phase : uint8_t { closed, connecting, asking_tls, shaking_hands, starting, open };

  Progress fail(const std::string &why, const char *sqlstate = "");
  Progress fail_errno(const char *what);
  bool watch(Target &target, bool output);
  bool be_source(Target &target, size_t number);
  Progress greet(Target &target);
  Progress finish_connecting(Target &target);
  Progress take_tls_answer(Target &target);
  Progress shake_hands(Target &target);
  Progress start(Target &target);
  ssize_t write_some(Target &target, const char *bytes, size_t length);
  // As recv(); 0: ended, -1: nothing there now, -2: failed.
  ssize_t read_some(Target &target);

  int fd_ = -1;
  Phase phase_ = Phase::closed;
  bool watching_output_ = false;
  uint64_t tag_ = 0;
  SSL *tls_ = nullptr;
  MessageReader reader_;
  std::string unsent_;
  std::string failure_;
  std::string failure_sqlstate_;
};

template <typename Take>
Wire::Progress Wire::receive(Target &target, Take &&take) {
  for (int round = 0;; round++) {
    const ssize_t got = read_some(target);
    if (got == -1) return Progress::done;
    if (got == -2) return Progress::failed;
    if (got == 0) return fail("the server closed a connection");
    target.bytes_received += static_cast<uint64_t>(got);
    if (!reader_.feed(target.buffer.data(), static_cast<size_t>(got), take))
      return fail("the server does not speak the protocol", "08P01");
    // A socket that had less than was asked for is empty.  TLS hands out one record at a time.
    if (tls_ == nullptr && static_cast<size_t>(got) < target.buffer.size()) return Progress::done;
    // Others want their turn; what is left in the socket, not within TLS, will be told again.
    if (round >= kRounds && (tls_ == nullptr || SSL_has_pending(tls_) == 0)) return Progress::done;
  }
}

}  // namespace load

#endif
