// SPDX-License-Identifier: PostgreSQL
//
// Runs the actors of the model, in one of two ways.
//
// Interleaved: each actor is a fiber, one runs at a time, and at every step() a
// seeded choice says who goes on.  The same seed gives the same run.  Nobody
// sleeps by the clock, so that a client that has been lost is a fact and no
// suspicion: nobody can go on, or nobody gets done within the steps allowed.
// ThreadSanitizer takes each fiber for a thread and is told that a change of
// fibers orders nothing, so it sees the data races of every interleaving too.
//
// In parallel: each actor is a thread, as the processes of a server are, and
// step() is a place where it may be held up for a moment.

#ifndef SLUICE_TEST_MODEL_SCHEDULER_HPP
#define SLUICE_TEST_MODEL_SCHEDULER_HPP

#include <cstdint>

namespace model {

constexpr int kMostActors = 16;

enum class Outcome { finished, stalled, endless };
const char *describe(Outcome outcome);

using Body = void (*)(int actor);
using Condition = bool (*)(int actor);

// `on_quiet` is asked when no actor can go on; true if it has changed that.
Outcome run_interleaved(Body body, int actors, std::uint64_t seed, long step_limit, bool (*on_quiet)());

// Never comes back from a run in which `progress` stands still for `patience_s`
// seconds: says so, shows what there is, and ends the program.
void run_in_parallel(Body body, int actors, std::uint64_t seed, long (*progress)(), int patience_s,
                     void (*show)());

// Somebody else may go on here.
void step();
// Goes on when the condition holds; evaluated at any time, by anyone.
void wait_until(Condition condition);
// Ends an interleaved run at once; the run in parallel ends the program.
[[noreturn]] void give_up(const char *why);

int this_actor();
std::uint32_t random_below(std::uint32_t limit);
inline bool one_in(std::uint32_t chances) { return random_below(chances) == 0; }

}  // namespace model

#endif
