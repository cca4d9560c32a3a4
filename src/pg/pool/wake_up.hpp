// SPDX-License-Identifier: PostgreSQL
//
// Waking others: the small calls both sides of the hand-over share.

#ifndef SLUICE_PG_POOL_WAKE_UP_HPP
#define SLUICE_PG_POOL_WAKE_UP_HPP

#include <cstdint>

namespace sluice::pg {

// What the bell's event carries in a pool's epoll set; no client can have it.
constexpr std::uint64_t kBellEvent = ~std::uint64_t{0};

// Calls one lingering backend of the pool back to the epoll set.  Each is called
// once: the caller that changes `poked` from 0 sends the signal.
void poke_lingering_backend(std::uint32_t pool);

// Calls back so many: `least` however busy the processors are, and up to `most` while
// there are processors for them (should_poke()).
void poke_lingering_backends(std::uint32_t pool, int least, int most);

// Makes one backend that sleeps in the epoll set look at the wait queue.  False
// when none sleeps.
bool wake_sleeping_backend(std::uint32_t pool);

// Asks the dispatcher to look after the pool.  Once until it has stopped again.
void ask_dispatcher_to_watch(std::uint32_t pool);

// Waits until the descriptor is readable, at most timeout_ms.
bool wait_readable(int descriptor, int timeout_ms);

}  // namespace sluice::pg

#endif
