// SPDX-License-Identifier: PostgreSQL
//
// The server's own TLS configuration, as the dispatcher uses it.

#ifndef SLUICE_PG_ACCEPT_TLS_CONTEXT_HPP
#define SLUICE_PG_ACCEPT_TLS_CONTEXT_HPP

#include "pg/compat.hpp"

extern "C" {
#include "libpq/libpq-be.h"
}

namespace sluice::pg {

// In _PG_init: keeps the context the postmaster loads at server start.
void keep_server_tls_context();

// In the dispatcher, at its start and after a reload of the settings: loads what
// the settings say now.  What cannot be loaded is logged by the server's own code;
// then the former configuration stays in force, at first that of the server's start.
void load_tls_context();

// Whether clients are offered TLS.
bool tls_is_offered();

#ifdef USE_OPENSSL
// Owned by this file; null unless TLS is offered.
SSL_CTX *tls_context();
#endif

}  // namespace sluice::pg

#endif
