// SPDX-License-Identifier: PostgreSQL
//
// A diagnosis in words: what fills the pool, the process that matters, and whether
// more backends would help.

#include "pg/compat.hpp"

#include "pg/stats/pool_diagnosis.hpp"

#include "core/session/pin.hpp"
#include "pg/shared_memory.hpp"
#include "pg/stats/snapshot.hpp"

namespace sluice::pg {

namespace {

const char *are(int count) { return count == 1 ? "is" : "are"; }
const char *ending(int count) { return count == 1 ? "s" : ""; }  // of a verb

// "all 4 working backends", "the only working backend", "3 of 4 working backends"
void append_share(StringInfo text, const PoolDiagnosis &diagnosis, const char *kind) {
  const bool of_server = diagnosis.scope == DiagnosisScope::server;
  const char *noun = of_server ? "pooled " : kind;
  const char *whose = of_server ? " of the server" : "";
  const int total = diagnosis.counted;
  if (diagnosis.affected < total)
    appendStringInfo(text, "%d of %d %sbackends%s", diagnosis.affected, total, noun, whose);
  else if (total == 1)
    appendStringInfo(text, "the only %sbackend%s", noun, whose);
  else
    appendStringInfo(text, "all %d %sbackends%s", total, noun, whose);
}

void append_longest(StringInfo text, const PoolDiagnosis &diagnosis) {
  char pins[256];
  describe_pins(diagnosis.pins, pins, sizeof(pins));
  appendStringInfo(text, " (longest " INT64_FORMAT " s, pid %d", diagnosis.age_us / 1000000, diagnosis.pid);
  if (pins[0] != '\0') appendStringInfo(text, ": %s", pins);
  appendStringInfoChar(text, ')');
}

// Where the server's limit binds it matters whose backends those are.
void append_worst_pool(StringInfo text, const PoolDiagnosis &diagnosis) {
  PoolNames names;
  if (diagnosis.scope != DiagnosisScope::server || diagnosis.in_worst_pool == 0 ||
      !copy_pool_names(diagnosis.worst_pool, names))
    return;
  appendStringInfo(text, ", %d in pool \"%s/%s\"", diagnosis.in_worst_pool, names.role, names.database);
}

void append_blocker_activity(StringInfo text, const Blocker &blocker) {
  if (blocker.activity == BlockerActivity::unknown) return;
  appendStringInfo(text, " (%s", describe(blocker.activity));
  if (blocker.age_us > 0) appendStringInfo(text, " for " INT64_FORMAT " s", blocker.age_us / 1000000);
  if (blocker.wait == WaitClass::client) appendStringInfoString(text, ", waits for its client");
  if (blocker.wait == WaitClass::io) appendStringInfoString(text, ", waits for I/O");
  appendStringInfoChar(text, ')');
}

void append_lock_convoy(StringInfo text, const PoolDiagnosis &diagnosis) {
  const Blocker &blocker = diagnosis.blocker;
  const bool one_blocker = diagnosis.chains > 0 && diagnosis.blocked == diagnosis.chains;
  append_share(text, diagnosis, "working ");
  appendStringInfo(text, " wait%s for ", ending(diagnosis.affected));
  if (diagnosis.chains == 0)
    appendStringInfoString(text, "locks");
  else if (!one_blocker)
    appendStringInfo(text, "locks, %d of them for one held by ", diagnosis.blocked);
  else
    appendStringInfoString(text, "a lock held by ");
  if (diagnosis.chains > 0 && blocker.activity == BlockerActivity::prepared)
    appendStringInfoString(text, "a prepared transaction");
  else if (diagnosis.chains > 0) {
    appendStringInfo(text, "pid %d", blocker.pid);
    append_blocker_activity(text, blocker);
  }
  appendStringInfoString(text, ": adding backends will not help");
}

// Whose clients keep them without using them.
void append_clients(StringInfo text, const PoolDiagnosis &diagnosis, const char *kind, const char *what,
                    const char *remedy) {
  append_share(text, diagnosis, kind);
  appendStringInfo(text, " %s %s", are(diagnosis.affected), what);
  append_longest(text, diagnosis);
  append_worst_pool(text, diagnosis);
  appendStringInfo(text, ": %s", remedy);
}

void append_nested(StringInfo text, const PoolDiagnosis &diagnosis) {
  const int count = diagnosis.in_use;
  appendStringInfo(text, "%d backend%s held by clients whose application waits for another one, probably for itself",
                   count, count == 1 ? " is" : "s are");
  if (diagnosis.pid != 0) append_longest(text, diagnosis);
  appendStringInfo(text, ": %d backends would be needed", diagnosis.nested_minimum);
}

// Number of processors, without a fraction where there is none.
void append_cores(StringInfo text, double cores) {
  appendStringInfo(text, "%g core%s", cores, cores == 1.0 ? "" : "s");
}

void append_on_processors(StringInfo text, const PoolDiagnosis &diagnosis) {
  append_share(text, diagnosis, "working ");
  appendStringInfo(text, " execute%s", ending(diagnosis.affected));
  append_worst_pool(text, diagnosis);
  if (diagnosis.cores <= 0.0) return;
  if (diagnosis.on_processors > diagnosis.affected)
    appendStringInfo(text, ", %d in all pools,", diagnosis.on_processors);
  appendStringInfoString(text, " on ");
  append_cores(text, diagnosis.cores);
}

// What waits, but for nothing that other backends could be in the way of.
void append_waits(StringInfo text, const PoolDiagnosis &diagnosis, const char *what) {
  append_share(text, diagnosis, "working ");
  appendStringInfo(text, " wait%s for %s", ending(diagnosis.affected), what);
  append_longest(text, diagnosis);
  append_worst_pool(text, diagnosis);
}

void append_help_if_cores_are_free(StringInfo text, const PoolDiagnosis &diagnosis) {
  if (diagnosis.more_backends_help == MoreBackends::no) {
    appendStringInfoString(text, ", and others keep ");
    append_cores(text, diagnosis.cores);
    appendStringInfoString(text, " busy: adding backends will not help");
  } else {
    appendStringInfoString(text, ": more backends may help");
  }
}

void append_mixture(StringInfo text, const PoolDiagnosis &diagnosis) {
  const char *separator = "";
  appendStringInfoString(text, "no single cause (");
  for (std::size_t i = 0; i < kPoolCauseCount; i++) {
    if (diagnosis.counts[i] == 0) continue;
    appendStringInfo(text, "%s%d: %s", separator, diagnosis.counts[i], describe(static_cast<PoolCause>(i)));
    separator = ", ";
  }
  appendStringInfo(text, "): %s",
                   diagnosis.more_backends_help == MoreBackends::no ? "adding backends will not help"
                                                                    : "more backends may help");
}

}  // namespace

void append_verdict(StringInfo text, const PoolDiagnosis &diagnosis) {
  const int affected = diagnosis.affected;
  switch (diagnosis.cause) {
    case PoolCause::not_full:
      appendStringInfo(text, "the pool is not full: %d of %d backends %s in use", diagnosis.in_use, diagnosis.max_size,
                       are(diagnosis.in_use));
      break;
    case PoolCause::nested_acquire:
      append_nested(text, diagnosis);
      break;
    case PoolCause::lock_convoy: append_lock_convoy(text, diagnosis); break;
    case PoolCause::idle_in_transaction:
      append_clients(text, diagnosis, "held ", "idle in transaction",
                     "end those transactions; more backends would only hold more of them");
      break;
    case PoolCause::pinned:
      append_clients(text, diagnosis, "held ", "pinned", "more backends would soon be pinned as well");
      break;
    case PoolCause::held_by_sessions:
      append_clients(text, diagnosis, "", "held by sessions whose clients are idle",
                     "each further backend would serve one more client only");
      break;
    case PoolCause::internal_contention:
      append_share(text, diagnosis, "working ");
      appendStringInfo(text, " wait%s for lightweight locks inside the server: more backends would only wait as well",
                       ending(affected));
      break;
    case PoolCause::cpu_bound:
      append_on_processors(text, diagnosis);
      appendStringInfo(text, ": more backends would not make %s faster", affected == 1 ? "it" : "them");
      break;
    case PoolCause::executing:
      append_on_processors(text, diagnosis);
      appendStringInfo(text, ": more backends %s",
                       diagnosis.more_backends_help == MoreBackends::yes ? "would help" : "may help");
      break;
    case PoolCause::slow_clients:
      append_waits(text, diagnosis,
                   affected == 1 ? "its client to read or to send" : "their clients to read or to send");
      append_help_if_cores_are_free(text, diagnosis);
      break;
    case PoolCause::io_bound:
      append_waits(text, diagnosis, "I/O");
      append_help_if_cores_are_free(text, diagnosis);
      break;
    case PoolCause::waiting_elsewhere:
      append_waits(text, diagnosis, "timers, extensions or other processes");
      append_help_if_cores_are_free(text, diagnosis);
      break;
    case PoolCause::starting:
      appendStringInfo(text, "%d backend%s starting or leaving: no more are needed yet", affected,
                       affected == 1 ? " is" : "s are");
      break;
    case PoolCause::server_full:
      appendStringInfoString(text, "other pools have all pooled backends of the server, and one that no client "
                                   "holds has to give way");
      break;
    case PoolCause::mixed: append_mixture(text, diagnosis); break;
    case PoolCause::unknown: appendStringInfoString(text, "what keeps the pool full could not be found out"); break;
  }
}

const char *hint_about(PoolAdvice advice) {
  switch (advice) {
    case PoolAdvice::end_blocking_transaction:
      return "See the view sluice.holders, and end that transaction; \"idle_in_transaction_session_timeout\" does so "
             "by itself.";
    case PoolAdvice::stop_blocker:
      return "See the column \"lock_wait_chain\" of the view sluice.holders, and end what holds the lock.";
    case PoolAdvice::finish_prepared:
      return "See the view pg_prepared_xacts, and end that transaction with COMMIT PREPARED or ROLLBACK PREPARED.";
    case PoolAdvice::end_idle_transactions:
      return "See the view sluice.holders, or consider setting \"idle_in_transaction_session_timeout\".";
    case PoolAdvice::limit_pins:
      return "See the column \"pins\" of the view sluice.holders, or consider setting \"sluice.pin_timeout\", or "
             "\"sluice.on_session_state\" to \"error\".";
    case PoolAdvice::use_transaction_mode:
      return "See the view sluice.holders, or consider setting \"sluice.pool_mode\" to \"transaction\", or raising "
             "\"sluice.max_pool_size\".";
    case PoolAdvice::look_at_clients:
      return "See the view sluice.holders for clients that do not read their results, or do not finish what they send.";
    case PoolAdvice::avoid_nesting:
      return "See the view sluice.holders. Let the application use one connection at a time, or consider raising "
             "\"sluice.max_backends\" or \"sluice.nested_reserve\".";
    case PoolAdvice::raise_max_pool_size:
      return "See the view sluice.holders, or consider raising \"sluice.max_pool_size\".";
    case PoolAdvice::raise_max_backends:
      return "See the view sluice.holders, or consider raising \"sluice.max_backends\".";
    case PoolAdvice::raise_both:
      return "See the view sluice.holders, or consider raising \"sluice.max_pool_size\" and \"sluice.max_backends\".";
    case PoolAdvice::none:
    case PoolAdvice::look_at_statements: break;
  }
  return "See the view sluice.holders for what the backends execute.";
}

}  // namespace sluice::pg
