// SPDX-License-Identifier: PostgreSQL
//
// The dispatcher's end of the control channels to its backends (control_channel.hpp).
// Nothing here raises.

#ifndef SLUICE_PG_POOL_CONTROL_SERVER_HPP
#define SLUICE_PG_POOL_CONTROL_SERVER_HPP

#include <cstdint>

#include "core/pool/shared_state.hpp"

namespace sluice::pg {

// The control listener has a new connection / a control channel has news.
void accept_control_channel(int listener);
void serve_control_channel(std::uint32_t backend);

// Sends a copy of the client's socket to a backend, or that it has gone.
void send_client(std::uint32_t backend, ClientRef client);

// If there is one.
void close_control_channel(std::uint32_t backend);

}  // namespace sluice::pg

#endif
