// SPDX-License-Identifier: PostgreSQL
//
// Fits the scalability law to each pool's history (core/tuning/scalability).

#ifndef SLUICE_PG_TUNING_KNEE_HPP
#define SLUICE_PG_TUNING_KNEE_HPP

#include "pg/compat.hpp"

#include <cstdint>

namespace sluice::pg {

// By the statistician, once a second; fits every so many.  now_us: monotonic.
void refit_pools(std::int64_t now_us);

}  // namespace sluice::pg

#endif
