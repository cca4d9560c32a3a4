// SPDX-License-Identifier: PostgreSQL
#include "model/scheduler.hpp"

#include <sched.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <thread>

#if defined(__SANITIZE_THREAD__)
#define UNDER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UNDER_TSAN 1
#endif
#endif

#ifdef UNDER_TSAN
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char *, int);
void AnnotateIgnoreReadsEnd(const char *, int);
void AnnotateIgnoreWritesBegin(const char *, int);
void AnnotateIgnoreWritesEnd(const char *, int);
void AnnotateIgnoreSyncBegin(const char *, int);
void AnnotateIgnoreSyncEnd(const char *, int);
}
#define UNSEEN __attribute__((no_sanitize("thread")))

// Boost's queue reads nodes that others may be taking or giving back, and throws away what it has read when its
// compare-and-set fails.
extern "C" const char *__tsan_default_suppressions();
extern "C" const char *__tsan_default_suppressions() { return "race:boost::lockfree\n"; }
#else
#define UNSEEN
#endif

namespace model {
namespace {

constexpr int kMain = -1;
constexpr std::size_t kStackBytes = 256 * 1024;

struct Fiber {
  ucontext_t context;
  void *handle;  // ThreadSanitizer's
  void *stack;
  Condition condition;  // of a fiber that waits
  bool done;
  std::uint32_t weight;  // how often it is chosen
};

struct Interleaving {
  Fiber fibers[kMostActors];
  ucontext_t main_context;
  void *main_handle;
  int count;
  int current;
  Body body;
  bool (*on_quiet)();
  std::uint64_t random;
  std::uint32_t stay;  // one step in so many may change the fiber
  long steps_left;
  Outcome outcome;
};

bool interleaved = false;
Interleaving run;

thread_local int thread_actor = 0;
thread_local std::uint64_t thread_random = 1;

UNSEEN std::uint64_t next_random(std::uint64_t &state) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state * 0x2545f4914f6cdd1dull >> 16;
}

UNSEEN std::uint64_t mix(std::uint64_t seed) {
  seed = (seed + 0x9e3779b97f4a7c15ull) * 0xbf58476d1ce4e5b9ull;
  seed ^= seed >> 27;
  seed *= 0x94d049bb133111ebull;
  return (seed ^ (seed >> 31)) | 1;
}

#ifdef UNDER_TSAN
void *this_fiber() { return __tsan_get_current_fiber(); }
void *create_fiber() { return __tsan_create_fiber(0); }
void destroy_fiber(void *fiber) { __tsan_destroy_fiber(fiber); }
UNSEEN void announce_switch(void *fiber) { __tsan_switch_to_fiber(fiber, __tsan_switch_to_fiber_no_sync); }
// What a fiber has done that came to its end is done before whatever follows the run.
UNSEEN void announce_end(void *of) { __tsan_release(of); }
UNSEEN void follow_ends(void *of) { __tsan_acquire(of); }
// What the scheduler looks at is the model's memory, and its looking orders nothing.
struct Invisible {
  UNSEEN Invisible() {
    AnnotateIgnoreSyncBegin(__FILE__, __LINE__);
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  UNSEEN ~Invisible() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
    AnnotateIgnoreSyncEnd(__FILE__, __LINE__);
  }
};
#else
void *this_fiber() { return nullptr; }
void *create_fiber() { return nullptr; }
void destroy_fiber(void *) {}
void announce_switch(void *) {}
void announce_end(void *) {}
void follow_ends(void *) {}
struct Invisible {
  Invisible() {}
  ~Invisible() {}
};
#endif

UNSEEN void switch_to(int next) {
  ucontext_t *from = run.current == kMain ? &run.main_context : &run.fibers[run.current].context;
  ucontext_t *to = next == kMain ? &run.main_context : &run.fibers[next].context;
  run.current = next;
  announce_switch(next == kMain ? run.main_handle : run.fibers[next].handle);
  swapcontext(from, to);
}

UNSEEN bool can_go_on(int index) {
  const Fiber &fiber = run.fibers[index];
  if (fiber.done) return false;
  if (fiber.condition == nullptr) return true;
  Invisible invisible;
  return fiber.condition(index);
}

// kMain if nobody can go on.
UNSEEN int choose() {
  std::uint32_t total = 0;
  std::uint32_t weights[kMostActors];
  for (int i = 0; i < run.count; i++) {
    weights[i] = can_go_on(i) ? run.fibers[i].weight : 0;
    total += weights[i];
  }
  if (total == 0) return kMain;
  std::uint32_t drawn = static_cast<std::uint32_t>(next_random(run.random) % total);
  int chosen = 0;
  while (drawn >= weights[chosen]) drawn -= weights[chosen++];
  return chosen;
}

UNSEEN void end_run(Outcome outcome) {
  run.outcome = outcome;
  announce_end(&run);
  switch_to(kMain);
}

UNSEEN void go_on_with_somebody() {
  int next = choose();
  if (next == kMain) {
    bool all_done = true;
    for (int i = 0; i < run.count; i++) all_done = all_done && run.fibers[i].done;
    if (all_done) return end_run(Outcome::finished);
    bool changed;
    {
      Invisible invisible;
      changed = run.on_quiet();
    }
    if (changed) next = choose();
    if (next == kMain) return end_run(Outcome::stalled);
  }
  if (next != run.current) switch_to(next);
}

UNSEEN void spend_step() {
  if (--run.steps_left <= 0) end_run(Outcome::endless);
}

UNSEEN void fiber_main() {
  run.body(run.current);
  run.fibers[run.current].done = true;
  announce_end(&run);
  go_on_with_somebody();
  abort();
}

UNSEEN void hold_up() {
  const std::uint64_t drawn = next_random(thread_random);
  if (drawn % 1024 == 0)
    usleep(static_cast<useconds_t>(drawn / 1024 % 60));
  else if (drawn % 24 == 0)
    sched_yield();
}

}  // namespace

const char *describe(Outcome outcome) {
  switch (outcome) {
    case Outcome::finished: return "finished";
    case Outcome::stalled: return "nobody can go on";
    case Outcome::endless: return "no end in the steps allowed";
  }
  return "";
}

UNSEEN Outcome run_interleaved(Body body, int actors, std::uint64_t seed, long step_limit, bool (*on_quiet)()) {
  static const std::uint32_t stays[] = {2, 4, 16};
  static const std::uint32_t weights[] = {1, 8, 8, 64};

  interleaved = true;
  run.count = actors;
  run.current = kMain;
  run.body = body;
  run.on_quiet = on_quiet;
  run.random = mix(seed);
  run.stay = stays[next_random(run.random) % 3];
  run.steps_left = step_limit;
  run.main_handle = this_fiber();
  for (int i = 0; i < actors; i++) {
    Fiber &fiber = run.fibers[i];
    fiber.condition = nullptr;
    fiber.done = false;
    fiber.weight = weights[next_random(run.random) % 4];
    // Fresh, because what a fiber of an earlier run has left there is ordered with nothing.
    fiber.stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fiber.stack == MAP_FAILED) abort();
    fiber.handle = create_fiber();
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack;
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, fiber_main, 0);
  }
  switch_to(choose());
  follow_ends(&run);
  for (int i = 0; i < actors; i++) {
    destroy_fiber(run.fibers[i].handle);
    munmap(run.fibers[i].stack, kStackBytes);
  }
  interleaved = false;
  return run.outcome;
}

UNSEEN void step() {
  if (!interleaved) return hold_up();
  spend_step();
  if (next_random(run.random) % run.stay == 0) go_on_with_somebody();
}

UNSEEN void wait_until(Condition condition) {
  if (!interleaved) {
    while (!condition(thread_actor)) usleep(20);
    return;
  }
  spend_step();
  run.fibers[run.current].condition = condition;
  go_on_with_somebody();
  run.fibers[run.current].condition = nullptr;
}

UNSEEN void give_up(const char *why) {
  if (!interleaved) {
    fprintf(stderr, "in parallel: %s\n", why);
    _exit(1);
  }
  end_run(Outcome::finished);
  abort();
}

UNSEEN int this_actor() { return interleaved ? run.current : thread_actor; }

UNSEEN std::uint32_t random_below(std::uint32_t limit) {
  return static_cast<std::uint32_t>(next_random(interleaved ? run.random : thread_random) % limit);
}

void run_in_parallel(Body body, int actors, std::uint64_t seed, long (*progress)(), int patience_s,
                     void (*show)()) {
  std::thread threads[kMostActors];
  std::atomic<int> running{actors};

  for (int i = 0; i < actors; i++)
    threads[i] = std::thread([&running, body, i, seed] {
      thread_actor = i;
      thread_random = mix(seed * kMostActors + static_cast<std::uint64_t>(i));
      body(i);
      running.fetch_sub(1);
    });
  long seen = progress();
  for (int quiet_ms = 0; running.load() > 0; quiet_ms += 10) {
    usleep(10000);
    if (progress() != seen) quiet_ms = 0;
    seen = progress();
    if (quiet_ms > patience_s * 1000) {
      printf("in parallel: nothing has happened for %d s after %ld commands\n", patience_s, seen);
      show();
      fflush(stdout);
      _exit(1);
    }
  }
  for (int i = 0; i < actors; i++) threads[i].join();
}

}  // namespace model
