// SPDX-License-Identifier: PostgreSQL
//
// The segment of core/pool/shared_state.hpp, as this process sees it, and the
// area of variable-size things beside it.

#ifndef SLUICE_PG_SHARED_MEMORY_HPP
#define SLUICE_PG_SHARED_MEMORY_HPP

#include "core/pool/shared_state.hpp"

struct dsa_area;
struct LWLock;

namespace sluice::pg {

// Asks for the memory (from shared_preload_libraries) and installs the hooks
// that create the segment.
void request_shared_memory();

// True once the segment exists: the library was in shared_preload_libraries.
bool shared_memory_exists();

// The segment.  Only when shared_memory_exists().
SharedState &shared();

// Raises ERROR 55000 with a HINT about shared_preload_libraries unless the
// segment exists.  For SQL functions.
void require_shared_memory();

// The area that holds what clients bring along and what has no fixed size:
// start-up settings and prepared statements.  Attaches on first use; may raise.
dsa_area *client_area();

// Statements shared by text: buckets of dsa_pointer, each guarded by one of the
// locks.
constexpr int kStatementBuckets = 4096;
constexpr int kStatementLocks = 16;
std::uint64_t *statement_buckets();
LWLock *statement_lock(int bucket);

}  // namespace sluice::pg

#endif
