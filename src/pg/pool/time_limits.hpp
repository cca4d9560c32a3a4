// SPDX-License-Identifier: PostgreSQL
//
// Ends of clients that no backend serves: waits that last too long, idle
// sessions, starts that failed.

#ifndef SLUICE_PG_POOL_TIME_LIMITS_HPP
#define SLUICE_PG_POOL_TIME_LIMITS_HPP

#include "pg/compat.hpp"

#include <cstdint>

namespace sluice::pg {

// Tells every client that waits for this pool why there is no backend, and ends it.
void fail_waiting_clients(std::uint32_t pool, int sqlerrcode, const char *message, const char *hint);

// A backend has ended without parting from its client: so ends the client.
void forget_clients_of_backend(std::uint32_t backend);

// acquire_timeout, idle_session_timeout, disconnect_client(), and what events
// have missed.
void scan_clients(std::int64_t now_us);

}  // namespace sluice::pg

#endif
