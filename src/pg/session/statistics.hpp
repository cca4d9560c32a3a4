// SPDX-License-Identifier: PostgreSQL
//
// When this backend hands its counts to the server's cumulative statistics.
//
// As everywhere in the server not after each transaction, but at most once a
// second, and before it rests for long.  The transactions of one client may be
// counted in several backends: pg_stat_force_next_flush() concerns them all.

#ifndef SLUICE_PG_SESSION_STATISTICS_HPP
#define SLUICE_PG_SESSION_STATISTICS_HPP

#include <cstdint>

namespace sluice::pg {

// After each transaction.
void report_statistics();

// When the client is about to be given back: its next transaction may be counted
// elsewhere.  Only while other backends of the pool have nothing to do, since
// handing over costs a few microseconds, and not for clients that connect for one
// transaction.
void report_statistics_at_parting();

// While nothing is to be done: hands over what is due, or was asked for, to the
// server and to sluice.applications.
void flush_due_statistics();

// When the former will be due (monotonic microseconds), -1 = nothing is pending.
std::int64_t statistics_deadline_us();

// The client has called pg_stat_force_next_flush(): makes the other backends of
// the pool hand over their counts too, and waits until those that are not
// executing anything have done so, at most a second.
void force_flush_in_pool();

}  // namespace sluice::pg

#endif
