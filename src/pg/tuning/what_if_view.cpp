// SPDX-License-Identifier: PostgreSQL
//
// sluice.what_if(): the latest leases of a pool, replayed on other pool sizes
// (core/tuning/queue_replay).
//
// Each backend keeps its latest kLeaseRecords holds.  A busy one covers a shorter
// time than a quiet one, so only what all of them cover is replayed; and what
// backends that have ended had recorded is gone.  In transaction and statement
// mode a lease uses its backend only while it executes, because a backend whose
// client thinks does not count against the size of its pool.

#include "pg/stats/view_row.hpp"

extern "C" {
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
}

#include <algorithm>

#include "core/tuning/calibration.hpp"
#include "core/tuning/machine_snapshot.hpp"
#include "core/tuning/queue_replay.hpp"
#include "pg/shared_memory.hpp"
#include "pg/stats/snapshot.hpp"

namespace sluice::pg {

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr int kGreatestPoolSize = 10000;
constexpr int kMostSizes = 100;
constexpr std::size_t kFewLeases = 100;

struct Lease {
  std::int64_t ready_us;
  std::uint32_t hold_us;
  std::uint32_t waited_us;
};

struct Recording {
  RecordedLease *leases;
  std::int64_t *waits_us;  // as they were, in the same order
  std::size_t count;
  double window_s;
};

// Appends what this backend has recorded; advances the beginning of the time that
// all cover.
std::size_t copy_records(const LeaseStatistics &statistics, bool whole_hold, Lease *target, std::int64_t &begin_us) {
  const std::uint64_t recorded = statistics.recorded.load(std::memory_order_acquire);
  std::size_t count = 0;
  std::int64_t oldest_us = INT64_MAX;
  for (const LeaseRecord &record : statistics.records) {
    const std::int64_t ready_us = record.ready_us.load(kRelaxed);
    if (ready_us <= 0) continue;
    target[count++] = Lease{ready_us, (whole_hold ? record.hold_us : record.active_us).load(kRelaxed),
                            record.waited_us.load(kRelaxed)};
    oldest_us = Min(oldest_us, ready_us);
  }
  if (recorded > kLeaseRecords && oldest_us != INT64_MAX) begin_us = Max(begin_us, oldest_us);
  return count;
}

Recording record_of_pool(std::uint32_t index) {
  const SharedState &state = shared();
  const PoolSlot &pool = state.pools[index];
  const bool whole_hold = pool.mode.load(kRelaxed) == static_cast<std::int32_t>(PoolMode::session);
  const std::uint32_t epoch = pool.statistics_epoch.load();
  std::size_t backends = 0;
  for (std::uint32_t i = 0; i < state.header->backend_slots; i++) backends += state.backends[i].pool.load() == index;

  Recording recording{};
  auto *leases = static_cast<Lease *>(palloc_extended((backends * kLeaseRecords + 1) * sizeof(Lease), MCXT_ALLOC_HUGE));
  std::int64_t begin_us = 0;
  for (std::uint32_t i = 0; i < state.header->backend_slots && backends > 0; i++) {
    if (state.backends[i].pool.load() != index || state.statistics[i].epoch.load() != epoch) continue;
    recording.count += copy_records(state.statistics[i], whole_hold, leases + recording.count, begin_us);
    backends--;
  }
  std::sort(leases, leases + recording.count,
            [](const Lease &one, const Lease &other) { return one.ready_us < other.ready_us; });
  const Lease *first = std::lower_bound(leases, leases + recording.count, begin_us,
                                        [](const Lease &lease, std::int64_t us) { return lease.ready_us < us; });
  recording.count -= static_cast<std::size_t>(first - leases);
  recording.leases = static_cast<RecordedLease *>(
      palloc_extended((recording.count + 1) * sizeof(RecordedLease), MCXT_ALLOC_HUGE));
  recording.waits_us =
      static_cast<std::int64_t *>(palloc_extended((recording.count + 1) * sizeof(std::int64_t), MCXT_ALLOC_HUGE));
  for (std::size_t i = 0; i < recording.count; i++) {
    recording.leases[i] = RecordedLease{first[i].ready_us, first[i].hold_us};
    recording.waits_us[i] = first[i].waited_us;
  }
  if (recording.count > 1)
    recording.window_s =
        static_cast<double>(first[recording.count - 1].ready_us - first[0].ready_us) / 1000000.0;
  std::sort(recording.waits_us, recording.waits_us + recording.count);
  return recording;
}

const char *note_on(const Recording &recording, const ReplayAnswer &answer, bool is_current) {
  // A handful of leases is an anecdote.
  const std::string_view verdict = recording.count > 0 && recording.count < kFewLeases
                                       ? std::string_view("too few leases to tell")
                                       : describe(answer.verdict);
  if (!is_current || recording.count == 0)
    return psprintf("%.*s", static_cast<int>(verdict.size()), verdict.data());
  const auto recorded = [&recording](double fraction) {
    const auto rank = static_cast<std::size_t>(fraction * static_cast<double>(recording.count));
    return recording.waits_us[Min(rank, recording.count - 1)];
  };
  return psprintf("%.*s; as recorded: p50 " INT64_FORMAT ", p95 " INT64_FORMAT ", p99 " INT64_FORMAT " us",
                  static_cast<int>(verdict.size()), verdict.data(), recorded(0.50), recorded(0.95), recorded(0.99));
}

void emit_answer(FunctionCallInfo fcinfo, const PoolNames &names, int size, int current, const Recording &recording,
                 const ReplayAnswer &answer) {
  const bool known = has_numbers(answer.verdict);
  ViewRow row;
  start_row(row);
  put_name_or_null(row, names.database, true);
  put_name_or_null(row, names.role, true);
  put_int(row, size);
  put_bool(row, size == current);
  put_bigint(row, recording.count);
  put_rounded(row, recording.window_s, 3);
  put_rounded(row, answer.wait_mean_us, 1, known);
  for (const std::int64_t percentile :
       {answer.wait_p50_us, answer.wait_p95_us, answer.wait_p99_us, answer.wait_max_us})
    put_bigint_or_null(row, static_cast<std::uint64_t>(percentile), known);
  put_rounded(row, answer.waited_share, 4, known);
  put_rounded(row, answer.utilisation, 4, known);
  put_bigint_or_null(row, answer.greatest_queue, known);
  put_text(row, note_on(recording, answer, size == current));
  emit_row(fcinfo, row);
}

struct Sizes {
  int sizes[kMostSizes + 1];
  int count;
};

Sizes given_sizes(ArrayType *array) {
  Sizes sizes{};
  Datum *elements;
  bool *nulls;
  int count;
  deconstruct_array(array, INT4OID, sizeof(std::int32_t), true, TYPALIGN_INT, &elements, &nulls, &count);
  if (count > kMostSizes)
    ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("too many pool sizes: at most %d", kMostSizes)));
  for (int i = 0; i < count; i++) {
    const std::int32_t size = nulls[i] ? 0 : DatumGetInt32(elements[i]);
    if (size < 1 || size > kGreatestPoolSize)
      ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                      errmsg("pool sizes must be between 1 and %d", kGreatestPoolSize)));
    sizes.sizes[sizes.count++] = size;
  }
  return sizes;
}

// Around what there is.
Sizes chosen_sizes(int current) {
  Sizes sizes{};
  const CalibrationSizes usual = choose_calibration_sizes(
      shared().header->machine.rule_size.load(), static_cast<int>(shared().header->max_backends));
  for (std::size_t i = 0; i < usual.count; i++) sizes.sizes[sizes.count++] = usual.sizes[i];
  sizes.sizes[sizes.count++] = current;
  std::sort(sizes.sizes, sizes.sizes + sizes.count);
  sizes.count = static_cast<int>(std::unique(sizes.sizes, sizes.sizes + sizes.count) - sizes.sizes);
  return sizes;
}

void replay_pool(FunctionCallInfo fcinfo, std::uint32_t index, const PoolNames &names, ArrayType *array) {
  const int current = shared().pools[index].max_size.load(kRelaxed);
  const Recording recording = record_of_pool(index);
  const Sizes sizes = array != nullptr ? given_sizes(array) : chosen_sizes(current);
  ReplayScratch scratch;
  scratch.free_at_count = kGreatestPoolSize;
  scratch.free_at_us = static_cast<std::int64_t *>(palloc(scratch.free_at_count * sizeof(std::int64_t)));
  scratch.waits_count = recording.count;
  scratch.waits_us = static_cast<std::int64_t *>(
      palloc_extended((recording.count + 1) * sizeof(std::int64_t), MCXT_ALLOC_HUGE));
  for (int i = 0; i < sizes.count; i++) {
    ReplayQuestion question;
    question.backends = static_cast<std::size_t>(sizes.sizes[i]);
    CHECK_FOR_INTERRUPTS();
    emit_answer(fcinfo, names, sizes.sizes[i], current, recording,
                replay_queue(recording.leases, recording.count, question, scratch));
  }
  pfree(scratch.free_at_us);
  pfree(scratch.waits_us);
  pfree(recording.leases);
  pfree(recording.waits_us);
}

bool matches(const char *wanted, const char *name) { return wanted == nullptr || strcmp(wanted, name) == 0; }

}  // namespace

extern "C" {

PG_FUNCTION_INFO_V1(sluice_what_if);

PGDLLEXPORT Datum sluice_what_if(PG_FUNCTION_ARGS) {
  require_shared_memory();
  InitMaterializedSRF(fcinfo, 0);

  ArrayType *sizes = PG_ARGISNULL(0) ? nullptr : PG_GETARG_ARRAYTYPE_P(0);
  const char *database = PG_ARGISNULL(1) ? nullptr : text_to_cstring(PG_GETARG_TEXT_PP(1));
  const char *role = PG_ARGISNULL(2) ? nullptr : text_to_cstring(PG_GETARG_TEXT_PP(2));
  for (std::uint32_t i = 0; i < shared().header->max_pools; i++) {
    PoolNames names;
    if (copy_pool_names(i, names) && matches(database, names.database) && matches(role, names.role))
      replay_pool(fcinfo, i, names, sizes);
  }
  return static_cast<Datum>(0);
}

}  // extern "C"

}  // namespace sluice::pg
