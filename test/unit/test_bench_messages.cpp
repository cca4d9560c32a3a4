// SPDX-License-Identifier: PostgreSQL
//
// The messages of the load generator: a server's stream is understood wherever it is cut, and what is no such stream is
// noticed.

#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <string>

extern "C" {
#include <cmocka.h>
}

#include "../bench/load/messages.hpp"

using namespace load;

namespace {

// What a reader tells of these pieces: "T:body," for each message; "!" at the end if it gave up.
struct Listener {
  MessageReader reader;
  std::string told;

  void hear(const std::string &bytes) {
    const bool good = reader.feed(bytes.data(), bytes.size(), [this](char type, const char *body, size_t length) {
      told += type;
      told += ':' + std::string(body, length) + ',';
    });
    if (!good) told += '!';
  }
};

std::string stream() {
  std::string body;
  append_int16(body, 1);
  append_string(body, "began_at");
  return simple_message('1', "") + simple_message('T', body) + simple_message('D', std::string("\0\1\0\0\0\2ab", 8)) +
         simple_message('n', "") + simple_message('E', std::string("SERROR\0C22012\0Mdivision by zero\0\0", 32)) +
         simple_message('Z', "I");
}

void a_stream_may_be_cut_at_each_place(void **) {
  const std::string bytes = stream();
  Listener whole;
  whole.hear(bytes);
  for (size_t first = 0; first <= bytes.size(); first++) {
    for (size_t second = first; second <= bytes.size(); second++) {
      Listener cut;
      cut.hear(bytes.substr(0, first));
      cut.hear(bytes.substr(first, second - first));
      cut.hear(bytes.substr(second));
      assert_string_equal(cut.told.c_str(), whole.told.c_str());
      assert_true(cut.told == whole.told);
    }
  }
  assert_true(whole.told.substr(0, 3) == "1:,");
  assert_true(whole.told.substr(whole.told.size() - 4) == "Z:I,");
}

void a_stream_may_come_byte_by_byte(void **) {
  const std::string bytes = stream();
  Listener whole;
  Listener drop_by_drop;
  whole.hear(bytes);
  for (const char byte : bytes) drop_by_drop.hear(std::string(1, byte));
  assert_true(drop_by_drop.told == whole.told);
}

void a_message_without_a_body_is_told_at_once(void **) {
  const std::string bytes = simple_message('I', "");
  Listener listener;
  listener.hear(bytes.substr(0, 3));
  assert_true(listener.told.empty());
  listener.hear(bytes.substr(3));
  assert_true(listener.told == "I:,");
}

void of_a_long_message_that_is_cut_the_beginning_is_kept(void **) {
  const std::string body = "begin" + std::string(3 * MessageReader::kKept, 'x');
  const std::string bytes = simple_message('D', body) + simple_message('Z', "I");
  Listener listener;
  listener.hear(bytes.substr(0, 20));
  listener.hear(bytes.substr(20));
  assert_true(listener.told == "D:" + body.substr(0, MessageReader::kKept) + ",Z:I,");
}

void what_is_no_message_is_noticed(void **) {
  for (const std::string &bytes :
       {std::string("HTTP/1.1 400"), std::string("SSH-2.0-x"), std::string("Z\0\0\0\3", 5), std::string("\0", 1),
        std::string("Z\xff\xff\xff\xff", 5), std::string("x\0\0\0\4", 5)}) {
    for (size_t cut = 0; cut < bytes.size(); cut++) {
      Listener listener;
      listener.hear(bytes.substr(0, cut));
      if (listener.told.empty()) listener.hear(bytes.substr(cut));
      assert_string_equal(listener.told.c_str(), "!");
    }
  }
}

void after_a_reset_it_begins_anew(void **) {
  Listener listener;
  listener.hear(simple_message('D', "half of it").substr(0, 9));
  listener.reader.reset();
  listener.hear(simple_message('Z', "I"));
  assert_true(listener.told == "Z:I,");
}

void fields_of_an_error_are_found(void **) {
  const std::string body("SERROR\0C22012\0Mdivision by zero\0\0", 32);
  assert_string_equal(error_field(body.data(), body.size(), 'C').c_str(), "22012");
  assert_string_equal(error_field(body.data(), body.size(), 'M').c_str(), "division by zero");
  assert_string_equal(error_field(body.data(), body.size(), 'H').c_str(), "");
  // However little of it has been kept.
  for (size_t length = 0; length <= body.size(); length++)
    assert_true(error_field(body.data(), length, 'M').size() <= strlen("division by zero"));
}

void names_and_values_stay_within_their_messages(void **) {
  const std::string head("\0\1began_at\0", 11);
  assert_true(first_column_is(head.data(), head.size(), "began_at"));
  assert_false(first_column_is(head.data(), head.size(), "began"));
  assert_false(first_column_is(head.data(), 5, "began_at"));
  assert_false(first_column_is("\0\0", 2, "began_at"));
  const std::string row("\0\1\0\0\0\2ab", 8);
  assert_string_equal(first_value(row.data(), row.size()).c_str(), "ab");
  assert_string_equal(first_value(row.data(), row.size() - 1).c_str(), "");
  assert_string_equal(first_value("\0\1\xff\xff\xff\xff", 6).c_str(), "");
  assert_string_equal(first_value("\0\0", 2).c_str(), "");
}

void messages_have_their_length(void **) {
  assert_true(query_message("x") == std::string("Q\0\0\0\6x\0", 7));
  std::string message = "before";
  const size_t place = begin_message(message, '\0');
  append_int32(message, 1);
  end_message(message, place);
  assert_true(message == std::string("before\0\0\0\10\0\0\0\1", 14));
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(a_stream_may_be_cut_at_each_place),
      cmocka_unit_test(a_stream_may_come_byte_by_byte),
      cmocka_unit_test(a_message_without_a_body_is_told_at_once),
      cmocka_unit_test(of_a_long_message_that_is_cut_the_beginning_is_kept),
      cmocka_unit_test(what_is_no_message_is_noticed),
      cmocka_unit_test(after_a_reset_it_begins_anew),
      cmocka_unit_test(fields_of_an_error_are_found),
      cmocka_unit_test(names_and_values_stay_within_their_messages),
      cmocka_unit_test(messages_have_their_length),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
