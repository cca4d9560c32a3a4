// SPDX-License-Identifier: PostgreSQL
//
// sluice.pressure: a row for each thing that can run out.
//
// What is in use is read now; peak and trend are what the statistician has noted
// (pg/stats/resource_sampler), so the peak is never less than what is in use.  The
// verdict of a pool's slots is that of pool_diagnosis, of all else that of
// core/stats/pressure.

#include "pg/stats/view_row.hpp"

extern "C" {
#include "lib/stringinfo.h"
#include "miscadmin.h"
}

#include "core/stats/pressure.hpp"
#include "pg/shared_memory.hpp"
#include "pg/stats/pool_diagnosis.hpp"
#include "pg/stats/resource_readings.hpp"
#include "pg/stats/resource_sampler.hpp"
#include "pg/stats/snapshot.hpp"
#include "pg/tuning/system_files.hpp"

namespace sluice::pg {

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

struct ResourceShown {
  Resource resource;
  ResourceUse use;
  TimestampTz peak_at;
  TimestampTz since;
};

void add_history(ResourceShown &shown, const ResourceTrack &track, ResourceEra era, TimestampTz now) {
  const ResourceHistory history = track.read(era);
  ResourceUse &use = shown.use;
  const double highest = Max(use.used, static_cast<double>(track.raised.load(kRelaxed)));
  const bool peak_is_past = history.has_peak && history.peak >= highest;
  use.peak = peak_is_past ? history.peak : highest;
  shown.peak_at = peak_is_past ? history.peak_at : now;
  use.has_trend = history.has_trend;
  use.trend_per_minute = history.trend_per_minute;
}

void put_resource(ViewRow &row, const ResourceShown &shown, const PoolNames *pool) {
  const ResourceUse &use = shown.use;
  start_row(row);
  put_text(row, name_of(shown.resource));
  put_name_or_null(row, pool != nullptr ? pool->database : "", pool != nullptr);
  put_name_or_null(row, pool != nullptr ? pool->role : "", pool != nullptr);
  put_rounded(row, use.used, 3, use.known);
  put_double_or_null(row, use.maximum, use.maximum >= 0);
  put_rounded(row, use.ratio(), 4, use.known && use.maximum > 0);
  put_text(row, unit_of(shown.resource));
  put_rounded(row, use.peak, 3, use.known);
  put_timestamp(row, use.known ? shown.peak_at : 0);
  put_timestamp(row, shown.since);
  const Trend trend = judge_trend(kind_of(shown.resource), use);
  put_text_or_null(row, describe(trend), trend != Trend::unknown);
  put_rounded(row, use.trend_per_minute, 3, trend != Trend::unknown);
}

void put_verdict(ViewRow &row, const ResourceShown &shown, const char *reason) {
  char words[400];
  TextWriter text(words, sizeof(words));
  describe(judge_pressure(kind_of(shown.resource), shown.use), shown.resource, reason, text);
  put_text(row, words);
}

void show_server(FunctionCallInfo fcinfo, TimestampTz now) {
  const SharedHeader &header = *shared().header;
  ResourceReading readings[kServerResources];
  const TimestampTz reset_at = header.resources_since_at.load(kRelaxed);
  read_server_resources(readings, true);
  for (std::size_t i = 0; i < kServerResources; i++) {
    ResourceShown shown{};
    shown.resource = static_cast<Resource>(i);
    shown.use.known = readings[i].known;
    shown.use.used = readings[i].used;
    shown.use.maximum = readings[i].maximum;
    shown.since = reset_at != 0 ? reset_at : header.started_at.load(kRelaxed);
    if (shown.use.known) add_history(shown, header.resources[i], server_era(), now);
    ViewRow row;
    put_resource(row, shown, nullptr);
    put_verdict(row, shown, shown.use.known ? nullptr : shown_system_text(readings[i].reason));
    emit_row(fcinfo, row);
  }
}

ResourceShown pool_resource(Resource resource, const PoolSlot &pool, double used, double maximum) {
  ResourceShown shown{};
  shown.resource = resource;
  shown.use.known = true;
  shown.use.used = used;
  shown.use.maximum = maximum;
  shown.since = pool.statistics_since_at.load(kRelaxed);
  return shown;
}

void show_pool(FunctionCallInfo fcinfo, std::uint32_t index, const PoolUse &use, TimestampTz now,
               LockLookups &lookups) {
  const PoolSlot &pool = shared().pools[index];
  const ResourceEra era = pool_era(pool.generation.load(std::memory_order_acquire));
  PoolNames names;
  if (!copy_pool_names(index, names)) {
    return;
  }
  ResourceShown slots =
      pool_resource(Resource::pool_slots, pool, use.busy, pool.max_size.load(kRelaxed));
  add_history(slots, pool.slots_in_use, era, now);
  StringInfoData verdict;
  initStringInfo(&verdict);
  append_pool_verdict(&verdict, index, lookups);

  ResourceShown waiting = pool_resource(Resource::wait_queue, pool, Max(pool.queued.load(kRelaxed), 0),
                                        static_cast<double>(kWaitQueueCapacity));
  add_history(waiting, pool.waiting, era, now);
  const double peak_waiting = pool.peak_waiting.load(kRelaxed);
  if (peak_waiting > waiting.use.peak) {
    waiting.use.peak = peak_waiting;
    waiting.peak_at = now;
  }

  ViewRow row;
  put_resource(row, slots, &names);
  put_text(row, verdict.data);
  emit_row(fcinfo, row);
  put_resource(row, waiting, &names);
  put_verdict(row, waiting, nullptr);
  emit_row(fcinfo, row);
}

}  // namespace

extern "C" {

PG_FUNCTION_INFO_V1(sluice_pressure);

PGDLLEXPORT Datum sluice_pressure(PG_FUNCTION_ARGS) {
  require_shared_memory();
  InitMaterializedSRF(fcinfo, 0);

  const std::uint32_t pools = shared().header->max_pools;
  const TimestampTz now = GetCurrentTimestamp();
  auto *uses = static_cast<PoolUse *>(palloc(pools * sizeof(PoolUse)));
  count_pool_use(uses);
  LockLookups lookups;  // the same backends may be in the way of many pools
  for (std::uint32_t i = 0; i < pools; i++) {
    CHECK_FOR_INTERRUPTS();
    show_pool(fcinfo, i, uses[i], now, lookups);
  }
  show_server(fcinfo, now);
  return static_cast<Datum>(0);
}

}  // extern "C"

}  // namespace sluice::pg
