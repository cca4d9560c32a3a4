// SPDX-License-Identifier: PostgreSQL
//
// The body of a Bind message, as the client sent it.
//
//   portal name          string
//   statement name       string
//   parameter formats    count (16 bits), then a code of 16 bits for each
//   parameter values     count (16 bits), then length (32 bits, -1 is null) and bytes for each
//   result formats       as the parameters'
//
// The steps are separate, and each is to be called once, in this order, because
// between them the server does things that can fail too: it converts names, looks
// for the statement, calls the input function of a value before it reads the next.
// A client that has made two mistakes hears of the one that comes first.
//
// Nothing is copied: all pointers go into the caller's bytes and live as long.
// Format codes have no alignment there, hence FormatCodes.  A caller that writes
// behind a value to terminate it has to undo that before the next step.

#ifndef SLUICE_CORE_SESSION_BIND_MESSAGE_HPP
#define SLUICE_CORE_SESSION_BIND_MESSAGE_HPP

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "core/session/message_body.hpp"

namespace sluice {

constexpr std::int16_t kTextFormat = 0;
constexpr std::int16_t kBinaryFormat = 1;

// No code: all are text.  One: it is that of all.  Else one for each.
class FormatCodes {
 public:
  FormatCodes() noexcept = default;
  // `bytes` holds two for each code.
  FormatCodes(const char *bytes, int count) noexcept : bytes_(bytes), count_(count) {}

  int count() const noexcept { return count_; }
  // The i-th code sent, i < count().  Any number can be there.
  std::int16_t code(int i) const noexcept;
  // That of value i; i < count() if there are several.
  std::int16_t of(int i) const noexcept { return count_ == 0 ? kTextFormat : code(count_ == 1 ? 0 : i); }
  // Whether they can be those of so many values.
  bool fit(int values) const noexcept { return count_ <= 1 || count_ == values; }

 private:
  const char *bytes_ = nullptr;
  int count_ = 0;
};

struct BindValue {
  const char *bytes = nullptr;  // null for null
  std::int32_t length = -1;     // of bytes; -1 for null
};

class BindMessage {
 public:
  // The body alone, without type and length.
  BindMessage(const char *body, std::size_t length) noexcept : body_(body, length) {}

  // Both null on error, and not yet converted from the client's encoding.
  const char *read_portal_name() noexcept { return body_.read_string(); }
  const char *read_statement_name() noexcept { return body_.read_string(); }

  // All others false on error, with `*result` as after nothing was sent.
  bool read_formats(FormatCodes *result) noexcept;  // of the parameters, and later of the results
  bool read_value_count(int *result) noexcept;      // 0 to 65535
  bool read_value(BindValue *result) noexcept;      // so many times
  bool read_end() noexcept { return body_.read_end(); }

  BodyError error() const noexcept { return body_.error(); }

 private:
  MessageBody body_;
};

static_assert(std::is_trivially_destructible_v<BindMessage>);

}  // namespace sluice

#endif
