// SPDX-License-Identifier: PostgreSQL
//
// What a client answers to an authentication request: the body of a message of
// type 'p', whose form depends on the request.
//
//   password, MD5      one string, which fills the message
//   SASL, first        mechanism (string), length (32 bits, -1 for none), data
//   SASL, further      data
//
// Nothing is copied: all pointers go into the caller's bytes and live as long.
// SASL data always reaches to the last byte of the body; a mechanism that wants it
// terminated needs a NUL behind the body, which is for the caller to provide.

#ifndef SLUICE_CORE_AUTH_SASL_MESSAGE_HPP
#define SLUICE_CORE_AUTH_SASL_MESSAGE_HPP

#include <cstddef>
#include <cstdint>

#include "core/session/message_body.hpp"

namespace sluice {

// Greatest length word of a message of the exchange, itself included (PG_MAX_SASL_MESSAGE_LENGTH).
constexpr std::uint32_t kSaslMessageLimit = 1024;

struct SaslMessage {
  BodyError error = BodyError::none;
  // Of the first message only, where it is there even if what follows is wrong: the server judges the mechanism before
  // it reads on.  Null if it is not terminated.
  const char *mechanism = nullptr;
  const char *data = nullptr;  // null if there is none, which is not the same as empty
  std::int32_t length = -1;    // of data; -1 if there is none
};

SaslMessage parse_sasl_initial_response(const char *body, std::size_t length) noexcept;
SaslMessage parse_sasl_response(const char *body, std::size_t length) noexcept;

enum class PasswordError {
  none,
  invalid_size,  // not one string that ends with the message; a protocol violation
  empty,         // an invalid password
};

// The primary message, in the server's words.
const char *describe(PasswordError error) noexcept;

struct PasswordMessage {
  PasswordError error = PasswordError::none;
  const char *password = nullptr;  // null on error
};

PasswordMessage parse_password_message(const char *body, std::size_t length) noexcept;

}  // namespace sluice

#endif
