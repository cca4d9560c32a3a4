// SPDX-License-Identifier: PostgreSQL
//
// Limits of the operating system: what is needed, and what follows.

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <csetjmp>

extern "C" {
#include <cmocka.h>
}

#include "core/tuning/system_limits.hpp"

using namespace sluice;

namespace {

void is(LimitAnswer answer, LimitVerdict verdict, std::int64_t recommended) {
  assert_true(answer.verdict == verdict);
  assert_int_equal(answer.recommended, recommended);
}

LimitAnswer own(std::int64_t value, std::int64_t needed) {
  return judge_limit({value, needed, false});
}

LimitAnswer shared(std::int64_t value, std::int64_t needed) {
  return judge_limit({value, needed, true});
}

void a_limit_of_our_own_is_enough_when_it_is_reached(void **) {
  is(own(4096, 4096), LimitVerdict::ok, -1);
  is(own(5000, 4096), LimitVerdict::ok, -1);
  is(own(4095, 4096), LimitVerdict::too_low, 4096);
  is(own(0, 1), LimitVerdict::too_low, 1);
  is(own(0, 0), LimitVerdict::ok, -1);
}

void a_shared_limit_needs_room(void **) {
  is(shared(10000, 9000), LimitVerdict::ok, -1);
  is(shared(10000, 9001), LimitVerdict::close, 11264);
  is(shared(10000, 10000), LimitVerdict::close, 13312);
  is(shared(10000, 10001), LimitVerdict::too_low, 13312);
}

void what_is_recommended_would_be_ok(void **) {
  for (const std::int64_t needed :
       {std::int64_t{1}, std::int64_t{7}, std::int64_t{819}, std::int64_t{1023}, std::int64_t{1024}, std::int64_t{1025},
        std::int64_t{11328}, std::int64_t{1000000}, std::int64_t{1} << 40}) {
    is(own(own(0, needed).recommended, needed), LimitVerdict::ok, -1);
    const std::int64_t recommended = shared(0, needed).recommended;
    // Of very few the room rounds down to nothing.
    if (needed >= 8) is(shared(recommended, needed), LimitVerdict::ok, -1);
  }
}

void what_cannot_be_read_is_unknown(void **) {
  is(own(-1, 100), LimitVerdict::unknown, -1);
  is(shared(-1, 100), LimitVerdict::unknown, -1);
  is(own(-1, -1), LimitVerdict::unknown, -1);
}

void where_nothing_definite_is_needed_it_is_information(void **) {
  is(own(0, -1), LimitVerdict::information, -1);
  is(shared(kUnlimited, -1), LimitVerdict::information, -1);
}

void what_is_not_judged_is_information(void **) {
  is(judge_limit({10, 20, false, false}), LimitVerdict::information, -1);
  is(judge_limit({-1, 20, false, false}), LimitVerdict::unknown, -1);
}

void what_does_not_limit_is_ok(void **) {
  is(own(kUnlimited, kUnlimited), LimitVerdict::ok, -1);
  is(shared(kUnlimited, kUnlimited), LimitVerdict::ok, -1);
  is(shared(kUnlimited - 1, 1000), LimitVerdict::ok, -1);
}

void numbers_near_the_end_of_the_type_do_not_overflow(void **) {
  is(shared(1, kUnlimited), LimitVerdict::too_low, kUnlimited);
  is(own(1, kUnlimited - 1), LimitVerdict::too_low, kUnlimited - 1);
}

void limits_are_parsed(void **) {
  std::int64_t limit = -1;
  assert_true(parse_limit(" 4096\n", limit) && limit == 4096);
  assert_true(parse_limit("0", limit) && limit == 0);
  assert_true(parse_limit("max\n", limit) && limit == kUnlimited);
  assert_true(parse_limit("unlimited", limit) && limit == kUnlimited);
  assert_true(parse_limit("9223372036854775807", limit) && limit == kUnlimited);
  assert_true(parse_limit("18446744073709551615", limit) && limit == kUnlimited);
  for (const std::string_view text : {"", "\n", "x", "-1", "12x", "1 2", "0x10", "maximum"}) {
    limit = 42;
    assert_false(parse_limit(text, limit));
    assert_int_equal(limit, 42);
  }
}

void several_limits_are_parsed(void **) {
  std::int64_t limits[kMaxLimitNumbers] = {};
  assert_int_equal(parse_limits("449\t0\t2466177\n", limits), 3);
  assert_true(limits[0] == 449 && limits[1] == 0 && limits[2] == 2466177);
  assert_int_equal(parse_limits("32768   60999", limits), 2);
  assert_true(limits[0] == 32768 && limits[1] == 60999);
  assert_int_equal(parse_limits("1 2 3 4 5 6", limits), 4);
  assert_int_equal(parse_limits("7 x 9", limits), 1);
  assert_int_equal(parse_limits("", limits), 0);
  assert_int_equal(parse_limits("garbage", limits), 0);
}

void memory_of_tcp_is_parsed(void **) {
  std::int64_t pages = -1;
  assert_true(parse_tcp_pages("TCP: inuse 1 orphan 0 tw 0 alloc 1 mem 228", pages) && pages == 228);
  for (const std::string_view line :
       {"", "TCP:", "TCP: mem", "TCP: mem x", "TCP: mem -1", "UDP: inuse 0 mem 7", "TCP: inuse 1"}) {
    pages = 42;
    assert_false(parse_tcp_pages(line, pages));
    assert_int_equal(pages, 42);
  }
}

void ports_are_counted(void **) {
  assert_int_equal(count_ports({32768, 60999, 0, 0}, 2), 28232);
  assert_int_equal(count_ports({1, 1, 0, 0}, 2), 1);
  assert_int_equal(count_ports({2, 1, 0, 0}, 2), -1);
  assert_int_equal(count_ports({1, 65536, 0, 0}, 2), -1);
  assert_int_equal(count_ports({1, 0, 0, 0}, 1), -1);
}

void every_verdict_has_a_phrase(void **) {
  for (const LimitVerdict verdict : {LimitVerdict::ok, LimitVerdict::close, LimitVerdict::too_low,
                                     LimitVerdict::unknown, LimitVerdict::information}) {
    assert_false(limit_verdict_phrase(verdict).empty());
  }
  assert_true(limit_verdict_phrase(LimitVerdict::too_low) == "too low");
}

void backlog_has_room_for_connections_and_logins(void **) {
  assert_int_equal(listen_backlog(100, 500), 700);
  assert_int_equal(listen_backlog(40000, 500), kGreatestBacklog);
  assert_int_equal(listen_backlog(INT32_MAX, INT32_MAX), kGreatestBacklog);
}

void ptrace_scope_forbids_from_two_on(void **) {
  is(judge_ptrace_scope(0), LimitVerdict::ok, -1);
  is(judge_ptrace_scope(1), LimitVerdict::ok, -1);
  is(judge_ptrace_scope(2), LimitVerdict::information, 1);
  is(judge_ptrace_scope(3), LimitVerdict::information, 1);
  is(judge_ptrace_scope(-1), LimitVerdict::unknown, -1);
}

LimitedConfiguration ten_thousand() {
  LimitedConfiguration configuration;
  configuration.max_clients = 10000;
  configuration.max_backends = 100;
  configuration.max_pools = 64;
  configuration.max_listeners = 64;
  configuration.max_connections = 100;
  configuration.max_unauthenticated_clients = 500;
  configuration.descriptor_base = 1280;
  configuration.server_processes = 224;
  return configuration;
}

void needs_follow_the_configuration(void **) {
  const SystemNeeds needs = work_out_needs(ten_thousand(), SystemUse());
  assert_int_equal(needs.descriptors, 1280 + 10000 + 64);
  assert_int_equal(needs.open_files, 10000 + 128 + 200);
  assert_int_equal(needs.backlog, 700);
  assert_int_equal(needs.syn_backlog, 934);
  assert_int_equal(needs.client_ports, 10000);
  assert_int_equal(needs.tcp_pages, 20000);
  assert_int_equal(needs.socket_bytes, 10000 * kIdleSocketBytes);
  assert_int_equal(needs.processes, 234);
  assert_int_equal(needs.tasks, 234);
  assert_int_equal(needs.watches, 20000 + 128 + 100 + 65 + 5 * 234);
  assert_int_equal(needs.mappings, -1);
}

void what_is_in_use_counts(void **) {
  SystemUse use;
  use.open_files = 5000;
  use.tasks = 300;
  use.tcp_pages = 40;
  use.own_mappings = 90;
  use.syn_cookies = 1;
  const SystemNeeds needs = work_out_needs(ten_thousand(), use);
  assert_int_equal(needs.open_files, 5000 + 10000 + 128 + 200);
  assert_int_equal(needs.tasks, 300 + 234);
  assert_int_equal(needs.tcp_pages, 20040);
  assert_int_equal(needs.syn_backlog, -1);
  assert_int_equal(needs.mappings, 90 + kAreaSegments);
}

void clients_that_are_there_are_not_counted_twice(void **) {
  LimitedConfiguration configuration = ten_thousand();
  configuration.clients = 9000;
  configuration.backends = 100;
  const SystemNeeds needs = work_out_needs(configuration, SystemUse());
  assert_int_equal(needs.open_files, 1000 + 128);
  assert_int_equal(needs.socket_bytes, 1000 * kIdleSocketBytes);
  assert_int_equal(needs.descriptors, 1280 + 10000 + 64);
  configuration.clients = 10001;  // a gauge may be a moment off
  assert_int_equal(work_out_needs(configuration, SystemUse()).socket_bytes, 0);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(a_limit_of_our_own_is_enough_when_it_is_reached),
      cmocka_unit_test(a_shared_limit_needs_room),
      cmocka_unit_test(what_is_recommended_would_be_ok),
      cmocka_unit_test(what_cannot_be_read_is_unknown),
      cmocka_unit_test(where_nothing_definite_is_needed_it_is_information),
      cmocka_unit_test(what_is_not_judged_is_information),
      cmocka_unit_test(what_does_not_limit_is_ok),
      cmocka_unit_test(numbers_near_the_end_of_the_type_do_not_overflow),
      cmocka_unit_test(limits_are_parsed),
      cmocka_unit_test(several_limits_are_parsed),
      cmocka_unit_test(memory_of_tcp_is_parsed),
      cmocka_unit_test(ports_are_counted),
      cmocka_unit_test(every_verdict_has_a_phrase),
      cmocka_unit_test(backlog_has_room_for_connections_and_logins),
      cmocka_unit_test(ptrace_scope_forbids_from_two_on),
      cmocka_unit_test(needs_follow_the_configuration),
      cmocka_unit_test(what_is_in_use_counts),
      cmocka_unit_test(clients_that_are_there_are_not_counted_twice),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
