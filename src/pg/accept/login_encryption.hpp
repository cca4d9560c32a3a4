// SPDX-License-Identifier: PostgreSQL
//
// The bytes of a login, encrypted or not, and how they come to be encrypted.
// Nothing here waits, and nothing raises but for want of memory; where a login ends,
// its client is forgotten.

#ifndef SLUICE_PG_ACCEPT_LOGIN_ENCRYPTION_HPP
#define SLUICE_PG_ACCEPT_LOGIN_ENCRYPTION_HPP

#include <sys/types.h>

#include "pg/accept/login_state.hpp"

namespace sluice::pg {

// As recv(): -1 and EAGAIN where it would block.
ssize_t receive(Login *login, void *target, std::size_t length);

// What the login has received from the network so far, for sluice.max_login_bytes.
std::int64_t bytes_received(const Login *login);

// All of it or false: an answer fits into an empty socket buffer.
bool send_all(Login *login, const char *bytes, int length);

// In one round of events only so many handshakes go on: another round begins.
void renew_handshakes();

// The packet is an SSLRequest or a GSSENCRequest.  False: it was asked before, and is
// a start-up packet of an unknown protocol.  True: answered; the login may have ended.
bool answer_encryption_request(Login *login);

// At the first byte: does the client begin with a handshake (sslnegotiation=direct)?
// False: nothing has come yet, or the login has ended.
bool look_for_handshake(Login *login);

// In the stage `handshake`.  True when it is over and the client can be read on.
// False: it wants more, has to wait for the next round, or the login has ended.
bool shake_hands(Login *login);

// Makes the client's descriptor one that anybody can read and write.  False, after a
// LOG message: there are no descriptors left for it; the login goes on.
bool clear_the_socket(Login *login);

}  // namespace sluice::pg

#endif
