// SPDX-License-Identifier: PostgreSQL
//
// The answers to authentication requests.  Each input is copied into a block of
// exactly its size, so that a sanitizer sees any byte read too far.

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <csetjmp>
#include <memory>
#include <string>

extern "C" {
#include <cmocka.h>
}

#include "core/auth/sasl_message.hpp"

namespace {

using sluice::BodyError;
using sluice::PasswordError;
using sluice::SaslMessage;

// The answer, with all it points to copied.
struct Reading {
  BodyError error;
  bool has_mechanism, has_data;
  std::string mechanism, data;
  std::int32_t length;
  std::ptrdiff_t data_offset;
};

Reading read(const std::string &bytes, bool initial = true) {
  const auto block = std::make_unique<char[]>(bytes.size());
  std::memcpy(block.get(), bytes.data(), bytes.size());
  const SaslMessage message = initial ? sluice::parse_sasl_initial_response(block.get(), bytes.size())
                                      : sluice::parse_sasl_response(block.get(), bytes.size());
  Reading reading{message.error, message.mechanism != nullptr, message.data != nullptr, "", "", message.length, 0};
  if (reading.has_mechanism) reading.mechanism = message.mechanism;
  if (reading.has_data) {
    reading.data.assign(message.data, static_cast<std::size_t>(message.length));
    reading.data_offset = message.data - block.get();
  }
  return reading;
}

std::string text(const char *characters) {
  return std::string(characters) + '\0';
}

std::string word(std::uint32_t value) {
  return {static_cast<char>(value >> 24), static_cast<char>(value >> 16), static_cast<char>(value >> 8),
          static_cast<char>(value)};
}

const std::string kFirst = "n,,n=,r=fyko+d2lbbFgONRv9qkxdawL";
const std::string kInitial = text("SCRAM-SHA-256") + word(static_cast<std::uint32_t>(kFirst.size())) + kFirst;

void the_first_response_has_mechanism_and_data(void **) {
  const Reading reading = read(kInitial);
  assert_true(reading.error == BodyError::none);
  assert_string_equal(reading.mechanism.c_str(), "SCRAM-SHA-256");
  assert_true(reading.data == kFirst);
  assert_int_equal(reading.length, kFirst.size());
  assert_int_equal(reading.data_offset, kInitial.size() - kFirst.size());
}

void the_first_response_may_come_without_data(void **) {
  const Reading reading = read(text("SCRAM-SHA-256") + word(0xffffffff));
  assert_true(reading.error == BodyError::none);
  assert_true(reading.has_mechanism);
  assert_false(reading.has_data);
  assert_int_equal(reading.length, -1);
}

void no_data_is_not_empty_data(void **) {
  const Reading reading = read(text("SCRAM-SHA-256") + word(0));
  assert_true(reading.error == BodyError::none);
  assert_true(reading.has_data);
  assert_int_equal(reading.length, 0);
}

void every_shorter_first_response_is_an_error(void **) {
  const std::size_t name = text("SCRAM-SHA-256").size();
  for (std::size_t size = 0; size < kInitial.size(); size++) {
    const Reading reading = read(kInitial.substr(0, size));
    assert_true(reading.error == (size < name ? BodyError::unterminated_string : BodyError::too_short));
    assert_int_equal(reading.has_mechanism, size >= name);
    assert_false(reading.has_data);
    assert_int_equal(reading.length, -1);
  }
}

void bytes_behind_the_data_are_an_error(void **) {
  for (const std::string &bytes :
       {kInitial + '\0', text("SCRAM-SHA-256") + word(0xffffffff) + "n", text("SCRAM-SHA-256") + word(0) + "n"}) {
    const Reading reading = read(bytes);
    assert_true(reading.error == BodyError::bytes_left_over);
    assert_string_equal(reading.mechanism.c_str(), "SCRAM-SHA-256");
    assert_false(reading.has_data);
    assert_int_equal(reading.length, -1);
  }
}

void lengths_that_lie_are_errors(void **) {
  for (const std::uint32_t length : {5u, 0x7fffffffu, 0x80000000u, 0xfffffffeu}) {
    assert_true(read(text("X") + word(length) + "data").error == BodyError::too_short);
  }
}

void the_mechanism_may_be_empty_or_unknown(void **) {
  assert_true(read(text("") + word(0)).error == BodyError::none);
  assert_true(read(text("") + word(0)).has_mechanism);
  assert_string_equal(read(text("GSS-SPNEGO") + word(0)).mechanism.c_str(), "GSS-SPNEGO");
}

void further_responses_are_data_alone(void **) {
  const std::string last("c=biws,r=\0binary", 16);
  const Reading reading = read(last, false);
  assert_true(reading.error == BodyError::none);
  assert_false(reading.has_mechanism);
  assert_true(reading.data == last);
  assert_int_equal(reading.data_offset, 0);
  assert_true(read("", false).error == BodyError::none);
  assert_true(read("", false).has_data);
  assert_int_equal(read("", false).length, 0);
}

PasswordError password_error(const std::string &bytes) {
  const auto block = std::make_unique<char[]>(bytes.size());
  std::memcpy(block.get(), bytes.data(), bytes.size());
  const sluice::PasswordMessage message = sluice::parse_password_message(block.get(), bytes.size());
  assert_true(message.password == (message.error == PasswordError::none ? block.get() : nullptr));
  return message.error;
}

void a_password_fills_its_message(void **) {
  assert_true(password_error(text("x")) == PasswordError::none);
  assert_true(password_error(text("md5f26e7a2d5a91d81f6f5dbac58d53ef43")) == PasswordError::none);
  assert_true(password_error(text("\xff\xfe")) == PasswordError::none);
  assert_true(password_error("") == PasswordError::invalid_size);
  assert_true(password_error("secret") == PasswordError::invalid_size);
  assert_true(password_error(text("secret") + 'x') == PasswordError::invalid_size);
  assert_true(password_error(text("secret") + '\0') == PasswordError::invalid_size);
  assert_true(password_error(text("") + text("secret")) == PasswordError::invalid_size);
  assert_true(password_error(std::string(2, '\0')) == PasswordError::invalid_size);
}

void an_empty_password_is_refused(void **) {
  assert_true(password_error(text("")) == PasswordError::empty);
}

void errors_are_in_the_servers_words(void **) {
  assert_string_equal(describe(PasswordError::invalid_size), "invalid password packet size");
  assert_string_equal(describe(PasswordError::empty), "empty password returned by client");
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(the_first_response_has_mechanism_and_data),
      cmocka_unit_test(the_first_response_may_come_without_data),
      cmocka_unit_test(no_data_is_not_empty_data),
      cmocka_unit_test(every_shorter_first_response_is_an_error),
      cmocka_unit_test(bytes_behind_the_data_are_an_error),
      cmocka_unit_test(lengths_that_lie_are_errors),
      cmocka_unit_test(the_mechanism_may_be_empty_or_unknown),
      cmocka_unit_test(further_responses_are_data_alone),
      cmocka_unit_test(a_password_fills_its_message),
      cmocka_unit_test(an_empty_password_is_refused),
      cmocka_unit_test(errors_are_in_the_servers_words),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
