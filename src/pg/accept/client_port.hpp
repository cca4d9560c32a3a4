// SPDX-License-Identifier: PostgreSQL
//
// Addresses and socket options of an accepted client.

#ifndef SLUICE_PG_ACCEPT_CLIENT_PORT_HPP
#define SLUICE_PG_ACCEPT_CLIENT_PORT_HPP

#include "pg/compat.hpp"

extern "C" {
#include "libpq/libpq-be.h"
}

#include "core/pool/shared_state.hpp"

namespace sluice::pg {

// Fills socket, addresses and host names (numeric) of `port` and applies
// tcp_keepalives_* and tcp_user_timeout.
void prepare_port(Port *port, int descriptor, const SockAddr &peer);

// The compact form kept in the client's slot.
void remember_address(ClientAddress *target, const SockAddr &address);

}  // namespace sluice::pg

#endif
