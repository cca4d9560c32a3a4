// SPDX-License-Identifier: PostgreSQL
//
// sluice.applications: where the pools' time goes, by role and application_name.
//
// Rows of the table with equal names are added up (core/stats/application_table
// may give a name two), and so are all rows of a role whose details the reader may
// not see: how often and how long a role has held backends is no secret, what its
// applications are called is.

#include "pg/stats/view_row.hpp"

#include <cstring>

#include "pg/shared_memory.hpp"
#include "pg/stats/snapshot.hpp"

namespace sluice::pg {

namespace {

constexpr const char *kOthers = "(others)";

struct ApplicationRow {
  Oid role;      // InvalidOid: of several roles
  bool visible;  // else `name` is empty
  char name[kApplicationNameLength];
  ApplicationTimes times;
};

int compare(const void *left, const void *right) {
  const auto *a = static_cast<const ApplicationRow *>(left);
  const auto *b = static_cast<const ApplicationRow *>(right);
  if (a->role != b->role) return a->role < b->role ? -1 : 1;
  return strcmp(a->name, b->name);
}

void add(ApplicationTimes &sum, const ApplicationTimes &times) {
  sum.transactions += times.transactions;
  sum.leases += times.leases;
  sum.waited_us += times.waited_us;
  sum.hold_us += times.hold_us;
  sum.active_us += times.active_us;
  sum.thinking_us += times.thinking_us;
  sum.longest_hold_us = Max(sum.longest_hold_us, times.longest_hold_us);
}

// Copies the rows that have counted something; answers how many.
int copy_rows(ApplicationRow *rows) {
  const SharedState &state = shared();
  int count = 0;
  for (std::uint32_t i = 0; i < state.header->max_applications; i++) {
    const ApplicationSlot &slot = state.applications[i];
    const bool others = i == kOtherApplications;
    if (!others &&
        slot.state.load(std::memory_order_acquire) != static_cast<std::uint32_t>(ApplicationState::used)) {
      continue;
    }
    ApplicationRow &row = rows[count];
    row.times = slot.read();
    if (row.times.leases == 0 && row.times.transactions == 0) {
      continue;  // of others, or since the reset
    }
    row.role = others ? InvalidOid : slot.role_oid;
    row.visible = others || may_see_details(row.role);
    strlcpy(row.name, others ? kOthers : row.visible ? slot.name : "", sizeof(row.name));
    count++;
  }
  return count;
}

// Adds up equal ones, which lie side by side; answers how many are left.
int merge_rows(ApplicationRow *rows, int count) {
  int kept = 0;
  for (int i = 0; i < count; i++) {
    if (kept > 0 && compare(&rows[kept - 1], &rows[i]) == 0) {
      add(rows[kept - 1].times, rows[i].times);
    } else {
      rows[kept++] = rows[i];
    }
  }
  return kept;
}

void put_ratio(ViewRow &row, double part, double whole) {
  put_rounded(row, whole > 0 ? part / whole : 0, 4, whole > 0);
}

void put_role(ViewRow &row, Oid role) {
  if (!OidIsValid(role)) {
    put_null(row);
    return;
  }
  const char *name = GetUserNameFromId(role, true);
  put_name_or_null(row, name != nullptr ? name : psprintf("unknown (OID=%u)", role), true);
}

void show_row(FunctionCallInfo fcinfo, const ApplicationRow &application, double all_holds_us) {
  const ApplicationTimes &times = application.times;
  const auto hold_us = static_cast<double>(times.hold_us);
  ViewRow row;
  start_row(row);
  put_role(row, application.role);
  put_text_or_null(row, application.name, application.visible);
  put_bigint(row, times.transactions);
  put_bigint(row, times.leases);
  put_double(row, static_cast<double>(times.waited_us) / 1000.0);
  put_double(row, hold_us / 1000.0);
  put_double(row, static_cast<double>(times.active_us) / 1000.0);
  put_double(row, static_cast<double>(times.thinking_us) / 1000.0);
  put_double(row, static_cast<double>(times.longest_hold_us) / 1000.0);
  put_ratio(row, hold_us, all_holds_us);
  put_ratio(row, static_cast<double>(times.active_us), hold_us);
  put_ratio(row, hold_us, static_cast<double>(times.leases));
  emit_row(fcinfo, row);
}

}  // namespace

extern "C" {

PG_FUNCTION_INFO_V1(sluice_applications);

PGDLLEXPORT Datum sluice_applications(PG_FUNCTION_ARGS) {
  require_shared_memory();
  InitMaterializedSRF(fcinfo, 0);

  auto *rows =
      static_cast<ApplicationRow *>(palloc(shared().header->max_applications * sizeof(ApplicationRow)));
  int count = copy_rows(rows);
  qsort(rows, static_cast<std::size_t>(count), sizeof(ApplicationRow), compare);
  count = merge_rows(rows, count);

  double all_holds_us = 0;
  for (int i = 0; i < count; i++) {
    all_holds_us += static_cast<double>(rows[i].times.hold_us);
  }
  for (int i = 0; i < count; i++) {
    show_row(fcinfo, rows[i], all_holds_us);
  }
  return static_cast<Datum>(0);
}

}  // extern "C"

}  // namespace sluice::pg
