// SPDX-License-Identifier: PostgreSQL
//
// Several backends may look for the preferred client at once, and each has one entry in its
// hands at a time.  The queue may look empty to somebody meanwhile, who goes to sleep
// for that; so whoever puts an entry back looks at the sleepers afterwards.  A sleeper
// counts itself, then looks at the queue: one sees the other, and the dispatcher rings.

#include "pg/compat.hpp"

#include "pg/pool/wait_queue.hpp"

#include "core/pool/nested_acquire.hpp"
#include "core/pool/shared_state.hpp"
#include "pg/accept/dispatcher.hpp"
#include "pg/pool/wake_up.hpp"
#include "pg/session/session.hpp"
#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"

namespace sluice::pg {

void leave_in_queue(std::uint64_t entry) {
  if (!session.pool->wait_queue.get().bounded_push(entry))
    shared().clients[ClientRef::unpack(entry).slot].flags.fetch_or(kClientUnqueued);
  if (session.pool->waiters.load() > 0) ask_dispatcher_to_watch(session.pool_index);
}

bool is_served_by_preference() {
  const PoolSlot &pool = *session.pool;
  const std::int64_t until_us = pool.nested_until_us.load(std::memory_order_relaxed);
  return until_us != 0 && !setting_debug_force_switch &&
         serves_by_preference(pool.nested_since_us.load(std::memory_order_relaxed) != 0, until_us, pool.queued.load(),
                              monotonic_us());
}

// False if it is an entry of nobody.  overdue_since_us: who has been ready since before is overdue.
static bool look_at_waiting(std::uint64_t entry, std::int64_t overdue_since_us, WaitingClient *client) {
  const ClientRef reference = ClientRef::unpack(entry);
  const ClientSlot &slot = shared().clients[reference.slot];
  const ClientWord seen = ClientWord::unpack(slot.word.load());
  if (seen.generation != reference.generation || seen.state != ClientState::ready) return false;
  client->ready_since_us = slot.ready_since_us.load(std::memory_order_relaxed);
  client->holding = judge_holding(slot.thoughts.load(std::memory_order_relaxed),
                                  slot.flags.load(std::memory_order_relaxed) >> kClientPinsToldShift != 0,
                                  slot.transactions.load(std::memory_order_relaxed));
  client->overdue = client->ready_since_us < overdue_since_us;
  return true;
}

static std::int64_t overdue_since_us() {
  const PoolSlot &pool = *session.pool;
  if (pool.nested_since_us.load(std::memory_order_relaxed) != 0) return INT64_MIN;
  return monotonic_us() - passed_over_limit_us(std::int64_t{pool.acquire_timeout_ms.load()} * 1000);
}

bool pop_preferred(std::uint64_t *preferred) {
  const std::int64_t overdue_since = overdue_since_us();
  WaitingClient best{};
  bool found = false;
  std::uint64_t first = 0;
  std::uint64_t entry;
  bool any = false;

  // Not more than are counted, and one where none is, so that entries of nobody are cleared away: one look more would
  // find the oldest again and put it behind the others.  Where others look as well it may be found nevertheless.
  for (int left = Max(session.pool->queued.load(), 1); left > 0 && session.pool->wait_queue.get().pop(entry); left--) {
    if (any && entry == first) {
      leave_in_queue(entry);
      break;
    }
    if (!any) first = entry;
    any = true;
    WaitingClient client;
    if (!look_at_waiting(entry, overdue_since, &client)) continue;
    const bool is_better = !found || is_served_before(client, best);
    if (found) leave_in_queue(is_better ? *preferred : entry);
    if (!is_better) continue;
    *preferred = entry;
    best = client;
    found = true;
  }
  return found;
}

}  // namespace sluice::pg
