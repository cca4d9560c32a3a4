// SPDX-License-Identifier: PostgreSQL

#include "payments_link.hpp"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cstddef>
#include <cstring>

#include "payments_common.hpp"

namespace payments {

namespace {

const char kCouldNotConnect[] = "08001";
const char kConnectionLost[] = "08006";

// "connection to server at ... failed: FATAL:  53300: too many clients": libpq has no other way to tell.
Error connection_error(const std::string &message, const char *otherwise) {
  Error error = {otherwise, without_line_ends(message)};
  for (const char *severity : {"FATAL:  ", "ERROR:  "}) {
    const size_t at = message.find(severity);
    if (at == std::string::npos || message.size() < at + 15 || message[at + 13] != ':') continue;
    error.sqlstate = message.substr(at + 8, 5);
    error.text = message.substr(at + 15, message.find('\n', at) - at - 15);
  }
  return error;
}

std::string field(const PGresult *result, int code) {
  const char *value = PQresultErrorField(result, code);
  return value == nullptr ? "" : value;
}

}  // namespace

Link::Link(int epoll, const std::string &conninfo) : epoll_(epoll), connection_(PQconnectStart(conninfo.c_str())) {
  if (connection_ == nullptr) die("out of memory");
  PQsetErrorVerbosity(connection_, PQERRORS_VERBOSE);
  PQsetNoticeReceiver(connection_, take_notice, this);
  if (PQstatus(connection_) == CONNECTION_BAD)
    failed_at_once_ = true;
  else
    watch(true);
}

// An error nobody has asked for: libpq shows it as a notice, and the connection ends.
void Link::take_notice(void *link, const PGresult *notice) {
  Link *self = static_cast<Link *>(link);
  if (field(notice, PG_DIAG_SEVERITY_NONLOCALIZED) == "FATAL")
    self->answer_.error = {field(notice, PG_DIAG_SQLSTATE), field(notice, PG_DIAG_MESSAGE_PRIMARY)};
}

Link::~Link() {
  PQfinish(connection_);
}

// While it connects, libpq may go from one socket to another, of the same number perhaps; the kernel forgets a socket
// when it is closed.
void Link::watch(bool to_write) {
  const int socket = PQsocket(connection_);
  const uint32_t events = to_write ? EPOLLIN | EPOLLOUT : EPOLLIN;
  if (socket < 0 || (state_ != State::connecting && socket == watched_socket_ && events == watched_events_)) return;
  epoll_event event = {};
  event.events = events;
  event.data.ptr = this;
  if (epoll_ctl(epoll_, EPOLL_CTL_MOD, socket, &event) != 0 && epoll_ctl(epoll_, EPOLL_CTL_ADD, socket, &event) != 0)
    die("could not watch a connection");
  watched_socket_ = socket;
  watched_events_ = events;
}

Link::News Link::lose(bool while_connecting) {
  answer_.failed = answer_.lost = answer_.fatal = true;
  if (answer_.error.sqlstate.empty())
    answer_.error =
        connection_error(PQerrorMessage(connection_), while_connecting ? kCouldNotConnect : kConnectionLost);
  state_ = State::lost;
  PQfinish(connection_);
  connection_ = nullptr;
  return News::lost;
}

Link::News Link::go_on_connecting() {
  switch (PQconnectPoll(connection_)) {
    case PGRES_POLLING_OK:
      PQsetnonblocking(connection_, 1);
      watch(false);
      state_ = State::free;
      return News::connected;
    case PGRES_POLLING_READING:
      watch(false);
      return News::none;
    case PGRES_POLLING_WRITING:
      watch(true);
      return News::none;
    default:
      return lose(true);
  }
}

void Link::send(const char *sql, const std::vector<std::string> &parameters) {
  answer_ = Answer();
  if (state_ != State::free) die("a statement for a connection that is not free");
  state_ = State::busy;
  std::vector<const char *> values;
  for (const std::string &parameter : parameters) values.push_back(parameter.c_str());
  failed_at_once_ = PQsendQueryParams(connection_, sql, static_cast<int>(values.size()), nullptr, values.data(),
                                      nullptr, nullptr, 0) == 0 ||
                    go_on_sending() == News::lost;
}

Link::News Link::go_on_sending() {
  const int unsent = PQflush(connection_);
  if (unsent < 0) return News::lost;
  watch(unsent > 0);
  return News::none;
}

Link::News Link::follow_up() {
  if (!failed_at_once_) return News::none;
  failed_at_once_ = false;
  return lose(state_ == State::connecting);
}

Link::News Link::socket_is_ready() {
  switch (state_) {
    case State::connecting:
      return go_on_connecting();
    case State::busy:
    case State::free:
      return receive();
    default:
      return News::none;
  }
}

Link::News Link::receive() {
  const bool readable = PQconsumeInput(connection_) != 0;
  while (PQisBusy(connection_) == 0) {
    PGresult *result = PQgetResult(connection_);
    if (result == nullptr) {
      if (!readable || PQstatus(connection_) == CONNECTION_BAD) return lose(false);
      if (state_ == State::free) return News::none;
      state_ = State::free;
      return News::answered;
    }
    take_result(result);
    PQclear(result);
  }
  if (!readable) return lose(false);
  if (watched_events_ != EPOLLIN && go_on_sending() == News::lost) return lose(false);
  return News::none;
}

void Link::take_result(PGresult *result) {
  const ExecStatusType status = PQresultStatus(result);
  if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) {
    if (answer_.failed) return;  // the first one says why
    answer_.failed = true;
    answer_.error = {field(result, PG_DIAG_SQLSTATE), field(result, PG_DIAG_MESSAGE_PRIMARY)};
    if (answer_.error.sqlstate.empty())
      answer_.error = {kConnectionLost, without_line_ends(PQresultErrorMessage(result))};
    const std::string severity = field(result, PG_DIAG_SEVERITY_NONLOCALIZED);
    answer_.fatal = severity != "ERROR";
    return;
  }
  answer_.tag = PQcmdStatus(result);
  answer_.changed = status == PGRES_COMMAND_OK || answer_.tag.compare(0, 6, "SELECT") != 0 ? PQcmdTuples(result) : "";
  if (PQntuples(result) != 1) return;
  for (int column = 0; column < PQnfields(result); column++) answer_.row.push_back(PQgetvalue(result, 0, column));
}

int64_t Link::take_bytes() {
  tcp_info info = {};
  socklen_t length = sizeof(info);
  const int socket = connection_ == nullptr ? -1 : PQsocket(connection_);
  if (socket < 0 || getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &length) != 0) return 0;
  if (length < offsetof(tcp_info, tcpi_bytes_sent) + sizeof(info.tcpi_bytes_sent)) return 0;
  const int64_t bytes = static_cast<int64_t>(info.tcpi_bytes_received + info.tcpi_bytes_sent);
  const int64_t since = bytes - counted_bytes_;
  counted_bytes_ = bytes;
  return since;
}

}  // namespace payments
