// SPDX-License-Identifier: PostgreSQL
//
// The numbers of one pool, added up over the backends it has and had.

#ifndef SLUICE_CORE_STATS_POOL_TOTALS_HPP
#define SLUICE_CORE_STATS_POOL_TOTALS_HPP

#include <cstdint>

#include "core/pool/shared_state.hpp"
#include "core/stats/lease_statistics.hpp"

namespace sluice {

// Has `read()` read the numbers of a pool, own and backends', again and again until
// the dispatcher has moved none of them meanwhile, or often enough.
template <typename Read>
void read_between_folds(const PoolSlot &pool, Read read) noexcept {
  constexpr int kAttempts = 100;
  for (int attempt = 0; attempt < kAttempts; attempt++) {
    const std::uint32_t folds = pool.folds.load(std::memory_order_acquire);
    read();
    std::atomic_thread_fence(std::memory_order_acquire);
    if (folds % 2 == 0 && pool.folds.load(std::memory_order_relaxed) == folds) return;
  }
}

// What the backends that a pool had before have left it; null if that is from before
// the epoch, that is from before a reset.
inline const LeaseTotals *totals_of_retired(const PoolSlot &pool, std::uint32_t epoch) noexcept {
  return pool.retired_epoch.load(std::memory_order_acquire) == epoch ? &pool.retired : nullptr;
}

// Adds up pool `index` into `totals`, which is overwritten.  Without the times it
// costs a few microseconds, with them about ten for each backend.
void collect_pool_totals(const SharedState &state, std::uint32_t index, bool with_times, PoolTotals &totals) noexcept;

// A client has waited for so long in vain.  By the dispatcher.
void record_given_up(PoolSlot &pool, std::uint64_t waited_us) noexcept;

// Moves the numbers of a backend that has ended to its pool.  By the dispatcher.
void fold_into_pool(PoolSlot &pool, LeaseStatistics &backend) noexcept;

// Starts a pool's numbers from zero, those of its backends included.
void reset_pool_totals(PoolSlot &pool) noexcept;

}  // namespace sluice

#endif
