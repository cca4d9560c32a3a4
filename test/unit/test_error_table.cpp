// SPDX-License-Identifier: PostgreSQL
//
// Errors are counted once each, in their own row or in that of all others of the
// class; messages are whole; what a client is told is read from its bytes.

#include <atomic>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <csetjmp>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

extern "C" {
#include <cmocka.h>
}

#include "core/stats/cut_text.hpp"
#include "core/stats/error_table.hpp"
#include "core/stats/told_error.hpp"

namespace {

using sluice::ErrorClass;
using sluice::ErrorRow;
using sluice::ErrorTable;
using sluice::kErrorClasses;
using sluice::kErrorMessageLength;
using sluice::kErrorSlots;
using sluice::read_error;
using sluice::record_error;
using sluice::reset_errors;

constexpr std::size_t kRoom = kErrorSlots - kErrorClasses;

// As the server's memory: all zero.
std::unique_ptr<ErrorTable> empty_table() { return std::make_unique<ErrorTable>(); }

std::vector<ErrorRow> rows_of(const ErrorTable &table) {
  std::vector<ErrorRow> rows;
  for (std::size_t i = 0; i < kErrorSlots; i++) {
    ErrorRow row;
    if (read_error(table, i, row)) {
      rows.push_back(row);
    }
  }
  return rows;
}

ErrorRow row_of(const ErrorTable &table, ErrorClass error_class, std::uint32_t code) {
  for (const ErrorRow &row : rows_of(table)) {
    if (row.error_class == error_class && row.code == code && !row.others) {
      return row;
    }
  }
  return ErrorRow{};
}

void an_empty_table_has_no_rows(void **) { assert_int_equal(rows_of(*empty_table()).size(), 0); }

void the_same_error_twice_is_one_row(void **) {
  auto table = empty_table();
  record_error(*table, ErrorClass::statement, 7, 10, "first", 1000);
  record_error(*table, ErrorClass::statement, 7, 11, "second", 2000);
  const auto rows = rows_of(*table);
  assert_int_equal(rows.size(), 1);
  assert_true(rows[0].error_class == ErrorClass::statement);
  assert_int_equal(rows[0].code, 7);
  assert_int_equal(rows[0].count, 2);
  assert_int_equal(rows[0].first_at, 1000);
  assert_int_equal(rows[0].last_at, 2000);
  assert_true(rows[0].has_message);
  assert_string_equal(rows[0].message.text, "second");
  assert_int_equal(rows[0].message.role_oid, 11);
}

void class_and_code_make_the_row(void **) {
  auto table = empty_table();
  record_error(*table, ErrorClass::statement, 7, 0, "a", 1);
  record_error(*table, ErrorClass::client_end, 7, 0, "b", 1);
  record_error(*table, ErrorClass::statement, 8, 0, "c", 1);
  record_error(*table, ErrorClass::authentication, 0, 0, "d", 1);
  assert_int_equal(rows_of(*table).size(), 4);
  assert_string_equal(row_of(*table, ErrorClass::client_end, 7).message.text, "b");
  assert_string_equal(row_of(*table, ErrorClass::authentication, 0).message.text, "d");
}

void a_clock_set_back_keeps_first_before_last(void **) {
  auto table = empty_table();
  record_error(*table, ErrorClass::limit, 1, 0, "x", 500);
  record_error(*table, ErrorClass::limit, 1, 0, "x", 300);
  const ErrorRow row = row_of(*table, ErrorClass::limit, 1);
  assert_int_equal(row.first_at, 300);
  assert_int_equal(row.last_at, 500);
}

void no_message_is_no_message(void **) {
  auto table = empty_table();
  record_error(*table, ErrorClass::protocol, 1, 5, nullptr, 1);
  const ErrorRow row = row_of(*table, ErrorClass::protocol, 1);
  assert_int_equal(row.count, 1);
  assert_false(row.has_message);
}

void a_full_table_counts_the_rest_by_class(void **) {
  auto table = empty_table();
  for (std::uint32_t code = 1; code <= kRoom + 20; code++) {
    record_error(*table, ErrorClass::statement, code, 0, "x", 1);
  }
  record_error(*table, ErrorClass::limit, 1, 0, "full", 1);
  record_error(*table, ErrorClass::statement, 1, 0, "x", 1);  // has its row
  std::uint64_t statements = 0, others = 0, limits = 0;
  for (const ErrorRow &row : rows_of(*table)) {
    statements += row.error_class == ErrorClass::statement ? row.count : 0;
    limits += row.error_class == ErrorClass::limit && row.others ? row.count : 0;
    others += row.error_class == ErrorClass::statement && row.others ? row.count : 0;
  }
  assert_int_equal(statements, kRoom + 21);
  assert_int_equal(others, 20);
  assert_int_equal(limits, 1);
  assert_int_equal(row_of(*table, ErrorClass::statement, 1).count, 2);
}

void a_reset_hides_rows_and_starts_anew(void **) {
  auto table = empty_table();
  record_error(*table, ErrorClass::statement, 7, 0, "old", 1000);
  reset_errors(*table, 5000);
  assert_int_equal(rows_of(*table).size(), 0);
  assert_int_equal(table->since_at.load(), 5000);
  record_error(*table, ErrorClass::statement, 7, 0, "new", 6000);
  const ErrorRow row = row_of(*table, ErrorClass::statement, 7);
  assert_int_equal(row.count, 1);
  assert_int_equal(row.first_at, 6000);
  assert_string_equal(row.message.text, "new");
}

void an_error_in_the_moment_of_a_reset_takes_its_time(void **) {
  auto table = empty_table();
  record_error(*table, ErrorClass::statement, 7, 0, "x", 1000);
  reset_errors(*table, 5000);
  for (auto &slot : table->slots) {
    slot.count.store(slot.key.load() != 0 ? 1 : 0);
  }
  const ErrorRow row = row_of(*table, ErrorClass::statement, 7);
  assert_int_equal(row.first_at, 5000);
  assert_int_equal(row.last_at, 5000);
}

// A writer that has stopped in the middle.
void an_unfinished_message_keeps_nobody_from_counting(void **) {
  auto table = empty_table();
  record_error(*table, ErrorClass::statement, 7, 0, "x", 1);
  for (auto &slot : table->slots) {
    slot.version.fetch_or(1);
  }
  record_error(*table, ErrorClass::statement, 7, 0, "y", 2);
  const ErrorRow row = row_of(*table, ErrorClass::statement, 7);
  assert_int_equal(row.count, 2);
  assert_int_equal(row.last_at, 2);
  assert_false(row.has_message);
}

void long_messages_are_cut_where_a_character_ends(void **) {
  for (std::size_t lead = 0; lead < 4; lead++) {
    auto table = empty_table();
    std::string message(lead, 'a');
    while (message.size() < 2 * kErrorMessageLength) {
      message += "\xe2\x82\xac";  // three bytes
    }
    record_error(*table, ErrorClass::statement, 1, 0, message.c_str(), 1);
    const ErrorRow row = row_of(*table, ErrorClass::statement, 1);
    const std::string kept = row.message.text;
    assert_true(kept.size() <= kErrorMessageLength - 1 && kept.size() >= kErrorMessageLength - 3);
    assert_int_equal((kept.size() - lead) % 3, 0);
    assert_true(message.compare(0, kept.size(), kept) == 0);
  }
}

void text_is_copied_whole_where_it_fits(void **) {
  char target[6];
  assert_int_equal(sluice::copy_cut(target, sizeof(target), "abcde"), 5);
  assert_string_equal(target, "abcde");
  assert_int_equal(sluice::copy_cut(target, sizeof(target), "abcdef"), 5);
  assert_string_equal(target, "abcde");
  assert_int_equal(sluice::copy_cut(target, sizeof(target), "abcd\xc3\xa9"), 4);
  assert_string_equal(target, "abcd");
  assert_int_equal(sluice::copy_cut(target, sizeof(target), "abc\xc3\xa9"), 5);
  assert_string_equal(target, "abc\xc3\xa9");
  assert_int_equal(sluice::copy_cut(target, sizeof(target), nullptr), 0);
  assert_string_equal(target, "");
  assert_int_equal(sluice::copy_cut(target, 1, "x"), 0);
  assert_string_equal(target, "");
  // Not UTF-8: cut all the same.
  assert_true(sluice::copy_cut(target, sizeof(target), "\x80\x80\x80\x80\x80\x80\x80\x80") >= 2);
}

void every_class_has_a_name_of_its_own(void **) {
  for (std::size_t i = 0; i < kErrorClasses; i++) {
    const char *name = sluice::name_of(static_cast<ErrorClass>(i));
    assert_string_not_equal(name, "unknown");
    for (std::size_t j = 0; j < i; j++) {
      assert_string_not_equal(name, sluice::name_of(static_cast<ErrorClass>(j)));
    }
  }
  assert_string_equal(sluice::name_of(static_cast<ErrorClass>(kErrorClasses)), "unknown");
}

void told_errors_have_their_class(void **) {
  assert_true(sluice::class_of_told_error(false, "22012") == ErrorClass::statement);
  assert_true(sluice::class_of_told_error(true, "57P05") == ErrorClass::client_end);
  assert_true(sluice::class_of_told_error(true, "08P01") == ErrorClass::protocol);
  assert_true(sluice::class_of_told_error(false, "08P01") == ErrorClass::protocol);
  assert_true(sluice::class_of_told_error(false, "XX001") == ErrorClass::internal);
}

void refusals_have_their_class(void **) {
  assert_true(sluice::class_of_refusal("28P01") == ErrorClass::authentication);
  assert_true(sluice::class_of_refusal("3D000") == ErrorClass::authentication);
  assert_true(sluice::class_of_refusal("53300") == ErrorClass::limit);
  assert_true(sluice::class_of_refusal("53400") == ErrorClass::limit);
  assert_true(sluice::class_of_refusal("57P01") == ErrorClass::limit);
  assert_true(sluice::class_of_refusal("57P03") == ErrorClass::limit);
  assert_true(sluice::class_of_refusal("08P01") == ErrorClass::protocol);
  assert_true(sluice::class_of_refusal("XX000") == ErrorClass::internal);
}

void an_error_response_is_read(void **) {
  const char body[] = "SFEHLER\0VERROR\0C22012\0Mdivision by zero\0Fint.c\0";
  const sluice::ToldError error = sluice::read_error_response(body, sizeof(body));
  assert_true(error.complete);
  assert_false(error.ends_client);
  assert_memory_equal(error.sqlstate, "22012", 5);
  assert_string_equal(error.message, "division by zero");
  const char fatal[] = "VFATAL\0C57P01\0";
  assert_true(sluice::read_error_response(fatal, sizeof(fatal)).ends_client);
  assert_null(sluice::read_error_response(fatal, sizeof(fatal)).message);
}

void half_an_error_response_is_not_complete(void **) {
  const char body[] = "VERROR\0C22012";  // terminated by the compiler, but not within its length
  for (std::size_t length = 0; length < sizeof(body); length++) {
    const std::vector<char> exact(body, body + length);  // the sanitizer watches its end
    assert_false(sluice::read_error_response(exact.data(), length).complete);
  }
  const char odd[] = "VERROR\0C2201\0Mx\0";
  assert_false(sluice::read_error_response(odd, sizeof(odd)).complete);
}

// Many count the same and different errors, with messages all of one letter, while
// somebody reads.
void nothing_is_lost_and_messages_are_whole_between_many_threads(void **) {
  constexpr int kWriters = 4;
  constexpr int kEach = 20000;
  constexpr std::uint32_t kCodes = 5;
  auto table = empty_table();
  std::atomic<int> writing{kWriters};
  std::atomic<bool> torn{false}, disordered{false};
  std::vector<std::thread> threads;
  for (int writer = 0; writer < kWriters; writer++) {
    threads.emplace_back([&, writer] {
      const std::string message(150, static_cast<char>('a' + writer));
      for (int i = 0; i < kEach; i++) {
        record_error(*table, ErrorClass::statement, 1 + static_cast<std::uint32_t>(i) % kCodes,
                     static_cast<std::uint32_t>(writer), message.c_str(), 1 + i);
      }
      writing--;
    });
  }
  threads.emplace_back([&] {
    while (writing.load() > 0) {
      for (const ErrorRow &row : rows_of(*table)) {
        if (row.first_at > row.last_at || row.first_at == 0) {
          disordered = true;
        }
        if (row.has_message &&
            std::string(row.message.text) != std::string(150, static_cast<char>('a' + row.message.role_oid))) {
          torn = true;
        }
      }
    }
  });
  for (std::thread &thread : threads) {
    thread.join();
  }
  assert_false(torn.load());
  assert_false(disordered.load());
  const auto rows = rows_of(*table);
  assert_int_equal(rows.size(), kCodes);
  for (const ErrorRow &row : rows) {
    assert_int_equal(row.count, kWriters * kEach / kCodes);
    assert_true(row.has_message);
    assert_int_equal(row.first_at, row.code);
    assert_int_equal(row.last_at, kEach - kCodes + row.code);
  }
}

// All bring new codes at the same time: each gets one row, and no more.
void many_threads_claim_each_row_once(void **) {
  constexpr int kWriters = 4;
  auto table = empty_table();
  std::vector<std::thread> threads;
  for (int writer = 0; writer < kWriters; writer++) {
    threads.emplace_back([&] {
      for (std::uint32_t code = 1; code <= kRoom; code++) {
        record_error(*table, ErrorClass::statement, code, 0, "x", 1);
      }
    });
  }
  for (std::thread &thread : threads) {
    thread.join();
  }
  const auto rows = rows_of(*table);
  assert_int_equal(rows.size(), kRoom);
  for (const ErrorRow &row : rows) {
    assert_false(row.others);
    assert_int_equal(row.count, kWriters);
  }
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(an_empty_table_has_no_rows),
      cmocka_unit_test(the_same_error_twice_is_one_row),
      cmocka_unit_test(class_and_code_make_the_row),
      cmocka_unit_test(a_clock_set_back_keeps_first_before_last),
      cmocka_unit_test(no_message_is_no_message),
      cmocka_unit_test(a_full_table_counts_the_rest_by_class),
      cmocka_unit_test(a_reset_hides_rows_and_starts_anew),
      cmocka_unit_test(an_error_in_the_moment_of_a_reset_takes_its_time),
      cmocka_unit_test(an_unfinished_message_keeps_nobody_from_counting),
      cmocka_unit_test(long_messages_are_cut_where_a_character_ends),
      cmocka_unit_test(text_is_copied_whole_where_it_fits),
      cmocka_unit_test(every_class_has_a_name_of_its_own),
      cmocka_unit_test(told_errors_have_their_class),
      cmocka_unit_test(refusals_have_their_class),
      cmocka_unit_test(an_error_response_is_read),
      cmocka_unit_test(half_an_error_response_is_not_complete),
      cmocka_unit_test(nothing_is_lost_and_messages_are_whole_between_many_threads),
      cmocka_unit_test(many_threads_claim_each_row_once),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
