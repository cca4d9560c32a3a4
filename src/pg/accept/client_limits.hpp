// SPDX-License-Identifier: PostgreSQL
//
// Who may come in as far as numbers are concerned: how fast, how many that have not
// said yet who they are, how many of one address, role and database, and who may
// have the last slots.  Part of the dispatcher; see client_limits.cpp.

#ifndef SLUICE_PG_ACCEPT_CLIENT_LIMITS_HPP
#define SLUICE_PG_ACCEPT_CLIENT_LIMITS_HPP

#include "pg/compat.hpp"

extern "C" {
#include "libpq/pqcomm.h"
}

#include <cstdint>

#include "core/pool/shared_state.hpp"
#include "pg/auth/authorization.hpp"

namespace sluice::pg {

// After the client registry has been opened.
void open_client_limits();

// Before a socket is accepted: how long to wait for sluice.max_accept_rate, 0 = not
// at all.  A wait is counted and, now and then, logged.  Then: one has been accepted.
std::int64_t accept_wait_us();
void count_accept();

// accept() has failed for want of descriptors or memory: counted, and now and then
// logged.  The caller pauses.
void note_accept_failure(int error);

// Gives an accepted socket a slot (register_client), or tells it with a FATAL that
// there is none for it and closes it.
bool take_client_slot(int descriptor, const SockAddr &peer, ClientRef *client);

// The client has entered its pool.  The client leaves; `was_in`: it had entered one.
void client_came_in(ClientRef client);
void client_left(ClientRef client, bool was_in);

// Raises 53300 with the server's words when only slots reserved for others are left.
// Needs a transaction.
void require_unreserved_slot(const LoginTarget &target);

// Raises 53300 for sluice.max_clients_per_role and sluice.max_clients_per_database.
void check_clients_per_role_and_database(const LoginTarget &target);

// Are these more than a client may send before it is authenticated
// (sluice.max_login_bytes)?  And what it is told then: fills `error` with constants.
bool exceeds_login_bytes(std::int64_t bytes);
void describe_login_bytes(ErrorData *error);

}  // namespace sluice::pg

#endif
