// SPDX-License-Identifier: PostgreSQL
//
// The parts of a Bind message that are more than one field.

#include "core/session/bind_message.hpp"

namespace sluice {

std::int16_t FormatCodes::code(int i) const noexcept {
  const auto *octets = reinterpret_cast<const unsigned char *>(bytes_) + static_cast<std::ptrdiff_t>(i) * 2;
  return static_cast<std::int16_t>(octets[0] << 8 | octets[1]);
}

bool BindMessage::read_formats(FormatCodes *result) noexcept {
  const int count = body_.read_word16();
  const char *codes = body_.read_bytes(static_cast<std::int64_t>(count) * 2);
  *result = body_.good() ? FormatCodes(codes, count) : FormatCodes();
  return body_.good();
}

bool BindMessage::read_value_count(int *result) noexcept {
  *result = body_.read_word16();
  return body_.good();
}

bool BindMessage::read_value(BindValue *result) noexcept {
  *result = BindValue{};
  const auto length = static_cast<std::int32_t>(body_.read_word32());
  if (!body_.good() || length == -1) return body_.good();
  const char *bytes = body_.read_bytes(length);
  if (bytes != nullptr) *result = BindValue{bytes, length};
  return body_.good();
}

}  // namespace sluice
