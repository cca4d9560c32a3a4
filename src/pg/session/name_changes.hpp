// SPDX-License-Identifier: PostgreSQL
//
// Has a name in a query text come to mean something else?
//
// The plan cache hears of changes to the objects a plan depends on.  It does not
// hear of new objects: a table in a schema further ahead in the search path, a
// function that fits the arguments better.  A session that has prepared a text keeps
// what it found; whoever prepares it afterwards finds the new object.

#ifndef SLUICE_PG_SESSION_NAME_CHANGES_HPP
#define SLUICE_PG_SESSION_NAME_CHANGES_HPP

#include <cstdint>

namespace sluice::pg {

// Once per backend.
void watch_names();

// Grows whenever this process hears of a change to the catalogs that parse analysis finds
// names in.  Changes to operators and schemas invalidate all plans, and are not counted.
std::uint64_t name_changes();

}  // namespace sluice::pg

#endif
