// SPDX-License-Identifier: PostgreSQL
//
// The start-up packet, byte by byte.  Each input is copied into a block of
// exactly its size, so that a sanitizer sees any byte read too far.

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <csetjmp>
#include <random>
#include <string>

extern "C" {
#include <cmocka.h>
}

#include "core/accept/startup_packet.hpp"

namespace {

using sluice::make_protocol;
using sluice::parse_startup_packet;
using sluice::StartupError;
using sluice::StartupKind;
using sluice::StartupPacket;

constexpr std::uint32_t kProtocol3 = make_protocol(3, 0);

// Bytes in a block of their own size.
class Block {
 public:
  Block(const char *bytes, std::size_t size) : bytes_(static_cast<char *>(std::malloc(size == 0 ? 1 : size))) {
    if (size > 0) {
      std::memcpy(bytes_, bytes, size);
    }
  }
  explicit Block(const std::string &text) : Block(text.data(), text.size()) {}
  ~Block() { std::free(bytes_); }
  Block(const Block &) = delete;
  Block &operator=(const Block &) = delete;
  const char *get() const { return bytes_; }

 private:
  char *bytes_;
};

std::string word(std::uint32_t value) {
  return {static_cast<char>(value >> 24), static_cast<char>(value >> 16), static_cast<char>(value >> 8),
          static_cast<char>(value)};
}

// A packet around `body`, with the right length.
std::string packet_of(std::uint32_t code, const std::string &body) {
  return word(static_cast<std::uint32_t>(body.size()) + 8) + word(code) + body;
}

std::string pair(const std::string &name, const std::string &value) {
  return name + std::string(1, '\0') + value + std::string(1, '\0');
}

const std::string kEnd(1, '\0');

StartupKind kind_of(const std::string &bytes) {
  const Block block(bytes);
  return parse_startup_packet(block.get(), bytes.size()).kind;
}

StartupError error_of(const std::string &bytes) {
  const Block block(bytes);
  const StartupPacket packet = parse_startup_packet(block.get(), bytes.size());
  assert_true((packet.kind == StartupKind::invalid) == (packet.error != StartupError::none));
  return packet.error;
}

// No prefix of a sane packet is more than incomplete.
void assert_every_prefix_is_incomplete(const std::string &bytes) {
  for (std::size_t size = 0; size < bytes.size(); size++) {
    const Block block(bytes.data(), size);
    const StartupPacket packet = parse_startup_packet(block.get(), size);
    assert_true(packet.kind == StartupKind::incomplete);
    assert_true(packet.error == StartupError::none);
    assert_int_equal(packet.length, 0);
  }
}

void parameters_are_found_and_sorted(void **) {
  const std::string bytes =
      packet_of(kProtocol3, pair("user", "ann") + pair("database", "web") + pair("application_name", "app") +
                                pair("options", "-c a=b") + pair("replication", "false") + pair("DateStyle", "ISO") +
                                pair("_pq_.new", "1") + kEnd);
  const Block block(bytes);
  const StartupPacket packet = parse_startup_packet(block.get(), bytes.size());
  assert_true(packet.kind == StartupKind::startup);
  assert_int_equal(packet.length, bytes.size());
  assert_int_equal(packet.protocol, kProtocol3);
  assert_string_equal(packet.user, "ann");
  assert_string_equal(packet.database, "web");
  assert_string_equal(packet.application_name, "app");
  assert_string_equal(packet.options, "-c a=b");
  assert_string_equal(packet.replication, "false");
  assert_int_equal(packet.parameter_count, 2);
  assert_string_equal(packet.parameters[0].name, "application_name");
  assert_string_equal(packet.parameters[0].value, "app");
  assert_string_equal(packet.parameters[1].name, "DateStyle");
  assert_string_equal(packet.parameters[1].value, "ISO");
  assert_int_equal(packet.unknown_protocol_option_count, 1);
  assert_string_equal(packet.unknown_protocol_options[0], "_pq_.new");
  assert_every_prefix_is_incomplete(bytes);
}

void absent_parameters_are_null(void **) {
  const std::string bytes = packet_of(kProtocol3, kEnd);
  const Block block(bytes);
  const StartupPacket packet = parse_startup_packet(block.get(), bytes.size());
  assert_true(packet.kind == StartupKind::startup);
  assert_null(packet.user);
  assert_null(packet.database);
  assert_null(packet.options);
  assert_null(packet.replication);
  assert_null(packet.application_name);
  assert_int_equal(packet.parameter_count, 0);
}

void empty_values_are_kept(void **) {
  const std::string bytes = packet_of(kProtocol3, pair("user", "") + pair("search_path", "") + kEnd);
  const Block block(bytes);
  const StartupPacket packet = parse_startup_packet(block.get(), bytes.size());
  assert_true(packet.kind == StartupKind::startup);
  assert_string_equal(packet.user, "");
  assert_int_equal(packet.parameter_count, 1);
  assert_string_equal(packet.parameters[0].value, "");
}

void the_last_of_repeated_names_counts(void **) {
  const std::string bytes = packet_of(kProtocol3, pair("user", "ann") + pair("application_name", "one") +
                                                      pair("user", "bob") + pair("application_name", "two") + kEnd);
  const Block block(bytes);
  const StartupPacket packet = parse_startup_packet(block.get(), bytes.size());
  assert_string_equal(packet.user, "bob");
  assert_string_equal(packet.application_name, "two");
  assert_int_equal(packet.parameter_count, 2);
  assert_string_equal(packet.parameters[0].value, "one");
  assert_string_equal(packet.parameters[1].value, "two");
}

void names_are_compared_whole_and_with_case(void **) {
  const std::string bytes =
      packet_of(kProtocol3, pair("User", "a") + pair("users", "b") + pair("_pq_", "c") + pair("_PQ_.x", "d") + kEnd);
  const Block block(bytes);
  const StartupPacket packet = parse_startup_packet(block.get(), bytes.size());
  assert_null(packet.user);
  assert_int_equal(packet.parameter_count, 4);
  assert_int_equal(packet.unknown_protocol_option_count, 0);
}

void bytes_behind_the_packet_are_left_alone(void **) {
  const std::string first = packet_of(kProtocol3, pair("user", "ann") + kEnd);
  const std::string bytes = first + "p\0\0\0\5";
  const Block block(bytes);
  const StartupPacket packet = parse_startup_packet(block.get(), bytes.size());
  assert_true(packet.kind == StartupKind::startup);
  assert_int_equal(packet.length, first.size());
}

void strings_point_into_the_callers_buffer(void **) {
  const std::string bytes = packet_of(kProtocol3, pair("user", "ann") + kEnd);
  const StartupPacket packet = parse_startup_packet(bytes.data(), bytes.size());
  assert_ptr_equal(packet.user, bytes.data() + 13);
}

void requests_are_recognised(void **) {
  const std::string ssl = packet_of(sluice::kSslRequestCode, "");
  const std::string gss = packet_of(sluice::kGssencRequestCode, "");
  const std::string cancel = packet_of(sluice::kCancelRequestCode, word(4711) + word(0xdeadbeef));
  assert_true(kind_of(ssl) == StartupKind::ssl_request);
  assert_true(kind_of(gss) == StartupKind::gssenc_request);
  assert_every_prefix_is_incomplete(ssl);
  assert_every_prefix_is_incomplete(gss);
  assert_every_prefix_is_incomplete(cancel);
  const Block block(cancel);
  const StartupPacket packet = parse_startup_packet(block.get(), cancel.size());
  assert_true(packet.kind == StartupKind::cancel_request);
  assert_int_equal(packet.length, 16);
  assert_int_equal(packet.cancel_pid, 4711);
  assert_int_equal(packet.cancel_key, 0xdeadbeef);
}

void codes_are_those_of_the_protocol(void **) {
  assert_int_equal(sluice::kCancelRequestCode, 80877102);
  assert_int_equal(sluice::kSslRequestCode, 80877103);
  assert_int_equal(sluice::kGssencRequestCode, 80877104);
  assert_int_equal(kProtocol3, 196608);
}

void requests_of_another_length_are_invalid_once_the_code_is_there(void **) {
  assert_true(error_of(word(9) + word(sluice::kSslRequestCode)) == StartupError::invalid_length);
  assert_true(error_of(word(9) + word(sluice::kGssencRequestCode)) == StartupError::invalid_length);
  assert_true(error_of(word(8) + word(sluice::kCancelRequestCode)) == StartupError::invalid_length);
  assert_true(error_of(word(15) + word(sluice::kCancelRequestCode)) == StartupError::invalid_length);
  assert_true(error_of(word(17) + word(sluice::kCancelRequestCode)) == StartupError::invalid_length);
}

void lengths_out_of_bounds_are_invalid_with_the_length_word_alone(void **) {
  for (const std::uint32_t length : {0u, 1u, 4u, 7u, 10005u, 0x10000u, 0x7fffffffu, 0x80000000u, 0xffffffffu}) {
    const std::string bytes = word(length);
    assert_true(error_of(bytes) == StartupError::invalid_length);
    for (std::size_t size = 0; size < 4; size++) {
      assert_true(kind_of(bytes.substr(0, size)) == StartupKind::incomplete);
    }
  }
  assert_true(kind_of(word(8)) == StartupKind::incomplete);
  assert_true(kind_of(word(10004)) == StartupKind::incomplete);
}

void other_protocols_are_no_startup_packet(void **) {
  assert_true(error_of("GET / HTTP/1.1\r\n\r\n") == StartupError::invalid_length);
  assert_true(error_of(std::string("\x16\x03\x01\x02\x00\x01", 6)) == StartupError::invalid_length);
  assert_true(error_of("SSH-2.0-x\r\n") == StartupError::invalid_length);
}

void the_longest_packet_is_read(void **) {
  const std::string rest = pair("user", "ann") + pair("options", "") + kEnd;
  const std::string options(10004 - 8 - rest.size(), 'x');
  const std::string bytes = packet_of(kProtocol3, pair("user", "ann") + pair("options", options) + kEnd);
  assert_int_equal(bytes.size(), 10004);
  const Block block(bytes);
  const StartupPacket packet = parse_startup_packet(block.get(), bytes.size());
  assert_true(packet.kind == StartupKind::startup);
  assert_int_equal(std::strlen(packet.options), options.size());
}

void other_major_versions_are_unsupported(void **) {
  for (const std::uint32_t protocol :
       {0u, 1u, make_protocol(2, 0), make_protocol(4, 0), make_protocol(1234, 5681), 0xffffffffu}) {
    const std::string bytes = packet_of(protocol, pair("user", "ann") + kEnd);
    assert_true(error_of(bytes) == StartupError::unsupported_protocol);
    assert_int_equal(parse_startup_packet(bytes.data(), bytes.size()).protocol, protocol);
    assert_int_equal(parse_startup_packet(bytes.data(), bytes.size()).length, bytes.size());
    assert_every_prefix_is_incomplete(bytes);  // the answer waits for the whole packet
  }
}

void newer_minor_versions_are_left_to_negotiation(void **) {
  const std::string bytes = packet_of(make_protocol(3, 9999), pair("user", "ann") + kEnd);
  const Block block(bytes);
  const StartupPacket packet = parse_startup_packet(block.get(), bytes.size());
  assert_true(packet.kind == StartupKind::startup);
  assert_int_equal(sluice::protocol_major(packet.protocol), 3);
  assert_int_equal(sluice::protocol_minor(packet.protocol), 9999);
}

void layouts_without_the_terminator_as_last_byte_are_refused(void **) {
  const std::string name_only = std::string("user") + kEnd;
  assert_true(error_of(packet_of(kProtocol3, "")) == StartupError::bad_layout);
  assert_true(error_of(packet_of(kProtocol3, "x")) == StartupError::bad_layout);
  assert_true(error_of(packet_of(kProtocol3, "user")) == StartupError::bad_layout);
  assert_true(error_of(packet_of(kProtocol3, name_only)) == StartupError::bad_layout);
  assert_true(error_of(packet_of(kProtocol3, name_only + "ann")) == StartupError::bad_layout);
  assert_true(error_of(packet_of(kProtocol3, pair("user", "ann"))) == StartupError::bad_layout);
  assert_true(error_of(packet_of(kProtocol3, pair("user", "ann") + "x")) == StartupError::bad_layout);
  assert_true(error_of(packet_of(kProtocol3, pair("user", "ann") + name_only)) == StartupError::bad_layout);
  assert_true(error_of(packet_of(kProtocol3, pair("user", ""))) == StartupError::bad_layout);
}

void embedded_terminators_are_refused(void **) {
  assert_true(error_of(packet_of(kProtocol3, kEnd + kEnd)) == StartupError::bad_layout);
  assert_true(error_of(packet_of(kProtocol3, kEnd + pair("user", "ann") + kEnd)) == StartupError::bad_layout);
  assert_true(error_of(packet_of(kProtocol3, pair("user", "ann") + kEnd + kEnd)) == StartupError::bad_layout);
  // A NUL inside the value shifts names and values by one.
  const std::string shifted = pair("user", std::string("a\0b", 3)) + kEnd;
  assert_true(error_of(packet_of(kProtocol3, shifted)) == StartupError::bad_layout);
}

void parameters_beyond_the_limit_are_refused(void **) {
  std::string body = pair("user", "ann");
  for (std::size_t i = 0; i < sluice::kMaxStartupParameters; i++) {
    body += pair("p" + std::to_string(i), "v");
  }
  assert_true(kind_of(packet_of(kProtocol3, body + kEnd)) == StartupKind::startup);
  body += pair("one_more", "v");
  assert_true(error_of(packet_of(kProtocol3, body + kEnd)) == StartupError::too_many_parameters);
  assert_true(error_of(packet_of(kProtocol3, body)) == StartupError::bad_layout);

  body = pair("user", "ann");
  for (std::size_t i = 0; i < sluice::kMaxUnknownProtocolOptions; i++) {
    body += pair("_pq_." + std::to_string(i), "v");
  }
  assert_true(kind_of(packet_of(kProtocol3, body + kEnd)) == StartupKind::startup);
  body += pair("_pq_.one_more", "v");
  assert_true(error_of(packet_of(kProtocol3, body + kEnd)) == StartupError::too_many_parameters);
}

void messages_are_the_servers(void **) {
  assert_string_equal(describe(StartupError::invalid_length), "invalid length of startup packet");
  assert_string_equal(describe(StartupError::bad_layout),
                      "invalid startup packet layout: expected terminator as last byte");
  assert_string_equal(describe(StartupError::unsupported_protocol), "unsupported frontend protocol");
  assert_string_equal(describe(StartupError::too_many_parameters), "too many parameters in startup packet");
}

// The server's own way, with a NUL appended and its arithmetic on offsets; but
// the terminator must be NUL.
bool layout_is_good(const std::string &body) {
  const std::size_t size = body.size();
  std::size_t offset = 0;
  while (offset < size) {
    const char *name = body.c_str() + offset;
    if (*name == '\0') {
      break;
    }
    const std::size_t value_offset = offset + std::strlen(name) + 1;
    if (value_offset >= size) {
      break;
    }
    offset = value_offset + std::strlen(body.c_str() + value_offset) + 1;
  }
  return offset + 1 == size && body[offset] == '\0';
}

void garbage_behind_a_sane_header_is_judged_as_the_server_does(void **) {
  std::mt19937 random(20240229);
  int good = 0;
  for (int round = 0; round < 100000; round++) {
    std::string body(random() % 24, '\0');
    for (char &c : body) {
      c = random() % 3 == 0 ? '\0' : static_cast<char>('a' + random() % 3);
    }
    const StartupError error = error_of(packet_of(kProtocol3, body));
    assert_true((error == StartupError::none) == layout_is_good(body));
    good += error == StartupError::none ? 1 : 0;
  }
  assert_true(good > 100);
}

void garbage_does_no_harm(void **) {
  std::mt19937 random(4711);
  for (int round = 0; round < 100000; round++) {
    std::string bytes(random() % 64, '\0');
    for (char &c : bytes) {
      c = static_cast<char>(random());
    }
    if (round % 2 == 0 && bytes.size() >= 8) {
      const std::uint32_t codes[] = {kProtocol3, sluice::kCancelRequestCode, sluice::kSslRequestCode,
                                     sluice::kGssencRequestCode, make_protocol(3, 2)};
      bytes.replace(0, 8, word(random() % 70) + word(codes[random() % 5]));
    }
    const Block block(bytes);
    const StartupPacket packet = parse_startup_packet(block.get(), bytes.size());
    assert_true(packet.length <= bytes.size());
    assert_true((packet.kind == StartupKind::invalid) == (packet.error != StartupError::none));
    std::size_t sum = 0;
    for (std::size_t i = 0; i < packet.parameter_count; i++) {
      sum += std::strlen(packet.parameters[i].name) + std::strlen(packet.parameters[i].value);
    }
    assert_true(sum <= bytes.size());
  }
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(parameters_are_found_and_sorted),
      cmocka_unit_test(absent_parameters_are_null),
      cmocka_unit_test(empty_values_are_kept),
      cmocka_unit_test(the_last_of_repeated_names_counts),
      cmocka_unit_test(names_are_compared_whole_and_with_case),
      cmocka_unit_test(bytes_behind_the_packet_are_left_alone),
      cmocka_unit_test(strings_point_into_the_callers_buffer),
      cmocka_unit_test(requests_are_recognised),
      cmocka_unit_test(codes_are_those_of_the_protocol),
      cmocka_unit_test(requests_of_another_length_are_invalid_once_the_code_is_there),
      cmocka_unit_test(lengths_out_of_bounds_are_invalid_with_the_length_word_alone),
      cmocka_unit_test(other_protocols_are_no_startup_packet),
      cmocka_unit_test(the_longest_packet_is_read),
      cmocka_unit_test(other_major_versions_are_unsupported),
      cmocka_unit_test(newer_minor_versions_are_left_to_negotiation),
      cmocka_unit_test(layouts_without_the_terminator_as_last_byte_are_refused),
      cmocka_unit_test(embedded_terminators_are_refused),
      cmocka_unit_test(parameters_beyond_the_limit_are_refused),
      cmocka_unit_test(messages_are_the_servers),
      cmocka_unit_test(garbage_behind_a_sane_header_is_judged_as_the_server_does),
      cmocka_unit_test(garbage_does_no_harm),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
