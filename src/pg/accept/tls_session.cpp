// SPDX-License-Identifier: PostgreSQL
//
// The server's be_tls_open_server(), turned inside out like its authentication
// (pg/auth/authentication.cpp): where that one waits for the socket, this one
// returns and is continued when there is something to read.
//
// Nothing of a client is read but what OpenSSL asks for, so bytes that somebody
// slipped in between the request for TLS and the handshake are part of the
// handshake, and break it.
//
// Direct TLS (a client that begins with the handshake) is for clients that name the
// protocol "postgresql" by ALPN only: that keeps other protocols' clients from
// being talked into sending theirs here.

#include "pg/accept/tls_session.hpp"

#ifdef USE_OPENSSL

extern "C" {
#include "libpq/libpq.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"
}

#include <cstdio>
#include <cstring>

#include <openssl/x509.h>

#include "pg/accept/dispatcher.hpp"
#include "pg/accept/tls_context.hpp"
#include "pg/accept/tls_kernel.hpp"
#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"
#include "pg/stats/error_count.hpp"

namespace sluice::pg {

struct TlsSession {
  Port *port;
  SSL *connection;  // null once it was handed on
  bool direct;
  bool finished;
  bool in_kernel;
  bool broken;  // OpenSSL wants to hear nothing more
  KeyChanges key_changes;
  ClientSecret secret;  // for the kernel; wiped when the handshake is over
  MemoryContextCallback at_end;
};

// ------------------------------------------------------------------ the context

constexpr unsigned char kProtocolName[] = {10, 'p', 'o', 's', 't', 'g', 'r', 'e', 's', 'q', 'l'};

extern "C" {

static int choose_protocol(SSL *, const unsigned char **chosen, unsigned char *chosen_length,
                           const unsigned char *offered, unsigned int offered_length, void *) {
  unsigned char *match;
  const int result =
      SSL_select_next_proto(&match, chosen_length, kProtocolName, sizeof(kProtocolName), offered, offered_length);
  *chosen = match;
  return result == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

static void note_secret(const SSL *connection, const char *line) {
  auto *tls = static_cast<TlsSession *>(SSL_get_app_data(connection));
  if (tls != nullptr && tls->connection == connection) keep_client_secret(&tls->secret, line);
}

static void note_message(int is_written, int, int content_type, const void *bytes, std::size_t length, SSL *connection,
                         void *argument) {
  if (is_written || content_type != SSL3_RT_HANDSHAKE || length == 0 ||
      *static_cast<const unsigned char *>(bytes) != SSL3_MT_KEY_UPDATE)
    return;
  auto *changes = static_cast<KeyChanges *>(argument);
  const std::int64_t now_us = coarse_monotonic_us();
  if (now_us - changes->since_us >= 1000000) *changes = KeyChanges{now_us, 0};
  changes->count++;
  // While it has part of another record at hand OpenSSL goes on by itself; so it stops there.
  if (has_too_many(*changes)) SSL_set_shutdown(connection, SSL_get_shutdown(connection) | SSL_RECEIVED_SHUTDOWN);
}

static void end_session(void *argument) {
  auto *tls = static_cast<TlsSession *>(argument);
  explicit_bzero(&tls->secret, sizeof(tls->secret));
  if (tls->port->peer != nullptr) X509_free(tls->port->peer);
  tls->port->peer = nullptr;
  tls->port->ssl = nullptr;
  if (tls->connection != nullptr) SSL_free(tls->connection);
  tls->connection = nullptr;
}

}  // extern "C"

void count_key_changes(SSL *connection, KeyChanges *changes) {
  SSL_set_msg_callback(connection, note_message);
  SSL_set_msg_callback_arg(connection, changes);
}

bool has_too_many(const KeyChanges &changes) { return changes.count > kMaxKeyChanges; }

void prepare_tls_context(SSL_CTX *context) {
  SSL_CTX_set_alpn_select_cb(context, choose_protocol, nullptr);
  // An idle client keeps no buffers, and a long answer may be taken in parts.
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE);
  // One message of TLS itself each time: whoever sends nothing else would never be done with.
  SSL_CTX_clear_mode(context, SSL_MODE_AUTO_RETRY);
#ifdef SSL_OP_IGNORE_UNEXPECTED_EOF
  // Where a message ends is said by the message; a client that only stops sending
  // may still read.
  SSL_CTX_set_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF);
#endif
  SSL_CTX_set_keylog_callback(context, setting_kernel_tls && allow_kernel_tls(context) ? note_secret : nullptr);
}

// ------------------------------------------------------------------ failures

const char *describe_tls_error(unsigned long code) {
  static char number[36];
  if (code == 0) return _("no SSL error reported");
  const char *reason = ERR_reason_error_string(code);
  if (reason != nullptr) return reason;
#ifdef ERR_SYSTEM_ERROR
  if (ERR_SYSTEM_ERROR(code)) return strerror(ERR_GET_REASON(code));
#endif
  snprintf(number, sizeof(number), _("SSL error code %lu"), code);
  return number;
}

static void count_failure(const char *message) {
  shared().header->protocol_violations.fetch_add(1);
  count_error(ErrorClass::protocol, ERRCODE_PROTOCOL_VIOLATION, InvalidOid, message);
}

static bool concerns_versions(unsigned long code) {
  switch (ERR_GET_REASON(code)) {
    case SSL_R_NO_PROTOCOLS_AVAILABLE:
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_BAD_PROTOCOL_VERSION_NUMBER:
    case SSL_R_UNKNOWN_PROTOCOL:
    case SSL_R_UNKNOWN_SSL_VERSION:
    case SSL_R_UNSUPPORTED_SSL_VERSION:
    case SSL_R_WRONG_SSL_VERSION:
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
#ifdef SSL_R_VERSION_TOO_HIGH
    case SSL_R_VERSION_TOO_HIGH:
    case SSL_R_VERSION_TOO_LOW:
#endif
      return true;
    default:
      return false;
  }
}

// The setting, or what the library goes to if it is empty.
static const char *describe_version(const char *setting, const char *unlimited) {
  const char *value = GetConfigOption(setting, true, false);
  return value != nullptr && value[0] != '\0' ? value : unlimited;
}

static void log_failed_handshake(int kind, int result, int error_number, unsigned long code) {
  char message[128];
  snprintf(message, sizeof(message), "could not accept SSL connection: %s",
           kind == SSL_ERROR_SSL ? describe_tls_error(code) : "the client has gone");
  count_failure(message);
  if (kind == SSL_ERROR_SSL) {
    ereport(COMMERROR,
            (errcode(ERRCODE_PROTOCOL_VIOLATION), errmsg("could not accept SSL connection: %s", describe_tls_error(code)),
             concerns_versions(code)
                 ? errhint("This may indicate that the client does not support any SSL protocol version between %s and "
                           "%s.",
                           describe_version("ssl_min_protocol_version", "TLSv1"),
                           describe_version("ssl_max_protocol_version", "TLSv1.3"))
                 : 0));
  } else if (kind == SSL_ERROR_SYSCALL && result < 0 && error_number != 0) {
    errno = error_number;
    ereport(COMMERROR, (errcode_for_socket_access(), errmsg("could not accept SSL connection: %m")));
  } else {
    ereport(COMMERROR,
            (errcode(ERRCODE_PROTOCOL_VIOLATION), errmsg("could not accept SSL connection: EOF detected")));
  }
}

static bool refuse(const char *message) {
  count_failure(message);
  ereport(COMMERROR, (errcode(ERRCODE_PROTOCOL_VIOLATION), errmsg_internal("%s", message)));
  return false;
}

// ------------------------------------------------------------------ the client's certificate

// A name with a NUL inside would be compared only up to there.
static bool copy_name(const char *name, int length, char **copy) {
  if (static_cast<int>(strnlen(name, static_cast<std::size_t>(length))) != length) return false;
  *copy = const_cast<char *>(name);
  return true;
}

static bool copy_common_name(X509_NAME *subject, char **common_name) {
  const int length = X509_NAME_get_text_by_NID(subject, NID_commonName, nullptr, 0);
  if (length < 0) return true;
  auto *text = static_cast<char *>(palloc_extended(static_cast<Size>(length) + 1, MCXT_ALLOC_NO_OOM));
  if (text == nullptr || X509_NAME_get_text_by_NID(subject, NID_commonName, text, length + 1) != length)
    return refuse("could not read the common name of the SSL certificate");
  return copy_name(text, length, common_name) ? true
                                              : refuse("SSL certificate's common name contains embedded null");
}

static bool copy_distinguished_name(X509_NAME *subject, char **distinguished_name) {
  BIO *bio = BIO_new(BIO_s_mem());
  char *text = nullptr;
  if (bio == nullptr || X509_NAME_print_ex(bio, subject, 0, XN_FLAG_RFC2253) < 0) {
    if (bio != nullptr) BIO_free(bio);
    return refuse("could not read the subject of the SSL certificate");
  }
  // Copied to where a failing palloc() loses nothing but this login.
  const long length = BIO_get_mem_data(bio, &text);
  auto *copy = static_cast<char *>(palloc_extended(static_cast<Size>(length) + 1, MCXT_ALLOC_NO_OOM));
  if (copy != nullptr) {
    memcpy(copy, text, static_cast<std::size_t>(length));
    copy[length] = '\0';
  }
  BIO_free(bio);
  if (copy == nullptr) return refuse("could not read the subject of the SSL certificate");
  return copy_name(copy, static_cast<int>(length), distinguished_name)
             ? true
             : refuse("SSL certificate's distinguished name contains embedded null");
}

static bool take_certificate(TlsSession *tls) {
  Port *port = tls->port;
  port->peer = SSL_get_peer_certificate(tls->connection);
  if (port->peer == nullptr) return true;
  X509_NAME *subject = X509_get_subject_name(port->peer);
  if (!copy_common_name(subject, &port->peer_cn) || !copy_distinguished_name(subject, &port->peer_dn)) return false;
  port->peer_cert_valid = true;
  return true;
}

// ------------------------------------------------------------------ the session

TlsSession *open_tls(Port *port, MemoryContext context, bool direct) {
  auto *tls = static_cast<TlsSession *>(MemoryContextAllocZero(context, sizeof(TlsSession)));
  tls->port = port;
  tls->direct = direct;
  tls->at_end.func = end_session;
  tls->at_end.arg = tls;
  MemoryContextRegisterResetCallback(context, &tls->at_end);
  ERR_clear_error();
  tls->connection = SSL_new(tls_context());
  if (tls->connection == nullptr || SSL_set_fd(tls->connection, port->sock) != 1) {
    ereport(COMMERROR, (errcode(ERRCODE_PROTOCOL_VIOLATION), errmsg("could not initialize SSL connection: %s",
                                                                    describe_tls_error(ERR_get_error()))));
    return nullptr;
  }
  SSL_set_app_data(tls->connection, tls);
  count_key_changes(tls->connection, &tls->key_changes);
#ifdef SSL_OP_CLEANSE_PLAINTEXT
  SSL_set_options(tls->connection, SSL_OP_CLEANSE_PLAINTEXT);  // passwords are among it
#endif
  SSL_set_accept_state(tls->connection);
  port->ssl = tls->connection;
  port->ssl_in_use = true;
  return tls;
}

static bool protocol_was_named(const TlsSession *tls) {
  const unsigned char *name;
  unsigned int length;
  SSL_get0_alpn_selected(tls->connection, &name, &length);
  return length > 0;
}

static Handshake finish_handshake(TlsSession *tls) {
  if (tls->direct && !protocol_was_named(tls)) {
    refuse("received direct SSL connection request without ALPN protocol negotiation extension");
    return Handshake::failed;
  }
  if (!take_certificate(tls)) return Handshake::failed;
  tls->finished = true;
  tls->in_kernel = setting_kernel_tls && move_keys_to_kernel(tls->connection, tls->port->sock, &tls->secret);
  explicit_bzero(&tls->secret, sizeof(tls->secret));
  return Handshake::finished;
}

Handshake continue_handshake(TlsSession *tls) {
  errno = 0;
  ERR_clear_error();
  const int result = SSL_accept(tls->connection);
  if (result > 0) return finish_handshake(tls);
  const int error_number = errno;
  const int kind = SSL_get_error(tls->connection, result);
  const unsigned long code = ERR_get_error();
  switch (kind) {
    case SSL_ERROR_WANT_READ:
      return Handshake::wants_input;
    case SSL_ERROR_WANT_WRITE:
      return Handshake::wants_output;
    default:
      log_failed_handshake(kind, result, error_number, code);
      return Handshake::failed;
  }
}

ssize_t receive_decrypted(TlsSession *tls, void *target, std::size_t length) {
  errno = 0;
  ERR_clear_error();
  const int got = SSL_read(tls->connection, target, static_cast<int>(length));
  if (got > 0) return got;
  const int error_number = errno;
  if (has_too_many(tls->key_changes)) {
    tls->broken = true;
    refuse("client changes its SSL keys too often");
    errno = ECONNRESET;
    return -1;
  }
  switch (SSL_get_error(tls->connection, got)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
      errno = EAGAIN;
      return -1;
    case SSL_ERROR_ZERO_RETURN:
      return 0;
    case SSL_ERROR_SSL:
      tls->broken = true;
      ereport(COMMERROR,
              (errcode(ERRCODE_PROTOCOL_VIOLATION), errmsg("SSL error: %s", describe_tls_error(ERR_get_error()))));
      errno = ECONNRESET;
      return -1;
    default:
      tls->broken = true;
      errno = error_number != 0 ? error_number : ECONNRESET;
      return -1;
  }
}

ssize_t send_encrypted(TlsSession *tls, const void *bytes, std::size_t length) {
  ERR_clear_error();
  const int sent = SSL_write(tls->connection, bytes, static_cast<int>(length));
  if (sent > 0) return sent;
  const int kind = SSL_get_error(tls->connection, sent);
  tls->broken = kind != SSL_ERROR_WANT_WRITE && kind != SSL_ERROR_WANT_READ;
  errno = tls->broken ? ECONNRESET : EAGAIN;
  return -1;
}

bool tls_is_in_kernel(const TlsSession *tls) { return tls->in_kernel; }

std::uint64_t received_bytes(const TlsSession *tls) {
  return tls->connection != nullptr ? BIO_number_read(SSL_get_rbio(tls->connection)) : 0;
}

void say_end_of_tls(TlsSession *tls) {
  if (tls->connection == nullptr || !tls->finished || tls->broken) return;
  ERR_clear_error();
  if (tls->in_kernel)
    say_end_of_kernel_tls(tls->port->sock);
  else
    SSL_shutdown(tls->connection);
}

SSL *release_connection(TlsSession *tls) {
  SSL *connection = tls->connection;
  SSL_set_app_data(connection, nullptr);
#ifdef SSL_OP_CLEANSE_PLAINTEXT
  SSL_clear_options(connection, SSL_OP_CLEANSE_PLAINTEXT);
#endif
  tls->connection = nullptr;
  return connection;
}

// Names are UTF-8, and may have been cut.
static void drop_half_a_character(char (&name)[kTlsNameLength]) {
  const int length = static_cast<int>(strlen(name));
  name[pg_encoding_mbcliplen(PG_UTF8, name, length, length)] = '\0';
}

void fill_tls_facts(const Port *port, TlsFacts *facts) {
  auto *of = const_cast<Port *>(port);
  memset(facts, 0, sizeof(*facts));
  strlcpy(facts->version, be_tls_get_version(of), sizeof(facts->version));
  strlcpy(facts->cipher, be_tls_get_cipher(of), sizeof(facts->cipher));
  facts->bits = be_tls_get_cipher_bits(of);
  be_tls_get_peer_subject_name(of, facts->client_dn, sizeof(facts->client_dn));
  be_tls_get_peer_serial(of, facts->client_serial, sizeof(facts->client_serial));
  be_tls_get_peer_issuer_name(of, facts->issuer_dn, sizeof(facts->issuer_dn));
  drop_half_a_character(facts->client_dn);
  drop_half_a_character(facts->issuer_dn);
}

}  // namespace sluice::pg

#else

namespace sluice::pg {

TlsSession *open_tls(Port *, MemoryContext, bool) { return nullptr; }
Handshake continue_handshake(TlsSession *) { return Handshake::failed; }
ssize_t receive_decrypted(TlsSession *, void *, std::size_t) { return -1; }
ssize_t send_encrypted(TlsSession *, const void *, std::size_t) { return -1; }
bool tls_is_in_kernel(const TlsSession *) { return false; }
std::uint64_t received_bytes(const TlsSession *) { return 0; }
void say_end_of_tls(TlsSession *) {}
void fill_tls_facts(const Port *, TlsFacts *facts) { memset(facts, 0, sizeof(*facts)); }
void say_end_of_kernel_tls(int) {}

}  // namespace sluice::pg

#endif
