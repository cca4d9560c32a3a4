// SPDX-License-Identifier: PostgreSQL
//
// The statistician: what happens once a second.
//
// On each whole second of the wall clock it samples all pools for the history
// (core/stats/pool_sampler) and sees what they teach; when it starts, every kRefreshMs and after a reload it
// looks at the machine and publishes MachineFacts.
//
// Each wake-up is computed from the clock and not from the last one, so nothing
// adds up.  When it comes late or misses a second -the machine was busy, the look
// at the machine took long- the next sample is longer and says so; seconds are not
// made up.  Less than kShortestUs before a whole second it waits for the one after
// that: a sample of a few milliseconds would say little.  Lengths are of the
// monotonic clock, so that a wall clock that is set spoils the time of a sample
// only.
//
// It is attached to no database: the list of databases is a shared catalog, and
// their block counters are in the cumulative statistics, which need none.  Each
// look at them is a transaction of its own, so that its snapshot of the statistics
// is a new one and no old transaction is kept open.  It starts as soon as the server
// answers queries, on a hot standby too.
//
// If it dies or raises, the postmaster starts it again after kRestartSeconds;
// meanwhile everyone sees the facts it published last, and the first sample
// afterwards covers the time in between: what the counters were at the last one is
// in shared memory.

#include "pg/compat.hpp"

#include "pg/tuning/statistician.hpp"

extern "C" {
#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

PGDLLEXPORT void sluice_statistician_main(Datum argument);
}

#include "core/stats/pool_sampler.hpp"
#include "core/tuning/sizing.hpp"
#include "pg/accept/dispatcher.hpp"
#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"
#include "pg/tuning/knee.hpp"
#include "pg/stats/history_file.hpp"
#include "pg/stats/resource_sampler.hpp"
#include "pg/tuning/machine.hpp"

namespace sluice::pg {

namespace {

constexpr std::int64_t kSecondUs = 1'000'000;
constexpr std::int64_t kShortestUs = 500'000;
constexpr std::int64_t kShortestLastUs = 100'000;  // of a sample that a shutdown cuts short
constexpr std::int64_t kRefreshMs = 10000;
constexpr int kRestartSeconds = 5;

struct BlockCounts {
  std::int64_t fetched = 0;
  std::int64_t hit = 0;

  void add(Oid database) {
    fetched += DatumGetInt64(DirectFunctionCall1(pg_stat_get_db_blocks_fetched, ObjectIdGetDatum(database)));
    hit += DatumGetInt64(DirectFunctionCall1(pg_stat_get_db_blocks_hit, ObjectIdGetDatum(database)));
  }
};

// All databases and the shared catalogs, since their statistics were reset.
BlockCounts count_blocks() {
  BlockCounts counts;
  SetCurrentStatementStartTimestamp();
  StartTransactionCommand();
  (void)GetTransactionSnapshot();

  counts.add(InvalidOid);  // shared relations
  Relation databases = table_open(DatabaseRelationId, AccessShareLock);
  TableScanDesc scan = table_beginscan_catalog(databases, 0, nullptr);
  while (HeapTuple tuple = heap_getnext(scan, ForwardScanDirection)) {
    counts.add(reinterpret_cast<Form_pg_database>(GETSTRUCT(tuple))->oid);
  }
  table_endscan(scan);
  table_close(databases, AccessShareLock);

  CommitTransactionCommand();
  pgstat_report_stat(true);
  return counts;
}

struct Seconds {
  std::int64_t last_us = 0;      // monotonic: the latest sample, or the start
  TimestampTz next_at = 0;       // when the next one is due
  std::int64_t refresh_us = 0;   // monotonic: when the machine is to be looked at
};

TimestampTz next_second(TimestampTz now_at) {
  const TimestampTz earliest = now_at + kShortestUs;
  return (earliest / kSecondUs + (earliest % kSecondUs > 0 ? 1 : 0)) * kSecondUs;
}

// Nothing here may raise or block.
void sample_second(Seconds &seconds, std::int64_t now_us) {
  SampleTick tick;
  tick.now_us = now_us;
  tick.now_at = GetCurrentTimestamp();
  tick.previous_us = seconds.last_us;
  tick.timed = setting_track_timing;
  sample_pools(shared(), tick);
  seconds.last_us = now_us;
  seconds.next_at = next_second(tick.now_at);
}

// What is due every second: first the sample, whose length counts, then what looks
// at the samples or at other things.
void end_second(Seconds &seconds, std::int64_t now_us) {
  sample_second(seconds, now_us);
  sample_resources(now_us);
  refit_pools(now_us);
}

void look_at_machine(MissRatio &misses) {
  const BlockCounts counts = count_blocks();
  misses.look(counts.fetched, counts.hit);
  refresh_machine_facts(misses.ratio());
}

// Until the next second, or a signal.
void sleep_until(TimestampTz at) {
  const std::int64_t left_us = at - GetCurrentTimestamp();
  // Never longer than a second or so, even if the clock has been set back.
  const std::int64_t sleep_us = Max(Min(left_us, kSecondUs + kShortestUs), 0);
  (void)WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, static_cast<long>((sleep_us + 999) / 1000),
                  PG_WAIT_EXTENSION);
  ResetLatch(MyLatch);
}

// False if the clock says that it is not yet time; a second that is far off has
// been overtaken by a clock that was set back.
bool is_due(TimestampTz at) {
  const TimestampTz now_at = GetCurrentTimestamp();
  return now_at >= at || at - now_at > kSecondUs + kShortestUs;
}

void forget_pid(int, Datum) {
  shared().header->statistician_pid.store(0);
}

}  // namespace

void register_statistician() {
  BackgroundWorker worker = {};
  worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
  worker.bgw_start_time = BgWorkerStart_ConsistentState;
  worker.bgw_restart_time = kRestartSeconds;
  strlcpy(worker.bgw_name, "pg_sluice statistician", sizeof(worker.bgw_name));
  strlcpy(worker.bgw_type, "pg_sluice statistician", sizeof(worker.bgw_type));
  strlcpy(worker.bgw_library_name, "pg_sluice", sizeof(worker.bgw_library_name));
  strlcpy(worker.bgw_function_name, "sluice_statistician_main", sizeof(worker.bgw_function_name));
  RegisterBackgroundWorker(&worker);
}

}  // namespace sluice::pg

extern "C" void sluice_statistician_main(Datum) {
  using namespace sluice;
  using namespace sluice::pg;

  forget_history_file();  // the server runs
  pqsignal(SIGHUP, SignalHandlerForConfigReload);
  pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
  BackgroundWorkerUnblockSignals();
  BackgroundWorkerInitializeConnection(nullptr, nullptr, 0);

  before_shmem_exit(forget_pid, static_cast<Datum>(0));
  shared().header->statistician_pid.store(MyProcPid);

  MissRatio misses;
  Seconds seconds;
  seconds.last_us = monotonic_us();
  seconds.next_at = next_second(GetCurrentTimestamp());
  while (!ShutdownRequestPending) {
    if (is_due(seconds.next_at)) end_second(seconds, monotonic_us());
    if (monotonic_us() >= seconds.refresh_us) {
      look_at_machine(misses);
      seconds.refresh_us = monotonic_us() + kRefreshMs * 1000;
    }
    sleep_until(seconds.next_at);
    CHECK_FOR_INTERRUPTS();
    if (ConfigReloadPending) {
      ConfigReloadPending = false;
      ProcessConfigFile(PGC_SIGHUP);
      seconds.refresh_us = 0;
    }
  }
  // The server may be going down: what has happened since belongs to the history.
  if (monotonic_us() - seconds.last_us >= kShortestLastUs) sample_second(seconds, monotonic_us());

  // Not 0: the postmaster never restarts a worker that left with that, and
  // whoever terminated this one may not have meant to do without it.
  proc_exit(1);
}
