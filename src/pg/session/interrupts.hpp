// SPDX-License-Identifier: PostgreSQL
//
// Signals of a pooled backend, and waiting without losing one.

#ifndef SLUICE_PG_SESSION_INTERRUPTS_HPP
#define SLUICE_PG_SESSION_INTERRUPTS_HPP

#include "pg/compat.hpp"

#include <cstdint>

struct epoll_event;

namespace sluice::pg {

void install_signal_handlers();

enum class Wake { ready, timed_out, interrupted };

// Wait for a socket, or for an event of an epoll set, until `deadline_us`
// (monotonic; -1 = without limit) or a signal.  After `interrupted`, call
// handle_interrupts() and look again.
Wake wait_for_socket(int descriptor, short events, std::int64_t deadline_us);
Wake wait_for_event(int epoll, epoll_event *event, std::int64_t deadline_us);

// Does what has come in while no command was being executed: ends the backend
// (SIGTERM), processes configuration reloads, cache invalidations, notifications,
// barriers; drops cancel requests (there is nothing to cancel).  May raise.
void handle_interrupts();

// A command begins: cancel requests count from now on, older ones do not.
void begin_query();
void end_query();

}  // namespace sluice::pg

#endif
