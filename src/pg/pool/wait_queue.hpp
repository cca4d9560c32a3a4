// SPDX-License-Identifier: PostgreSQL
//
// The pool's wait queue, as a backend of the pool sees it: entries are clients that
// were made ready, first come first served, but while an application waits for itself
// (core/pool/nested_acquire.hpp).  An entry is a hint; the client's own
// state is the truth, and who takes one wins it there (lease.cpp).

#ifndef SLUICE_PG_POOL_WAIT_QUEUE_HPP
#define SLUICE_PG_POOL_WAIT_QUEUE_HPP

#include <cstdint>

namespace sluice::pg {

// Puts an entry (ClientRef::pack()) back for the others, without looking at it again
// this time.
void leave_in_queue(std::uint64_t entry);

// Is the queue served from its other end?  See serves_youngest_first().
bool is_youngest_first();

// Takes the youngest out of the queue, if any.  The others keep their order, unless
// several backends look at once: each is pushed back as a younger one is found behind it.
bool pop_youngest(std::uint64_t *youngest);

}  // namespace sluice::pg

#endif
