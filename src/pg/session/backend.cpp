// SPDX-License-Identifier: PostgreSQL
//
// A pooled backend: its start, its loop, and what an error means in it.
//
// The loop: lease a client; serve its messages until the transaction has ended
// and nothing more of it is buffered; stay on it if nobody needs this backend,
// else give it back and lease the next.
//
// Errors end up at one sigsetjmp, as in any backend.  What they cost:
//   in a command                the command, and its transaction (as always)
//   while waiting for a command, or marked by ereport_client_end(), or the
//   client has gone             the client; the backend goes on
//   while cleaning up           the backend (it may not be clean)
//   FATAL                       the backend; its client is told by the server's code

#include "pg/compat.hpp"

extern "C" {
#include "access/parallel.h"
#include "access/xact.h"
#include "commands/async.h"
#include "common/pg_prng.h"
#include "jit/jit.h"
#include "libpq/libpq.h"
#include "libpq/pqformat.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "replication/slot.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "storage/procsignal.h"
#include "tcop/dest.h"
#include "tcop/fastpath.h"
#include "tcop/tcopprot.h"
#include "utils/backend_status.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/ps_status.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

PGDLLEXPORT void sluice_backend_main(Datum arg);
}

#include "core/pool/growth_governor.hpp"
#include "core/session/message.hpp"
#include "core/stats/cut_text.hpp"
#include "pg/accept/dispatcher.hpp"
#include "pg/error_response.hpp"
#include "pg/pool/lease.hpp"
#include "pg/pool/quick_greeting.hpp"
#include "pg/process_number.hpp"
#include "pg/session/client_settings.hpp"
#include "pg/session/client_stream.hpp"
#include "pg/session/extended_query.hpp"
#include "pg/session/greeting.hpp"
#include "pg/session/interrupts.hpp"
#include "pg/session/lease_clock.hpp"
#include "pg/session/message_reader.hpp"
#include "pg/session/pins.hpp"
#include "pg/session/sequences.hpp"
#include "pg/session/session.hpp"
#include "pg/session/session_settings.hpp"
#include "pg/session/session_watch.hpp"
#include "pg/session/setting_records.hpp"
#include "pg/session/simple_query.hpp"
#include "pg/session/state_timing.hpp"
#include "pg/session/statistics.hpp"
#include "pg/session/statements.hpp"
#include "pg/session/transaction.hpp"
#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"
#include "pg/stats/event_log.hpp"

namespace sluice::pg {

Session session;

// ------------------------------------------------------------------ parting from the client

static bool is_session_mode() {
  return session.pool->mode.load(std::memory_order_relaxed) == static_cast<std::int32_t>(PoolMode::session);
}

static void leave_for_good() {
  enter_state(BackendState::retiring, coarse_monotonic_us());
  proc_exit(0);
}

static void note_lost_client() {
  session.pool->clients_lost.fetch_add(1);
  log_event(EventKind::client_lost, session.pool_index, MyProcPid, static_cast<std::int32_t>(session.client_ref.slot),
            IsTransactionOrTransactionBlock() ? "inside a transaction" : "while a command was executed");
}

// The client leaves for good: hung up, said goodbye, or was ended.
static void end_client(bool in_the_middle) {
  const bool was_held = session.held;

  session.reading_command = false;
  session.cleaning_up = true;
  // A cancel, also one for a client that cannot be sent to, must not hit the cleaning.
  end_query();
  HOLD_CANCEL_INTERRUPTS();
  QueryCancelPending = false;
  if (in_the_middle) note_lost_client();
  AbortOutOfAnyTransaction();
  session.transaction_started = false;
  session.skip_until_sync = false;
  session.ready_for_query_due = false;
  (void)flush_stream();
  mute_stream(true);
  drop_local_unnamed_statement();
  withdraw_statements_from_sql();
  const bool clean = release_session_state(was_held);
  mute_stream(false);
  pgstat_report_activity(STATE_IDLE, nullptr);
  see_client_off();
  dismiss_leased_client();
  RESUME_CANCEL_INTERRUPTS();
  session.cleaning_up = false;
  if (!clean) leave_for_good();
}

// Puts what the client has into its store.  False when there is no memory: then
// the client has to stay.
static bool store_session_state() { return store_session_settings() && store_sequences() && store_unnamed_statement(); }

static void part_from_client() {
  session.cleaning_up = true;
  if (!store_session_state()) {
    pin_for_lack_of_memory();
    enter_state(BackendState::pinned, coarse_monotonic_us());
    resume_hold(lease_clock_us());
    session.cleaning_up = false;
    return;
  }
  withdraw_statements_from_sql();
  drop_local_unnamed_statement();
  report_statistics_at_parting();
  see_client_off();
  give_back_client();
  if (renewal_is_due()) leave_for_good();
  session.cleaning_up = false;
}

// ------------------------------------------------------------------ between commands

// What keeps the client here.  An error would leave that open, so it ends the backend.  A cancel comes too late by now,
// and must not be the reason.
static void look_for_pins() {
  end_query();
  HOLD_CANCEL_INTERRUPTS();
  QueryCancelPending = false;
  session.cleaning_up = true;
  update_pins();
  run_requested_timing();
  session.cleaning_up = false;
  RESUME_CANCEL_INTERRUPTS();
}

// A command cycle is over: what everybody may see of it, and ReadyForQuery.
static void conclude_command_cycle() {
  const bool in_transaction = IsTransactionOrTransactionBlock();

  session.ready_for_query_due = false;
  if (IsAbortedTransactionBlockState()) {
    set_ps_display("idle in transaction (aborted)");
    pgstat_report_activity(STATE_IDLEINTRANSACTION_ABORTED, nullptr);
  } else if (in_transaction) {
    set_ps_display("idle in transaction");
    pgstat_report_activity(STATE_IDLEINTRANSACTION, nullptr);
  } else {
    // Before ReadyForQuery, so that a client sees its own notifications first.
    if (notifyInterruptPending) ProcessNotifyInterrupt(false);
    report_statistics();
    if (traces.flush) {
      traces.flush = false;
      force_flush_in_pool();
    }
    set_ps_display("idle");
    pgstat_report_activity(STATE_IDLE, nullptr);
    if (session.in_query) count_transaction();  // a greeting is none
    if (!session.held) look_for_pins();
  }
  ReportChangedGUCOptions();
  ReadyForQuery(DestRemote);
  end_query();
  finish_command_cycle(in_transaction);
  if (stream_peer_is_gone()) return;
  if (in_transaction)
    enter_state(BackendState::thinking, coarse_monotonic_us());
  else if (session.held)
    enter_state(BackendState::held, coarse_monotonic_us());
  else if (session.pins != 0)
    enter_state(BackendState::pinned, coarse_monotonic_us());
}

// The transaction is over and nothing of the client is buffered: who is next?
// Returns false when the client has been given back.
static bool stay_or_part() {
  if (session.pins != 0) return true;
  const std::int64_t deadline_us = idle_deadline_us(IdleSessionTimeout);

  session.reading_command = true;  // waiting for one, as in read_message()
  const bool stays = linger_on_client(deadline_us);
  session.reading_command = false;
  if (stays) {
    if (session.told_to_leave)
      ereport_client_end((errcode(ERRCODE_ADMIN_SHUTDOWN),
                          errmsg("terminating connection due to administrator command")));
    if (deadline_us >= 0 && monotonic_us() >= deadline_us && fill_stream() == Fill::would_block) raise_idle_timeout();
    return true;
  }
  part_from_client();
  return session.client != nullptr;
}

// ------------------------------------------------------------------ executing a message

static void handle_query(StringInfo message) {
  count_statement();
  SetCurrentStatementStartTimestamp();
  const char *query = pq_getmsgstring(message);
  pq_getmsgend(message);
  execute_simple_query(query);
  session.ready_for_query_due = true;
}

static void handle_function_call(StringInfo message) {
  SetCurrentStatementStartTimestamp();
  pgstat_report_activity(STATE_FASTPATH, nullptr);
  set_ps_display("<FASTPATH>");
  begin_command();
  MemoryContextSwitchTo(MessageContext);
  HandleFunctionRequest(message);
  finish_command();
  session.ready_for_query_due = true;
}

static void handle_sync(StringInfo message) {
  pq_getmsgend(message);
  finish_command();
  session.ready_for_query_due = true;
}

// Returns false when the client leaves.
static bool handle_message(int type, StringInfo message) {
  if (session.skip_until_sync && type != EOF && type != 'X') return true;
  if (type == EOF || type == 'X') return false;

  begin_query();
  if ((session.client->flags.load(std::memory_order_relaxed) & (kClientVanished | kClientHungUp)) != 0 &&
      stream_has_ended_early()) {
    // Its end was reported before this command was read, or before it had a backend; nobody will signal again.
    session.client_vanished = 1;
    QueryCancelPending = InterruptPending = true;
  }
  switch (type) {
    case 'Q':
      handle_query(message);
      break;
    case 'P':
      SetCurrentStatementStartTimestamp();
      handle_parse(message);
      break;
    case 'B':
      SetCurrentStatementStartTimestamp();
      handle_bind(message);
      break;
    case 'E':
      count_statement();
      SetCurrentStatementStartTimestamp();
      handle_execute(message);
      break;
    case 'D':
      SetCurrentStatementStartTimestamp();
      handle_describe(message);
      break;
    case 'C':
      handle_close(message);
      break;
    case 'F':
      handle_function_call(message);
      break;
    case 'H':
      pq_getmsgend(message);
      pq_flush();
      break;
    case 'S':
      handle_sync(message);
      break;
    default:  // 'd', 'c', 'f': a COPY has failed, and its data is still coming in
      break;
  }
  end_copy_in();
  return true;
}

static void log_lost_client() {
  if (IsTransactionState())
    ereport(COMMERROR, (errcode(ERRCODE_CONNECTION_FAILURE),
                        errmsg("unexpected EOF on client connection with an open transaction")));
}

static void serve_one_message() {
  StringInfoData message;

  session.extended_message = false;
  MemoryContextSwitchTo(MessageContext);
  MemoryContextResetAndDeleteChildren(MessageContext);
  initStringInfo(&message);
  InvalidateCatalogSnapshotConditionally();

  if (session.ready_for_query_due) {
    conclude_command_cycle();
    if (stream_peer_is_gone()) {
      end_client(false);
      return;
    }
    if (!session.held && !IsTransactionOrTransactionBlock() && !stream_has_input() && !stay_or_part()) return;
  }
  const int type = read_message(&message);
  // What was done in between may have committed, which leaves another context.
  MemoryContextSwitchTo(MessageContext);
  if (type == EOF) log_lost_client();
  if (handle_message(type, &message)) return;
  end_client(type == EOF && IsTransactionState());
}

// ------------------------------------------------------------------ errors

// The error under way ends the client.
static bool ends_client() {
  return session.client != nullptr && (session.reading_command || session.end_client_on_error ||
                                       session.client_vanished || session.told_to_leave || stream_peer_is_gone());
}

// Tells the client why it has to go, beside or instead of the error under way.
static void report_end(int sqlerrcode, const char *message) {
  ErrorData error;
  StringInfoData response;

  memset(&error, 0, sizeof(error));
  error.sqlerrcode = sqlerrcode;
  error.message = pstrdup(message);
  log_as_fatal(&error);
  initStringInfo(&response);
  append_fatal_response(&response, &error);
  (void)pq_putmessage('E', response.data + kMessageHeaderBytes,
                      static_cast<size_t>(response.len) - kMessageHeaderBytes);
  pfree(response.data);
  pfree(error.message);
}

static void report_error(bool client_ends, bool vanished, bool lost_sync) {
  // What disconnect_client interrupts was a query or a COPY, but its cancel or the end of its data is not the news.
  if (session.told_to_leave && !vanished &&
      (geterrcode() == ERRCODE_QUERY_CANCELED || geterrcode() == ERRCODE_CONNECTION_FAILURE)) {
    report_end(ERRCODE_ADMIN_SHUTDOWN, _("terminating connection due to administrator command"));
    return;
  }
  show_errors_as_fatal(client_ends && !vanished && !lost_sync);
  EmitErrorReport();
  show_errors_as_fatal(false);
  // COPY was fed something else: where the next message begins is unknown.
  if (lost_sync && !vanished)
    report_end(ERRCODE_PROTOCOL_VIOLATION, _("terminating connection because protocol synchronization was lost"));
}

static void recover() {
  error_context_stack = nullptr;
  HOLD_INTERRUPTS();
  disable_all_timeouts(false);
  QueryCancelPending = false;
  pq_comm_reset();

  if (session.cleaning_up || session.client == nullptr) {
    show_errors_as_fatal(true);
    EmitErrorReport();
    proc_exit(1);
  }
  end_copy_in();
  const bool lost_sync = copy_in_lost_sync();
  const bool client_ends = ends_client() || lost_sync;
  const bool vanished = session.client_vanished || stream_peer_is_gone();
  if (vanished) mute_stream(true);
  report_error(client_ends, vanished, lost_sync);
  debug_query_string = nullptr;
  AbortCurrentTransaction();
  PortalErrorCleanup();
  if (MyReplicationSlot != nullptr) ReplicationSlotRelease();
  drop_temporary_slots();
  jit_reset_after_error();
  MemoryContextSwitchTo(TopMemoryContext);
  FlushErrorState();
  release_pending_statement();
  mute_stream(false);

  if (session.extended_message) session.skip_until_sync = true;
  session.transaction_started = false;
  session.end_client_on_error = false;
  RESUME_INTERRUPTS();
  if (client_ends)
    end_client(vanished);
  else if (!session.skip_until_sync)
    session.ready_for_query_due = true;
}

// ------------------------------------------------------------------ the process

extern "C" {

// Why this process could not start, for the clients that wait for it.
static emit_log_hook_type previous_log_hook = nullptr;
static bool has_started = false;

static void note_start_failure(ErrorData *error) {
  // An error ends a worker, unless somebody catches it; then it starts after all.
  if (!has_started && error->elevel >= ERROR && session.backend != nullptr) {
    strlcpy(session.backend->failure_sqlstate, unpack_sql_state(error->sqlerrcode),
            sizeof(session.backend->failure_sqlstate));
    (void)copy_cut(session.backend->failure_message, sizeof(session.backend->failure_message), error->message);
  }
  if (previous_log_hook != nullptr) previous_log_hook(error);
}

static void leave_slot(int, Datum) {
  release_cached_statements();
  if (!has_started) session.backend->state.store(static_cast<std::uint32_t>(BackendState::failed));
  session.backend->process.store(0);
  session.backend->pid.store(0);
}

}  // extern "C"

static BackendOrder order_of_dispatcher() {
  BackendOrder order;
  memcpy(&order, MyBgworkerEntry->bgw_extra, sizeof(order));
  return order;
}

static void claim_slot(std::uint32_t index) {
  SharedState &state = shared();

  session.index = index;
  BackendSlot *backend = &state.backends[index];
  // The pid before the look at the generation: see pool/succession.cpp.
  std::int32_t nobody = 0;
  if (!backend->pid.compare_exchange_strong(nobody, MyProcPid)) proc_exit(0);
  if (backend->generation.load() != order_of_dispatcher().generation) {  // asked for by a dispatcher that is no more
    backend->pid.store(0);
    proc_exit(0);
  }
  session.backend = backend;
  session.pool_index = backend->pool.load();
  session.pool = &state.pools[session.pool_index];
  backend->started_at.store(MyStartTimestamp);
  backend->process.store(own_process_number());
  before_shmem_exit(leave_slot, 0);
  previous_log_hook = emit_log_hook;
  emit_log_hook = note_start_failure;
}

static void connect_to_database() {
  BackgroundWorkerUnblockSignals();
  for (int waited_ms = 0; waited_ms < setting_debug_backend_start_delay; waited_ms += 10) {
    CHECK_FOR_INTERRUPTS();
    pg_usleep(10000);
  }
  BackgroundWorkerInitializeConnectionByOid(session.pool->database_oid, session.pool->role_oid,
                                            order_of_dispatcher().for_established ? kStartsForEstablishedClients : 0);
  // From here on this process serves clients and behaves, reports and dies like
  // any backend that does.
  IsBackgroundWorker = false;
  MyBackendType = B_BACKEND;
  StartTransactionCommand();
  process_session_preload_libraries();
  CommitTransactionCommand();
}

// Only here is known what role and database say about it.
static void choose_lifetime() {
  const std::int64_t lifetime_us = static_cast<std::int64_t>(setting_max_lifetime) * 1000;
  session.backend->expires_us.store(
      lifetime_us == 0 ? 0
                       : session.backend->start_requested_us.load() +
                             lifetime_with_jitter_us(lifetime_us, pg_prng_uint32(&pg_global_prng_state)));
}

static void open_backend() {
  MessageContext = AllocSetContextCreate(TopMemoryContext, "MessageContext", ALLOCSET_DEFAULT_SIZES);
  install_severity_hook();
  install_client_stream();
  install_session_watch();
  open_session_settings();
  open_pins();
  install_sequence_carrying();
  open_extended_protocol();
  open_reception();
  whereToSendOutput = DestRemote;
  mute_stream(true);
  BeginReportingGUCOptions();
  mute_stream(false);
  remember_baseline_settings();
  publish_pool_settings();
  publish_greeting();
  choose_lifetime();
  join_pool();
  has_started = true;
}

static void serve_next_client() {
  session.transaction_started = session.skip_until_sync = session.extended_message = false;
  session.ready_for_query_due = false;
  const int descriptor = lease_client();
  session.reading_command = true;  // an error about its start-up settings ends the client
  HOLD_CANCEL_INTERRUPTS();        // but a cancel has nothing to cancel yet
  receive_client(descriptor);
  load_sequences();
  RESUME_CANCEL_INTERRUPTS();
  session.held = is_session_mode();
  if (session.held) session.client->flags.fetch_or(kClientHeld);
  if ((session.client->flags.load() & kClientGreeted) == 0) {
    greet_client();
    session.ready_for_query_due = true;
  }
  session.reading_command = false;
}

}  // namespace sluice::pg

extern "C" void sluice_backend_main(Datum arg) {
  using namespace sluice::pg;
  sigjmp_buf error_exit;

  claim_slot(DatumGetUInt32(arg));
  install_signal_handlers();
  connect_to_database();
  open_backend();

  if (sigsetjmp(error_exit, 1) != 0) recover();
  PG_exception_stack = &error_exit;
  for (;;) {
    if (session.client == nullptr)
      serve_next_client();
    else
      serve_one_message();
  }
}
