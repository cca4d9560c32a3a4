// SPDX-License-Identifier: PostgreSQL
//
// One connection of the application server: a statement at a time, never blocking.
//
// The event loop tells it when its socket is ready; it says when it has something to tell: that it is connected, that
// a statement has been answered, or that it is lost.  Statements are sent with parameters in the extended protocol,
// as drivers do.  The bytes of both directions are counted by the kernel (TCP_INFO; 0 for a Unix socket).

#ifndef SLUICE_BENCH_LAB_PAYMENTS_LINK_HPP
#define SLUICE_BENCH_LAB_PAYMENTS_LINK_HPP

#include <libpq-fe.h>

#include <cstdint>
#include <string>
#include <vector>

namespace payments {

struct Error {
  std::string sqlstate;
  std::string text;
};

struct Answer {
  bool failed = false;
  bool lost = false;   // the connection is
  bool fatal = false;  // FATAL or lost: whether a COMMIT has happened is not told by it
  Error error;
  std::vector<std::string> row;
  std::string tag;      // "COMMIT"
  std::string changed;  // rows, "" if the statement changes none
};

class Link {
 public:
  enum class State { connecting, free, busy, lost };
  enum class News { none, connected, answered, lost };

  Link(int epoll, const std::string &conninfo);
  ~Link();
  Link(const Link &) = delete;
  Link &operator=(const Link &) = delete;

  // The answer comes as news, which follow_up() also may have at once.
  void send(const char *sql, const std::vector<std::string> &parameters);
  News socket_is_ready();
  // What does not wait for the socket: a connection or a statement that failed at once.
  News follow_up();

  State state() const { return state_; }
  const Answer &answer() const { return answer_; }
  // Since the last time it was asked.
  int64_t take_bytes();

  int user = -1;  // whom it works for

 private:
  News go_on_connecting();
  News go_on_sending();
  News receive();
  News lose(bool while_connecting);
  void take_result(PGresult *result);
  void watch(bool to_write);
  static void take_notice(void *link, const PGresult *notice);

  int epoll_;
  PGconn *connection_;
  State state_ = State::connecting;
  Answer answer_;
  bool failed_at_once_ = false;
  int watched_socket_ = -1;
  uint32_t watched_events_ = 0;
  int64_t counted_bytes_ = 0;
};

}  // namespace payments

#endif
