// SPDX-License-Identifier: PostgreSQL
//
// The forms of a message of type 'p'.

#include "core/auth/sasl_message.hpp"

#include <cstring>

namespace sluice {

SaslMessage parse_sasl_initial_response(const char *body, std::size_t length) noexcept {
  MessageBody fields(body, length);
  SaslMessage message;
  message.mechanism = fields.read_string();
  const auto announced = static_cast<std::int32_t>(fields.read_word32());
  const char *data = fields.good() && announced != -1 ? fields.read_bytes(announced) : nullptr;
  if (fields.read_end() && announced != -1) {
    message.data = data;
    message.length = announced;
  }
  message.error = fields.error();
  return message;
}

SaslMessage parse_sasl_response(const char *body, std::size_t length) noexcept {
  SaslMessage message;
  message.data = body;
  message.length = static_cast<std::int32_t>(length);
  return message;
}

const char *describe(PasswordError error) noexcept {
  switch (error) {
    case PasswordError::none:
      return "no error";
    case PasswordError::invalid_size:
      return "invalid password packet size";
    case PasswordError::empty:
      return "empty password returned by client";
  }
  return "unknown error";
}

PasswordMessage parse_password_message(const char *body, std::size_t length) noexcept {
  PasswordMessage message;
  if (length == 0 || std::memchr(body, '\0', length) != body + length - 1) {
    message.error = PasswordError::invalid_size;
  } else if (length == 1) {
    message.error = PasswordError::empty;
  } else {
    message.password = body;
  }
  return message;
}

}  // namespace sluice
