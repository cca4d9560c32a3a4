// SPDX-License-Identifier: PostgreSQL
//
// The workers of a sweep, as their caller sees them: started, sent into phases,
// ended.
//
// All workers of the greatest size are started once, and the first k of them
// execute in a phase of size k.  Starting a process costs milliseconds and leaves
// its caches cold, which would be measured with every size; idle workers cost next
// to nothing (they sleep on a latch, without a snapshot).
//
// No worker is left behind.  The end of the DSM segment ends them: its callback
// runs when end_crew() detaches it, when an error or a cancel releases it with the
// caller's resource owner, and when the caller's process exits.  It tells the
// workers to quit and the postmaster to terminate them, which also strikes those
// that have not been started yet.  Only the normal end waits for them; clean-up
// after an error must not wait for anybody.

#include "pg/compat.hpp"

#include "pg/tuning/calibration.hpp"

extern "C" {
#include "lib/stringinfo.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/memutils.h"
}

#include "core/tuning/calibration.hpp"
#include "pg/accept/dispatcher.hpp"

namespace sluice::pg {

namespace {

constexpr long kLookAtCrewMs = 100;          // in case that a notification was lost
constexpr std::int64_t kAnswerUs = 60000000;  // a worker that was told to stop has this long to do so

// Ends with an interrupt, or when a worker has news, or after some time.
void wait_for_news() {
  (void)WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, kLookAtCrewMs, PG_WAIT_EXTENSION);
  ResetLatch(MyLatch);
  CHECK_FOR_INTERRUPTS();
}

// The process may have gone, and its place may have been taken; then somebody wakes for nothing.
void wake(const CalibratorSlot &slot) {
  PGPROC *process = slot.process.load();
  if (process != nullptr) SetLatch(&process->procLatch);
}

extern "C" void dismiss_crew(dsm_segment *, Datum argument) {
  auto *crew = static_cast<CalibrationCrew *>(static_cast<void *>(DatumGetPointer(argument)));
  crew->header->quit.store(true);
  for (int i = 0; i < crew->registered; i++) {
    wake(crew->slots[i]);
    TerminateBackgroundWorker(crew->handles[i]);
  }
}

BgwHandleStatus process_status(const CalibrationCrew *crew, int index) {
  pid_t pid;
  return GetBackgroundWorkerPid(crew->handles[index], &pid);
}

// ---------------------------------------------------------------- the start

void create_segment(CalibrationCrew *crew, const char *script, int wanted) {
  StringInfoData settings;
  initStringInfo(&settings);
  const std::uint32_t carried = append_carried_settings(&settings);
  const std::size_t script_bytes = strlen(script) + 1;
  const std::size_t slots_at = TYPEALIGN(alignof(CalibratorSlot), sizeof(CalibrationHeader));
  const std::size_t script_at = slots_at + sizeof(CalibratorSlot) * static_cast<std::size_t>(wanted);
  const std::size_t settings_at = script_at + script_bytes;
  const std::size_t bytes = settings_at + static_cast<std::size_t>(settings.len);

  crew->segment = dsm_create(bytes, 0);
  crew->header = static_cast<CalibrationHeader *>(dsm_segment_address(crew->segment));
  memset(static_cast<void *>(crew->header), 0, bytes);
  CalibrationHeader &header = *crew->header;
  header.caller = MyProc;
  header.caller_pid = MyProcPid;
  header.database = MyDatabaseId;
  header.role = GetUserId();
  header.workers = static_cast<std::uint32_t>(wanted);
  header.settings = carried;
  header.slots_at = slots_at;
  header.script_at = script_at;
  header.settings_at = settings_at;
  char *base = reinterpret_cast<char *>(crew->header);
  memcpy(base + script_at, script, script_bytes);
  memcpy(base + settings_at, settings.data, static_cast<std::size_t>(settings.len));
  crew->slots = calibrator_slots(crew->header);
  pfree(settings.data);
}

bool register_worker(CalibrationCrew *crew) {
  BackgroundWorker worker;
  const auto index = static_cast<std::uint32_t>(crew->registered);

  memset(&worker, 0, sizeof(worker));
  worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
  worker.bgw_start_time = BgWorkerStart_ConsistentState;
  worker.bgw_restart_time = BGW_NEVER_RESTART;
  strlcpy(worker.bgw_library_name, "pg_sluice", sizeof(worker.bgw_library_name));
  strlcpy(worker.bgw_function_name, "sluice_calibrator_main", sizeof(worker.bgw_function_name));
  snprintf(worker.bgw_name, BGW_MAXLEN, "%s %u of PID %d", kCalibratorType, index + 1, MyProcPid);
  strlcpy(worker.bgw_type, kCalibratorType, BGW_MAXLEN);
  worker.bgw_main_arg = UInt32GetDatum(dsm_segment_handle(crew->segment));
  memcpy(worker.bgw_extra, &index, sizeof(index));
  worker.bgw_notify_pid = MyProcPid;

  MemoryContext caller = MemoryContextSwitchTo(TopTransactionContext);
  const bool registered = RegisterDynamicBackgroundWorker(&worker, &crew->handles[index]);
  MemoryContextSwitchTo(caller);
  if (registered) crew->registered++;
  return registered;
}

// Has it joined or failed?  One that ends without having reached its slot leaves `starting` behind.
bool start_is_decided(const CalibrationCrew *crew, int index) {
  if (crew->slots[index].state.load() != CalibratorState::starting) return true;
  return process_status(crew, index) == BGWH_STOPPED;
}

void wait_for_starts(const CalibrationCrew *crew) {
  for (int i = 0; i < crew->registered; i++) {
    while (!start_is_decided(crew, i)) wait_for_news();
  }
}

[[noreturn]] void raise_failed_start(const CalibrationCrew *crew) {
  for (int i = 0; i < crew->registered; i++) {
    const CalibratorError &error = crew->slots[i].error;
    if (error.message[0] != '\0')
      ereport(ERROR, (errcode(error.sqlerrcode), errmsg("could not start a calibrator: %s", error.message),
                      error.detail[0] != '\0' ? errdetail_internal("%s", error.detail) : 0,
                      error.hint[0] != '\0' ? errhint("%s", error.hint) : 0));
  }
  ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE), errmsg("could not start a calibrator"),
                  errhint("More details may be available in the server log.")));
}

// ---------------------------------------------------------------- phases

bool has_finished(const CalibrationCrew *crew, int member) {
  const CalibratorSlot &slot = crew->slots[crew->members[member]];
  if (slot.finished_phase.load(std::memory_order_acquire) == crew->phase) return true;
  // Its process ends with its place in shared memory cleared first.
  if (slot.process.load() != nullptr) return false;
  ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                  errmsg("a calibrator has ended before the sweep was over"),
                  errdetail("It was terminated, by an administrator or by the script."),
                  errhint("More details may be available in the server log.")));
}

}  // namespace

int count_free_worker_slots() {
  int free_slots = 0;
  for (std::uint32_t i = 0; i < ProcGlobal->allProcCount; i++) {
    const PGPROC &process = ProcGlobal->allProcs[i];
    // A latch without an owner: nobody lives here.
    if (process.procgloballist == &ProcGlobal->bgworkerFreeProcs && process.procLatch.owner_pid == 0) free_slots++;
  }
  return free_slots;
}

CalibrationCrew *start_crew(const char *script, int wanted) {
  const auto places = static_cast<Size>(wanted);
  auto *crew =
      static_cast<CalibrationCrew *>(MemoryContextAllocZero(TopTransactionContext, sizeof(CalibrationCrew)));
  crew->handles = static_cast<BackgroundWorkerHandle **>(
      MemoryContextAllocZero(TopTransactionContext, sizeof(BackgroundWorkerHandle *) * places));
  crew->members = static_cast<int *>(MemoryContextAllocZero(TopTransactionContext, sizeof(int) * places));
  create_segment(crew, script, wanted);
  // Before the first worker, so that there is none without it.
  on_dsm_detach(crew->segment, dismiss_crew, PointerGetDatum(crew));

  while (crew->registered < wanted && register_worker(crew)) {
  }
  if (crew->registered == 0)
    ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
                    errmsg("could not start a calibrator: no worker process slot is free"),
                    errhint("You may need to increase max_worker_processes.")));
  wait_for_starts(crew);
  for (int i = 0; i < crew->registered; i++) {
    if (crew->slots[i].state.load() == CalibratorState::joined) crew->members[crew->joined++] = i;
  }
  if (crew->joined == 0) raise_failed_start(crew);
  return crew;
}

void run_phase(CalibrationCrew *crew, int size, double seconds, double cut_off_s) {
  Assert(size <= crew->joined);
  crew->phase++;
  for (int i = 0; i < size; i++) {
    CalibratorSlot &slot = crew->slots[crew->members[i]];
    slot.window_us = static_cast<std::int64_t>(seconds * 1e6);
    slot.cut_off_ms = static_cast<std::int32_t>(cut_off_s * 1e3);
    slot.wanted_phase.store(crew->phase, std::memory_order_release);
  }
  for (int i = 0; i < size; i++) wake(crew->slots[crew->members[i]]);

  const std::int64_t give_up_us = monotonic_us() + static_cast<std::int64_t>(cut_off_s * 1e6) + kAnswerUs;
  for (int i = 0; i < size; i++) {
    while (!has_finished(crew, i)) {
      if (monotonic_us() > give_up_us)
        ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                        errmsg("a calibrator does not stop"),
                        errdetail("The script does something that cannot be cancelled.")));
      wait_for_news();
    }
  }
}

void end_crew(CalibrationCrew *crew) {
  crew->header->quit.store(true);
  for (int i = 0; i < crew->registered; i++) wake(crew->slots[i]);
  for (int i = 0; i < crew->registered; i++) {
    while (process_status(crew, i) != BGWH_STOPPED) wait_for_news();
  }
  cancel_on_dsm_detach(crew->segment, dismiss_crew, PointerGetDatum(crew));  // there is nobody left
  dsm_detach(crew->segment);
}

void raise_calibrator_error(const CalibratorError &error) {
  ereport(ERROR, (errcode(error.sqlerrcode), errmsg_internal("%s", error.message),
                  error.detail[0] != '\0' ? errdetail_internal("%s", error.detail) : 0,
                  error.hint[0] != '\0' ? errhint("%s", error.hint) : 0,
                  error.context[0] != '\0' ? errcontext("%s", error.context) : 0,
                  errcontext("first execution of the script of sluice.calibrate()")));
}

void pause_calibration(double seconds) {
  const std::int64_t until_us = monotonic_us() + static_cast<std::int64_t>(seconds * 1e6);
  for (std::int64_t left_us; (left_us = until_us - monotonic_us()) > 0;) {
    (void)WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
                    static_cast<long>((left_us + 999) / 1000), PG_WAIT_EXTENSION);
    ResetLatch(MyLatch);
    CHECK_FOR_INTERRUPTS();
  }
}

}  // namespace sluice::pg
