// SPDX-License-Identifier: PostgreSQL
//
// What a process waits for, and behind whom it waits for a lock.
//
// The wait event is read from the process's PGPROC, found by its number: that works
// from any process attached to shared memory, also without a database.
//
// Behind whom: the lock manager is asked about one process at a time, which takes
// all partitions of its table in shared mode for a moment, as pg_blocking_pids()
// does.  So the number of questions is limited, no process is asked about twice
// within one LockLookups, and only those are asked about that wait for a lock as
// far as their wait event says, or that lead a parallel query and wait for it.
//
// A chain follows one blocker of each process: one that holds the lock, rather than
// one that waits further ahead.  It ends at the first process that does not wait for
// a lock, its *head*.  Between two questions the locks may change hands, so a chain
// is a snapshot, not a proof; a circle (a deadlock that has not been noticed yet) has
// no head.
//
// May raise (out of memory).  Never waits for anything but LWLocks.

#ifndef SLUICE_PG_STATS_LOCK_CHAIN_HPP
#define SLUICE_PG_STATS_LOCK_CHAIN_HPP

#include "pg/compat.hpp"

#include <cstdint>

#include "core/stats/pool_diagnosis.hpp"

namespace sluice::pg {

// The raw wait event of a process; 0 if it waits for nothing or is no more.
std::uint32_t wait_event_of(std::int32_t pid);

WaitClass wait_class_of(std::uint32_t wait_event);

constexpr int kMostLockLookups = 64;
constexpr int kLongestLockChain = 16;

struct LockLookups {
  int count = 0;
  std::int32_t pids[kMostLockLookups];
  std::int32_t blockers[kMostLockLookups];
};

struct LockChain {
  bool complete = false;  // the last one is the head
  int length = 0;
  std::int32_t pids[kLongestLockChain];  // from the direct blocker on; 0 is a prepared transaction
};

// Empty if the process does not wait for a lock, or the lookups are used up.
void follow_lock_chain(std::int32_t pid, LockLookups &lookups, LockChain &chain);

}  // namespace sluice::pg

#endif
