// SPDX-License-Identifier: PostgreSQL
//
// A client on its way in.
//
// The dispatcher never waits for a client: each login is a small state machine
// that is run when its socket has input.  It reads exactly what the next packet
// needs and no byte more, so that whatever a client sends behind its start-up
// packet is left in the socket for the backend.  Answers are a few hundred bytes
// and fit into an empty socket buffer; a client for which they do not is dropped.
//
// Errors of a login (PostgreSQL's own functions raise them) are caught here,
// told to the client as FATAL, and written to the log as the server would.
//
// This file has the stages and the steps between them: reading, parking, refusing,
// ending, entering the pool.  What a step does is in login_startup, login_encryption,
// login_admission and the files of auth/.

#include "pg/compat.hpp"

#include "pg/accept/login.hpp"

extern "C" {
#include "access/xact.h"
#include "libpq/libpq-be.h"
#include "postmaster/postmaster.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
}

#include <sys/socket.h>

#include "core/accept/startup_packet.hpp"
#include "core/session/message.hpp"
#include "pg/accept/cancel.hpp"
#include "pg/accept/client_limits.hpp"
#include "pg/accept/client_port.hpp"
#include "pg/accept/client_registry.hpp"
#include "pg/accept/dispatcher.hpp"
#include "pg/accept/login_admission.hpp"
#include "pg/accept/login_encryption.hpp"
#include "pg/accept/login_startup.hpp"
#include "pg/accept/login_state.hpp"
#include "pg/accept/tls_relay.hpp"
#include "pg/accept/tls_session.hpp"
#include "pg/auth/authentication.hpp"
#include "pg/auth/name_board.hpp"
#include "pg/error_response.hpp"
#include "pg/pool/pool_keeper.hpp"
#include "pg/pool/quick_greeting.hpp"
#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"
#include "pg/stats/error_count.hpp"

namespace sluice::pg {

static Login **logins = nullptr;  // [client slot]
static Login *oldest_login = nullptr;
static Login *latest_login = nullptr;
static int parked_logins = 0;
static bool logins_wait_for_pool = false;  // some may be in the stage of admission

void open_logins() {
  logins = static_cast<Login **>(MemoryContextAllocZero(
      TopMemoryContext, sizeof(Login *) * (static_cast<Size>(client_capacity()) + 1)));
}

void begin_turn_of_logins() { renew_handshakes(); }

// ------------------------------------------------------------------ leaving the login

static void link_login(Login *login) {
  logins[login->client.slot] = login;
  login->previous = latest_login;
  (latest_login != nullptr ? latest_login->next : oldest_login) = login;
  latest_login = login;
}

static void end_login(Login *login) {
  if (login->relay != kNoIndex) release_relay(login->relay);
  if (login->stage == LoginStage::name) parked_logins--;
  end_name_wait(&login->name_wait);
  logins[login->client.slot] = nullptr;
  (login->previous != nullptr ? login->previous->next : oldest_login) = login->next;
  (login->next != nullptr ? login->next->previous : latest_login) = login->previous;
  MyProcPort = nullptr;
  if (login->input.data != nullptr) explicit_bzero(login->input.data, static_cast<size_t>(login->input.maxlen));
  // The login may end while its own context is the current one.
  MemoryContextSwitchTo(TopMemoryContext);
  MemoryContextDelete(login->context);
}

void abandon_login(Login *login) {
  const ClientRef client = login->client;
  if (login->tls != nullptr) say_end_of_tls(login->tls);
  end_login(login);
  forget_client(client);
}

// ------------------------------------------------------------------ refusing

// A peer that does not speak the protocol, or hung up in the middle: to the log only.
void log_protocol_violation(Login *login, const char *message) {
  MyProcPort = &login->port;
  shared().header->protocol_violations.fetch_add(1);
  count_error(ErrorClass::protocol, ERRCODE_PROTOCOL_VIOLATION, InvalidOid, message);
  ereport(LOG_SERVER_ONLY, (errcode(ERRCODE_PROTOCOL_VIOLATION), errmsg_internal("%s", message)));
}

// Nothing at all counts as modern.
static bool is_ancient_protocol(std::uint32_t protocol) {
  return protocol != 0 && protocol_major(protocol) < kProtocolMajor;
}

static void refuse_login(Login *login, const ErrorData *error) {
  const int sqlstate = error->sqlerrcode;
  log_as_fatal(error);
  // Whatever cannot be understood, an unknown protocol included, is a violation.
  count_error(login->packet.kind == StartupKind::invalid ? ErrorClass::protocol : class_of_refusal(sqlstate), sqlstate,
              InvalidOid, error->message);
  login->output.len = login->output_settled;
  if (login->packet.error == StartupError::unsupported_protocol && is_ancient_protocol(login->packet.protocol))
    append_ancient_response(&login->output, error);
  else
    append_fatal_response(&login->output, error);
  (void)send_all(login, login->output.data, login->output.len);
  if (sqlstate == ERRCODE_PROTOCOL_VIOLATION)
    shared().header->protocol_violations.fetch_add(1);
  else if (sqlstate == ERRCODE_TOO_MANY_CONNECTIONS || sqlstate == ERRCODE_CONFIGURATION_LIMIT_EXCEEDED)
    shared().header->connections_refused.fetch_add(1);
  else
    shared().header->authentication_failures.fetch_add(1);
  abandon_login(login);
}

// ------------------------------------------------------------------ into the pool

static void enter_pool(Login *login, bool greeted) {
  const ClientRef client = login->client;
  const std::uint32_t pool = login->pool;

  if (!clear_the_socket(login)) {
    abandon_login(login);
    return;
  }
  shared().clients[client.slot].pool.store(pool);
  shared().header->unauthenticated.fetch_sub(1);
  client_came_in(client);
  const bool watched = login->watched;
  end_login(login);
  if (setting_track_timing)
    shared().pools[pool].authentication_us.record(
        static_cast<std::uint64_t>(Max(GetCurrentTimestamp() - shared().clients[client.slot].connected_at, 0)));
  watch_for_hangup(client, !watched);
  if (greeted)
    pool_parks_client(pool, client);
  else
    pool_receives_client(pool, client);
}

// ------------------------------------------------------------------ steps

// AuthenticationOk: the backend that greets the client sends it together with
// the rest, so that the client is woken once.
constexpr int kAuthenticationOkBytes = 9;
// In the place of a message's type:
constexpr int kStartupPacket = -1;  // the packet that has none
constexpr int kNameAnswer = -2;     // no packet: more is known of the client's host name
constexpr int kNoNameAnswer = -3;   // no packet: nobody can look up the client's host name
constexpr int kUnreadable = -4;     // a message that is cut short, or of an impossible length
constexpr int kAdmission = -5;      // no packet: another attempt to enter a pool

static bool flush_output(Login *login, bool without_authentication_ok) {
  const int length = login->output.len - (without_authentication_ok ? kAuthenticationOkBytes : 0);
  const bool sent = send_all(login, login->output.data, length);
  resetStringInfo(&login->output);
  login->output_settled = 0;
  return sent;
}

// Runs one step inside a transaction.  `message` is null for the start-up packet
// and for a message of a type that cannot be one.  `succeeded` when the client has
// been authenticated and admitted to a pool.
static AuthenticationStatus run_step(Login *login, int type, StringInfo message) {
  AuthenticationStatus status = AuthenticationStatus::succeeded;

  StartTransactionCommand();
  // As at the start of a backend: during recovery nothing higher is allowed.
  XactIsoLevel = XACT_READ_COMMITTED;
  MemoryContextSwitchTo(login->context);
  if (type == kAdmission) {
    login->pool = admit(login);
  } else if (type == kStartupPacket) {
    accept_startup_packet(login);
    login->output_settled = login->output.len;
    status = begin_authentication(&login->port, login->context, &login->output, &login->output_settled,
                                  &login->authentication);
  } else if (type == kUnreadable) {
    refuse_unreadable_message(login->authentication);
  } else if (type == kNameAnswer) {
    status = begin_authentication(&login->port, login->context, &login->output, &login->output_settled,
                                  &login->authentication);
  } else if (type == kNoNameAnswer) {
    refuse_without_name();
  } else if (message == nullptr) {
    refuse_message_type(login->authentication, type);
  } else {
    status = continue_authentication(login->authentication, message, &login->output, &login->output_settled);
  }
  if (type != kAdmission && status == AuthenticationStatus::succeeded) {
    // A client that proved who it is hears so, even if it may not come in.
    login->output_settled = login->output.len;
    log_authorized(login);  // where the server logs it, too
    login->pool = admit(login);
  }
  CommitTransactionCommand();
  MemoryContextSwitchTo(login->context);
  return status;
}

// The next stage of a login that goes on.  One that needs the client's host name is
// parked: it reads nothing, and only a hang-up is reported.
static void change_stage(Login *login, LoginStage stage) {
  const LoginStage former = login->stage;

  login->stage = stage;
  if (stage == LoginStage::name) {
    if (former != LoginStage::name) {
      parked_logins++;
      watch_for_hangup(login->client, !login->watched);
      login->watched = true;
    }
    (void)look_up_client_name(&login->name_wait, &login->port, login->context);  // asks; there is no answer yet
  } else if (former == LoginStage::name) {
    parked_logins--;
    watch_for_output(login->client, false);  // for input, that is
  }
}

static void step(Login *login, int type, StringInfo message) {
  ErrorData *volatile error = nullptr;
  volatile AuthenticationStatus status = AuthenticationStatus::wants_message;

  MyProcPort = &login->port;
  PG_TRY();
  {
    status = run_step(login, type, message);
  }
  PG_CATCH();
  {
    MemoryContextSwitchTo(login->context);
    error = CopyErrorData();
    FlushErrorState();
    AbortCurrentTransaction();
    MemoryContextSwitchTo(login->context);
  }
  PG_END_TRY();
  if (message != nullptr) explicit_bzero(message->data, static_cast<size_t>(message->len));

  const bool authenticated = error == nullptr && status == AuthenticationStatus::succeeded;
  const bool admitted = authenticated && login->pool != kNoIndex;
  const bool greeted = admitted && append_greeting(login->pool, login->client, &login->output);
  if (error != nullptr) {
    refuse_login(login, error);
  } else if (authenticated && !admitted) {
    logins_wait_for_pool = true;  // and so does AuthenticationOk
    change_stage(login, LoginStage::admission);
  } else if (!flush_output(login, admitted && !greeted)) {
    abandon_login(login);
  } else if (admitted) {
    enter_pool(login, greeted);
  } else {
    // The start-up packet is still pointed into: the next message gets a buffer of its own.
    if (login->stage == LoginStage::startup) initStringInfo(&login->input);
    change_stage(login, status == AuthenticationStatus::wants_name ? LoginStage::name : LoginStage::authentication);
    login->wanted = kMessageHeaderBytes;
    resetStringInfo(&login->input);
  }
  MyProcPort = nullptr;
  MemoryContextSwitchTo(TopMemoryContext);
}

// ------------------------------------------------------------------ what has been read

// The packet read so far.  Returns false when the login has ended or entered its pool.
static bool digest_startup(Login *login) {
  const ClientRef client = login->client;
  if (login->input.len < static_cast<int>(sizeof(uint32))) return true;
  const uint32 length = pg_ntoh32(*reinterpret_cast<uint32 *>(login->input.data));
  login->packet = parse_startup_packet(login->input.data, static_cast<std::size_t>(login->input.len));
  switch (login->packet.kind) {
    case StartupKind::incomplete:
      login->wanted = static_cast<int>(length);
      return true;
    case StartupKind::ssl_request:
    case StartupKind::gssenc_request:
      if (answer_encryption_request(login)) return logins[client.slot] == login;
      login->packet.kind = StartupKind::invalid;
      login->packet.error = StartupError::unsupported_protocol;
      break;
    case StartupKind::cancel_request:
      handle_cancel_request(login->packet.cancel_pid, login->packet.cancel_key);
      abandon_login(login);
      return false;
    case StartupKind::invalid:
      if (login->packet.error == StartupError::invalid_length) {
        log_protocol_violation(login, describe(StartupError::invalid_length));
        abandon_login(login);
        return false;
      }
      break;
    case StartupKind::startup:
      break;
  }
  step(login, kStartupPacket, nullptr);
  return false;
}

// Ends the login; in some exchanges the server says so.
static void refuse_unreadable(Login *login, const char *violation) {
  log_protocol_violation(login, violation);
  if (answers_unreadable_message(login->authentication))
    step(login, kUnreadable, nullptr);
  else
    abandon_login(login);
}

static bool digest_message(Login *login) {
  const Frame frame = parse_frame(login->input.data, static_cast<std::size_t>(login->input.len), true);
  if (frame.status == FrameStatus::incomplete) return true;
  if (frame.status == FrameStatus::invalid_type) {
    step(login, static_cast<unsigned char>(frame.type), nullptr);
    return false;
  }
  const int longest = longest_authentication_message(login->authentication) - static_cast<int>(sizeof(uint32));
  if (frame.status == FrameStatus::invalid_length || frame.body_length > static_cast<std::uint32_t>(longest)) {
    refuse_unreadable(login, "invalid message length");
    return false;
  }
  login->wanted = static_cast<int>(kMessageHeaderBytes + frame.body_length);
  if (login->input.len < login->wanted) return true;

  StringInfoData message;
  MemoryContextSwitchTo(login->context);
  initStringInfo(&message);
  appendBinaryStringInfo(&message, login->input.data + kMessageHeaderBytes, static_cast<int>(frame.body_length));
  // It may hold a password.
  explicit_bzero(login->input.data, static_cast<size_t>(login->input.len));
  step(login, frame.type, &message);
  return false;
}

// Whoever hangs up between two messages has said enough; so has a client that
// left after it was denied encryption.
static void login_lost(Login *login) {
  const bool denied = login->ssl_asked || login->gss_asked;

  if (login->stage == LoginStage::authentication && login->input.len > 0) {
    // Its type may be there, and wrong.
    if (digest_message(login))
      refuse_unreadable(login, login->input.len < static_cast<int>(kMessageHeaderBytes)
                                   ? "unexpected EOF within message length word"
                                   : "incomplete message from client");
    return;
  }
  if (login->stage == LoginStage::startup && login->input.len > (denied ? 3 : 0))
    log_protocol_violation(login, "incomplete startup packet");
  abandon_login(login);
}

// Before it is read: the rest of this packet would be too much.
static void refuse_bytes(Login *login) {
  ErrorData error;
  describe_login_bytes(&error);
  MyProcPort = &login->port;
  refuse_login(login, &error);
}

// A client that has left while its login was parked.  One that has sent something
// before that gets its answer.
static void end_parked_if_gone(Login *login) {
  char first;
  const ssize_t got = recv(login->port.sock, &first, 1, MSG_PEEK | MSG_DONTWAIT);
  if (got == 0 || (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) login_lost(login);
}

static void step_parked_logins(int type, bool answered_only) {
  Login *next;
  for (Login *login = oldest_login; login != nullptr; login = next) {
    next = login->next;
    if (login->stage != LoginStage::name) continue;
    if (answered_only && !look_up_client_name(&login->name_wait, &login->port, login->context)) continue;
    const ClientRef client = login->client;
    step(login, type, nullptr);
    // What has come meanwhile may have been decrypted already, and the socket be empty.
    continue_login(client);
  }
}

void continue_parked_logins(std::int64_t now_us) {
  if (parked_logins == 0) return;
  while (name_board_has_news()) step_parked_logins(kNameAnswer, true);
  if (!staff_resolvers(now_us)) step_parked_logins(kNoNameAnswer, false);
}

void continue_login(ClientRef client) {
  for (;;) {
    Login *login = logins[client.slot];
    if (login == nullptr || login->client.generation != client.generation) return;
    if (login->stage == LoginStage::admission) {
      // What it sends is for the backend; whether it hangs up matters once it has a pool.
      if (login->watched && !login->rests) watch_for_hangup(client, false);
      login->rests = login->watched;
      return;
    }
    if (!login->looked_for_handshake && !look_for_handshake(login)) return;
    if (login->stage == LoginStage::handshake && !shake_hands(login)) return;
    if (login->stage == LoginStage::name) {
      end_parked_if_gone(login);
      return;
    }
    while (login->input.len < login->wanted) {
      const int missing = login->wanted - login->input.len;
      if (exceeds_login_bytes(bytes_received(login) + missing)) {
        refuse_bytes(login);
        return;
      }
      enlargeStringInfo(&login->input, missing);
      const ssize_t got = receive(login, login->input.data + login->input.len, static_cast<size_t>(missing));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        // A length that cannot be shows early: nobody has to wait for the rest.
        if (login->stage == LoginStage::startup) (void)digest_startup(login);
        return;
      }
      if (got <= 0) {
        login_lost(login);
        return;
      }
      login->received += got;
      login->input.len += static_cast<int>(got);
      login->input.data[login->input.len] = '\0';
      // The type is judged before the rest has come: there may be none.
      if (login->stage == LoginStage::authentication && login->input.data[0] != 'p') break;
    }
    const bool startup = login->stage == LoginStage::startup;
    if (!(startup ? digest_startup(login) : digest_message(login)) && startup) {
      // A step that wants another message has stayed; everything else has ended.
      if (logins[client.slot] == nullptr) return;
    }
  }
}

// ------------------------------------------------------------------ entering the login

void begin_login(int descriptor, const SockAddr &peer) {
  ClientRef client;

  if (!take_client_slot(descriptor, peer, &client)) return;
  MemoryContext context = AllocSetContextCreate(TopMemoryContext, "pg_sluice login", ALLOCSET_SMALL_SIZES);
  MemoryContextSwitchTo(context);
  auto *login = static_cast<Login *>(palloc0(sizeof(Login)));
  login->client = client;
  login->context = context;
  login->stage = LoginStage::startup;
  login->relay = kNoIndex;
  login->started_us = monotonic_us();
  initStringInfo(&login->input);
  initStringInfo(&login->output);
  login->wanted = kMinStartupPacketLength;
  prepare_port(&login->port, client_descriptor(client.slot), peer);
  shared().clients[client.slot].socket_options.store(socket_options_in_force(), std::memory_order_relaxed);
  remember_address(&shared().clients[client.slot].address, login->port.raddr);
  remember_address(&shared().clients[client.slot].server_address, login->port.laddr);
  link_login(login);
  MyProcPort = &login->port;
  if (Log_connections)
    ereport(LOG, (login->port.remote_port[0] != '\0'
                      ? errmsg("connection received: host=%s port=%s", login->port.remote_host,
                               login->port.remote_port)
                      : errmsg("connection received: host=%s", login->port.remote_host)));
  MyProcPort = nullptr;
  MemoryContextSwitchTo(TopMemoryContext);
  // Clients send their start-up packet at once: it often is there already, and with
  // a method that asks no questions the client need not be watched at all.
  continue_login(client);
  if (logins[client.slot] != login || login->client.generation != client.generation) return;
  if (!login->watched) login->watched = watch_for_input(client);
  if (!login->watched) {
    abandon_login(login);
    return;
  }
  if (login->waits_for_output) watch_for_output(client, true);
}

bool retry_admissions(std::int64_t now_us) {
  static std::int64_t next_us = 0;

  if (!logins_wait_for_pool || now_us < next_us) return logins_wait_for_pool;
  next_us = now_us + kAdmissionRetryUs;
  logins_wait_for_pool = false;
  for (Login *login = oldest_login, *next; login != nullptr; login = next) {
    next = login->next;
    if (login->stage == LoginStage::admission) step(login, kAdmission, nullptr);
  }
  return logins_wait_for_pool;
}

// The limit is what it is now: a shorter one that kept nobody but newcomers short would have to wait for all before
// them, in the middle of what it was meant to end.
std::int64_t expire_logins(std::int64_t now_us) {
  const std::int64_t limit_us = static_cast<std::int64_t>(AuthenticationTimeout) * 1000000;

  while (oldest_login != nullptr) {
    Login *login = oldest_login;
    const std::int64_t left_us = login->started_us + limit_us - now_us;
    if (left_us > 0) return left_us;
    // As the server: silently towards the client, which may not even speak the protocol.
    MyProcPort = &login->port;
    ereport(LOG_SERVER_ONLY, (errcode(ERRCODE_QUERY_CANCELED), errmsg("canceling authentication due to timeout")));
    count_error(ErrorClass::authentication, ERRCODE_QUERY_CANCELED, InvalidOid,
                "canceling authentication due to timeout");
    shared().header->authentication_failures.fetch_add(1);
    abandon_login(login);
  }
  return -1;
}

}  // namespace sluice::pg
