// SPDX-License-Identifier: PostgreSQL
//
// The fields of a message's body, and those of a Bind message: whole, cut short at
// every byte, and with lengths that lie.  Each input is copied into a block of
// exactly its size, so that a sanitizer sees any byte read too far.

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <csetjmp>
#include <memory>
#include <random>
#include <string>
#include <vector>

extern "C" {
#include <cmocka.h>
}

#include "core/session/bind_message.hpp"

namespace {

using sluice::BindMessage;
using sluice::BindValue;
using sluice::BodyError;
using sluice::FormatCodes;
using sluice::MessageBody;

// Bytes in a block of their own size.
class Block {
 public:
  explicit Block(const std::string &bytes) : bytes_(std::make_unique<char[]>(bytes.size())), size_(bytes.size()) {
    std::memcpy(bytes_.get(), bytes.data(), bytes.size());
  }
  const char *get() const { return bytes_.get(); }
  std::size_t size() const { return size_; }

 private:
  std::unique_ptr<char[]> bytes_;
  std::size_t size_;
};

std::string word16(int value) {
  return {static_cast<char>(value >> 8), static_cast<char>(value)};
}

std::string word32(std::uint32_t value) {
  return word16(static_cast<int>(value >> 16)) + word16(static_cast<int>(value & 0xffff));
}

std::string text(const char *characters) {
  return std::string(characters) + '\0';
}

std::string value(const std::string &bytes) {
  return word32(static_cast<std::uint32_t>(bytes.size())) + bytes;
}

const std::string kNull = word32(0xffffffff);

// All that was read, up to the first error.
struct Reading {
  std::string portal, statement;
  std::vector<int> formats, result_formats;
  std::vector<std::string> values;  // "NULL" for null
  BodyError error = BodyError::none;
};

std::vector<int> codes_of(const FormatCodes &formats) {
  std::vector<int> codes;
  for (int i = 0; i < formats.count(); i++) codes.push_back(formats.code(i));
  return codes;
}

BodyError read_fields(BindMessage *message, Reading *reading) {
  const char *name = message->read_portal_name();
  if (name == nullptr) return message->error();
  reading->portal = name;
  name = message->read_statement_name();
  if (name == nullptr) return message->error();
  reading->statement = name;
  FormatCodes formats;
  if (!message->read_formats(&formats)) return message->error();
  reading->formats = codes_of(formats);
  int count;
  if (!message->read_value_count(&count)) return message->error();
  for (int i = 0; i < count; i++) {
    BindValue one;
    if (!message->read_value(&one)) return message->error();
    reading->values.push_back(one.bytes == nullptr ? "NULL"
                                                   : std::string(one.bytes, static_cast<std::size_t>(one.length)));
  }
  if (!message->read_formats(&formats)) return message->error();
  reading->result_formats = codes_of(formats);
  message->read_end();
  return message->error();
}

Reading read(const std::string &bytes) {
  const Block block(bytes);
  BindMessage message(block.get(), block.size());
  Reading reading;
  reading.error = read_fields(&message, &reading);
  return reading;
}

const std::string kWhole = text("portal") + text("statement") + word16(2) + word16(0) + word16(1) + word16(2) +
                           value("seven") + kNull + word16(1) + word16(1);

void a_whole_message_is_read(void **) {
  const Reading reading = read(kWhole);
  assert_true(reading.error == BodyError::none);
  assert_string_equal(reading.portal.c_str(), "portal");
  assert_string_equal(reading.statement.c_str(), "statement");
  assert_true(reading.formats == std::vector<int>({0, 1}));
  assert_true(reading.values == std::vector<std::string>({"seven", "NULL"}));
  assert_true(reading.result_formats == std::vector<int>({1}));
}

void the_smallest_message_is_eight_bytes_of_nothing(void **) {
  const Reading reading = read(std::string(8, '\0'));
  assert_true(reading.error == BodyError::none);
  assert_true(reading.portal.empty() && reading.statement.empty());
  assert_true(reading.formats.empty() && reading.values.empty() && reading.result_formats.empty());
}

void every_shorter_message_is_an_error(void **) {
  const std::size_t names = text("portal").size() + text("statement").size();
  for (std::size_t size = 0; size < kWhole.size(); size++) {
    const Reading reading = read(kWhole.substr(0, size));
    assert_true(reading.error == (size < names ? BodyError::unterminated_string : BodyError::too_short));
  }
}

void a_longer_message_is_an_error(void **) {
  assert_true(read(kWhole + '\0').error == BodyError::bytes_left_over);
  assert_true(read(kWhole + "more").error == BodyError::bytes_left_over);
}

void empty_is_not_null(void **) {
  const Reading reading = read(std::string(4, '\0') + word16(2) + value("") + kNull + word16(0));
  assert_true(reading.error == BodyError::none);
  assert_true(reading.values == std::vector<std::string>({"", "NULL"}));
}

void an_empty_value_is_somewhere_in_the_message(void **) {
  const Block block(std::string(4, '\0') + word16(1) + value("") + word16(0));
  BindMessage message(block.get(), block.size());
  FormatCodes formats;
  int count;
  BindValue one;
  assert_true(message.read_portal_name() == block.get());
  assert_true(message.read_statement_name() == block.get() + 1);
  assert_true(message.read_formats(&formats) && message.read_value_count(&count) && message.read_value(&one));
  assert_true(one.bytes == block.get() + 10);
  assert_int_equal(one.length, 0);
}

void only_minus_one_of_the_negative_lengths_is_null(void **) {
  for (const std::uint32_t length : {0xfffffffeu, 0x80000000u, 0xffff0000u}) {
    assert_true(read(std::string(4, '\0') + word16(1) + word32(length) + word16(0)).error == BodyError::too_short);
  }
}

void lengths_beyond_the_end_are_errors(void **) {
  for (const std::uint32_t length : {4u, 5u, 0x7fffffffu}) {
    assert_true(read(std::string(4, '\0') + word16(1) + word32(length) + "abc").error == BodyError::too_short);
  }
}

void counts_are_not_signed(void **) {
  std::string bytes = std::string(2, '\0') + word16(0xffff);
  for (int i = 0; i < 0xffff; i++) bytes += word16(i);
  bytes += word16(0xffff);
  for (int i = 0; i < 0xffff; i++) bytes += kNull;
  const Reading reading = read(bytes + word16(0));
  assert_true(reading.error == BodyError::none);
  assert_int_equal(reading.formats.size(), 0xffff);
  assert_int_equal(reading.values.size(), 0xffff);
  assert_int_equal(reading.formats[0x7fff], 0x7fff);
  assert_int_equal(reading.formats[0x8000], -0x8000);
  assert_int_equal(reading.formats[0xfffe], -2);
  assert_true(read(bytes).error == BodyError::too_short);
}

void one_code_is_that_of_all_values(void **) {
  const std::string bytes = word16(0) + word16(1) + word16(7);
  assert_int_equal(FormatCodes().of(3), 0);
  assert_int_equal(FormatCodes(bytes.data() + 2, 1).of(3), 1);
  const FormatCodes three(bytes.data(), 3);
  assert_int_equal(three.of(0), 0);
  assert_int_equal(three.of(1), 1);
  assert_int_equal(three.of(2), 7);
}

void several_codes_are_one_for_each_value(void **) {
  const std::string bytes = word16(0) + word16(1);
  const FormatCodes none, one(bytes.data(), 1), two(bytes.data(), 2);
  for (const int count : {0, 1, 2, 3, 65535}) {
    assert_true(none.fit(count));
    assert_true(one.fit(count));
    assert_int_equal(two.fit(count), count == 2);
  }
}

void the_first_error_stays_and_nothing_more_is_read(void **) {
  const Block block("no end");
  MessageBody body(block.get(), block.size());
  assert_null(body.read_string());
  assert_true(body.error() == BodyError::unterminated_string);
  assert_int_equal(body.read_word16(), 0);
  assert_int_equal(body.read_word32(), 0);
  assert_null(body.read_bytes(1));
  assert_null(body.read_bytes(0));
  assert_null(body.read_string());
  assert_false(body.read_end());
  assert_true(body.error() == BodyError::unterminated_string);
  assert_int_equal(body.left(), block.size());
}

void half_a_word_is_no_word(void **) {
  const Block block("\x01\x02\x03");
  MessageBody body(block.get(), block.size());
  assert_int_equal(body.read_word32(), 0);
  assert_true(body.error() == BodyError::too_short);
}

void words_are_of_the_networks_order(void **) {
  const Block block("\x81\x02\xf3\x04\xf5\x06");
  MessageBody body(block.get(), block.size());
  assert_int_equal(body.read_word16(), 0x8102);
  assert_int_equal(body.read_word32(), 0xf304f506);
  assert_true(body.read_end());
}

void a_body_can_be_empty(void **) {
  MessageBody body(nullptr, 0);
  assert_null(body.read_bytes(0));
  assert_true(body.good());
  assert_true(body.read_end());
  assert_null(body.read_string());
  assert_true(body.error() == BodyError::unterminated_string);
}

void errors_are_in_the_servers_words(void **) {
  assert_string_equal(describe(BodyError::unterminated_string), "invalid string in message");
  assert_string_equal(describe(BodyError::too_short), "insufficient data left in message");
  assert_string_equal(describe(BodyError::bytes_left_over), "invalid message format");
}

void garbage_does_no_harm(void **) {
  std::mt19937 random(271828);
  for (int round = 0; round < 50000; round++) {
    std::string bytes = kWhole;
    const std::size_t changes = random() % 8;
    for (std::size_t i = 0; i < changes; i++) bytes[random() % bytes.size()] = static_cast<char>(random());
    bytes.resize(random() % (bytes.size() + 1));
    const Reading reading = read(bytes);
    assert_true(reading.values.size() * 4 <= bytes.size());
  }
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(a_whole_message_is_read),
      cmocka_unit_test(the_smallest_message_is_eight_bytes_of_nothing),
      cmocka_unit_test(every_shorter_message_is_an_error),
      cmocka_unit_test(a_longer_message_is_an_error),
      cmocka_unit_test(empty_is_not_null),
      cmocka_unit_test(an_empty_value_is_somewhere_in_the_message),
      cmocka_unit_test(only_minus_one_of_the_negative_lengths_is_null),
      cmocka_unit_test(lengths_beyond_the_end_are_errors),
      cmocka_unit_test(counts_are_not_signed),
      cmocka_unit_test(one_code_is_that_of_all_values),
      cmocka_unit_test(several_codes_are_one_for_each_value),
      cmocka_unit_test(the_first_error_stays_and_nothing_more_is_read),
      cmocka_unit_test(half_a_word_is_no_word),
      cmocka_unit_test(words_are_of_the_networks_order),
      cmocka_unit_test(a_body_can_be_empty),
      cmocka_unit_test(errors_are_in_the_servers_words),
      cmocka_unit_test(garbage_does_no_harm),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
