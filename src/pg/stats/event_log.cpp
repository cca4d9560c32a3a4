// SPDX-License-Identifier: PostgreSQL
//
// The names of a pool change while it has neither clients nor backends, or when
// one of the two has been renamed; those who log belong to it, so at worst an
// event has half of an old and half of a new name of the same role.

#include "pg/compat.hpp"

#include "pg/stats/event_log.hpp"

extern "C" {
#include "utils/timestamp.h"
}

#include "core/stats/cut_text.hpp"
#include "pg/shared_memory.hpp"

namespace sluice::pg {

static_assert(kEventNameLength == kNameLength);

static EventRation rations[kEventKinds];

// The reason, and in front of the end what has been withheld.
static void put_reason(Event &event, const char *reason, std::uint64_t withheld) {
  char suffix[48] = "";
  if (withheld > 0) snprintf(suffix, sizeof(suffix), " (and " UINT64_FORMAT " before it)", withheld);
  const std::size_t length = copy_cut(event.reason, sizeof(event.reason) - strlen(suffix), reason);
  memcpy(event.reason + length, suffix, strlen(suffix));
}

static void put_pool(Event &event, std::uint32_t pool_index) {
  if (pool_index >= shared().header->max_pools) return;
  const PoolSlot &pool = shared().pools[pool_index];
  event.role_oid = pool.role_oid;
  (void)copy_cut(event.database, sizeof(event.database), pool.database);
  (void)copy_cut(event.role, sizeof(event.role), pool.role);
}

void log_event(EventKind kind, std::uint32_t pool_index, std::int32_t pid, std::int32_t client, const char *reason) {
  if (!shared_memory_exists()) return;
  Event event{};
  std::uint64_t withheld = 0;

  event.at = GetCurrentTimestamp();
  if (is_rationed(kind)) {
    EventRation &ration = rations[static_cast<std::size_t>(kind)];
    if (!ration.admits(event.at)) return;
    withheld = ration.take_withheld();
  }
  event.kind = static_cast<std::uint32_t>(kind);
  event.pid = pid;
  event.client = client;
  put_pool(event, pool_index);
  put_reason(event, reason, withheld);
  (void)write_event(*shared().events, event);
}

}  // namespace sluice::pg
