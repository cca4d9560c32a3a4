// SPDX-License-Identifier: PostgreSQL
//
// What stands between a statement that wants a database for itself (DROP DATABASE,
// ALTER DATABASE ... RENAME, ALTER DATABASE ... SET TABLESPACE, CREATE DATABASE
// from that template) and the pools of that database.
//
// The server refuses such a statement while sessions use the database, after it
// has waited for them for five seconds.  To its users a pooled client is a session,
// also while no backend serves it; a backend without a client is none.  So clients
// are waited for, and then refused for or (FORCE) ended; backends without a client
// are sent away.  As long as there are clients nothing is done to anybody, so that
// a statement that is refused leaves the pools as they were.
//
//   Race: a client logs in while the backends leave.  Answer: before the statement
//   goes on the dispatcher has to look up once (`dispatcher_has_looked`).  Whoever
//   was let in before is counted by then, and whoever comes later needs a backend
//   that starts, which waits for the lock on the database.

#ifndef SLUICE_CORE_POOL_DATABASE_DRAIN_HPP
#define SLUICE_CORE_POOL_DATABASE_DRAIN_HPP

#include <cstdint>

namespace sluice {

// As long as the server itself waits for its sessions.
constexpr std::int64_t kDrainPatienceUs = 5'000'000;

struct DrainView {
  int clients = 0;        // that have been told that they are connected
  int backends = 0;       // attached to the database
  bool force = false;
  bool clients_told = false;           // to leave
  bool backends_told = false;          // to leave, all that are attached now
  bool dispatcher_has_looked = false;  // since there was nobody left; true if there is no dispatcher
  std::int64_t waited_us = 0;          // since the first look, or since clients were told
};

enum class DrainStep {
  wait,              // and look again
  tell_clients,      // to leave
  tell_backends,     // to leave, and look again
  ask_dispatcher,    // to look up, and look again
  proceed,           // nobody of ours is in the way, or the server has to say so
  refuse,            // clients are in the way
};

// To be asked until the answer is `proceed` or `refuse`, about what is there at
// each time.
DrainStep decide_drain(const DrainView &view) noexcept;

}  // namespace sluice

#endif
