// SPDX-License-Identifier: PostgreSQL
//
// sluice.recommendations: the numbers are collected here and put into words and
// SQL; what follows from them is decided in core/tuning/recommendations.
//
// Like the other views this takes no lock: gauges of one pool may be moments
// apart.  A pool that is given away while it is read is left out.

#include "pg/stats/view_row.hpp"

#include <sys/resource.h>

extern "C" {
#include "access/xlog.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/syscache.h"
}

#include "core/stats/pool_totals.hpp"
#include "core/tuning/recommendations.hpp"
#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"
#include "core/stats/pressure.hpp"
#include "pg/stats/pool_diagnosis.hpp"
#include "pg/stats/resource_sampler.hpp"
#include "pg/stats/snapshot.hpp"
#include "pg/tuning/pool_sizing.hpp"
#include "pg/tuning/system_files.hpp"

namespace sluice::pg {

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

// One row of sluice.recommendations; the strings live in the current memory context.
struct Advisory {
  const char *subject;
  const char *setting;
  const char *current;
  const char *recommended;  // null: there is no value to set
  const char *reason;
  const char *evidence;
  const char *confidence;  // how much the advice rests on
  const char *sql;         // null: nothing that SQL could do
};

// Numbers that have been counted, and limits that are what they are.
constexpr const char *kObserved = "observed";

void emit_advisory(FunctionCallInfo fcinfo, const Advisory &advisory) {
  ViewRow row;
  start_row(row);
  put_text(row, advisory.subject);
  put_text(row, advisory.setting);
  put_text(row, advisory.current);
  put_text_or_null(row, advisory.recommended, advisory.recommended != nullptr);
  put_text(row, advisory.reason);
  put_text(row, advisory.evidence);
  put_text(row, advisory.confidence != nullptr ? advisory.confidence : kObserved);
  put_text_or_null(row, advisory.sql, advisory.sql != nullptr);
  emit_row(fcinfo, row);
}

const char *number(std::int64_t value) {
  return psprintf(INT64_FORMAT, value);
}

// One statement: ALTER SYSTEM does not run in a string of several.
const char *set_for_server(const char *setting, std::int64_t value) {
  return psprintf("ALTER SYSTEM SET %s = " INT64_FORMAT ";", setting, value);
}

constexpr const char *kThenReload = "; takes effect with SELECT pg_reload_conf()";

// Settings that are read at start alone.
const char *set_for_next_start(const char *setting, std::int64_t value) {
  return psprintf("ALTER SYSTEM SET %s = " INT64_FORMAT ";", setting, value);
}

const char *set_for_pool(const PoolNames &names, const char *setting, const char *value) {
  return psprintf("ALTER ROLE %s IN DATABASE %s SET %s = %s;", quote_identifier(names.role),
                  quote_identifier(names.database), setting, value);
}

// A pool outlives its database and its role by a while; nothing can be set for it any more.
bool has_been_dropped(const PoolSlot &pool) {
  return !SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(pool.role_oid)) ||
         !SearchSysCacheExists1(DATABASEOID, ObjectIdGetDatum(pool.database_oid));
}

int nested_reserve() {
  return static_cast<int>(shared().header->backend_slots - shared().header->max_backends);
}

// As sluice.pressure says it of a pool that is full at this moment; where there is room it says nothing about that.
// Asked only while clients wait: what a snapshot shows of a pool that is merely well used must not outvote what was
// measured.
bool more_would_help(std::uint32_t index, LockLookups &lookups) {
  const PoolDiagnosis diagnosis = look_at_pool(index, lookups);
  return diagnosis.scope == DiagnosisScope::none || diagnosis.more_backends_help != MoreBackends::no;
}

PoolPressure measure_pool(const PoolSlot &pool, const PoolTotals &totals, const PoolSizing &sizing) {
  PoolPressure pressure;
  pressure.session_mode = pool.mode.load(kRelaxed) == static_cast<std::int32_t>(PoolMode::session);
  pressure.configured = pool.configured_max_size.load(kRelaxed);
  pressure.max_size = pool.max_size.load(kRelaxed);
  pressure.rule_size = sizing.question.rule_size;
  pressure.advised = sizing.table.advised_size;
  pressure.bound = sizing.table.bound;
  pressure.measured = sizing.table.advised_by != SizingRule::cores_and_spindles;
  const double predicted_now = predicted_commits_per_s(sizing, pressure.max_size);
  const double predicted = predicted_commits_per_s(sizing, pressure.advised);
  if (predicted_now > 0 && predicted > 0) pressure.throughput_gain = predicted / predicted_now;
  pressure.clients = pool.clients.load(kRelaxed);
  pressure.backends = pool.backends.load(kRelaxed);
  pressure.thinking = pool.thinking.load(kRelaxed);
  pressure.pinned = pool.pinned.load(kRelaxed);
  pressure.queued = Max(pool.queued.load(kRelaxed), 0);
  pressure.peak_backends = pool.peak_backends.load(kRelaxed);
  pressure.leases = totals.leases;
  pressure.waits = totals.waits;
  pressure.acquire_timeouts = pool.acquire_timeouts.load(kRelaxed);
  pressure.start_failures = pool.start_failures.load(kRelaxed);
  pressure.leaks = pool.leaks.load(kRelaxed);
  pressure.nested_acquires = pool.nested_acquires.load(kRelaxed);
  pressure.max_backends = static_cast<int>(shared().header->max_backends);
  pressure.idle_transaction_timeout_ms = pool.idle_transaction_timeout_ms.load(kRelaxed);
  return pressure;
}

const char *pool_evidence(const PoolPressure &pool) {
  return psprintf(
      "%d backends (at most %d so far), %d of them idle in transaction, %d pinned; %d clients, %d of them "
      "waiting; " UINT64_FORMAT " of " UINT64_FORMAT " leases had to wait, and " UINT64_FORMAT " clients gave up",
      pool.backends, pool.peak_backends, pool.thinking, pool.pinned, pool.clients, pool.queued, pool.waits, pool.leases,
      pool.acquire_timeouts);
}

// The message of a backend of the pool that could not start, for who may see it.
const char *start_failure_evidence(std::uint32_t index, const PoolNames &names, const PoolPressure &pool) {
  const char *count = psprintf("backends that could not start: " UINT64_FORMAT, pool.start_failures);
  if (!may_see_details(names.role_oid)) return count;

  const SharedState &state = shared();
  for (std::uint32_t i = 0; i < state.header->backend_slots; i++) {
    const BackendSlot &backend = state.backends[i];
    if (static_cast<BackendState>(backend.state.load(std::memory_order_acquire)) != BackendState::failed) continue;
    if (backend.pool.load(kRelaxed) != index) continue;
    char message[kFailureLength];
    strlcpy(message, backend.failure_message, sizeof(message));
    if (message[0] != '\0') return psprintf("%s, one of them with: %s", count, message);
  }
  return count;
}

const char *shrink_reason(const PoolPressure &pool) {
  if (pool.measured && pool.throughput_gain >= kThroughputWorthMention)
    return "fewer backends get more done: beyond the advised size they compete with each other instead of finishing";
  if (pool.measured) return "fewer backends get as much done, and each one less saves memory and makes latency shorter";
  if (pool.peak_backends - pool.thinking - pool.pinned > pool.advised)
    return "more backends than the machine has cores and disks for compete with each other instead of finishing; "
           "-1 lets the pool follow the rule";
  return "the pool may become far larger than the machine can serve, but has not yet; "
         "-1 lets it follow the rule";
}

const char *grow_reason(const PoolPressure &pool) {
  return pool.measured ? "clients wait, and more backends have been measured to get more done"
                       : "clients wait although the machine could serve more of them; -1 lets the pool follow the rule";
}

const char *size_evidence(const PoolPressure &pool, const PoolSizing &sizing) {
  if (!pool.measured) return psprintf("cores * 2 + spindles is %d; %s", pool.rule_size, pool_evidence(pool));
  const double now = predicted_commits_per_s(sizing, pool.max_size);
  return psprintf("%s %d: %.0f transactions/s predicted there, %s at %d; %s",
                  sizing_rule_phrase(sizing.table.advised_by).data(), pool.advised,
                  predicted_commits_per_s(sizing, pool.advised), now > 0 ? psprintf("%.0f", now) : "an unknown number",
                  pool.max_size, pool_evidence(pool));
}

const char *size_confidence(const PoolSizing &sizing) {
  switch (sizing.table.advised_by) {
    case SizingRule::measured_knee:
      return describe(sizing.question.knee_confidence).data();
    case SizingRule::calibrated:
      return "measured";
    default:
      return "rule of thumb";
  }
}

Advisory pool_size_advisory(const Recommendation &item, const PoolNames &names, const PoolPressure &pool,
                            const PoolSizing &sizing) {
  Advisory advisory{};
  advisory.setting = "sluice.max_pool_size";
  advisory.current = number(item.current);
  advisory.recommended = number(item.recommended);
  advisory.reason = item.advice == Advice::shrink_pool ? shrink_reason(pool) : grow_reason(pool);
  advisory.evidence = size_evidence(pool, sizing);
  advisory.confidence = size_confidence(sizing);
  // A pool that differs from the server has its value from ALTER ROLE or ALTER DATABASE; what has been measured was
  // measured for this pool alone.
  if (pool.measured || pool.configured != setting_max_pool_size) {
    advisory.sql = set_for_pool(names, "sluice.max_pool_size", advisory.recommended);
    return advisory;
  }
  advisory.reason = psprintf("%s%s", advisory.reason, kThenReload);
  advisory.sql = set_for_server("sluice.max_pool_size", item.recommended);
  return advisory;
}

Advisory calibrate_advisory(const PoolPressure &pool) {
  Advisory advisory{};
  advisory.setting = "sluice.max_pool_size";
  advisory.current = psprintf("%d", pool.max_size);
  advisory.reason =
      "clients wait in a full pool, and it has not been measured yet whether more backends than that would get more "
      "done: measure it in the pool's database, at a quiet time, with a statement that is typical of this pool; it is "
      "really executed";
  advisory.evidence = pool_evidence(pool);
  advisory.confidence = "none";
  // Refused as it stands: a script that nobody has thought about would be measured, and believed.
  advisory.sql = "SELECT * FROM sluice.calibrate('-- a statement that is typical of this pool');";
  return advisory;
}

Advisory nested_advisory(const Recommendation &item, const PoolSlot &slot) {
  Advisory advisory{};
  advisory.setting = "sluice.nested_reserve";
  advisory.current = psprintf("%d", nested_reserve());
  advisory.reason =
      "threads of an application hold one connection and wait for a second one, until one of them gives up: let them "
      "use one at a time; a reserve, or as many backends as they need, also lets them go on";
  advisory.evidence = psprintf(UINT64_FORMAT
                               " times all backends were held by applications that waited for another one; Tn * "
                               "(Cm - 1) + 1 = %d backends would have been enough, sluice.max_backends is " INT64_FORMAT,
                               slot.nested_acquires.load(kRelaxed), slot.nested_minimum.load(kRelaxed), item.current);
  advisory.confidence = "probable";
  advisory.sql = "SELECT * FROM sluice.events WHERE kind = 'nested_acquire';";
  return advisory;
}

Advisory pin_advisory(const PoolNames &names, const PoolPressure &pool) {
  Advisory advisory{};
  advisory.setting = "sluice.pin_timeout";
  advisory.current = psprintf("%dms", setting_pin_timeout);
  advisory.reason =
      "clients wait while others are pinned to backends and do nothing; find out by what they are pinned, let the "
      "application do without, or end them";
  advisory.evidence = pool_evidence(pool);
  advisory.sql = psprintf("SELECT client, application_name, pins, pinned_ms FROM sluice.clients WHERE database = %s "
                          "AND role = %s AND pins IS NOT NULL ORDER BY pinned_ms DESC;",
                          quote_literal_cstr(names.database), quote_literal_cstr(names.role));
  return advisory;
}

Advisory idle_advisory(const Recommendation &item, const PoolNames &names, const PoolPressure &pool) {
  Advisory advisory{};
  advisory.setting = "idle_in_transaction_session_timeout";
  advisory.current = psprintf(INT64_FORMAT "ms", item.current);
  advisory.evidence = psprintf("%s; " UINT64_FORMAT " transactions were in the way for too long", pool_evidence(pool),
                               pool.leaks);
  if (item.advice == Advice::end_long_transactions) {
    advisory.reason =
        "transactions held backends for longer than sluice.leak_threshold while clients waited: the events and the "
        "server log say which, and whether they were idle, which this setting ends, or executed, which it does not";
    advisory.sql = psprintf("SELECT * FROM sluice.events WHERE kind = 'leak' AND database = %s AND role = %s ORDER BY "
                            "number DESC;",
                            quote_literal_cstr(names.database), quote_literal_cstr(names.role));
    return advisory;
  }
  advisory.recommended = psprintf(INT64_FORMAT "ms", item.recommended);
  advisory.reason =
      "clients wait for backends whose own clients do nothing inside a transaction; "
      "a larger pool would only hold more of them";
  advisory.sql = set_for_pool(names, advisory.setting, psprintf("'%s'", advisory.recommended));
  return advisory;
}

Advisory pool_advisory(const Recommendation &item, std::uint32_t index, const PoolNames &names,
                       const PoolPressure &pool, const PoolSizing &sizing) {
  Advisory advisory{};
  switch (item.advice) {
    case Advice::end_idle_transactions:
    case Advice::end_long_transactions:
      advisory = idle_advisory(item, names, pool);
      break;
    case Advice::calibrate:
      advisory = calibrate_advisory(pool);
      break;
    case Advice::break_nested_acquire:
      advisory = nested_advisory(item, shared().pools[index]);
      break;
    case Advice::release_pins:
      advisory = pin_advisory(names, pool);
      break;
    case Advice::one_backend_per_client:
      advisory.setting = "sluice.max_pool_size";
      advisory.current = psprintf("%d", pool.max_size);
      advisory.recommended = psprintf(INT64_FORMAT, item.recommended);
      advisory.reason =
          "clients wait for others to leave: in session mode each client holds a backend until it disconnects, "
          "so the pool needs as many as there are clients at a time";
      advisory.evidence = pool_evidence(pool);
      advisory.sql = set_for_pool(names, advisory.setting, advisory.recommended);
      break;
    case Advice::look_at_holders:
      advisory.setting = "sluice.acquire_timeout";
      advisory.current = psprintf("%dms", shared().pools[index].acquire_timeout_ms.load(kRelaxed));
      advisory.reason =
          "clients gave up waiting; look for long statements and transactions that hold the pool's backends";
      advisory.evidence = pool_evidence(pool);
      advisory.sql = psprintf("SELECT * FROM sluice.holders WHERE database = %s AND role = %s;",
                              quote_literal_cstr(names.database), quote_literal_cstr(names.role));
      break;
    case Advice::mend_starts:
      advisory.setting = "start of backends";
      advisory.current = psprintf("%s failed", number(item.current));
      advisory.reason =
          "backends of this pool could not start: no free worker process (max_worker_processes), or a database or role "
          "that does not let them in; the events and the server log say why";
      advisory.evidence = start_failure_evidence(index, names, pool);
      advisory.sql = psprintf("SELECT * FROM sluice.events WHERE kind = 'start_failed' AND database = %s AND role = %s "
                              "ORDER BY number DESC;",
                              quote_literal_cstr(names.database), quote_literal_cstr(names.role));
      break;
    default:
      advisory = pool_size_advisory(item, names, pool, sizing);
      break;
  }
  advisory.subject = psprintf("pool \"%s/%s\"", names.database, names.role);
  if (RecoveryInProgress() && advisory.sql != nullptr && strncmp(advisory.sql, "ALTER ROLE", 10) == 0) {
    advisory.reason = psprintf("%s; to be run on the primary: %s", advisory.reason, advisory.sql);
    advisory.sql = nullptr;
  }
  return advisory;
}

// Now, or at the peak.
int most_direct_connections() {
  const ResourceTrack &track = shared().header->resources[static_cast<std::size_t>(Resource::connections)];
  const ResourceHistory history = track.read(server_era());
  const int now = CountDBConnections(InvalidOid);
  return history.has_peak ? Max(now, static_cast<int>(history.peak)) : now;
}

ServerPressure measure_server(const Machine &machine) {
  const SharedHeader &header = *shared().header;
  ServerPressure pressure;
  pressure.max_backends = static_cast<int>(header.max_backends);
  pressure.backends = header.backends.load(kRelaxed);
  pressure.max_clients = static_cast<int>(header.max_clients);
  pressure.clients = header.clients.load(kRelaxed);
  pressure.descriptor_base = header.descriptor_base;
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_max != RLIM_INFINITY) {
    pressure.descriptor_limit = static_cast<std::int64_t>(limit.rlim_max);
  }
  pressure.max_connections = MaxConnections;
  pressure.direct_connections = RecoveryInProgress() ? -1 : most_direct_connections();
  pressure.machine_known = machine.known;
  pressure.spindles = machine.facts.spindles;
  pressure.miss_ratio = machine.facts.miss_ratio;
  pressure.track_timing = setting_track_timing;
  pressure.nested_reserve = nested_reserve();
  return pressure;
}

void add_pool(ServerPressure &server, const PoolSlot &slot, const PoolTotals &totals, const PoolPressure &pool) {
  server.thinking += pool.thinking;
  server.pinned += pool.pinned;
  server.queued += pool.queued;
  server.wanted_backends += sensible_size(pool);
  server.oversized_pools += sensible_size(pool) < pool.max_size ? 1 : 0;
  server.acquire_timeouts += pool.acquire_timeouts;
  server.nested_minimum = Max(server.nested_minimum, slot.nested_minimum.load(kRelaxed));
  server.pooled_transactions += totals.transactions;
}

const char *raise_descriptor_sql(const ServerPressure &server) {
  const std::int64_t fits = server.descriptor_limit - server.descriptor_base;
  return fits < 1 ? nullptr : set_for_next_start("sluice.max_clients", fits);
}

Advisory server_limit_advisory(const Recommendation &item, const ServerPressure &server) {
  Advisory advisory{};
  if (item.advice == Advice::raise_max_backends) {
    advisory.setting = "sluice.max_backends";
    advisory.reason =
        server.nested_minimum > server.max_backends + server.nested_reserve
            ? "applications hold all backends and wait for another one; takes a restart of the server"
            : "clients wait, and no pool may start another backend; takes a restart of the server";
    advisory.reason =
        psprintf("%s, of standbys before their primary, as it raises max_worker_processes", advisory.reason);
    advisory.evidence = psprintf(
        "%d of %d backends, %d of them idle in transaction, %d pinned; %d clients waiting; "
        "the pools together may want " INT64_FORMAT,
        server.backends, server.max_backends, server.thinking, server.pinned, server.queued, server.wanted_backends);
  } else if (item.advice == Advice::raise_max_clients) {
    advisory.setting = "sluice.max_clients";
    advisory.reason = "soon no more clients can connect; takes a restart of the server";
    advisory.evidence = psprintf("%d of %d clients", server.clients, server.max_clients);
  } else {
    advisory.setting = "max_connections";
    advisory.reason =
        "clients that come through a pool need no connections of their own, and room for more than are "
        "used costs shared memory; takes a restart of the server, of a primary before its standbys";
    advisory.evidence = psprintf("at most %d connections that were not pooled, as far as sluice.pressure remembers; "
                                 UINT64_FORMAT " transactions went through pools",
                                 server.direct_connections, server.pooled_transactions);
  }
  advisory.sql = set_for_next_start(advisory.setting, item.recommended);
  advisory.current = number(item.current);
  advisory.recommended = number(item.recommended);
  return advisory;
}

Advisory server_advisory(const Recommendation &item, const ServerPressure &server, const Machine &machine) {
  Advisory advisory{};
  switch (item.advice) {
    case Advice::raise_descriptor_limit:
      advisory.setting = "RLIMIT_NOFILE";
      advisory.current = number(item.current);
      advisory.recommended = number(item.recommended);
      advisory.reason =
          "there are fewer descriptors than clients may connect: raise the limit where the server is "
          "started (LimitNOFILE of a systemd unit), or lower sluice.max_clients; takes a restart";
      advisory.evidence = psprintf("descriptors of clients begin at " INT64_FORMAT " and sluice.max_clients is %d",
                                   server.descriptor_base, server.max_clients);
      advisory.sql = raise_descriptor_sql(server);
      break;
    case Advice::tell_spindles:
      advisory.setting = "sluice.spindles";
      advisory.current = "-1";
      advisory.recommended = "number of rotating disks";
      advisory.reason =
          "the number of rotating disks is unknown and counts as 0 in the sizing rule: say how "
          "many there are, or, as this SQL does, that there are none (solid state disks); takes effect with SELECT "
          "pg_reload_conf()";
      advisory.evidence = shown_system_text(machine.facts.spindles_reason);
      if (machine.facts.miss_ratio >= 0)
        advisory.evidence =
            psprintf("%s; miss ratio of the buffer cache %.4f", advisory.evidence, machine.facts.miss_ratio);
      advisory.sql = set_for_server("sluice.spindles", 0);
      break;
    case Advice::track_timing:
      advisory.setting = "sluice.track_timing";
      advisory.current = "off";
      advisory.recommended = "on";
      advisory.reason = psprintf("nothing is measured: no wait times, no knee, no leaks%s", kThenReload);
      advisory.evidence = "the setting is off";
      advisory.sql = "ALTER SYSTEM SET sluice.track_timing = on;";
      break;
    default:
      advisory = server_limit_advisory(item, server);
      break;
  }
  advisory.subject = "server";
  return advisory;
}

}  // namespace

extern "C" {

PG_FUNCTION_INFO_V1(sluice_recommendations);

PGDLLEXPORT Datum sluice_recommendations(PG_FUNCTION_ARGS) {
  require_shared_memory();
  InitMaterializedSRF(fcinfo, 0);

  const SharedState &state = shared();
  const Machine machine = look_at_machine();
  ServerPressure server = measure_server(machine);
  auto *totals = static_cast<PoolTotals *>(palloc(sizeof(PoolTotals)));
  auto *sizing = static_cast<PoolSizing *>(palloc(sizeof(PoolSizing)));
  auto *lookups = static_cast<LockLookups *>(palloc0(sizeof(LockLookups)));

  for (std::uint32_t i = 0; i < state.header->max_pools; i++) {
    PoolNames names;
    if (!copy_pool_names(i, names) || has_been_dropped(state.pools[i])) continue;
    collect_pool_totals(state, i, false, *totals);
    look_at_pool_sizing(i, machine, *sizing);
    PoolPressure pool = measure_pool(state.pools[i], *totals, *sizing);
    pool.more_would_help = pool.session_mode || pool.queued == 0 || more_would_help(i, *lookups);
    add_pool(server, state.pools[i], *totals, pool);
    const Recommendations list = recommend_for_pool(pool);
    for (std::size_t k = 0; k < list.count; k++) {
      emit_advisory(fcinfo, pool_advisory(list.items[k], i, names, pool, *sizing));
    }
  }

  const Recommendations list = recommend_for_server(server);
  for (std::size_t k = 0; k < list.count; k++) {
    emit_advisory(fcinfo, server_advisory(list.items[k], server, machine));
  }
  return static_cast<Datum>(0);
}

}  // extern "C"

}  // namespace sluice::pg
