// SPDX-License-Identifier: PostgreSQL
//
// The application server of the payments scenario: many users at once in one thread, on one epoll set.
//
// Each user goes through the journey (payments_steps.hpp) without a pause, like a thread that always has a next
// request.  Each holds a connection of its own to the pooler from beginning to end.  Where a step needs a second
// connection, it is taken from the few the application keeps idle for that, or opened; and it goes back there
// afterwards, or is closed if enough of them are idle.
//
// A step that fails is rolled back, counted under its SQLSTATE, and the user begins the journey anew a moment later, on
// a new connection if the old one is lost.  When the time is over users finish the step they are in and leave.  Steps
// that are still not finished after the time to drain are given up, and count as errors.

#ifndef SLUICE_BENCH_LAB_PAYMENTS_SERVER_HPP
#define SLUICE_BENCH_LAB_PAYMENTS_SERVER_HPP

#include <cstdint>
#include <map>
#include <memory>
#include <queue>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "payments_link.hpp"
#include "payments_steps.hpp"
#include "payments_told.hpp"

namespace payments {

struct Settings {
  std::string conninfo;
  size_t users = 100;
  double seconds = 120;
  double drain_s = 30;
  uint64_t journeys = UINT64_MAX;  // a user leaves after so many, finished or not
  double external_from_ms = 50;
  double external_to_ms = 150;
  double think_ms = 0;      // mean of the pause between two steps
  size_t idle_extras = 10;  // second connections kept idle
  uint64_t seed = 1;
  bool progress = false;
};

// Microseconds, of what succeeded.
struct StepTimes {
  std::vector<uint32_t> elapsed;   // BEGIN is sent, until COMMIT is answered
  std::vector<uint32_t> database;  // the same without the external call
  std::vector<uint32_t> begin;     // BEGIN is sent, until it is answered: the wait for a backend
  uint64_t failed = 0;
  int64_t bytes = 0;
};

// What the users do at an instant.
struct UsersSample {
  double at_s;
  int external;            // somebody outside has been asked
  int waiting;             // for the answer to BEGIN, or to be connected
  int waiting_for_second;  // the same of a second connection
  int working;             // any other statement
  uint64_t steps;          // finished since the start
  uint64_t errors;
};

class ApplicationServer {
 public:
  // Beside the steps of the journey.
  static constexpr size_t kConnect = 0;  // every connection opened
  static constexpr size_t kSecond = 1;   // wanting a second connection, until its BEGIN is answered
  static constexpr size_t kFirstStep = 2;

  explicit ApplicationServer(const Settings &settings);
  ~ApplicationServer();
  ApplicationServer(const ApplicationServer &) = delete;
  ApplicationServer &operator=(const ApplicationServer &) = delete;

  void run();

  static std::vector<std::string> names();
  const std::vector<StepTimes> &times() const { return times_; }
  struct ErrorCount {
    uint64_t count = 0;
    std::string text;  // of the first
  };
  // By place in names() and SQLSTATE; "given up": not finished when the time was over.
  const std::map<std::pair<size_t, std::string>, ErrorCount> &errors() const { return errors_; }
  const Told &told() const { return told_; }
  const std::vector<UsersSample> &samples() const { return samples_; }
  double seconds() const { return static_cast<double>(ended_us_ - began_us_) / 1e6; }
  // Most second connections in use at once.
  size_t most_extras() const { return most_extras_; }

 private:
  enum class Phase { away, connecting, pausing, working, external, undoing };
  struct User {
    std::unique_ptr<Link> own;
    std::unique_ptr<Link> second;
    Phase phase = Phase::away;
    uint64_t pause = 0;  // number of the latest: earlier timers do not count
    std::mt19937_64 dice;
    std::string values[kValues];
    int64_t balance = 0;    // of the account, as the user knows it
    uint64_t journeys = 0;  // begun
    size_t step = 0;
    size_t action = 0;
    Operation operation;
    int64_t amount = 0;
    bool unsettled = false;         // COMMIT is under way
    bool second_unsettled = false;  // ... on the second connection
    int64_t step_began_us = 0;
    int64_t external_us = 0;
    int64_t begin_us = -1;
    int64_t mark_us = 0;  // when the external call or the wish for a second connection began
    int64_t connect_began_us = 0;
    int64_t second_began_us = 0;
    int64_t bytes = 0;
  };
  struct Timer {
    int64_t at_us;
    size_t user;
    uint64_t pause;
    bool operator<(const Timer &other) const { return at_us > other.at_us; }
  };

  double uniform(User &user, double from, double to);
  void pause(size_t index, Phase phase, int64_t for_us);
  void run_due_timers();
  void wait_for_events();
  void hear(Link *link, Link::News news);
  void forget_idle(Link *link);
  void take_sample(int64_t now_us);
  static bool waits_for_second(const User &user);
  void report_progress(int64_t now_us);

  void connect(size_t index);
  void connected(size_t index, bool second);
  void begin_journey(size_t index);
  void begin_step(size_t index);
  void act(size_t index);
  void send(size_t index, Link &link, const Action &action);
  void take_second(size_t index);
  void give_second(User &user);
  void answered(size_t index, bool second);
  bool accept_answer(User &user, const Action &action, const Answer &answer);
  void lost(size_t index, bool second);
  void proceed(size_t index);
  void fail(size_t index, const Error &error);
  void end_failed_step(size_t index);
  void complete(size_t index);
  void next(size_t index);
  void leave(size_t index);
  void give_up();
  void discard(std::unique_ptr<Link> &link);
  void count_error(size_t place, const Error &error);
  size_t place_of(const User &user) const { return kFirstStep + user.step; }

  const Settings settings_;
  int epoll_ = -1;
  std::vector<User> users_;
  std::vector<std::unique_ptr<Link>> idle_;       // second connections that nobody uses
  std::vector<std::unique_ptr<Link>> discarded_;  // until the events at hand are dealt with
  std::priority_queue<Timer> timers_;
  std::vector<StepTimes> times_;
  std::map<std::pair<size_t, std::string>, ErrorCount> errors_;
  Told told_;
  int64_t began_us_ = 0;
  int64_t ended_us_ = 0;
  int64_t counter_ = 0;
  size_t present_ = 0;
  size_t extras_in_use_ = 0;
  size_t most_extras_ = 0;
  bool closing_ = false;
  std::vector<UsersSample> samples_;
  int64_t sampled_us_ = 0;
  int64_t reported_us_ = 0;
  uint64_t reported_steps_ = 0;
  uint64_t steps_ = 0;
  uint64_t error_count_ = 0;
};

}  // namespace payments

#endif
