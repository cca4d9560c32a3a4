// SPDX-License-Identifier: PostgreSQL
//
// One row of a view, filled column by column in the order of the function's OUT
// columns.
//
// A plain struct with a fixed array: the setters allocate in the current memory
// context and may raise, so nothing here has a destructor.  emit_row() compares
// the number of columns with the one the function was declared with; a library
// that meets the SQL objects of another version raises an error instead of
// reading past the end.
//
// Text comes from shared memory, where it may be in any encoding (database and
// role names are stored as they are in the shared catalogs, an application name
// is what a client sent).  What is not valid in the encoding of the current
// database is shown with '?' in place of each byte that is not ASCII.

#ifndef SLUICE_PG_STATS_VIEW_ROW_HPP
#define SLUICE_PG_STATS_VIEW_ROW_HPP

#include "pg/compat.hpp"

extern "C" {
#include "funcapi.h"
#include "utils/timestamp.h"
}

#include <cstdint>

#include "core/pool/shared_state.hpp"

namespace sluice::pg {

constexpr int kMaxViewColumns = 64;

struct ViewRow {
  Datum values[kMaxViewColumns];
  bool nulls[kMaxViewColumns];
  int columns;
};

// A copy of `value`, in the current memory context, that is valid text here and can be
// sent to any client.
char *displayable(const char *value);

void start_row(ViewRow &row);
void put_null(ViewRow &row);
void put_bool(ViewRow &row, bool value);
void put_int(ViewRow &row, std::int32_t value);
void put_int_or_null(ViewRow &row, std::int32_t value, bool present);
void put_bigint(ViewRow &row, std::uint64_t value);
void put_bigint_or_null(ViewRow &row, std::uint64_t value, bool present);
void put_double(ViewRow &row, double value);
void put_double_or_null(ViewRow &row, double value, bool present);
// To so many digits behind the point: more than that was not measured.
void put_rounded(ViewRow &row, double value, int digits, bool present = true);
void put_numeric(ViewRow &row, const char *value);  // its digits
void put_text(ViewRow &row, const char *value);
void put_text_or_null(ViewRow &row, const char *value, bool present);
void put_name_or_null(ViewRow &row, const char *value, bool present);
// The names of the pins in `mask` as text[]; NULL if there is none.
void put_pins(ViewRow &row, std::uint32_t mask);
void put_int_array(ViewRow &row, const std::int32_t *values, int count);  // NULL if empty
void put_timestamp(ViewRow &row, TimestampTz value);  // NULL if 0: not known
// Two columns, inet and int: NULL and -1 for a Unix socket, NULL and NULL when
// unknown or not `present` (not to be shown).
void put_address(ViewRow &row, const ClientAddress &address, bool present);

// Appends the row to the result that InitMaterializedSRF() has prepared.
void emit_row(FunctionCallInfo fcinfo, ViewRow &row);

}  // namespace sluice::pg

#endif
