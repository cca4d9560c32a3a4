// SPDX-License-Identifier: PostgreSQL
//
// The first packet of a client, and the switches in its "options".  The input is
// what has arrived: a packet, a part of one, or one with bytes behind it.

#include <string>

#include "core/accept/startup_options.hpp"
#include "core/accept/startup_packet.hpp"
#include "property.hpp"

using sluice::OptionsError;
using sluice::OptionsResult;
using sluice::StartupError;
using sluice::StartupKind;
using sluice::StartupPacket;
using sluice::StartupParameter;
using sluice::fuzz::Block;
using sluice::fuzz::require;
using sluice::fuzz::Span;

namespace {

constexpr std::size_t kMostSettings = 512;

// Of texts in different places.
bool same_text(const char *one, const char *other) {
  return one == nullptr || other == nullptr ? one == other : std::strcmp(one, other) == 0;
}

void require_same(const StartupPacket &one, const StartupPacket &other) {
  require(one.kind == other.kind && one.error == other.error, "the same kind and error");
  require(one.length == other.length && one.protocol == other.protocol, "the same length and protocol");
  require(one.cancel_pid == other.cancel_pid && one.cancel_key == other.cancel_key, "the same key");
  require(same_text(one.user, other.user) && same_text(one.database, other.database) &&
              same_text(one.options, other.options) && same_text(one.replication, other.replication) &&
              same_text(one.application_name, other.application_name),
          "the same values of known names");
  require(one.parameter_count == other.parameter_count, "as many parameters");
  for (std::size_t i = 0; i < one.parameter_count; i++)
    require(same_text(one.parameters[i].name, other.parameters[i].name) &&
                same_text(one.parameters[i].value, other.parameters[i].value),
            "the same parameters");
  require(one.unknown_protocol_option_count == other.unknown_protocol_option_count, "as many protocol options");
}

// Takes the pairs of a body one by one and looks for each in the answer.
class Pairs {
 public:
  explicit Pairs(const StartupPacket &packet) : packet_(packet) {}

  void take(const char *name, const char *value) {
    const std::string text(name);
    if (text == "user") {
      user_ = value;
    } else if (text == "database") {
      database_ = value;
    } else if (text == "options") {
      options_ = value;
    } else if (text == "replication") {
      replication_ = value;
    } else if (text.compare(0, 5, "_pq_.") == 0) {
      if (unknown_ < packet_.unknown_protocol_option_count)
        require(packet_.unknown_protocol_options[unknown_] == name, "unknown options in the order sent");
      unknown_++;
    } else {
      if (text == "application_name") application_name_ = value;
      if (others_ < packet_.parameter_count)
        require(packet_.parameters[others_].name == name && packet_.parameters[others_].value == value,
                "parameters in the order sent");
      others_++;
    }
  }

  bool too_many() const {
    return others_ > sluice::kMaxStartupParameters || unknown_ > sluice::kMaxUnknownProtocolOptions;
  }

  void require_all() const {
    require(others_ == packet_.parameter_count && unknown_ == packet_.unknown_protocol_option_count, "all are there");
    require(user_ == packet_.user && database_ == packet_.database && options_ == packet_.options &&
                replication_ == packet_.replication && application_name_ == packet_.application_name,
            "of a repeated name the last value counts");
  }

 private:
  const StartupPacket &packet_;
  const char *user_ = nullptr, *database_ = nullptr, *options_ = nullptr, *replication_ = nullptr;
  const char *application_name_ = nullptr;
  std::size_t others_ = 0, unknown_ = 0;
};

// The error of a start-up packet, from a walk over its pairs that takes no NUL for granted.
StartupError walk(Span body, Pairs *pairs) {
  std::size_t at = 0;
  const auto string = [&]() -> const char * {
    const char *begin = body.bytes + at;
    const void *end = std::memchr(begin, '\0', body.size - at);
    if (end == nullptr) return nullptr;
    at = static_cast<std::size_t>(static_cast<const char *>(end) - body.bytes) + 1;
    return begin;
  };
  for (;;) {
    const char *name = at < body.size ? string() : nullptr;
    if (name == nullptr) return StartupError::bad_layout;
    if (name[0] == '\0') break;
    const char *value = at < body.size ? string() : nullptr;
    if (value == nullptr) return StartupError::bad_layout;
    pairs->take(name, value);
  }
  if (at != body.size) return StartupError::bad_layout;
  return pairs->too_many() ? StartupError::too_many_parameters : StartupError::none;
}

// ---------------------------------------------------------------- options

void require_inside(Span buffer, const char *text) {
  const bool own = text >= buffer.bytes && text < buffer.bytes + buffer.size;
  require(own ? buffer.holds_string(text) : std::strlen(text) < 32, "settings lie in the buffer or are constants");
}

OptionsResult read_options(const char *options, const Block &buffer, StartupParameter *settings, std::size_t capacity) {
  const OptionsResult result = sluice::parse_startup_options(options, buffer.get(), buffer.size(), settings, capacity);
  const Span span{buffer.get(), buffer.size()};
  require(result.count <= capacity, "no more settings than there is room for");
  for (std::size_t i = 0; i < result.count; i++) {
    require_inside(span, settings[i].name);
    require_inside(span, settings[i].value);
  }
  const bool names_culprit =
      result.error == OptionsError::invalid_argument || result.error == OptionsError::missing_value;
  require((result.argument != nullptr) == names_culprit, "the culprit is named");
  if (names_culprit) require(span.holds_string(result.argument), "the culprit lies in the buffer");
  require((result.flag == 'c' || result.flag == '-') == (result.error == OptionsError::missing_value),
          "and its switch");
  return result;
}

void append_escaped(std::string *options, const char *text) {
  for (; *text != '\0'; text++) {
    if (std::strchr(" \t\n\v\f\r\\", *text) != nullptr) options->push_back('\\');
    options->push_back(*text);
  }
}

// Each setting as "-c name=value" leads to the same settings.
void check_again(const StartupParameter *settings, std::size_t count) {
  std::string options;
  for (std::size_t i = 0; i < count; i++) {
    options += "-c ";
    append_escaped(&options, settings[i].name);
    options += '=';
    append_escaped(&options, settings[i].value);
    options += ' ';
  }
  static StartupParameter again[kMostSettings];
  const Block buffer(sluice::options_buffer_bytes(options.size()));
  const OptionsResult result = read_options(options.c_str(), buffer, again, kMostSettings);
  require(result.error == OptionsError::none && result.count == count, "settings written out are read again");
  for (std::size_t i = 0; i < count; i++)
    require(same_text(settings[i].name, again[i].name) && same_text(settings[i].value, again[i].value),
            "and are the same");
}

void check_options(const char *options) {
  static StartupParameter settings[kMostSettings], fewer[kMostSettings];
  std::size_t length = 0, levels = 0;
  for (; options[length] != '\0'; length++) levels += options[length] == 'd';

  const Block buffer(sluice::options_buffer_bytes(length) + levels * sluice::kDebugLevelBytes);
  const OptionsResult whole = read_options(options, buffer, settings, kMostSettings);
  require(whole.error != OptionsError::too_long, "the buffer is as large as promised");
  check_again(settings, whole.count);

  // Less room: the same beginning, or a refusal.
  const Block small(length / 2);
  const OptionsResult cramped = read_options(options, small, fewer, kMostSettings);
  require(cramped.error == OptionsError::too_long || cramped.count == whole.count,
          "a small buffer is enough or is not");
  const Block again(buffer.size());
  const OptionsResult cut = read_options(options, again, fewer, whole.count / 2);
  require(whole.count == 0 || cut.error == OptionsError::too_many, "too many are too many");
  for (std::size_t i = 0; i < cut.count; i++)
    require(same_text(settings[i].name, fewer[i].name) && same_text(settings[i].value, fewer[i].value),
            "those there is room for are the first");
}

// ---------------------------------------------------------------- packet

void check_strings(Span bytes, const StartupPacket &packet) {
  for (const char *text : {packet.user, packet.database, packet.options, packet.replication, packet.application_name})
    require(text == nullptr || bytes.holds_string(text), "values end inside the packet");
  for (std::size_t i = 0; i < packet.parameter_count; i++)
    require(bytes.holds_string(packet.parameters[i].name) && bytes.holds_string(packet.parameters[i].value),
            "parameters end inside the packet");
  for (std::size_t i = 0; i < packet.unknown_protocol_option_count; i++)
    require(bytes.holds_string(packet.unknown_protocol_options[i]), "protocol options end inside the packet");
}

void check_request(Span bytes, const StartupPacket &packet) {
  switch (packet.kind) {
    case StartupKind::ssl_request:
      require(packet.length == 8 && packet.protocol == sluice::kSslRequestCode, "an SSL request");
      break;
    case StartupKind::gssenc_request:
      require(packet.length == 8 && packet.protocol == sluice::kGssencRequestCode, "a GSS request");
      break;
    case StartupKind::cancel_request:
      require(packet.length == 16 && packet.protocol == sluice::kCancelRequestCode, "a cancel request");
      require(packet.cancel_pid == sluice::fuzz::word_at(bytes.bytes + 8) &&
                  packet.cancel_key == sluice::fuzz::word_at(bytes.bytes + 12),
              "process and key as sent");
      break;
    default:
      break;
  }
}

void check_whole(Span bytes, const StartupPacket &packet) {
  require(packet.length == sluice::fuzz::word_at(bytes.bytes) && packet.length <= bytes.size,
          "the length is that sent");
  require(packet.length >= sluice::kMinStartupPacketLength && packet.length <= sluice::kMaxStartupPacketLength,
          "lengths are within limits");
  require(packet.protocol == sluice::fuzz::word_at(bytes.bytes + 4), "the code is that sent");
  check_request(bytes, packet);
  check_strings(Span{bytes.bytes, packet.length}, packet);
  const bool request = packet.kind != StartupKind::startup && packet.kind != StartupKind::invalid;
  if (request) return;
  const bool supported = sluice::protocol_major(packet.protocol) == sluice::kProtocolMajor;
  require(supported == (packet.error != StartupError::unsupported_protocol), "only version 3");
  if (!supported) return;
  Pairs pairs(packet);
  require(packet.error == walk(Span{bytes.bytes + 8, packet.length - 8}, &pairs), "the error is the one there is");
  require((packet.kind == StartupKind::invalid) == (packet.error != StartupError::none), "errors are invalid packets");
  if (packet.kind == StartupKind::startup) pairs.require_all();
  if (packet.options != nullptr) check_options(packet.options);
}

// Less of the same bytes is incomplete, or leads to the same answer.
void check_part(Span bytes, std::size_t size, const StartupPacket &whole) {
  if (size >= bytes.size) return;
  const Block part(bytes.bytes, size);
  const StartupPacket packet = sluice::parse_startup_packet(part.get(), part.size());
  if (packet.kind != StartupKind::incomplete) {
    require_same(packet, whole);
  } else {
    require(whole.length == 0 || size < whole.length, "a packet that is all there is not waited for");
    require(packet.length == 0 && packet.error == StartupError::none, "nothing is known of what is incomplete");
  }
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
  const Span bytes{reinterpret_cast<const char *>(data), size};
  const StartupPacket packet = sluice::parse_startup_packet(bytes.bytes, bytes.size);

  if (packet.length > 0) {
    check_whole(bytes, packet);
  } else {
    require(packet.kind == StartupKind::incomplete || packet.error == StartupError::invalid_length,
            "only bad lengths and incomplete packets have none");
    require(size < 4 || packet.error == StartupError::invalid_length || size < sluice::fuzz::word_at(data),
            "a packet that is all there is not waited for");
  }
  for (const std::size_t part : {std::size_t{3}, std::size_t{7}, packet.length - 1, packet.length})
    check_part(bytes, part, packet);
  return 0;
}

// Gives most inputs the right length, and some a version that is spoken.
std::size_t LLVMFuzzerCustomMutator(std::uint8_t *data, std::size_t size, std::size_t max_size, unsigned int seed) {
  size = LLVMFuzzerMutate(data, size, max_size);
  if (size < 8 || seed % 4 == 0) return size;
  sluice::fuzz::put_word(data, static_cast<std::uint32_t>(size));
  if (seed % 4 == 3) {
    sluice::fuzz::put_word(data + 4, sluice::make_protocol(3, 0));
    data[size - 1] = '\0';
    if (size >= 10) data[size - 2] = '\0';
  }
  return size;
}
