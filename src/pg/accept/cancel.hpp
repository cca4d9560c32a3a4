// SPDX-License-Identifier: PostgreSQL
//
// Cancel requests.  A client knows itself by a number and a key (BackendKeyData);
// which backend serves it changes.

#ifndef SLUICE_PG_ACCEPT_CANCEL_HPP
#define SLUICE_PG_ACCEPT_CANCEL_HPP

#include <cstdint>

#include "core/pool/shared_state.hpp"

namespace sluice::pg {

// What stands for the process id in BackendKeyData until a backend is bound to
// the client (session mode).  Never the id of a process on Linux (above
// kernel.pid_max), so that it cannot be mistaken for one.
std::uint32_t client_cancel_number(ClientRef client);

// A CancelRequest has arrived.  Says nothing to anyone, as the server.
void handle_cancel_request(std::uint32_t cancel_number, std::uint32_t key);

// Asks the backend that serves the client now to cancel its query; the backend
// compares the lease number, so a query of the next client is never hit.  False
// when nobody serves it.
bool cancel_query_of(std::uint32_t slot);

// Tells the backend that serves the client that the peer has gone.
void report_vanished(std::uint32_t slot);

}  // namespace sluice::pg

#endif
