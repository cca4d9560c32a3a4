// SPDX-License-Identifier: PostgreSQL
//
// Reading fields off the front of a body.

#include "core/session/message_body.hpp"

#include <cstring>

namespace sluice {

const char *describe(BodyError error) noexcept {
  switch (error) {
    case BodyError::none:
      return "no error";
    case BodyError::unterminated_string:
      return "invalid string in message";
    case BodyError::too_short:
      return "insufficient data left in message";
    case BodyError::bytes_left_over:
      return "invalid message format";
  }
  return "unknown error";
}

// The first error stays.
bool MessageBody::refuse(BodyError error) noexcept {
  if (error_ == BodyError::none) error_ = error;
  return false;
}

const char *MessageBody::read_string() noexcept {
  const void *end = good() && left_ > 0 ? std::memchr(next_, '\0', left_) : nullptr;
  if (end == nullptr) {
    refuse(BodyError::unterminated_string);
    return nullptr;
  }
  return read_bytes(static_cast<const char *>(end) - next_ + 1);
}

std::uint16_t MessageBody::read_word16() noexcept {
  const auto *octets = reinterpret_cast<const unsigned char *>(read_bytes(2));
  return octets == nullptr ? static_cast<std::uint16_t>(0) : static_cast<std::uint16_t>(octets[0] << 8 | octets[1]);
}

std::uint32_t MessageBody::read_word32() noexcept {
  const std::uint32_t high = read_word16();
  const std::uint32_t low = read_word16();
  return good() ? high << 16 | low : 0;
}

const char *MessageBody::read_bytes(std::int64_t count) noexcept {
  if (!good() || count < 0 || static_cast<std::uint64_t>(count) > left_) {
    refuse(BodyError::too_short);
    return nullptr;
  }
  const char *bytes = next_;
  if (count > 0) next_ += count;
  left_ -= static_cast<std::size_t>(count);
  return bytes;
}

bool MessageBody::read_end() noexcept {
  return good() && (left_ == 0 || refuse(BodyError::bytes_left_over));
}

}  // namespace sluice
