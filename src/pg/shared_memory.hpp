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

// So many are in use now: a peak may lie between two samples.
inline void raise_resource(Resource resource, std::int64_t now_in_use) {
  shared().header->resources[static_cast<std::size_t>(resource)].raise(now_in_use);
}

// What it takes of the server's shared memory, in bytes.
std::size_t shared_memory_bytes();

// Raises ERROR 55000 with a HINT about shared_preload_libraries unless the
// segment exists.  For SQL functions.
void require_shared_memory();

// The area that holds what clients bring along and what has no fixed size:
// start-up settings and prepared statements.  Attaches on first use; may raise.
dsa_area *client_area();

// The area holds no more than this: then there is no memory for clients, long
// before the machine runs out of shared memory.
std::size_t client_area_limit_bytes();  // sluice.client_memory

// Statements shared by text: buckets of dsa_pointer, each guarded by one of the
// locks.
constexpr int kStatementBuckets = 4096;
constexpr int kStatementLocks = 16;
std::uint64_t *statement_buckets();
LWLock *statement_lock(int bucket);

}  // namespace sluice::pg

#endif
