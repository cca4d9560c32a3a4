// SPDX-License-Identifier: PostgreSQL
//
// The statistician: keeps MachineFacts up to date.
//
// It looks at the machine when it starts, every kRefreshMs, and after a reload.
// It is attached to no database: the list of databases is a shared catalog, and
// their block counters are in the cumulative statistics, which need none.  Each
// look is a transaction of its own, so that its snapshot of the statistics is a
// new one and no old transaction is kept open.  It starts as soon as the server
// answers queries, on a hot standby too.
//
// If it dies or raises, the postmaster starts it again after kRestartSeconds;
// meanwhile everyone sees the facts it published last.

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

PGDLLEXPORT void sluice_statistician_main(Datum argument);
}

#include "core/tuning/sizing.hpp"
#include "pg/shared_memory.hpp"
#include "pg/tuning/machine.hpp"

namespace sluice::pg {

namespace {

constexpr long kRefreshMs = 10000;
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

  pqsignal(SIGHUP, SignalHandlerForConfigReload);
  pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
  BackgroundWorkerUnblockSignals();
  BackgroundWorkerInitializeConnection(nullptr, nullptr, 0);

  before_shmem_exit(forget_pid, static_cast<Datum>(0));
  shared().header->statistician_pid.store(MyProcPid);

  MissRatio misses;
  while (!ShutdownRequestPending) {
    const BlockCounts counts = count_blocks();
    misses.look(counts.fetched, counts.hit);
    refresh_machine_facts(misses.ratio());

    (void)WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, kRefreshMs, PG_WAIT_EXTENSION);
    ResetLatch(MyLatch);
    CHECK_FOR_INTERRUPTS();
    if (ConfigReloadPending) {
      ConfigReloadPending = false;
      ProcessConfigFile(PGC_SIGHUP);
    }
  }

  // Not 0: the postmaster never restarts a worker that left with that, and
  // whoever terminated this one may not have meant to do without it.
  proc_exit(1);
}
