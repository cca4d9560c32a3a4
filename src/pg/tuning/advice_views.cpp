// SPDX-License-Identifier: PostgreSQL
//
// sluice.sizing and sluice.recommendations: the numbers are collected here and
// put into words and SQL; what follows from them is decided in core/tuning.
//
// Like the other views these take no lock: gauges of one pool may be moments
// apart.  A pool that is given away while it is read is left out.

#include "pg/stats/view_row.hpp"

#include <sys/resource.h>

extern "C" {
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
}

#include "core/stats/pool_totals.hpp"
#include "core/tuning/machine_snapshot.hpp"
#include "core/tuning/recommendations.hpp"
#include "core/tuning/sizing.hpp"
#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"
#include "pg/stats/snapshot.hpp"

namespace sluice::pg {

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

struct Machine {
  bool known;  // the statistician has looked at least once
  MachineSnapshot facts;
};

Machine look_at_machine() {
  Machine machine{};
  machine.known = read_machine_facts(shared().header->machine, machine.facts);
  return machine;
}

// ---------------------------------------------------------------- sizing

void put_machine(ViewRow &row, const Machine &machine) {
  const MachineSnapshot &facts = machine.facts;
  put_double_or_null(row, facts.cores, machine.known);
  put_int_or_null(row, facts.physical_cores, machine.known && facts.physical_cores > 0);
  put_int_or_null(row, facts.logical_cpus, machine.known && facts.logical_cpus > 0);
  put_double_or_null(row, facts.quota_cores, machine.known && facts.quota_cores > 0);
  put_text_or_null(row, facts.cores_reason, machine.known);
  put_int_or_null(row, facts.spindles, machine.known && facts.spindles >= 0);
  put_double_or_null(row, facts.miss_ratio, machine.known && facts.miss_ratio >= 0);
  put_double_or_null(row, effective_spindles(facts.spindles, facts.miss_ratio), machine.known);
  put_text_or_null(row, facts.spindles_reason, machine.known);
}

const char *rule_note(const Machine &machine) {
  if (!machine.known) return "the statistician has not looked at the machine yet";
  const MachineSnapshot &facts = machine.facts;
  const double spindles = effective_spindles(facts.spindles, facts.miss_ratio);
  const char *note = psprintf("%.4g * 2 + %.4g, rounded, at least 1", facts.cores, spindles);
  if (facts.spindles < 0) return psprintf("%s; unknown spindles count as 0, sluice.spindles sets them", note);
  if (facts.spindles > 0 && facts.miss_ratio < 0) return psprintf("%s; nothing has been read yet", note);
  return note;
}

const char *sizing_note(const SizingRow &row, const SizingQuestion &question, const Machine &machine) {
  switch (row.rule) {
    case SizingRule::cores_and_spindles:
      return rule_note(machine);
    case SizingRule::configured:
      return row.size < 0 ? "sluice.max_pool_size is -1: the pool follows the rule" : "sluice.max_pool_size";
    case SizingRule::max_backends:
      return "sluice.max_backends, for all pools together";
    case SizingRule::deadlock_minimum:
      if (row.size < 0) return "Tn * (Cm - 1) + 1 for Tn threads that hold Cm connections each; no clients now";
      return psprintf("Tn * (Cm - 1) + 1 if each of Tn = " INT64_FORMAT " threads held Cm = 2 of the " INT64_FORMAT
                      " connections of now; of no interest if each holds one",
                      (question.clients + 1) / 2, question.clients);
  }
  return "";
}

// names: null for the rows about a pool that does not exist yet.
void emit_sizing(FunctionCallInfo fcinfo, const PoolNames *names, const SizingQuestion &question,
                 const Machine &machine) {
  const SizingTable table = decide_sizing(question);
  for (const SizingRow &rule : table.rows) {
    ViewRow row;
    start_row(row);
    put_name_or_null(row, names ? names->database : "", names != nullptr);
    put_name_or_null(row, names ? names->role : "", names != nullptr);
    put_text(row, sizing_rule_phrase(rule.rule).data());
    put_int_or_null(row, static_cast<std::int32_t>(rule.size), rule.size >= 0);
    put_bool(row, rule.binds);
    put_machine(row, machine);
    put_text(row, sizing_note(rule, question, machine));
    emit_row(fcinfo, row);
  }
}

// ---------------------------------------------------------------- recommendations

// One row of sluice.recommendations; the strings live in the current memory context.
struct Advisory {
  const char *subject;
  const char *setting;
  const char *current;
  const char *recommended;  // null: there is no value to set
  const char *reason;
  const char *evidence;
  const char *sql;  // null: nothing that SQL could do
};

void emit_advisory(FunctionCallInfo fcinfo, const Advisory &advisory) {
  ViewRow row;
  start_row(row);
  put_text(row, advisory.subject);
  put_text(row, advisory.setting);
  put_text(row, advisory.current);
  put_text_or_null(row, advisory.recommended, advisory.recommended != nullptr);
  put_text(row, advisory.reason);
  put_text(row, advisory.evidence);
  put_text_or_null(row, advisory.sql, advisory.sql != nullptr);
  emit_row(fcinfo, row);
}

const char *number(std::int64_t value) {
  return psprintf(INT64_FORMAT, value);
}

const char *set_for_server(const char *setting, std::int64_t value) {
  return psprintf("ALTER SYSTEM SET %s = " INT64_FORMAT "; SELECT pg_reload_conf();", setting, value);
}

// Settings that are read at start alone.
const char *set_for_next_start(const char *setting, std::int64_t value) {
  return psprintf("ALTER SYSTEM SET %s = " INT64_FORMAT ";", setting, value);
}

const char *set_for_pool(const PoolNames &names, const char *setting, const char *value) {
  // Backends that run already are replaced at once, not with the dispatcher's next look at them.
  return psprintf("ALTER ROLE %s IN DATABASE %s SET %s = %s; SELECT sluice.retire_backends(%s, %s);",
                  quote_identifier(names.role), quote_identifier(names.database), setting, value,
                  quote_literal_cstr(names.database), quote_literal_cstr(names.role));
}

PoolPressure measure_pool(const PoolSlot &pool, const PoolTotals &totals, int rule_size) {
  PoolPressure pressure;
  pressure.session_mode = pool.mode.load(kRelaxed) == static_cast<std::int32_t>(PoolMode::session);
  pressure.configured = pool.configured_max_size.load(kRelaxed);
  pressure.max_size = pool.max_size.load(kRelaxed);
  pressure.rule_size = rule_size;
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
  pressure.idle_transaction_timeout_ms = IdleInTransactionSessionTimeout;
  return pressure;
}

const char *pool_evidence(const PoolPressure &pool) {
  return psprintf(
      "%d backends (at most %d so far), %d of them idle in transaction, %d pinned; %d clients, %d of them waiting; " UINT64_FORMAT
      " of " UINT64_FORMAT " leases had to wait, " UINT64_FORMAT " timed out",
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
  if (pool.peak_backends - pool.thinking - pool.pinned > pool.rule_size) {
    return "more backends than the machine has cores and disks for compete with each other instead of finishing; "
           "-1 lets the pool follow the rule";
  }
  return "the pool may become far larger than the machine can serve, but has not yet; "
         "-1 lets it follow the rule";
}

Advisory pool_size_advisory(const Recommendation &item, const PoolNames &names, const PoolPressure &pool) {
  Advisory advisory{};
  advisory.setting = "sluice.max_pool_size";
  advisory.current = number(item.current);
  advisory.recommended = number(item.recommended);
  advisory.reason =
      item.advice == Advice::shrink_pool
          ? shrink_reason(pool)
          : "clients wait although the machine could serve more of them; -1 lets the pool follow the rule";
  advisory.evidence = psprintf("cores * 2 + spindles is %d; %s", pool.rule_size, pool_evidence(pool));
  // A pool that differs from the server has its value from ALTER ROLE or ALTER DATABASE.
  advisory.sql = pool.configured == setting_max_pool_size
                     ? set_for_server("sluice.max_pool_size", item.recommended)
                     : set_for_pool(names, "sluice.max_pool_size", advisory.recommended);
  return advisory;
}

Advisory pool_advisory(const Recommendation &item, std::uint32_t index, const PoolNames &names,
                       const PoolPressure &pool) {
  Advisory advisory{};
  switch (item.advice) {
    case Advice::end_idle_transactions:
      advisory.setting = "idle_in_transaction_session_timeout";
      advisory.current = psprintf(INT64_FORMAT "ms", item.current);
      advisory.recommended = psprintf(INT64_FORMAT "ms", item.recommended);
      advisory.reason =
          "clients wait for backends whose own clients do nothing inside a transaction; "
          "a larger pool would only hold more of them";
      advisory.evidence = pool_evidence(pool);
      advisory.sql = set_for_pool(names, advisory.setting, psprintf("'%s'", advisory.recommended));
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
          "clients gave up waiting although the pool has the size it should have; "
          "look for long statements and transactions that hold its backends";
      advisory.evidence = pool_evidence(pool);
      advisory.sql = psprintf("SELECT * FROM sluice.backends WHERE database = %s AND role = %s;",
                              quote_literal_cstr(names.database), quote_literal_cstr(names.role));
      break;
    case Advice::mend_starts:
      advisory.setting = "max_worker_processes";
      advisory.current = number(max_worker_processes);
      advisory.reason =
          "backends of this pool could not start; the server log says why: no free worker process, or a "
          "database or role that does not let them in";
      advisory.evidence = start_failure_evidence(index, names, pool);
      advisory.sql = "SELECT * FROM sluice.backends WHERE state = 'failed';";
      break;
    default:
      advisory = pool_size_advisory(item, names, pool);
      break;
  }
  advisory.subject = psprintf("pool \"%s/%s\"", names.database, names.role);
  return advisory;
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
  pressure.direct_connections = CountDBConnections(InvalidOid);
  pressure.machine_known = machine.known;
  pressure.spindles = machine.facts.spindles;
  pressure.miss_ratio = machine.facts.miss_ratio;
  return pressure;
}

void add_pool(ServerPressure &server, const PoolTotals &totals, const PoolPressure &pool) {
  server.thinking += pool.thinking;
  server.pinned += pool.pinned;
  server.queued += pool.queued;
  server.wanted_backends += sensible_size(pool);
  server.oversized_pools += sensible_size(pool) < pool.max_size ? 1 : 0;
  server.acquire_timeouts += pool.acquire_timeouts;
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
    advisory.reason = "clients wait, and no pool may start another backend; takes a restart of the server";
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
    advisory.evidence = psprintf("%d connections that are not pooled now, their peak is not known; " UINT64_FORMAT
                                 " transactions went through pools",
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
          "many there are, or, as this SQL does, that there are none (solid state disks)";
      advisory.evidence = machine.facts.miss_ratio < 0
                              ? machine.facts.spindles_reason
                              : psprintf("%s; miss ratio of the buffer cache %.4f", machine.facts.spindles_reason,
                                         machine.facts.miss_ratio);
      advisory.sql = set_for_server("sluice.spindles", 0);
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

PG_FUNCTION_INFO_V1(sluice_sizing);
PG_FUNCTION_INFO_V1(sluice_recommendations);

PGDLLEXPORT Datum sluice_sizing(PG_FUNCTION_ARGS) {
  require_shared_memory();
  InitMaterializedSRF(fcinfo, 0);

  const SharedState &state = shared();
  const Machine machine = look_at_machine();
  SizingQuestion question;
  question.rule_size = machine.known ? machine.facts.rule_size : 0;
  question.max_backends = static_cast<int>(state.header->max_backends);

  bool any = false;
  for (std::uint32_t i = 0; i < state.header->max_pools; i++) {
    PoolNames names;
    if (!copy_pool_names(i, names)) continue;
    question.configured = state.pools[i].configured_max_size.load(kRelaxed);
    question.clients = Max(state.pools[i].clients.load(kRelaxed), 0);
    emit_sizing(fcinfo, &names, question, machine);
    any = true;
  }
  if (!any) {
    question.configured = setting_max_pool_size;
    emit_sizing(fcinfo, nullptr, question, machine);
  }
  return static_cast<Datum>(0);
}

PGDLLEXPORT Datum sluice_recommendations(PG_FUNCTION_ARGS) {
  require_shared_memory();
  InitMaterializedSRF(fcinfo, 0);

  const SharedState &state = shared();
  const Machine machine = look_at_machine();
  ServerPressure server = measure_server(machine);
  auto *totals = static_cast<PoolTotals *>(palloc(sizeof(PoolTotals)));

  for (std::uint32_t i = 0; i < state.header->max_pools; i++) {
    PoolNames names;
    if (!copy_pool_names(i, names)) continue;
    collect_pool_totals(state, i, false, *totals);
    const PoolPressure pool = measure_pool(state.pools[i], *totals, machine.known ? machine.facts.rule_size : 0);
    add_pool(server, *totals, pool);
    const Recommendations list = recommend_for_pool(pool);
    for (std::size_t k = 0; k < list.count; k++) {
      emit_advisory(fcinfo, pool_advisory(list.items[k], i, names, pool));
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
