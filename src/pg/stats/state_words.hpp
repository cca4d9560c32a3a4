// SPDX-License-Identifier: PostgreSQL
//
// The words that views use for states: one lower-case word each, the name of
// the enumerator, so that a view, a test and the drawing in shared_state.hpp say
// the same.

#ifndef SLUICE_PG_STATS_STATE_WORDS_HPP
#define SLUICE_PG_STATS_STATE_WORDS_HPP

#include "core/pool/shared_state.hpp"

namespace sluice::pg {

constexpr const char *client_state_word(ClientState state) noexcept {
  switch (state) {
    case ClientState::free:
      return "free";
    case ClientState::authenticating:
      return "authenticating";
    case ClientState::ready:
      return "ready";
    case ClientState::leased:
      return "leased";
    case ClientState::idle:
      return "idle";
    case ClientState::closing:
      return "closing";
  }
  return "unknown";
}

constexpr const char *backend_state_word(BackendState state) noexcept {
  switch (state) {
    case BackendState::free:
      return "free";
    case BackendState::starting:
      return "starting";
    case BackendState::waiting:
      return "waiting";
    case BackendState::assigned:
      return "assigned";
    case BackendState::lingering:
      return "lingering";
    case BackendState::active:
      return "active";
    case BackendState::thinking:
      return "thinking";
    case BackendState::held:
      return "held";
    case BackendState::pinned:
      return "pinned";
    case BackendState::retiring:
      return "retiring";
    case BackendState::failed:
      return "failed";
  }
  return "unknown";
}

constexpr const char *pool_mode_word(PoolMode mode) noexcept {
  switch (mode) {
    case PoolMode::transaction:
      return "transaction";
    case PoolMode::session:
      return "session";
    case PoolMode::statement:
      return "statement";
  }
  return "unknown";
}

}  // namespace sluice::pg

#endif
