// SPDX-License-Identifier: PostgreSQL
//
// See snapshot.hpp.

#include "pg/stats/snapshot.hpp"

extern "C" {
#include "catalog/pg_authid.h"
#include "utils/acl.h"
}

#include <cstring>

#include "pg/shared_memory.hpp"

namespace sluice::pg {

void copy_name(char (&target)[kNameLength], const char (&source)[kNameLength]) {
  memcpy(target, source, kNameLength);
  target[kNameLength - 1] = '\0';
}

bool copy_pool_names(std::uint32_t index, PoolNames &names) {
  names.database[0] = '\0';
  names.role[0] = '\0';
  names.role_oid = InvalidOid;
  if (index >= shared().header->max_pools) {
    return false;
  }
  const PoolSlot &pool = shared().pools[index];
  const std::uint32_t generation = pool.generation.load(std::memory_order_acquire);
  if (pool.state.load(std::memory_order_acquire) != static_cast<std::uint32_t>(PoolState::open)) {
    return false;
  }
  PoolNames copy;
  copy_name(copy.database, pool.database);
  copy_name(copy.role, pool.role);
  copy.role_oid = pool.role_oid;
  // The copy must not be moved below the second look.  A slot that is being
  // rewritten for other names is not open until they are complete.
  std::atomic_thread_fence(std::memory_order_acquire);
  if (pool.state.load(std::memory_order_relaxed) != static_cast<std::uint32_t>(PoolState::open) ||
      pool.generation.load(std::memory_order_relaxed) != generation) {
    return false;
  }
  names = copy;
  return true;
}

double age_ms(std::int64_t now_us, std::int64_t since_us) {
  // A writer may have used the fine clock, or changed state since we looked at ours.
  return now_us > since_us ? static_cast<double>(now_us - since_us) / 1000.0 : 0.0;
}

bool may_see_details(Oid role_oid) {
  const Oid user = GetUserId();
  return (OidIsValid(role_oid) && has_privs_of_role(user, role_oid)) || has_privs_of_role(user, ROLE_PG_READ_ALL_STATS);
}

}  // namespace sluice::pg
