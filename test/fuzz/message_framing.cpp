// SPDX-License-Identifier: PostgreSQL
//
// A stream of messages: the same frames come out however the bytes are cut into
// pieces on their way.  The input is the stream; where it is cut follows from it.

#include <vector>

#include "core/session/message.hpp"
#include "property.hpp"

using sluice::Frame;
using sluice::FrameStatus;
using sluice::kMessageHeaderBytes;
using sluice::fuzz::Block;
using sluice::fuzz::Encoding;
using sluice::fuzz::require;
using sluice::fuzz::Span;

namespace {

constexpr char kLargeTypes[] = "QFdPB";
constexpr char kSmallTypes[] = "CDEHSXcf";
constexpr char kExtendedTypes[] = "PBCDEH";

bool among(const char *types, char type) {
  return type != '\0' && std::strchr(types, type) != nullptr;
}

bool same(const Frame &one, const Frame &other) {
  return one.status == other.status && one.type == other.type && one.body_length == other.body_length &&
         one.large == other.large && one.extended == other.extended;
}

// The frames of a stream, and how many bytes of bodies came with them.
struct Frames {
  std::vector<Frame> frames;  // the last may be incomplete, invalid, or without all of its body
  std::size_t body_bytes = 0;

  void clear() {
    frames.clear();
    body_bytes = 0;
  }
};

void check_frame(Span bytes, const Frame &frame, bool authenticating) {
  const bool known =
      authenticating ? frame.type == 'p' : among(kLargeTypes, frame.type) || among(kSmallTypes, frame.type);
  require(bytes.size == 0 || frame.type == bytes.bytes[0], "the type is the first byte");
  require((frame.status == FrameStatus::invalid_type) == (bytes.size > 0 && !known), "types are the protocol's");
  if (frame.status == FrameStatus::incomplete)
    require(bytes.size < kMessageHeaderBytes, "a whole header is enough for a judgement");
  if (frame.status == FrameStatus::invalid_type) return;
  require(frame.large == (!authenticating && among(kLargeTypes, frame.type)),
          "large messages are those of large types");
  require(frame.extended == (!authenticating && among(kExtendedTypes, frame.type)), "extended messages, too");
  if (frame.status == FrameStatus::incomplete) return;

  const std::uint32_t limit = authenticating ? sluice::kAuthenticationMessageLimit
                              : frame.large  ? sluice::kLargeMessageLimit
                                             : sluice::kSmallMessageLimit;
  const std::uint32_t length = sluice::fuzz::word_at(bytes.bytes + 1);
  require((frame.status == FrameStatus::complete) == (length >= 4 && length <= limit), "lengths are within limits");
  if (frame.status != FrameStatus::complete) {
    require(frame.body_length == 0, "no body of an invalid length");
    return;
  }
  Encoding header(Span{bytes.bytes, kMessageHeaderBytes});
  header.put(&frame.type, 1);
  header.put_word32(frame.body_length + 4);
  header.finish();
}

// With all bytes there from the beginning.
void read_whole(Span stream, bool authenticating, Frames *result) {
  result->clear();
  for (std::size_t at = 0; at < stream.size;) {
    const Span rest{stream.bytes + at, stream.size - at};
    const Frame frame = sluice::parse_frame(rest.bytes, rest.size, authenticating);
    check_frame(rest, frame, authenticating);
    result->frames.push_back(frame);
    if (frame.status != FrameStatus::complete) break;
    const std::size_t body =
        rest.size - kMessageHeaderBytes < frame.body_length ? rest.size - kMessageHeaderBytes : frame.body_length;
    result->body_bytes += body;
    at += kMessageHeaderBytes + body;
  }
}

// Takes a stream piece by piece and keeps no more of it than a header.  Each
// header is judged in a block of as many bytes as have come.
class Receiver {
 public:
  Receiver(bool authenticating, Frames *result) : authenticating_(authenticating), result_(result) { result_->clear(); }

  void take(const char *bytes, std::size_t size) {
    while (size > 0 && !lost_) {
      if (body_left_ > 0) {
        const std::size_t part = size < body_left_ ? size : body_left_;
        result_->body_bytes += part;
        body_left_ -= part;
        bytes += part;
        size -= part;
        continue;
      }
      const std::size_t part = size < kMessageHeaderBytes - held_ ? size : kMessageHeaderBytes - held_;
      std::memcpy(header_ + held_, bytes, part);
      held_ += part;
      bytes += part;
      size -= part;
      judge();
    }
  }

  void end() {
    if (held_ > 0 && !lost_) result_->frames.push_back(last_);
  }

 private:
  void judge() {
    static const Block blocks[] = {Block(0), Block(1), Block(2), Block(3), Block(4), Block(5)};
    char *block = blocks[held_].get();
    std::memcpy(block, header_, held_);
    last_ = sluice::parse_frame(block, held_, authenticating_);
    if (last_.status == FrameStatus::incomplete) return;
    result_->frames.push_back(last_);
    lost_ = last_.status != FrameStatus::complete;
    body_left_ = last_.body_length;
    held_ = 0;
  }

  bool authenticating_;
  Frames *result_;
  char header_[kMessageHeaderBytes];
  std::size_t held_ = 0;
  std::size_t body_left_ = 0;
  Frame last_;
  bool lost_ = false;
};

void require_same(const Frames &one, const Frames &other) {
  require(one.frames.size() == other.frames.size(), "as many frames however the bytes are cut");
  for (std::size_t i = 0; i < one.frames.size(); i++)
    require(same(one.frames[i], other.frames[i]), "the same frames however the bytes are cut");
  require(one.body_bytes == other.body_bytes, "the same bodies however the bytes are cut");
}

// Lengths of pieces from 1 to `longest`; the state is that of a generator seeded with the input.
void read_pieces(Span stream, bool authenticating, std::uint64_t state, std::size_t longest, Frames *result) {
  Receiver receiver(authenticating, result);
  for (std::size_t at = 0; at < stream.size;) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    std::size_t piece = 1 + static_cast<std::size_t>(state >> 33) % longest;
    if (piece > stream.size - at) piece = stream.size - at;
    receiver.take(stream.bytes + at, piece);
    at += piece;
  }
  receiver.end();
}

std::uint64_t seed_of(Span stream) {
  std::uint64_t hash = 14695981039346656037u;
  for (std::size_t i = 0; i < stream.size; i++) {
    hash = (hash ^ static_cast<unsigned char>(stream.bytes[i])) * 1099511628211u;
  }
  return hash;
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
  static Frames whole, pieces;
  const Span stream{reinterpret_cast<const char *>(data), size};
  const std::uint64_t seed = seed_of(stream);
  for (const bool authenticating : {false, true}) {
    read_whole(stream, authenticating, &whole);
    for (const std::size_t longest : {std::size_t{1}, std::size_t{6}, std::size_t{40}}) {
      read_pieces(stream, authenticating, seed, longest, &pieces);
      require_same(whole, pieces);
    }
  }
  return 0;
}

// Makes a length that reaches beyond the end reach to the end.
std::size_t LLVMFuzzerCustomMutator(std::uint8_t *data, std::size_t size, std::size_t max_size, unsigned int seed) {
  size = LLVMFuzzerMutate(data, size, max_size);
  if (seed % 2 == 0) return size;
  for (std::size_t at = 0; at + kMessageHeaderBytes <= size;) {
    const std::size_t left = size - at - 1;
    std::uint32_t length = sluice::fuzz::word_at(data + at + 1);
    if (length < 4 || length > left) {
      length = static_cast<std::uint32_t>(left);
      sluice::fuzz::put_word(data + at + 1, length);
    }
    at += 1 + length;
  }
  return size;
}
