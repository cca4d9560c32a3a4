// SPDX-License-Identifier: PostgreSQL
//
// A model of the hand-over: the product's own shared memory (core/pool and the
// types in it) between threads that stand in for processes: the dispatcher,
// backends, and crowds of clients.  What they do to it is what pg/pool does, step
// by step; the operating system is replaced (kernel.hpp).
//
// What is checked:
//   no client is served by two backends at once; the commands of each are served
//   in order and once; nobody is lost, that is to say all clients get done in a
//   bounded number of steps; nothing that outlived its client does any harm; a
//   cancel hits the client it was meant for; a client that came after a change of
//   its role's settings gets a backend that knows them; all counters end at zero;
//   no data race, by ThreadSanitizer.
//
// A model that finds nothing proves nothing.  So answers in the table "The races of
// the hand-over" (src/README.md) are also left out, one at a time, and the model must
// find that something goes wrong then, in a run that goes well without the mistake.
//
// Five mistakes it has not found, and they are not asked for: the second look of a
// sleeper, of the last one to leave the set, of who puts an entry back into the queue,
// and of the dispatcher that ends its watch, and the comparison of a cancel with the
// lease.  For the first three the watch may make up, a tick later; that is not shown.
//
// What it does not show: that pg/pool does the same steps (that is for the reader,
// with both side by side, and for the end-to-end tests), and orders weaker than
// those of the interleavings where ThreadSanitizer does not know of them.
//
//   hand_over [seed [runs]]          runs of each scenario, from this seed
//   hand_over seed runs mistake      this mistake alone, by its number

#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <new>

#include "model/world.hpp"

namespace model {

using namespace sluice;

WorldPointer world;

namespace {

constexpr Scenario kQuietPool{6, 4, 2, 1, 5, false, false, false, false};
constexpr Scenario kFullPool{10, 8, 3, 2, 4, false, false, false, false};
constexpr Scenario kEndings{12, 4, 2, 1, 4, true, false, false, false};
constexpr Scenario kChanges{12, 4, 2, 2, 3, true, true, false, false};
constexpr Scenario kFullQueue{8, 6, 2, 1, 3, false, false, true, false};
constexpr Scenario kYoungestFirst{12, 8, 3, 2, 3, true, true, false, true};
constexpr Scenario kCrowd{400, 48, 6, 2, 12, true, true, false, true};
constexpr long kMostSteps = 60000;
constexpr long kMostStepsThroughFullQueue = 1000000;
constexpr int kPatienceSeconds = 15;

struct Attempt {
  const char *name;
  Scenario scenario;
};
constexpr Attempt kAttempts[] = {
    {"more backends than clients at times", kQuietPool},
    {"fewer backends than clients", kFullPool},
    {"clients that leave, are cancelled, are ended", kEndings},
    {"backends that are renewed, or die", kChanges},
    {"a full wait queue", kFullQueue},
    {"a wait queue that is served from its other end", kYoungestFirst},
};

// Interleavings are the same everywhere: it saves time to begin shortly before the one that shows it.  If the model has
// changed, others may.
struct Detected {
  Mistake mistake;
  std::uint64_t runs_before;  // with seed 1
};
constexpr Detected kDetected[] = {
    {Mistake::takes_without_generation, 2},
    {Mistake::takes_without_comparing, 39},
    {Mistake::lingers_without_looking, 124},
    {Mistake::drops_event_of_assignment, 0},
    {Mistake::serves_though_outdated, 18},
    {Mistake::forgets_the_unqueued, 0},
    {Mistake::leaves_no_flag, 0},
    {Mistake::loses_signals, 0},
    {Mistake::looks_at_no_flag, 0},
    {Mistake::gives_back_in_wrong_order, 0},
    {Mistake::trusts_copies, 0},
    {Mistake::does_not_arm_who_speaks, 0},
    {Mistake::arms_before_unwatching, 5},
    {Mistake::keeps_the_others, 0},
};

std::size_t world_bytes = 0;
bool judging = false;  // the run is over

// In memory of its own each time: what an unfinished run has left there is ordered with nothing.
void make_world(const Scenario &scenario, Mistake mistake) {
  const SharedSizes sizes{scenario.slots, scenario.backends, 1, 1, 1, 0};
  world_bytes = sizeof(World) + 128 + shared_state_bytes(sizes);
  void *memory = mmap(nullptr, world_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) abort();
  world.set(new (memory) World());
  auto *behind = static_cast<std::byte *>(memory) + (sizeof(World) + 63) / 64 * 64;
  world->scenario = scenario;
  world->mistake = mistake;
  world->shared = lay_out(behind, sizes);
  world->living_crowds.store(scenario.crowds);
  world->header().max_clients = scenario.slots;
  world->header().backend_slots = scenario.backends;
  world->pool().wait_queue.construct();
  for (std::uint32_t i = 0; scenario.full_queue && world->pool().wait_queue.get().bounded_push(
                                                        ClientRef{i % scenario.slots, 0xffffffffu - i}.pack());)
    i++;
}

void unmake_world() { munmap(static_cast<void *>(world.get()), world_bytes); }

void run_actor(int actor) {
  const int backends = static_cast<int>(world->scenario.backends);
  if (actor == 0)
    run_dispatcher();
  else if (actor <= backends)
    run_backend(static_cast<std::uint32_t>(actor - 1));
  else
    run_crowd(static_cast<std::uint32_t>(actor - 1 - backends));
}

int count_actors(const Scenario &scenario) { return static_cast<int>(1 + scenario.backends + scenario.crowds); }

// Nobody can go on.  Time passes then, and the dispatcher looks for those whose end was asked for between two leases:
// for them alone the scan is part of the answer.
bool let_time_pass() {
  for (std::uint32_t i = 0; i < world->scenario.slots; i++) {
    const ClientSlot &slot = world->shared.clients[i];
    const ClientState state = ClientWord::unpack(slot.word.load()).state;
    if ((state == ClientState::idle || state == ClientState::ready) && (slot.flags.load() & kClientToLeave) != 0) {
      world->scan_due.store(true);
      return true;
    }
  }
  return false;
}

void judge_counters() {
  const PoolSlot &pool = world->pool();
  judging = true;
  if (pool.waiters.load() != 0) violated("a backend that has left is counted as waiting");
  if (pool.lingerers.load() != 0) violated("a backend that has left is counted as lingering");
  if (pool.armed.load() != 0) violated("a client that has left is counted in the idle set");
  if (pool.queued.load() != 0) violated("a client that has left is counted in the wait queue");
  if (pool.clients.load() != 0 || world->header().clients.load() != 0) violated("clients that have left are counted");
  for (std::uint32_t i = 0; i < world->scenario.slots; i++)
    if (ClientWord::unpack(world->shared.clients[i].word.load()).state != ClientState::free)
      violated("a slot is not free when all clients have left");
  judging = false;
}

// For whoever has to find out why.
void show_world() {
  const PoolSlot &pool = world->pool();
  printf("    waiters %d, lingerers %d, armed %d, queued %d, watched %u, in the dispatcher's set %d, events %d\n",
         pool.waiters.load(), pool.lingerers.load(), pool.armed.load(), pool.queued.load(), pool.watched.load(),
         world->set_is_watched.load(), world->set.has_event());
  for (std::uint32_t i = 0; i < world->scenario.backends; i++) {
    const BackendSlot &backend = world->shared.backends[i];
    printf("    backend %u: state %u, client %x, lease %llu, told to leave %u\n", i, backend.state.load(),
           backend.client.load(), static_cast<unsigned long long>(backend.lease.load()),
           backend.retire_requested.load());
  }
  for (std::uint32_t i = 0; i < world->scenario.slots; i++) {
    const ClientWord word = ClientWord::unpack(world->shared.clients[i].word.load());
    if (word.state == ClientState::free) continue;
    Client &client = world->clients[world->descriptors[i].load()];
    printf("    slot %u: state %u, backend %x, flags %x; client %u: sent %u, begun %u, answers %u%s%s%s\n", i,
           static_cast<unsigned>(word.state), word.backend, world->shared.clients[i].flags.load(),
           world->descriptors[i].load(), client.sent, client.begun, client.socket.answers(),
           client.long_under_way ? ", until cancelled" : "", client.closing ? ", closed" : "",
           client.end_asked.load() ? ", to be ended" : "");
  }
}

// What went wrong; null if nothing.
const char *try_once(const Scenario &scenario, Mistake mistake, std::uint64_t seed) {
  make_world(scenario, mistake);
  const long most_steps = scenario.full_queue ? kMostStepsThroughFullQueue : kMostSteps;
  const Outcome outcome = run_interleaved(run_actor, count_actors(scenario), seed, most_steps, let_time_pass);
  const char *found = world->violation.load();
  if (found == nullptr && outcome != Outcome::finished) found = describe(outcome);
  if (found == nullptr) {
    judge_counters();
    found = world->violation.load();
  }
  unmake_world();
  return found;
}

bool stands_every_interleaving(std::uint64_t seed, int runs) {
  bool good = true;
  for (const Attempt &attempt : kAttempts) {
    int failures = 0;
    const int own_runs = attempt.scenario.full_queue ? (runs + 9) / 10 : runs;  // a queue takes long to be emptied
    for (int i = 0; i < own_runs; i++) {
      const std::uint64_t own_seed = seed + static_cast<std::uint64_t>(i);
      const char *found = try_once(attempt.scenario, Mistake::none, own_seed);
      if (found == nullptr) continue;
      if (failures++ < 3) printf("    seed %llu: %s\n", static_cast<unsigned long long>(own_seed), found);
    }
    printf("%-64s %s\n", attempt.name, failures == 0 ? "ok" : "FAILED");
    good = good && failures == 0;
  }
  return good;
}

bool finds_mistake(Mistake mistake, std::uint64_t seed, int most_runs) {
  for (int i = 0; i < most_runs; i++)
    for (const Attempt &attempt : kAttempts) {
      if (attempt.scenario.full_queue != (mistake == Mistake::forgets_the_unqueued)) continue;
      const char *found = try_once(attempt.scenario, mistake, seed + static_cast<std::uint64_t>(i));
      if (found == nullptr) continue;
      printf("%-64s found in run %d: %s\n", describe(mistake), i + 1, found);
      // It was the mistake, and not the run.
      return try_once(attempt.scenario, Mistake::none, seed + static_cast<std::uint64_t>(i)) == nullptr;
    }
  printf("%-64s NOT FOUND in %d runs of each\n", describe(mistake), most_runs);
  return false;
}

// Called again and again, by the clock.
long served_so_far() {
  (void)let_time_pass();
  return world->served.load();
}

bool stands_processors(std::uint64_t seed) {
  make_world(kCrowd, Mistake::none);
  run_in_parallel(run_actor, count_actors(kCrowd), seed, served_so_far, kPatienceSeconds, show_world);
  judge_counters();
  const char *found = world->violation.load();
  printf("%u clients, %u backends, in parallel: %ld commands %s\n", kCrowd.clients, kCrowd.backends, served_so_far(),
         found == nullptr ? "ok" : found);
  unmake_world();
  return found == nullptr;
}

}  // namespace

void violated(const char *what) {
  if (world.get() == nullptr) {
    fprintf(stderr, "%s\n", what);
    _exit(1);
  }
  const char *nothing = nullptr;
  world->violation.compare_exchange_strong(nothing, what);
  if (!judging) give_up(what);
}

void send_signal(int pid) {
  if (pid == 0) return;
  if (world->dispatcher.pid.load() == pid) world->dispatcher.pending.store(true);
  for (std::uint32_t i = 0; i < world->scenario.backends; i++)
    if (world->backends[i].pid.load() == pid) world->backends[i].pending.store(true);
}

const char *describe(Mistake mistake) {
  switch (mistake) {
    case Mistake::none: return "no mistake";
    case Mistake::takes_without_generation: return "without a look at the generation";
    case Mistake::takes_without_comparing: return "without compare-and-set";
    case Mistake::lingers_without_looking: return "lingering without a second look, and deaf to pokes";
    case Mistake::leaves_without_looking: return "leaving the set without a look whether it is watched";
    case Mistake::sleeps_without_looking: return "going to sleep without a look at the queue";
    case Mistake::stops_watching_without_looking: return "ending the watch without a second look";
    case Mistake::drops_event_of_assignment: return "dropping the event that came with an assignment";
    case Mistake::serves_though_outdated: return "taking from the queue without a look at requests to leave";
    case Mistake::forgets_the_unqueued: return "not putting back whom the queue had no room for";
    case Mistake::cancels_any_lease: return "cancelling whatever lease there is";
    case Mistake::leaves_no_flag: return "ending a client without a flag in its slot";
    case Mistake::loses_signals: return "not blocking signals between looking and sleeping";
    case Mistake::looks_at_no_flag: return "beginning a command without a look whether its client has gone";
    case Mistake::gives_back_in_wrong_order: return "arming a client before its state says so";
    case Mistake::trusts_copies: return "trusting a copy of a socket whatever its generation";
    case Mistake::does_not_arm_who_speaks: return "leaving a client at the door that speaks";
    case Mistake::arms_before_unwatching: return "ending the watch at the door when the client is in the set already";
    case Mistake::keeps_the_others: return "looking for the youngest without putting the others back";
    case Mistake::puts_back_without_looking: return "putting an entry back without a look at the sleepers";
  }
  return "";
}

}  // namespace model

int main(int count, char **arguments) {
  using namespace model;
  const std::uint64_t seed = count > 1 ? strtoull(arguments[1], nullptr, 10) : 1;
  const int runs = count > 2 ? atoi(arguments[2]) : 60;
  bool good = true;

  setvbuf(stdout, nullptr, _IOLBF, 0);
  if (count > 3) return finds_mistake(static_cast<Mistake>(atoi(arguments[3])), seed, runs) ? 0 : 1;
  check_sequence_locks();
  good = stands_every_interleaving(seed, runs) && good;
  good = stands_processors(seed) && good;
  for (const Detected &detected : kDetected)
    good = finds_mistake(detected.mistake, seed + detected.runs_before, runs) && good;
  return good ? 0 : 1;
}
