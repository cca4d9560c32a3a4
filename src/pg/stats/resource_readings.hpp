// SPDX-License-Identifier: PostgreSQL
//
// How much of everything that can run out is in use now.
//
// Read by the statistician once a second, and by whoever looks at sluice.pressure.
// Nothing raises; what cannot be read is unknown, with the reason.  No lock is
// taken but what the kernel takes.

#ifndef SLUICE_PG_STATS_RESOURCE_READINGS_HPP
#define SLUICE_PG_STATS_RESOURCE_READINGS_HPP

#include "pg/compat.hpp"

#include <cstddef>
#include <cstdint>

#include "core/stats/pressure.hpp"

namespace sluice::pg {

struct ResourceReading {
  bool known;
  double used;       // in unit_of() the resource
  double maximum;    // < 0: none, or not known
  char reason[200];  // why it is not known; may name files: show it with shown_system_text()
};

// By Resource.  all: also what is costly to read, or else it is unknown.
void read_server_resources(ResourceReading (&readings)[kServerResources], bool all);

// Backends and clients of one pool.
struct PoolUse {
  std::int32_t busy;      // backends that count against max_size, but for idle ones
  std::int32_t backends;  // all
  std::int32_t resting;   // client's turn inside a transaction, or pinned
};

// Counts for all pools: an array of max_pools, overwritten.
void count_pool_use(PoolUse *uses);

}  // namespace sluice::pg

#endif
