// SPDX-License-Identifier: PostgreSQL
//
// When a pool gets one more backend, and when a backend has to go.
//
// The rule is HikariCP's: a client waits for the pool, never for one particular
// backend to start.  Starting one takes many times as long as most transactions,
// so a burst of clients is nearly always over before the start is; one start at a
// time, decided anew each time, follows a lasting need closely and costs a burst
// one backend at most.
//
// The maximum speaks of backends that work.  One that rests -its client is
// thinking inside a transaction, or is pinned to it and has nothing to do- uses no
// processor, so it does not count against its pool's max_size, only against the
// server's max_backends.  Clients that are pinned for long therefore do not keep
// the others of their pool from being served, as long as the server has room.
//
// It is the mean of the last moments that has to be below the maximum, not a single
// look.  Clients that think for a moment between two statements come and go: sooner
// or later hardly anybody works at some instant, and a pool that grew at each of
// these would end with a backend for nearly every client, all of which then contend
// for processors and locks.  Measured with 500 clients on two processors: a TPC-B-like
// transaction cost a third more processor time with 100 backends than with 5.
//
// And where processors are short, a client that has been thinking for a moment only
// counts as one that works: its next statement may be there already, and wait for the
// backend's turn.  More backends would add to the queue in front of the processors.
//
// Whoever asks passes gauges that may be a moment old.  An answer is never wrong
// by more than one backend, and the next question puts it right.

#ifndef SLUICE_CORE_POOL_GROWTH_GOVERNOR_HPP
#define SLUICE_CORE_POOL_GROWTH_GOVERNOR_HPP

#include <cstdint>

namespace sluice {

// ---------------------------------------------------------------- growth

enum class GrowthReason {
  none = 0,  // nobody has asked
  // a start
  below_minimum,
  clients_wait,
  first_backend,
  nested_acquire,
  // no start
  enough_starting,
  pool_is_full,
  server_is_full,
  nobody_waits,
  starts_failing,
};

// One lower-case phrase, the same in log, view and test.
const char *describe(GrowthReason reason) noexcept;

// Starts under way that are enough for one pool.
constexpr int kEnoughStarting = 1;

struct PoolLoad {
  int waiting = 0;   // clients that are ready and have no backend
  int backends = 0;  // started or starting
  int starting = 0;  // of these, not ready yet
  int resting = 0;   // of these, client's turn inside a transaction, or pinned client's turn outside one
  int working_lately = 0;  // the mean of backends that do not rest; see WorkingMean
  int min_size = 0;
  int max_size = 0;  // resolved: never -1
  int clients = 0;   // authenticated clients of this pool
  std::int64_t now_us = 0;
  std::int64_t retry_after_us = 0;  // after a failed start: none before this time; 0 = the last one succeeded
  std::int64_t minimum_retry_after_us = 0;  // the same, if nobody waits; later after each failure
};

// The mean number of a pool's backends that did not rest, weighted by time, with
// older looks counting exponentially less.  After a pause it starts anew.  All zero
// is a valid one that has not looked yet.
constexpr std::int64_t kWorkingMeanUs = 200'000;
constexpr std::int64_t kWorkingPauseUs = 1'000'000;

struct WorkingMean {
  double mean;
  std::int64_t looked_us;  // monotonic; 0 = never

  // What is seen now; answers the mean, rounded.
  int look(int working, std::int64_t now_us) noexcept;
};

// Are processors short?  By how long some task has waited for one, all together, as the
// kernel counts it (pressure stall information, "some"): for more than half of the time
// since the last look.  Not before the second look, and not after a pause.  All zero is
// a valid one.
constexpr std::int64_t kShortageLookUs = 100'000;
constexpr std::int64_t kShortagePauseUs = 3'000'000;
constexpr std::int64_t kBriefThoughtUs = 10'000;  // that does not count as rest meanwhile

struct ProcessorShortage {
  std::int64_t looked_us;
  std::int64_t stalled_us;
  bool is_short;

  bool is_due(std::int64_t now_us) const noexcept { return now_us - looked_us >= kShortageLookUs; }
  void look(std::int64_t stalled_now_us, std::int64_t now_us) noexcept;
};

struct ServerLoad {
  int backends = 0;  // of all pools, started or starting
  int max_backends = 0;
  int reserve = 0;  // beyond both maxima; above 0 only while clients of the pool wait for themselves
};

struct GrowthDecision {
  bool start = false;
  bool make_room = false;  // ask another pool to give way; decide again when it has
  GrowthReason reason = GrowthReason::none;
};

// How long after the last of so many failed starts, one after the other, none is
// made: for clients that wait a second, so that they are soon told; for a minimum
// that nobody waits for twice as long each time, up to a minute.
constexpr std::int64_t kStartRetryUs = 1'000'000;
constexpr std::int64_t kLongestStartRetryUs = 60'000'000;
std::int64_t minimum_retry_us(int failed_starts) noexcept;

// To be asked before each single start.  A minimum alone never makes room: two
// pools could take the same backend from each other for ever.
GrowthDecision decide_growth(const PoolLoad &pool, const ServerLoad &server) noexcept;

// ---------------------------------------------------------------- retirement

// Also the value of BackendSlot::retire_requested.
enum class RetireReason : std::uint32_t {
  none = 0,
  idle,           // longer than idle_timeout
  lifetime,       // older than max_lifetime
  gave_way,       // another pool needed the room
  above_maximum,  // max_size has become smaller, or clients have come back to resting backends
  requested,      // through SQL
  changed_defaults,  // of its role or database, since it started
  reserve,        // was started beyond the maximum for clients that waited for themselves
  shutdown,
  database_wanted,  // by a statement that nobody else may use it during
  pool_released,  // its database or its role is gone, or another pool needed the slot
};

const char *describe(RetireReason reason) noexcept;

// How long a pool must have been above its maximum before a backend leaves for
// it.  Clients that think or are pinned make the pool grow and shrink with every
// statement; without a delay it would start a backend for each thought.
constexpr std::int64_t kAboveMaximumGraceUs = 1'000'000;

struct BackendAge {
  std::int64_t now_us = 0;
  std::int64_t idle_since_us = 0;  // 0 = not idle
  std::int64_t expires_us = 0;     // started plus lifetime_with_jitter_us(); 0 = never
};

struct BackendLoad {
  BackendAge age;
  RetireReason asked = RetireReason::none;  // by somebody else
  int backends = 0;                         // of the pool, started or starting, this one included
  int retiring = 0;                         // of these, told to leave already; this one not included
  int resting = 0;                          // as in PoolLoad; of those not told to leave
  bool pinned = false;                      // this one's client is pinned to it, whosever turn it is
  int clients = 0;                          // authenticated clients of the pool
  int min_size = 0;                         // kept only while the pool has clients
  int max_size = 0;
  std::int64_t idle_timeout_us = 0;         // 0 = never
  std::int64_t above_maximum_since_us = 0;  // the pool, without a break; 0 = it is not
  int beyond_server = 0;                    // backends that the server has above max_backends, while nobody needs them
};

// Whether this backend should leave, to be asked between two leases only, for
// one backend after the other, with `retiring` counted up in between.
// A backend whose client is pinned to it leaves with that client only: it is not
// asked to leave for the sake of the maximum, because the others can do so at once.
RetireReason decide_retirement(const BackendLoad &load) noexcept;

// True if the pool has more working backends than it may: what
// above_maximum_since_us is the time of.
bool is_above_maximum(int backends, int retiring, int resting, int max_size) noexcept;

// max_lifetime less 0 to 2.5 %, so that backends started together do not leave
// together; as HikariCP does it, with no jitter up to ten seconds.  `random`:
// evenly distributed over all its values.  0 (never) stays 0.
std::int64_t lifetime_with_jitter_us(std::int64_t max_lifetime_us, std::uint32_t random) noexcept;

}  // namespace sluice

#endif
