// SPDX-License-Identifier: PostgreSQL
//
// Whose slot a new pool gets when there are as many pools as there may be.
//
// A pool is kept when its last client has left: its backends are warm, its
// statistics are read.  It gives its slot away when somebody needs it, first one
// that nobody can come back to, then the one that has been without clients for
// longest.  One with clients never does.  Backends have to leave before, which
// takes a moment.

#ifndef SLUICE_CORE_POOL_POOL_REUSE_HPP
#define SLUICE_CORE_POOL_POOL_REUSE_HPP

#include <cstdint>

namespace sluice {

struct PoolUse {
  bool open = false;  // false: the slot is free
  bool gone = false;  // its database or its role does not exist any more
  int clients = 0;
  int backends = 0;                    // started or starting
  std::int64_t unused_since_us = 0;    // when its last client left, or it was made
};

enum class SlotAction {
  none = 0,  // every pool has clients
  take,      // at once
  vacate,    // tell its backends to leave; then it can be taken
};

struct SlotChoice {
  SlotAction action = SlotAction::none;
  std::uint32_t index = 0;
  PoolUse use;
};

// To be asked for one slot after the other, with the answer so far: keeps the best.
SlotChoice better_slot(const SlotChoice &best, std::uint32_t index, const PoolUse &use) noexcept;

// Whether a pool is to be closed although nobody needs its slot.
bool is_to_be_released(const PoolUse &use) noexcept;

}  // namespace sluice

#endif
