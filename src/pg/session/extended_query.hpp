// SPDX-License-Identifier: PostgreSQL
//
// The extended query protocol: Parse, Bind, Describe, Execute, Close.  Each takes
// the body of its message and raises on error; the loop skips until Sync then.

#ifndef SLUICE_PG_SESSION_EXTENDED_QUERY_HPP
#define SLUICE_PG_SESSION_EXTENDED_QUERY_HPP

#include "pg/compat.hpp"

extern "C" {
#include "lib/stringinfo.h"
}

namespace sluice::pg {

// Once per process.
void open_extended_protocol();

void handle_parse(StringInfo message);
void handle_bind(StringInfo message);
void handle_describe(StringInfo message);
void handle_execute(StringInfo message);
void handle_close(StringInfo message);

}  // namespace sluice::pg

#endif
