// SPDX-License-Identifier: PostgreSQL

#include "generator.hpp"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cinttypes>

#include "server_clock.hpp"

namespace load {

namespace {

constexpr size_t kOpeningAtOnce = 32;
constexpr int64_t kSecond = 1000000000;
constexpr int64_t kReconnectPause = kSecond / 10;
constexpr int64_t kOpeningLimit = 120 * kSecond;
constexpr uint64_t kTimerEvent = UINT64_MAX;
const char kConnectionLost[] = "08006";

int64_t clock_ns(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return now.tv_sec * kSecond + now.tv_nsec;
}

[[noreturn]] void die_errno(const char *what) { die(std::string(what) + ": " + strerror(errno)); }

void be_silent(void *, const PGresult *) {}

}  // namespace

Generator::Generator(const Options &options)
    : options_(options),
      arrivals_(options.poisson, options.rate, options.bursts, options.seed),
      dice_(options.seed + 1),
      connections_(options.connections) {
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  timer_fd_ = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  if (epoll_ < 0 || timer_fd_ < 0) die_errno("could not create the event loop");
  epoll_event event = {};
  event.events = EPOLLIN;
  event.data.u64 = kTimerEvent;
  if (epoll_ctl(epoll_, EPOLL_CTL_ADD, timer_fd_, &event) != 0) die_errno("could not watch the timer");
  origin_ns_ = clock_ns(CLOCK_MONOTONIC);
}

Generator::~Generator() {
  for (Connection &connection : connections_) PQfinish(connection.link);
  close(timer_fd_);
  close(epoll_);
}

// ---- timers

int64_t Generator::now_ns() const { return clock_ns(CLOCK_MONOTONIC) - origin_ns_; }

void Generator::set_timer(Timer::Kind kind, int64_t at_ns, size_t connection) {
  timers_.push({kind, at_ns, connection, connections_[connection].life});
}

void Generator::arm() {
  const int64_t at_ns = timers_.empty() ? 0 : std::max<int64_t>(timers_.top().at_ns, 0) + origin_ns_;
  if (at_ns == armed_ns_) return;
  itimerspec setting = {};
  setting.it_value.tv_sec = at_ns / kSecond;
  setting.it_value.tv_nsec = at_ns % kSecond;
  if (timerfd_settime(timer_fd_, TFD_TIMER_ABSTIME, &setting, nullptr) != 0) die_errno("could not set the timer");
  armed_ns_ = at_ns;
}

void Generator::run_due_timers() {
  const int64_t now = now_ns();
  while (!timers_.empty() && timers_.top().at_ns <= now) {
    const Timer timer = timers_.top();
    timers_.pop();
    const bool current = connections_[timer.connection].life == timer.life;
    Request request;
    switch (timer.kind) {
      case Timer::Kind::arrival:
        arrive(timer.at_ns);
        break;
      case Timer::Kind::start:
        request.intended_ns = timer.at_ns;
        request.noticed_ns = now;
        if (current && arriving_ && timer.at_ns < end_ns_) dispatch(timer.connection, request);
        break;
      case Timer::Kind::resume:
        if (current) proceed(timer.connection);
        break;
      case Timer::Kind::reconnect:
        if (current && !stopped_) start_connecting(timer.connection);
        break;
      case Timer::Kind::progress:
        report_progress();
        break;
      case Timer::Kind::stop:
        if (arriving_) {
          arriving_ = false;
          set_timer(Timer::Kind::stop, now + static_cast<int64_t>(options_.drain_s * 1e9));
        } else {
          stopped_ = true;
        }
        break;
    }
  }
}

void Generator::arrive(int64_t intended_ns) {
  const int64_t next_ns = arrivals_.next_ns();
  if (next_ns < end_ns_) set_timer(Timer::Kind::arrival, next_ns);
  Request request;
  request.intended_ns = intended_ns;
  request.noticed_ns = now_ns();
  if (free_.empty()) {
    queue_.push_back(request);
    result_.most_queued = std::max<uint64_t>(result_.most_queued, queue_.size());
    return;
  }
  const size_t index = free_.front();
  free_.pop_front();
  dispatch(index, request);
}

void Generator::report_progress() {
  const int64_t now = now_ns();
  fprintf(stderr, "%6.1f s: %" PRIu64 " succeeded, slowest %" PRId64 " us; %zu at work, %zu queued, %" PRIu64
          " failed\n",
          static_cast<double>(now) / 1e9, succeeded_in_second_, slowest_in_second_us_, working_, queue_.size(),
          result_.failed);
  succeeded_in_second_ = 0;
  slowest_in_second_us_ = 0;
  set_timer(Timer::Kind::progress, now + kSecond);
}

// ---- connections

void Generator::watch(Connection &connection, uint32_t events) {
  const int fd = PQsocket(connection.link);
  if (fd < 0) die("a connection has no socket");
  epoll_event event = {};
  event.events = events;
  event.data.u64 = static_cast<uint64_t>(&connection - connections_.data());
  // libpq may have closed its socket and opened another one, perhaps of the same number.
  if (epoll_ctl(epoll_, EPOLL_CTL_MOD, fd, &event) == 0) return;
  if (errno != ENOENT || epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) die_errno("could not watch a connection");
}

void Generator::start_connecting(size_t index) {
  Connection &connection = connections_[index];
  const char *keywords[] = {"dbname", "fallback_application_name", nullptr};
  const char *values[] = {options_.conninfo.c_str(), "open_loop", nullptr};
  connection.link = PQconnectStartParams(keywords, values, 1);
  if (connection.link == nullptr) die("out of memory");
  connection.state = State::connecting;
  opening_++;
  if (PQstatus(connection.link) == CONNECTION_BAD) return lose(index);
  PQsetNoticeReceiver(connection.link, be_silent, nullptr);
  watch(connection, EPOLLOUT);
}

void Generator::continue_connecting(size_t index) {
  Connection &connection = connections_[index];
  switch (PQconnectPoll(connection.link)) {
    case PGRES_POLLING_READING:
      return watch(connection, EPOLLIN);
    case PGRES_POLLING_WRITING:
      return watch(connection, EPOLLOUT);
    case PGRES_POLLING_OK:
      opening_--;
      PQsetnonblocking(connection.link, 1);
      watch(connection, EPOLLIN);
      return become_free(index);
    default:
      return lose(index);
  }
}

// The connection is gone: its request has failed, and another one is opened in a moment.
void Generator::lose(size_t index) {
  Connection &connection = connections_[index];
  if (!running_) die(PQerrorMessage(connection.link));
  const State state = connection.state;
  PQfinish(connection.link);
  connection.link = nullptr;
  connection.state = State::lost;
  connection.life++;
  if (state == State::connecting) {
    opening_--;
    result_.reconnects_failed++;
  } else {
    result_.connections_lost++;
  }
  if (state == State::free && !options_.closed) free_.erase(std::find(free_.begin(), free_.end(), index));
  if (state == State::busy || state == State::pausing) {
    working_--;
    if (connection.request.sqlstate.empty()) connection.request.sqlstate = kConnectionLost;
    record(connection.request, now_ns());
  }
  set_timer(Timer::Kind::reconnect, now_ns() + kReconnectPause, index);
}

void Generator::connect_all() {
  const int64_t limit_ns = now_ns() + kOpeningLimit;
  size_t next = 0;
  set_timer(Timer::Kind::stop, limit_ns);
  do {
    for (; next < connections_.size() && opening_ < kOpeningAtOnce; next++) start_connecting(next);
    wait_for_events();
    if (now_ns() >= limit_ns) die("the connections could not be opened in time");
  } while (next < connections_.size() || opening_ > 0);
  timers_ = {};
}

// ---- requests

void Generator::become_free(size_t index) {
  Connection &connection = connections_[index];
  connection.state = State::free;
  if (options_.closed) {
    const int64_t pause_ns = running_ ? static_cast<int64_t>(options_.think_ms * 1e6) : 0;
    if (running_) set_timer(Timer::Kind::start, now_ns() + pause_ns, index);
    return;
  }
  if (queue_.empty()) {
    free_.push_back(index);
    return;
  }
  const Request request = queue_.front();
  queue_.pop_front();
  dispatch(index, request);
}

void Generator::dispatch(size_t index, const Request &request) {
  Connection &connection = connections_[index];
  connection.request = request;
  connection.request.dispatched_ns = now_ns();
  connection.step = 0;
  connection.rolling_back = false;
  connection.state = State::busy;
  working_++;
  proceed(index);
}

// On to the next statement, or pause; or the request is done.
void Generator::proceed(size_t index) {
  Connection &connection = connections_[index];
  connection.state = State::busy;
  while (connection.step < options_.script.steps.size()) {
    const Step &step = options_.script.steps[connection.step++];
    switch (step.kind) {
      case Step::Kind::draw:
        if (connection.variables.empty()) connection.variables = options_.variables;
        draw(step, connection.variables, dice_);
        break;
      case Step::Kind::pause:
        connection.state = State::pausing;
        return set_timer(Timer::Kind::resume, now_ns() + step.pause_ns, index);
      case Step::Kind::statement:
        return send(index, substitute(step.text, connection.variables.empty() ? options_.variables
                                                                              : connection.variables));
    }
  }
  complete(index);
}

void Generator::send(size_t index, const std::string &statement) {
  Connection &connection = connections_[index];
  const int unsent = PQsendQuery(connection.link, statement.c_str()) == 1 ? PQflush(connection.link) : -1;
  // Unless the connection is broken: then what the server has left to say is read, and the loss noticed, there.
  if (unsent > 0) watch(connection, EPOLLIN | EPOLLOUT);
  if (unsent < 0 && PQstatus(connection.link) == CONNECTION_BAD) lose(index);
}

void Generator::take_result(Connection &connection, PGresult *answer) {
  Request &request = connection.request;
  const ExecStatusType status = PQresultStatus(answer);
  if (status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH) die("COPY is not supported");
  if (status == PGRES_FATAL_ERROR || status == PGRES_BAD_RESPONSE) {
    const char *sqlstate = PQresultErrorField(answer, PG_DIAG_SQLSTATE);
    if (request.sqlstate.empty()) request.sqlstate = sqlstate != nullptr ? sqlstate : kConnectionLost;
  }
  if (status != PGRES_TUPLES_OK || request.began_ns >= 0 || PQntuples(answer) < 1 || PQnfields(answer) < 1) return;
  if (strcmp(PQfname(answer, 0), "began_at") != 0) return;
  int64_t began_us;
  if (!parse_server_time(PQgetvalue(answer, 0, 0), &began_us))
    die(std::string("began_at is neither a timestamptz in ISO style nor a number of seconds: ") +
        PQgetvalue(answer, 0, 0));
  // The server tells CLOCK_REALTIME.  Both clocks are read now: an adjustment matters only if it falls in between.
  request.began_ns = now_ns() - (clock_ns(CLOCK_REALTIME) - began_us * 1000);
}

void Generator::receive(size_t index) {
  Connection &connection = connections_[index];
  const bool alive = PQconsumeInput(connection.link) == 1;
  if (connection.state != State::busy) {
    // Nothing was asked: notices and parameters, or the end.
    if (!alive || PQstatus(connection.link) == CONNECTION_BAD) lose(index);
    return;
  }
  while (connection.state == State::busy && PQisBusy(connection.link) == 0) {
    PGresult *answer = PQgetResult(connection.link);
    if (answer != nullptr) {
      take_result(connection, answer);
      PQclear(answer);
      continue;
    }
    if (PQstatus(connection.link) == CONNECTION_BAD) return lose(index);
    if (connection.request.sqlstate.empty()) return proceed(index);
    // After an error the rest is left out, and its transaction ended.
    if (PQtransactionStatus(connection.link) == PQTRANS_IDLE || connection.rolling_back) return complete(index);
    connection.rolling_back = true;
    return send(index, "ROLLBACK");
  }
  if (!alive) lose(index);
}

void Generator::complete(size_t index) {
  working_--;
  record(connections_[index].request, now_ns());
  become_free(index);
}

void Generator::record(const Request &request, int64_t done_ns) {
  const bool succeeded = request.sqlstate.empty();
  const int64_t latency_us = (done_ns - request.intended_ns) / 1000;
  if (succeeded && in_measured_time(done_ns)) result_.completed_in_time++;
  if (succeeded) succeeded_in_second_++;
  slowest_in_second_us_ = std::max(slowest_in_second_us_, latency_us);
  if (!in_measured_time(request.intended_ns)) return;
  result_.requests++;
  result_.late.record((request.noticed_ns - request.intended_ns) / 1000);
  result_.queued.record((request.dispatched_ns - request.intended_ns) / 1000);
  const bool told = request.began_ns >= 0;
  const int64_t wait_us = told ? std::max<int64_t>(request.began_ns - request.intended_ns, 0) / 1000 : -1;
  if (options_.requests != nullptr)
    fprintf(options_.requests, "%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64 ",%s\n", request.intended_ns / 1000,
            (request.dispatched_ns - request.intended_ns) / 1000, wait_us, latency_us, request.sqlstate.c_str());
  if (!succeeded) {
    result_.failed++;
    result_.errors[request.sqlstate]++;
    return;
  }
  result_.succeeded++;
  result_.latency.record(latency_us);
  if (!told) return;
  result_.wait.record(wait_us);
  result_.admission.record((request.began_ns - request.dispatched_ns) / 1000);
  result_.service.record((done_ns - request.began_ns) / 1000);
}

// What is not done in the end has taken at least as long as until now.  Leaving it out would flatter the server.
void Generator::count_unfinished() {
  const int64_t now = now_ns();
  const auto count = [&](const Request &request) {
    if (!in_measured_time(request.intended_ns)) return;
    result_.requests++;
    result_.unfinished++;
    result_.latency.record((now - request.intended_ns) / 1000);
  };
  for (const Request &request : queue_) count(request);
  for (const Connection &connection : connections_)
    if (connection.state == State::busy || connection.state == State::pausing) count(connection.request);
}

// ---- the loop

void Generator::handle_event(size_t index, uint32_t events) {
  Connection &connection = connections_[index];
  if (connection.state == State::lost) return;  // of a socket that has been closed in this very round
  if (connection.state == State::connecting) return continue_connecting(index);
  if ((events & EPOLLOUT) != 0 && PQflush(connection.link) == 0) watch(connection, EPOLLIN);
  if ((events & ~static_cast<uint32_t>(EPOLLOUT)) != 0) receive(index);
}

void Generator::wait_for_events() {
  arm();
  epoll_event events[128];
  const int count = epoll_wait(epoll_, events, 128, -1);
  if (count < 0 && errno != EINTR) die_errno("could not wait for events");
  for (int i = 0; i < count; i++) {
    if (events[i].data.u64 != kTimerEvent) {
      handle_event(events[i].data.u64, events[i].events);
      continue;
    }
    uint64_t expirations;
    if (read(timer_fd_, &expirations, sizeof(expirations)) < 0 && errno != EAGAIN)
      die_errno("could not read the timer");
    armed_ns_ = 0;
  }
}

void Generator::run() {
  origin_ns_ = clock_ns(CLOCK_MONOTONIC);
  warm_ns_ = static_cast<int64_t>(options_.warmup_s * 1e9);
  end_ns_ = warm_ns_ + static_cast<int64_t>(options_.seconds * 1e9);
  running_ = true;
  arriving_ = true;
  set_timer(Timer::Kind::stop, end_ns_);
  if (options_.progress) set_timer(Timer::Kind::progress, kSecond);
  if (options_.closed) {
    for (size_t i = 0; i < connections_.size(); i++) set_timer(Timer::Kind::start, 0, i);
  } else {
    const int64_t first_ns = arrivals_.next_ns();
    if (first_ns < end_ns_) set_timer(Timer::Kind::arrival, first_ns);
  }
  for (;;) {
    run_due_timers();
    if (stopped_ || (!arriving_ && working_ == 0 && queue_.empty())) break;
    wait_for_events();
  }
  count_unfinished();
  for (Measurement *measurement :
       {&result_.latency, &result_.late, &result_.queued, &result_.wait, &result_.admission, &result_.service})
    measurement->finish();
}

}  // namespace load
