// SPDX-License-Identifier: PostgreSQL
//
// Encryption in the course of a login.
//
// A client asks for it (SSLRequest; a GSSENCRequest is always denied), or begins with
// the handshake at once.  From then on the login's bytes go through its TlsSession,
// unless the kernel encrypts.  When the login is over, other processes use the socket,
// which have no keys: then a relay takes the connection, for which a place is
// reserved before the handshake, so that nobody is sent away after the effort.
//
// Handshakes cost processor time that the pools' clients wait for, so there is a
// limit to a round of events.

#include "pg/compat.hpp"

#include "pg/accept/login_encryption.hpp"

#include <sys/socket.h>

#include "core/accept/log_throttle.hpp"
#include "pg/accept/client_limits.hpp"
#include "pg/accept/client_registry.hpp"
#include "pg/accept/dispatcher.hpp"
#include "pg/accept/tls_context.hpp"
#include "pg/accept/tls_relay.hpp"
#include "pg/error_response.hpp"
#include "pg/shared_memory.hpp"
#include "pg/stats/error_count.hpp"

namespace sluice::pg {

// ------------------------------------------------------------------ bytes in and out

static bool is_encrypted_here(const Login *login) { return login->tls != nullptr && !tls_is_in_kernel(login->tls); }

ssize_t receive(Login *login, void *target, std::size_t length) {
  if (is_encrypted_here(login)) return receive_decrypted(login->tls, target, length);
  return recv(login->port.sock, target, length, MSG_DONTWAIT);
}

// From the network: with the handshake and what encryption adds.
std::int64_t bytes_received(const Login *login) {
  return is_encrypted_here(login) ? static_cast<std::int64_t>(received_bytes(login->tls)) : login->received;
}

bool send_all(Login *login, const char *bytes, int length) {
  const auto size = static_cast<std::size_t>(length);
  if (length == 0) return true;
  if (is_encrypted_here(login)) return send_encrypted(login->tls, bytes, size) == length;
  return send(login->port.sock, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL) == length;
}

constexpr std::int64_t kLogIntervalUs = 5 * 1000000;  // of what strangers can bring about

// ------------------------------------------------------------------ handshake

// Handshakes cost up to a millisecond of processor time each: in one round of events
// only so many, so that pools under pressure are looked after in between.  The
// sockets of the others stay ready.
constexpr int kHandshakesPerTurn = 4;
static int handshakes_left = kHandshakesPerTurn;

void renew_handshakes() { handshakes_left = kHandshakesPerTurn; }

// Over a Unix socket the server does not offer it either.
static bool may_encrypt(const Login *login) {
  return tls_is_offered() && login->port.raddr.addr.ss_family != AF_UNIX;
}

static void refuse_for_want_of_relays(Login *login) {
  constexpr const char *kMessage = "sorry, too many clients already";
  static LogThrottle log{kLogIntervalUs};
  MyProcPort = &login->port;
  if (log.note(monotonic_us()).log)
    ereport(LOG, (errcode(ERRCODE_TOO_MANY_CONNECTIONS),
                  errmsg("too many clients with SSL: no descriptors left for another"),
                  errdetail("Each needs two more than other clients; there are enough for %u.", relay_capacity()),
                  errhint("Raise the limit of open files of the server (LimitNOFILE, ulimit -n).")));
  MyProcPort = nullptr;
  append_fatal_response(&login->output, ERRCODE_TOO_MANY_CONNECTIONS, kMessage, nullptr, nullptr);
  (void)send_all(login, login->output.data, login->output.len);
  count_error(ErrorClass::limit, ERRCODE_TOO_MANY_CONNECTIONS, InvalidOid, kMessage);
  shared().header->connections_refused.fetch_add(1);
  abandon_login(login);
}

// False, with the login over: there is no place for another encrypted client.
static bool begin_handshake(Login *login, bool direct) {
  login->relay = reserve_relay();
  if (login->relay == kNoIndex) {
    refuse_for_want_of_relays(login);
    return false;
  }
  if (!direct && send(login->port.sock, "S", 1, MSG_DONTWAIT | MSG_NOSIGNAL) != 1) {
    abandon_login(login);
    return false;
  }
  login->tls = open_tls(&login->port, login->context, direct);
  if (login->tls == nullptr) {
    abandon_login(login);
    return false;
  }
  login->stage = LoginStage::handshake;
  return true;
}

// False: it was asked before.  The login may have ended.
bool answer_encryption_request(Login *login) {
  const bool asks_tls = login->packet.kind == StartupKind::ssl_request;
  bool &asked = asks_tls ? login->ssl_asked : login->gss_asked;

  if (asked || login->tls != nullptr) return false;
  asked = true;
  resetStringInfo(&login->input);
  login->wanted = kMinStartupPacketLength;
  if (asks_tls && may_encrypt(login))
    begin_handshake(login, false);
  else if (!send_all(login, "N", 1))
    abandon_login(login);
  return true;
}

// A client that begins with a handshake instead of asking (sslnegotiation=direct).
// False: nothing has come yet, or the login has ended.
bool look_for_handshake(Login *login) {
  constexpr char kHandshakeRecord = 0x16;  // no start-up packet is long enough to begin like that
  char first = 0;

  if (may_encrypt(login) && recv(login->port.sock, &first, 1, MSG_PEEK | MSG_DONTWAIT) < 0 &&
      (errno == EAGAIN || errno == EWOULDBLOCK))
    return false;
  login->looked_for_handshake = true;
  return first != kHandshakeRecord || begin_handshake(login, true);
}

// True when the client can be read on.
bool shake_hands(Login *login) {
  if (handshakes_left == 0) return false;
  handshakes_left--;
  MyProcPort = &login->port;
  MemoryContextSwitchTo(login->context);
  Handshake result = continue_handshake(login->tls);
  if (result != Handshake::finished && exceeds_login_bytes(bytes_received(login))) {
    ErrorData error;
    describe_login_bytes(&error);
    count_error(ErrorClass::limit, error.sqlerrcode, InvalidOid, error.message);
    ereport(COMMERROR, (errcode(error.sqlerrcode), errmsg_internal("%s", error.message),
                        errhint("%s", error.hint)));
    result = Handshake::failed;
  }
  MemoryContextSwitchTo(TopMemoryContext);
  MyProcPort = nullptr;
  switch (result) {
    case Handshake::finished:
      if (login->waits_for_output) watch_for_output(login->client, false);
      login->stage = LoginStage::startup;
      return true;
    case Handshake::wants_input:
    case Handshake::wants_output:
      if (login->waits_for_output != (result == Handshake::wants_output) && login->watched)
        watch_for_output(login->client, result == Handshake::wants_output);
      login->waits_for_output = result == Handshake::wants_output;
      return false;
    case Handshake::failed:
      abandon_login(login);
      return false;
  }
  return false;
}

// ------------------------------------------------------------------ after the login

// From here on everybody uses the client's socket: it has to be one that needs no
// decrypting.  False: there are no descriptors left for it.
bool clear_the_socket(Login *login) {
  if (!is_encrypted_here(login)) return true;
  if (!start_relay(login->relay, login->tls, login->port.sock)) {
    constexpr const char *kMessage = "could not make a socket pair for the client";
    static LogThrottle log{kLogIntervalUs};
    if (log.note(monotonic_us()).log) ereport(LOG, (errcode_for_socket_access(), errmsg("%s: %m", kMessage)));
    count_error(ErrorClass::limit, ERRCODE_INSUFFICIENT_RESOURCES, InvalidOid, kMessage);
    resetStringInfo(&login->output);
    append_fatal_response(&login->output, ERRCODE_INSUFFICIENT_RESOURCES, kMessage, nullptr, nullptr);
    (void)send_all(login, login->output.data, login->output.len);
    return false;
  }
  login->relay = kNoIndex;
  login->watched = false;  // it is another socket now
  return true;
}

}  // namespace sluice::pg
