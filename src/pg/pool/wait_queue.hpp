// SPDX-License-Identifier: PostgreSQL
//
// The pool's wait queue, as a backend of the pool sees it: entries are clients that
// were made ready, first come first served, but while an application waits for itself
// (is_served_before() in core/pool/nested_acquire.hpp).  An entry is a hint; the client's own
// state is the truth, and who takes one wins it there (lease.cpp).

#ifndef SLUICE_PG_POOL_WAIT_QUEUE_HPP
#define SLUICE_PG_POOL_WAIT_QUEUE_HPP

#include <cstdint>

namespace sluice::pg {

// Puts an entry (ClientRef::pack()) back for the others, without looking at it again
// this time.
void leave_in_queue(std::uint64_t entry);

// Is the queue served by preference?  See serves_by_preference().
bool is_served_by_preference();

// Takes the one who is to be served first out of the queue, if any.  The others keep their
// order, unless several backends look at once: each is pushed back as a better one is found
// behind it.
bool pop_preferred(std::uint64_t *preferred);

}  // namespace sluice::pg

#endif
