// SPDX-License-Identifier: PostgreSQL
//
// Looks at a pool, lets core/stats/pool_diagnosis judge, and says it in words.
//
// Usable by any process attached to shared memory, the dispatcher included: it waits
// for LWLocks only.  It looks behind the lock waits of a limited number of backends;
// whoever looks at several pools shares the answers (LockLookups), for where the
// server is full all pools have the same backends in their way.
//
// Who is told.  What other roles' sessions do is not for everyone, as in
// pg_stat_activity: look_at_pool() knows it, hide_from_role() and append_pool_verdict()
// leave it out.  The server's log may have all of it.

#ifndef SLUICE_PG_STATS_POOL_DIAGNOSIS_HPP
#define SLUICE_PG_STATS_POOL_DIAGNOSIS_HPP

#include "pg/compat.hpp"

extern "C" {
#include "lib/stringinfo.h"
#include "utils/backend_status.h"
}

#include <cstdint>

#include "core/stats/pool_diagnosis.hpp"
#include "pg/stats/lock_chain.hpp"

namespace sluice::pg {

// What keeps the pool full at this moment.  Inside a transaction it raises what comes
// (out of memory, a query that is cancelled); outside one nothing: the cause is then
// unknown.
PoolDiagnosis look_at_pool(std::uint32_t pool_index, LockLookups &lookups);

// The same, not older than 250 ms, from answers of the lock manager that were then not
// older than that: for the dispatcher, in which many clients give up at the same time.
const PoolDiagnosis &look_at_pool_lately(std::uint32_t pool_index, std::int64_t now_us);

// Leaves out what a client of `role` must not be told about others.  Never raises.
void hide_from_role(PoolDiagnosis &diagnosis, Oid role);

// "9 of 10 working backends wait for a lock held by pid 4711 (idle in transaction for 41 s): ...", without a
// capital and a period.
void append_verdict(StringInfo text, const PoolDiagnosis &diagnosis);

// What to do about it: a HINT, whole sentences.
const char *hint_about(PoolAdvice advice);

// look_at_pool() in words, as far as the current user may know: one sentence about the pool's pressure, and
// whether more backends would help.  Inside a transaction.
void append_pool_verdict(StringInfo text, std::uint32_t pool_index, LockLookups &lookups);

}  // namespace sluice::pg

#endif
