// SPDX-License-Identifier: PostgreSQL
//
// The fields of one message's body, read one after the other.
//
// Each step looks at the bytes that are left and nothing else, so a length that
// lies is found before anyone follows it.  What is wrong is wrong for good: after
// the first error each further step fails and reads nothing.
//
// Nothing is copied or allocated: what a step answers with points into the
// caller's bytes and lives as long as they do.

#ifndef SLUICE_CORE_SESSION_MESSAGE_BODY_HPP
#define SLUICE_CORE_SESSION_MESSAGE_BODY_HPP

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace sluice {

// What can be wrong with the layout of a body; all of it a protocol violation.
enum class BodyError {
  none,
  unterminated_string,  // no NUL before the end
  too_short,            // less is left than the next field takes, or a length is below zero
  bytes_left_over,      // the message has more bytes than fields
};

// The primary message, in the server's words.
const char *describe(BodyError error) noexcept;

class MessageBody {
 public:
  // `bytes` may be null if `length` is 0.
  MessageBody(const char *bytes, std::size_t length) noexcept : next_(bytes), left_(length) {}

  // Up to and with the next NUL; null on error.
  const char *read_string() noexcept;

  // Words of the network's byte order; 0 on error.
  std::uint16_t read_word16() noexcept;
  std::uint32_t read_word32() noexcept;

  // Null on error, to which a count below zero belongs.  (No bytes of a body that is null are null as well.)
  const char *read_bytes(std::int64_t count) noexcept;

  // All bytes must have been read.
  bool read_end() noexcept;

  std::size_t left() const noexcept { return left_; }
  bool good() const noexcept { return error_ == BodyError::none; }
  BodyError error() const noexcept { return error_; }

 private:
  bool refuse(BodyError error) noexcept;

  const char *next_;
  std::size_t left_;
  BodyError error_ = BodyError::none;
};

// The server's functions leave by longjmp() while one is alive.
static_assert(std::is_trivially_destructible_v<MessageBody>);

}  // namespace sluice

#endif
