// SPDX-License-Identifier: PostgreSQL
//
// Reading the first packet of a client.
//
// The server appends a NUL of its own behind the packet before it looks for
// strings.  Here the bytes stay where they are: a packet whose last byte is not
// NUL is refused at once, and in any other each string ends inside the packet.
// The outcome is the same but for one case, where the server is lenient: it takes
// any single byte where the terminator belongs.

#include "core/accept/startup_packet.hpp"

#include <cstring>

namespace sluice {

namespace {

std::uint32_t read_word(const char *bytes) noexcept {
  const auto *octets = reinterpret_cast<const unsigned char *>(bytes);
  return (static_cast<std::uint32_t>(octets[0]) << 24) | (static_cast<std::uint32_t>(octets[1]) << 16) |
         (static_cast<std::uint32_t>(octets[2]) << 8) | static_cast<std::uint32_t>(octets[3]);
}

void refuse(StartupPacket &packet, StartupError error) noexcept {
  packet.kind = StartupKind::invalid;
  packet.error = error;
}

bool equal(const char *left, const char *right) noexcept {
  return std::strcmp(left, right) == 0;
}

// False if there is no room for it.
bool add_parameter(StartupPacket &packet, const char *name, const char *value) noexcept {
  if (equal(name, "user")) {
    packet.user = value;
  } else if (equal(name, "database")) {
    packet.database = value;
  } else if (equal(name, "options")) {
    packet.options = value;
  } else if (equal(name, "replication")) {
    packet.replication = value;
  } else if (std::strncmp(name, "_pq_.", 5) == 0) {
    // A list cut short would tell the client that the rest is understood.
    if (packet.unknown_protocol_option_count == kMaxUnknownProtocolOptions) {
      return false;
    }
    packet.unknown_protocol_options[packet.unknown_protocol_option_count++] = name;
  } else {
    if (packet.parameter_count == kMaxStartupParameters) {
      return false;
    }
    packet.parameters[packet.parameter_count++] = StartupParameter{name, value};
    if (equal(name, "application_name")) {
      packet.application_name = value;
    }
  }
  return true;
}

// The pairs between `next` and `last`, which is the last byte of the packet.
StartupError read_parameters(StartupPacket &packet, const char *next, const char *last) noexcept {
  if (next > last || *last != '\0') {
    return StartupError::bad_layout;
  }
  bool overflow = false;
  while (*next != '\0') {
    const char *name = next;
    const char *value = name + std::strlen(name) + 1;
    if (value > last) {
      return StartupError::bad_layout;  // a name without a value
    }
    next = value + std::strlen(value) + 1;
    if (!add_parameter(packet, name, value)) {
      overflow = true;  // but a bad layout further on is the better explanation
    }
    if (next > last) {
      return StartupError::bad_layout;  // the value took the last NUL; no terminator is left
    }
  }
  if (next != last) {
    return StartupError::bad_layout;  // bytes behind the terminator
  }
  return overflow ? StartupError::too_many_parameters : StartupError::none;
}

// The length a request must have; 0 if any will do.
std::uint32_t fixed_length(std::uint32_t code) noexcept {
  switch (code) {
    case kCancelRequestCode:
      return 16;
    case kSslRequestCode:
    case kGssencRequestCode:
      return 8;
    default:
      return 0;
  }
}

}  // namespace

const char *describe(StartupError error) noexcept {
  switch (error) {
    case StartupError::none:
      return "no error";
    case StartupError::invalid_length:
      return "invalid length of startup packet";
    case StartupError::unsupported_protocol:
      return "unsupported frontend protocol";
    case StartupError::bad_layout:
      return "invalid startup packet layout: expected terminator as last byte";
    case StartupError::too_many_parameters:
      return "too many parameters in startup packet";
  }
  return "unknown error";
}

StartupPacket parse_startup_packet(const char *bytes, std::size_t available) noexcept {
  StartupPacket packet;
  if (available < 4) {
    return packet;
  }
  const std::uint32_t length = read_word(bytes);
  if (length < kMinStartupPacketLength || length > kMaxStartupPacketLength) {
    refuse(packet, StartupError::invalid_length);
    return packet;
  }
  if (available < 8) {
    return packet;
  }
  packet.protocol = read_word(bytes + 4);
  const std::uint32_t expected = fixed_length(packet.protocol);
  if (expected != 0 && length != expected) {
    refuse(packet, StartupError::invalid_length);
    return packet;
  }
  if (available < length) {
    return packet;
  }

  packet.length = length;
  switch (packet.protocol) {
    case kSslRequestCode:
      packet.kind = StartupKind::ssl_request;
      return packet;
    case kGssencRequestCode:
      packet.kind = StartupKind::gssenc_request;
      return packet;
    case kCancelRequestCode:
      packet.kind = StartupKind::cancel_request;
      packet.cancel_pid = read_word(bytes + 8);
      packet.cancel_key = read_word(bytes + 12);
      return packet;
    default:
      break;
  }
  if (protocol_major(packet.protocol) != kProtocolMajor) {
    refuse(packet, StartupError::unsupported_protocol);
    return packet;
  }
  packet.kind = StartupKind::startup;
  const StartupError error = read_parameters(packet, bytes + 8, bytes + length - 1);
  if (error != StartupError::none) {
    refuse(packet, error);
  }
  return packet;
}

}  // namespace sluice
