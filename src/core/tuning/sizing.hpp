// SPDX-License-Identifier: PostgreSQL
//
// How large a pool should be: each rule, and which of them is in force.
//
// The rule   size = cores * 2 + effective spindles
//   From the PostgreSQL wiki, "Number Of Database Connections": cores are
//   physical ones (hyper-threads do not count), and the effective number of
//   spindles is zero if the active data is fully cached and approaches the real
//   number as the hit rate falls.  HikariCP's page "About Pool Sizing" builds on
//   it.  It speaks of connections that are *active*: a backend whose client is
//   thinking inside a transaction does not count against the pool's size.  Here
//   the spindles are scaled by the miss ratio of the buffer cache; as a block
//   that the operating system has cached counts as a miss too, that is rather
//   too much than too little.  What is unknown (spindles, or the miss ratio)
//   counts as zero: nobody gets a larger pool for a number that was guessed.
//
// The deadlock minimum   Tn * (Cm - 1) + 1
//   From "About Pool Sizing": if each of Tn threads may hold Cm connections at
//   once, a smaller pool can end with every thread holding Cm - 1 and waiting
//   for one more.

#ifndef SLUICE_CORE_TUNING_SIZING_HPP
#define SLUICE_CORE_TUNING_SIZING_HPP

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/tuning/scalability.hpp"

namespace sluice {

// Which of the numbers about processors decided.
enum class CoresLimit {
  configured,      // sluice.cores
  quota,           // the control group allows less than there is
  physical_cores,  // inside the affinity mask
  logical_cpus,    // the topology is unknown: each CPU taken for a core
  unknown,         // nothing could be read: one core assumed
};

std::string_view cores_limit_phrase(CoresLimit limit) noexcept;

struct CoresFound {
  double configured = -1;   // sluice.cores; <= 0: detect
  int logical_cpus = 0;     // <= 0: unknown
  int physical_cores = 0;   // <= 0: unknown
  double quota_cores = -1;  // < 0: none
};

struct CoresDecision {
  double cores;  // > 0
  CoresLimit limit;
};

CoresDecision decide_cores(const CoresFound &found) noexcept;

// spindles < 0: unknown; miss_ratio < 0: unknown, else 0..1.
double effective_spindles(int spindles, double miss_ratio) noexcept;

constexpr int kGreatestRuleSize = 10000;

// cores * 2 + spindles, rounded to the nearest, 1..kGreatestRuleSize.
int rule_size(double cores, double effective_spindles) noexcept;

// Tn * (Cm - 1) + 1: the smallest pool in which `threads` of an application that
// hold up to `connections_per_thread` connections at once cannot deadlock on the
// pool.  At least 1; 1 if there are no threads or they take one connection each.
std::int64_t deadlock_minimum(std::int64_t threads, std::int64_t connections_per_thread) noexcept;

// The miss ratio of the buffer cache, recent accesses weighing more: from
// counters that only grow, looked at once in a while.  A look weighs half as
// much as it did kHalfLife looks ago.  If the counters fall (statistics were
// reset) they are taken as a new beginning.
class MissRatio {
 public:
  static constexpr int kHalfLife = 60;            // looks
  static constexpr double kEnoughFetches = 1000;  // below that, the ratio since the statistics were reset

  void look(std::int64_t fetched, std::int64_t hit) noexcept;
  double ratio() const noexcept;  // < 0: nothing has been fetched yet

 private:
  bool looked_ = false;
  std::int64_t last_fetched_ = 0;
  std::int64_t last_hit_ = 0;
  double fetched_ = 0;  // decayed sums
  double missed_ = 0;
};

// The rules for one pool side by side, or for a pool that does not exist yet.
enum class SizingRule {
  cores_and_spindles = 0,
  measured_knee,  // of the load the pool has had (scalability.hpp)
  calibrated,     // of a script of the user's (calibration.hpp)
  configured,
  max_backends,
  deadlock_minimum,
};
constexpr std::size_t kSizingRules = 6;

std::string_view sizing_rule_phrase(SizingRule rule) noexcept;

struct SizingQuestion {
  int rule_size = 0;    // < 1: not known yet
  int configured = -1;  // sluice.max_pool_size; < 1: follow the rule
  int max_backends = 1;
  std::int64_t clients = 0;   // of the pool, now
  bool session_mode = false;  // each client needs a backend: no rule can advise
  int knee = 0;               // < 1: not measured
  Confidence knee_confidence = Confidence::none;
  ScalabilityVerdict knee_verdict = ScalabilityVerdict::too_few_points;
  int calibrated = 0;         // < 1: not calibrated
  int nested_threads = 0;     // Tn, when clients that waited for themselves were seen; 0: never
};

struct SizingRow {
  SizingRule rule;
  std::int64_t size;  // < 0: this rule says nothing
  bool binds;         // is in force: exactly one row is
  bool advised;       // is what the advice follows: one row at most
};

// What an advised size says: about as many, or not fewer, or not more.
enum class SizeBound { exact, at_least, at_most };

struct SizingTable {
  SizingRow rows[kSizingRules];
  int advised_size;        // < 1: no advice
  SizingRule advised_by;   // before it was limited by max_backends
  SizeBound bound;
};

// What is in force, and what is advised.
//
// Advice, from the best evidence to the weakest: the knee, where the fit is at
// least of medium confidence; a calibration; a knee that is only a bound, where the
// rule lies beyond it (where throughput still grew, the pool should not be smaller
// than that, and where it never grew, not larger); the rule.  At most max_backends.
//
// The deadlock minimum is worked out for clients that come in pairs (Cm = 2), from
// the threads that were seen waiting for themselves or else from all clients; it
// never binds, as backends of clients that think do not count against a pool's size.
SizingTable decide_sizing(const SizingQuestion &question) noexcept;

}  // namespace sluice

#endif
