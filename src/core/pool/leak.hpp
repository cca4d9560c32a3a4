// SPDX-License-Identifier: PostgreSQL
//
// When a transaction that holds a backend is worth a word: it has done so for
// longer than sluice.leak_threshold, somebody needs the backend, and nothing has
// been said about it yet.

#ifndef SLUICE_CORE_POOL_LEAK_HPP
#define SLUICE_CORE_POOL_LEAK_HPP

#include <cstdint>

namespace sluice {

struct HoldObservation {
  std::int64_t held_us = 0;       // since the transaction began
  std::int64_t threshold_us = 0;  // 0 = never
  int waiting = 0;                // clients that could use the backend
  bool reported = false;          // this transaction, already
};

constexpr bool is_leak(const HoldObservation &hold) noexcept {
  return hold.threshold_us > 0 && hold.held_us >= hold.threshold_us && hold.waiting > 0 && !hold.reported;
}

}  // namespace sluice

#endif
