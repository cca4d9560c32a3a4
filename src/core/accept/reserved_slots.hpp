// SPDX-License-Identifier: PostgreSQL
//
// The last client slots are kept for those who have to get in when all others are
// taken: superuser_reserved_connections and, from PostgreSQL 16 on,
// reserved_connections, applied to sluice.max_clients.
//
// Counted as the server does (InitPostgres): who asks has a slot already, and it is
// the free ones that must suffice.  The server refuses to start when nothing but
// the reserve would be left; sluice.max_clients is another number, so here the
// reserve is cut down until one client without privileges fits.

#ifndef SLUICE_CORE_ACCEPT_RESERVED_SLOTS_HPP
#define SLUICE_CORE_ACCEPT_RESERVED_SLOTS_HPP

#include <cstdint>

namespace sluice {

enum class SlotRight {
  everyone,            // enough are free
  reserved_connection,  // only the privileged (pg_use_reserved_connections) and superusers
  superuser,           // only superusers
};

constexpr SlotRight who_may_enter(std::int64_t capacity, std::int64_t in_use, std::int64_t superuser_reserve,
                                  std::int64_t other_reserve) noexcept {
  const std::int64_t most = capacity > 1 ? capacity - 1 : 0;
  const std::int64_t for_superusers = superuser_reserve < most ? superuser_reserve : most;
  const std::int64_t for_both = superuser_reserve + other_reserve < most ? superuser_reserve + other_reserve : most;
  const std::int64_t free = capacity - in_use;
  if (free < for_superusers) return SlotRight::superuser;
  return free < for_both ? SlotRight::reserved_connection : SlotRight::everyone;
}

}  // namespace sluice

#endif
