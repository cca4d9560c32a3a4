// SPDX-License-Identifier: PostgreSQL
//
// Watches what the client's statements do to the session, where the server's
// state alone does not show it or looking would cost too much: a utility hook,
// hooks for objects made and dropped, for functions executed and looked up, and a
// transaction callback.  All see what happens inside functions and dynamic SQL too.
//
// A trace says "look again": whether there is such state is found out from the
// server (pins.cpp).  With sluice.on_session_state = error the statement that
// would make a pin is refused here.

#ifndef SLUICE_PG_SESSION_SESSION_WATCH_HPP
#define SLUICE_PG_SESSION_SESSION_WATCH_HPP

namespace sluice::pg {

struct SessionTraces {
  bool temporary;    // the temporary schema was used
  bool changed;      // something was made or dropped, and there is a temporary schema
  bool listened;     // LISTEN, UNLISTEN
  bool loaded;       // LOAD; stays, as the library does
  bool seeded;       // setseed()
  bool slot;         // a replication slot was made
  bool notified;     // NOTIFY, in the transaction under way
  bool flush;        // pg_stat_force_next_flush()
  bool function;     // one of sluice.pin_functions was executed; stays, since nobody knows what it has left
};

extern SessionTraces traces;

// Once per process.
void install_session_watch();

}  // namespace sluice::pg

#endif
