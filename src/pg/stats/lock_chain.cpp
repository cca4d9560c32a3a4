// SPDX-License-Identifier: PostgreSQL
//
// See lock_chain.hpp.

#include "pg/compat.hpp"

#include "pg/stats/lock_chain.hpp"

extern "C" {
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/wait_event.h"
}

#include "pg/process_number.hpp"

namespace sluice::pg {

namespace {

constexpr std::uint32_t kWaitClassMask = 0xff000000u;

constexpr std::int32_t kNotBlocked = -1;
constexpr std::int32_t kNotAsked = -2;  // the lookups are used up

// How well a process explains why another one waits.
enum class Claim { none, waits_ahead, holds_and_waits, holds };

bool is_ahead(const BlockedProcsData &data, const BlockedProcData &blocked, int pid) {
  for (int i = 0; i < blocked.num_waiters; i++)
    if (data.waiter_pids[blocked.first_waiter + i] == pid) return true;
  return false;
}

Claim judge_claim(const BlockedProcsData &data, const BlockedProcData &blocked, const LockInstanceData &own,
                  const LockInstanceData &other) {
  const int conflicts = GetLockTagsMethodTable(&own.locktag)->conflictTab[own.waitLockMode];
  if (&other == &own || other.leaderPid == own.leaderPid) return Claim::none;
  if ((conflicts & other.holdMask) != 0) return other.waitLockMode == NoLock ? Claim::holds : Claim::holds_and_waits;
  if (other.waitLockMode != NoLock && (conflicts & LOCKBIT_ON(other.waitLockMode)) != 0 &&
      is_ahead(data, blocked, other.pid))
    return Claim::waits_ahead;
  return Claim::none;
}

const LockInstanceData *find_own(const BlockedProcsData &data, const BlockedProcData &blocked) {
  for (int i = 0; i < blocked.num_locks; i++) {
    const LockInstanceData &instance = data.locks[blocked.first_lock + i];
    if (instance.pid == blocked.pid && instance.waitLockMode != NoLock) return &instance;
  }
  return nullptr;
}

// One of those that `pid`, or a parallel worker of it, waits for.
std::int32_t ask_lock_manager(std::int32_t pid) {
  const BlockedProcsData &data = *GetBlockerStatusData(pid);
  Claim best = Claim::none;
  std::int32_t blocker = kNotBlocked;

  for (int i = 0; i < data.nprocs; i++) {
    const BlockedProcData &blocked = data.procs[i];
    const LockInstanceData *own = find_own(data, blocked);
    if (own == nullptr) continue;
    for (int j = 0; j < blocked.num_locks; j++) {
      const LockInstanceData &other = data.locks[blocked.first_lock + j];
      const Claim claim = judge_claim(data, blocked, *own, other);
      if (claim <= best) continue;
      best = claim;
      blocker = other.leaderPid;
    }
  }
  pfree(data.procs);
  pfree(data.locks);
  pfree(data.waiter_pids);
  pfree(const_cast<BlockedProcsData *>(&data));
  return blocker;
}

const PGPROC *find_process(std::int32_t pid) { return pid > 0 ? BackendPidGetProc(pid) : nullptr; }

std::uint32_t wait_event_of(const PGPROC *process) {
  return process != nullptr ? read_wait_event(*process) : 0;
}

// The leader of a parallel query waits for its workers while one of them waits for a lock.
// Others that wait for a process (a replica, for example) are not asked about in vain.
bool may_be_blocked(std::int32_t pid) {
  const PGPROC *process = find_process(pid);
  const WaitClass wait = wait_class_of(wait_event_of(process));
  if (wait != WaitClass::ipc) return wait == WaitClass::lock;
  return *static_cast<PGPROC *const volatile *>(&process->lockGroupLeader) == process;
}

std::int32_t find_blocker(std::int32_t pid, LockLookups &lookups) {
  for (int i = 0; i < lookups.count; i++)
    if (lookups.pids[i] == pid) return lookups.blockers[i];
  if (pid == 0 || !may_be_blocked(pid)) return kNotBlocked;
  if (lookups.count >= kMostLockLookups) return kNotAsked;
  const std::int32_t blocker = ask_lock_manager(pid);
  lookups.pids[lookups.count] = pid;
  lookups.blockers[lookups.count] = blocker;
  lookups.count++;
  return blocker;
}

bool contains(const LockChain &chain, std::int32_t pid) {
  for (int i = 0; i < chain.length; i++)
    if (chain.pids[i] == pid) return true;
  return false;
}

}  // namespace

std::uint32_t wait_event_of(std::int32_t pid) { return wait_event_of(find_process(pid)); }

WaitClass wait_class_of(std::uint32_t wait_event) {
  switch (wait_event & kWaitClassMask) {
    case PG_WAIT_LWLOCK: return WaitClass::lwlock;
    case PG_WAIT_LOCK: return WaitClass::lock;
    case PG_WAIT_CLIENT: return WaitClass::client;
    case PG_WAIT_EXTENSION: return WaitClass::extension;
    case PG_WAIT_TIMEOUT: return WaitClass::timeout;
    case PG_WAIT_IO: return WaitClass::io;
    case 0: return WaitClass::none;
    default: return WaitClass::ipc;  // a pin on a buffer is another process's, too
  }
}

void follow_lock_chain(std::int32_t pid, LockLookups &lookups, LockChain &chain) {
  chain.length = 0;
  chain.complete = false;
  for (std::int32_t next = find_blocker(pid, lookups);; next = find_blocker(next, lookups)) {
    if (next == kNotBlocked) {
      chain.complete = chain.length > 0;
      return;
    }
    if (next == kNotAsked || next == pid || contains(chain, next) || chain.length >= kLongestLockChain) return;
    chain.pids[chain.length++] = next;
  }
}

}  // namespace sluice::pg
