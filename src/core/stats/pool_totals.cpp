// SPDX-License-Identifier: PostgreSQL
#include "core/stats/pool_totals.hpp"

namespace sluice {

namespace {

void add_up(const SharedState &state, std::uint32_t index, bool with_times, PoolTotals &totals) noexcept {
  const PoolSlot &pool = state.pools[index];
  const std::uint32_t epoch = pool.statistics_epoch.load(std::memory_order_acquire);
  if (const LeaseTotals *retired = totals_of_retired(pool, epoch)) {
    totals.add(*retired, with_times);
  }
  for (std::uint32_t i = 0; i < state.header->backend_slots; i++) {
    if (state.backends[i].pool.load(std::memory_order_relaxed) == index &&
        state.statistics[i].epoch.load(std::memory_order_acquire) == epoch) {
      totals.add(state.statistics[i].totals, with_times);
    }
  }
}

// The numbers of the pool itself: from zero, if it has been reset.
void keep_up(PoolSlot &pool, std::uint32_t epoch) noexcept {
  if (pool.retired_epoch.load(std::memory_order_relaxed) != epoch) {
    pool.retired.reset();
    pool.retired_epoch.store(epoch, std::memory_order_release);
  }
}

}  // namespace

void collect_pool_totals(const SharedState &state, std::uint32_t index, bool with_times, PoolTotals &totals) noexcept {
  read_between_folds(state.pools[index], [&]() noexcept {
    totals = PoolTotals{};
    add_up(state, index, with_times, totals);
  });
}

void record_given_up(PoolSlot &pool, std::uint64_t waited_us) noexcept {
  keep_up(pool, pool.statistics_epoch.load(std::memory_order_acquire));
  pool.retired.times[static_cast<std::size_t>(Measure::wait)].record_alone(waited_us);
}

void fold_into_pool(PoolSlot &pool, LeaseStatistics &backend) noexcept {
  const std::uint32_t epoch = pool.statistics_epoch.load(std::memory_order_acquire);
  // A dispatcher may have died in the middle, and left it odd.
  const std::uint32_t folding = pool.folds.load(std::memory_order_relaxed) | 1;
  pool.folds.store(folding, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (backend.epoch.load(std::memory_order_acquire) == epoch) {
    keep_up(pool, epoch);
    pool.retired.add(backend.totals);
  }
  // Also of one that was behind: the slot's next owner may be of a pool with just that epoch.
  backend.epoch.store(0, std::memory_order_relaxed);
  pool.folds.store(folding + 1, std::memory_order_release);
}

void reset_pool_totals(PoolSlot &pool) noexcept {
  std::uint32_t epoch = pool.statistics_epoch.load(std::memory_order_relaxed);
  std::uint32_t next;
  do {
    next = epoch + 1 == 0 ? 1 : epoch + 1;
  } while (!pool.statistics_epoch.compare_exchange_weak(epoch, next, std::memory_order_acq_rel));
  pool.start_us.reset();
  pool.authentication_us.reset();
}

}  // namespace sluice
