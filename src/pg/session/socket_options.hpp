// SPDX-License-Identifier: PostgreSQL
//
// tcp_keepalives_* and tcp_user_timeout on the sockets of clients.

#ifndef SLUICE_PG_SESSION_SOCKET_OPTIONS_HPP
#define SLUICE_PG_SESSION_SOCKET_OPTIONS_HPP

#include "pg/compat.hpp"

extern "C" {
#include "libpq/libpq-be.h"
}

#include "core/pool/shared_state.hpp"

namespace sluice::pg {

// `port` stands for another socket from now on: what the server had learnt about the
// last one is forgotten.
void forget_socket_options(Port *port);

// Makes the settings that are in force now, the client's own included, those of its
// socket.  Costs nothing where they are.  Never raises.
void follow_socket_options(Port *port, ClientSlot *client);

}  // namespace sluice::pg

#endif
