// SPDX-License-Identifier: PostgreSQL
//
// TLS on the socket of one client that logs in, without ever waiting for it.

#ifndef SLUICE_PG_ACCEPT_TLS_SESSION_HPP
#define SLUICE_PG_ACCEPT_TLS_SESSION_HPP

#include "pg/compat.hpp"

extern "C" {
#include "libpq/libpq-be.h"
}

#include <cstdint>
#include <sys/types.h>

#include "core/accept/tls_facts.hpp"

namespace sluice::pg {

// Lives in the memory context of its login, and ends with it unless its
// connection was handed to a relay.
struct TlsSession;

// The client has asked for TLS, or (`direct`) has begun without asking.  Null, after
// a LOG message, if that is impossible.  Reads and writes port->sock.
TlsSession *open_tls(Port *port, MemoryContext context, bool direct);

enum class Handshake { finished, wants_input, wants_output, failed };

// `failed`: the reason is in the log and in sluice.errors, and the client is to be
// dropped.  `finished`: ssl_in_use, ssl and peer... of the port are as the
// server's own code sets them.
Handshake continue_handshake(TlsSession *tls);

// As recv() and send(): -1 and EAGAIN where they would block.  A write is whole or
// fails; `length` is one login's answer and fits into one record.
ssize_t receive_decrypted(TlsSession *tls, void *target, std::size_t length);
ssize_t send_encrypted(TlsSession *tls, const void *bytes, std::size_t length);

// The kernel has the keys of both directions: the socket can be read and written
// like any other, and the two functions above are not to be called any more.
bool tls_is_in_kernel(const TlsSession *tls);

// Bytes the client has sent so far, the handshake included; 0 once the kernel decrypts.
std::uint64_t received_bytes(const TlsSession *tls);

// Tells the client that nothing follows.
void say_end_of_tls(TlsSession *tls);

void fill_tls_facts(const Port *port, TlsFacts *facts);

// The end of a client whose connection the kernel encrypts.
void say_end_of_kernel_tls(int descriptor);

#ifdef USE_OPENSSL
// What the dispatcher adds to the server's configuration.
void prepare_tls_context(SSL_CTX *context);

// Takes the connection out of the session; the caller frees it.
SSL *release_connection(TlsSession *tls);

// Changes of keys a client has asked for in one second.  Each costs the dispatcher some
// 50 us and the client nothing, and an honest one makes one in many gigabytes.
struct KeyChanges {
  std::int64_t since_us;
  int count;
};
constexpr int kMaxKeyChanges = 100;

// From now on the connection counts into `changes`, which outlives it or the next call.
void count_key_changes(SSL *connection, KeyChanges *changes);
bool has_too_many(const KeyChanges &changes);

// The next entry of OpenSSL's error queue, in its words.
const char *describe_tls_error(unsigned long code);
#endif

}  // namespace sluice::pg

#endif
