// SPDX-License-Identifier: PostgreSQL
//
// A login as the files see it that take it through its stages.  Internal to them:
// others know login.hpp.
//
//   login             the stages and the steps between them; owns every Login
//   login_encryption  reads and writes its bytes, in clear text or not
//   login_startup     its start-up packet: names and settings
//   login_admission   may it enter a pool, and which
//
// A Login lives in a memory context of its own, in the dispatcher alone, from
// accept() until it enters its pool or is refused.  Whatever may end it says so:
// afterwards the pointer is not to be used.

#ifndef SLUICE_PG_ACCEPT_LOGIN_STATE_HPP
#define SLUICE_PG_ACCEPT_LOGIN_STATE_HPP

#include "pg/compat.hpp"

extern "C" {
#include "lib/stringinfo.h"
#include "libpq/libpq-be.h"
}

#include <cstdint>

#include "core/accept/startup_packet.hpp"
#include "core/pool/shared_state.hpp"
#include "pg/accept/tls_session.hpp"
#include "pg/auth/authentication.hpp"
#include "pg/auth/name_board.hpp"

namespace sluice::pg {

enum class LoginStage {
  startup,
  handshake,
  name,  // parked until more is known of the client's host name
  authentication,
  admission,  // authenticated, and waits for a pool's slot to become free
};

struct Login {
  Login *next, *previous;  // all logins, oldest first: one limit holds for all, so that is the order of deadlines
  ClientRef client;
  MemoryContext context;  // holds this struct and all it points to
  LoginStage stage;
  bool watched;  // in the dispatcher's epoll set
  bool rests;    // and there for nothing but the end of its stream
  std::int64_t started_us;
  bool ssl_asked, gss_asked;
  bool waits_for_output;      // of the handshake
  bool looked_for_handshake;  // at the first byte of the connection
  TlsSession *tls;            // null = the client has not asked for it
  std::uint32_t relay;        // reserved for it; kNoIndex = none
  Port port;
  StringInfoData input;   // the packet being read
  int wanted;             // bytes it needs as far as known
  std::int64_t received;  // bytes of all packets so far
  StringInfoData output;  // what the step has to say
  int output_settled;     // of it, bytes that are sent even if the step fails
  Authentication *authentication;
  NameWait name_wait;  // while parked
  StartupPacket packet;  // points into the bytes of `input` it was read from
  std::uint32_t pool;    // once admitted
};

// Ends the login and forgets its client, without a word but the end of TLS.
void abandon_login(Login *login);

// A peer that does not speak the protocol: counted, and to the log only.  Sets
// MyProcPort; the login goes on until somebody ends it.
void log_protocol_violation(Login *login, const char *message);

}  // namespace sluice::pg

#endif
