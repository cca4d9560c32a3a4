// SPDX-License-Identifier: PostgreSQL
//
// Looks at a pool, lets core/stats/pool_diagnosis judge, and says it in words.
//
// Usable by any process attached to shared memory, the dispatcher included: it waits
// for LWLocks only, and what could be raised (out of memory) is caught, leaving less
// to be said.  It looks behind the lock waits of a limited number of backends.

#ifndef SLUICE_PG_STATS_POOL_DIAGNOSIS_HPP
#define SLUICE_PG_STATS_POOL_DIAGNOSIS_HPP

#include "pg/compat.hpp"

extern "C" {
#include "lib/stringinfo.h"
#include "utils/backend_status.h"
}

#include <cstdint>

#include "core/stats/pool_diagnosis.hpp"

namespace sluice::pg {

// What keeps the pool full at this moment.
PoolDiagnosis look_at_pool(std::uint32_t pool_index);

// The same, not older than 250 ms: for the dispatcher, in which many clients give up
// at the same time.
const PoolDiagnosis &look_at_pool_lately(std::uint32_t pool_index, std::int64_t now_us);

// "9 of 10 working backends wait for a lock held by pid 4711 (idle in transaction for 41 s): ...", without a
// capital and a period.
void append_verdict(StringInfo text, const PoolDiagnosis &diagnosis);

// What to do about it: a HINT, whole sentences.
const char *hint_about(PoolAdvice advice);

// look_at_pool() in words: one sentence about the pool's pressure, and whether more backends would help.
void append_pool_verdict(StringInfo text, std::uint32_t pool_index);

}  // namespace sluice::pg

#endif
