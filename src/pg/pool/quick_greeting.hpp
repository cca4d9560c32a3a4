// SPDX-License-Identifier: PostgreSQL
//
// Greeting a client without a backend.
//
// What a new client is told (ParameterStatus) is the same for all clients of a
// pool that bring no settings of their own but application_name.  A backend of
// the pool publishes it; the dispatcher answers such clients by itself, so that
// connecting wakes no backend.  Everybody else is greeted by a backend, which
// alone can judge settings.

#ifndef SLUICE_PG_POOL_QUICK_GREETING_HPP
#define SLUICE_PG_POOL_QUICK_GREETING_HPP

#include "pg/compat.hpp"

extern "C" {
#include "lib/stringinfo.h"
}

#include <cstdint>

#include "core/pool/shared_state.hpp"

namespace sluice::pg {

// In a backend that has no client's settings in force.
void publish_greeting();

// In the dispatcher: appends parameters, cancel key and ReadyForQuery for the
// client.  False, with nothing appended, when a backend has to greet it.
bool append_greeting(std::uint32_t pool, ClientRef client, StringInfo output);

}  // namespace sluice::pg

#endif
