// SPDX-License-Identifier: PostgreSQL
//
// The message types a client may send, and how long each may be.

#include "core/session/message.hpp"

namespace sluice {

namespace {

// What is known of a message by its type; no limit: no such type.
struct MessageKind {
  std::uint32_t limit;
  bool extended;
};

MessageKind kind_of(char type) noexcept {
  switch (type) {
    case 'Q':  // simple query
    case 'F':  // fast-path function call
    case 'd':  // copy data
      return {kLargeMessageLimit, false};
    case 'P':  // parse
    case 'B':  // bind
      return {kLargeMessageLimit, true};
    case 'C':  // close
    case 'D':  // describe
    case 'E':  // execute
    case 'H':  // flush
      return {kSmallMessageLimit, true};
    case 'S':  // sync; not "extended": an error in it must not begin to skip
    case 'X':  // terminate
    case 'c':  // copy done
    case 'f':  // copy fail
      return {kSmallMessageLimit, false};
    default:
      return {0, false};
  }
}

}  // namespace

Frame parse_frame(const char *bytes, std::size_t available, bool authenticating) noexcept {
  Frame frame;
  if (available == 0) {
    return frame;
  }
  frame.type = bytes[0];
  MessageKind kind = kind_of(frame.type);
  if (authenticating) {
    kind = {frame.type == 'p' ? kAuthenticationMessageLimit : 0, false};
  }
  if (kind.limit == 0) {
    frame.status = FrameStatus::invalid_type;
    return frame;
  }
  frame.large = kind.limit == kLargeMessageLimit;
  frame.extended = kind.extended;
  if (available < kMessageHeaderBytes) {
    return frame;
  }
  const auto *octets = reinterpret_cast<const unsigned char *>(bytes);
  const std::uint32_t length = (static_cast<std::uint32_t>(octets[1]) << 24) |
                               (static_cast<std::uint32_t>(octets[2]) << 16) |
                               (static_cast<std::uint32_t>(octets[3]) << 8) | static_cast<std::uint32_t>(octets[4]);
  if (length < 4 || length > kind.limit) {
    frame.status = FrameStatus::invalid_length;
    return frame;
  }
  frame.status = FrameStatus::complete;
  frame.body_length = length - 4;
  return frame;
}

}  // namespace sluice
