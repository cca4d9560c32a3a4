// SPDX-License-Identifier: PostgreSQL
//
// A client on its way in: from accept() until it enters its pool or is refused.

#ifndef SLUICE_PG_ACCEPT_LOGIN_HPP
#define SLUICE_PG_ACCEPT_LOGIN_HPP

#include "pg/compat.hpp"

extern "C" {
#include "libpq/pqcomm.h"
}

#include <cstdint>

#include "core/pool/shared_state.hpp"

namespace sluice::pg {

void open_logins();

// A socket has been accepted from `peer`.  Takes the descriptor, whatever happens.
void begin_login(int descriptor, const SockAddr &peer);

// The dispatcher begins another round of events.
void begin_turn_of_logins();

// A client in state authenticating has sent something or has gone.
void continue_login(ClientRef client);

// Logins that wait for the host names of their clients: takes what has been found out,
// and sees to it that somebody looks.  To be called before each wait.
void continue_parked_logins(std::int64_t now_us);

// Lets those in who have waited for a pool's slot to become free.  True if some
// still wait.
bool retry_admissions(std::int64_t now_us);

// How often that is worth while.
constexpr std::int64_t kAdmissionRetryUs = 10000;

// Ends logins that take longer than authentication_timeout.  Returns the time
// until the next deadline in microseconds, or -1 when nobody is logging in.
std::int64_t expire_logins(std::int64_t now_us);

}  // namespace sluice::pg

#endif
