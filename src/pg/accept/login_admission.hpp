// SPDX-License-Identifier: PostgreSQL
//
// From an authenticated login to a client of a pool.

#ifndef SLUICE_PG_ACCEPT_LOGIN_ADMISSION_HPP
#define SLUICE_PG_ACCEPT_LOGIN_ADMISSION_HPP

#include "pg/accept/login_state.hpp"

namespace sluice::pg {

// Everything an authenticated client can be refused for; fills its slot, and returns
// the pool it belongs to.  kNoIndex: nothing has been stored, ask again soon, a pool's
// slot is about to become free.  Needs a transaction, and the login's context as the
// current one.  Raises ERROR: what authorize_login() raises, 53300 for the limits of
// the role, the database and the settings, 53400 for a pool too many, 53200 for want
// of shared memory, 42601 for the start-up packet's switches.
std::uint32_t admit(Login *login);

// "connection authorized", if log_connections says so.  Needs MyProcPort for the
// log's prefix.
void log_authorized(Login *login);

}  // namespace sluice::pg

#endif
