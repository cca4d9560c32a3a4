// SPDX-License-Identifier: PostgreSQL
//
// Where one message of a client ends and the next begins.
//
// After start-up each message is a type byte, a length word that counts itself
// but not the type, and a body.  The type is judged as soon as it is there: a
// stream that has lost its step must not make anyone wait for, or make room for,
// a body whose length is garbage.

#ifndef SLUICE_CORE_SESSION_MESSAGE_HPP
#define SLUICE_CORE_SESSION_MESSAGE_HPP

#include <cstddef>
#include <cstdint>

namespace sluice {

constexpr std::size_t kMessageHeaderBytes = 5;

// Greatest length words, itself included, as the server sets them
// (PQ_SMALL_MESSAGE_LIMIT, PQ_LARGE_MESSAGE_LIMIT, PG_MAX_AUTH_TOKEN_LENGTH).
constexpr std::uint32_t kSmallMessageLimit = 10000;
constexpr std::uint32_t kLargeMessageLimit = 0x3fffffff - 1;
constexpr std::uint32_t kAuthenticationMessageLimit = 65535;

enum class FrameStatus {
  incomplete,      // the header is not all there; so far it is sane
  complete,        // the header is there and sane; the body may still be on its way
  invalid_type,    // "invalid frontend message type %d" of the type as unsigned char
  invalid_length,  // "invalid message length"
};

struct Frame {
  FrameStatus status = FrameStatus::incomplete;
  char type = '\0';               // as soon as one byte is there
  std::uint32_t body_length = 0;  // bytes behind the header; if complete
  bool large = false;             // of a type whose body may have up to 1 GB
  bool extended = false;          // extended protocol: after an error, skip until Sync
};

// Looks at the header alone; `bytes` begins with the type.  While
// `authenticating` only 'p' (password, SASL, GSS) is valid, afterwards all but it.
Frame parse_frame(const char *bytes, std::size_t available, bool authenticating = false) noexcept;

}  // namespace sluice

#endif
