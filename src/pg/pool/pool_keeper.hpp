// SPDX-License-Identifier: PostgreSQL
//
// The dispatcher's side of the pools: it creates them, watches them under
// pressure, lets the governor start and retire backends, and ends waits that
// last too long.

#ifndef SLUICE_PG_POOL_POOL_KEEPER_HPP
#define SLUICE_PG_POOL_POOL_KEEPER_HPP

#include "pg/compat.hpp"

#include <cstdint>

#include "core/pool/shared_state.hpp"

namespace sluice::pg {

// Prepares the book-keeping.  `epoll` is the dispatcher's own set, which will
// also watch the control channels.
void open_pool_keeper(int epoll);

// The pool of (database, role), created when it does not exist.  kNoIndex when
// there is no room for another (yet: pool_slot_is_coming()).
std::uint32_t find_or_create_pool(Oid database, Oid role, const char *database_name, const char *role_name);

// Whether a pool without clients gives up its slot as soon as its backends have gone.
bool pool_slot_is_coming();

// Whether the role is a superuser, as of a login.  Backends know it from their
// start; if it has changed they are replaced before anybody new is served.
void pool_learns_superuser(std::uint32_t pool, bool superuser);

// Whether role or database have been given other settings; to be asked before a
// client is admitted.  Backends that started with the former ones are replaced.
void pool_learns_changed_settings(std::uint32_t pool);

// An authenticated client enters its pool: it is made ready (its first lease
// greets it) and somebody is told.
void pool_receives_client(std::uint32_t pool, ClientRef client);

// An authenticated and greeted client enters its pool: it is idle.
void pool_parks_client(std::uint32_t pool, ClientRef client);

// An idle client that was left to the dispatcher has something to say: it is armed
// in its pool's set, where a backend finds it.
void pool_arms_client(ClientRef client);

// An idle client has hung up, but left something to be executed.
void pool_resumes_client(ClientRef client);

// A client is being forgotten: out of the pool's epoll set.
void pool_forgets_client(std::uint32_t pool, ClientRef client);

// What is due: pressure, growth, time limits, retirements, dead workers.
void keep_pools(std::int64_t now_us);

// The epoll set of a pool that nobody watched has a ready client.
void pool_has_events(std::uint32_t pool);

// How long the dispatcher may sleep, in microseconds.
std::int64_t pool_keeper_sleep_us();

// Settings were reloaded.
void pools_reread_settings();

// How many clients of this role / database are logged in (for CONNECTION LIMIT).
int count_clients_of_role(Oid role);
int count_clients_of_database(Oid database);

}  // namespace sluice::pg

#endif
