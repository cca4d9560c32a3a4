// SPDX-License-Identifier: PostgreSQL
//
// The dispatcher's end of the look-up of clients' host names: it asks, starts the
// processes that find out, and takes the answers.  Nothing here waits.

#ifndef SLUICE_PG_AUTH_NAME_BOARD_HPP
#define SLUICE_PG_AUTH_NAME_BOARD_HPP

#include "pg/compat.hpp"

extern "C" {
#include "libpq/libpq-be.h"
}

#include <cstdint>

namespace sluice::pg {

// A login's wait for an answer.  All zero: it has not asked.
struct NameWait {
  std::uint32_t place;  // slot of the board, plus 1
};

// When the dispatcher starts.
void open_name_board();

// Asks what is to be known next of the client's name: which one its address has, or,
// if Port::remote_hostname says that already, whether the name has that address.
// True when the answer is there: it is then in remote_hostname (copied into `context`),
// remote_hostname_resolv and remote_hostname_errcode, as the server keeps it, and the
// wait is over.  False: call it again when name_board_has_news().
bool look_up_client_name(NameWait *wait, Port *port, MemoryContext context);

// For a login that ends.  Does nothing if it does not wait.
void end_name_wait(NameWait *wait);

// Is there an answer, or a free slot, that was not there at the last call?
bool name_board_has_news();

// Sees to it that somebody answers the questions.  False if nobody will: no process
// could be started, and there is none.  To be called whenever the dispatcher wakes up
// while logins wait.
bool staff_resolvers(std::int64_t now_us);

}  // namespace sluice::pg

#endif
