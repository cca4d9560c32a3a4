// SPDX-License-Identifier: PostgreSQL
//
// What a client has SET for its session, carried from backend to backend: all
// settings whose source is the session, the role, the session authorization, and
// which custom settings it has made up.
//
// The server's records are the truth.  They are read when the client is given
// back and written when another backend takes it, both outside any transaction:
// so what a transaction, a savepoint or SET LOCAL has changed is over by then,
// and nothing is looked up in catalogs (a value that has become invalid stays, as
// on a direct connection, until it is used).

#ifndef SLUICE_PG_SESSION_SESSION_SETTINGS_HPP
#define SLUICE_PG_SESSION_SESSION_SETTINGS_HPP

#include "pg/compat.hpp"

#include "core/pool/shared_state.hpp"

namespace sluice::pg {

// Once, after start.
void open_session_settings();

// Puts this client's settings into its store.  False when there is no memory:
// then nothing is changed.
bool store_session_settings();

// Makes this backend's session settings those of the client, in two steps with
// the client's start-up settings in between.  When they are the same, nothing is
// done.  Raises when a setting cannot be applied.
void withdraw_other_session_settings(const ClientSlot *client);
void establish_session_settings(const ClientSlot *client);

// RESET for everything, for no client.
void withdraw_session_settings();

// Frees what is stored (a client is forgotten).
void release_session_settings(ClientSlot *slot);

}  // namespace sluice::pg

#endif
