// SPDX-License-Identifier: PostgreSQL
//
// sluice.errors: a row for each class and SQLSTATE that has occurred.
//
// The server's names of conditions ("unique_violation") are not shown: the table of
// them is not exported.

#include "pg/compat.hpp"

#include "pg/stats/view_row.hpp"

extern "C" {
#include "miscadmin.h"
}

#include "core/stats/error_table.hpp"
#include "pg/shared_memory.hpp"
#include "pg/stats/snapshot.hpp"

namespace sluice::pg {

namespace {

TimestampTz counted_since() {
  const TimestampTz reset_at = shared().errors->since_at.load(std::memory_order_relaxed);
  return reset_at != 0 ? reset_at : shared().header->started_at.load(std::memory_order_relaxed);
}

void put_error(ViewRow &row, const ErrorRow &error) {
  const bool visible = error.has_message && may_see_details(error.message.role_oid);

  put_text(row, name_of(error.error_class));
  put_text_or_null(row, unpack_sql_state(static_cast<int>(error.code)), !error.others);
  put_bigint(row, error.count);
  put_timestamp(row, error.first_at);
  put_timestamp(row, error.last_at);
  put_text_or_null(row, error.message.text, visible);
  put_timestamp(row, counted_since());
}

}  // namespace

extern "C" {

PG_FUNCTION_INFO_V1(sluice_errors);

PGDLLEXPORT Datum sluice_errors(PG_FUNCTION_ARGS) {
  require_shared_memory();
  InitMaterializedSRF(fcinfo, 0);

  for (std::size_t i = 0; i < kErrorSlots; i++) {
    ErrorRow error;
    if (!read_error(*shared().errors, i, error)) {
      continue;
    }
    ViewRow row;
    start_row(row);
    put_error(row, error);
    emit_row(fcinfo, row);
  }
  return static_cast<Datum>(0);
}

}  // extern "C"

}  // namespace sluice::pg
