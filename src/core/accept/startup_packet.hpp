// SPDX-License-Identifier: PostgreSQL
//
// The first packet of a client, as a value.
//
// It is the only packet without a type byte: a length word that counts itself, a
// code that is either a protocol version or one of three requests, and then, for
// a start-up, pairs of NUL-terminated strings closed by one more NUL.  Limits,
// order of the checks and treatment of repeated names follow the server's own
// start-up code, so that a client sees no difference between the two ports.
//
// Nothing is copied: all strings point into the caller's buffer and live as long
// as it does.

#ifndef SLUICE_CORE_ACCEPT_STARTUP_PACKET_HPP
#define SLUICE_CORE_ACCEPT_STARTUP_PACKET_HPP

#include <cstddef>
#include <cstdint>

namespace sluice {

// Bounds of the length word, itself included (MAX_STARTUP_PACKET_LENGTH plus the word).
constexpr std::uint32_t kMinStartupPacketLength = 8;
constexpr std::uint32_t kMaxStartupPacketLength = 10004;

constexpr std::size_t kMaxStartupParameters = 64;
constexpr std::size_t kMaxUnknownProtocolOptions = 8;

constexpr std::uint32_t make_protocol(std::uint32_t major, std::uint32_t minor) noexcept {
  return (major << 16) | minor;
}
constexpr std::uint32_t protocol_major(std::uint32_t protocol) noexcept {
  return protocol >> 16;
}
constexpr std::uint32_t protocol_minor(std::uint32_t protocol) noexcept {
  return protocol & 0xffff;
}

constexpr std::uint32_t kProtocolMajor = 3;
constexpr std::uint32_t kCancelRequestCode = make_protocol(1234, 5678);
constexpr std::uint32_t kSslRequestCode = make_protocol(1234, 5679);
constexpr std::uint32_t kGssencRequestCode = make_protocol(1234, 5680);

enum class StartupKind {
  incomplete,  // come back with more bytes
  invalid,     // see StartupPacket::error
  ssl_request,
  gssenc_request,
  cancel_request,
  startup,
};

enum class StartupError {
  none,
  invalid_length,        // to be logged, not answered: the peer hardly speaks our protocol
  unsupported_protocol,  // major version is not 3; `protocol` says what it was
  bad_layout,            // missing terminator, or bytes behind it
  too_many_parameters,   // more than kMaxStartupParameters, or more than kMaxUnknownProtocolOptions
};

// The primary message, in the server's words.  The caller completes
// "unsupported frontend protocol" with the two versions.
const char *describe(StartupError error) noexcept;

struct StartupParameter {
  const char *name = nullptr;
  const char *value = nullptr;
};

struct StartupPacket {
  StartupKind kind = StartupKind::incomplete;
  StartupError error = StartupError::none;
  std::size_t length = 0;      // bytes of the packet, length word included; 0 if incomplete or of invalid length
  std::uint32_t protocol = 0;  // the code word, as soon as it is known

  // cancel_request only
  std::uint32_t cancel_pid = 0;
  std::uint32_t cancel_key = 0;

  // startup only; nullptr if absent.  Of a repeated name the last value counts.
  const char *user = nullptr;
  const char *database = nullptr;
  const char *options = nullptr;  // switches, for parse_startup_options()
  const char *replication = nullptr;
  const char *application_name = nullptr;  // as sent; also among the parameters

  // All others, in the order sent, repetitions included: to be set in this order.
  StartupParameter parameters[kMaxStartupParameters];
  std::size_t parameter_count = 0;

  // Names that begin with "_pq_.".  None is known, so if there are any, or if
  // the minor version is above 0, the caller sends NegotiateProtocolVersion.
  const char *unknown_protocol_options[kMaxUnknownProtocolOptions] = {};
  std::size_t unknown_protocol_option_count = 0;
};

// Looks at the first `available` bytes a client has sent.  A length out of
// bounds is found as soon as the length word is there, a length that does not
// fit its request as soon as the code is; everything else that is wrong only
// with the whole packet, because it is answered, and an answer can be lost if
// the socket is closed on unread bytes.  An empty or absent user name is left to
// the caller, as is a second SSL or GSSENC request.
StartupPacket parse_startup_packet(const char *bytes, std::size_t available) noexcept;

}  // namespace sluice

#endif
