// SPDX-License-Identifier: PostgreSQL
//
// What the dispatcher's pool files (pool_keeper, backend_keeper, control_server,
// time_limits) share: the descriptors and handles that belong to this process only.

#ifndef SLUICE_PG_POOL_KEEPER_BOOKS_HPP
#define SLUICE_PG_POOL_KEEPER_BOOKS_HPP

#include "pg/compat.hpp"

#include <cstdint>

#include "core/pool/growth_governor.hpp"
#include "core/pool/shared_state.hpp"

struct BackgroundWorkerHandle;

namespace sluice::pg {

struct PoolBook {
  int epoll;  // the pool's shared set
  int bell;   // eventfd in it: wakes one sleeper
  int calm_ticks;
  std::int64_t waiting_since_us;  // clients have been seen waiting since; 0 = none waits
  WorkingMean working;
  bool start_put_off;  // wanted while another was under way
  std::int64_t retry_after_us;          // no start before this time
  std::int64_t above_maximum_since_us;  // 0 = it is not
  std::uint64_t role_setting_changes;   // of the pool, when its backends were looked at
  int failed_starts;                    // one after the other
  int refusal_sqlerrcode;               // of the last of them, while there are any
  char refusal[kFailureLength];
  std::int64_t minimum_retry_after_us;  // nor before this time if nobody waits
  bool gone;                            // its database or its role does not exist any more
  std::int64_t unused_since_us;         // its last client left, or it was made
};

struct BackendBook {
  BackgroundWorkerHandle *handle;
  int channel;   // control channel, -1 = none yet
  bool pulls_descriptors;  // need not be sent any
  bool greeted;  // has said hello: no longer counted in PoolSlot::starting
  GrowthReason start_reason;
  std::int32_t pid;  // since it has said hello, also when it has ended; 0 = not yet
};

extern int keeper_epoll;             // the dispatcher's own set
extern PoolBook *pool_books;         // [max_pools]
extern BackendBook *backend_books;   // [backend_slots]

}  // namespace sluice::pg

#endif
