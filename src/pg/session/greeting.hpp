// SPDX-License-Identifier: PostgreSQL
//
// Receiving a client on this backend: who it is, its settings, and at the very
// first lease the rest of the start-up conversation.

#ifndef SLUICE_PG_SESSION_GREETING_HPP
#define SLUICE_PG_SESSION_GREETING_HPP

namespace sluice::pg {

// Once per process, after the connection to the database is up.
void open_reception();

// The client just leased becomes the one this process speaks for: socket, log
// prefix, pg_stat_activity, application_name, start-up settings.  Raises what a
// direct connection would raise about a start-up setting; such an error ends the
// client.
void receive_client(int descriptor);

// AuthenticationOk, parameters, cancel key.  ReadyForQuery is left to the loop.
void greet_client();

// Nobody is served any more.
void see_client_off();

}  // namespace sluice::pg

#endif
