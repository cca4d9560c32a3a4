// SPDX-License-Identifier: PostgreSQL
//
// The client's side of an authentication: a stream of messages of type 'p', read
// frame by frame within the limits of the exchange, as the login reads them.  The
// input is the stream.

#include "core/auth/sasl_message.hpp"
#include "core/session/message.hpp"
#include "property.hpp"

using sluice::BodyError;
using sluice::Frame;
using sluice::FrameStatus;
using sluice::kMessageHeaderBytes;
using sluice::PasswordError;
using sluice::PasswordMessage;
using sluice::SaslMessage;
using sluice::fuzz::Block;
using sluice::fuzz::Encoding;
using sluice::fuzz::require;
using sluice::fuzz::Span;

namespace {

enum class Exchange { sasl, password };

BodyError expected_error(Span body) {
  const std::size_t name = body.size == 0 ? 0 : ::strnlen(body.bytes, body.size);
  if (name == body.size) return BodyError::unterminated_string;
  if (body.size - name - 1 < 4) return BodyError::too_short;
  const std::uint32_t length = sluice::fuzz::word_at(body.bytes + name + 1);
  const std::size_t behind = body.size - name - 5;
  if (length == 0xffffffff) return behind == 0 ? BodyError::none : BodyError::bytes_left_over;
  if (length > behind) return BodyError::too_short;
  return length == behind ? BodyError::none : BodyError::bytes_left_over;
}

void check_data(Span body, const SaslMessage &message) {
  if (message.data == nullptr) {
    require(message.length == -1, "no data has no length");
    return;
  }
  require(message.length >= 0 && body.holds(message.data, static_cast<std::size_t>(message.length)),
          "data lies in the message");
  require(message.data + message.length == body.bytes + body.size, "data reaches to the end of the message");
}

// True if the exchange goes on.
bool check_initial(Span body) {
  const SaslMessage message = sluice::parse_sasl_initial_response(body.bytes, body.size);
  require(message.error == expected_error(body), "the error is the first one there is");
  const bool terminated = message.error != BodyError::unterminated_string;
  require((message.mechanism != nullptr) == terminated, "the mechanism is there whatever follows");
  if (terminated) {
    require(message.mechanism == body.bytes && body.holds_string(message.mechanism), "the mechanism comes first");
  }
  if (message.error != BodyError::none) {
    require(message.data == nullptr && message.length == -1, "no data of a bad message");
    return false;
  }
  check_data(body, message);
  Encoding encoding(body);
  encoding.put_string(message.mechanism);
  encoding.put_word32(static_cast<std::uint32_t>(message.length));
  if (message.length > 0) encoding.put(message.data, static_cast<std::size_t>(message.length));
  encoding.finish();
  return true;
}

bool check_response(Span body) {
  const SaslMessage message = sluice::parse_sasl_response(body.bytes, body.size);
  require(message.error == BodyError::none && message.mechanism == nullptr, "a response is data alone");
  require(message.data == body.bytes && message.length == static_cast<std::int32_t>(body.size), "and all of it");
  check_data(body, message);
  return true;
}

bool check_password(Span body) {
  const PasswordMessage message = sluice::parse_password_message(body.bytes, body.size);
  require((message.password != nullptr) == (message.error == PasswordError::none), "a password or an error");
  if (message.error == PasswordError::none) {
    Encoding encoding(body);
    require(message.password[0] != '\0', "a password is not empty");
    encoding.put_string(message.password);
    encoding.finish();
    return true;
  }
  std::size_t nuls = 0;
  for (std::size_t i = 0; i < body.size; i++) nuls += body.bytes[i] == '\0';
  const bool one_string = nuls == 1 && body.bytes[body.size - 1] == '\0';
  require(message.error == (one_string ? PasswordError::empty : PasswordError::invalid_size), "errors say what is so");
  require(!one_string || body.size == 1, "only the empty password is refused for what it is");
  return false;
}

// One message after the other until one is refused or the stream ends.
void run(Exchange exchange, Span stream) {
  const std::uint32_t limit =
      exchange == Exchange::sasl ? sluice::kSaslMessageLimit : sluice::kAuthenticationMessageLimit;
  bool initial = exchange == Exchange::sasl;

  for (std::size_t at = 0;;) {
    const std::size_t available = stream.size - at;
    const Frame frame = sluice::parse_frame(stream.bytes + at, available, true);
    if (frame.status != FrameStatus::complete) break;
    require(frame.type == 'p' && frame.body_length + 4 <= sluice::kAuthenticationMessageLimit, "only so much of 'p'");
    if (frame.body_length + 4 > limit || available - kMessageHeaderBytes < frame.body_length) break;

    const Block block(stream.bytes + at + kMessageHeaderBytes, frame.body_length);
    const Span body{block.get(), block.size()};
    if (!(exchange == Exchange::password ? check_password(body) : initial ? check_initial(body) : check_response(body)))
      break;
    initial = false;
    at += kMessageHeaderBytes + frame.body_length;
  }
}

// Makes each length that reaches beyond the end reach to the end.
void repair(std::uint8_t *stream, std::size_t size) {
  for (std::size_t at = 0; at + kMessageHeaderBytes <= size;) {
    const std::size_t left = size - at - 1;
    stream[at] = 'p';
    std::uint32_t length = sluice::fuzz::word_at(stream + at + 1);
    if (length < 4 || length > left) {
      length = static_cast<std::uint32_t>(left);
      sluice::fuzz::put_word(stream + at + 1, length);
    }
    at += 1 + length;
  }
}

// Lets the data of the first message fill it.
void repair_data(std::uint8_t *stream, std::size_t size) {
  if (size < kMessageHeaderBytes) return;
  const std::size_t end = 1 + sluice::fuzz::word_at(stream + 1);
  for (std::size_t at = kMessageHeaderBytes; at + 5 <= end; at++) {
    if (stream[at] != '\0') continue;
    sluice::fuzz::put_word(stream + at + 1, static_cast<std::uint32_t>(end - at - 5));
    return;
  }
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
  const Span stream{reinterpret_cast<const char *>(data), size};
  run(Exchange::sasl, stream);
  run(Exchange::password, stream);
  return 0;
}

std::size_t LLVMFuzzerCustomMutator(std::uint8_t *data, std::size_t size, std::size_t max_size, unsigned int seed) {
  size = LLVMFuzzerMutate(data, size, max_size);
  if (seed % 4 != 0) repair(data, size);
  if (seed % 4 == 3) repair_data(data, size);
  return size;
}
