// SPDX-License-Identifier: PostgreSQL
//
// One pool at a time, in turn, so that a server with many of them never spends
// more than a few milliseconds in one second on it.  A pool nobody has used since
// its last fit is passed over.  What was sampled before the statistics were reset
// does not count: somebody has changed something.

#include "pg/compat.hpp"

#include "pg/tuning/knee.hpp"

extern "C" {
#include "utils/memutils.h"
#include "utils/timestamp.h"
}

#include "core/stats/pool_sampler.hpp"
#include "core/tuning/knee_facts.hpp"
#include "core/tuning/load_windows.hpp"
#include "pg/shared_memory.hpp"

namespace sluice::pg {

constexpr std::int64_t kRefitUs = 10'000'000;
constexpr float kLongestSecond = 2;  // a mean over more says nothing about one level of load

static std::int64_t *last_fits_us = nullptr;         // [max_pools]
static std::int64_t *last_samples_at = nullptr;      // [max_pools], TimestampTz
static HistorySample *samples = nullptr;             // [kMostSamples]
static LoadSample *load = nullptr;                   // [kMostSamples]
static double *ratios = nullptr;                     // [kMostSamples]

static void allocate() {
  const std::size_t pools = shared().header->max_pools;
  last_fits_us = static_cast<std::int64_t *>(MemoryContextAllocZero(TopMemoryContext, pools * sizeof(std::int64_t)));
  last_samples_at = static_cast<std::int64_t *>(MemoryContextAllocZero(TopMemoryContext, pools * sizeof(std::int64_t)));
  samples =
      static_cast<HistorySample *>(MemoryContextAllocZero(TopMemoryContext, kMostSamples * sizeof(HistorySample)));
  load = static_cast<LoadSample *>(MemoryContextAllocZero(TopMemoryContext, kMostSamples * sizeof(LoadSample)));
  ratios = static_cast<double *>(MemoryContextAllocZero(TopMemoryContext, kMostSamples * sizeof(double)));
}

static std::size_t choose_samples(std::size_t count, std::int64_t since_at) {
  std::size_t chosen = 0;
  for (std::size_t i = 0; i < count; i++) {
    const HistorySample &sample = samples[i];
    if (sample.at <= since_at || sample.length_s > kLongestSecond) continue;
    load[chosen++] = LoadSample{sample.active, sample.transactions_per_second(), sample.statements_per_transaction(),
                                sample.blocks_per_transaction, sample.wal_records_per_transaction};
  }
  return chosen;
}

// In seconds in which most leases had to wait: the pool let in as many as it might.
static double look_at_saturated_seconds(std::size_t count, std::int64_t since_at) {
  std::size_t saturated = 0;
  for (std::size_t i = 0; i < count; i++) {
    const HistorySample &sample = samples[i];
    if (sample.at > since_at && sample.active > 0 && sample.max_size > 0 && sample.waits > sample.leases / 2)
      ratios[saturated++] = static_cast<double>(sample.active) / sample.max_size;
  }
  return find_active_per_slot(ratios, saturated);
}

static void refit(std::uint32_t index) {
  PoolSlot &pool = shared().pools[index];
  KneeFacts facts;
  facts.statistics_epoch = pool.statistics_epoch.load();
  facts.database_oid = pool.database_oid;
  facts.role_oid = pool.role_oid;
  const std::size_t count = copy_pool_history(shared(), pool.database_oid, pool.role_oid, samples, kMostSamples);
  if (count == 0 || samples[count - 1].at == last_samples_at[index]) return;
  last_samples_at[index] = samples[count - 1].at;

  const LoadWindows windows = choose_load_windows(load, choose_samples(count, pool.statistics_since_at.load()));
  facts.at = GetCurrentTimestamp();
  facts.fit = fit_scalability(windows.points, windows.count);
  facts.active_per_slot = look_at_saturated_seconds(count, pool.statistics_since_at.load());
  facts.used = windows.used;
  facts.other_mixes = windows.other_mixes;
  facts.too_quiet = windows.too_quiet;
  facts.statements_per_transaction = windows.statements_per_transaction;
  facts.blocks_per_transaction = windows.blocks_per_transaction;
  facts.wal_records_per_transaction = windows.writes_per_transaction;
  pool.knee.publish(facts);
}

void refit_pools(std::int64_t now_us) {
  const SharedState &state = shared();
  if (state.header->history_seconds == 0) return;
  if (samples == nullptr) allocate();

  // The one that has waited longest.
  std::uint32_t due = kNoIndex;
  for (std::uint32_t i = 0; i < state.header->max_pools; i++) {
    if (!is_open(state.pools[i])) continue;
    if (now_us - last_fits_us[i] >= kRefitUs && (due == kNoIndex || last_fits_us[i] < last_fits_us[due])) due = i;
  }
  if (due == kNoIndex) return;
  last_fits_us[due] = now_us;
  refit(due);
}

}  // namespace sluice::pg
