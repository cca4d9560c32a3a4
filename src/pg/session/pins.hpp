// SPDX-License-Identifier: PostgreSQL
//
// Session state that cannot be carried, and so binds its client to one backend
// while it exists (core/session/pin.hpp), and taking it away from a client that
// leaves.

#ifndef SLUICE_PG_SESSION_PINS_HPP
#define SLUICE_PG_SESSION_PINS_HPP

#include "pg/compat.hpp"

#include "core/session/pin.hpp"

namespace sluice::pg {

// Once, after start.
void open_pins();

// Looks what of it there is after a transaction, and says so in session.pins, in
// the client's slot, the pool's counters and, with sluice.log_pins, the log.  No
// transaction may be open; one is opened when temporary objects have to be looked
// for.
void update_pins();

// There is no memory to carry something: the client stays until there is.
void pin_for_lack_of_memory();

// Ends a client that was pinned and idle for longer than sluice.pin_timeout.
void raise_pin_timeout();

// Takes everything away that a client has left, also what is carried for those
// who stay.  `everything`: a client of a session-mode pool, whose statements and
// cursors are the server's own.  Returns false if something remains that only a
// new process gets rid of.
bool release_session_state(bool everything);

// True when this backend has collected so much from clients that have gone that
// it should make way for a new one.
bool renewal_is_due();

// A cursor of this name is being declared WITH HOLD.
void note_held_cursor(const char *name);

bool has_temporary_slots();

// The temporary schema of this process, InvalidOid while it has none.  Once made it
// stays, also when it is empty.
Oid temporary_schema();

}  // namespace sluice::pg

#endif
