// SPDX-License-Identifier: PostgreSQL
//
// Values are read as for the view.  What they miss between two samples is taken
// from what is counted anyway: peaks of backends and of waiting clients, raised
// numbers, and for the slots of a pool the fact that somebody had to queue
// (core/stats/pressure.hpp, most_slots_in_use).

#include "pg/compat.hpp"

#include "pg/stats/resource_sampler.hpp"

extern "C" {
#include "utils/memutils.h"
#include "utils/timestamp.h"
}

#include "core/stats/pool_totals.hpp"
#include "pg/shared_memory.hpp"
#include "pg/stats/resource_readings.hpp"

namespace sluice::pg {

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr std::uint32_t kCostlyEvery = 10;  // samples

// What a pool had at the sample before.
struct PoolBefore {
  std::uint32_t generation;
  std::int32_t peak_backends;
  std::uint64_t waits;
};

struct {
  std::uint32_t samples;
  PoolUse *uses;          // [max_pools]
  PoolBefore *before;     // [max_pools]
  PoolTotals *totals;
} sampler;

void allocate() {
  if (sampler.totals != nullptr) return;
  const std::uint32_t pools = shared().header->max_pools;
  sampler.uses = static_cast<PoolUse *>(MemoryContextAllocZero(TopMemoryContext, pools * sizeof(PoolUse)));
  sampler.before = static_cast<PoolBefore *>(MemoryContextAllocZero(TopMemoryContext, pools * sizeof(PoolBefore)));
  sampler.totals = static_cast<PoolTotals *>(MemoryContextAllocZero(TopMemoryContext, sizeof(PoolTotals)));
}

void sample_server(std::int64_t now_us, TimestampTz now_at) {
  ResourceReading readings[kServerResources];
  read_server_resources(readings, sampler.samples % kCostlyEvery == 0);
  for (std::size_t i = 0; i < kServerResources; i++) {
    if (readings[i].known) {
      shared().header->resources[i].sample(server_era(), readings[i].used, readings[i].used, now_us, now_at);
    }
  }
}

std::int32_t most_slots(std::uint32_t index, const PoolUse &use) {
  const PoolSlot &pool = shared().pools[index];
  PoolBefore &before = sampler.before[index];
  const std::uint32_t generation = pool.generation.load(kRelaxed);
  const std::int32_t peak_backends = pool.peak_backends.load(kRelaxed);
  collect_pool_totals(shared(), index, false, *sampler.totals);
  const std::uint64_t waits = sampler.totals->waits;
  if (before.generation != generation) before = PoolBefore{};

  PoolSlotsSeen seen;
  seen.busy = use.busy;
  seen.backends = use.backends;
  seen.peak_backends = peak_backends > before.peak_backends ? peak_backends : 0;
  seen.resting = use.resting;
  seen.max_size = pool.max_size.load(kRelaxed);
  seen.queued = waits > before.waits || (waits < before.waits && waits > 0);  // less: after a reset
  before = PoolBefore{generation, peak_backends, waits};
  return most_slots_in_use(seen);
}

void sample_pool(std::uint32_t index, std::int64_t now_us, TimestampTz now_at) {
  PoolSlot &pool = shared().pools[index];
  const std::uint32_t generation = pool.generation.load(std::memory_order_acquire);
  if (!is_open(pool)) return;
  const PoolUse &use = sampler.uses[index];
  const std::int32_t most = most_slots(index, use);
  const std::int32_t queued = Max(pool.queued.load(kRelaxed), 0);
  const std::int32_t peak_waiting = pool.peak_waiting.load(kRelaxed);
  std::atomic_thread_fence(std::memory_order_acquire);
  if (pool.generation.load(kRelaxed) != generation) return;
  const ResourceEra era = pool_era(generation);
  pool.slots_in_use.sample(era, use.busy, most, now_us, now_at);
  pool.waiting.sample(era, queued, peak_waiting, now_us, now_at);
}

}  // namespace

ResourceEra server_era() { return {1, shared().header->resource_resets.load(kRelaxed)}; }

ResourceEra pool_era(std::uint32_t pool_generation) {
  return {Max(pool_generation, 1u), shared().header->resource_resets.load(kRelaxed)};
}

void sample_resources(std::int64_t now_us) {
  const TimestampTz now_at = GetCurrentTimestamp();
  allocate();
  sample_server(now_us, now_at);
  count_pool_use(sampler.uses);
  for (std::uint32_t i = 0; i < shared().header->max_pools; i++) {
    sample_pool(i, now_us, now_at);
  }
  sampler.samples++;
}

}  // namespace sluice::pg
