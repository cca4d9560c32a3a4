// SPDX-License-Identifier: PostgreSQL
//
// Authenticating a client, one message at a time, without ever waiting for it.

#ifndef SLUICE_PG_AUTH_AUTHENTICATION_HPP
#define SLUICE_PG_AUTH_AUTHENTICATION_HPP

#include "pg/compat.hpp"

extern "C" {
#include "lib/stringinfo.h"
#include "libpq/libpq-be.h"
}

namespace sluice::pg {

// (Re)reads pg_hba.conf and pg_ident.conf.  One that could not be read or has an
// error is reported in the log, and its former content stays in force; the other
// one is taken over all the same.  False if that is pg_hba.conf: at first, nobody
// gets in then.
// Call it when the dispatcher starts and on SIGHUP, outside a transaction (inside
// one does no harm).
bool load_authentication_rules();

// One exchange.  Lives, with all that belongs to it, in the memory context given
// to begin_authentication; deleting that context ends it, whatever has happened.
struct Authentication;

enum class AuthenticationStatus {
  wants_message,  // flush the output, then wait for a 'p' message
  wants_name,     // flush the output, look up the client's name (name_board.hpp), then begin again
  succeeded,      // the output ends with AuthenticationOk
};

// The two steps append complete messages to `output`.  They run in a transaction
// (read committed), each step in one of its own or not, and leave
// CurrentMemoryContext as it was.  A client that fails raises ERROR with the
// message and SQLSTATE of a direct connection, never FATAL; of `output` the first
// `*settled` bytes are to be sent all the same: whole messages that the server, too,
// would have sent before.  After an ERROR the exchange is over.
//
// `port` must stay valid until the end; user_name, database_name, raddr, sock,
// ssl_in_use, ssl, peer_cn, peer_dn, peer_cert_valid, gss and remote_hostname... are
// read.  Port::hba and Port::authn_id stay untouched.
AuthenticationStatus begin_authentication(Port *port, MemoryContext context, StringInfo output, int *settled,
                                          Authentication **result);

// `message` is the body of a 'p' message with the cursor at 0 and a NUL behind
// the last byte.
AuthenticationStatus continue_authentication(Authentication *authentication, StringInfo message, StringInfo output,
                                             int *settled);

// The largest length word (itself included) of the message that is wanted now.  A
// longer one must not be read.
int longest_authentication_message(const Authentication *authentication);

// For a client whose name is wanted and cannot be looked up: raises ERROR 53400.
[[noreturn]] void refuse_without_name();

// For a client that sends something other than a 'p' message: raises ERROR 08P01.
[[noreturn]] void refuse_message_type(const Authentication *authentication, int type);

// For a message that is too long, or ends before its length.  In the course of SASL
// the server says that authentication has failed; otherwise it says nothing.
bool answers_unreadable_message(const Authentication *authentication);
[[noreturn]] void refuse_unreadable_message(const Authentication *authentication);  // raises ERROR

}  // namespace sluice::pg

#endif
