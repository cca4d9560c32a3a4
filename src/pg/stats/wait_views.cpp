// SPDX-License-Identifier: PostgreSQL
//
// sluice.waits: percentiles of what is timed, a row for each pool and measure.
// sluice.wait_histogram: the same recordings, bucket by bucket.
//
// Both show what collect_pool_totals() adds up over the pool's backends at this
// moment; recordings under way may be missing from one and not from the other.

#include "pg/stats/view_row.hpp"

#include "core/stats/pool_totals.hpp"
#include "pg/shared_memory.hpp"
#include "pg/stats/snapshot.hpp"

namespace sluice::pg {

namespace {

// The recordings of one pool; about 80 kB.
struct PoolTimes {
  PoolTotals totals;
  HistogramCounts of_the_dispatcher[kMeasures - kLeaseMeasures];

  const HistogramCounts &of(Measure measure) const {
    const auto index = static_cast<std::size_t>(measure);
    return index < kLeaseMeasures ? totals.times[index] : of_the_dispatcher[index - kLeaseMeasures];
  }
};

void collect_pool_times(std::uint32_t index, PoolTimes &times) {
  const PoolSlot &pool = shared().pools[index];
  collect_pool_totals(shared(), index, true, times.totals);
  const Histogram *const recorded[] = {&pool.start_us, &pool.authentication_us};
  static_assert(lengthof(recorded) == kMeasures - kLeaseMeasures);
  for (std::size_t i = 0; i < lengthof(recorded); i++) {
    memset(static_cast<void *>(&times.of_the_dispatcher[i]), 0, sizeof(HistogramCounts));
    times.of_the_dispatcher[i].add(*recorded[i]);
  }
}

void put_pool(ViewRow &row, const PoolNames &names, Measure measure) {
  start_row(row);
  put_name_or_null(row, names.database, true);
  put_name_or_null(row, names.role, true);
  put_text(row, describe(measure));
}

void show_percentiles(FunctionCallInfo fcinfo, const PoolNames &names, Measure measure, const HistogramCounts &counts,
                      TimestampTz since) {
  const bool recorded = counts.total > 0;
  const auto sum_us = static_cast<double>(counts.sum);
  ViewRow row;
  put_pool(row, names, measure);
  put_bigint(row, counts.total);
  put_double(row, sum_us / 1000.0);
  put_double_or_null(row, recorded ? sum_us / static_cast<double>(counts.total) : 0, recorded);
  for (const double fraction : {0.50, 0.90, 0.95, 0.99, 0.999, 0.9999}) {
    put_bigint_or_null(row, counts.percentile(fraction), recorded);
  }
  put_bigint_or_null(row, counts.max, recorded);
  put_timestamp(row, since);
  emit_row(fcinfo, row);
}

void show_buckets(FunctionCallInfo fcinfo, const PoolNames &names, Measure measure, const HistogramCounts &counts,
                  TimestampTz) {
  std::uint64_t reached = 0;
  for (std::size_t bucket = 0; bucket < kHistogramBuckets; bucket++) {
    if (counts.counts[bucket] == 0) {
      continue;
    }
    reached += counts.counts[bucket];
    ViewRow row;
    put_pool(row, names, measure);
    put_bigint(row, histogram_bucket_low(bucket));
    put_bigint_or_null(row, histogram_bucket_high(bucket), bucket + 1 < kHistogramBuckets);
    put_bigint(row, counts.counts[bucket]);
    put_double(row, static_cast<double>(reached) / static_cast<double>(counts.total));
    emit_row(fcinfo, row);
  }
}

template <typename Show>
void show_pools(FunctionCallInfo fcinfo, Show show) {
  const SharedState &state = shared();
  auto *times = static_cast<PoolTimes *>(palloc(sizeof(PoolTimes)));
  for (std::uint32_t i = 0; i < state.header->max_pools; i++) {
    const PoolSlot &pool = state.pools[i];
    const std::uint32_t generation = pool.generation.load(std::memory_order_acquire);
    PoolNames names;
    if (!copy_pool_names(i, names)) {
      continue;
    }
    collect_pool_times(i, *times);
    const TimestampTz since = pool.statistics_since_at.load(std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_acquire);
    if (pool.generation.load(std::memory_order_relaxed) != generation) {
      continue;
    }
    for (std::size_t measure = 0; measure < kMeasures; measure++) {
      show(fcinfo, names, static_cast<Measure>(measure), times->of(static_cast<Measure>(measure)), since);
    }
  }
}

}  // namespace

extern "C" {

PG_FUNCTION_INFO_V1(sluice_waits);

PGDLLEXPORT Datum sluice_waits(PG_FUNCTION_ARGS) {
  require_shared_memory();
  InitMaterializedSRF(fcinfo, 0);
  show_pools(fcinfo, show_percentiles);
  return static_cast<Datum>(0);
}

PG_FUNCTION_INFO_V1(sluice_wait_histogram);

PGDLLEXPORT Datum sluice_wait_histogram(PG_FUNCTION_ARGS) {
  require_shared_memory();
  InitMaterializedSRF(fcinfo, 0);
  show_pools(fcinfo, show_buckets);
  return static_cast<Datum>(0);
}

}  // extern "C"

}  // namespace sluice::pg
