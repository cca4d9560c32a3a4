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

#include "pg/compat.hpp"

#include "pg/accept/login.hpp"

extern "C" {
#include "access/xact.h"
#include "common/ip.h"
#include "common/string.h"
#include "libpq/libpq-be.h"
#include "libpq/libpq.h"
#include "postmaster/postmaster.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
}

#include <sys/socket.h>
#include <unistd.h>

#include "core/accept/startup_options.hpp"
#include "core/accept/startup_packet.hpp"
#include "core/session/message.hpp"
#include "pg/accept/cancel.hpp"
#include "pg/accept/client_limits.hpp"
#include "pg/accept/client_port.hpp"
#include "pg/accept/client_registry.hpp"
#include "pg/accept/dispatcher.hpp"
#include "pg/accept/tls_context.hpp"
#include "pg/accept/tls_relay.hpp"
#include "pg/accept/tls_session.hpp"
#include "pg/auth/authentication.hpp"
#include "pg/auth/authorization.hpp"
#include "pg/auth/name_board.hpp"
#include "pg/error_response.hpp"
#include "pg/pool/pool_keeper.hpp"
#include "pg/pool/quick_greeting.hpp"
#include "pg/session/client_store.hpp"
#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"
#include "pg/stats/error_count.hpp"

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

static Login **logins = nullptr;  // [client slot]
static Login *oldest_login = nullptr;
static Login *latest_login = nullptr;
static int parked_logins = 0;
static bool logins_wait_for_pool = false;  // some may be in the stage of admission

void open_logins() {
  logins = static_cast<Login **>(MemoryContextAllocZero(
      TopMemoryContext, sizeof(Login *) * (static_cast<Size>(client_capacity()) + 1)));
}

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

static void abandon_login(Login *login) {
  const ClientRef client = login->client;
  if (login->tls != nullptr) say_end_of_tls(login->tls);
  end_login(login);
  forget_client(client);
}

// ------------------------------------------------------------------ bytes in and out

static bool is_encrypted_here(const Login *login) { return login->tls != nullptr && !tls_is_in_kernel(login->tls); }

static ssize_t receive(Login *login, void *target, std::size_t length) {
  if (is_encrypted_here(login)) return receive_decrypted(login->tls, target, length);
  return recv(login->port.sock, target, length, MSG_DONTWAIT);
}

// From the network: with the handshake and what encryption adds.
static std::int64_t bytes_received(const Login *login) {
  return is_encrypted_here(login) ? static_cast<std::int64_t>(received_bytes(login->tls)) : login->received;
}

static bool send_all(Login *login, const char *bytes, int length) {
  const auto size = static_cast<std::size_t>(length);
  if (length == 0) return true;
  if (is_encrypted_here(login)) return send_encrypted(login->tls, bytes, size) == length;
  return send(login->port.sock, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL) == length;
}

// A peer that does not speak the protocol, or hung up in the middle: to the log only.
static void log_protocol_violation(Login *login, const char *message) {
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

// ------------------------------------------------------------------ start-up packet

static void raise_startup_error(const StartupPacket &packet) {
  if (packet.error == StartupError::unsupported_protocol)
    ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                    errmsg("unsupported frontend protocol %u.%u: server supports %u.0 to %u.%u",
                           protocol_major(packet.protocol), protocol_minor(packet.protocol), kProtocolMajor,
                           kProtocolMajor, 0)));
  ereport(ERROR, (errcode(ERRCODE_PROTOCOL_VIOLATION), errmsg("%s", describe(packet.error))));
}

static void check_replication(const char *value) {
  bool replication;
  if (strcmp(value, "database") == 0)
    replication = true;
  else if (!parse_bool(value, &replication))
    ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                    errmsg("invalid value for parameter \"%s\": \"%s\"", "replication", value),
                    errhint("Valid values are: \"false\", 0, \"true\", 1, \"database\".")));
  if (replication)
    ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                    errmsg("replication connections are not supported on the pooled port"),
                    errhint("Connect to port %d, where the server itself serves them.", PostPortNumber)));
}

static void append_negotiation(StringInfo output, const StartupPacket &packet) {
  const int start = output->len;
  appendStringInfoChar(output, 'v');
  appendBinaryStringInfo(output, "\0\0\0\0", 4);
  const uint32 newest = pg_hton32(make_protocol(kProtocolMajor, 0));
  const uint32 count = pg_hton32(static_cast<uint32>(packet.unknown_protocol_option_count));
  appendBinaryStringInfo(output, reinterpret_cast<const char *>(&newest), 4);
  appendBinaryStringInfo(output, reinterpret_cast<const char *>(&count), 4);
  for (std::size_t i = 0; i < packet.unknown_protocol_option_count; i++)
    appendBinaryStringInfo(output, packet.unknown_protocol_options[i],
                           static_cast<int>(strlen(packet.unknown_protocol_options[i])) + 1);
  const uint32 length = pg_hton32(static_cast<uint32>(output->len - start - 1));
  memcpy(output->data + start + 1, &length, sizeof(length));
}

static char *copy_name(const char *name) {
  char *copy = pstrdup(name);
  if (strlen(copy) >= NAMEDATALEN) copy[NAMEDATALEN - 1] = '\0';
  return copy;
}

// Who wants to log in.  Runs in the login's context.
static void accept_startup_packet(Login *login) {
  const StartupPacket &packet = login->packet;
  Port &port = login->port;

  port.proto = packet.protocol;
  if (packet.kind == StartupKind::invalid) raise_startup_error(packet);
  // As far as known, for the prefix of the log's lines.
  if (packet.user != nullptr) port.user_name = copy_name(packet.user);
  if (packet.database != nullptr) port.database_name = copy_name(packet.database);
  if (packet.replication != nullptr) check_replication(packet.replication);
  if (packet.user == nullptr || packet.user[0] == '\0')
    ereport(ERROR, (errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
                    errmsg("no PostgreSQL user name specified in startup packet")));
  if (packet.database == nullptr || packet.database[0] == '\0') port.database_name = copy_name(packet.user);
  if (packet.application_name != nullptr) {
    port.application_name = pstrdup(packet.application_name);
    clean_ascii(port.application_name);
  }
  if (protocol_minor(packet.protocol) > 0 || packet.unknown_protocol_option_count > 0)
    append_negotiation(&login->output, packet);
}

// ------------------------------------------------------------------ into the pool

static void append_setting(StringInfo settings, const char *name, const char *value) {
  appendBinaryStringInfo(settings, name, static_cast<int>(strlen(name)) + 1);
  appendBinaryStringInfo(settings, value, static_cast<int>(strlen(value)) + 1);
}

// The settings of the start-up packet in the order the server applies them:
// switches first, then parameters.  application_name has its own place.
static void collect_startup_settings(Login *login, StringInfo settings) {
  const StartupPacket &packet = login->packet;

  if (packet.options != nullptr) {
    const std::size_t buffer_size = options_buffer_bytes(strlen(packet.options)) + kDebugLevelBytes;
    char *buffer = static_cast<char *>(palloc(buffer_size));
    auto *options = static_cast<StartupParameter *>(palloc(sizeof(StartupParameter) * 512));
    const OptionsResult result = parse_startup_options(packet.options, buffer, buffer_size, options, 512);
    if (result.error == OptionsError::missing_value)
      ereport(ERROR, (errcode(ERRCODE_SYNTAX_ERROR),
                      errmsg(result.flag == 'c' ? "-c %s requires a value" : "--%s requires a value",
                             result.argument)));
    if (result.error != OptionsError::none)
      ereport(ERROR, (errcode(ERRCODE_SYNTAX_ERROR),
                      errmsg("invalid command-line argument for server process: %s",
                             result.argument != nullptr ? result.argument : packet.options),
                      errhint("Try \"%s --help\" for more information.", "postgres")));
    for (std::size_t i = 0; i < result.count; i++) append_setting(settings, options[i].name, options[i].value);
  }
  for (std::size_t i = 0; i < packet.parameter_count; i++)
    if (strcmp(packet.parameters[i].name, "application_name") != 0)
      append_setting(settings, packet.parameters[i].name, packet.parameters[i].value);
}

static void check_role_limits(const LoginTarget &target) {
  if (target.superuser) return;
  if (target.role_connection_limit >= 0 && count_clients_of_role(target.role) >= target.role_connection_limit)
    ereport(ERROR, (errcode(ERRCODE_TOO_MANY_CONNECTIONS),
                    errmsg("too many connections for role \"%s\"", target.role_name)));
  require_unreserved_slot(target);
}

static void check_database_limits(const LoginTarget &target) {
  if (target.superuser) return;
  if (target.database_connection_limit >= 0 &&
      count_clients_of_database(target.database) >= target.database_connection_limit)
    ereport(ERROR, (errcode(ERRCODE_TOO_MANY_CONNECTIONS),
                    errmsg("too many connections for database \"%s\"", target.database_name)));
  check_clients_per_role_and_database(target);
}

static void log_authorized(Login *login) {
  if (!Log_connections) return;
  Port *port = &login->port;
  StringInfoData message;
  initStringInfo(&message);
  appendStringInfo(&message, _("connection authorized: user=%s"), port->user_name);
  appendStringInfo(&message, _(" database=%s"), port->database_name);
  if (port->application_name != nullptr) appendStringInfo(&message, _(" application_name=%s"), port->application_name);
#ifdef USE_SSL
  if (port->ssl_in_use)
    appendStringInfo(&message, _(" SSL enabled (protocol=%s, cipher=%s, bits=%d)"), be_tls_get_version(port),
                     be_tls_get_cipher(port), be_tls_get_cipher_bits(port));
#endif
  ereport(LOG, (errmsg_internal("%s", message.data)));
  pfree(message.data);
}

// Random numbers are drawn for many clients at once.
static std::uint32_t draw_cancel_key() {
  static std::uint32_t keys[64];
  static std::size_t left = 0;
  if (left == 0) {
    if (!pg_strong_random(keys, sizeof(keys)))
      ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate random cancel key")));
    left = lengthof(keys);
  }
  const std::uint32_t key = keys[--left];
  keys[left] = 0;
  return key;
}

// Everything that can be refused.  Runs in a transaction, in the login's context;
// fills the slot and returns the pool; kNoIndex if it has to be asked again soon.
static std::uint32_t admit(Login *login) {
  LoginTarget target;
  StringInfoData settings;
  ClientSlot &slot = shared().clients[login->client.slot];

  authorize_login(&login->port, &target, check_role_limits);
  check_database_limits(target);
  const std::uint32_t pool =
      find_or_create_pool(target.database, target.role, target.database_name, target.role_name);
  if (pool == kNoIndex && pool_slot_is_coming()) return kNoIndex;  // nothing has been stored yet
  if (pool == kNoIndex)
    ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
                    errmsg("too many pools: database \"%s\" and role \"%s\" would need another one",
                           target.database_name, target.role_name),
                    errhint("You may need to increase \"%s\".", "sluice.max_pools")));
  initStringInfo(&settings);
  collect_startup_settings(login, &settings);
  if (settings.len > 0 &&
      store_startup_settings(&slot, settings.data, static_cast<std::uint32_t>(settings.len)) == 0)
    ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of shared memory"),
                    errdetail("The start-up settings of the client could not be stored.")));
  if (login->port.application_name != nullptr)
    strlcpy(slot.application_name, login->port.application_name, kNameLength);

  if (login->tls != nullptr) {
    fill_tls_facts(&login->port, &shared().tls[login->client.slot]);
    slot.flags.fetch_or(kClientTls | (tls_is_in_kernel(login->tls) ? kClientKernelTls : 0));
  }
  slot.cancel_key.store(draw_cancel_key());
  slot.cancel_pid.store(client_cancel_number(login->client));

  pool_learns_superuser(pool, target.superuser);
  pool_learns_changed_settings(pool);
  return pool;
}

// From here on everybody uses the client's socket: it has to be one that needs no
// decrypting.  False: there are no descriptors left for it.
static bool clear_the_socket(Login *login) {
  if (!is_encrypted_here(login)) return true;
  if (!start_relay(login->relay, login->tls, login->port.sock)) {
    ereport(LOG, (errcode_for_socket_access(), errmsg("could not make a socket pair for a pooled client: %m")));
    return false;
  }
  login->relay = kNoIndex;
  login->watched = false;  // it is another socket now
  return true;
}

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

// ------------------------------------------------------------------ encryption

// Handshakes cost up to a millisecond of processor time each: in one round of events
// only so many, so that pools under pressure are looked after in between.  The
// sockets of the others stay ready.
constexpr int kHandshakesPerTurn = 4;
static int handshakes_left = kHandshakesPerTurn;

void begin_turn_of_logins() { handshakes_left = kHandshakesPerTurn; }

// Over a Unix socket the server does not offer it either.
static bool may_encrypt(const Login *login) {
  return tls_is_offered() && login->port.raddr.addr.ss_family != AF_UNIX;
}

static void refuse_for_want_of_relays(Login *login) {
  constexpr const char *kMessage = "sorry, too many clients already";
  MyProcPort = &login->port;
  ereport(LOG, (errcode(ERRCODE_TOO_MANY_CONNECTIONS), errmsg("too many clients with SSL: no descriptors left for another"),
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
static bool answer_encryption_request(Login *login) {
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
static bool look_for_handshake(Login *login) {
  constexpr char kHandshakeRecord = 0x16;  // no start-up packet is long enough to begin like that
  char first = 0;

  if (may_encrypt(login) && recv(login->port.sock, &first, 1, MSG_PEEK | MSG_DONTWAIT) < 0 &&
      (errno == EAGAIN || errno == EWOULDBLOCK))
    return false;
  login->looked_for_handshake = true;
  return first != kHandshakeRecord || begin_handshake(login, true);
}

// True when the client can be read on.
static bool shake_hands(Login *login) {
  if (handshakes_left == 0) return false;
  handshakes_left--;
  MyProcPort = &login->port;
  MemoryContextSwitchTo(login->context);
  Handshake result = continue_handshake(login->tls);
  if (result != Handshake::finished && exceeds_login_bytes(bytes_received(login))) {
    ErrorData error;
    describe_login_bytes(&error);
    log_protocol_violation(login, error.message);
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

bool retry_admissions() {
  if (!logins_wait_for_pool) return false;
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
    abandon_login(login);
  }
  return -1;
}

}  // namespace sluice::pg
