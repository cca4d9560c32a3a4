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

// Which values of these settings are in force in this process: for
// ClientSlot::socket_options, never 0.
std::uint32_t socket_options_in_force();

// The compact form kept in the client's slot.
void remember_address(ClientAddress *target, const SockAddr &address);

// And back: as a socket address, and as text (numeric; "[local]" and no port for a
// Unix socket).
void fill_socket_address(SockAddr *target, const ClientAddress &address);
void write_address(const ClientAddress &address, char *host, std::size_t host_size, char *port,
                   std::size_t port_size);

}  // namespace sluice::pg

#endif
