// SPDX-License-Identifier: PostgreSQL
//
// The client's next message, and the time limits on waiting for it.

#ifndef SLUICE_PG_SESSION_MESSAGE_READER_HPP
#define SLUICE_PG_SESSION_MESSAGE_READER_HPP

#include "pg/compat.hpp"

extern "C" {
#include "lib/stringinfo.h"
}

#include <cstdint>

namespace sluice::pg {

// The time of an idle timeout of timeout_ms from now on; -1 when it is off.
std::int64_t idle_deadline_us(int timeout_ms);

// Ends the client: idle_in_transaction_session_timeout or idle_session_timeout.
[[noreturn]] void raise_idle_timeout();

// Reads one message into `message` (empty).  Returns its type, or EOF when the
// client has gone or cannot be understood any more.  May raise; an error about the
// stream or a time limit ends the client.
int read_message(StringInfo message);

}  // namespace sluice::pg

#endif
