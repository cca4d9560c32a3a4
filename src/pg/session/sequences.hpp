// SPDX-License-Identifier: PostgreSQL
//
// currval(), lastval() and the values a session has fetched ahead of its
// sequences, carried from backend to backend.
//
// The server keeps them in a private hash table of each process.  At parting it
// is read and kept with the client; when the client comes to a backend that has
// something else in it, it is written.  SQL sees the server's own functions, so
// results, errors and privileges are the server's.

#ifndef SLUICE_PG_SESSION_SEQUENCES_HPP
#define SLUICE_PG_SESSION_SEQUENCES_HPP

#include "core/pool/shared_state.hpp"

namespace sluice::pg {

// Once per backend, connected to its database, no transaction open.  If the
// server's table turns out to be unlike what is known of it, says so in the log:
// clients that use sequences then stay on their backend (store_sequences).
void install_sequence_carrying();

// At parting, no transaction open: brings the client's table up to date.  Some
// ten nanoseconds when no sequence was used since load_sequences().  May open a
// short transaction; never raises.  False, and nothing has changed, if the
// client has to stay: no memory, or too many sequences.
bool store_sequences();

// A client, pooled in whatever mode, has come; no transaction open.  Makes the
// backend know what the client's table says, and nothing else; does nothing if
// it does.  May open a short transaction, and may raise.
void load_sequences();

// Frees the table of a client.  Whoever owns the slot.
void release_stored_sequences(ClientSlot *slot);

}  // namespace sluice::pg

#endif
