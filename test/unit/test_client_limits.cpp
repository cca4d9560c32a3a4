// SPDX-License-Identifier: PostgreSQL
//
// How fast clients are accepted, what counts as one address, who may have the last
// slots, and how often refusals are logged.

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <csetjmp>
#include <initializer_list>

extern "C" {
#include <cmocka.h>
}

#include "core/accept/address_key.hpp"
#include "core/accept/log_throttle.hpp"
#include "core/accept/reserved_slots.hpp"
#include "core/accept/token_bucket.hpp"

namespace {

using sluice::address_key;
using sluice::AddressKey;
using sluice::AddressKind;
using sluice::ClientAddress;
using sluice::LogThrottle;
using sluice::SlotRight;
using sluice::TokenBucket;
using sluice::unauthenticated_limit_of_address;
using sluice::who_may_enter;

constexpr std::int64_t kStartUs = 5'000'000;

// ---------------------------------------------------------------- token bucket

int take_all(TokenBucket &bucket, std::int64_t now_us, int at_most) {
  int taken = 0;
  while (taken < at_most && bucket.take(now_us)) taken++;
  return taken;
}

void a_bucket_without_rate_refuses_nothing(void **) {
  TokenBucket bucket;
  assert_int_equal(take_all(bucket, kStartUs, 100000), 100000);
  bucket.set_rate(0, 10);
  assert_int_equal(take_all(bucket, kStartUs, 100000), 100000);
  assert_int_equal(bucket.wait_us(kStartUs), 0);
}

void a_bucket_is_full_at_first_and_holds_its_burst(void **) {
  for (const int burst : {1, 2, 7, 500}) {
    TokenBucket bucket;
    bucket.set_rate(100, burst);
    assert_int_equal(take_all(bucket, kStartUs, 10000), burst);
    assert_int_equal(take_all(bucket, kStartUs + 1'000'000'000, 10000), burst);
  }
}

void tokens_come_back_at_the_rate(void **) {
  TokenBucket bucket;
  bucket.set_rate(100, 50);
  (void)take_all(bucket, kStartUs, 1000);
  assert_int_equal(bucket.wait_us(kStartUs), 10000);
  assert_int_equal(take_all(bucket, kStartUs + 9999, 1000), 0);
  assert_int_equal(take_all(bucket, kStartUs + 10000, 1000), 1);
  assert_int_equal(take_all(bucket, kStartUs + 110000, 1000), 10);
}

void after_the_wait_it_names_there_is_a_token(void **) {
  for (const std::int64_t rate : {1, 3, 7, 999, 20000, 1000000}) {
    TokenBucket bucket;
    bucket.set_rate(rate, 3);
    std::int64_t now_us = kStartUs;
    for (int i = 0; i < 1000; i++) {
      const std::int64_t wait_us = bucket.wait_us(now_us);
      assert_true(wait_us == 0 || !bucket.take(now_us));
      now_us += wait_us;
      assert_true(bucket.take(now_us));
    }
  }
}

// Whatever the pattern of asking.
void no_more_than_the_burst_and_the_rate_pass(void **) {
  for (const std::int64_t rate : {7, 1000, 20000}) {
    TokenBucket bucket;
    bucket.set_rate(rate, 20);
    std::uint32_t random = 12345;
    std::int64_t now_us = kStartUs;
    std::int64_t taken = 0;
    for (int i = 0; i < 20000; i++) {
      random = random * 1664525u + 1013904223u;
      now_us += (random >> 16) % 300;
      taken += bucket.take(now_us);
    }
    const std::int64_t elapsed_us = now_us - kStartUs;
    assert_true(taken <= 20 + elapsed_us * rate / 1'000'000 + 1);
    const std::int64_t asked = 20000;
    const std::int64_t due = 20 + elapsed_us * rate / 1'000'000;
    assert_true(taken >= (due < asked ? due : asked) * 95 / 100 - 1);
  }
}

void a_refused_try_costs_nothing(void **) {
  TokenBucket bucket;
  bucket.set_rate(10, 1);
  assert_true(bucket.take(kStartUs));
  for (int i = 0; i < 1000; i++) assert_false(bucket.take(kStartUs + i));
  assert_true(bucket.take(kStartUs + 100000));
}

void setting_the_same_rate_again_does_not_fill_the_bucket(void **) {
  TokenBucket bucket;
  bucket.set_rate(10, 5);
  (void)take_all(bucket, kStartUs, 100);
  bucket.set_rate(10, 5);
  assert_false(bucket.take(kStartUs));
  bucket.set_rate(20, 5);
  assert_int_equal(take_all(bucket, kStartUs, 100), 5);
  bucket.set_rate(0, 5);
  assert_true(bucket.take(kStartUs));
}

// ---------------------------------------------------------------- addresses

ClientAddress make_address(std::uint8_t family, std::initializer_list<int> bytes) {
  ClientAddress address{};
  address.family = family;
  std::size_t i = 0;
  for (const int byte : bytes) address.bytes[i++] = static_cast<std::uint8_t>(byte);
  return address;
}

bool same(const ClientAddress &one, const ClientAddress &other) {
  const AddressKey a = address_key(one, 1), b = address_key(other, 1);
  return a.kind == b.kind && a.value == b.value;
}

void each_ipv4_address_counts_by_itself(void **) {
  ClientAddress address = make_address(4, {10, 0, 0, 1});
  assert_true(address_key(address, 0).kind == AddressKind::ipv4);
  assert_int_equal(address_key(address, 0).value, 0x0a000001);
  assert_false(same(address, make_address(4, {10, 0, 0, 2})));
  ClientAddress other_port = address;
  other_port.port = 4711;
  assert_true(same(address, other_port));
}

void an_ipv6_network_of_64_bits_is_one_address(void **) {
  const ClientAddress one = make_address(6, {0x20, 1, 0xd, 0xb8, 0, 1, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8});
  assert_true(same(one, make_address(6, {0x20, 1, 0xd, 0xb8, 0, 1, 0, 2, 9, 9, 9, 9, 9, 9, 9, 9})));
  assert_false(same(one, make_address(6, {0x20, 1, 0xd, 0xb8, 0, 1, 0, 3, 1, 2, 3, 4, 5, 6, 7, 8})));
}

void an_ipv4_address_mapped_into_ipv6_is_the_ipv4_address(void **) {
  const ClientAddress mapped = make_address(6, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1});
  assert_true(same(mapped, make_address(4, {10, 0, 0, 1})));
  assert_false(same(mapped, make_address(4, {10, 0, 0, 2})));
  // ::1 is none.
  const ClientAddress loopback = make_address(6, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1});
  assert_true(address_key(loopback, 0).kind == AddressKind::ipv6_network);
}

void at_a_unix_socket_the_user_is_the_address(void **) {
  const ClientAddress local = make_address(1, {});
  assert_true(address_key(local, 1000).kind == AddressKind::local_user);
  assert_int_equal(address_key(local, 1000).value, 1000);
  assert_int_equal(address_key(local, 1001).value, 1001);
}

void one_address_leaves_a_tenth_of_the_logins_to_others(void **) {
  assert_int_equal(unauthenticated_limit_of_address(-1, 500), 450);
  assert_int_equal(unauthenticated_limit_of_address(-1, 10), 9);
  assert_int_equal(unauthenticated_limit_of_address(-1, 5), 5);
  assert_int_equal(unauthenticated_limit_of_address(0, 500), 500);
  assert_int_equal(unauthenticated_limit_of_address(20, 500), 20);
}

// ---------------------------------------------------------------- reserved slots

void the_last_slots_are_for_superusers(void **) {
  assert_true(who_may_enter(100, 1, 3, 0) == SlotRight::everyone);
  assert_true(who_may_enter(100, 97, 3, 0) == SlotRight::everyone);
  assert_true(who_may_enter(100, 98, 3, 0) == SlotRight::superuser);
  assert_true(who_may_enter(100, 100, 3, 0) == SlotRight::superuser);
}

void without_a_reserve_all_slots_are_for_everyone(void **) {
  assert_true(who_may_enter(100, 100, 0, 0) == SlotRight::everyone);
}

void those_before_are_for_the_privileged(void **) {
  assert_true(who_may_enter(100, 92, 3, 5) == SlotRight::everyone);
  assert_true(who_may_enter(100, 93, 3, 5) == SlotRight::reserved_connection);
  assert_true(who_may_enter(100, 97, 3, 5) == SlotRight::reserved_connection);
  assert_true(who_may_enter(100, 98, 3, 5) == SlotRight::superuser);
}

void a_reserve_leaves_room_for_one_without_privileges(void **) {
  for (const int capacity : {1, 2, 3, 4, 8}) assert_true(who_may_enter(capacity, 1, 3, 5) == SlotRight::everyone);
  assert_true(who_may_enter(2, 2, 3, 0) == SlotRight::superuser);
}

// ---------------------------------------------------------------- log

void the_first_event_is_logged_and_the_rest_of_the_interval_counted(void **) {
  LogThrottle log{1000};
  assert_true(log.note(0).log);
  assert_false(log.note(0).log);
  assert_false(log.note(999).log);
  const LogThrottle::Verdict next = log.note(1000);
  assert_true(next.log);
  assert_int_equal(next.left_out, 2);
  const LogThrottle::Verdict later = log.note(5000);
  assert_true(later.log);
  assert_int_equal(later.left_out, 0);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(a_bucket_without_rate_refuses_nothing),
      cmocka_unit_test(a_bucket_is_full_at_first_and_holds_its_burst),
      cmocka_unit_test(tokens_come_back_at_the_rate),
      cmocka_unit_test(after_the_wait_it_names_there_is_a_token),
      cmocka_unit_test(no_more_than_the_burst_and_the_rate_pass),
      cmocka_unit_test(a_refused_try_costs_nothing),
      cmocka_unit_test(setting_the_same_rate_again_does_not_fill_the_bucket),
      cmocka_unit_test(each_ipv4_address_counts_by_itself),
      cmocka_unit_test(an_ipv6_network_of_64_bits_is_one_address),
      cmocka_unit_test(an_ipv4_address_mapped_into_ipv6_is_the_ipv4_address),
      cmocka_unit_test(at_a_unix_socket_the_user_is_the_address),
      cmocka_unit_test(one_address_leaves_a_tenth_of_the_logins_to_others),
      cmocka_unit_test(the_last_slots_are_for_superusers),
      cmocka_unit_test(without_a_reserve_all_slots_are_for_everyone),
      cmocka_unit_test(those_before_are_for_the_privileged),
      cmocka_unit_test(a_reserve_leaves_room_for_one_without_privileges),
      cmocka_unit_test(the_first_event_is_logged_and_the_rest_of_the_interval_counted),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
