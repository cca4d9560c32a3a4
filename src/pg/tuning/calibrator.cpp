// SPDX-License-Identifier: PostgreSQL
//
// A calibrator: the background worker that executes the script of
// sluice.calibrate() again and again.
//
// Who it is.  It connects to the caller's database as the caller's current role,
// which is its session user too: RESET ROLE leads nowhere else.  NOLOGIN and a
// missing CONNECT privilege keep it out as they keep out any session; connection
// limits of roles and databases do not, as the server does not count workers.
//
// Which settings it has.  Those of a new session of that role; then it takes over
// what has been set for the caller's session, by a client, a SET, a function, or
// for its role or database: everything from PGC_S_DATABASE upwards.  It does so
// with the privileges of its own role: a value that this role may not set stays as
// it is, with a warning in the server log.  Nor is a value given more weight than
// whoever has set it could give it, which need not be the current role: what the
// caller of a SECURITY DEFINER function has made up under a name that no library
// had claimed then is checked, once a library in the worker claims it, by that
// caller's privileges and not by those of the function's owner.  Left out: timeouts of statements,
// transactions and sessions (they are the caller's own measure, and the worker
// obeys those set for the role), client_encoding (there is no client), and
// what cannot be reset (role, session_authorization, transaction_*, seed).
// A caller in a read-only transaction has workers with read-only transactions.
//
// A transaction.  The statements are executed by SPI with plans made at their
// first execution, statement by statement, because one may need what an earlier
// one creates.  Rows are produced and thrown away: no output functions, no
// network.  Parallel plans are allowed, as for a client's own statements.  The
// latency is the time from StartTransactionCommand() to the end of the commit.
//
// Errors end the transaction, are counted, and are not logged: a script that
// fails a thousand times a second would fill the log.  The first one of a phase
// is kept for the caller.
//
// How it ends.  The caller sets `quit`, and its end (even by an error) has the
// postmaster terminate the worker.  Should all that be lost, the worker looks
// once in a second whether the caller is still there, and a phase has an end of
// its own: its window, and a timer for the transaction that goes beyond.

#include "pg/compat.hpp"

#include "pg/tuning/calibration.hpp"

extern "C" {
#include "access/xact.h"
#include "access/xlog.h"
#include "executor/spi.h"
#include "jit/jit.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "tcop/dest.h"
#include "tcop/tcopprot.h"
#include "utils/backend_status.h"
#include "utils/guc_tables.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"

PGDLLEXPORT void sluice_calibrator_main(Datum argument);
}

#include "pg/accept/dispatcher.hpp"

namespace sluice::pg {

namespace {

constexpr long kLookForCallerMs = 1000;
constexpr long kPauseAfterErrorMs = 1;

struct ScriptStatement {
  char *text;
  bool takes_snapshot;
  SPIPlanPtr plan;  // null: not prepared yet
};

struct Script {
  ScriptStatement *statements;
  int count;
};

CalibrationHeader *header = nullptr;
CalibratorSlot *slot = nullptr;
MemoryContext own_context = nullptr;
volatile sig_atomic_t cut_off = 0;
TimeoutId cut_off_timer;
emit_log_hook_type previous_log_hook = nullptr;

bool has_joined() {
  return slot->state.load(std::memory_order_relaxed) == CalibratorState::joined;
}

// ---------------------------------------------------------------- errors

template <std::size_t size>
void copy_text(char (&target)[size], const char *source) {
  if (source == nullptr) source = "";
  const int length = static_cast<int>(strlen(source));
  const int kept = pg_mbcliplen(source, length, static_cast<int>(size) - 1);
  memcpy(target, source, static_cast<std::size_t>(kept));
  target[kept] = '\0';
}

void keep_error(const ErrorData *error) {
  CalibratorError &kept = slot->error;
  kept.sqlerrcode = error->sqlerrcode;
  copy_text(kept.message, error->message);
  copy_text(kept.detail, error->detail);
  copy_text(kept.hint, error->hint);
  copy_text(kept.context, error->context);
}

extern "C" {

// Why this process could not start.
void note_failed_start(ErrorData *error) {
  if (!has_joined() && error->elevel >= ERROR) keep_error(error);
  if (previous_log_hook != nullptr) previous_log_hook(error);
}

void leave_calibration(int, Datum) {
  slot->process.store(nullptr);
  if (!has_joined()) slot->state.store(CalibratorState::failed);
  SetLatch(&header->caller->procLatch);
}

void cut_off_transaction() {
  cut_off = 1;
  InterruptPending = true;
  QueryCancelPending = true;
  SetLatch(MyLatch);
}

}  // extern "C"

// After an error was caught, what PostgresMain() does.
void recover(ErrorData *error) {
  HOLD_INTERRUPTS();
  disable_timeout(STATEMENT_TIMEOUT, false);
  QueryCancelPending = false;
  AbortCurrentTransaction();
  PortalErrorCleanup();
  jit_reset_after_error();
  RESUME_INTERRUPTS();
  MemoryContextSwitchTo(own_context);
  // What the timer has cancelled, or was about to cancel, is neither an error nor a transaction.
  if (cut_off) return;
  if (slot->errors++ == 0) keep_error(error);
}

// ---------------------------------------------------------------- the script

// LOCK and SET (TRANSACTION) come before the transaction's snapshot.
bool takes_snapshot(const Node *statement) {
  return !IsA(statement, LockStmt) && !IsA(statement, VariableSetStmt);
}

Script read_script(const char *text) {
  List *parsed = pg_parse_query(text);
  Script script{};
  ListCell *cell;

  script.statements =
      static_cast<ScriptStatement *>(palloc0(sizeof(ScriptStatement) * Max(list_length(parsed), 1)));
  foreach (cell, parsed) {
    const RawStmt *raw = lfirst_node(RawStmt, cell);
    const char *begin = text + Max(raw->stmt_location, 0);
    ScriptStatement &statement = script.statements[script.count++];
    statement.text = raw->stmt_len > 0 ? pnstrdup(begin, static_cast<Size>(raw->stmt_len)) : pstrdup(begin);
    statement.takes_snapshot = takes_snapshot(raw->stmt);
  }
  return script;
}

// SPI's own codes stand for what the caller has refused already.
void check_spi(int result, const char *what) {
  if (result < 0) elog(ERROR, "%s failed: %s", what, SPI_result_code_string(result));
}

void prepare_statement(ScriptStatement &statement) {
  SPIPlanPtr plan = SPI_prepare_cursor(statement.text, 0, nullptr, CURSOR_OPT_PARALLEL_OK);
  if (plan == nullptr) check_spi(SPI_result, "SPI_prepare_cursor");
  check_spi(SPI_keepplan(plan), "SPI_keepplan");
  statement.plan = plan;
}

void execute_statement(ScriptStatement &statement) {
  SPIExecuteOptions options;
  memset(&options, 0, sizeof(options));
  options.dest = None_Receiver;

  CHECK_FOR_INTERRUPTS();
  if (StatementTimeout > 0) enable_timeout_after(STATEMENT_TIMEOUT, StatementTimeout);
  if (statement.takes_snapshot && !ActiveSnapshotSet()) PushActiveSnapshot(GetTransactionSnapshot());
  if (statement.plan == nullptr) prepare_statement(statement);
  check_spi(SPI_execute_plan_extended(statement.plan, &options), "SPI_execute_plan_extended");
  if (StatementTimeout > 0) disable_timeout(STATEMENT_TIMEOUT, false);
}

void execute_script(Script &script) {
  SetCurrentStatementStartTimestamp();
  StartTransactionCommand();
  check_spi(SPI_connect(), "SPI_connect");
  for (int i = 0; i < script.count; i++) execute_statement(script.statements[i]);
  check_spi(SPI_finish(), "SPI_finish");
  if (ActiveSnapshotSet()) PopActiveSnapshot();
  CommitTransactionCommand();
}

// True if the transaction was committed.
bool try_script(Script &script) {
  volatile bool committed = false;
  PG_TRY();
  {
    execute_script(script);
    committed = true;
  }
  PG_CATCH();
  {
    MemoryContextSwitchTo(own_context);
    ErrorData *error = CopyErrorData();
    FlushErrorState();
    recover(error);
    FreeErrorData(error);
  }
  PG_END_TRY();
  MemoryContextSwitchTo(own_context);
  return committed;
}

// ---------------------------------------------------------------- phases

void pause_after_error() {
  (void)WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, kPauseAfterErrorMs, PG_WAIT_EXTENSION);
  ResetLatch(MyLatch);
}

void execute_until(Script &script, std::int64_t began_us) {
  std::int64_t now_us = began_us;
  do {
    if (!try_script(script)) {
      pause_after_error();
      now_us = monotonic_us();
    } else {
      const std::int64_t ended_us = monotonic_us();
      slot->latency_us.record_alone(static_cast<std::uint64_t>(Max(ended_us - now_us, 0)));
      pgstat_report_stat(false);
      // The look at the statistics is not the transaction's.
      now_us = monotonic_us();
    }
    if (ProcDiePending) CHECK_FOR_INTERRUPTS();
  } while (now_us - began_us < slot->window_us && !cut_off && !header->quit.load(std::memory_order_relaxed));
}

void execute_phase(Script &script) {
  slot->errors = 0;
  slot->latency_us.reset();
  cut_off = 0;
  QueryCancelPending = false;
  SetCurrentStatementStartTimestamp();  // shown as the query's start
  pgstat_report_activity(STATE_RUNNING, debug_query_string);

  const std::int64_t began_us = monotonic_us();
  enable_timeout_after(cut_off_timer, slot->cut_off_ms);
  execute_until(script, began_us);
  slot->elapsed_us = monotonic_us() - began_us;
  disable_timeout(cut_off_timer, false);

  slot->was_cut_off = cut_off != 0;
  QueryCancelPending = false;
  pgstat_report_activity(STATE_IDLE, nullptr);
  pgstat_report_stat(true);
}

bool caller_is_gone() {
  return BackendPidGetProc(header->caller_pid) == nullptr;
}

void wait_for_orders() {
  if (header->quit.load()) proc_exit(0);  // the script may have used up the wake-up
  const int events = WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, kLookForCallerMs,
                               PG_WAIT_EXTENSION);
  ResetLatch(MyLatch);
  if (header->quit.load() || ((events & WL_TIMEOUT) != 0 && caller_is_gone())) proc_exit(0);
  QueryCancelPending = false;  // there is nothing to cancel
  CHECK_FOR_INTERRUPTS();
  if (ConfigReloadPending) {
    ConfigReloadPending = false;
    ProcessConfigFile(PGC_SIGHUP);
  }
}

[[noreturn]] void obey(Script &script) {
  std::uint32_t finished = 0;
  for (;;) {
    const std::uint32_t wanted = slot->wanted_phase.load(std::memory_order_acquire);
    if (wanted != finished) {
      execute_phase(script);
      finished = wanted;
      slot->finished_phase.store(finished, std::memory_order_release);
      SetLatch(&header->caller->procLatch);
    }
    wait_for_orders();
  }
}

// ---------------------------------------------------------------- settings

bool is_own_measure(const char *name) {
  static const char *const kNames[] = {"statement_timeout", "transaction_timeout", "idle_session_timeout",
                                       "idle_in_transaction_session_timeout", "client_encoding"};
  for (const char *own : kNames) {
    if (strcmp(name, own) == 0) return true;
  }
  return false;
}

bool is_carried(const config_generic *setting) {
  const bool can_be_set = setting->context == PGC_USERSET || setting->context == PGC_SUSET;
  const bool is_set = setting->source >= PGC_S_DATABASE && setting->source != PGC_S_OVERRIDE;
  return can_be_set && is_set && (setting->flags & GUC_NO_RESET_ALL) == 0 && !is_own_measure(setting->name);
}

void append_setting(StringInfo target, const char *name, const char *value, GucContext context, Oid set_by) {
  appendBinaryStringInfo(target, name, static_cast<int>(strlen(name)) + 1);
  appendBinaryStringInfo(target, value, static_cast<int>(strlen(value)) + 1);
  appendStringInfoChar(target, static_cast<char>(context));
  appendBinaryStringInfo(target, reinterpret_cast<const char *>(&set_by), sizeof(set_by));
}

// What the context is in a session: a start-up packet counts as the SET of whoever has sent it.
GucContext session_context(GucContext context) {
  return context == PGC_BACKEND || context == PGC_USERSET ? PGC_USERSET : PGC_SUSET;
}

// Both this role and the one that has set it must have the right to.  The latter is also remembered: a library that
// claims the name of a placeholder later checks the value again.
void take_over(const char *name, const char *value, GucContext context, Oid set_by) {
  const char *present = GetConfigOption(name, true, false);
  if (present != nullptr && strcmp(present, value) == 0) return;
  const GucContext own = superuser() ? PGC_SUSET : PGC_USERSET;
  if (set_config_option_ext(name, value, own, PGC_S_SESSION, GetUserId(), GUC_ACTION_SET, false, WARNING, false) == 0)
    return;
  // This role may do no more than a superuser may, so it is the one to remember then.
  const Oid lesser = superuser_arg(set_by) ? GetUserId() : set_by;
  const GucContext least = own == PGC_SUSET ? session_context(context) : PGC_USERSET;
  (void)set_config_option_ext(name, value, least, PGC_S_SESSION, lesser, GUC_ACTION_SET, true, WARNING, false);
}

void take_over_settings() {
  const char *next = reinterpret_cast<const char *>(header) + header->settings_at;
  for (std::uint32_t i = 0; i < header->settings; i++) {
    const char *name = next;
    const char *value = name + strlen(name) + 1;
    next = value + strlen(value) + 1;
    const auto context = static_cast<GucContext>(*next++);
    Oid set_by;
    memcpy(&set_by, next, sizeof(set_by));
    next += sizeof(set_by);
    take_over(name, value, context, set_by);
  }
}

// ---------------------------------------------------------------- the start

void find_slot(Datum argument) {
  // No resource owner yet: the mapping stays for the life of the process.
  dsm_segment *segment = dsm_attach(DatumGetUInt32(argument));
  if (segment == nullptr) proc_exit(0);  // the caller has given up
  std::uint32_t index;
  memcpy(&index, MyBgworkerEntry->bgw_extra, sizeof(index));
  header = static_cast<CalibrationHeader *>(dsm_segment_address(segment));
  slot = &calibrator_slots(header)[index];
  slot->process.store(MyProc);
  before_shmem_exit(leave_calibration, static_cast<Datum>(0));
  previous_log_hook = emit_log_hook;
  emit_log_hook = note_failed_start;
  if (header->quit.load()) proc_exit(0);
}

void connect_as_caller() {
  BackgroundWorkerInitializeConnectionByOid(header->database, header->role, 0);
  cut_off_timer = RegisterTimeout(USER_TIMEOUT, cut_off_transaction);
  SetCurrentStatementStartTimestamp();
  StartTransactionCommand();
  process_session_preload_libraries();
  take_over_settings();
  // Somebody may have set another role for this one's sessions; the caller has left it.
  if (GetUserId() != header->role)
    (void)set_config_option("role", "none", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SET, true, ERROR, false);
  CommitTransactionCommand();
}

}  // namespace

bool is_calibrator() {
  return slot != nullptr;
}

std::uint32_t append_carried_settings(StringInfo target) {
  std::uint32_t carried = 0;
  int count;
  config_generic **settings = all_settings(&count);
  for (int i = 0; i < count; i++) {
    if (!is_carried(settings[i])) continue;
    const char *value = GetConfigOption(settings[i]->name, true, false);
    if (value == nullptr) continue;
    append_setting(target, settings[i]->name, value, settings[i]->scontext, settings[i]->srole);
    carried++;
  }
  if (XactReadOnly && !RecoveryInProgress()) {
    append_setting(target, "default_transaction_read_only", "on", PGC_USERSET, GetUserId());
    carried++;
  }
  return carried;
}

}  // namespace sluice::pg

extern "C" void sluice_calibrator_main(Datum argument) {
  using namespace sluice::pg;

  pqsignal(SIGHUP, SignalHandlerForConfigReload);
  pqsignal(SIGTERM, die);
  BackgroundWorkerUnblockSignals();
  find_slot(argument);
  connect_as_caller();

  own_context = AllocSetContextCreate(TopMemoryContext, "pg_sluice calibrator", ALLOCSET_DEFAULT_SIZES);
  MemoryContextSwitchTo(own_context);
  debug_query_string = reinterpret_cast<const char *>(header) + header->script_at;
  Script script = read_script(debug_query_string);
  pgstat_report_activity(STATE_IDLE, nullptr);

  slot->state.store(CalibratorState::joined);
  SetLatch(&header->caller->procLatch);
  obey(script);
}
