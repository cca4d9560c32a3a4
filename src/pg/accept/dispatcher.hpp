// SPDX-License-Identifier: PostgreSQL
//
// The dispatcher: one background worker that accepts and authenticates clients,
// owns their slots, creates and retires pooled backends and enforces time limits.

#ifndef SLUICE_PG_ACCEPT_DISPATCHER_HPP
#define SLUICE_PG_ACCEPT_DISPATCHER_HPP

#include <cstdint>

#include "core/pool/shared_state.hpp"

namespace sluice::pg {

// Registers the dispatcher with the postmaster.  Called once, from _PG_init.
void register_dispatcher();

// Forgets a client that waits or is idle if all it has left to say is goodbye.
bool end_if_gone(ClientRef client);

// The clocks of the product.  The coarse one costs a few nanoseconds and is a
// few milliseconds behind.
std::int64_t monotonic_us();
std::int64_t coarse_monotonic_us();

}  // namespace sluice::pg

#endif
