// SPDX-License-Identifier: PostgreSQL
//
// A pooled backend's side of the hand-over: how it comes to a client and how it
// parts from one.

#ifndef SLUICE_PG_POOL_LEASE_HPP
#define SLUICE_PG_POOL_LEASE_HPP

#include "pg/compat.hpp"

#include "core/pool/shared_state.hpp"

namespace sluice::pg {

// Connects to the dispatcher and receives the pool's epoll set.  Raises FATAL.
void join_pool();

// Waits for a client of the pool and leases it: session.client is set, its
// socket is at hand (the returned descriptor).  Handles interrupts meanwhile; does
// not return if the backend is to retire.
int lease_client();

// Stays on the client between transactions as long as nobody needs this backend.
// True: the client has sent something, or its stream has ended.  False: the
// backend is wanted elsewhere; give the client back.
bool linger_on_client(std::int64_t deadline_us);

// Puts the client back into the idle set.
void give_back_client();

// The client leaves for good; its socket is shut down and the dispatcher told.
void dismiss_leased_client();

}  // namespace sluice::pg

#endif
