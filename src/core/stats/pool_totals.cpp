// SPDX-License-Identifier: PostgreSQL
#include "core/stats/pool_totals.hpp"

namespace sluice {

namespace {

constexpr int kAttempts = 100;

void add_up(const SharedState &state, std::uint32_t index, bool with_times, PoolTotals &totals) noexcept {
  const PoolSlot &pool = state.pools[index];
  totals.add(pool.retired, with_times);
  const std::uint32_t epoch = pool.statistics_epoch.load(std::memory_order_acquire);
  for (std::uint32_t i = 0; i < state.header->backend_slots; i++) {
    if (state.backends[i].pool.load(std::memory_order_relaxed) == index &&
        state.statistics[i].epoch.load(std::memory_order_acquire) == epoch) {
      totals.add(state.statistics[i].totals, with_times);
    }
  }
}

}  // namespace

void collect_pool_totals(const SharedState &state, std::uint32_t index, bool with_times, PoolTotals &totals) noexcept {
  const PoolSlot &pool = state.pools[index];
  for (int attempt = 0; attempt < kAttempts; attempt++) {
    totals = PoolTotals{};
    const std::uint32_t folds = pool.folds.load(std::memory_order_acquire);
    add_up(state, index, with_times, totals);
    std::atomic_thread_fence(std::memory_order_acquire);
    if (folds % 2 == 0 && pool.folds.load(std::memory_order_relaxed) == folds) {
      return;
    }
  }
}

void fold_into_pool(PoolSlot &pool, LeaseStatistics &backend) noexcept {
  if (backend.epoch.load(std::memory_order_acquire) != pool.statistics_epoch.load(std::memory_order_acquire)) {
    return;
  }
  pool.folds.fetch_add(1, std::memory_order_acq_rel);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  pool.retired.add(backend.totals);
  backend.epoch.store(0, std::memory_order_relaxed);
  pool.folds.fetch_add(1, std::memory_order_acq_rel);
}

void reset_pool_totals(PoolSlot &pool) noexcept {
  std::uint32_t epoch = pool.statistics_epoch.load(std::memory_order_relaxed);
  std::uint32_t next;
  do {
    next = epoch + 1 == 0 ? 1 : epoch + 1;
  } while (!pool.statistics_epoch.compare_exchange_weak(epoch, next, std::memory_order_acq_rel));
  pool.retired.reset();
  pool.start_us.reset();
  pool.authentication_us.reset();
}

}  // namespace sluice
