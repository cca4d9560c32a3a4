// SPDX-License-Identifier: PostgreSQL
//
// Writing events for the view sluice.events; the ring is core/stats/event_log.
//
// Nothing that happens in every transaction is an event.  Kinds that clients can
// cause as often as they like are rationed, for each process and kind: twenty at
// once, then one each second; the next one that is written tells how many have been
// left out.  The counters of sluice.pools leave nothing out.

#ifndef SLUICE_PG_STATS_EVENT_LOG_HPP
#define SLUICE_PG_STATS_EVENT_LOG_HPP

#include "pg/compat.hpp"

#include <cstdint>

#include "core/stats/event_log.hpp"

namespace sluice::pg {

constexpr std::int32_t kNoProcess = 0;
constexpr std::int32_t kNoClient = -1;

// Never raises, never blocks, allocates nothing; any process.  `pool_index` may be
// kNoIndex.  `reason`: one lower-case phrase, may be null.
void log_event(EventKind kind, std::uint32_t pool_index, std::int32_t pid, std::int32_t client, const char *reason);

}  // namespace sluice::pg

#endif
