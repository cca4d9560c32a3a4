// SPDX-License-Identifier: PostgreSQL

#include "generator.hpp"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cinttypes>

#include "server_clock.hpp"

namespace load {

namespace {

constexpr int64_t kSecond = 1000000000;
constexpr int64_t kReopenPause = kSecond / 10;
constexpr int64_t kServerBusyPause = kSecond / 1000;
constexpr int64_t kSampleInterval = kSecond / 10;
constexpr int64_t kOpeningLimit = 120 * kSecond;
constexpr int kEventsAtOnce = 64;
constexpr uint8_t kParsed = 1;
constexpr uint8_t kTells = 2;
const char kConnectionLost[] = "08006";
const char kConnectionRefused[] = "08001";
const char kNonsense[] = "08P01";

int64_t clock_ns(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return now.tv_sec * kSecond + now.tv_nsec;
}

[[noreturn]] void die_errno(const char *what) { die(std::string(what) + ": " + strerror(errno)); }

void set_sqlstate(char (&sqlstate)[6], const std::string &value) {
  if (sqlstate[0] == '\0') snprintf(sqlstate, sizeof(sqlstate), "%s", value.c_str());
}

}  // namespace

std::vector<Measurement *> Result::measurements() {
  std::vector<Measurement *> all = {&latency, &wait, &admission, &service, &opening, &connect, &queued, &late};
  for (Measurement &measurement : of_plan) all.push_back(&measurement);
  return all;
}

Generator::Generator(const Options &options)
    : options_(options),
      plans_(compile(options.scripts, options.variables, options.prepared)),
      target_(parse_target(options.conninfo)),
      arrivals_(options.poisson, options.rate, options.bursts, options.seed),
      dice_(options.seed + 1),
      connections_(options.connections + options.held_idle) {
  target_.epoll = epoll_create1(EPOLL_CLOEXEC);
  if (target_.epoll < 0) die_errno("could not create the event loop");
  for (size_t i = 0; i < options.connections; i++) {
    connections_[i].values.resize(plans_.slots);
    connections_[i].values[0] = static_cast<int64_t>(i);
    connections_[i].parsed.resize(plans_.texts);
    const uint64_t share = options.operations / options.connections;
    const bool one_more = i < options.operations % options.connections;
    connections_[i].operations_left = options.operations == 0 ? UINT64_MAX : share + (one_more ? 1 : 0);
  }
  operations_left_ = options.operations == 0 ? UINT64_MAX : options.operations;
  if (plans_.plans.size() > 1)
    for (const Plan &plan : plans_.plans) result_.of_plan.emplace_back("latency." + plan.name);
  origin_ns_ = clock_ns(CLOCK_MONOTONIC);
}

Generator::~Generator() {
  for (Connection &connection : connections_) connection.wire.leave(target_);
  close(target_.epoll);
  if (target_.tls != nullptr) SSL_CTX_free(target_.tls);
}

// ---- timers

int64_t Generator::now_ns() const { return clock_ns(CLOCK_MONOTONIC) - origin_ns_; }

void Generator::set_timer(Timer::Kind kind, int64_t at_ns, size_t connection) {
  timers_.push({kind, at_ns, connection, connections_.empty() ? 0 : connections_[connection].life});
}

void Generator::run_due_timers() {
  const int64_t now = now_ns();
  while (!timers_.empty() && timers_.top().at_ns <= now) {
    const Timer timer = timers_.top();
    timers_.pop();
    run_timer(timer, now);
  }
}

void Generator::run_timer(const Timer &timer, int64_t now) {
  const bool current = connections_.empty() || connections_[timer.connection].life == timer.life;
  Request request;
  switch (timer.kind) {
    case Timer::Kind::arrival:
      return arrive(timer.at_ns);
    case Timer::Kind::start:
      request.intended_ns = timer.at_ns;
      request.noticed_ns = now;
      if (current && arriving_ && timer.at_ns < end_ns_) dispatch(timer.connection, request);
      return;
    case Timer::Kind::resume:
      if (current) proceed(timer.connection);
      return;
    case Timer::Kind::reopen:
      if (!current || stopped_) return;
      if (options_.reconnect && !connections_[timer.connection].working) return become_free(timer.connection, now);
      return start_opening(timer.connection);
    case Timer::Kind::progress:
      return report_progress();
    case Timer::Kind::sample:
      return report_sample(timer.at_ns);
    case Timer::Kind::end:
      arriving_ = false;
      return set_timer(Timer::Kind::give_up, now + static_cast<int64_t>(options_.drain_s * 1e9));
    case Timer::Kind::give_up:
      stopped_ = true;
      return;
  }
}

void Generator::arrive(int64_t intended_ns) {
  if (!arriving_) return;
  if (--operations_left_ == 0) arriving_ = false;
  const int64_t next_ns = arrivals_.next_ns();
  if (arriving_ && next_ns < end_ns_) set_timer(Timer::Kind::arrival, next_ns);
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
          static_cast<double>(now) / 1e9, second_.succeeded, second_.slowest_us, working_, queue_.size(),
          result_.failed);
  second_ = Interval();
  set_timer(Timer::Kind::progress, now + kSecond);
}

void Generator::report_sample(int64_t at_ns) {
  fprintf(options_.samples, "%" PRId64 ",%" PRIu64 ",%" PRIu64 ",%zu,%" PRId64 "\n", at_ns / 1000000,
          sample_.succeeded, sample_.failed, working_, sample_.slowest_us);
  fflush(options_.samples);
  sample_ = Interval();
  set_timer(Timer::Kind::sample, at_ns + kSampleInterval);
}

// ---- connections

void Generator::start_opening(size_t index) {
  Connection &connection = connections_[index];
  if (connection.state != State::opening) {
    opening_++;
    connection.opening_since_ns = now_ns();
    connection.state = State::opening;
    std::fill(connection.parsed.begin(), connection.parsed.end(), 0);
  }
  const Wire::Progress progress = connection.wire.open(target_, index, index);
  if (progress == Wire::Progress::failed) lose(index);
  if (progress == Wire::Progress::again) set_timer(Timer::Kind::reopen, now_ns() + kServerBusyPause, index);
}

void Generator::continue_opening(size_t index) {
  if (connections_[index].wire.is_closed()) return;  // it is to be tried again in a moment
  const Wire::Progress progress = connections_[index].wire.continue_opening(target_);
  if (progress == Wire::Progress::failed) lose(index);
  if (progress == Wire::Progress::done) opened(index);
}

void Generator::opened(size_t index) {
  Connection &connection = connections_[index];
  const int64_t now = now_ns();
  const int64_t took_us = (now - connection.opening_since_ns) / 1000;
  opening_--;
  if (!running_) result_.opening.record(took_us);
  else if (options_.reconnect && in_measured_time(connection.request.intended_ns)) result_.connect.record(took_us);
  if (connection.working) return proceed(index);
  if (index >= options_.connections) connection.state = State::held;
  else become_free(index, now);
}

// The connection is gone: its request has failed, and another one is opened in a moment.
void Generator::lose(size_t index) {
  Connection &connection = connections_[index];
  if (!running_) die(connection.wire.failure());
  const State state = connection.state;
  const std::string sqlstate = connection.nonsense ? kNonsense : connection.wire.failure_sqlstate();
  connection.wire.drop();
  connection.state = State::closed;
  connection.life++;
  connection.nonsense = false;
  if (state == State::opening) {
    opening_--;
    result_.reconnects_failed++;
  } else {
    result_.connections_lost++;
  }
  if (state == State::held) return;
  if (state == State::free && !options_.closed) free_.erase(std::find(free_.begin(), free_.end(), index));
  if (connection.working) {
    working_--;
    connection.working = false;
    set_sqlstate(connection.request.sqlstate,
                 !sqlstate.empty() ? sqlstate : state == State::opening ? kConnectionRefused : kConnectionLost);
    record(connection, now_ns());
  }
  set_timer(Timer::Kind::reopen, now_ns() + kReopenPause, index);
}

void Generator::connect_all() {
  // Those that stay idle come first; those of a reconnecting load come and go later.
  std::vector<size_t> wanted;
  for (size_t i = options_.connections; i < connections_.size(); i++) wanted.push_back(i);
  for (size_t i = 0; i < options_.connections && !options_.reconnect; i++) wanted.push_back(i);
  const int64_t begin_ns = now_ns();
  const int64_t limit_ns = begin_ns + kOpeningLimit + static_cast<int64_t>(wanted.size()) * kSecond / 1000;
  int64_t told_ns = begin_ns;
  set_timer(Timer::Kind::give_up, limit_ns);
  for (size_t next = 0; next < wanted.size() || opening_ > 0;) {
    for (; next < wanted.size() && opening_ < options_.opening_at_once; next++) start_opening(wanted[next]);
    if (opening_ > 0) wait_for_events();
    run_due_timers();
    if (stopped_) die("the connections could not be opened in time");
    if (!options_.progress || now_ns() - told_ns < kSecond) continue;
    told_ns = now_ns();
    fprintf(stderr, "%6.1f s: %zu of %zu connections are open\n", static_cast<double>(told_ns - begin_ns) / 1e9,
            next - opening_, wanted.size());
  }
  timers_ = {};
  result_.opening_s = static_cast<double>(now_ns() - begin_ns) / 1e9;
  if (options_.reconnect && !options_.closed)
    for (size_t i = 0; i < options_.connections; i++) free_.push_back(i);
}

// ---- requests

void Generator::become_free(size_t index, int64_t now) {
  Connection &connection = connections_[index];
  connection.state = State::free;
  Request request;
  if (!options_.closed) {
    if (queue_.empty()) return free_.push_back(index);
    request = queue_.front();
    queue_.pop_front();
    return dispatch(index, request);
  }
  if (!running_ || !arriving_ || connection.operations_left == 0) return;
  if (options_.think_ms > 0)
    return set_timer(Timer::Kind::start, now + static_cast<int64_t>(options_.think_ms * 1e6), index);
  if (now >= end_ns_) return;
  request.intended_ns = request.noticed_ns = now;
  dispatch(index, request);
}

void Generator::dispatch(size_t index, const Request &request) {
  Connection &connection = connections_[index];
  connection.request = request;
  // A closed loop without pauses has just read the clock.
  const bool fresh = options_.closed && request.intended_ns == request.noticed_ns;
  connection.request.dispatched_ns = fresh ? request.noticed_ns : now_ns();
  connection.plan = &plans_.choose(dice_);
  connection.step = 0;
  connection.rolling_back = false;
  connection.working = true;
  result_.peak_concurrency = std::max<uint64_t>(result_.peak_concurrency, ++working_);
  if (options_.closed) {
    connection.operations_left--;
    if (--operations_left_ == 0) arriving_ = false;
  }
  if (options_.reconnect) return start_opening(index);
  proceed(index);
}

// On to the next statement, or pause; or the request is done.
void Generator::proceed(size_t index) {
  Connection &connection = connections_[index];
  connection.state = State::busy;
  while (connection.step < connection.plan->actions.size()) {
    const Action &action = connection.plan->actions[connection.step++];
    switch (action.kind) {
      case Step::Kind::draw:
        draw(action.draw, connection.values.data(), dice_);
        break;
      case Step::Kind::pause:
        connection.state = State::pausing;
        return set_timer(Timer::Kind::resume, now_ns() + action.pause_ns, index);
      default:
        return send_statement(index, action.statement);
    }
  }
  complete(index);
}

void Generator::send_statement(size_t index, const Statement &statement) {
  Connection &connection = connections_[index];
  connection.statement = &statement;
  const uint8_t known = statement.prepared ? connection.parsed[statement.number] : kParsed;
  const bool parse = (known & kParsed) == 0;
  connection.tells = (known & kTells) != 0;
  bool sent;
  if (statement.operands.empty() && !parse) {
    sent = connection.wire.send(target_, statement.pieces[0]);
  } else {
    scratch_.clear();
    append_statement(scratch_, statement, connection.values.data(), parse);
    sent = connection.wire.send(target_, scratch_);
  }
  // What the server had left to say, its reason perhaps, is read before the loss is noticed there.
  if (!sent) receive(index);
}

void Generator::roll_back(size_t index) {
  static const std::string message = query_message("ROLLBACK");
  Connection &connection = connections_[index];
  connection.rolling_back = true;
  connection.statement = nullptr;
  if (!connection.wire.send(target_, message)) lose(index);
}

void Generator::take_first_row(Connection &connection, const char *body, size_t length) {
  const std::string value = first_value(body, length);
  int64_t began_us;
  if (!parse_server_time(value.c_str(), &began_us))
    die("began_at is neither a timestamptz in ISO style nor a number of seconds: " + value);
  // The server tells CLOCK_REALTIME.  Both clocks are read now: an adjustment matters only if it falls in between.
  connection.request.began_ns = now_ns() - (clock_ns(CLOCK_REALTIME) - began_us * 1000);
}

void Generator::take_message(Connection &connection, char type, const char *body, size_t length) {
  if (type == 'S' || type == 'N' || type == 'A' || type == 'K') return;  // may come at any time
  if (type == 'E') {
    connection.copies_left = 0;
    // Unasked: the server is about to hang up.  That is the reason if a next request is lost, not one of the last.
    if (connection.state != State::busy || connection.answered)
      return connection.wire.expect_failure(error_field(body, length, 'M'), error_field(body, length, 'C'));
    set_sqlstate(connection.request.sqlstate, error_field(body, length, 'C'));
    return;
  }
  if (connection.state != State::busy || connection.answered) {
    connection.nonsense = true;
    return;
  }
  const Statement *statement = connection.statement;
  switch (type) {
    case '1':
      if (statement != nullptr && statement->prepared) connection.parsed[statement->number] |= kParsed;
      break;
    case 'T':
      connection.tells = first_column_is(body, length, "began_at");
      if (connection.tells && statement != nullptr && statement->prepared)
        connection.parsed[statement->number] |= kTells;
      break;
    case 'D':
      if (connection.tells && connection.request.began_ns < 0) take_first_row(connection, body, length);
      break;
    case 'G':
      if (statement == nullptr || !statement->copies_in) die("no \\copyin follows a COPY ... FROM STDIN");
      connection.copies_left = statement->copy_full + 1;
      break;
    case 'W':
      die("the server wants to replicate");
    case 'Z':
      connection.answered = true;
      connection.in_transaction = length > 0 && body[0] != 'I';
      break;
    default:
      break;
  }
}

void Generator::receive(size_t index) {
  Connection &connection = connections_[index];
  const Wire::Progress progress =
      connection.wire.receive(target_, [&](char type, const char *body, size_t length) {
        take_message(connection, type, body, length);
      });
  if (progress == Wire::Progress::failed || connection.nonsense) return lose(index);
  if (connection.copies_left > 0) return continue_copy(index);
  if (!connection.answered) return;
  connection.answered = false;
  take_answer(index);
}

void Generator::continue_copy(size_t index) {
  Connection &connection = connections_[index];
  while (connection.copies_left > 0 && !connection.wire.has_unsent()) {
    connection.copies_left--;
    if (!connection.wire.send(target_, connection.statement->copy_chunks[connection.copies_left > 0 ? 0 : 1]))
      return lose(index);
  }
}

void Generator::take_answer(size_t index) {
  Connection &connection = connections_[index];
  if (connection.request.sqlstate[0] == '\0') return proceed(index);
  // After an error the rest is left out, and its transaction ended.
  if (!connection.in_transaction || connection.rolling_back) return complete(index);
  roll_back(index);
}

void Generator::complete(size_t index) {
  Connection &connection = connections_[index];
  const int64_t now = now_ns();
  working_--;
  connection.working = false;
  record(connection, now);
  if (options_.reconnect) connection.wire.leave(target_);
  become_free(index, now);
}

void Generator::write_request(const Request &request, int64_t wait_us, int64_t latency_us) {
  fprintf(options_.requests, "%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64 ",%s\n", request.intended_ns / 1000,
          (request.dispatched_ns - request.intended_ns) / 1000, wait_us, latency_us, request.sqlstate);
}

void Generator::record(const Connection &connection, int64_t done_ns) {
  const Request &request = connection.request;
  const bool succeeded = request.sqlstate[0] == '\0';
  const int64_t latency_us = (done_ns - request.intended_ns) / 1000;
  last_done_ns_ = done_ns;
  result_.finished++;
  for (Interval *interval : {&second_, &sample_}) {
    (succeeded ? interval->succeeded : interval->failed)++;
    interval->slowest_us = std::max(interval->slowest_us, latency_us);
  }
  if (succeeded && in_measured_time(done_ns)) result_.completed_in_time++;
  if (!in_measured_time(request.intended_ns)) return;
  result_.requests++;
  result_.late.record((request.noticed_ns - request.intended_ns) / 1000);
  result_.queued.record((request.dispatched_ns - request.intended_ns) / 1000);
  const bool told = request.began_ns >= 0;
  const int64_t wait_us = told ? std::max<int64_t>(request.began_ns - request.intended_ns, 0) / 1000 : -1;
  if (options_.requests != nullptr) write_request(request, wait_us, latency_us);
  if (!succeeded) {
    result_.failed++;
    result_.errors[request.sqlstate]++;
    return;
  }
  result_.succeeded++;
  result_.latency.record(latency_us);
  if (!result_.of_plan.empty())
    result_.of_plan[static_cast<size_t>(connection.plan - plans_.plans.data())].record(latency_us);
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
    if (connection.working) count(connection.request);
}

// ---- the loop

void Generator::handle_event(size_t index, uint32_t events) {
  Connection &connection = connections_[index];
  if (connection.state == State::opening) return continue_opening(index);
  if (connection.wire.is_closed()) return;
  if ((events & EPOLLOUT) != 0) {
    if (!connection.wire.flush(target_)) return receive(index);
    if (connection.copies_left > 0) continue_copy(index);
    if (connection.wire.is_closed()) return;
  }
  if ((events & ~static_cast<uint32_t>(EPOLLOUT)) != 0) receive(index);
}

// At most until limit_ns; a negative one has no end.
int Generator::wait(epoll_event *events, int size, int64_t limit_ns) {
  timespec limit = {};
  const int64_t left = limit_ns < 0 ? 0 : std::max<int64_t>(limit_ns - now_ns(), 0);
  limit.tv_sec = left / kSecond;
  limit.tv_nsec = left % kSecond;
  static bool lacking = false;
  if (!lacking) {
    const int count = epoll_pwait2(target_.epoll, events, size, limit_ns < 0 ? nullptr : &limit, nullptr);
    if (count >= 0 || errno != ENOSYS) return count;
    lacking = true;
  }
  pollfd set = {target_.epoll, POLLIN, 0};
  if (ppoll(&set, 1, limit_ns < 0 ? nullptr : &limit, nullptr) < 0) return -1;
  return epoll_wait(target_.epoll, events, size, 0);
}

void Generator::wait_for_events() {
  epoll_event events[kEventsAtOnce];
  const int count = wait(events, kEventsAtOnce, timers_.empty() ? -1 : timers_.top().at_ns);
  if (count < 0 && errno != EINTR) die_errno("could not wait for events");
  for (int i = 0; i < count; i++) handle_event(events[i].data.u64, events[i].events);
}

void Generator::begin_clients() {
  for (size_t i = 0; i < options_.connections; i++) {
    if (connections_[i].operations_left == 0) continue;
    Request request;
    request.noticed_ns = now_ns();
    if (!options_.begin_together) request.intended_ns = request.noticed_ns;
    dispatch(i, request);
  }
}

void Generator::run() {
  const uint64_t received = target_.bytes_received;
  const uint64_t sent = target_.bytes_sent;
  const int64_t cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
  StallWatch stall_watch;
  if (options_.watch_stalls) stall_watch.start();
  origin_ns_ = clock_ns(CLOCK_MONOTONIC);
  warm_ns_ = static_cast<int64_t>(options_.warmup_s * 1e9);
  end_ns_ = warm_ns_ + static_cast<int64_t>(options_.seconds * 1e9);
  running_ = true;
  arriving_ = true;
  set_timer(Timer::Kind::end, end_ns_);
  if (options_.progress) set_timer(Timer::Kind::progress, kSecond);
  if (options_.samples != nullptr) set_timer(Timer::Kind::sample, kSampleInterval);
  if (options_.closed) {
    begin_clients();
  } else if (options_.rate > 0) {
    const int64_t first_ns = arrivals_.next_ns();
    if (first_ns < end_ns_) set_timer(Timer::Kind::arrival, first_ns);
  }
  for (;;) {
    run_due_timers();
    if (stopped_ || (!arriving_ && working_ == 0 && queue_.empty())) break;
    wait_for_events();
  }
  result_.cpu_us = static_cast<double>(clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_ns) / 1e3;
  result_.stalls = stall_watch.stop();
  count_unfinished();
  const bool counted = options_.operations > 0 && last_done_ns_ > 0 && last_done_ns_ < end_ns_;
  result_.seconds = counted ? static_cast<double>(last_done_ns_) / 1e9 : options_.seconds;
  result_.bytes_received = target_.bytes_received - received;
  result_.bytes_sent = target_.bytes_sent - sent;
  for (Measurement *measurement : result_.measurements()) measurement->finish();
}

}  // namespace load
