// SPDX-License-Identifier: PostgreSQL
//
// What a pooled backend knows about itself and the client it serves.  One per
// process; the files of this room share it.

#ifndef SLUICE_PG_SESSION_SESSION_HPP
#define SLUICE_PG_SESSION_SESSION_HPP

#include "pg/compat.hpp"

#include <csignal>
#include <cstdint>

#include "core/pool/shared_state.hpp"

namespace sluice::pg {

struct Session {
  // The backend.
  std::uint32_t index = 0;
  BackendSlot *backend = nullptr;
  std::uint32_t pool_index = 0;
  PoolSlot *pool = nullptr;

  // Its client, if any.
  ClientSlot *client = nullptr;
  ClientRef client_ref;
  bool held = false;  // session mode: keeps the backend until it leaves
  std::uint32_t pins = 0;  // pin_bit(PinReason): why it keeps the backend for now

  // The protocol.
  bool transaction_started = false;   // a transaction command is open
  bool extended_message = false;      // an error now means: skip until Sync
  bool skip_until_sync = false;
  bool ready_for_query_due = false;
  bool reading_command = false;       // waiting for the client: an error now ends it
  bool end_client_on_error = false;   // the error under way ends the client
  bool cleaning_up = false;           // between clients: an error now ends the backend

  // Read by the signal handler; see interrupts.cpp.
  volatile sig_atomic_t in_query = 0;
  volatile std::uint64_t lease = 0;
  volatile sig_atomic_t mail = 0;            // SIGUSR2 has come
  volatile sig_atomic_t client_vanished = 0;  // and its stream has ended
  volatile sig_atomic_t told_to_leave = 0;    // disconnect_client
};

extern Session session;

inline void enter_state(BackendState state, std::int64_t now_us) {
  session.backend->state.store(static_cast<std::uint32_t>(state));
  session.backend->state_since_us.store(now_us, std::memory_order_relaxed);
}

// Raises an error that ends the client, not the backend: shown as FATAL.
#define ereport_client_end(...)           \
  do {                                    \
    session.end_client_on_error = true;   \
    ereport(ERROR, __VA_ARGS__);          \
  } while (0)

}  // namespace sluice::pg

#endif
