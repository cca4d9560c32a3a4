// SPDX-License-Identifier: PostgreSQL
//
// Reading slots that others are writing.
//
// Slots are read without locks: a lock that a view holds is a lock that a dispatcher
// may have to wait for.  (Behind lock waits the lock manager is asked, as
// pg_blocking_pids() does: lock_chain.hpp.)  A reader notes the generation of the slot, copies what it
// needs, and looks at the generation again; a slot that was given away in the
// meantime is left out.  Within one generation a row may mix values of two
// moments some nanoseconds apart: they are snapshots, and the comments on the
// views say so.  Names in a slot are plain bytes that are written before the
// slot is published, so a copy that passes the generation check is whole.

#ifndef SLUICE_PG_STATS_SNAPSHOT_HPP
#define SLUICE_PG_STATS_SNAPSHOT_HPP

#include "pg/compat.hpp"

#include <cstdint>

#include "core/pool/shared_state.hpp"

namespace sluice::pg {

// Who a pool belongs to.
struct PoolNames {
  char database[kNameLength];
  char role[kNameLength];
  Oid role_oid;
};

// Copies the names of pool `index`.  False if there is no such open pool
// (kNoIndex included): `names` is then two empty strings and InvalidOid.
bool copy_pool_names(std::uint32_t index, PoolNames &names);

// Copies a text field of kNameLength bytes, terminating it.
void copy_name(char (&target)[kNameLength], const char (&source)[kNameLength]);

// How long ago `since_us`, a time of either clock (dispatcher.hpp), was, in milliseconds; never negative.
double age_ms(std::int64_t now_us, std::int64_t since_us);

// Whether the current user may see the details of a client of `role_oid`: the
// rule of pg_stat_activity.  InvalidOid: only a reader of all statistics may.
bool may_see_details(Oid role_oid);

}  // namespace sluice::pg

#endif
