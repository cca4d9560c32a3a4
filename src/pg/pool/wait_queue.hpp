// SPDX-License-Identifier: PostgreSQL
//
// The pool's wait queue, as a backend of the pool sees it: entries are clients that
// were made ready, first come first served.  An entry is a hint; the client's own
// state is the truth, and who takes one wins it there (lease.cpp).

#ifndef SLUICE_PG_POOL_WAIT_QUEUE_HPP
#define SLUICE_PG_POOL_WAIT_QUEUE_HPP

#include <cstdint>

namespace sluice::pg {

// Puts an entry (ClientRef::pack()) back for the others, without looking at it again
// this time.
void leave_in_queue(std::uint64_t entry);

// Is the queue served from its other end?  An application waits for itself: who
// became ready last is most probably a second connection of somebody who holds a
// backend, and would give back two.  Who came first wants its first, and would hold
// it while it waits for another.
bool is_youngest_first();

// Takes the youngest out of the queue, if any.  The others keep their order: each is
// pushed back as a younger one is found behind it.
bool pop_youngest(std::uint64_t *youngest);

}  // namespace sluice::pg

#endif
