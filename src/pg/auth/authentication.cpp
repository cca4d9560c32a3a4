// SPDX-License-Identifier: PostgreSQL
//
// The server's ClientAuthentication(), turned inside out: where that one reads
// from the socket and waits, this one returns and is continued with the next
// message.  Rules, secrets and the cryptography are the server's; so are the
// messages, because drivers and their users know them.
//
//   begin ─► a rule names a host ──► begin again, once the name is known
//     │
//     ├────► no challenge needed (trust, peer, cert) ────────────────► succeeded
//     │
//     ├────► password ──► cleartext response ────────────────────────► succeeded
//     ├────► md5 ───────► salted response ───────────────────────────► succeeded
//     └────► sasl ──────► initial response ─► response ─ ... ────────► succeeded
//   Whatever goes wrong raises ERROR.
//
// Client certificates: that a rule wants one is checked before anything is asked;
// whose name it bears (cert, clientcert=verify-full) is checked last, after the
// password.  That it is of a trusted authority, valid and not revoked was checked
// by OpenSSL in the handshake, or there would be no connection.
//
// Unknown roles, roles without a password and expired passwords go through the
// whole exchange with a made-up secret, and fail at its end like a wrong password:
// a client learns nothing about which names exist.
//
// What is refused, with a hint at the server's own port: ident, which asks the
// client's machine; pam, ldap, radius, bsd and oauth, which wait for another
// service; gss and sspi.  Peer asks the kernel and then the system's user
// database: where that is a remote directory without a cache, prefer another
// method for the pooled port's Unix socket.
//
// ClientAuthentication_hook is not called.  Its users (auth_delay is the known
// one) expect a process of their own that may sleep, log out or die.
//
// No other function called here waits or ends the process: the catalogs are read
// without the system caches for that reason (shared_catalog.hpp).

#include "pg/auth/authentication.hpp"

#include "core/auth/name_lookup.hpp"
#include "core/auth/sasl_message.hpp"
#include "pg/auth/hba_rules.hpp"
#include "pg/auth/ident_map.hpp"
#include "pg/auth/secret_memory.hpp"
#include "pg/auth/shared_catalog.hpp"

extern "C" {
#include <netdb.h>
#include <pwd.h>
#include <unistd.h>

#include "commands/user.h"
#include "common/ip.h"
#include "libpq/libpq.h"
#include "libpq/pqformat.h"
#include "libpq/sasl.h"
#include "libpq/scram.h"
#include "postmaster/postmaster.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
}

namespace sluice::pg {

namespace {

enum class Expected { password, md5_response, sasl_initial_response, sasl_response, nothing };

constexpr int kLongestPasswordMessage = 65535;
constexpr int kLongestSaslMessage = static_cast<int>(kSaslMessageLimit);
constexpr int kMd5SaltLength = 4;
constexpr int kMd5HexLength = 32;

}  // namespace

struct Authentication {
  Port *port;
  MemoryContext context;
  MemoryContext secrets;  // of `context`; the steps run in it, see secret_memory.hpp
  MatchedRule rule;
  Oid role;  // InvalidOid: there is none of that name
  Expected expected;
  const char *secret;      // null: the exchange is bound to fail
  const char *log_detail;  // why it is, for the log only
  void *sasl_state;
  char md5_salt[kMd5SaltLength];
  int *settled;  // bytes of the output that are sent even if this step fails
};

namespace {

// ---------------------------------------------------------------- messages

void append_request(Authentication *authentication, StringInfo output, AuthRequest request, const char *data,
                    int length) {
  appendStringInfoChar(output, 'R');
  pq_sendint32(output, static_cast<uint32>(8 + length));
  pq_sendint32(output, static_cast<uint32>(request));
  if (length > 0) appendBinaryStringInfo(output, data, length);
  *authentication->settled = output->len;
}

const char *encryption_of(const Port *port) {
#ifdef ENABLE_GSS
  if (port->gss != nullptr && port->gss->enc) return _("GSS encryption");
#endif
  return port->ssl_in_use ? _("SSL encryption") : _("no encryption");
}

const char *numeric_address(const Port *port) {
  auto *text = static_cast<char *>(palloc(NI_MAXHOST));
  pg_getnameinfo_all(&port->raddr.addr, port->raddr.salen, text, NI_MAXHOST, nullptr, 0, NI_NUMERICHOST);
  return text;
}

// ---------------------------------------------------------------- failures

[[noreturn]] void fail_authentication(const Authentication *authentication, const char *log_detail) {
  const MatchedRule *rule = &authentication->rule;
  const char *user = authentication->port->user_name;
  const char *matched = describe_matched_rule(rule->source_file, rule->line_number, rule->raw_line);
  const char *detail = log_detail != nullptr ? psprintf("%s\n%s", log_detail, matched) : matched;

  if (rule->method == uaPeer)
    ereport(ERROR, (errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
                    errmsg("Peer authentication failed for user \"%s\"", user), errdetail_log("%s", detail)));
  if (rule->method == uaTrust)  // with clientcert=verify-full
    ereport(ERROR, (errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
                    errmsg("\"trust\" authentication failed for user \"%s\"", user), errdetail_log("%s", detail)));
  if (rule->method == uaCert)
    ereport(ERROR, (errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
                    errmsg("certificate authentication failed for user \"%s\"", user), errdetail_log("%s", detail)));
  ereport(ERROR, (errcode(ERRCODE_INVALID_PASSWORD), errmsg("password authentication failed for user \"%s\"", user),
                  errdetail_log("%s", detail)));
  pg_unreachable();
}

[[noreturn]] void refuse_rejected(const Authentication *authentication) {
  const Port *port = authentication->port;
  ereport(ERROR, (errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
                  errmsg("pg_hba.conf rejects connection for host \"%s\", user \"%s\", database \"%s\", %s",
                         numeric_address(port), port->user_name, port->database_name, encryption_of(port))));
  pg_unreachable();
}

// What has been found out about the client's name, in the server's words.
int add_host_name_detail(const Port *port) {
  const char *name = port->remote_hostname;
  const auto forward = static_cast<ForwardLookup>(port->remote_hostname_resolv);

  if (name == nullptr)
    return forward == ForwardLookup::failed ? errdetail_log("Could not resolve client IP address to a host name: %s.",
                                                            gai_strerror(port->remote_hostname_errcode))
                                            : 0;
  switch (forward) {
    case ForwardLookup::matches:
      return errdetail_log("Client IP address resolved to \"%s\", forward lookup matches.", name);
    case ForwardLookup::not_made:
      return errdetail_log("Client IP address resolved to \"%s\", forward lookup not checked.", name);
    case ForwardLookup::differs:
      return errdetail_log("Client IP address resolved to \"%s\", forward lookup does not match.", name);
    case ForwardLookup::failed:
      return errdetail_log("Could not translate client host name \"%s\" to IP address: %s.", name,
                           gai_strerror(port->remote_hostname_errcode));
  }
  return 0;
}

[[noreturn]] void refuse_unmatched(const Authentication *authentication) {
  const Port *port = authentication->port;
  ereport(ERROR,
          (errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
           errmsg("no pg_hba.conf entry for host \"%s\", user \"%s\", database \"%s\", %s", numeric_address(port),
                  port->user_name, port->database_name, encryption_of(port)),
           add_host_name_detail(port)));
  pg_unreachable();
}

[[noreturn]] void refuse_method(const Authentication *authentication) {
  const MatchedRule *rule = &authentication->rule;
  const char *matched = describe_matched_rule(rule->source_file, rule->line_number, rule->raw_line);
  ereport(ERROR,
          (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
           errmsg("authentication method \"%s\" is not supported on the pooled port", hba_authname(rule->method)),
           errdetail_log("%s", matched),
           errhint("Connect to port %d, where the server itself authenticates.", PostPortNumber)));
  pg_unreachable();
}

// ---------------------------------------------------------------- steps

void log_identity(const Authentication *authentication, const char *identity) {
  const MatchedRule *rule = &authentication->rule;
  if (!logs_authentication()) return;
  ereport(LOG, (errmsg("connection authenticated: identity=\"%s\" method=%s (%s:%d)", identity,
                       hba_authname(rule->method), rule->source_file, rule->line_number)));
}

void log_trust(const Authentication *authentication) {
  const MatchedRule *rule = &authentication->rule;
  if (!kLogsTrustedConnections || !logs_authentication()) return;
  ereport(LOG, (errmsg("connection authenticated: user=\"%s\" method=%s (%s:%d)", authentication->port->user_name,
                       hba_authname(rule->method), rule->source_file, rule->line_number)));
}

// The name in a certificate that OpenSSL has found good; false after a LOG message.
bool certificate_names_role(const Authentication *authentication) {
  const MatchedRule *rule = &authentication->rule;
  const Port *port = authentication->port;
  const bool by_subject = rule->certificate_name == clientCertDN;
  const char *name = by_subject ? port->peer_dn : port->peer_cn;

  if (name == nullptr || name[0] == '\0') {
    ereport(LOG, (errmsg("certificate authentication failed for user \"%s\": client certificate contains no user name",
                         port->user_name)));
    return false;
  }
  if (rule->method == uaCert) {
    // The whole subject is the identity, also where its common name is compared.
    if (port->peer_dn == nullptr) {
      ereport(LOG, (errmsg("certificate authentication failed for user \"%s\": unable to retrieve subject DN",
                           port->user_name)));
      return false;
    }
    log_identity(authentication, port->peer_dn);
  }
  if (is_mapped(rule->user_map, port->user_name, authentication->role, name)) return true;
  if (rule->certificate == clientCertFull && rule->method != uaCert)
    ereport(LOG, (errmsg("certificate validation (clientcert=verify-full) failed for user \"%s\": %s mismatch",
                         port->user_name, by_subject ? "DN" : "CN")));
  return false;
}

// What all methods end with.
AuthenticationStatus succeed(Authentication *authentication, StringInfo output) {
  const MatchedRule *rule = &authentication->rule;

  if ((rule->method == uaCert || rule->certificate == clientCertFull) && !certificate_names_role(authentication))
    fail_authentication(authentication, nullptr);
  if (rule->method == uaTrust) log_trust(authentication);
  authentication->expected = Expected::nothing;
  append_request(authentication, output, AUTH_REQ_OK, nullptr, 0);
  return AuthenticationStatus::succeeded;
}

AuthenticationStatus succeed_with_password(Authentication *authentication, StringInfo output) {
  // No secret, no success, whatever the exchange says.
  if (authentication->secret == nullptr) fail_authentication(authentication, authentication->log_detail);
  log_identity(authentication, authentication->port->user_name);
  return succeed(authentication, output);
}

// Fills `secret`, or leaves it null and says why in `log_detail`.  `role` is null
// if there is none of that name.
void take_secret(Authentication *authentication, const RoleRow *role) {
  const char *user = authentication->port->user_name;

  authentication->secret = nullptr;
  if (role == nullptr)
    authentication->log_detail = psprintf(_("Role \"%s\" does not exist."), user);
  else if (role->secret_out_of_reach)
    authentication->log_detail =
        psprintf(_("The password of role \"%s\" is too long to be read without connecting to a database."), user);
  else if (role->secret == nullptr)
    authentication->log_detail = psprintf(_("User \"%s\" has no password assigned."), user);
  else if (role->expires && role->valid_until < GetCurrentTimestamp())
    authentication->log_detail = psprintf(_("User \"%s\" has an expired password."), user);
  else
    authentication->secret = role->secret;
}

void request_sasl(Authentication *authentication, StringInfo output) {
  StringInfoData mechanisms;

  initStringInfo(&mechanisms);
  pg_be_scram_mech.get_mechanisms(authentication->port, &mechanisms);
  appendStringInfoChar(&mechanisms, '\0');  // ends the list
  append_request(authentication, output, AUTH_REQ_SASL, mechanisms.data, mechanisms.len);
  authentication->expected = Expected::sasl_initial_response;
}

void request_md5(Authentication *authentication, StringInfo output) {
  if (md5_authentication_is_impossible())
    ereport(ERROR, (errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
                    errmsg("MD5 authentication is not supported when \"db_user_namespace\" is enabled")));
  if (!pg_strong_random(authentication->md5_salt, kMd5SaltLength)) {
    ereport(LOG, (errmsg("could not generate random MD5 salt")));
    fail_authentication(authentication, authentication->log_detail);
  }
  append_request(authentication, output, AUTH_REQ_MD5, authentication->md5_salt, kMd5SaltLength);
  authentication->expected = Expected::md5_response;
}

// With "md5" the kind of the stored secret decides; a role that has none gets the
// challenge that most roles of this server get.
AuthenticationStatus request_challenge(Authentication *authentication, const RoleRow *role, StringInfo output) {
  take_secret(authentication, role);
  const int kind = authentication->secret != nullptr ? get_password_type(authentication->secret) : Password_encryption;

  if (authentication->rule.method == uaMD5 && kind == PASSWORD_TYPE_MD5)
    request_md5(authentication, output);
  else
    request_sasl(authentication, output);
  return AuthenticationStatus::wants_message;
}

// The name is copied out of the static result of getpwuid; null after a LOG message.
const char *peer_user(const Port *port) {
  uid_t user;
  gid_t group;

  if (getpeereid(port->sock, &user, &group) != 0) {
    ereport(LOG, (errcode_for_socket_access(), errmsg("could not get peer credentials: %m")));
    return nullptr;
  }
  errno = 0;
  const passwd *entry = getpwuid(user);
  if (entry == nullptr) {
    if (errno != 0)
      ereport(LOG, (errmsg("could not look up local user ID %ld: %m", static_cast<long>(user))));
    else
      ereport(LOG,
              (errmsg("could not look up local user ID %ld: %s", static_cast<long>(user), _("user does not exist"))));
    return nullptr;
  }
  return pstrdup(entry->pw_name);
}

AuthenticationStatus authenticate_peer(Authentication *authentication, StringInfo output) {
  const char *system_user = peer_user(authentication->port);

  if (system_user == nullptr) fail_authentication(authentication, nullptr);
  log_identity(authentication, system_user);  // who it is, is certain; what it may do comes next
  if (!is_mapped(authentication->rule.user_map, authentication->port->user_name, authentication->role, system_user))
    fail_authentication(authentication, nullptr);
  return succeed(authentication, output);
}

void require_client_certificate(const Authentication *authentication) {
  if (!secure_loaded_verify_locations())
    ereport(ERROR, (errcode(ERRCODE_CONFIG_FILE_ERROR),
                    errmsg("client certificates can only be checked if a root certificate store is available")));
  if (!authentication->port->peer_cert_valid)
    ereport(ERROR, (errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
                    errmsg("connection requires a valid client certificate")));
}

AuthenticationStatus start_method(Authentication *authentication, const RoleRow *role, StringInfo output) {
  if (authentication->rule.certificate != clientCertOff) require_client_certificate(authentication);

  switch (authentication->rule.method) {
    case uaReject:
      refuse_rejected(authentication);
    case uaImplicitReject:
      refuse_unmatched(authentication);
    case uaTrust:
    case uaCert:
      return succeed(authentication, output);
    case uaPeer:
      return authenticate_peer(authentication, output);
    case uaMD5:
    case uaSCRAM:
      return request_challenge(authentication, role, output);
    case uaPassword:
      append_request(authentication, output, AUTH_REQ_PASSWORD, nullptr, 0);
      authentication->expected = Expected::password;
      return AuthenticationStatus::wants_message;
    default:
      refuse_method(authentication);
  }
}

// ---------------------------------------------------------------- responses

const char *read_password(StringInfo message) {
  const PasswordMessage response = parse_password_message(message->data, static_cast<std::size_t>(message->len));
  if (response.error != PasswordError::none)
    ereport(ERROR,
            (errcode(response.error == PasswordError::empty ? ERRCODE_INVALID_PASSWORD : ERRCODE_PROTOCOL_VIOLATION),
             errmsg_internal("%s", _(describe(response.error)))));
  return response.password;
}

AuthenticationStatus check_password(Authentication *authentication, StringInfo message, StringInfo output) {
  const char *user = authentication->port->user_name;
  const char *password = read_password(message);
  RoleRow role;

  // As late as the server does it: the secret may have changed since the request.
  const bool role_exists = read_role(user, &role);
  take_secret(authentication, role_exists ? &role : nullptr);
  const bool verified =
      authentication->secret != nullptr &&
      plain_crypt_verify(user, authentication->secret, password, &authentication->log_detail) == STATUS_OK;
  wipe_freed(strlen(password) + strlen(user) + 1);  // where it was put together for an MD5 hash
  if (!verified) fail_authentication(authentication, authentication->log_detail);
  return succeed_with_password(authentication, output);
}

AuthenticationStatus check_md5_response(Authentication *authentication, StringInfo message, StringInfo output) {
  const char *response = read_password(message);

  const bool verified =
      authentication->secret != nullptr &&
      verify_md5_response(authentication->port->user_name, authentication->secret, response, authentication->md5_salt,
                          kMd5SaltLength, &authentication->log_detail) == STATUS_OK;
  wipe_freed(kMd5HexLength + kMd5SaltLength + 1);  // where the stored hash was put together with the salt
  if (!verified) fail_authentication(authentication, authentication->log_detail);
  return succeed_with_password(authentication, output);
}

// The first response names the mechanism, and may carry no data at all (null).
SaslMessage read_sasl_response(Authentication *authentication, StringInfo message) {
  const auto length = static_cast<std::size_t>(message->len);
  if (authentication->expected == Expected::sasl_response) return parse_sasl_response(message->data, length);

  const SaslMessage response = parse_sasl_initial_response(message->data, length);
  if (response.mechanism != nullptr)
    authentication->sasl_state =
        pg_be_scram_mech.init(authentication->port, response.mechanism, authentication->secret);
  if (response.error != BodyError::none)
    ereport(ERROR, (errcode(ERRCODE_PROTOCOL_VIOLATION), errmsg_internal("%s", _(describe(response.error)))));
  authentication->expected = Expected::sasl_response;
  return response;
}

AuthenticationStatus check_sasl_response(Authentication *authentication, StringInfo message, StringInfo output) {
  char *answer = nullptr;
  int answer_length = 0;

  const SaslMessage response = read_sasl_response(authentication, message);
  const int result = pg_be_scram_mech.exchange(authentication->sasl_state, response.data, response.length, &answer,
                                               &answer_length, &authentication->log_detail);

  if (result == PG_SASL_EXCHANGE_CONTINUE) {
    if (answer != nullptr) append_request(authentication, output, AUTH_REQ_SASL_CONT, answer, answer_length);
    return AuthenticationStatus::wants_message;
  }
  if (result != PG_SASL_EXCHANGE_SUCCESS) fail_authentication(authentication, authentication->log_detail);
  if (answer != nullptr) append_request(authentication, output, AUTH_REQ_SASL_FIN, answer, answer_length);
  return succeed_with_password(authentication, output);
}

AuthenticationStatus process_message(Authentication *authentication, StringInfo message, StringInfo output) {
  if (message->len + 4 > longest_authentication_message(authentication))
    ereport(ERROR, (errcode(ERRCODE_PROTOCOL_VIOLATION), errmsg("invalid message length")));

  switch (authentication->expected) {
    case Expected::password:
      return check_password(authentication, message, output);
    case Expected::md5_response:
      return check_md5_response(authentication, message, output);
    case Expected::sasl_initial_response:
    case Expected::sasl_response:
      return check_sasl_response(authentication, message, output);
    case Expected::nothing:
      break;
  }
  elog(ERROR, "authentication is over");
  pg_unreachable();
}

bool expects_sasl(const Authentication *authentication) {
  return authentication->expected == Expected::sasl_initial_response ||
         authentication->expected == Expected::sasl_response;
}

}  // namespace

bool load_authentication_rules() {
  const bool rules_loaded = load_hba_rules();
  const bool map_loaded = load_ident_map();

  if (!rules_loaded)
    ereport(LOG, (errmsg("the pooled port keeps its former rules because \"%s\" could not be loaded", HbaFileName)));
  if (!map_loaded)
    ereport(LOG,
            (errmsg("the pooled port keeps its former user maps because \"%s\" could not be loaded", IdentFileName)));
  return rules_loaded;  // without maps those can come in who need none, as on the server's port
}

static bool asks_for_secret(const MatchedRule &rule) {
  return !rule.undecided && (rule.method == uaMD5 || rule.method == uaSCRAM || rule.method == uaPassword);
}

AuthenticationStatus begin_authentication(Port *port, MemoryContext context, StringInfo output, int *settled,
                                          Authentication **result) {
  const MemoryContext caller_context = MemoryContextSwitchTo(context);

  auto *authentication = static_cast<Authentication *>(palloc0(sizeof(Authentication)));
  authentication->port = port;
  authentication->context = context;
  authentication->secrets = context;
  authentication->expected = Expected::nothing;
  authentication->settled = settled;
  *result = authentication;

  // One look at the role serves the rules (groups) and the challenge (secret).
  RoleRow role;
  const bool role_exists = read_role(port->user_name, &role);
  authentication->role = role_exists ? role.oid : InvalidOid;
  authentication->rule = find_hba_rule(port, authentication->role);
  char *const as_read = role_exists ? role.secret : nullptr;
  if (asks_for_secret(authentication->rule)) {
    // Wiping that memory costs more than most logins: only where a secret gets into it.
    authentication->secrets = create_secret_context(context);
    MemoryContextSwitchTo(authentication->secrets);
    if (as_read != nullptr) role.secret = pstrdup(as_read);
  }
  wipe_text(as_read);
  const AuthenticationStatus status = authentication->rule.undecided
                                          ? AuthenticationStatus::wants_name
                                          : start_method(authentication, role_exists ? &role : nullptr, output);

  MemoryContextSwitchTo(caller_context);
  return status;
}

AuthenticationStatus continue_authentication(Authentication *authentication, StringInfo message, StringInfo output,
                                             int *settled) {
  const MemoryContext caller_context = MemoryContextSwitchTo(authentication->secrets);
  authentication->settled = settled;
  const AuthenticationStatus status = process_message(authentication, message, output);

  MemoryContextSwitchTo(caller_context);
  return status;
}

int longest_authentication_message(const Authentication *authentication) {
  return expects_sasl(authentication) ? kLongestSaslMessage : kLongestPasswordMessage;
}

void refuse_without_name() {
  ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED), errmsg("could not look up the client's host name"),
                  errdetail("A rule of pg_hba.conf names a host, and the process that looks up names could not be "
                            "started."),
                  errhint("You may need to increase max_worker_processes. Port %d, where the server itself "
                          "authenticates, needs no such process.",
                          PostPortNumber)));
  pg_unreachable();
}

void refuse_message_type(const Authentication *authentication, int type) {
  if (expects_sasl(authentication))
    ereport(ERROR, (errcode(ERRCODE_PROTOCOL_VIOLATION), errmsg("expected SASL response, got message type %d", type)));
  ereport(ERROR,
          (errcode(ERRCODE_PROTOCOL_VIOLATION), errmsg("expected password response, got message type %d", type)));
  pg_unreachable();
}

bool answers_unreadable_message(const Authentication *authentication) {
  return expects_sasl(authentication);
}

void refuse_unreadable_message(const Authentication *authentication) {
  fail_authentication(authentication, authentication->log_detail);
}

}  // namespace sluice::pg
