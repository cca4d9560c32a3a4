// SPDX-License-Identifier: PostgreSQL
//
// Keeps the peaks and trends of sluice.pressure up to date.

#ifndef SLUICE_PG_STATS_RESOURCE_SAMPLER_HPP
#define SLUICE_PG_STATS_RESOURCE_SAMPLER_HPP

#include "pg/compat.hpp"

#include <cstdint>

#include "core/pool/shared_state.hpp"

namespace sluice::pg {

// Looks at everything that can run out, and notes it.  By the statistician, about
// once a second.  now_us: monotonic.  Raises when memory is short, at first use only.
void sample_resources(std::int64_t now_us);

// Of the server's resources, and of a pool's.
ResourceEra server_era();
ResourceEra pool_era(std::uint32_t pool_generation);

}  // namespace sluice::pg

#endif
