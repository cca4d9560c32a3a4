// SPDX-License-Identifier: PostgreSQL
//
// What the dispatcher looks for while clients wait: transactions that hold a
// backend for too long (sluice.leak_threshold), and applications that wait for
// themselves (core/pool/nested_acquire).  Both are logged once, counted, and shown
// in the views; the reserve (sluice.nested_reserve) is opened by the growth
// governor for as long as PoolSlot::nested_since_us is set.

#ifndef SLUICE_PG_POOL_HOLD_WATCH_HPP
#define SLUICE_PG_POOL_HOLD_WATCH_HPP

#include "pg/compat.hpp"

#include <cstdint>

namespace sluice::pg {

// To be called often; looks every so many milliseconds.  clients_wait: in any pool.
void watch_holds(std::int64_t now_us, bool clients_wait);

}  // namespace sluice::pg

#endif
