// SPDX-License-Identifier: PostgreSQL
#include "pg/compat.hpp"

#include "pg/session/pins.hpp"

extern "C" {
#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_namespace.h"
#include "commands/async.h"
#include "commands/prepare.h"
#include "common/pg_prng.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "replication/origin.h"
#include "replication/slot.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc_tables.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
}

#include "pg/accept/dispatcher.hpp"
#include "pg/session/client_settings.hpp"
#include "pg/session/session.hpp"
#include "pg/session/session_watch.hpp"
#include "pg/session/setting_records.hpp"
#include "pg/session/statements.hpp"
#include "pg/settings.hpp"
#include "pg/stats/event_log.hpp"

namespace sluice::pg {

// A backend that has collected more names made up by clients than this is renewed.
constexpr int kHiddenSettingsLimit = 1000;

static bool has_temporary = false;  // as of the last look
static bool is_listening = false;   // likewise
static List *held_cursors = NIL;    // names of cursors declared WITH HOLD, some of them closed
static config_generic *seed_record = nullptr;

static GucIntCheckHook previous_buffers_check = nullptr;

extern "C" {

// The server fixes the number of buffers for temporary tables when a process first uses one, and refuses another from
// then on.  That may have been for another client: then this one's number stands, and the buffers stay as they are.
// What is restored or taken back between commands is no request either.
static bool watch_temp_buffers(int *value, void **extra, GucSource source) {
  const bool used = session.held || has_temporary || traces.temporary ||
                    (MyXactFlags & XACT_FLAGS_ACCESSEDTEMPNAMESPACE) != 0;
  return session.in_query == 0 || !used || previous_buffers_check == nullptr ||
         previous_buffers_check(value, extra, source);
}

}  // extern "C"

void open_pins() {
  seed_record = find_setting("seed");
  auto *buffers = reinterpret_cast<config_int *>(find_setting("temp_buffers"));
  previous_buffers_check = buffers->check_hook;
  buffers->check_hook = watch_temp_buffers;
}

// ------------------------------------------------------------------ what there is

Oid temporary_schema() {
  Oid schema, toast_schema;
  GetTempNamespaceState(&schema, &toast_schema);
  return schema;
}

// Whatever lies in the temporary schema depends on it.
static bool find_temporary_objects() {
  const Oid schema = temporary_schema();
  ScanKeyData keys[2];

  if (!OidIsValid(schema)) return false;
  Relation depend = table_open(DependRelationId, AccessShareLock);
  ScanKeyInit(&keys[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber, F_OIDEQ,
              ObjectIdGetDatum(NamespaceRelationId));
  ScanKeyInit(&keys[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(schema));
  SysScanDesc scan = systable_beginscan(depend, DependReferenceIndexId, true, nullptr, 2, keys);
  const bool found = HeapTupleIsValid(systable_getnext(scan));
  systable_endscan(scan);
  table_close(depend, AccessShareLock);
  return found;
}

// The list of channels is private; the function that shows it is not.
static bool find_channels() {
  FmgrInfo function;
  ReturnSetInfo result;
  LOCAL_FCINFO(call, 0);

  fmgr_info(F_PG_LISTENING_CHANNELS, &function);
  memset(&result, 0, sizeof(result));
  result.type = T_ReturnSetInfo;
  result.econtext = CreateStandaloneExprContext();
  result.allowedModes = SFRM_ValuePerCall;
  InitFunctionCallInfoData(*call, &function, 0, InvalidOid, nullptr, reinterpret_cast<fmNodePtr>(&result));
  (void)FunctionCallInvoke(call);
  const bool found = result.isDone == ExprMultipleResult;
  FreeExprContext(result.econtext, true);
  return found;
}

// Session-level locks are what is left in this process's lock lists when no
// transaction is open.
static bool holds_locks() {
  for (int i = 0; i < NUM_LOCK_PARTITIONS; i++)
    if (lock_list_has_entries(i)) return true;
  return false;
}

void note_held_cursor(const char *name) {
  MemoryContext caller = MemoryContextSwitchTo(TopMemoryContext);
  held_cursors = lappend(held_cursors, pstrdup(name));
  MemoryContextSwitchTo(caller);
}

// Outside a transaction only such cursors are open.
static void forget_closed_cursors() {
  ListCell *cell;
  foreach (cell, held_cursors) {
    auto *name = static_cast<char *>(lfirst(cell));
    if (PortalIsValid(GetPortalByName(name))) continue;
    held_cursors = foreach_delete_current(held_cursors, cell);
    pfree(name);
  }
}

bool has_temporary_slots() {
  for (int i = 0; i < max_replication_slots; i++) {
    const ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];
    if (slot->in_use && slot->active_pid == MyProcPid) return true;
  }
  return false;
}

static void look_at_traces() {
  if (traces.temporary || traces.changed) {
    StartTransactionCommand();
    has_temporary = find_temporary_objects();
    CommitTransactionCommand();
    traces.temporary = traces.changed = false;
  }
  if (traces.listened) {
    is_listening = find_channels();
    traces.listened = false;
  }
  if (held_cursors != NIL) forget_closed_cursors();
  if (traces.slot && !has_temporary_slots()) traces.slot = false;
  // A command that looks like a setting: it has been obeyed.
  if (seed_record->source == PGC_S_SESSION) {
    seed_record->source = seed_record->reset_source;
    traces.seeded = true;
  }
}

static std::uint32_t find_pins() {
  std::uint32_t pins = 0;

  look_at_traces();
  if (has_temporary) pins |= pin_bit(PinReason::temporary_objects);
  if (holds_locks()) pins |= pin_bit(PinReason::advisory_lock);
  if (is_listening) pins |= pin_bit(PinReason::listen);
  if (held_cursors != NIL) pins |= pin_bit(PinReason::held_cursor);
  if (traces.loaded) pins |= pin_bit(PinReason::loaded_library);
  if (traces.seeded) pins |= pin_bit(PinReason::random_seed);
  if (traces.function) pins |= pin_bit(PinReason::function);
  if (traces.slot || replorigin_session_origin != InvalidRepOriginId) pins |= pin_bit(PinReason::replication);
  if (get_backup_status() != SESSION_BACKUP_NONE) pins |= pin_bit(PinReason::backup);
  return pins;
}

// ------------------------------------------------------------------ saying so

static void log_change(std::uint32_t pins, std::int64_t now_us) {
  char reasons[256];
  (void)describe_pins(pins, reasons, sizeof(reasons));
  if (pins != 0)
    ereport(LOG_SERVER_ONLY,
            (errmsg("client %u of pool \"%s/%s\", application \"%s\", pinned to its backend: %s",
                    session.client_ref.slot, session.pool->role, session.pool->database, application_name, reasons),
             errhidestmt(true)));
  else
    ereport(LOG_SERVER_ONLY,
            (errmsg("client %u of pool \"%s/%s\" released from its backend after " INT64_FORMAT " ms",
                    session.client_ref.slot, session.pool->role, session.pool->database,
                    (now_us - session.client->pinned_since_us.load(std::memory_order_relaxed)) / 1000),
             errhidestmt(true)));
}

// Once for each client and reason: one that is pinned and released with every transaction is one event.
static void log_new_pins(std::uint32_t pins) {
  const std::uint32_t told = session.client->flags.load(std::memory_order_relaxed) >> kClientPinsToldShift;
  if ((pins & ~told) == 0) return;
  session.client->flags.fetch_or(pins << kClientPinsToldShift, std::memory_order_relaxed);
  char reasons[kEventReasonLength];
  (void)describe_pins(pins & ~told, reasons, sizeof(reasons));
  log_event(EventKind::pinned, session.pool_index, MyProcPid, static_cast<std::int32_t>(session.client_ref.slot),
            reasons);
}

static void set_pins(std::uint32_t pins) {
  const std::uint32_t earlier = session.pins;
  if (pins == earlier) return;
  const std::int64_t now_us = coarse_monotonic_us();

  for (std::uint32_t i = 0; i < kPinReasonCount; i++)
    if ((pins & ~earlier & (1u << i)) != 0) session.pool->pins[i].fetch_add(1, std::memory_order_relaxed);
  if ((pins & ~earlier) != 0) log_new_pins(pins);
  if (setting_log_pins) log_change(pins, now_us);
  session.pins = pins;
  if (earlier == 0 || pins == 0)
    session.client->pinned_since_us.store(pins == 0 ? 0 : now_us, std::memory_order_relaxed);
  session.client->pins.store(pins, std::memory_order_relaxed);
}

void update_pins() { set_pins(find_pins()); }

void pin_for_lack_of_memory() { set_pins(session.pins | pin_bit(PinReason::state_too_large)); }

void raise_pin_timeout() {
  char reasons[256];
  (void)describe_pins(session.pins, reasons, sizeof(reasons));
  session.pool->pin_timeouts.fetch_add(1, std::memory_order_relaxed);
  log_event(EventKind::pin_timeout, session.pool_index, MyProcPid, static_cast<std::int32_t>(session.client_ref.slot),
            reasons);
  ereport_client_end((errcode(ERRCODE_IDLE_SESSION_TIMEOUT), errmsg("terminating connection due to pin timeout"),
                      errdetail("The client kept its backend because of: %s.", reasons)));
}

// ------------------------------------------------------------------ taking away

static void drop_objects(bool temporary, bool listening) {
  temporary = temporary && OidIsValid(temporary_schema());
  if (!temporary && !listening) return;
  StartTransactionCommand();
  if (listening) Async_UnlistenAll();
  if (temporary) {
    PushActiveSnapshot(GetTransactionSnapshot());  // for catalog rows with values out of line
    ResetTempTableNamespace();
    PopActiveSnapshot();
  }
  CommitTransactionCommand();
}

// What functions for administrators leave behind in the process that ran them.
static void reset_administration() {
  if (replorigin_session_origin != InvalidRepOriginId) {
    replorigin_session_reset();
    replorigin_session_origin = InvalidRepOriginId;
    replorigin_session_origin_lsn = InvalidXLogRecPtr;
    replorigin_session_origin_timestamp = 0;
  }
  if (get_backup_status() != SESSION_BACKUP_NONE) do_pg_abort_backup(0, BoolGetDatum(true));
  if (has_temporary_slots()) drop_temporary_slots();
}

// Nobody else's random numbers may follow from this client's seed.
static void reseed() {
  DirectFunctionCall1(setseed, Float8GetDatum(pg_prng_double(&pg_global_prng_state) * 2.0 - 1.0));
}

bool renewal_is_due() { return count_hidden_settings() >= kHiddenSettingsLimit; }

// A temporary schema, once made, belongs to its process for good.  Emptied, it still shows: pg_my_temp_schema() is not
// 0, and a search path that ends in pg_temp finds it without the transaction being marked.
bool release_session_state(bool everything) {
  const bool unclean =
      traces.loaded || traces.function || (everything && (settings_were_added() || OidIsValid(temporary_schema())));

  set_pins(0);
  if (everything || held_cursors != NIL) PortalHashTableDeleteAll();
  list_free_deep(held_cursors);
  held_cursors = NIL;
  withdraw_client_settings();
  drop_objects(everything || has_temporary || traces.temporary || traces.changed,
               everything || is_listening || traces.listened);
  if (everything) DropAllPreparedStatements();
  if (holds_locks()) LockReleaseAll(USER_LOCKMETHOD, true);
  reset_administration();
  if (everything) ResetPlanCache();
  if (traces.seeded) reseed();
  has_temporary = is_listening = false;
  traces = SessionTraces{};
  return !unclean && !renewal_is_due();
}

}  // namespace sluice::pg
