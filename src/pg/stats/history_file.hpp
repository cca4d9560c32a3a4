// SPDX-License-Identifier: PostgreSQL
//
// pg_stat/pg_sluice.stat: the history while the server is down.
//
// As other statistics of the server it is written at a clean shutdown and gone as
// soon as the server runs again: after a crash nothing old comes back, and a base
// backup of a running server does not contain it.  A start that fails leaves it
// where it is, for the next one.

#ifndef SLUICE_PG_STATS_HISTORY_FILE_HPP
#define SLUICE_PG_STATS_HISTORY_FILE_HPP

namespace sluice::pg {

// Reads the file, or removes it if no history is to be saved, and sees to it that it
// is written when the server is shut down cleanly.  By the postmaster (or a server in
// single-user mode) with the segment just made; never fails: what is wrong with the
// file is logged.
void keep_history_in_file();

// Removes the file that was read.  By the statistician, before it says that it runs:
// while it does, shared memory is newer than any file.  Never raises.
void forget_history_file();

}  // namespace sluice::pg

#endif
