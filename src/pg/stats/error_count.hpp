// SPDX-License-Identifier: PostgreSQL
//
// Counting errors for the view sluice.errors; the table is core/stats/error_table.
//
// What is counted is what clients of the pooled port meet: each refusal by the
// dispatcher, each ErrorResponse of a backend, and the connections that were closed
// without a word because what they sent could not be understood.  Errors that
// functions catch, or that end a client which hears nothing of it any more, are not.
//
// Where: refuse_login(), log_protocol_violation() and refuse_socket() for clients
// on their way in; end_client() of the time limits for those that wait or are
// idle; the stream for those that have a backend, because every message of an
// error passes there, whoever raised it, and its text needs no copy of ErrorData.

#ifndef SLUICE_PG_STATS_ERROR_COUNT_HPP
#define SLUICE_PG_STATS_ERROR_COUNT_HPP

#include "pg/compat.hpp"

#include <cstddef>

#include "core/stats/error_table.hpp"

namespace sluice::pg {

// Never raises, never blocks, allocates nothing; any process.  `role`: who may see
// `message` beside readers of all statistics; InvalidOid: nobody.  `message` may be
// null.
void count_error(ErrorClass error_class, int sqlerrcode, Oid role, const char *message);

// The same for an ErrorResponse that is being sent to a client of `role`; `body`
// without type and length.
void count_told_error(const char *body, std::size_t length, Oid role);

// A client that could not log in, by what it is told.
ErrorClass class_of_refusal(int sqlerrcode);

}  // namespace sluice::pg

#endif
