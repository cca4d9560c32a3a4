// SPDX-License-Identifier: PostgreSQL
//
// Who waits where when a transaction has ended.
//
// The three numbers are gauges of the pool: `waiters`, backends asleep in the
// epoll set; `armed`, idle clients, in that set or left to the dispatcher's;
// `queued`, clients in the wait queue.
// They are read one after the other while others change them, so an answer can
// be wrong by the time it is used, and a gauge can be below zero for a moment.
// The first two rules err to the side that costs a little time and never a client: a
// backend that lingers can be poked, and a watcher that nobody needs finds
// nothing to do.

#ifndef SLUICE_CORE_POOL_HAND_OVER_HPP
#define SLUICE_CORE_POOL_HAND_OVER_HPP

#include <cstdint>

namespace sluice {

// May a backend stay on its client, whose turn it now is, instead of giving it
// back?  Only if nobody needs the backend more: no client is queued, and the
// clients in the set, if any, have another backend that waits for them.
constexpr bool should_linger(int waiters, int armed, int queued) noexcept {
  return queued <= 0 && (waiters > 0 || armed <= 0);
}

// Must the dispatcher look after the pool's clients?  If no backend waits in the
// set, nobody else sees a client become ready.
constexpr bool needs_watcher(int waiters, int armed, int queued) noexcept {
  return waiters <= 0 && (armed > 0 || queued > 0);
}

// Nobody sleeps in the set any more, and some linger: is one of these called back at once?
// Not while as many backends execute, and wait for nothing, as there are processors
// (0 = unknown): one more could only take turns with them, and that costs signals and
// switches.  No client is lost: the dispatcher has to watch the pool from now on, and
// calls back a lingering backend whenever clients wait as it looks.  Who asks is one of
// those that run, hence two at least: with one processor nobody would ever be called.
constexpr bool should_poke(int lingerers, int running, int processors) noexcept {
  return lingerers > 0 && (processors <= 0 || running < (processors < 2 ? 2 : processors));
}

// While the dispatcher watches it drains the set every millisecond.  A set that was
// drained longer ago than this has been somebody else's in between.
constexpr std::int64_t kDrainedRecentlyUs = 4000;

}  // namespace sluice

#endif
