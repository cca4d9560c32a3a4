// SPDX-License-Identifier: PostgreSQL
//
// The load generator: many connections in one thread, on one epoll set and one timer.
//
// Open loop: requests start at intended instants (arrivals.hpp).  Each is given to the connection that has been free
// for longest; if none is free it waits in a queue here.  Its time runs from the intended instant in either case, so
// a server that stalls is charged for every request that would have come meanwhile.
//
// Closed loop: each connection starts its next request when the last one is done, after a pause.  A stall then costs
// each connection one request.  The intended instant is when it starts.

#ifndef SLUICE_BENCH_LOAD_GENERATOR_HPP
#define SLUICE_BENCH_LOAD_GENERATOR_HPP

#include <libpq-fe.h>

#include <cstdint>
#include <cstdio>
#include <deque>
#include <map>
#include <queue>
#include <string>
#include <vector>

#include "arrivals.hpp"
#include "measurement.hpp"
#include "script.hpp"

namespace load {

struct Options {
  std::string conninfo;
  size_t connections = 50;
  bool closed = false;
  bool poisson = true;
  double rate = 0;
  std::vector<Burst> bursts;
  double think_ms = 0;  // closed loop: between two requests
  double warmup_s = 0;
  double seconds = 10;
  double drain_s = 30;
  uint64_t seed = 1;
  Variables variables;
  Script script;
  FILE *requests = nullptr;
  bool progress = false;
};

// What has been measured: only requests whose intended start lies in the measured time.
struct Result {
  Measurement latency{"latency"};      // intended start to the end of the last answer
  Measurement late{"late"};            // intended start to when the generator noticed: its own fault
  Measurement queued{"queued"};        // intended start to when a connection was free
  Measurement wait{"wait"};            // intended start to began_at
  Measurement admission{"admission"};  // given to a connection to began_at: the server's share of the wait
  Measurement service{"service"};      // began_at to the end of the last answer
  std::map<std::string, uint64_t> errors;
  uint64_t requests = 0;
  uint64_t succeeded = 0;
  uint64_t failed = 0;
  uint64_t unfinished = 0;
  uint64_t completed_in_time = 0;  // successes between the end of the warm-up and the end of arrivals
  uint64_t connections_lost = 0;
  uint64_t reconnects_failed = 0;
  uint64_t most_queued = 0;
};

class Generator {
 public:
  explicit Generator(const Options &options);
  ~Generator();
  Generator(const Generator &) = delete;
  Generator &operator=(const Generator &) = delete;

  void connect_all();
  // When it returns the connections are still open, until the generator is destroyed.
  void run();
  Result &result() { return result_; }

 private:
  struct Request {
    int64_t intended_ns = 0;
    int64_t noticed_ns = 0;
    int64_t dispatched_ns = 0;
    int64_t began_ns = -1;  // by the server's clock, in time since the start of the run; -1: not told
    std::string sqlstate;   // of the first error
  };
  enum class State { connecting, free, busy, pausing, lost };
  struct Connection {
    PGconn *link = nullptr;
    State state = State::lost;
    uint64_t life = 0;  // how often it has been lost: timers of an earlier life do not count
    size_t step = 0;
    bool rolling_back = false;
    Request request;
    Variables variables;
  };
  struct Timer {
    enum class Kind { arrival, start, resume, reconnect, progress, stop } kind;
    int64_t at_ns;
    size_t connection;
    uint64_t life;
    bool operator<(const Timer &other) const { return at_ns > other.at_ns; }
  };

  int64_t now_ns() const;
  void set_timer(Timer::Kind kind, int64_t at_ns, size_t connection = 0);
  void arm();
  void run_due_timers();
  void arrive(int64_t intended_ns);
  void report_progress();

  void watch(Connection &connection, uint32_t events);
  void start_connecting(size_t index);
  void continue_connecting(size_t index);
  void lose(size_t index);

  void become_free(size_t index);
  void dispatch(size_t index, const Request &request);
  void proceed(size_t index);
  void send(size_t index, const std::string &statement);
  void receive(size_t index);
  void take_result(Connection &connection, PGresult *answer);
  void complete(size_t index);
  void record(const Request &request, int64_t done_ns);
  void count_unfinished();
  bool in_measured_time(int64_t at_ns) const { return at_ns >= warm_ns_ && at_ns < end_ns_; }
  void handle_event(size_t index, uint32_t events);
  void wait_for_events();

  const Options &options_;
  Arrivals arrivals_;
  std::mt19937_64 dice_;
  Result result_;
  std::vector<Connection> connections_;
  std::deque<size_t> free_;
  std::deque<Request> queue_;
  std::priority_queue<Timer> timers_;
  int epoll_ = -1;
  int timer_fd_ = -1;
  int64_t armed_ns_ = 0;
  int64_t origin_ns_ = 0;  // CLOCK_MONOTONIC
  int64_t warm_ns_ = 0;
  int64_t end_ns_ = 0;
  bool running_ = false;
  bool arriving_ = false;
  bool stopped_ = false;
  size_t opening_ = 0;  // connections under way
  size_t working_ = 0;  // busy or pausing
  uint64_t succeeded_in_second_ = 0;
  int64_t slowest_in_second_us_ = 0;
};

}  // namespace load

#endif
