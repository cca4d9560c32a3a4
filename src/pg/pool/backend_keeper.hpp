// SPDX-License-Identifier: PostgreSQL
//
// The dispatcher's side of pooled backends: starting, retiring and burying them.

#ifndef SLUICE_PG_POOL_BACKEND_KEEPER_HPP
#define SLUICE_PG_POOL_BACKEND_KEEPER_HPP

#include "pg/compat.hpp"

#include <cstdint>

#include "core/pool/growth_governor.hpp"
#include "core/pool/shared_state.hpp"

namespace sluice::pg {

// How the backends of a pool spend this moment.
struct PoolCensus {
  int active = 0, idle = 0, thinking = 0, held = 0, pinned = 0, starting = 0, failed = 0;
  int resting_and_staying = 0;  // of those that think or are pinned, not told to leave
  int brief = 0;  // of these, clients that have been thinking for less than kBriefThoughtUs
  std::int64_t longest_thinking_us = 0;
  std::int32_t longest_thinking_pid = 0;
  std::int64_t longest_pinned_us = 0;
  std::int32_t longest_pinned_pid = 0;
  std::uint32_t longest_pinned_reasons = 0;  // pin_bit(PinReason)
};
PoolCensus take_census(std::uint32_t pool, std::int64_t now_us);

// Asks the governor whether the pool needs another backend, and does as it says.
void govern_growth(std::uint32_t pool, std::int64_t now_us);

// Tells backends to leave whose time has come.
void govern_retirement(std::uint32_t pool, std::int64_t now_us);

// Every backend of the pool that has not been told so is to leave.
void retire_pool_backends(std::uint32_t pool, RetireReason reason);

// The same for those that were started before the role or the database got the
// settings it has now: with a lower number of PoolSlot::role_setting_changes.
void retire_outdated_backends(std::uint32_t pool, std::uint64_t role_setting_changes);

// Takes notice of workers that have ended.
void bury_dead_backends(std::int64_t now_us);

}  // namespace sluice::pg

#endif
