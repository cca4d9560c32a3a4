// SPDX-License-Identifier: PostgreSQL
//
// OpenSSL gives the keys to the kernel by itself when it is allowed to
// (SSL_OP_ENABLE_KTLS), except that before 3.2 it keeps those for reading TLS 1.3.
// For these the key and the first nonce are derived here from the client's
// traffic secret, as RFC 8446, 7.1 and 7.3 say:
//
//   HKDF-Expand-Label(secret, label, "", length)
//     = HKDF-Expand(secret, length (2 bytes) | size ("tls13 " + label) | "tls13 " + label | 0, length)
//
// The record number is 0: the handshake has just ended, OpenSSL reads whole records
// and no more than it needs (no read-ahead), and so it has not seen any record
// under these keys.  SSL_has_pending() is asked all the same.
//
// What the kernel cannot do for us: a client that changes its keys (KeyUpdate) ends
// its connection, because nobody here reads that message.  libpq never does; no
// driver known does before 2^36 bytes.

#include "pg/accept/tls_kernel.hpp"

#include "pg/accept/tls_session.hpp"

#ifdef USE_OPENSSL

#include <cstring>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#if defined(SSL_OP_ENABLE_KTLS) && !defined(OPENSSL_NO_KTLS) && __has_include(<linux/tls.h>)
#include <linux/tls.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>

#ifndef SOL_TLS
#define SOL_TLS 282
#endif

namespace sluice::pg {

constexpr unsigned char kAlertRecord = 21;
constexpr unsigned char kCloseNotify[] = {1, 0};  // warning, close_notify
constexpr int kNonceBytes = 12;

// A socket without a connection is refused either way, but for another reason.
static bool kernel_knows_tls() {
  const int probe = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (probe < 0) return false;
  const bool known = setsockopt(probe, IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls")) == 0 || errno != ENOENT;
  close(probe);
  return known;
}

bool allow_kernel_tls(SSL_CTX *context) {
  if (!kernel_knows_tls()) return false;
  SSL_CTX_set_options(context, SSL_OP_ENABLE_KTLS);
  return true;
}

static int hex_digit(char digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
  if (digit >= 'A' && digit <= 'F') return digit - 'A' + 10;
  return -1;
}

// "CLIENT_TRAFFIC_SECRET_0 <client random> <secret>", both in hex.
void keep_client_secret(ClientSecret *secret, const char *line) {
  constexpr char kLabel[] = "CLIENT_TRAFFIC_SECRET_0 ";
  if (strncmp(line, kLabel, sizeof(kLabel) - 1) != 0) return;
  const char *digits = strrchr(line, ' ') + 1;
  int length = 0;
  while (length < static_cast<int>(sizeof(secret->bytes)) && hex_digit(digits[0]) >= 0 && hex_digit(digits[1]) >= 0) {
    secret->bytes[length++] = static_cast<unsigned char>(hex_digit(digits[0]) * 16 + hex_digit(digits[1]));
    digits += 2;
  }
  secret->length = *digits == '\0' ? length : 0;
}

static bool expand_label(const EVP_MD *hash, const ClientSecret *secret, const char *label, unsigned char *output,
                         std::size_t length) {
  unsigned char info[64];
  const std::size_t label_length = strlen(label);
  info[0] = 0;
  info[1] = static_cast<unsigned char>(length);
  info[2] = static_cast<unsigned char>(6 + label_length);
  memcpy(info + 3, "tls13 ", 6);
  memcpy(info + 9, label, label_length);
  info[9 + label_length] = 0;
  EVP_PKEY_CTX *derivation = EVP_PKEY_CTX_new_id(EVP_PKEY_HKDF, nullptr);
  if (derivation == nullptr) return false;
  std::size_t written = length;
  const bool derived = EVP_PKEY_derive_init(derivation) > 0 &&
                       EVP_PKEY_CTX_set_hkdf_mode(derivation, EVP_PKEY_HKDEF_MODE_EXPAND_ONLY) > 0 &&
                       EVP_PKEY_CTX_set_hkdf_md(derivation, hash) > 0 &&
                       EVP_PKEY_CTX_set1_hkdf_key(derivation, secret->bytes, secret->length) > 0 &&
                       EVP_PKEY_CTX_add1_hkdf_info(derivation, info, static_cast<int>(10 + label_length)) > 0 &&
                       EVP_PKEY_derive(derivation, output, &written) > 0 && written == length;
  EVP_PKEY_CTX_free(derivation);
  return derived;
}

// The kernel's structure for AES-GCM and one key length.
template <typename CryptoInfo>
static bool install_gcm(int descriptor, unsigned short cipher, const EVP_MD *hash, const ClientSecret *secret) {
  CryptoInfo keys;
  unsigned char nonce[kNonceBytes];
  memset(&keys, 0, sizeof(keys));
  keys.info.version = TLS_1_3_VERSION;
  keys.info.cipher_type = cipher;
  bool installed = expand_label(hash, secret, "key", keys.key, sizeof(keys.key)) &&
                   expand_label(hash, secret, "iv", nonce, sizeof(nonce));
  static_assert(sizeof(keys.salt) + sizeof(keys.iv) == kNonceBytes);
  memcpy(keys.salt, nonce, sizeof(keys.salt));
  memcpy(keys.iv, nonce + sizeof(keys.salt), sizeof(keys.iv));
  installed = installed && setsockopt(descriptor, SOL_TLS, TLS_RX, &keys, sizeof(keys)) == 0;
  explicit_bzero(&keys, sizeof(keys));
  explicit_bzero(nonce, sizeof(nonce));
  return installed;
}

static bool install_chacha(int descriptor, const ClientSecret *secret) {
#ifdef TLS_CIPHER_CHACHA20_POLY1305
  tls12_crypto_info_chacha20_poly1305 keys;
  memset(&keys, 0, sizeof(keys));
  keys.info.version = TLS_1_3_VERSION;
  keys.info.cipher_type = TLS_CIPHER_CHACHA20_POLY1305;
  static_assert(sizeof(keys.iv) == kNonceBytes);
  const bool installed = expand_label(EVP_sha256(), secret, "key", keys.key, sizeof(keys.key)) &&
                         expand_label(EVP_sha256(), secret, "iv", keys.iv, sizeof(keys.iv)) &&
                         setsockopt(descriptor, SOL_TLS, TLS_RX, &keys, sizeof(keys)) == 0;
  explicit_bzero(&keys, sizeof(keys));
  return installed;
#else
  (void)descriptor;
  (void)secret;
  return false;
#endif
}

static bool install_reading_keys(SSL *connection, int descriptor, const ClientSecret *secret) {
  if (secret->length == 0 || SSL_version(connection) != TLS1_3_VERSION) return false;
  switch (SSL_CIPHER_get_protocol_id(SSL_get_current_cipher(connection))) {
    case 0x1301:
      return install_gcm<tls12_crypto_info_aes_gcm_128>(descriptor, TLS_CIPHER_AES_GCM_128, EVP_sha256(), secret);
    case 0x1302:
      return install_gcm<tls12_crypto_info_aes_gcm_256>(descriptor, TLS_CIPHER_AES_GCM_256, EVP_sha384(), secret);
    case 0x1303:
      return install_chacha(descriptor, secret);
    default:
      return false;
  }
}

bool move_keys_to_kernel(SSL *connection, int descriptor, const ClientSecret *secret) {
  if (!BIO_get_ktls_send(SSL_get_wbio(connection)) || SSL_has_pending(connection)) return false;
  if (BIO_get_ktls_recv(SSL_get_rbio(connection))) return true;
  return install_reading_keys(connection, descriptor, secret);
}

void say_end_of_kernel_tls(int descriptor) {
  unsigned char alert[sizeof(kCloseNotify)];
  memcpy(alert, kCloseNotify, sizeof(alert));
  iovec part{alert, sizeof(alert)};
  alignas(cmsghdr) char ancillary[CMSG_SPACE(sizeof(unsigned char))];
  msghdr header;
  memset(&header, 0, sizeof(header));
  memset(ancillary, 0, sizeof(ancillary));
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = ancillary;
  header.msg_controllen = sizeof(ancillary);
  cmsghdr *type = CMSG_FIRSTHDR(&header);
  type->cmsg_level = SOL_TLS;
  type->cmsg_type = TLS_SET_RECORD_TYPE;
  type->cmsg_len = CMSG_LEN(sizeof(unsigned char));
  memcpy(CMSG_DATA(type), &kAlertRecord, sizeof(unsigned char));
  const ssize_t sent = sendmsg(descriptor, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
  (void)sent;
}

}  // namespace sluice::pg

#else

namespace sluice::pg {

bool allow_kernel_tls(SSL_CTX *) { return false; }
void keep_client_secret(ClientSecret *, const char *) {}
bool move_keys_to_kernel(SSL *, int, const ClientSecret *) { return false; }
void say_end_of_kernel_tls(int) {}

}  // namespace sluice::pg

#endif

#endif
