// SPDX-License-Identifier: PostgreSQL

#include "payments_server.hpp"

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cinttypes>

#include "payments_common.hpp"

namespace payments {

namespace {

constexpr int64_t kSecondUs = 1000000;
constexpr int64_t kSampleUs = kSecondUs / 2;
constexpr int64_t kPauseAfterErrorUs = kSecondUs / 10;
constexpr int64_t kOperationsPerUser = 1000000000;

uint32_t bounded(int64_t us) {
  return static_cast<uint32_t>(std::clamp<int64_t>(us, 0, UINT32_MAX));
}

std::string &value_of(std::string *values, Value value) {
  return values[static_cast<size_t>(value)];
}

bool is_on_second(const Action &action) {
  return action.kind == Action::Kind::on_second || action.kind == Action::Kind::commit_second;
}

}  // namespace

ApplicationServer::ApplicationServer(const Settings &settings)
    : settings_(settings), users_(settings.users), times_(kFirstStep + journey().size()) {
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  if (epoll_ < 0) die("could not create the event loop");
  for (size_t index = 0; index < users_.size(); index++) {
    users_[index].dice.seed(settings_.seed * 1000003 + index);
    users_[index].operation.user = static_cast<int>(index) + 1;
  }
}

ApplicationServer::~ApplicationServer() {
  close(epoll_);
}

std::vector<std::string> ApplicationServer::names() {
  std::vector<std::string> names = {"connect", "second connection"};
  for (const Step &step : journey()) names.push_back(step.name);
  return names;
}

double ApplicationServer::uniform(User &user, double from, double to) {
  return from + (to - from) * static_cast<double>(user.dice() >> 11) * 0x1.0p-53;
}

void ApplicationServer::count_error(size_t place, const Error &error) {
  ErrorCount &entry = errors_[{place, error.sqlstate}];
  if (entry.count++ == 0) entry.text = error.text;
  error_count_++;
}

// ---- the loop

void ApplicationServer::run() {
  began_us_ = reported_us_ = sampled_us_ = clock_us();
  const int64_t end_us = began_us_ + static_cast<int64_t>(settings_.seconds * 1e6);
  const int64_t drained_us = end_us + static_cast<int64_t>(settings_.drain_s * 1e6);
  for (size_t index = 0; index < users_.size(); index++) connect(index);
  present_ = users_.size();
  while (present_ > 0) {
    wait_for_events();
    const int64_t now = clock_us();
    if (!closing_ && now >= end_us) closing_ = true;
    if (now >= drained_us) give_up();
    run_due_timers();
    discarded_.clear();
    if (now - sampled_us_ >= kSampleUs) take_sample(now);
    if (settings_.progress && now - reported_us_ >= kSecondUs) report_progress(now);
  }
  ended_us_ = clock_us();
  idle_.clear();
  for (StepTimes &times : times_)
    for (std::vector<uint32_t> *values : {&times.elapsed, &times.database, &times.begin})
      std::sort(values->begin(), values->end());
}

void ApplicationServer::pause(size_t index, Phase phase, int64_t for_us) {
  users_[index].phase = phase;
  timers_.push({clock_us() + for_us, index, ++users_[index].pause});
}

void ApplicationServer::wait_for_events() {
  epoll_event events[256];
  int64_t limit_us = kSecondUs / 10;
  if (!timers_.empty()) limit_us = std::clamp<int64_t>(timers_.top().at_us - clock_us(), 0, limit_us);
  const int count = epoll_wait(epoll_, events, 256, static_cast<int>((limit_us + 999) / 1000));
  for (int at = 0; at < count; at++) {
    Link *link = static_cast<Link *>(events[at].data.ptr);
    hear(link, link->socket_is_ready());
  }
}

void ApplicationServer::run_due_timers() {
  const int64_t now = clock_us();
  while (!timers_.empty() && timers_.top().at_us <= now) {
    const Timer timer = timers_.top();
    timers_.pop();
    User &user = users_[timer.user];
    if (user.pause != timer.pause) continue;
    if (user.phase == Phase::external) {
      user.external_us += clock_us() - user.mark_us;
      user.phase = Phase::working;
      proceed(timer.user);
    } else if (user.phase == Phase::pausing) {
      next(timer.user);
    }
  }
}

// A discarded link may still have an event at hand: it says "lost" to it, and nobody listens.
void ApplicationServer::hear(Link *link, Link::News news) {
  if (link->user < 0) {
    if (news == Link::News::lost) forget_idle(link);
    return;
  }
  const size_t index = static_cast<size_t>(link->user);
  const bool second = users_[index].second.get() == link;
  if (!second && users_[index].own.get() != link) return;
  switch (news) {
    case Link::News::connected:
      connected(index, second);
      break;
    case Link::News::answered:
      answered(index, second);
      break;
    case Link::News::lost:
      lost(index, second);
      break;
    case Link::News::none:
      break;
  }
}

void ApplicationServer::forget_idle(Link *link) {
  for (std::unique_ptr<Link> &idle : idle_) {
    if (idle.get() != link) continue;
    discarded_.push_back(std::move(idle));
    idle = std::move(idle_.back());
    idle_.pop_back();
    return;
  }
}

void ApplicationServer::take_sample(int64_t now_us) {
  UsersSample sample = {};
  sample.at_s = static_cast<double>(now_us - began_us_) / 1e6;
  for (const User &user : users_) {
    if (user.phase == Phase::external) sample.external++;
    if (user.phase == Phase::connecting) sample.waiting++;
    if (user.phase != Phase::working) continue;
    if (user.action == 0)
      sample.waiting++;
    else if (waits_for_second(user))
      sample.waiting_for_second++;
    else
      sample.working++;
  }
  sample.steps = steps_;
  sample.errors = error_count_;
  samples_.push_back(sample);
  sampled_us_ = now_us;
}

// The first action on the second connection is its BEGIN.
bool ApplicationServer::waits_for_second(const User &user) {
  const std::vector<Action> &actions = journey()[user.step].actions;
  return is_on_second(actions[user.action]) && !is_on_second(actions[user.action - 1]);
}

void ApplicationServer::report_progress(int64_t now_us) {
  if (samples_.empty()) return;
  const UsersSample &sample = samples_.back();
  fprintf(stderr,
          "  %4.0f s: %6.0f steps/s, %" PRIu64
          " errors; users: %d in external calls, %d wait for a connection, "
          "%d for a second one, %d work\n",
          sample.at_s, static_cast<double>(steps_ - reported_steps_) * 1e6 / static_cast<double>(now_us - reported_us_),
          error_count_, sample.external, sample.waiting, sample.waiting_for_second, sample.working);
  reported_us_ = now_us;
  reported_steps_ = steps_;
}

// ---- connections

void ApplicationServer::connect(size_t index) {
  User &user = users_[index];
  user.phase = Phase::connecting;
  user.connect_began_us = clock_us();
  user.own = std::make_unique<Link>(epoll_, settings_.conninfo);
  user.own->user = static_cast<int>(index);
  hear(user.own.get(), user.own->follow_up());
}

void ApplicationServer::connected(size_t index, bool second) {
  User &user = users_[index];
  Link &link = second ? *user.second : *user.own;
  times_[kConnect].elapsed.push_back(bounded(clock_us() - user.connect_began_us));
  times_[kConnect].bytes += link.take_bytes();
  if (second)
    act(index);
  else
    begin_journey(index);
}

void ApplicationServer::discard(std::unique_ptr<Link> &link) {
  if (link != nullptr) discarded_.push_back(std::move(link));
}

void ApplicationServer::take_second(size_t index) {
  User &user = users_[index];
  user.second_began_us = user.connect_began_us = clock_us();
  most_extras_ = std::max(most_extras_, ++extras_in_use_);
  const bool is_new = idle_.empty();
  if (is_new) {
    user.second = std::make_unique<Link>(epoll_, settings_.conninfo);
  } else {
    user.second = std::move(idle_.back());
    idle_.pop_back();
  }
  user.second->user = static_cast<int>(index);
  if (is_new)
    hear(user.second.get(), user.second->follow_up());
  else
    act(index);
}

void ApplicationServer::give_second(User &user) {
  user.bytes += user.second->take_bytes();
  extras_in_use_--;
  user.second->user = -1;
  if (idle_.size() < settings_.idle_extras)
    idle_.push_back(std::move(user.second));
  else
    discard(user.second);
}

void ApplicationServer::lost(size_t index, bool second) {
  User &user = users_[index];
  const Error error = second ? user.second->answer().error : user.own->answer().error;
  switch (user.phase) {
    case Phase::connecting:
    case Phase::pausing:
      count_error(kConnect, error);
      times_[kConnect].failed++;
      end_failed_step(index);
      break;
    case Phase::undoing:
      end_failed_step(index);
      break;
    case Phase::working:
    case Phase::external:
      fail(index, error);
      break;
    case Phase::away:
      break;
  }
}

// ---- steps

void ApplicationServer::begin_journey(size_t index) {
  User &user = users_[index];
  user.step = 0;
  user.balance = 0;
  value_of(user.values, Value::user) = std::to_string(user.operation.user);
  value_of(user.values, Value::merchant) = std::to_string(1 + user.dice() % kMerchants);
  if (closing_ || user.journeys++ >= settings_.journeys)
    leave(index);
  else
    begin_step(index);
}

void ApplicationServer::begin_step(size_t index) {
  User &user = users_[index];
  const Step &step = journey()[user.step];
  if (step.amount.highest >= step.amount.lowest) {
    const uint64_t choices = static_cast<uint64_t>(step.amount.highest - step.amount.lowest) + 1;
    user.amount = step.amount.lowest + static_cast<int64_t>(user.dice() % choices);
  }
  user.operation.number = user.operation.user * kOperationsPerUser + ++counter_ % kOperationsPerUser;
  user.operation.step = static_cast<int>(user.step);
  user.operation.amount = user.amount;
  value_of(user.values, Value::operation) = std::to_string(user.operation.number);
  value_of(user.values, Value::step) = std::to_string(user.step);
  value_of(user.values, Value::amount) = std::to_string(user.amount);
  user.phase = Phase::working;
  user.unsettled = user.second_unsettled = false;
  user.external_us = user.bytes = 0;
  user.begin_us = -1;
  user.action = 0;
  user.step_began_us = clock_us();
  act(index);
}

void ApplicationServer::act(size_t index) {
  User &user = users_[index];
  const Action &action = journey()[user.step].actions[user.action];
  if (action.kind == Action::Kind::external_call) {
    user.mark_us = clock_us();
    pause(index, Phase::external,
          static_cast<int64_t>(uniform(user, settings_.external_from_ms, settings_.external_to_ms) * 1e3));
  } else if (!is_on_second(action)) {
    user.unsettled = action.kind == Action::Kind::commit;
    send(index, *user.own, action);
  } else if (user.second == nullptr) {
    take_second(index);
  } else {
    user.second_unsettled = action.kind == Action::Kind::commit_second;
    send(index, *user.second, action);
  }
}

void ApplicationServer::send(size_t index, Link &link, const Action &action) {
  std::vector<std::string> parameters;
  for (const Value value : action.parameters) parameters.push_back(value_of(users_[index].values, value));
  link.send(action.sql, parameters);
  hear(&link, link.follow_up());
}

// False if the answer is not what it must be; a balance must be what the user knows.
bool ApplicationServer::accept_answer(User &user, const Action &action, const Answer &answer) {
  if (action.changes_one_row && answer.changed != "1") return false;
  if (!action.answers.empty() && answer.row.size() != action.answers.size()) return false;
  for (size_t column = 0; column < action.answers.size(); column++) {
    const Value value = action.answers[column];
    if (value == Value::balance && answer.row[column] != std::to_string(user.balance)) return false;
    if (value == Value::amount && answer.row[column] != std::to_string(user.amount)) return false;
    value_of(user.values, value) = answer.row[column];
  }
  return true;
}

void ApplicationServer::answered(size_t index, bool second) {
  User &user = users_[index];
  const Answer &answer = second ? user.second->answer() : user.own->answer();
  if (user.phase == Phase::undoing) {
    end_failed_step(index);
    return;
  }
  const Action &action = journey()[user.step].actions[user.action];
  if (answer.failed) {
    fail(index, answer.error);
  } else if ((user.unsettled || (second && user.second_unsettled)) && answer.tag != "COMMIT") {
    user.unsettled = user.second_unsettled = false;
    fail(index, {"40000", "COMMIT was answered by " + answer.tag});
  } else if (!accept_answer(user, action, answer)) {
    fail(index, {"wrong answer", std::string("other rows or values than were committed: ") + action.sql});
  } else {
    proceed(index);
  }
}

void ApplicationServer::proceed(size_t index) {
  User &user = users_[index];
  const std::vector<Action> &actions = journey()[user.step].actions;
  const Action &done = actions[user.action];
  if (user.action == 0) {
    user.begin_us = clock_us() - user.step_began_us;
  } else if (waits_for_second(user)) {
    const int64_t took_us = clock_us() - user.second_began_us;
    times_[kSecond].elapsed.push_back(bounded(took_us));
    times_[kSecond].database.push_back(bounded(took_us));
  } else if (done.kind == Action::Kind::commit_second) {
    Operation entry = user.operation;
    entry.step = kAudit;
    entry.amount = 0;
    told_.committed(entry);
    user.second_unsettled = false;
    give_second(user);
  }
  if (++user.action == actions.size())
    complete(index);
  else
    act(index);
}

void ApplicationServer::complete(size_t index) {
  User &user = users_[index];
  const int64_t elapsed_us = clock_us() - user.step_began_us;
  StepTimes &times = times_[place_of(user)];
  times.elapsed.push_back(bounded(elapsed_us));
  times.database.push_back(bounded(elapsed_us - user.external_us));
  times.begin.push_back(bounded(user.begin_us));
  times.bytes += user.bytes + user.own->take_bytes();
  told_.committed(user.operation);
  user.unsettled = false;
  user.balance += journey()[user.step].balance_sign * user.amount;
  steps_++;
  user.step++;
  if (settings_.think_ms > 0)
    pause(index, Phase::pausing, static_cast<int64_t>(uniform(user, 0, 2 * settings_.think_ms) * 1e3));
  else
    next(index);
}

// What a user does after a step or a pause.
void ApplicationServer::next(size_t index) {
  User &user = users_[index];
  if (closing_)
    leave(index);
  else if (user.own == nullptr)
    connect(index);
  else if (user.step == 0 || user.step == journey().size())
    begin_journey(index);
  else
    begin_step(index);
}

void ApplicationServer::fail(size_t index, const Error &error) {
  User &user = users_[index];
  StepTimes &times = times_[place_of(user)];
  count_error(place_of(user), error);
  times.failed++;
  times.bytes += user.bytes;
  if (user.unsettled && user.own->answer().fatal) told_.unsettled(user.operation);
  if (user.second != nullptr) {
    if (user.second_unsettled && (user.second->answer().fatal || user.second->state() == Link::State::busy)) {
      Operation entry = user.operation;
      entry.step = kAudit;
      entry.amount = 0;
      told_.unsettled(entry);
    }
    extras_in_use_--;
    discard(user.second);
  }
  if (user.own->state() == Link::State::free) {
    user.phase = Phase::undoing;
    user.own->send("ROLLBACK", {});
    hear(user.own.get(), user.own->follow_up());
  } else {
    end_failed_step(index);
  }
}

void ApplicationServer::end_failed_step(size_t index) {
  User &user = users_[index];
  if (user.own != nullptr && user.own->state() != Link::State::free) discard(user.own);
  user.step = 0;
  pause(index, Phase::pausing, kPauseAfterErrorUs);
}

void ApplicationServer::leave(size_t index) {
  User &user = users_[index];
  discard(user.own);
  user.phase = Phase::away;
  user.pause++;
  present_--;
}

void ApplicationServer::give_up() {
  for (size_t index = 0; index < users_.size(); index++) {
    User &user = users_[index];
    if (user.phase == Phase::away) continue;
    const bool connecting = user.phase == Phase::connecting;
    if (connecting || user.phase == Phase::working || user.phase == Phase::external) {
      const size_t place = connecting ? kConnect : place_of(user);
      count_error(place, {"given up", "not finished when the time was over"});
      times_[place].failed++;
      if (user.unsettled) told_.unsettled(user.operation);
      if (user.second_unsettled) {
        Operation entry = user.operation;
        entry.step = kAudit;
        entry.amount = 0;
        told_.unsettled(entry);
      }
    }
    discard(user.second);
    leave(index);
  }
}

}  // namespace payments
