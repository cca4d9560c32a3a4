// SPDX-License-Identifier: PostgreSQL
//
// The body of a Bind message.  The input is the body, as it lies behind the
// message's header.

#include "core/session/bind_message.hpp"
#include "property.hpp"

using sluice::BindMessage;
using sluice::BindValue;
using sluice::BodyError;
using sluice::FormatCodes;
using sluice::fuzz::Block;
using sluice::fuzz::Encoding;
using sluice::fuzz::require;
using sluice::fuzz::Span;

namespace {

void put_codes(Encoding *encoding, const FormatCodes &formats) {
  encoding->put_word16(formats.count());
  for (int i = 0; i < formats.count(); i++) encoding->put_word16(formats.code(i));
}

void check_codes(const FormatCodes &formats, int values) {
  require(formats.count() >= 0 && formats.count() <= 65535, "a count has 16 bits");
  require(formats.fit(values) == (formats.count() < 2 || formats.count() == values), "none, one, or one for each");
  if (!formats.fit(values)) return;
  for (int i = 0; i < values; i++) {
    const int expected = formats.count() == 0 ? 0 : formats.code(formats.count() == 1 ? 0 : i);
    require(formats.of(i) == expected, "each value has its format");
  }
}

void check_value(Span body, const BindValue &value) {
  if (value.bytes == nullptr) {
    require(value.length == -1, "null has no length");
    return;
  }
  require(value.length >= 0, "a value has a length");
  require(body.holds(value.bytes, static_cast<std::size_t>(value.length)), "a value lies in the message");
}

// Reads as far as the message is sane, and encodes what was read.
BodyError read(Span body, Encoding *encoding) {
  BindMessage message(body.bytes, body.size);
  FormatCodes formats, result_formats;
  int count;

  const char *name = message.read_portal_name();
  if (name == nullptr) return message.error();
  require(body.holds_string(name), "the portal's name ends in the message");
  encoding->put_string(name);

  name = message.read_statement_name();
  if (name == nullptr) return message.error();
  require(body.holds_string(name), "the statement's name ends in the message");
  encoding->put_string(name);

  if (!message.read_formats(&formats)) return message.error();
  put_codes(encoding, formats);
  if (!message.read_value_count(&count)) return message.error();
  require(count >= 0 && count <= 65535, "a count has 16 bits");
  encoding->put_word16(count);
  for (int i = 0; i < count; i++) {
    BindValue value;
    if (!message.read_value(&value)) return message.error();
    check_value(body, value);
    encoding->put_word32(static_cast<std::uint32_t>(value.length));
    if (value.length > 0) encoding->put(value.bytes, static_cast<std::size_t>(value.length));
  }
  check_codes(formats, count);
  if (!message.read_formats(&result_formats)) return message.error();
  put_codes(encoding, result_formats);
  const bool ended = message.read_end();
  require(ended == (message.error() == BodyError::none), "an end is one or is an error");
  return message.error();
}

// The same answer, found by counting alone.
BodyError expected_error(Span body) {
  std::size_t at = 0;
  const auto left = [&] { return body.size - at; };
  const auto word16 = [&] {
    const auto *octets = reinterpret_cast<const unsigned char *>(body.bytes + at);
    at += 2;
    return static_cast<std::size_t>(octets[0] << 8 | octets[1]);
  };
  for (int names = 0; names < 2; at++) {
    if (at == body.size) return BodyError::unterminated_string;
    if (body.bytes[at] == '\0') names++;
  }
  for (int part = 0; part < 3; part++) {  // formats, values, formats
    if (left() < 2) return BodyError::too_short;
    std::size_t count = word16();
    if (part != 1) {
      if (left() < count * 2) return BodyError::too_short;
      at += count * 2;
      continue;
    }
    for (; count > 0; count--) {
      if (left() < 4) return BodyError::too_short;
      const std::uint32_t length = sluice::fuzz::word_at(body.bytes + at);
      at += 4;
      if (length == 0xffffffff) continue;
      if (length > left()) return BodyError::too_short;
      at += length;
    }
  }
  return left() == 0 ? BodyError::none : BodyError::bytes_left_over;
}

// As the server's caller does it: each value terminated in place while it is looked at.
void read_with_terminators(Span body) {
  Block copy(body.size + 1);
  std::memcpy(copy.get(), body.bytes, body.size);
  BindMessage message(copy.get(), body.size);
  FormatCodes formats;
  BindValue value;
  int count;
  message.read_portal_name();
  message.read_statement_name();
  message.read_formats(&formats);
  message.read_value_count(&count);
  for (int i = 0; i < count; i++) {
    require(message.read_value(&value), "a terminated value does not end the message");
    if (value.bytes == nullptr) continue;
    char *behind = copy.get() + (value.bytes - copy.get()) + value.length;
    const char kept = *behind;
    *behind = '\0';
    require(std::strlen(value.bytes) <= static_cast<std::size_t>(value.length), "a value can be terminated in place");
    *behind = kept;
  }
  require(message.read_formats(&formats) && message.read_end(), "terminated values do not end the message");
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
  const Span body{size > 0 ? reinterpret_cast<const char *>(data) : nullptr, size};
  Encoding encoding(body);
  const BodyError error = read(body, &encoding);
  require(error == expected_error(body), "the error is the first one there is");
  if (error == BodyError::none) {
    encoding.finish();
    read_with_terminators(body);
    const Block shorter(data, size - 1);
    const Span shorter_body{shorter.get(), shorter.size()};
    Encoding partial(shorter_body);
    require(read(shorter_body, &partial) == BodyError::too_short, "a byte less is an error");
  } else if (error == BodyError::bytes_left_over) {
    const Span exact{body.bytes, encoding.done()};
    Encoding whole(exact);
    require(read(exact, &whole) == BodyError::none, "without what is left over the message is sane");
  }
  return 0;
}
