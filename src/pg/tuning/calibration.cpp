// SPDX-License-Identifier: PostgreSQL
//
// sluice.calibrate(): how many backends are best for this script on this machine?
// Measured, not calculated: the script is executed by 1, 2, 3 ... backends at once.
//
//   trial     every worker executes the script once; if it fails everywhere, its
//             error is the caller's
//   warm-up   all of them together, not counted
//   rounds    each size for seconds_per_size, in the order that
//             core/tuning/calibration decides, with a pause before each
//
// What it costs.  The time is bounded before it begins; a transaction that is still
// running when its time is over has as long again (kLeastGrace_s at least) to end,
// which the bound includes, and is then cancelled and not counted.  Whatever the script does is done: workers
// commit.  The caller's own transaction stays open meanwhile: what it has locked
// can block the workers, what it has not committed they do not see, and its
// snapshot keeps dead rows from being pruned, which makes a script that updates
// the same rows slower as the sweep goes on (the order of the sizes spreads that).
//
// Privileges.  The workers are sessions of the caller's current role.  So whoever
// may call this can do nothing that a connection of that role could not; but it
// takes worker processes and the machine, and is therefore for those to whom
// EXECUTE was granted.
//
// One at a time.  Two sweeps would measure each other, and both take workers.  So a
// sweep writes its PID into the header by compare-and-set, and takes it out when it
// ends, by an error and by the end of the session too.  Should the mark of a
// process that is no more be left, the next sweep takes it over.

#include "pg/stats/view_row.hpp"

extern "C" {
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "nodes/parsenodes.h"
#include "storage/ipc.h"
#include "storage/procarray.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/syscache.h"
}

#include "core/stats/histogram.hpp"
#include "core/tuning/calibration.hpp"
#include "core/tuning/knee_facts.hpp"
#include "core/tuning/machine_snapshot.hpp"
#include "pg/shared_memory.hpp"
#include "pg/tuning/calibration.hpp"
#include "pg/tuning/pool_sizing.hpp"

namespace sluice::pg {

namespace {

constexpr double kLongestWarmUp_s = 1;

// What was measured at one size, over all rounds.
struct SizeResult {
  bool measured;
  double *per_second;  // of each round
  std::size_t rounds;
  std::uint64_t errors;
  std::uint64_t cut_off;           // transactions
  const CalibratorError *example;  // the first of the errors, or null
  HistogramCounts *latency_us;
};

struct Sweep {
  CalibrationPlan plan;
  SizeResult *results;  // one for each size of the plan
  int members;          // workers there were; sizes above were not measured
};

// ---------------------------------------------------------------- what may be executed

void refuse_restricted_operation() {
  if (InSecurityRestrictedOperation())
    ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
                    errmsg("cannot execute sluice.calibrate() within security-restricted operation")));
}

// Workers of workers would measure each other.
void refuse_recursion() {
  if (is_calibrator())
    ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                    errmsg("the script cannot call sluice.calibrate() itself")));
}

// The workers would be refused by the server, each with a message in its log.
void refuse_role_without_login() {
  HeapTuple tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
  if (!HeapTupleIsValid(tuple)) elog(ERROR, "cache lookup failed for role %u", GetUserId());
  const bool can_login = reinterpret_cast<Form_pg_authid>(GETSTRUCT(tuple))->rolcanlogin;
  ReleaseSysCache(tuple);
  if (!can_login)
    ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                    errmsg("role \"%s\" is not permitted to log in", GetUserNameFromId(GetUserId(), false)),
                    errdetail("Calibrators connect to the database as the current role."),
                    errhint("SET ROLE to a role with the LOGIN attribute.")));
}

// A position in the script is not one in the query that calls the function.
extern "C" void place_script_error(void *script) {
  const int position = geterrposition();
  if (position > 0) {
    errposition(0);
    internalerrposition(position);
    internalerrquery(static_cast<const char *>(script));
  }
  errcontext("script of sluice.calibrate()");
}

void refuse_statement(const Node *statement) {
  if (IsA(statement, TransactionStmt))
    ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                    errmsg("%s is not allowed in the script", CreateCommandName(const_cast<Node *>(statement))),
                    errdetail("Each execution of the script is a transaction of its own.")));
  if (IsA(statement, CopyStmt) && reinterpret_cast<const CopyStmt *>(statement)->filename == nullptr)
    ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                    errmsg("COPY to or from the client is not allowed in the script"),
                    errdetail("There is no client.")));
}

void check_script(char *script) {
  ErrorContextCallback callback;
  callback.callback = place_script_error;
  callback.arg = script;
  callback.previous = error_context_stack;
  error_context_stack = &callback;

  List *statements = pg_parse_query(script);
  ListCell *cell;
  if (statements == NIL) ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("the script is empty")));
  foreach (cell, statements) refuse_statement(lfirst_node(RawStmt, cell)->stmt);

  error_context_stack = callback.previous;
}

// ---------------------------------------------------------------- arguments

const char *refusal_detail(CalibrationRefusal refusal, const CalibrationPlan &plan) {
  switch (refusal) {
    case CalibrationRefusal::no_sizes:
    case CalibrationRefusal::too_many_sizes:
      return psprintf("There can be 1 to %d sizes, or NULL for a choice by the sizing rule.",
                      static_cast<int>(kMostCalibrationSizes));
    case CalibrationRefusal::size_out_of_range:
      return psprintf("Sizes go from 1 to %d.", kGreatestCalibrationSize);
    case CalibrationRefusal::seconds_out_of_range:
      return psprintf("It can be %g to %g seconds.", kShortestMeasurement_s, kLongestCalibration_s);
    case CalibrationRefusal::pause_out_of_range:
      return psprintf("It can be 0 to %g seconds.", kLongestCalibration_s);
    case CalibrationRefusal::rounds_out_of_range:
      return psprintf("There can be 1 to %d rounds.", static_cast<int>(kMostCalibrationRounds));
    default:
      return psprintf("%d rounds of %d sizes with %g seconds and a pause of %g seconds each, and a trial and a warm-up "
                      "before them, can take %.0f seconds if transactions have to be cancelled; at most %g are allowed.",
                      plan.rounds, static_cast<int>(plan.sizes.count), plan.seconds_per_size, plan.pause_s,
                      longest_duration_s(plan), kLongestCalibration_s);
  }
}

[[noreturn]] void refuse_plan(CalibrationRefusal refusal, const CalibrationPlan &plan) {
  const std::string_view phrase = calibration_refusal_phrase(refusal);
  ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("cannot calibrate: %s", phrase.data()),
                  errdetail_internal("%s", refusal_detail(refusal, plan))));
}

void refuse_null(FunctionCallInfo fcinfo, int number, const char *name) {
  if (PG_ARGISNULL(number))
    ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("argument \"%s\" must not be NULL", name)));
}

void read_sizes(ArrayType *array, CalibrationPlan &plan) {
  Datum *elements;
  bool *nulls;
  int count;

  if (ARR_NDIM(array) > 1)
    ereport(ERROR, (errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR), errmsg("argument \"sizes\" must have one dimension")));
  deconstruct_array(array, INT4OID, sizeof(std::int32_t), true, TYPALIGN_INT, &elements, &nulls, &count);
  if (count > static_cast<int>(kMostCalibrationSizes)) refuse_plan(CalibrationRefusal::too_many_sizes, plan);
  for (int i = 0; i < count; i++) {
    if (nulls[i])
      ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("argument \"sizes\" must not contain NULL")));
    plan.sizes.sizes[plan.sizes.count++] = DatumGetInt32(elements[i]);
  }
  normalize(plan.sizes);
}

void choose_sizes(int available, CalibrationPlan &plan) {
  MachineSnapshot facts;
  const int rule = read_machine_facts(shared().header->machine, facts) ? facts.rule_size : 0;
  plan.sizes = choose_calibration_sizes(rule, available);
  const CalibrationSizes wanted = choose_calibration_sizes(rule, kGreatestCalibrationSize);
  const int greatest = plan.sizes.sizes[plan.sizes.count - 1];
  if (greatest < wanted.sizes[wanted.count - 1])
    ereport(NOTICE, (errmsg("the sizes end at %d for lack of worker processes", greatest),
                     errhint("You may need to increase max_worker_processes.")));
}

CalibrationPlan read_plan(FunctionCallInfo fcinfo, int available) {
  CalibrationPlan plan{};
  refuse_null(fcinfo, 0, "script");
  refuse_null(fcinfo, 2, "seconds_per_size");
  refuse_null(fcinfo, 3, "pause_s");
  refuse_null(fcinfo, 4, "rounds");
  plan.seconds_per_size = PG_GETARG_FLOAT8(2);
  plan.pause_s = PG_GETARG_FLOAT8(3);
  plan.rounds = PG_GETARG_INT32(4);
  if (PG_ARGISNULL(1))
    choose_sizes(available, plan);
  else
    read_sizes(PG_GETARG_ARRAYTYPE_P(1), plan);
  const CalibrationRefusal refusal = check(plan);
  if (refusal != CalibrationRefusal::none) refuse_plan(refusal, plan);
  return plan;
}

// ---------------------------------------------------------------- one at a time

void claim_machine() {
  std::atomic<std::int32_t> &owner = shared().header->calibration_pid;
  std::int32_t present = 0;
  // A failure tells who is there; if that is nobody (any more), its mark is what the next attempt replaces.
  while (!owner.compare_exchange_strong(present, MyProcPid)) {
    // In this process there is no other sweep: then the mark is of an earlier process of this PID.
    if (present == MyProcPid || BackendPidGetProc(present) == nullptr) continue;
    ereport(ERROR, (errcode(ERRCODE_OBJECT_IN_USE), errmsg("a calibration is already running"),
                    errdetail("The process with PID %d runs it.", static_cast<int>(present)),
                    errhint("Wait until it has ended: two at the same time would measure each other.")));
  }
}

extern "C" void release_machine(int, Datum) {
  std::int32_t own = MyProcPid;
  (void)shared().header->calibration_pid.compare_exchange_strong(own, 0);
}

// ---------------------------------------------------------------- the sweep

// The greatest size of the plan that `workers` are enough for; 0 if there is none.
int greatest_size(const CalibrationPlan &plan, int workers) {
  int greatest = 0;
  for (std::size_t i = 0; i < plan.sizes.count; i++) {
    if (plan.sizes.sizes[i] <= workers) greatest = Max(greatest, plan.sizes.sizes[i]);
  }
  return greatest;
}

void try_out(CalibrationCrew *crew, const CalibrationPlan &plan, int size) {
  std::uint64_t transactions = 0;
  const CalibratorError *error = nullptr;

  run_phase(crew, size, 0, cut_off_s(plan));
  for (int i = 0; i < size; i++) {
    const CalibratorSlot &slot = crew->slots[crew->members[i]];
    transactions += slot.latency_us.total.load();
    if (error == nullptr && slot.errors > 0) error = &slot.error;
  }
  if (transactions > 0) return;
  if (error != nullptr) raise_calibrator_error(*error);
  ereport(ERROR, (errcode(ERRCODE_QUERY_CANCELED), errmsg("the script did not end within %g seconds", cut_off_s(plan)),
                  errdetail("It was executed once by each of %d calibrators, and none of them has finished.", size),
                  errhint("Give it more seconds_per_size, or look for locks, also those held by this transaction.")));
}

void measure(CalibrationCrew *crew, const CalibrationPlan &plan, int size, SizeResult &result) {
  double throughput = 0;

  run_phase(crew, size, plan.seconds_per_size, cut_off_s(plan));
  for (int i = 0; i < size; i++) {
    const CalibratorSlot &slot = crew->slots[crew->members[i]];
    throughput += per_second(slot.latency_us.total.load(), slot.elapsed_us);
    result.latency_us->add(slot.latency_us);
    result.errors += slot.errors;
    result.cut_off += slot.was_cut_off ? 1 : 0;
    if (result.example == nullptr && slot.errors > 0) {
      auto *example = static_cast<CalibratorError *>(palloc(sizeof(CalibratorError)));
      memcpy(static_cast<void *>(example), &slot.error, sizeof(*example));
      result.example = example;
    }
  }
  result.per_second[result.rounds++] = throughput;
  result.measured = true;
}

void prepare_results(Sweep &sweep) {
  sweep.results = static_cast<SizeResult *>(palloc0(sizeof(SizeResult) * sweep.plan.sizes.count));
  for (std::size_t i = 0; i < sweep.plan.sizes.count; i++) {
    sweep.results[i].per_second =
        static_cast<double *>(palloc0(sizeof(double) * static_cast<Size>(sweep.plan.rounds)));
    sweep.results[i].latency_us = static_cast<HistogramCounts *>(palloc0(sizeof(HistogramCounts)));
  }
}

void run_rounds(CalibrationCrew *crew, Sweep &sweep) {
  const CalibrationSizes &sizes = sweep.plan.sizes;
  for (int round = 0; round < sweep.plan.rounds; round++) {
    const CalibrationOrder order = order_of_round(sizes.count, round);
    for (std::size_t i = 0; i < sizes.count; i++) {
      const std::size_t which = order.order[i];
      if (sizes.sizes[which] > sweep.members) continue;
      pause_calibration(sweep.plan.pause_s);
      ereport(DEBUG1, (errmsg_internal("calibrating with %d backends, round %d of %d", sizes.sizes[which], round + 1,
                                       sweep.plan.rounds)));
      measure(crew, sweep.plan, sizes.sizes[which], sweep.results[which]);
    }
  }
}

void run_sweep(const char *script, int available, Sweep &sweep) {
  prepare_results(sweep);
  sweep.members = available;
  const int wanted = greatest_size(sweep.plan, available);
  if (wanted == 0) return;

  CalibrationCrew *crew = start_crew(script, wanted);
  // Another process may have taken what was free, or a start may have failed.
  sweep.members = crew->joined < wanted ? crew->joined : available;
  const int greatest = greatest_size(sweep.plan, crew->joined);
  if (greatest > 0) {
    try_out(crew, sweep.plan, greatest);
    run_phase(crew, greatest, Min(sweep.plan.seconds_per_size, kLongestWarmUp_s), cut_off_s(sweep.plan));
    run_rounds(crew, sweep);
  }
  end_crew(crew);
}

void sweep_alone(FunctionCallInfo fcinfo, Sweep &sweep) {
  claim_machine();
  PG_ENSURE_ERROR_CLEANUP(release_machine, static_cast<Datum>(0));
  {
    // Only now: another sweep would have taken worker processes.
    const int available = slots_for_calibration(count_free_worker_slots());
    sweep.plan = read_plan(fcinfo, available);
    char *script = text_to_cstring(PG_GETARG_TEXT_PP(0));
    check_script(script);
    refuse_role_without_login();
    run_sweep(script, available, sweep);
  }
  PG_END_ENSURE_ERROR_CLEANUP(release_machine, static_cast<Datum>(0));
  release_machine(0, static_cast<Datum>(0));
}

// ---------------------------------------------------------------- rows

const char *join_notes(const char *left, const char *right) {
  return left == nullptr ? right : psprintf("%s; %s", left, right);
}

// Null if there is nothing to say.
const char *note_about(const Sweep &sweep, std::size_t index) {
  const SizeResult &result = sweep.results[index];
  const char *note = nullptr;
  if (!result.measured)
    return psprintf("not measured: %d of %d backends could be started", Max(sweep.members, 0),
                    sweep.plan.sizes.sizes[index]);
  if (result.example != nullptr)
    note = join_notes(note, psprintf("the first of the errors was %s: %s", unpack_sql_state(result.example->sqlerrcode),
                                     result.example->message));
  if (result.cut_off > 0)
    note = join_notes(
        note, psprintf("transactions that took too long and were cancelled: " UINT64_FORMAT, result.cut_off));
  return note;
}

void emit_size(FunctionCallInfo fcinfo, const Sweep &sweep, std::size_t index, const CalibrationPoint &point,
               const CalibrationVerdict &verdict) {
  const SizeResult &result = sweep.results[index];
  const HistogramCounts &latency = *result.latency_us;
  const std::uint64_t transactions = latency.total;
  const bool timed = transactions > 0;
  const char *note = note_about(sweep, index);
  ViewRow row;

  start_row(row);
  put_int(row, point.size);
  put_bigint_or_null(row, transactions, result.measured);
  put_rounded(row, point.per_second, 1, result.measured);
  const bool comparable = point.candidate && verdict.greatest_per_second > 0;
  put_rounded(row, comparable ? point.per_second / verdict.greatest_per_second : 0, 4, comparable);
  put_bigint_or_null(row, latency.percentile(0.50), timed);
  put_bigint_or_null(row, latency.percentile(0.95), timed);
  put_bigint_or_null(row, latency.percentile(0.99), timed);
  put_bigint_or_null(row, latency.max, timed);
  put_bigint_or_null(row, result.errors, result.measured);
  put_bool(row, verdict.best == index);
  put_text_or_null(row, note != nullptr ? note : "", note != nullptr);
  emit_row(fcinfo, row);
}

void warn_about_lack(const Sweep &sweep) {
  const int greatest = sweep.plan.sizes.sizes[sweep.plan.sizes.count - 1];
  if (greatest <= sweep.members) return;
  ereport(WARNING, (errmsg("sizes above %d were not measured for lack of worker processes", sweep.members),
                    errdetail("A quarter of the free worker processes, two at least, is left to pools and parallel "
                              "queries."),
                    errhint("You may need to increase max_worker_processes.")));
}

// For the views that say how large a pool should be.
void remember(const CalibrationPoint *points, std::size_t count, const CalibrationVerdict &verdict) {
  if (verdict.best == kNoBestSize) return;
  CalibrationFacts facts;
  facts.database_oid = MyDatabaseId;
  facts.role_oid = GetUserId();
  facts.at = GetCurrentTimestamp();
  facts.best_size = points[verdict.best].size;
  static_assert(kMostCalibrationSizes <= kCalibrationPoints);
  for (std::size_t i = 0; i < count; i++) {
    if (!points[i].candidate) continue;  // not measured
    facts.sizes[facts.count] = points[i].size;
    facts.transactions_per_s[facts.count] = points[i].per_second;
    facts.count++;
  }
  remember_calibration(facts);
}

void emit_results(FunctionCallInfo fcinfo, const Sweep &sweep) {
  CalibrationPoint points[kMostCalibrationSizes];
  const std::size_t count = sweep.plan.sizes.count;
  for (std::size_t i = 0; i < count; i++) {
    points[i].size = sweep.plan.sizes.sizes[i];
    points[i].candidate = sweep.results[i].measured;
    points[i].per_second = median(sweep.results[i].per_second, sweep.results[i].rounds);
  }
  const CalibrationVerdict verdict = judge(points, count);
  remember(points, count, verdict);
  for (std::size_t i = 0; i < count; i++) emit_size(fcinfo, sweep, i, points[i], verdict);
}

}  // namespace

extern "C" {

PG_FUNCTION_INFO_V1(sluice_calibrate);

PGDLLEXPORT Datum sluice_calibrate(PG_FUNCTION_ARGS) {
  require_shared_memory();
  refuse_restricted_operation();
  refuse_recursion();
  InitMaterializedSRF(fcinfo, 0);

  Sweep sweep{};
  sweep_alone(fcinfo, sweep);
  warn_about_lack(sweep);
  emit_results(fcinfo, sweep);
  return static_cast<Datum>(0);
}

}  // extern "C"

}  // namespace sluice::pg
