// SPDX-License-Identifier: PostgreSQL
#include "pg/compat.hpp"

#include "pg/pool/wait_queue.hpp"

#include "core/pool/shared_state.hpp"
#include "pg/accept/dispatcher.hpp"
#include "pg/session/session.hpp"
#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"

namespace sluice::pg {

void leave_in_queue(std::uint64_t entry) {
  if (!session.pool->wait_queue.get().bounded_push(entry))
    shared().clients[ClientRef::unpack(entry).slot].flags.fetch_or(kClientUnqueued);
}

bool is_youngest_first() {
  const std::int64_t until_us = session.pool->nested_until_us.load(std::memory_order_relaxed);
  return until_us != 0 && monotonic_us() < until_us && !setting_debug_force_switch;
}

bool pop_youngest(std::uint64_t *youngest) {
  PoolSlot *pool = session.pool;
  std::int64_t youngest_us = -1;
  std::uint64_t entry;

  for (int left = Max(pool->queued.load(), 0) + 1; left > 0 && pool->wait_queue.get().pop(entry); left--) {
    const ClientRef client = ClientRef::unpack(entry);
    const ClientSlot &slot = shared().clients[client.slot];
    const ClientWord seen = ClientWord::unpack(slot.word.load());
    if (seen.generation != client.generation || seen.state != ClientState::ready) continue;  // an entry of nobody
    const std::int64_t since_us = slot.ready_since_us.load(std::memory_order_relaxed);
    if (youngest_us >= 0) leave_in_queue(since_us >= youngest_us ? *youngest : entry);
    if (since_us < youngest_us) continue;
    *youngest = entry;
    youngest_us = since_us;
  }
  return youngest_us >= 0;
}

}  // namespace sluice::pg
