// SPDX-License-Identifier: PostgreSQL
//
// The memory the actors of the model share: the product's own types, laid out as
// in the server, and beside them what the model knows of its clients in order to
// judge what is done to them.

#ifndef SLUICE_TEST_MODEL_WORLD_HPP
#define SLUICE_TEST_MODEL_WORLD_HPP

#include <atomic>
#include <cstdint>

#include "core/pool/hand_over.hpp"
#include "core/pool/shared_state.hpp"
#include "model/kernel.hpp"
#include "model/scheduler.hpp"

namespace model {

// What the model can be told to do wrong: one step of one answer to a race.
enum class Mistake {
  none,
  takes_without_generation,       // a queue entry or event is believed whoever the slot belongs to now
  takes_without_comparing,        // a client's word is looked at and then stored
  lingers_without_looking,  // once it lingers, it does not look whether it is wanted, nor obey a poke
  leaves_without_looking,         // the last sleeper does not look whether somebody has to watch
  sleeps_without_looking,         // does not look at the queue once it counts as a waiter
  stops_watching_without_looking,  // the dispatcher clears `watched` and does not look again
  drops_event_of_assignment,      // an event that came with an assignment is nobody's
  serves_though_outdated,         // takes a queue entry without looking whether it was told to leave
  forgets_the_unqueued,           // nobody puts back who found the queue full
  cancels_any_lease,              // a cancel is not compared with the lease
  leaves_no_flag,                 // disconnect_client() tells the leasing backend only
  loses_signals,                  // a signal between looking and sleeping wakes nobody
  looks_at_no_flag,               // a command begins without a look whether its client has gone
  gives_back_in_wrong_order,      // arms the client, then changes its state
  trusts_copies,                  // a copy of a socket is believed to be of the slot's present client
  does_not_arm_who_speaks,        // a client at the door that speaks is not put into the set
  arms_before_unwatching,         // a client at the door is put into the set while its input is still watched
  keeps_the_others,               // who looks for the youngest in the queue does not put the others back
  puts_back_without_looking,      // who puts an entry back does not look whether somebody sleeps
};
const char *describe(Mistake mistake);

struct Scenario {
  std::uint32_t clients;   // all together
  std::uint32_t slots;     // at a time
  std::uint32_t backends;
  std::uint32_t crowds;    // actors that play clients
  std::uint32_t commands;  // of each client, at most
  bool endings;            // clients leave in every way there is; cancels; administrators
  bool changes;            // ALTER ROLE ... SET, and backends that die
  bool full_queue;         // the wait queue is full of entries of clients that have gone
  bool youngest_first;     // now and then the wait queue is served from its other end
};

struct Client {
  Socket socket;
  // The actor that plays it.
  enum class Phase { unborn, connected, ended } phase;
  std::uint32_t sent, wanted;
  bool in_transaction, long_under_way, closing, holds_open;
  std::uint64_t least_settings;  // what was true when it connected
  std::uint32_t thinks_until;    // that client has left, + 1; 0 = is not thinking
  // The dispatcher; read by the player.
  std::atomic<bool> forgotten;
  std::atomic<std::uint32_t> slot;        // + 1
  std::atomic<std::uint32_t> generation;
  // The backend that leases it, and no other: plain, so that a second one is a data race.
  std::uint32_t begun;
  bool greeted;
  // Everybody.
  std::atomic<std::uint32_t> serving;
  std::atomic<bool> cancel_asked;
  std::atomic<bool> end_asked;
  std::atomic<bool> ended_by_server;
};

// What one backend has for itself.
struct BackendMemory {
  std::uint32_t index;
  sluice::BackendSlot *slot;
  Process *process;
  sluice::ClientRef client_ref;
  sluice::ClientSlot *client;
  std::uint64_t lease;
  bool mail;  // there was a signal
  bool in_query;
  bool cancel_pending, told_to_leave, client_vanished;
  std::uint32_t known_generations[kMostSlots];  // generation + 1
  std::uint32_t copies[kMostSlots];             // which client's socket the copy is of
};

// What the dispatcher has for itself.
struct DispatcherMemory {
  std::uint32_t free_slots[kMostSlots];
  std::uint32_t free_count;
  int calm_ticks;
  std::uint64_t seen_changes;
};

struct World {
  Scenario scenario;
  Mistake mistake;
  sluice::SharedState shared;
  IdleSet set;
  Listener listener;
  Process dispatcher;
  Process backends[kMostBackends];
  Client clients[kMostClients];
  BackendMemory memories[kMostBackends];
  DispatcherMemory dispatcher_memory;
  std::atomic<std::int64_t> ticks;  // the dispatcher's, the only clock

  // The dispatcher's descriptors: which client's socket has the number of this slot.
  std::atomic<std::uint32_t> descriptors[kMostSlots];
  // The postmaster: asked to start a worker with this generation; the worker has ended.
  std::atomic<std::uint32_t> start_asked[kMostBackends];  // generation + 1
  std::atomic<bool> worker_ended[kMostBackends];
  std::atomic<bool> scan_due;
  std::atomic<bool> set_is_watched;  // it is in the dispatcher's own set
  std::atomic<std::uint32_t> living_crowds;
  std::atomic<bool> over;            // backends need not wait any longer
  std::atomic<std::uint32_t> held_open;  // transactions whose client thinks until another one has left
  std::atomic<long> served;
  std::atomic<const char *> violation;

  sluice::PoolSlot &pool() { return shared.pools[0]; }
  sluice::SharedHeader &header() { return *shared.header; }
};

// Another one for each run, while fibers of a run that was given up still count as readers.
class WorldPointer {
 public:
  World *get() const { return world_.load(std::memory_order_relaxed); }
  World *operator->() const { return get(); }
  void set(World *world) { world_.store(world, std::memory_order_relaxed); }

 private:
  std::atomic<World *> world_{nullptr};
};
extern WorldPointer world;

inline bool wrong(Mistake mistake) { return world->mistake == mistake; }

// The first one counts; the run is over.
void violated(const char *what);

void send_signal(int pid);
std::int64_t now_us();

// actor 0 is the dispatcher, then come the backends, then the crowds.
void run_dispatcher();
void run_backend(std::uint32_t index);
void run_crowd(std::uint32_t number);
// By whoever has a right to.
void disconnect_client(sluice::ClientSlot &slot, std::uint32_t generation);
void handle_cancel_request(std::uint32_t slot);
std::uint64_t find_lease(std::uint32_t slot, std::uint32_t *backend);
void report_vanished(std::uint32_t slot);
void poke_lingering_backend();

void check_sequence_locks();

}  // namespace model

#endif
