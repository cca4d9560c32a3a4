// SPDX-License-Identifier: PostgreSQL
//
// The start-up packet of a login: who asks, for which database, with which settings.

#ifndef SLUICE_PG_ACCEPT_LOGIN_STARTUP_HPP
#define SLUICE_PG_ACCEPT_LOGIN_STARTUP_HPP

#include "pg/accept/login_state.hpp"

namespace sluice::pg {

// Takes over `login->packet`: fills the protocol, the names and application_name of
// the port, and appends the answer to an offer of another protocol to the output.
// Needs the login's context as the current one.  Raises ERROR with the server's words
// for a packet that is invalid (08P01), asks for an unknown protocol (0A000), names no
// user (28000) or wants replication (0A000; 22023 if that cannot be told).
void accept_startup_packet(Login *login);

// Appends the settings of the start-up packet as name, NUL, value, NUL.  What it
// allocates besides is in CurrentMemoryContext.  Raises ERROR 42601 for switches that
// the server would not take.
void collect_startup_settings(const Login *login, StringInfo settings);

}  // namespace sluice::pg

#endif
