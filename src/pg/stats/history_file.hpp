// SPDX-License-Identifier: PostgreSQL
//
// pg_stat/pg_sluice.stat: the history while the server is down.
//
// As other statistics of the server it is written at a clean shutdown and gone as
// soon as the server runs again: after a crash nothing old comes back, and a base
// backup of a running server does not contain it.

#ifndef SLUICE_PG_STATS_HISTORY_FILE_HPP
#define SLUICE_PG_STATS_HISTORY_FILE_HPP

namespace sluice::pg {

// Reads and removes the file, and sees to it that it is written when the server is
// shut down cleanly.  By the postmaster (or a server in single-user mode) with the
// segment just made; never fails: what is wrong with the file is logged.
void keep_history_in_file();

}  // namespace sluice::pg

#endif
