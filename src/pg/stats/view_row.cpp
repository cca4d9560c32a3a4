// SPDX-License-Identifier: PostgreSQL
//
// See view_row.hpp.

#include "pg/stats/view_row.hpp"

#include <cmath>

extern "C" {
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/inet.h"
}

#include <arpa/inet.h>
#include <cstring>

namespace sluice::pg {

char *displayable(const char *value) {
  char *copy = pstrdup(value);
  const std::size_t length = strlen(copy);
  // SQL_ASCII takes any byte for valid, but a client with an encoding of its own may not.
  if (GetDatabaseEncoding() != PG_SQL_ASCII && pg_verifymbstr(copy, static_cast<int>(length), true)) {
    return copy;
  }
  for (std::size_t i = 0; i < length; i++) {
    if (static_cast<unsigned char>(copy[i]) > 0x7e) {
      copy[i] = '?';
    }
  }
  return copy;
}

namespace {

void put(ViewRow &row, Datum value, bool is_null) {
  if (row.columns >= kMaxViewColumns) {
    elog(ERROR, "a view has more than %d columns", kMaxViewColumns);
  }
  row.values[row.columns] = value;
  row.nulls[row.columns] = is_null;
  row.columns++;
}

}  // namespace

void start_row(ViewRow &row) {
  row.columns = 0;
}

void put_null(ViewRow &row) {
  put(row, static_cast<Datum>(0), true);
}

void put_bool(ViewRow &row, bool value) {
  put(row, BoolGetDatum(value), false);
}

void put_int(ViewRow &row, std::int32_t value) {
  put(row, Int32GetDatum(value), false);
}

void put_int_or_null(ViewRow &row, std::int32_t value, bool present) {
  put(row, Int32GetDatum(value), !present);
}

void put_bigint(ViewRow &row, std::uint64_t value) {
  put(row, Int64GetDatum(static_cast<std::int64_t>(value)), false);
}

void put_bigint_or_null(ViewRow &row, std::uint64_t value, bool present) {
  put(row, Int64GetDatum(static_cast<std::int64_t>(value)), !present);
}

void put_double(ViewRow &row, double value) {
  put(row, Float8GetDatum(value), false);
}

void put_rounded(ViewRow &row, double value, int digits, bool present) {
  const double scale = std::pow(10.0, digits);
  put_double_or_null(row, std::round(value * scale) / scale, present);
}

void put_double_or_null(ViewRow &row, double value, bool present) {
  put(row, Float8GetDatum(value), !present);
}

void put_numeric(ViewRow &row, const char *value) {
  put(row,
      DirectFunctionCall3(numeric_in, CStringGetDatum(value), ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)),
      false);
}

void put_text(ViewRow &row, const char *value) {
  put(row, CStringGetTextDatum(displayable(value)), false);
}

void put_text_or_null(ViewRow &row, const char *value, bool present) {
  if (present) {
    put_text(row, value);
  } else {
    put_null(row);
  }
}

void put_name_or_null(ViewRow &row, const char *value, bool present) {
  if (present) {
    put(row, DirectFunctionCall1(namein, CStringGetDatum(displayable(value))), false);
  } else {
    put_null(row);
  }
}

void put_pins(ViewRow &row, std::uint32_t mask) {
  Datum names[kPinReasonCount];
  int count = 0;
  for (std::size_t i = 0; i < kPinReasonCount; i++) {
    const auto reason = static_cast<PinReason>(i);
    if ((mask & pin_bit(reason)) != 0) {
      names[count++] = CStringGetTextDatum(name_of(reason));
    }
  }
  if (count == 0) {
    put_null(row);
    return;
  }
  put(row, PointerGetDatum(construct_array(names, count, TEXTOID, -1, false, TYPALIGN_INT)), false);
}

void put_int_array(ViewRow &row, const std::int32_t *values, int count) {
  if (count == 0) {
    put_null(row);
    return;
  }
  auto *elements = static_cast<Datum *>(palloc(sizeof(Datum) * static_cast<std::size_t>(count)));
  for (int i = 0; i < count; i++) {
    elements[i] = Int32GetDatum(values[i]);
  }
  put(row, PointerGetDatum(construct_array(elements, count, INT4OID, sizeof(std::int32_t), true, TYPALIGN_INT)), false);
}

void put_timestamp(ViewRow &row, TimestampTz value) {
  put(row, TimestampTzGetDatum(value), value == 0);
}

void put_address(ViewRow &row, const ClientAddress &address, bool present) {
  if (present && (address.family == 4 || address.family == 6)) {
    char host[INET6_ADDRSTRLEN] = "";
    if (inet_ntop(address.family == 4 ? AF_INET : AF_INET6, address.bytes, host, sizeof(host)) != nullptr) {
      put(row, DirectFunctionCall1(inet_in, CStringGetDatum(host)), false);
      put_int(row, address.port);
      return;
    }
  }
  put_null(row);
  put_int_or_null(row, -1, present && address.family == 1);
}

void emit_row(FunctionCallInfo fcinfo, ViewRow &row) {
  auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
  if (result->setDesc->natts != row.columns) {
    ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                    errmsg("the SQL objects of pg_sluice do not fit its library"),
                    errdetail("A function is declared with %d columns, the library has %d.", result->setDesc->natts,
                              row.columns),
                    errhint("Run ALTER EXTENSION pg_sluice UPDATE.")));
  }
  tuplestore_putvalues(result->setResult, result->setDesc, row.values, row.nulls);
}

}  // namespace sluice::pg
