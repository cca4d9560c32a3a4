// SPDX-License-Identifier: PostgreSQL
//
// What is the cause of a full pool, and would more backends help?
//
// A pool that is always full looks the same whatever fills it, and the remedy that
// comes to mind first, a larger pool, is right for few causes only: backends that
// wait for one lock, whose clients think, or that share the processors with too
// many others already, are not made faster by more of them.
//
// Which limit binds decides whom to look at (DiagnosisScope).  A pool may be as
// large as max_size, not counting backends that rest (thinking or pinned; see
// core/pool/growth_governor), so where that limit binds, only those that do not
// rest are in the way.  Where the server's limit binds, all of all pools are.
//
// Precedence.  Each backend in the way belongs to one cause, by what it does at
// this moment.  The cause of at least half of them is the pool's, and if two
// causes are the half each, the one that comes first in PoolCause, which is sorted
// by how certain it is that more backends would not help.  Two things go before:
// an application that deadlocks with itself (nested_acquire), which looks like one
// of the others, and a pool that is not full at all.  If no cause has the half,
// it is `mixed`.
//
// All this is one look.  A backend may have begun to wait for something else since;
// of a load that changes quickly, several looks say more than one.

#ifndef SLUICE_CORE_STATS_POOL_DIAGNOSIS_HPP
#define SLUICE_CORE_STATS_POOL_DIAGNOSIS_HPP

#include <cstddef>
#include <cstdint>

namespace sluice {

// ---------------------------------------------------------------- what is seen

enum class HolderState : std::uint8_t {
  executing,
  thinking,  // its client's turn, inside a transaction
  pinned,    // its client's turn, outside one; session state that cannot be carried
  held,      // the same in session mode
};

// What an executing backend waits for.
enum class WaitClass : std::uint8_t {
  none = 0,   // runs on a processor, waits for one, or waits for something the server has no name for
  lock,       // heavyweight: of a row, a relation, an advisory lock
  lwlock,     // a lock inside shared memory
  io,
  client,     // it does not read its result, or does not send what it has begun
  ipc,        // another process of the server: parallel workers, replication
  timeout,    // pg_sleep(), vacuum_cost_delay
  extension,  // a foreign server, for example
};

enum class BlockerActivity : std::uint8_t {
  unknown = 0,
  executing,
  idle_in_transaction,
  idle,      // outside a transaction: it holds a lock of its session
  prepared,  // a prepared transaction, which no process belongs to
};

// The process at the head of a chain of lock waits: it does not wait for a lock.
struct Blocker {
  bool known = false;
  std::int32_t pid = 0;  // 0 for a prepared transaction
  std::uint32_t role_oid = 0;  // whose it is: what it does is not for everyone; 0 = not known, or nobody's
  BlockerActivity activity = BlockerActivity::unknown;
  WaitClass wait = WaitClass::none;  // while executing
  std::int64_t age_us = 0;           // of that activity; 0 = not known
};

// A backend in the hands of a client.
struct HeldBackend {
  std::uint32_t pool = 0;
  std::int32_t pid = 0;
  HolderState state = HolderState::executing;
  WaitClass wait = WaitClass::none;  // while executing
  std::int64_t age_us = 0;           // of its state; of the pin, if it is pinned
  std::uint32_t pins = 0;            // pin_bit(PinReason), while it is pinned
  Blocker blocker;                   // known only where it was looked for
};

struct PoolObservation {
  std::uint32_t pool = 0;
  const HeldBackend *held = nullptr;  // of all pools
  std::size_t held_count = 0;
  int idle = 0;              // backends of the pool without work
  int idle_elsewhere = 0;    // of other pools: they give way
  int coming_and_going = 0;  // starting, failed or retiring ones of the pool
  int max_size = 0;
  int waiting = 0;  // clients of the pool
  int server_backends = 0;  // of all pools, in whatever state
  int max_backends = 0;
  double cores = 0.0;  // <= 0: not known
  bool nested = false;  // seen by core/pool/nested_acquire at this moment
  int nested_threads = 0;
  int nested_minimum = 0;
};

// ---------------------------------------------------------------- what it means

enum class PoolCause : std::uint8_t {
  not_full = 0,
  nested_acquire,       // clients that have a backend probably wait for a second one
  lock_convoy,
  idle_in_transaction,
  pinned,
  held_by_sessions,     // session mode, clients idle
  internal_contention,  // LWLocks
  cpu_bound,            // on as many processors as there are, or more
  slow_clients,
  io_bound,
  waiting_elsewhere,    // timers, extensions, other processes
  executing,            // on processors, and there are more of them
  starting,             // backends that come or go
  server_full,          // of backends of other pools that no client holds
  mixed,
  unknown,              // nobody could look
};
constexpr std::size_t kPoolCauseCount = 16;

// One lower-case phrase, the same in log, view and test.
const char *describe(PoolCause cause) noexcept;
const char *describe(BlockerActivity activity) noexcept;

enum class DiagnosisScope : std::uint8_t {
  none = 0,  // there is room, or somebody is idle
  pool,      // max_size is reached by those that do not rest
  server,    // max_backends is reached by all pools together
};

enum class MoreBackends : std::uint8_t { no = 0, perhaps, yes };

enum class PoolAdvice : std::uint8_t {
  none = 0,
  end_blocking_transaction,  // the head of the lock waits is idle in transaction
  stop_blocker,              // it executes, or is not known
  finish_prepared,           // it is a prepared transaction
  end_idle_transactions,
  limit_pins,
  use_transaction_mode,
  look_at_statements,
  look_at_clients,
  avoid_nesting,
  raise_max_pool_size,
  raise_max_backends,
  raise_both,
};

struct PoolDiagnosis {
  PoolCause cause = PoolCause::unknown;
  DiagnosisScope scope = DiagnosisScope::none;
  MoreBackends more_backends_help = MoreBackends::perhaps;
  PoolAdvice advice = PoolAdvice::none;
  int counted = 0;                   // backends in the way of the limit
  int affected = 0;                  // of these, by the cause
  int counts[kPoolCauseCount] = {};  // of these, by each cause
  int on_processors = 0;             // of all pools
  double cores = 0.0;
  // The one that matters: the process at the head of most lock waits, or the backend that
  // has been in its state for longest.  0 = none is known, or a prepared transaction.
  std::int32_t pid = 0;
  std::int64_t age_us = 0;
  std::uint32_t pins = 0;
  Blocker blocker;     // if the cause is lock_convoy
  int blocked = 0;     // counted backends that are known to be behind it
  int chains = 0;      // of how many the blocker is known
  std::uint32_t worst_pool = 0;  // the one with most of the affected
  int in_worst_pool = 0;
  int in_use = 0;  // backends of the pool that are not idle
  int max_size = 0;
  int nested_threads = 0;
  int nested_minimum = 0;
};

// Which limit is reached: what has to be known to decide for which backends it is
// worth to look for a blocker.
DiagnosisScope find_scope(const PoolObservation &seen) noexcept;

// Whether this backend is in the way of that limit.
bool is_in_the_way(const PoolObservation &seen, DiagnosisScope scope, const HeldBackend &backend) noexcept;

PoolDiagnosis diagnose_pool(const PoolObservation &seen) noexcept;

// Leaves out what is not for everyone who is told: what the blocker does, and for how
// long (its number stays, and a prepared transaction, which everyone may see); whose
// the pool is that has most of the affected.
void hide_blocker(PoolDiagnosis &diagnosis) noexcept;
void hide_worst_pool(PoolDiagnosis &diagnosis) noexcept;

}  // namespace sluice

#endif
