// SPDX-License-Identifier: PostgreSQL
//
// Errors for a client whose connection outlives, or never had, a process of its
// own.
//
// In PostgreSQL a FATAL error ends the process that serves the client.  Here one
// process serves many: what is fatal for a client must not be fatal for the
// dispatcher or the pooled backend.  So such errors are raised as ERROR and
// shown as FATAL.

#ifndef SLUICE_PG_ERROR_RESPONSE_HPP
#define SLUICE_PG_ERROR_RESPONSE_HPP

#include "pg/compat.hpp"

extern "C" {
#include "lib/stringinfo.h"
#include "utils/elog.h"
}

namespace sluice::pg {

// Appends an ErrorResponse with severity FATAL made of the primary message,
// detail, hint and SQLSTATE of `error`.
void append_fatal_response(StringInfo output, const ErrorData *error);

// The same for a client that speaks a protocol before 3.0.
void append_ancient_response(StringInfo output, const ErrorData *error);

// The same from parts; detail and hint may be null.
void append_fatal_response(StringInfo output, int sqlerrcode, const char *message, const char *detail,
                           const char *hint);

// Writes `error` to the server log the way a FATAL error of a client is written
// (severity, SQLSTATE, message, detail, hint, log-only detail).
void log_as_fatal(const ErrorData *error);

// From here on errors of this process can be shown as FATAL (installs a log
// hook, once).
void install_severity_hook();

// While true, every ERROR is shown and logged as FATAL.
void show_errors_as_fatal(bool on);

}  // namespace sluice::pg

#endif
