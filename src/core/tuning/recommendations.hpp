// SPDX-License-Identifier: PostgreSQL
//
// What to change, judged from the pressure on each limited resource.
//
// Values in, values out: the caller collects the numbers, and writes the
// sentences and the SQL.  Nothing here changes anything, and where nothing needs
// to be changed there is no recommendation at all.  Gauges are snapshots: a
// recommendation that rests on one (clients in the queue at this instant) comes
// and goes with the load; those that rest on counters stay until the statistics
// are reset.

#ifndef SLUICE_CORE_TUNING_RECOMMENDATIONS_HPP
#define SLUICE_CORE_TUNING_RECOMMENDATIONS_HPP

#include <cstddef>
#include <cstdint>

#include "core/tuning/sizing.hpp"

namespace sluice {

enum class Advice {
  // for one pool
  shrink_pool,            // max_pool_size is far above what is advised, or costs throughput
  grow_pool,              // far below, or costs throughput, and clients wait
  calibrate,              // clients wait in a full pool, and nobody knows whether more backends would do more
  end_idle_transactions,  // clients wait for backends whose clients think
  one_backend_per_client, // session mode: clients had to wait for others to leave
  end_long_transactions,  // transactions held backends for longer than leak_threshold while clients waited
  release_pins,           // clients wait while pinned ones keep backends
  break_nested_acquire,   // clients waited for themselves
  look_at_holders,        // clients gave up waiting, and none of the others is why
  mend_starts,            // backends could not be started
  // for the server
  raise_max_backends,
  raise_max_clients,
  raise_descriptor_limit,
  lower_max_connections,
  track_timing,           // it is off: nothing is measured
  tell_spindles,
};

// Thresholds.  "Far" is a factor of two: the rule is a starting point, and a
// pool within that range of it deserves a measurement, not advice.
constexpr int kFarFactor = 2;
constexpr int kLeastExcess = 4;         // backends above the rule that are worth a word
constexpr double kThroughputWorthMention = 1.05;  // where it has been measured: times the present one
constexpr int kWaitsWorthMention = 20;  // one hand-over in twenty went through the queue
constexpr int kLongestIdleTransactionMs = 60000;
constexpr int kClientsFullPercent = 80;
constexpr int kFewConnections = 100;       // PostgreSQL's own default
constexpr int kFarTooManyConnections = 3;  // times what is needed
constexpr double kMissesWorthMention = 0.01;
constexpr int kGreatestMaxClients = 1000000;  // never recommended: more than these two
constexpr int kGreatestMaxBackends = 10000;

struct PoolPressure {
  bool session_mode = false;  // a client keeps its backend: the rule does not apply
  int configured = -1;  // max_pool_size; < 1: follows the rule
  int max_size = 0;     // in force
  int rule_size = 0;    // < 1: not known yet
  int advised = 0;      // < 1: nothing is advised (sizing.hpp)
  bool measured = false;          // the advice is from a knee or a calibration, not from the rule
  SizeBound bound = SizeBound::exact;
  double throughput_gain = 0;     // at the advised size, times that at max_size; 0: not known
  int clients = 0;
  int backends = 0;
  int thinking = 0;  // of these, client's turn inside a transaction
  int pinned = 0;    // of these, pinned client's turn outside one
  int queued = 0;
  int peak_backends = 0;
  std::uint64_t leases = 0;
  std::uint64_t waits = 0;
  std::uint64_t acquire_timeouts = 0;
  std::uint64_t start_failures = 0;
  std::uint64_t leaks = 0;
  std::uint64_t nested_acquires = 0;
  // False: what fills the pool at this moment (locks, processors that are all busy, clients that think) would fill more
  // backends as well; see core/stats/pool_diagnosis.
  bool more_would_help = true;
  int max_backends = 0;          // of the server
  int idle_transaction_timeout_ms = 0;  // idle_in_transaction_session_timeout; 0: none
};

struct ServerPressure {
  int max_backends = 0;
  int backends = 0;
  int thinking = 0;                    // all pools together
  int pinned = 0;                      // likewise
  int queued = 0;                      // likewise
  std::int64_t wanted_backends = 0;    // sum of sensible_size() of all pools
  int oversized_pools = 0;             // pools whose size in force is above that
  std::uint64_t acquire_timeouts = 0;  // all pools together
  int nested_minimum = 0;              // backends that would have been enough for clients that waited for themselves
  int nested_reserve = 0;              // sluice.nested_reserve
  int max_clients = 0;
  int clients = 0;
  std::int64_t descriptor_limit = -1;  // hard RLIMIT_NOFILE; < 0: none, or unknown
  std::int64_t descriptor_base = 0;
  int max_connections = 0;
  int direct_connections = -1;  // sessions that are not pooled, at their peak; < 0: unknown, or not to be judged
  std::uint64_t pooled_transactions = 0;
  bool machine_known = false;  // are the next two?
  int spindles = -1;           // < 0: unknown
  double miss_ratio = -1;      // < 0: unknown
  bool track_timing = true;
};

struct Recommendation {
  Advice advice;
  std::int64_t current;      // of what the advice is about; a count of events where it is about those
  std::int64_t recommended;  // < 0: no number
};

constexpr std::size_t kMaxRecommendations = 10;

struct Recommendations {
  Recommendation items[kMaxRecommendations];
  std::size_t count = 0;
};

// The size a pool would have if it took the advice to shrink; else the one in force.
int sensible_size(const PoolPressure &pool) noexcept;

Recommendations recommend_for_pool(const PoolPressure &pool) noexcept;
Recommendations recommend_for_server(const ServerPressure &server) noexcept;

}  // namespace sluice

#endif
