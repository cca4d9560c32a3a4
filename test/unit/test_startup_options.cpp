// SPDX-License-Identifier: PostgreSQL
//
// The "options" switches, each path of the parser.  Input and buffers lie in
// blocks of exactly their size, so that a sanitizer sees any byte too far.

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

#include "core/accept/startup_options.hpp"

namespace {

using sluice::OptionsError;
using sluice::OptionsResult;
using sluice::parse_startup_options;
using sluice::StartupParameter;

constexpr std::size_t kBufferBytes = 1024;
constexpr std::size_t kCapacity = 32;

// The settings as "name=value|name=value", or what went wrong and with what.
std::string read(const std::string &options, std::size_t buffer_bytes = kBufferBytes,
                 std::size_t capacity = kCapacity) {
  const auto buffer = std::make_unique<char[]>(buffer_bytes);
  const auto out = std::make_unique<StartupParameter[]>(capacity);
  const OptionsResult result = parse_startup_options(options.c_str(), buffer.get(), buffer_bytes, out.get(), capacity);
  std::string text;
  for (std::size_t i = 0; i < result.count; i++) {
    text += (i == 0 ? "" : "|") + std::string(out[i].name) + "=" + out[i].value;
  }
  const std::string argument = result.argument == nullptr ? "" : result.argument;
  switch (result.error) {
    case OptionsError::none:
      assert_null(result.argument);
      return text;
    case OptionsError::invalid_argument:
      return text + "!invalid:" + argument;
    case OptionsError::missing_value:
      return text + "!missing:" + result.flag + ":" + argument;
    case OptionsError::too_long:
      return text + "!too long";
    case OptionsError::too_many:
      return text + "!too many";
  }
  return "?";
}

void assert_reads(const std::string &options, const std::string &expected) {
  assert_string_equal(read(options).c_str(), expected.c_str());
}

void nothing_sets_nothing(void **) {
  assert_reads("", "");
  assert_reads("   \t\n ", "");
  assert_reads("--", "");
}

void assignments_are_read_in_three_spellings(void **) {
  assert_reads("-c work_mem=4MB", "work_mem=4MB");
  assert_reads("-cwork_mem=4MB", "work_mem=4MB");
  assert_reads("--work_mem=4MB", "work_mem=4MB");
  assert_reads("-c a=1 -cb=2 --c=3", "a=1|b=2|c=3");
}

void dashes_in_names_become_underscores_and_stay_in_values(void **) {
  assert_reads("--work-mem=4-MB", "work_mem=4-MB");
  assert_reads("-c statement-timeout=5-s", "statement_timeout=5-s");
}

void the_first_equals_sign_divides(void **) {
  assert_reads("-c a=b=c", "a=b=c");
  assert_reads("-c a=", "a=");
  assert_reads("-c =b", "=b");
}

void white_space_separates_and_a_backslash_keeps_it(void **) {
  assert_reads(" \t-c\n a=1\v\f\r-c  b=2 ", "a=1|b=2");
  assert_reads("-c search_path=a,\\ b", "search_path=a, b");
  assert_reads("-c a=x\\\\y", "a=x\\y");
  assert_reads("-c a=\\x", "a=x");
  assert_reads("\\-c a=1", "a=1");
  assert_reads("-c a=1\\", "a=1");
  assert_reads("-c a=1\\ ", "a=1 ");
}

void assignments_without_a_value_say_which_spelling(void **) {
  assert_reads("-c work_mem", "!missing:c:work_mem");
  assert_reads("-cwork-mem", "!missing:c:work-mem");
  assert_reads("--work-mem", "!missing:-:work-mem");
  assert_reads("-c a=1 --b", "a=1!missing:-:b");
  assert_reads("-c --", "!missing:c:--");
}

void short_switches_stand_for_settings(void **) {
  assert_reads("-B 64", "shared_buffers=64");
  assert_reads("-e", "datestyle=euro");
  assert_reads("-F", "fsync=false");
  assert_reads("-h localhost", "listen_addresses=localhost");
  assert_reads("-i", "listen_addresses=*");
  assert_reads("-k /tmp", "unix_socket_directories=/tmp");
  assert_reads("-l", "ssl=true");
  assert_reads("-N 5", "max_connections=5");
  assert_reads("-O", "allow_system_table_mods=true");
  assert_reads("-P", "ignore_system_indexes=true");
  assert_reads("-p 5433", "port=5433");
  assert_reads("-S 64", "work_mem=64");
  assert_reads("-s", "log_statement_stats=true");
  assert_reads("-W 3", "post_auth_delay=3");
}

void planner_switches_are_told_by_their_first_letter(void **) {
  assert_reads("-f s -fi -f o -fb",
               "enable_seqscan=false|enable_indexscan=false|enable_indexonlyscan=false|"
               "enable_bitmapscan=false");
  assert_reads("-f t -fn -f m -fh",
               "enable_tidscan=false|enable_nestloop=false|enable_mergejoin=false|"
               "enable_hashjoin=false");
  assert_reads("-f x", "!invalid:x");
  assert_reads("-fx", "!invalid:-fx");
}

void statistics_switches_are_told_by_their_first_letters(void **) {
  assert_reads("-t parser -tplanner -t executor",
               "log_parser_stats=true|log_planner_stats=true|log_executor_stats=true");
  assert_reads("-tpa -te", "log_parser_stats=true|log_executor_stats=true");
  assert_reads("-t p", "!invalid:p");
  assert_reads("-tx", "!invalid:-tx");
}

void the_debug_level_stands_for_several_settings(void **) {
  assert_reads("-d 0", "log_min_messages=notice");
  assert_reads("-d -3", "log_min_messages=notice");
  assert_reads("-dx", "log_min_messages=notice");
  assert_reads("-d1", "log_min_messages=debug1");
  assert_reads("-d 2", "log_min_messages=debug2|log_statement=all");
  assert_reads("-d +5x",
               "log_min_messages=debug5|log_statement=all|debug_print_parse=true|debug_print_plan=true|"
               "debug_print_rewritten=true");
  assert_reads("-d 99999999999",
               "log_min_messages=debug2147483647|log_statement=all|debug_print_parse=true|"
               "debug_print_plan=true|debug_print_rewritten=true");
}

void switches_the_server_ignores_are_ignored(void **) {
  assert_reads("-E -b -j -n -T -C x -D y -r z -v 3", "");
  assert_reads("-r file -c a=1", "a=1");
}

void switches_can_be_bundled(void **) {
  assert_reads("-is", "listen_addresses=*|log_statement_stats=true");
  assert_reads("-sca=1", "log_statement_stats=true|a=1");
  assert_reads("-sS 64", "log_statement_stats=true|work_mem=64");
  assert_reads("-s-a-b=1", "log_statement_stats=true|a_b=1");
  assert_reads("-sz", "log_statement_stats=true!invalid:-sz");
}

void an_argument_may_look_like_a_switch(void **) {
  assert_reads("-S -c a=1", "work_mem=-c!invalid:a=1");
}

void unknown_switches_and_strays_are_invalid(void **) {
  assert_reads("-z", "!invalid:-z");
  assert_reads("-:", "!invalid:-:");
  assert_reads("-c", "!invalid:-c");
  assert_reads("-S", "!invalid:-S");
  assert_reads("stray", "!invalid:stray");
  assert_reads("-", "!invalid:-");
  assert_reads("\\", "!invalid:");
  assert_reads("-- -s", "!invalid:-s");
}

void strays_are_reported_after_the_switches(void **) {
  assert_reads("one -c a=1 two", "a=1!invalid:one");
  assert_reads("one -z", "!invalid:-z");
  assert_reads("one -- two", "!invalid:one");
}

void a_buffer_of_the_promised_size_is_enough(void **) {
  for (const std::string options : {"", "-s", "-c a=1 -c b=2", "\\ ", "a b c d e", "--x=y"}) {
    const std::size_t bytes = sluice::options_buffer_bytes(options.size());
    assert_string_equal(read(options, bytes).c_str(), read(options).c_str());
  }
  assert_string_equal(read("-d2147483647", sluice::options_buffer_bytes(12) + sluice::kDebugLevelBytes).c_str(),
                      read("-d2147483647").c_str());
}

void short_buffers_are_never_overrun(void **) {
  const std::string options = "-c a=1 -d 12 -S64";
  for (std::size_t bytes = 0; bytes < 64; bytes++) {
    const std::string text = read(options, bytes);
    assert_true(text == read(options) || text.find("!too long") != std::string::npos);
  }
  assert_string_equal(read("-s", 2).c_str(), "!too long");
  assert_string_equal(read("-s", 3).c_str(), "log_statement_stats=true");
}

void more_settings_than_asked_for_are_too_many(void **) {
  assert_string_equal(read("-s -i", kBufferBytes, 2).c_str(), "log_statement_stats=true|listen_addresses=*");
  assert_string_equal(read("-s -i", kBufferBytes, 1).c_str(), "log_statement_stats=true!too many");
  assert_string_equal(read("-s", kBufferBytes, 0).c_str(), "!too many");
  assert_string_equal(read("", kBufferBytes, 0).c_str(), "");
  assert_string_equal(read("-d5", kBufferBytes, 3).c_str(),
                      "log_min_messages=debug5|log_statement=all|debug_print_parse=true!too many");
}

void every_prefix_gets_an_answer(void **) {
  const std::string options = "-c work-mem=4\\ MB --a-b=c -d 5 -fs -t pl -isS 64 -- x";
  for (std::size_t size = 0; size <= options.size(); size++) {
    assert_true(read(options.substr(0, size)) != "?");
  }
}

void garbage_does_no_harm(void **) {
  static constexpr char kAlphabet[] = "-- \\=cdftsSz19a\t\xff";
  std::mt19937 random(1234567);
  int good = 0;
  for (int round = 0; round < 100000; round++) {
    std::string options(random() % 24, '\0');
    for (char &c : options) {
      c = kAlphabet[random() % (sizeof(kAlphabet) - 1)];
    }
    const std::string text = read(options, random() % 40, random() % 6);
    good += text.find('!') == std::string::npos ? 1 : 0;
  }
  assert_true(good > 100);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(nothing_sets_nothing),
      cmocka_unit_test(assignments_are_read_in_three_spellings),
      cmocka_unit_test(dashes_in_names_become_underscores_and_stay_in_values),
      cmocka_unit_test(the_first_equals_sign_divides),
      cmocka_unit_test(white_space_separates_and_a_backslash_keeps_it),
      cmocka_unit_test(assignments_without_a_value_say_which_spelling),
      cmocka_unit_test(short_switches_stand_for_settings),
      cmocka_unit_test(planner_switches_are_told_by_their_first_letter),
      cmocka_unit_test(statistics_switches_are_told_by_their_first_letters),
      cmocka_unit_test(the_debug_level_stands_for_several_settings),
      cmocka_unit_test(switches_the_server_ignores_are_ignored),
      cmocka_unit_test(switches_can_be_bundled),
      cmocka_unit_test(an_argument_may_look_like_a_switch),
      cmocka_unit_test(unknown_switches_and_strays_are_invalid),
      cmocka_unit_test(strays_are_reported_after_the_switches),
      cmocka_unit_test(a_buffer_of_the_promised_size_is_enough),
      cmocka_unit_test(short_buffers_are_never_overrun),
      cmocka_unit_test(more_settings_than_asked_for_are_too_many),
      cmocka_unit_test(every_prefix_gets_an_answer),
      cmocka_unit_test(garbage_does_no_harm),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
