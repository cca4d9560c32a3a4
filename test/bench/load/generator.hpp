// SPDX-License-Identifier: PostgreSQL
//
// The load generator: many connections in one thread, on one epoll set.
//
// Open loop: requests start at intended instants (arrivals.hpp).  Each is given to the connection that has been free
// for longest; if none is free it waits in a queue here.  Its time runs from the intended instant in either case, so
// a server that stalls is charged for every request that would have come meanwhile.
//
// Closed loop: each connection starts its next request when the last one is done, after a pause if there is to be one.
// A stall then costs each connection one request.  The intended instant is when it starts.  Without pauses this needs
// no timer: the end of one request is the clock reading that begins the next.
//
// Churn (reconnect): a request begins with connect() and ends with a goodbye, in either loop.

#ifndef SLUICE_BENCH_LOAD_GENERATOR_HPP
#define SLUICE_BENCH_LOAD_GENERATOR_HPP

#include <sys/epoll.h>

#include <cstdint>
#include <cstdio>
#include <deque>
#include <map>
#include <queue>
#include <string>
#include <vector>

#include "arrivals.hpp"
#include "measurement.hpp"
#include "plan.hpp"
#include "stall_watch.hpp"
#include "wire.hpp"

namespace load {

struct Options {
  std::string conninfo;
  size_t connections = 50;
  size_t held_idle = 0;       // further ones, which never ask anything
  size_t opening_at_once = 32;
  bool closed = false;
  bool poisson = true;
  bool prepared = false;
  bool reconnect = false;
  bool begin_together = false;
  double rate = 0;
  std::vector<Burst> bursts;
  double think_ms = 0;  // closed loop: between two requests
  double warmup_s = 0;
  double seconds = 10;
  uint64_t operations = 0;  // 0: as many as there is time for
  double drain_s = 30;
  uint64_t seed = 1;
  Variables variables;
  std::vector<Script> scripts;
  FILE *requests = nullptr;
  FILE *samples = nullptr;
  bool progress = false;
  bool watch_stalls = false;
};

// What has been measured: only requests whose intended start lies in the measured time.
struct Result {
  Measurement latency{"latency"};      // intended start to the end of the last answer
  Measurement late{"late"};            // intended start to when the generator noticed: its own fault
  Measurement queued{"queued"};        // intended start to when a connection was free
  Measurement wait{"wait"};            // intended start to began_at
  Measurement admission{"admission"};  // given to a connection to began_at: the server's share of the wait
  Measurement service{"service"};      // began_at to the end of the last answer
  Measurement opening{"opening"};      // connect() to ReadyForQuery, before the load
  Measurement connect{"connect"};      // the same, of reconnecting requests
  std::vector<Measurement> of_plan;    // latency of each script of a mix
  std::map<std::string, uint64_t> errors;
  uint64_t requests = 0;
  uint64_t succeeded = 0;
  uint64_t failed = 0;
  uint64_t unfinished = 0;
  uint64_t completed_in_time = 0;  // successes between the end of the warm-up and the end of arrivals
  uint64_t connections_lost = 0;
  uint64_t reconnects_failed = 0;
  uint64_t most_queued = 0;
  uint64_t peak_concurrency = 0;  // most requests that had been given to a connection and were not done
  uint64_t bytes_received = 0;    // warm-up included
  uint64_t bytes_sent = 0;
  uint64_t finished = 0;          // all of them, warm-up included: what cpu_us was spent for
  double cpu_us = 0;              // processor time of the generator's thread, during the load
  Stalls stalls;           // of the machine, during the load
  double opening_s = 0;  // what it took to open all connections
  double seconds = 0;    // the measured time; with a number of operations: until the last answer

  std::vector<Measurement *> measurements();
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
    int64_t began_ns = -1;   // by the server's clock, in time since the start of the run; -1: not told
    char sqlstate[6] = "";   // of the first error
  };
  enum class State : uint8_t { closed, opening, free, busy, pausing, held };
  struct Connection {
    Wire wire;
    State state = State::closed;
    bool working = false;       // has a request
    bool rolling_back = false;
    bool answered = false;      // ReadyForQuery has come
    bool in_transaction = false;
    bool tells = false;         // the first column of the answer is began_at
    bool nonsense = false;      // what has come cannot be an answer
    uint32_t life = 0;          // how often it has been lost: timers of an earlier life do not count
    const Plan *plan = nullptr;
    const Statement *statement = nullptr;  // the one under way; null: ROLLBACK
    size_t step = 0;
    size_t copies_left = 0;     // chunks to be sent
    uint64_t operations_left = 0;
    int64_t opening_since_ns = 0;
    Request request;
    std::vector<int64_t> values;
    std::vector<uint8_t> parsed;  // of each text: kParsed, kTells
  };
  struct Timer {
    enum class Kind { arrival, start, resume, reopen, progress, sample, end, give_up } kind;
    int64_t at_ns;
    size_t connection;
    uint32_t life;
    bool operator<(const Timer &other) const { return at_ns > other.at_ns; }
  };
  struct Interval {
    uint64_t succeeded = 0;
    uint64_t failed = 0;
    int64_t slowest_us = 0;
  };

  int64_t now_ns() const;
  void set_timer(Timer::Kind kind, int64_t at_ns, size_t connection = 0);
  void run_due_timers();
  void run_timer(const Timer &timer, int64_t now);
  void arrive(int64_t intended_ns);
  void report_progress();
  void report_sample(int64_t at_ns);

  void start_opening(size_t index);
  void continue_opening(size_t index);
  void opened(size_t index);
  void lose(size_t index);

  void become_free(size_t index, int64_t now);
  void dispatch(size_t index, const Request &request);
  void proceed(size_t index);
  void send_statement(size_t index, const Statement &statement);
  void roll_back(size_t index);
  void receive(size_t index);
  void take_message(Connection &connection, char type, const char *body, size_t length);
  void take_first_row(Connection &connection, const char *body, size_t length);
  void continue_copy(size_t index);
  void take_answer(size_t index);
  void complete(size_t index);
  void record(const Connection &connection, int64_t done_ns);
  void write_request(const Request &request, int64_t wait_us, int64_t latency_us);
  void count_unfinished();
  bool in_measured_time(int64_t at_ns) const { return at_ns >= warm_ns_ && at_ns < end_ns_; }
  void handle_event(size_t index, uint32_t events);
  int wait(epoll_event *events, int size, int64_t limit_ns);
  void wait_for_events();
  void begin_clients();

  const Options &options_;
  const Plans plans_;
  Target target_;
  Arrivals arrivals_;
  std::mt19937_64 dice_;
  Result result_;
  std::vector<Connection> connections_;  // the held ones come last
  std::deque<size_t> free_;              // open loop: longest free first
  std::deque<Request> queue_;
  std::priority_queue<Timer> timers_;
  std::string scratch_;    // a message with variables
  int64_t origin_ns_ = 0;  // CLOCK_MONOTONIC
  int64_t warm_ns_ = 0;
  int64_t end_ns_ = 0;
  int64_t last_done_ns_ = 0;
  bool running_ = false;
  bool arriving_ = false;
  bool stopped_ = false;
  size_t opening_ = 0;  // connections under way
  size_t working_ = 0;  // busy or pausing
  uint64_t operations_left_ = 0;
  Interval second_, sample_;
};

}  // namespace load

#endif
