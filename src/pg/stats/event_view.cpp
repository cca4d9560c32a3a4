// SPDX-License-Identifier: PostgreSQL
//
// sluice.events: a row for each event that is still in the ring.
//
// An event is copied before anything is allocated; one that is overwritten
// meanwhile is left out.

#include "pg/compat.hpp"

#include "pg/stats/view_row.hpp"

extern "C" {
#include "miscadmin.h"
}

#include "core/stats/event_log.hpp"
#include "pg/shared_memory.hpp"
#include "pg/stats/snapshot.hpp"

namespace sluice::pg {

namespace {

// The message of a start that failed is an error message of the role's own session;
// what else there is as a reason is words of ours.
bool may_see_reason(const Event &event) {
  return event.kind != static_cast<std::uint32_t>(EventKind::start_failed) || may_see_details(event.role_oid);
}

void put_event(ViewRow &row, std::uint64_t number, const Event &event) {
  put_bigint(row, number);
  put_timestamp(row, event.at);
  put_text(row, name_of(static_cast<EventKind>(event.kind)));
  put_name_or_null(row, event.database, event.database[0] != '\0');
  put_name_or_null(row, event.role, event.role[0] != '\0');
  put_int_or_null(row, event.pid, event.pid != 0);
  put_int_or_null(row, event.client, event.client >= 0);
  put_text_or_null(row, event.reason, event.reason[0] != '\0' && may_see_reason(event));
}

}  // namespace

extern "C" {

PG_FUNCTION_INFO_V1(sluice_events);

PGDLLEXPORT Datum sluice_events(PG_FUNCTION_ARGS) {
  require_shared_memory();
  InitMaterializedSRF(fcinfo, 0);

  const EventLog &log = *shared().events;
  const std::uint64_t newest = newest_event(log);
  for (std::uint64_t number = oldest_event(log, newest); number <= newest; number++) {
    Event event;
    if (!read_event(log, number, event)) {
      continue;
    }
    CHECK_FOR_INTERRUPTS();
    ViewRow row;
    start_row(row);
    put_event(row, number, event);
    emit_row(fcinfo, row);
  }
  return static_cast<Datum>(0);
}

}  // extern "C"

}  // namespace sluice::pg
