// SPDX-License-Identifier: PostgreSQL
#include "pg/compat.hpp"

#include "pg/session/name_changes.hpp"

extern "C" {
#include "utils/inval.h"
#include "utils/syscache.h"
}

namespace sluice::pg {

static std::uint64_t changes = 0;

extern "C" {

static void count_change(Datum, int, uint32) { changes++; }

}  // extern "C"

// Relations, functions, types, casts, collations, and what regconfig and regdictionary literals name.
void watch_names() {
  CacheRegisterSyscacheCallback(RELNAMENSP, count_change, 0);
  CacheRegisterSyscacheCallback(PROCNAMEARGSNSP, count_change, 0);
  CacheRegisterSyscacheCallback(TYPENAMENSP, count_change, 0);
  CacheRegisterSyscacheCallback(CASTSOURCETARGET, count_change, 0);
  CacheRegisterSyscacheCallback(COLLNAMEENCNSP, count_change, 0);
  CacheRegisterSyscacheCallback(TSCONFIGNAMENSP, count_change, 0);
  CacheRegisterSyscacheCallback(TSDICTNAMENSP, count_change, 0);
}

std::uint64_t name_changes() { return changes; }

}  // namespace sluice::pg
