// SPDX-License-Identifier: PostgreSQL
//
// Frames of the frontend's messages: each type, each limit, each prefix.

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <csetjmp>
#include <memory>
#include <random>
#include <string>

extern "C" {
#include <cmocka.h>
}

#include "core/session/message.hpp"

namespace {

using sluice::Frame;
using sluice::FrameStatus;

constexpr char kLargeTypes[] = "QFBPd";
constexpr char kSmallTypes[] = "XCDEHScf";
constexpr char kExtendedTypes[] = "BPCDEH";

bool among(const char *types, char type) {
  return type != '\0' && std::strchr(types, type) != nullptr;
}

std::string header(char type, std::uint32_t length) {
  return {type, static_cast<char>(length >> 24), static_cast<char>(length >> 16), static_cast<char>(length >> 8),
          static_cast<char>(length)};
}

// Parses from a block of exactly the input's size.
Frame parse(const std::string &bytes, bool authenticating = false) {
  const auto block = std::make_unique<char[]>(bytes.size());
  std::memcpy(block.get(), bytes.data(), bytes.size());
  return sluice::parse_frame(block.get(), bytes.size(), authenticating);
}

void types_are_those_of_the_protocol(void **) {
  for (int code = 0; code < 256; code++) {
    const char type = static_cast<char>(code);
    const Frame frame = parse(header(type, 4));
    const bool known = among(kLargeTypes, type) || among(kSmallTypes, type);
    assert_true(frame.status == (known ? FrameStatus::complete : FrameStatus::invalid_type));
    assert_int_equal(frame.type, type);
    assert_int_equal(frame.body_length, 0);
    if (known) {
      assert_int_equal(frame.large, among(kLargeTypes, type));
      assert_int_equal(frame.extended, among(kExtendedTypes, type));
    }
  }
}

void the_type_is_judged_with_the_first_byte(void **) {
  assert_true(parse("").status == FrameStatus::incomplete);
  assert_true(parse("p").status == FrameStatus::invalid_type);
  assert_true(parse("Z").status == FrameStatus::invalid_type);
  assert_true(parse(std::string(1, '\0')).status == FrameStatus::invalid_type);
  const Frame bind = parse("B");
  assert_true(bind.status == FrameStatus::incomplete);
  assert_int_equal(bind.type, 'B');
  assert_true(bind.large);
  assert_true(bind.extended);
}

void every_prefix_of_a_header_is_incomplete(void **) {
  const std::string bytes = header('Q', 1000);
  for (std::size_t size = 1; size < bytes.size(); size++) {
    const Frame frame = parse(bytes.substr(0, size));
    assert_true(frame.status == FrameStatus::incomplete);
    assert_int_equal(frame.body_length, 0);
  }
  assert_true(parse(bytes).status == FrameStatus::complete);
}

void the_body_is_not_waited_for(void **) {
  const Frame frame = parse(header('Q', 1000) + "select");
  assert_true(frame.status == FrameStatus::complete);
  assert_int_equal(frame.body_length, 996);
}

void small_types_have_a_small_limit(void **) {
  for (const char *type = kSmallTypes; *type != '\0'; type++) {
    assert_true(parse(header(*type, 10000)).status == FrameStatus::complete);
    assert_true(parse(header(*type, 10001)).status == FrameStatus::invalid_length);
  }
}

void large_types_have_the_servers_limit(void **) {
  for (const char *type = kLargeTypes; *type != '\0'; type++) {
    assert_true(parse(header(*type, 0x3ffffffe)).status == FrameStatus::complete);
    assert_int_equal(parse(header(*type, 0x3ffffffe)).body_length, 0x3ffffffa);
    assert_true(parse(header(*type, 0x3fffffff)).status == FrameStatus::invalid_length);
  }
}

void lengths_that_do_not_count_themselves_are_invalid(void **) {
  for (const std::uint32_t length : {0u, 1u, 3u, 0x80000000u, 0xffffffffu}) {
    const Frame frame = parse(header('Q', length));
    assert_true(frame.status == FrameStatus::invalid_length);
    assert_int_equal(frame.body_length, 0);
  }
}

void only_passwords_are_valid_while_authenticating(void **) {
  for (int code = 0; code < 256; code++) {
    const char type = static_cast<char>(code);
    const Frame frame = parse(std::string(1, type), true);
    assert_true(frame.status == (type == 'p' ? FrameStatus::incomplete : FrameStatus::invalid_type));
  }
  const Frame frame = parse(header('p', 65535), true);
  assert_true(frame.status == FrameStatus::complete);
  assert_int_equal(frame.body_length, 65531);
  assert_false(frame.large);
  assert_false(frame.extended);
  assert_true(parse(header('p', 65536), true).status == FrameStatus::invalid_length);
  assert_true(parse(header('p', 3), true).status == FrameStatus::invalid_length);
}

void garbage_does_no_harm(void **) {
  std::mt19937 random(8675309);
  for (int round = 0; round < 100000; round++) {
    std::string bytes(random() % 8, '\0');
    for (char &c : bytes) {
      c = random() % 2 == 0 ? '\0' : static_cast<char>(random());
    }
    if (!bytes.empty() && random() % 2 == 0) {
      bytes[0] = "QFXBPCDEHSdcfp"[random() % 14];
    }
    const Frame frame = parse(bytes, random() % 4 == 0);
    if (frame.status == FrameStatus::complete) {
      assert_true(bytes.size() >= sluice::kMessageHeaderBytes);
      assert_true(frame.body_length <= sluice::kLargeMessageLimit - 4);
    } else {
      assert_int_equal(frame.body_length, 0);
    }
  }
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(types_are_those_of_the_protocol),
      cmocka_unit_test(the_type_is_judged_with_the_first_byte),
      cmocka_unit_test(every_prefix_of_a_header_is_incomplete),
      cmocka_unit_test(the_body_is_not_waited_for),
      cmocka_unit_test(small_types_have_a_small_limit),
      cmocka_unit_test(large_types_have_the_servers_limit),
      cmocka_unit_test(lengths_that_do_not_count_themselves_are_invalid),
      cmocka_unit_test(only_passwords_are_valid_while_authenticating),
      cmocka_unit_test(garbage_does_no_harm),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
