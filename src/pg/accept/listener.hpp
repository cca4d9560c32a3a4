// SPDX-License-Identifier: PostgreSQL
//
// The sockets pooled clients connect to.
//
// Not the server's own StreamServerPort(): its socket and lock files are
// registered for removal with the postmaster's in one list, and a worker that
// cleaned up after itself would remove the postmaster's.

#ifndef SLUICE_PG_ACCEPT_LISTENER_HPP
#define SLUICE_PG_ACCEPT_LISTENER_HPP

#include "pg/compat.hpp"

namespace sluice::pg {

constexpr int kMaxListeners = 64;

struct Listeners {
  int descriptors[kMaxListeners];
  int count;
};

// Opens all of sluice.listen_addresses and sluice.unix_socket_directories on
// sluice.port, non-blocking.  What cannot be opened is logged; returns false
// when nothing could be.
bool open_listeners(Listeners *listeners);

// Removes the Unix socket files.  Safe to call more than once.
void remove_listener_files();

}  // namespace sluice::pg

#endif
