// SPDX-License-Identifier: PostgreSQL
//
// Giving the keys of a connection to the kernel (kTLS): then every process that
// has the socket reads and writes it as if it were not encrypted.

#ifndef SLUICE_PG_ACCEPT_TLS_KERNEL_HPP
#define SLUICE_PG_ACCEPT_TLS_KERNEL_HPP

#include "pg/compat.hpp"

extern "C" {
#include "libpq/libpq-be.h"
}

#ifdef USE_OPENSSL

namespace sluice::pg {

// The traffic secret of a TLS 1.3 client, from which its keys follow.
struct ClientSecret {
  unsigned char bytes[48];
  int length;  // 0 = none
};

// Before any handshake: lets OpenSSL hand over what it can by itself.  False where the
// kernel knows nothing of TLS: then nothing needs to be tried for each client.
bool allow_kernel_tls(SSL_CTX *context);

// A line of OpenSSL's key log (SSL_CTX_set_keylog_callback).
void keep_client_secret(ClientSecret *secret, const char *line);

// Right after the handshake, before anything else is read or written.  False where
// kernel, OpenSSL or cipher do not allow both directions; the connection then goes
// on through OpenSSL.
bool move_keys_to_kernel(SSL *connection, int descriptor, const ClientSecret *secret);

}  // namespace sluice::pg

#endif

#endif
