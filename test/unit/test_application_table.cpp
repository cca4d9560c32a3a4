// SPDX-License-Identifier: PostgreSQL
//
// Rows by role and name: found again, made by many at once, full, cut, reset.

#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

extern "C" {
#include <cmocka.h>
}

#include "core/stats/application_table.hpp"

namespace {

using sluice::ApplicationSlot;
using sluice::ApplicationState;
using sluice::ApplicationTimes;
using sluice::find_application;
using sluice::kApplicationNameLength;
using sluice::kOtherApplications;

std::unique_ptr<ApplicationSlot[]> empty_table(std::uint32_t count) {
  auto table = std::make_unique<ApplicationSlot[]>(count);
  std::memset(static_cast<void *>(table.get()), 0, count * sizeof(ApplicationSlot));
  return table;
}

ApplicationTimes one_lease(std::uint64_t hold_us) {
  ApplicationTimes times;
  times.transactions = 2;
  times.leases = 1;
  times.waited_us = 3;
  times.hold_us = hold_us;
  times.active_us = hold_us / 2;
  times.thinking_us = hold_us / 4;
  times.longest_hold_us = hold_us;
  return times;
}

void a_name_is_found_again(void **) {
  const auto table = empty_table(100);
  const std::uint32_t web = find_application(table.get(), 100, 10, "web");
  assert_true(web != kOtherApplications && web < 100);
  assert_int_equal(find_application(table.get(), 100, 10, "web"), web);
  assert_string_equal(table[web].name, "web");
  assert_int_equal(table[web].role_oid, 10);
}

void role_and_name_tell_rows_apart(void **) {
  const auto table = empty_table(100);
  std::vector<std::uint32_t> rows;
  for (const std::uint32_t role : {10u, 11u}) {
    for (const char *name : {"", "w", "web", "web2", "Web"}) {
      rows.push_back(find_application(table.get(), 100, role, name));
      for (std::size_t i = 0; i + 1 < rows.size(); i++) {
        assert_int_not_equal(rows[i], rows.back());
      }
    }
  }
}

void long_names_are_cut_and_found_by_what_is_left(void **) {
  const auto table = empty_table(10);
  const std::string kept(kApplicationNameLength - 1, 'x');
  const std::uint32_t row = find_application(table.get(), 10, 1, (kept + "tail").c_str());
  assert_string_equal(table[row].name, kept.c_str());
  assert_int_equal(find_application(table.get(), 10, 1, kept.c_str()), row);
  assert_int_equal(find_application(table.get(), 10, 1, (kept + "other").c_str()), row);
  assert_int_not_equal(find_application(table.get(), 10, 1, kept.substr(1).c_str()), row);
}

void who_finds_no_room_is_one_of_the_others(void **) {
  const auto table = empty_table(4);
  std::map<std::uint32_t, std::string> rows;
  for (const char *name : {"a", "b", "c"}) {
    const std::uint32_t row = find_application(table.get(), 4, 1, name);
    assert_true(row != kOtherApplications && row < 4 && rows.emplace(row, name).second);
  }
  assert_int_equal(find_application(table.get(), 4, 1, "d"), kOtherApplications);
  assert_int_equal(find_application(table.get(), 4, 2, "a"), kOtherApplications);
  for (const auto &[row, name] : rows) {
    assert_int_equal(find_application(table.get(), 4, 1, name.c_str()), row);
  }
  assert_int_equal(table[kOtherApplications].state.load(), 0);
}

void a_table_of_the_others_alone_has_no_other_row(void **) {
  const auto table = empty_table(1);
  assert_int_equal(find_application(table.get(), 1, 1, "a"), kOtherApplications);
  assert_int_equal(find_application(table.get(), 0, 1, "a"), kOtherApplications);
}

void a_row_that_is_being_named_is_left_alone(void **) {
  const auto table = empty_table(2);
  table[1].state.store(static_cast<std::uint32_t>(ApplicationState::claimed));
  assert_int_equal(find_application(table.get(), 2, 1, "a"), kOtherApplications);
}

void sums_add_up_and_the_longest_is_kept(void **) {
  const auto table = empty_table(2);
  ApplicationSlot &row = table[1];
  row.add(one_lease(100));
  row.add(one_lease(400));
  row.add(one_lease(200));
  const ApplicationTimes times = row.read();
  assert_int_equal(times.transactions, 6);
  assert_int_equal(times.leases, 3);
  assert_int_equal(times.waited_us, 9);
  assert_int_equal(times.hold_us, 700);
  assert_int_equal(times.active_us, 350);
  assert_int_equal(times.thinking_us, 175);
  assert_int_equal(times.longest_hold_us, 400);
}

void a_reset_keeps_the_names(void **) {
  const auto table = empty_table(10);
  const std::uint32_t row = find_application(table.get(), 10, 1, "web");
  table[row].add(one_lease(100));
  table[row].reset();
  const ApplicationTimes times = table[row].read();
  assert_int_equal(times.transactions + times.leases + times.waited_us + times.hold_us + times.active_us +
                       times.thinking_us + times.longest_hold_us,
                   0);
  assert_int_equal(find_application(table.get(), 10, 1, "web"), row);
}

// Several threads bring the same names at the same time.  Rows may be doubled, nothing may be lost.
void nothing_is_lost_when_many_bring_names_at_once(void **) {
  constexpr int kThreads = 4, kNames = 40, kRounds = 50;
  constexpr std::uint32_t kRows = 1 + kThreads * kNames;
  for (int round = 0; round < kRounds; round++) {
    const auto table = empty_table(kRows);
    std::vector<std::thread> threads;
    for (int thread = 0; thread < kThreads; thread++) {
      threads.emplace_back([&table, thread] {
        for (int i = 0; i < kNames; i++) {
          char name[32];
          std::snprintf(name, sizeof(name), "application %d", (i + thread * 7) % kNames);
          table[find_application(table.get(), kRows, 5, name)].add(one_lease(static_cast<std::uint64_t>(thread) + 1));
        }
      });
    }
    for (std::thread &thread : threads) thread.join();

    std::map<std::string, ApplicationTimes> sums;
    for (std::uint32_t i = 0; i < kRows; i++) {
      const ApplicationTimes times = table[i].read();
      if (times.leases == 0) continue;
      assert_int_not_equal(i, kOtherApplications);  // there is room for all, doubled or not
      assert_int_equal(table[i].state.load(), static_cast<std::uint32_t>(ApplicationState::used));
      ApplicationTimes &sum = sums[table[i].name];
      sum.leases += times.leases;
      sum.hold_us += times.hold_us;
    }
    assert_int_equal(sums.size(), kNames);
    for (const auto &[name, sum] : sums) {
      assert_int_equal(sum.leases, kThreads);
      assert_int_equal(sum.hold_us, kThreads * (kThreads + 1) / 2);
    }
  }
}

void many_names_at_once_fill_the_table_and_the_rest_are_others(void **) {
  constexpr int kThreads = 4, kNames = 200;
  constexpr std::uint32_t kRows = 64;
  const auto table = empty_table(kRows);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; thread++) {
    threads.emplace_back([&table, thread] {
      for (int i = 0; i < kNames; i++) {
        char name[32];
        std::snprintf(name, sizeof(name), "%d of %d", i, thread);
        table[find_application(table.get(), kRows, 5, name)].add(one_lease(1));
      }
    });
  }
  for (std::thread &thread : threads) thread.join();
  std::uint64_t leases = 0;
  for (std::uint32_t i = 0; i < kRows; i++) {
    leases += table[i].read().leases;
    if (i != kOtherApplications) assert_int_equal(table[i].read().leases, 1);
  }
  assert_int_equal(leases, kThreads * kNames);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(a_name_is_found_again),
      cmocka_unit_test(role_and_name_tell_rows_apart),
      cmocka_unit_test(long_names_are_cut_and_found_by_what_is_left),
      cmocka_unit_test(who_finds_no_room_is_one_of_the_others),
      cmocka_unit_test(a_table_of_the_others_alone_has_no_other_row),
      cmocka_unit_test(a_row_that_is_being_named_is_left_alone),
      cmocka_unit_test(sums_add_up_and_the_longest_is_kept),
      cmocka_unit_test(a_reset_keeps_the_names),
      cmocka_unit_test(nothing_is_lost_when_many_bring_names_at_once),
      cmocka_unit_test(many_names_at_once_fill_the_table_and_the_rest_are_others),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
