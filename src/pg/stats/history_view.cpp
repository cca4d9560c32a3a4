// SPDX-License-Identifier: PostgreSQL
//
// sluice.history: what is in the rings.
//
// A ring is copied whole before its rows are made, so that making them, which may
// take a while, does not race with the writer.  The context of a row is emptied
// after each: there may be hundreds of thousands.

#include "pg/stats/view_row.hpp"

extern "C" {
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
}

#include <cmath>

#include "core/stats/pool_sampler.hpp"
#include "pg/shared_memory.hpp"

namespace sluice::pg {

namespace {

// Samples keep less than a double: digits behind the sixth would be noise.
double to_millionths(double value) { return rint(value * 1e6) / 1e6; }

void put_mean(ViewRow &row, double value) { put_double_or_null(row, to_millionths(value), value >= 0); }

// Clients: never more than sluice.max_clients.
void put_count(ViewRow &row, std::uint32_t count) { put_int(row, static_cast<std::int32_t>(Min(count, PG_INT32_MAX))); }

void put_time(ViewRow &row, std::uint32_t time_us) { put_bigint_or_null(row, time_us, time_us != kUnknownTime); }

void put_numbers(ViewRow &row, const HistorySample &sample) {
  put_double(row, to_millionths(static_cast<double>(sample.length_s)));
  put_double(row, to_millionths(sample.transactions_per_second()));
  put_bigint(row, sample.transactions);
  put_bigint(row, sample.leases);
  put_bigint(row, sample.waits);
  put_bigint(row, sample.statements);
  put_bigint(row, sample.acquire_timeouts);
  put_bigint(row, sample.starts);
  put_bigint(row, sample.retirements);
  put_bigint(row, sample.clients_lost);
  put_mean(row, static_cast<double>(sample.active));
  put_mean(row, static_cast<double>(sample.thinking));
  put_time(row, sample.wait_p50_us);
  put_time(row, sample.wait_p99_us);
  put_time(row, sample.wait_max_us);
  put_count(row, sample.clients);
  put_count(row, sample.waiting);
  put_count(row, sample.peak_waiting);
  put_int(row, sample.backends);
  put_int(row, sample.starting);
  put_int(row, sample.in_transaction);
  put_int(row, sample.pinned);
  put_int(row, sample.peak_in_use);
  put_int(row, sample.max_size);
  put_mean(row, sample.statements_per_transaction());
  put_mean(row, static_cast<double>(sample.blocks_per_transaction));
  put_mean(row, static_cast<double>(sample.wal_records_per_transaction));
}

// The end of the time that is not asked for.
TimestampTz beginning(FunctionCallInfo fcinfo) {
  if (PG_ARGISNULL(0)) return 0;
  return DatumGetTimestampTz(DirectFunctionCall2(
      timestamptz_mi_interval, TimestampTzGetDatum(GetCurrentTimestamp()), PG_GETARG_DATUM(0)));
}

void emit_ring(FunctionCallInfo fcinfo, const HistoryOwner &owner, const HistorySample *samples, std::size_t count,
               TimestampTz after_at, MemoryContext context) {
  for (std::size_t i = 0; i < count; i++) {
    if (samples[i].at <= after_at) continue;
    ViewRow row;
    MemoryContext caller = MemoryContextSwitchTo(context);
    start_row(row);
    put_timestamp(row, samples[i].at);
    put_name_or_null(row, owner.database, true);
    put_name_or_null(row, owner.role, true);
    put_numbers(row, samples[i]);
    MemoryContextSwitchTo(caller);
    emit_row(fcinfo, row);
    MemoryContextReset(context);
    CHECK_FOR_INTERRUPTS();
  }
}

}  // namespace

extern "C" {

PG_FUNCTION_INFO_V1(sluice_history);

PGDLLEXPORT Datum sluice_history(PG_FUNCTION_ARGS) {
  require_shared_memory();
  InitMaterializedSRF(fcinfo, 0);

  const SharedState &state = shared();
  const std::size_t seconds = state.header->history_seconds;
  if (seconds == 0) return static_cast<Datum>(0);
  const TimestampTz after_at = beginning(fcinfo);
  auto *samples = static_cast<HistorySample *>(palloc(seconds * sizeof(HistorySample)));
  MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "history row", ALLOCSET_SMALL_SIZES);
  for (std::uint32_t i = 0; i < state.header->max_pools; i++) {
    HistoryOwner owner;
    std::size_t count = copy_ring(*state.history_ring(i), seconds, owner, samples, seconds);
    emit_ring(fcinfo, owner, samples, count, after_at, context);
  }
  return static_cast<Datum>(0);
}

}  // extern "C"

}  // namespace sluice::pg
