// SPDX-License-Identifier: PostgreSQL
//
// What is recommended, and above all what is not.

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <csetjmp>

extern "C" {
#include <cmocka.h>
}

#include "core/tuning/recommendations.hpp"

using namespace sluice;

namespace {

const Recommendation *find(const Recommendations &list, Advice advice) {
  const Recommendation *found = nullptr;
  for (std::size_t i = 0; i < list.count; ++i) {
    if (list.items[i].advice != advice) continue;
    assert_null(found);  // nothing is said twice
    found = &list.items[i];
  }
  return found;
}

void says(const Recommendations &list, Advice advice, std::int64_t current, std::int64_t recommended) {
  const Recommendation *found = find(list, advice);
  assert_non_null(found);
  assert_int_equal(found->current, current);
  assert_int_equal(found->recommended, recommended);
}

// A pool at its rule, busy and content.
PoolPressure good_pool() {
  PoolPressure pool;
  pool.max_size = 5;
  pool.advised = 5;
  pool.clients = 50;
  pool.backends = 5;
  pool.peak_backends = 5;
  pool.leases = 100000;
  return pool;
}

ServerPressure good_server() {
  ServerPressure server;
  server.max_backends = 100;
  server.backends = 5;
  server.wanted_backends = 5;
  server.max_clients = 10000;
  server.clients = 50;
  server.descriptor_limit = 20000;
  server.descriptor_base = 1000;
  server.max_connections = 100;
  server.direct_connections = 2;
  server.pooled_transactions = 100000;
  server.machine_known = true;
  server.spindles = 0;
  server.miss_ratio = 0.5;
  return server;
}

void nothing_to_recommend_is_nothing(void **) {
  assert_int_equal(recommend_for_pool(good_pool()).count, 0);
  assert_int_equal(recommend_for_server(good_server()).count, 0);
  assert_int_equal(recommend_for_pool(PoolPressure{}).count, 0);
}

void a_pool_far_above_the_rule_should_shrink_whether_clients_wait_or_not(void **) {
  PoolPressure pool = good_pool();
  pool.configured = pool.max_size = 50;
  says(recommend_for_pool(pool), Advice::shrink_pool, 50, 5);
  pool.queued = 10;
  says(recommend_for_pool(pool), Advice::shrink_pool, 50, 5);
  assert_null(find(recommend_for_pool(pool), Advice::grow_pool));
}

void a_pool_within_twice_the_rule_is_left_alone(void **) {
  PoolPressure pool = good_pool();
  pool.configured = pool.max_size = 10;
  assert_int_equal(recommend_for_pool(pool).count, 0);
  pool.advised = 1;
  pool.configured = pool.max_size = 4;  // far in ratio, but not worth a word
  assert_int_equal(recommend_for_pool(pool).count, 0);
}

void a_pool_that_follows_the_rule_is_never_resized(void **) {
  PoolPressure pool = good_pool();
  pool.max_size = 50;
  assert_int_equal(recommend_for_pool(pool).count, 0);
  pool.max_size = 1;
  pool.queued = 5;
  assert_null(find(recommend_for_pool(pool), Advice::grow_pool));
}

void an_unknown_rule_resizes_nothing(void **) {
  PoolPressure pool = good_pool();
  pool.advised = 0;
  pool.configured = pool.max_size = 500;
  assert_int_equal(recommend_for_pool(pool).count, 0);
}

void a_pool_far_below_the_rule_should_grow_if_clients_wait(void **) {
  PoolPressure pool = good_pool();
  pool.advised = 20;
  pool.configured = pool.max_size = 5;
  assert_int_equal(recommend_for_pool(pool).count, 0);

  PoolPressure queued = pool;
  queued.queued = 3;
  says(recommend_for_pool(queued), Advice::grow_pool, 5, 20);

  PoolPressure waited = pool;
  waited.waits = waited.leases / kWaitsWorthMention;
  says(recommend_for_pool(waited), Advice::grow_pool, 5, 20);
  waited.waits = waited.leases / (2 * kWaitsWorthMention);
  assert_int_equal(recommend_for_pool(waited).count, 0);

  PoolPressure gave_up = pool;
  gave_up.acquire_timeouts = 1;
  says(recommend_for_pool(gave_up), Advice::grow_pool, 5, 20);
  assert_null(find(recommend_for_pool(gave_up), Advice::look_at_holders));
}

void a_pool_that_never_reached_its_size_is_not_held_back_by_it(void **) {
  PoolPressure pool = good_pool();
  pool.advised = 20;
  pool.configured = pool.max_size = 5;
  pool.peak_backends = 4;
  pool.queued = 3;
  assert_int_equal(recommend_for_pool(pool).count, 0);
}

void idle_transactions_that_hold_up_others_should_end(void **) {
  PoolPressure pool = good_pool();
  pool.backends = 8;
  pool.peak_backends = 4;
  pool.thinking = 4;
  pool.queued = 2;
  says(recommend_for_pool(pool), Advice::end_idle_transactions, 0, kLongestIdleTransactionMs);

  pool.idle_transaction_timeout_ms = 600000;
  says(recommend_for_pool(pool), Advice::end_idle_transactions, 600000, kLongestIdleTransactionMs);
  pool.idle_transaction_timeout_ms = 5000;
  assert_int_equal(recommend_for_pool(pool).count, 0);
}

void idle_transactions_that_nobody_waits_for_are_left_alone(void **) {
  PoolPressure pool = good_pool();
  pool.thinking = 5;
  pool.peak_backends = 4;
  assert_int_equal(recommend_for_pool(pool).count, 0);
  pool.queued = 2;
  pool.thinking = 2;  // less than half: not what the queue is about
  assert_int_equal(recommend_for_pool(pool).count, 0);
}

void a_measured_size_is_recommended_where_it_brings_throughput(void **) {
  PoolPressure pool = good_pool();
  pool.measured = true;
  pool.advised = 8;
  pool.queued = 3;
  assert_null(find(recommend_for_pool(pool), Advice::grow_pool));
  pool.throughput_gain = 1.2;
  says(recommend_for_pool(pool), Advice::grow_pool, 5, 8);  // although it follows the rule
  pool.queued = 0;
  assert_int_equal(recommend_for_pool(pool).count, 0);  // nobody needs more

  pool.advised = 3;
  says(recommend_for_pool(pool), Advice::shrink_pool, 5, 3);
  pool.throughput_gain = 1.01;
  assert_int_equal(recommend_for_pool(pool).count, 0);
  pool.max_size = 12;  // costs memory and latency for nothing
  says(recommend_for_pool(pool), Advice::shrink_pool, 12, 3);
}

void clients_that_wait_in_a_full_pool_are_a_reason_to_measure(void **) {
  PoolPressure pool = good_pool();
  pool.queued = 3;
  says(recommend_for_pool(pool), Advice::calibrate, 5, -1);
  pool.measured = true;
  assert_int_equal(recommend_for_pool(pool).count, 0);
  pool.bound = SizeBound::at_least;  // throughput still grew at that size
  says(recommend_for_pool(pool), Advice::calibrate, 5, -1);
  pool.measured = false;
  pool.peak_backends = 4;
  assert_int_equal(recommend_for_pool(pool).count, 0);
}

void transactions_that_were_in_the_way_should_end(void **) {
  PoolPressure pool = good_pool();
  pool.leaks = 2;
  says(recommend_for_pool(pool), Advice::end_long_transactions, 0, kLongestIdleTransactionMs);
  pool.idle_transaction_timeout_ms = 1000;
  assert_int_equal(recommend_for_pool(pool).count, 0);
}

void pins_that_keep_others_waiting_should_go(void **) {
  PoolPressure pool = good_pool();
  pool.backends = 10;
  pool.pinned = 6;
  assert_int_equal(recommend_for_pool(pool).count, 0);
  pool.queued = 1;
  pool.acquire_timeouts = 1;
  const Recommendations list = recommend_for_pool(pool);
  assert_int_equal(list.count, 1);
  says(list, Advice::release_pins, 6, -1);
}

void clients_that_waited_for_themselves_need_more_backends(void **) {
  PoolPressure pool = good_pool();
  pool.nested_acquires = 1;
  pool.max_backends = 20;
  pool.acquire_timeouts = 5;
  const Recommendations list = recommend_for_pool(pool);
  assert_int_equal(list.count, 1);
  says(list, Advice::break_nested_acquire, 20, -1);

  ServerPressure server = good_server();
  server.max_backends = 20;
  server.nested_minimum = 21;
  says(recommend_for_server(server), Advice::raise_max_backends, 20, 21);
  server.nested_reserve = 1;  // the reserve keeps it going
  assert_int_equal(recommend_for_server(server).count, 0);
  server.nested_minimum = 50;
  server.backends = 20;
  server.queued = 1;
  says(recommend_for_server(server), Advice::raise_max_backends, 20, 50);  // one row, the greater number
}

void a_size_that_is_only_a_bound_is_recommended_as_one(void **) {
  PoolPressure pool = good_pool();
  pool.measured = true;
  pool.configured = pool.max_size = pool.peak_backends = 50;
  pool.advised = 20;
  pool.bound = SizeBound::at_least;
  assert_int_equal(recommend_for_pool(pool).count, 0);

  pool.configured = pool.max_size = pool.peak_backends = 2;
  pool.advised = 8;
  pool.queued = 3;
  pool.bound = SizeBound::at_most;
  assert_null(find(recommend_for_pool(pool), Advice::grow_pool));
  pool.bound = SizeBound::exact;
  says(recommend_for_pool(pool), Advice::grow_pool, 2, 8);
}

void no_size_is_recommended_that_costs_throughput(void **) {
  PoolPressure pool = good_pool();
  pool.measured = true;
  pool.configured = pool.max_size = 50;
  pool.advised = 5;
  says(recommend_for_pool(pool), Advice::shrink_pool, 50, 5);
  pool.throughput_gain = 0.8;
  assert_int_equal(recommend_for_pool(pool).count, 0);
}

void nothing_larger_is_recommended_while_more_backends_would_not_help(void **) {
  PoolPressure pool = good_pool();
  pool.configured = pool.max_size = pool.peak_backends = 2;
  pool.queued = 3;
  says(recommend_for_pool(pool), Advice::grow_pool, 2, 5);
  pool.more_would_help = false;
  assert_int_equal(recommend_for_pool(pool).count, 0);
  pool.acquire_timeouts = 1;  // but clients have given up
  says(recommend_for_pool(pool), Advice::look_at_holders, 1, -1);
  assert_int_equal(recommend_for_pool(pool).count, 1);

  pool = good_pool();
  pool.measured = true;
  pool.advised = 8;
  pool.throughput_gain = 1.2;
  pool.queued = 3;
  pool.more_would_help = false;
  assert_int_equal(recommend_for_pool(pool).count, 0);

  pool = good_pool();
  pool.queued = 3;
  pool.more_would_help = false;
  assert_int_equal(recommend_for_pool(pool).count, 0);  // nor a measurement

  pool.configured = pool.max_size = 50;  // a smaller one is another matter
  says(recommend_for_pool(pool), Advice::shrink_pool, 50, 5);
}

void what_keeps_the_server_from_measuring_is_said(void **) {
  ServerPressure server = good_server();
  server.track_timing = false;
  const Recommendations list = recommend_for_server(server);
  says(list, Advice::track_timing, 0, 1);
}

void a_session_pool_needs_a_backend_for_each_client_and_the_rule_does_not_apply(void **) {
  PoolPressure pool = good_pool();
  pool.session_mode = true;
  pool.max_size = 4;
  pool.clients = 30;
  assert_int_equal(recommend_for_pool(pool).count, 0);
  pool.acquire_timeouts = 1;
  says(recommend_for_pool(pool), Advice::one_backend_per_client, 4, 30);
  pool.peak_backends = 3;  // it has been made larger since
  assert_int_equal(recommend_for_pool(pool).count, 0);
  pool.peak_backends = 5;
  pool.clients = 15000;
  says(recommend_for_pool(pool), Advice::one_backend_per_client, 4, kGreatestMaxBackends);
  pool.clients = 4;  // those that gave up have gone
  says(recommend_for_pool(pool), Advice::one_backend_per_client, 4, 7);
  pool.max_size = 1000;
  pool.acquire_timeouts = 0;
  assert_int_equal(recommend_for_pool(pool).count, 0);
}

void timeouts_and_failed_starts_are_reported(void **) {
  PoolPressure pool = good_pool();
  pool.acquire_timeouts = 7;
  pool.start_failures = 3;
  pool.peak_backends = 4;
  const Recommendations list = recommend_for_pool(pool);
  assert_int_equal(list.count, 2);
  says(list, Advice::look_at_holders, 7, -1);
  says(list, Advice::mend_starts, 3, -1);
}

void max_backends_should_rise_if_it_is_reached_and_clients_wait(void **) {
  ServerPressure server = good_server();
  server.backends = 100;
  assert_int_equal(recommend_for_server(server).count, 0);
  server.queued = 1;
  assert_int_equal(recommend_for_server(server).count, 0);  // the pools want no more than there are
  server.wanted_backends = 101;
  says(recommend_for_server(server), Advice::raise_max_backends, 100, 150);
  server.wanted_backends = 180;
  server.thinking = 20;
  says(recommend_for_server(server), Advice::raise_max_backends, 100, 200);
  server.pinned = 30;
  says(recommend_for_server(server), Advice::raise_max_backends, 100, 230);
  server.wanted_backends = 1000000;
  says(recommend_for_server(server), Advice::raise_max_backends, 100, kGreatestMaxBackends);
  server.max_backends = server.backends = kGreatestMaxBackends;
  assert_null(find(recommend_for_server(server), Advice::raise_max_backends));
}

void an_oversized_pool_should_shrink_before_max_backends_rises(void **) {
  PoolPressure pool = good_pool();
  assert_int_equal(sensible_size(pool), 5);
  pool.configured = pool.max_size = 90;
  assert_int_equal(sensible_size(pool), 5);
  pool.configured = -1;
  assert_int_equal(sensible_size(pool), 90);

  ServerPressure server = good_server();
  server.backends = 100;
  server.queued = 1;
  server.oversized_pools = 1;
  assert_int_equal(recommend_for_server(server).count, 0);
  server.wanted_backends = 101;
  says(recommend_for_server(server), Advice::raise_max_backends, 100, 150);
}

void the_smallest_max_backends_can_rise(void **) {
  ServerPressure server = good_server();
  server.max_backends = server.backends = server.queued = 1;
  server.wanted_backends = 2;
  says(recommend_for_server(server), Advice::raise_max_backends, 1, 2);
}

void max_clients_should_rise_from_four_fifths_on(void **) {
  ServerPressure server = good_server();
  server.clients = 7999;
  assert_int_equal(recommend_for_server(server).count, 0);
  server.clients = 8000;
  says(recommend_for_server(server), Advice::raise_max_clients, 10000, 20000);
  server.max_clients = 900000;
  server.clients = 900000;
  server.descriptor_limit = -1;
  says(recommend_for_server(server), Advice::raise_max_clients, 900000, kGreatestMaxClients);
}

void descriptors_should_be_enough_for_all_clients(void **) {
  ServerPressure server = good_server();
  server.descriptor_limit = 11000;
  assert_int_equal(recommend_for_server(server).count, 0);
  server.descriptor_limit = 10999;
  says(recommend_for_server(server), Advice::raise_descriptor_limit, 10999, 11000);
  server.descriptor_limit = -1;  // no limit
  assert_int_equal(recommend_for_server(server).count, 0);
}

void max_connections_may_fall_once_clients_are_pooled(void **) {
  ServerPressure server = good_server();
  server.max_connections = 1000;
  says(recommend_for_server(server), Advice::lower_max_connections, 1000, kFewConnections);
  server.direct_connections = 150;
  says(recommend_for_server(server), Advice::lower_max_connections, 1000, 300);
  server.direct_connections = 200;
  assert_int_equal(recommend_for_server(server).count, 0);
  server.direct_connections = 2;
  server.pooled_transactions = 0;
  assert_int_equal(recommend_for_server(server).count, 0);
  server.pooled_transactions = 1;
  server.direct_connections = -1;
  assert_int_equal(recommend_for_server(server).count, 0);
}

void unknown_spindles_are_asked_for_where_they_matter(void **) {
  ServerPressure server = good_server();
  server.spindles = -1;
  says(recommend_for_server(server), Advice::tell_spindles, -1, -1);
  server.miss_ratio = -1;
  says(recommend_for_server(server), Advice::tell_spindles, -1, -1);
  server.miss_ratio = 0.001;
  assert_int_equal(recommend_for_server(server).count, 0);
  server.miss_ratio = 0.5;
  server.machine_known = false;
  assert_int_equal(recommend_for_server(server).count, 0);
}

void everything_at_once_fits(void **) {
  ServerPressure server = good_server();
  server.backends = 100;
  server.wanted_backends = 200;
  server.queued = 1;
  server.clients = 10000;
  server.descriptor_limit = 1;
  server.max_connections = 1000;
  server.spindles = -1;
  assert_int_equal(recommend_for_server(server).count, 5);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(nothing_to_recommend_is_nothing),
      cmocka_unit_test(a_pool_far_above_the_rule_should_shrink_whether_clients_wait_or_not),
      cmocka_unit_test(a_pool_within_twice_the_rule_is_left_alone),
      cmocka_unit_test(a_pool_that_follows_the_rule_is_never_resized),
      cmocka_unit_test(an_unknown_rule_resizes_nothing),
      cmocka_unit_test(a_pool_far_below_the_rule_should_grow_if_clients_wait),
      cmocka_unit_test(a_pool_that_never_reached_its_size_is_not_held_back_by_it),
      cmocka_unit_test(idle_transactions_that_hold_up_others_should_end),
      cmocka_unit_test(idle_transactions_that_nobody_waits_for_are_left_alone),
      cmocka_unit_test(timeouts_and_failed_starts_are_reported),
      cmocka_unit_test(max_backends_should_rise_if_it_is_reached_and_clients_wait),
      cmocka_unit_test(an_oversized_pool_should_shrink_before_max_backends_rises),
      cmocka_unit_test(the_smallest_max_backends_can_rise),
      cmocka_unit_test(max_clients_should_rise_from_four_fifths_on),
      cmocka_unit_test(descriptors_should_be_enough_for_all_clients),
      cmocka_unit_test(max_connections_may_fall_once_clients_are_pooled),
      cmocka_unit_test(a_measured_size_is_recommended_where_it_brings_throughput),
      cmocka_unit_test(nothing_larger_is_recommended_while_more_backends_would_not_help),
      cmocka_unit_test(clients_that_wait_in_a_full_pool_are_a_reason_to_measure),
      cmocka_unit_test(transactions_that_were_in_the_way_should_end),
      cmocka_unit_test(pins_that_keep_others_waiting_should_go),
      cmocka_unit_test(clients_that_waited_for_themselves_need_more_backends),
      cmocka_unit_test(a_size_that_is_only_a_bound_is_recommended_as_one),
      cmocka_unit_test(no_size_is_recommended_that_costs_throughput),
      cmocka_unit_test(what_keeps_the_server_from_measuring_is_said),
      cmocka_unit_test(a_session_pool_needs_a_backend_for_each_client_and_the_rule_does_not_apply),
      cmocka_unit_test(unknown_spindles_are_asked_for_where_they_matter),
      cmocka_unit_test(everything_at_once_fits),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
