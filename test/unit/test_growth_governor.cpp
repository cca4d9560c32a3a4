// SPDX-License-Identifier: PostgreSQL
//
// The governor: each rule as a sentence, then a pool played through with a clock
// that only the test moves.

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <csetjmp>
#include <initializer_list>
#include <limits>

extern "C" {
#include <cmocka.h>
}

#include "core/pool/growth_governor.hpp"

namespace {

using sluice::BackendLoad;
using sluice::decide_growth;
using sluice::decide_retirement;
using sluice::GrowthDecision;
using sluice::GrowthReason;
using sluice::PoolLoad;
using sluice::RetireReason;
using sluice::ProcessorShortage;
using sluice::ServerLoad;
using sluice::WorkingMean;
using sluice::kWorkingPauseUs;

constexpr std::int64_t kMillisecondUs = 1'000;
constexpr std::int64_t kSecondUs = 1'000'000;
constexpr std::int64_t kMinuteUs = 60 * kSecondUs;

// A pool in which clients wait and nothing stands against a start.
PoolLoad busy_pool() {
  PoolLoad pool;
  pool.waiting = 3;
  pool.backends = 2;
  pool.max_size = 5;
  pool.clients = 10;
  pool.now_us = kSecondUs;
  return pool;
}

constexpr ServerLoad kRoomyServer{10, 100};

void assert_no_start(const GrowthDecision &decision, GrowthReason reason) {
  assert_false(decision.start);
  assert_true(decision.reason == reason);
  if (reason != GrowthReason::server_is_full) {
    assert_false(decision.make_room);
  }
}

void assert_start(const GrowthDecision &decision, GrowthReason reason) {
  assert_true(decision.start);
  assert_false(decision.make_room);
  assert_true(decision.reason == reason);
}

void governor_starts_a_backend_when_clients_wait(void **) {
  assert_start(decide_growth(busy_pool(), kRoomyServer), GrowthReason::clients_wait);
}

void governor_starts_the_first_backend_of_a_pool(void **) {
  PoolLoad pool = busy_pool();
  pool.backends = 0;
  assert_start(decide_growth(pool, kRoomyServer), GrowthReason::first_backend);
}

void governor_starts_nothing_when_nobody_waits(void **) {
  PoolLoad pool = busy_pool();
  pool.waiting = 0;
  assert_no_start(decide_growth(pool, kRoomyServer), GrowthReason::nobody_waits);
  pool.waiting = -1;  // a gauge in between two changes
  assert_no_start(decide_growth(pool, kRoomyServer), GrowthReason::nobody_waits);
}

void governor_starts_nothing_when_enough_starts_are_under_way(void **) {
  PoolLoad pool = busy_pool();
  pool.starting = 1;
  assert_no_start(decide_growth(pool, kRoomyServer), GrowthReason::enough_starting);
  pool.waiting = 1000;
  assert_no_start(decide_growth(pool, kRoomyServer), GrowthReason::enough_starting);
}

void governor_starts_nothing_when_the_pool_is_full(void **) {
  PoolLoad pool = busy_pool();
  pool.backends = 5;
  assert_no_start(decide_growth(pool, kRoomyServer), GrowthReason::pool_is_full);
  pool.backends = 6;
  assert_no_start(decide_growth(pool, kRoomyServer), GrowthReason::pool_is_full);
}

void resting_backends_do_not_count_against_the_pool(void **) {
  PoolLoad pool = busy_pool();
  pool.backends = 5;
  pool.resting = 1;
  assert_start(decide_growth(pool, kRoomyServer), GrowthReason::clients_wait);
  pool.backends = 25;
  pool.resting = 20;
  assert_no_start(decide_growth(pool, kRoomyServer), GrowthReason::pool_is_full);
  pool.resting = 30;  // more than there are: gauges in between
  assert_start(decide_growth(pool, kRoomyServer), GrowthReason::clients_wait);
}

void clients_that_think_for_a_moment_do_not_make_the_pool_grow(void **) {
  PoolLoad pool = busy_pool();
  pool.backends = 5;
  pool.resting = 3;  // at this instant
  pool.working_lately = 5;
  assert_no_start(decide_growth(pool, kRoomyServer), GrowthReason::pool_is_full);
  pool.working_lately = 4;
  assert_start(decide_growth(pool, kRoomyServer), GrowthReason::clients_wait);
}

void the_mean_of_working_backends_follows_what_lasts(void **) {
  WorkingMean mean{};
  std::int64_t now_us = 1;
  assert_int_equal(mean.look(5, now_us), 5);  // nothing was known before
  for (int i = 0; i < 400; i++) mean.look(i % 2 == 0 ? 0 : 10, now_us += 1000);
  assert_int_equal(mean.look(5, now_us), 5);
  for (int i = 0; i < 30; i++) mean.look(0, now_us += 1000);
  assert_in_range(mean.look(0, now_us), 3, 4);
  for (int i = 0; i < 1000; i++) mean.look(0, now_us += 1000);
  assert_int_equal(mean.look(0, now_us), 0);
  assert_int_equal(mean.look(7, now_us + kWorkingPauseUs), 7);  // after a pause, anew
}

void processors_are_short_when_tasks_wait_for_them_most_of_the_time(void **) {
  ProcessorShortage shortage{};
  assert_true(shortage.is_due(1'000'000));
  shortage.look(70'000'000, 1'000'000);
  assert_false(shortage.is_short);  // nothing to compare with
  assert_false(shortage.is_due(1'050'000));
  shortage.look(70'060'000, 1'100'000);
  assert_true(shortage.is_short);
  shortage.look(70'100'000, 1'200'000);
  assert_false(shortage.is_short);
  shortage.look(74'000'000, 5'200'000);  // of the time nobody looked it says nothing
  assert_false(shortage.is_short);
  shortage.look(0, 5'300'000);  // cannot be read any more
  assert_false(shortage.is_short);
}

void resting_backends_count_against_the_server(void **) {
  PoolLoad pool = busy_pool();
  pool.backends = 100;
  pool.resting = 100;
  assert_no_start(decide_growth(pool, ServerLoad{100, 100}), GrowthReason::server_is_full);
}

void the_reserve_is_for_clients_that_wait_for_themselves(void **) {
  PoolLoad pool = busy_pool();
  pool.backends = 100;
  pool.resting = 100;
  assert_start(decide_growth(pool, ServerLoad{100, 100, 2}), GrowthReason::nested_acquire);
  assert_start(decide_growth(pool, ServerLoad{101, 100, 2}), GrowthReason::nested_acquire);
  assert_no_start(decide_growth(pool, ServerLoad{102, 100, 2}), GrowthReason::server_is_full);
  pool.waiting = 0;
  pool.min_size = 200;
  assert_no_start(decide_growth(pool, ServerLoad{100, 100, 2}), GrowthReason::server_is_full);
}

void the_reserve_lifts_a_pool_of_sessions_above_its_maximum(void **) {
  PoolLoad pool = busy_pool();
  pool.backends = 5;  // as many as it may have
  assert_start(decide_growth(pool, ServerLoad{5, 100, 1}), GrowthReason::nested_acquire);
  pool.backends = 6;
  assert_no_start(decide_growth(pool, ServerLoad{6, 100, 1}), GrowthReason::pool_is_full);
}

void an_open_reserve_is_touched_last(void **) {
  assert_start(decide_growth(busy_pool(), ServerLoad{50, 100, 2}), GrowthReason::clients_wait);
}

void a_full_server_makes_room_for_clients_that_wait(void **) {
  const GrowthDecision decision = decide_growth(busy_pool(), ServerLoad{100, 100});
  assert_no_start(decision, GrowthReason::server_is_full);
  assert_true(decision.make_room);
}

void a_full_server_makes_no_room_for_a_minimum(void **) {
  PoolLoad pool = busy_pool();
  pool.waiting = 0;
  pool.min_size = 4;
  const GrowthDecision decision = decide_growth(pool, ServerLoad{101, 100});
  assert_no_start(decision, GrowthReason::server_is_full);
  assert_false(decision.make_room);
}

void no_room_is_made_for_a_pool_that_could_not_use_it(void **) {
  PoolLoad full = busy_pool();
  full.backends = full.max_size;
  assert_no_start(decide_growth(full, ServerLoad{100, 100}), GrowthReason::pool_is_full);
  PoolLoad failing = busy_pool();
  failing.retry_after_us = failing.now_us + 1;
  assert_no_start(decide_growth(failing, ServerLoad{100, 100}), GrowthReason::starts_failing);
}

void governor_fills_up_to_the_minimum_while_the_pool_has_clients(void **) {
  PoolLoad pool = busy_pool();
  pool.waiting = 0;
  pool.min_size = 3;
  assert_start(decide_growth(pool, kRoomyServer), GrowthReason::below_minimum);
  pool.backends = 3;
  assert_no_start(decide_growth(pool, kRoomyServer), GrowthReason::nobody_waits);
  pool.backends = 0;
  assert_start(decide_growth(pool, kRoomyServer), GrowthReason::below_minimum);
  pool.clients = 0;
  assert_no_start(decide_growth(pool, kRoomyServer), GrowthReason::nobody_waits);
}

void the_maximum_is_stronger_than_the_minimum(void **) {
  PoolLoad pool = busy_pool();
  pool.min_size = 10;
  pool.backends = 5;
  assert_no_start(decide_growth(pool, kRoomyServer), GrowthReason::pool_is_full);
}

void governor_holds_back_after_a_failed_start(void **) {
  PoolLoad pool = busy_pool();
  pool.retry_after_us = pool.now_us + 1;
  assert_no_start(decide_growth(pool, kRoomyServer), GrowthReason::starts_failing);
  pool.now_us++;
  assert_start(decide_growth(pool, kRoomyServer), GrowthReason::clients_wait);
}

// No two reasons share a phrase, and each is lower case without a period.
template <typename Reason>
void assert_phrases_differ(std::initializer_list<Reason> reasons) {
  for (const Reason reason : reasons) {
    const char *phrase = describe(reason);
    assert_true(std::strlen(phrase) > 3);
    assert_string_not_equal(phrase, "unknown reason");
    for (const char *c = phrase; *c != '\0'; c++) {
      assert_true((*c >= 'a' && *c <= 'z') || *c == ' ');
    }
    for (const Reason other : reasons) {
      if (other != reason) {
        assert_string_not_equal(phrase, describe(other));
      }
    }
  }
}

void each_reason_has_a_phrase_of_its_own(void **) {
  assert_phrases_differ({GrowthReason::none, GrowthReason::below_minimum, GrowthReason::clients_wait,
                         GrowthReason::first_backend, GrowthReason::enough_starting, GrowthReason::pool_is_full,
                         GrowthReason::server_is_full, GrowthReason::nobody_waits, GrowthReason::starts_failing});
  assert_phrases_differ({RetireReason::none, RetireReason::idle, RetireReason::lifetime, RetireReason::gave_way,
                         RetireReason::above_maximum, RetireReason::requested, RetireReason::changed_defaults, RetireReason::shutdown});
}

// ---------------------------------------------------------------- a pool played through

// A pool in steps of a tenth of a millisecond: clients with one transaction each,
// backends that start slowly (or fail to), and the governor asked each millisecond.
class PlayedPool {
 public:
  static constexpr int kMostBackends = 64;
  static constexpr std::int64_t kStepUs = 100;

  int max_size = 20;
  int max_backends = 100;
  int waiting = 0;
  int served = 0;
  int backends = 0;
  int failures = 0;
  int starts = 0;
  int elided = 0;
  int pinned = 0;  // backends whose client keeps them without using them: never served by
  bool starts_fail = false;
  std::int64_t start_us = 150 * kMillisecondUs;
  std::int64_t transaction_us = 2 * kMillisecondUs;
  std::int64_t retry_us = kSecondUs;
  std::int64_t now_us = kSecondUs;
  std::int64_t last_served_us = 0;

  void add_idle_backends(int count) {
    for (int i = 0; i < count; i++) {
      free_at_us_[backends++] = now_us;
    }
  }

  // As if clients had been pinned to them: for the rest of the play.
  void pin_all_backends() {
    for (int i = 0; i < backends; i++) {
      busy_[i] = true;
      free_at_us_[i] = std::numeric_limits<std::int64_t>::max();
    }
    pinned = backends;
  }

  void run_until(std::int64_t end_us) {
    for (; now_us <= end_us; now_us += kStepUs) {
      finish_start();
      serve();
      if (now_us % kMillisecondUs == 0) {
        govern();
      }
    }
  }

 private:
  // The last backend is the one that is starting, if any.
  void finish_start() {
    if (started_at_us_ == 0 || now_us < started_at_us_ + start_us) {
      return;
    }
    started_at_us_ = 0;
    if (starts_fail) {
      backends--;
      failures++;
      retry_after_us_ = now_us + retry_us;
    } else {
      free_at_us_[backends - 1] = now_us;
    }
  }

  void serve() {
    const int ready = backends - (started_at_us_ != 0 ? 1 : 0);
    for (int i = 0; i < ready; i++) {
      if (busy_[i] && now_us >= free_at_us_[i]) {
        busy_[i] = false;
        served++;
        last_served_us = now_us;
      }
      if (!busy_[i] && waiting > 0) {
        busy_[i] = true;
        waiting--;
        free_at_us_[i] = now_us + transaction_us;
      }
    }
  }

  void govern() {
    PoolLoad pool;
    pool.waiting = waiting;
    pool.backends = backends;
    pool.starting = started_at_us_ != 0 ? 1 : 0;
    pool.resting = pinned;
    pool.max_size = max_size;
    pool.clients = 50;
    pool.now_us = now_us;
    pool.retry_after_us = retry_after_us_;
    const GrowthDecision decision = decide_growth(pool, ServerLoad{backends, max_backends});
    elided += decision.reason == GrowthReason::enough_starting ? 1 : 0;
    if (decision.start && backends < kMostBackends) {
      backends++;
      starts++;
      started_at_us_ = now_us;
    }
  }

  std::int64_t free_at_us_[kMostBackends] = {};
  bool busy_[kMostBackends] = {};
  std::int64_t started_at_us_ = 0;  // 0 = none is starting
  std::int64_t retry_after_us_ = 0;
};

void a_burst_over_idle_backends_starts_one_backend_at_most(void **) {
  PlayedPool pool;
  pool.add_idle_backends(5);
  const std::int64_t begin_us = pool.now_us;
  pool.waiting = 50;
  pool.run_until(begin_us + kSecondUs);
  assert_int_equal(pool.served, 50);
  assert_true(pool.last_served_us - begin_us <= 21 * kMillisecondUs);
  assert_int_equal(pool.starts, 1);
  assert_int_equal(pool.backends, 6);
  assert_true(pool.elided > 0);
}

void a_lasting_need_grows_the_pool_to_its_maximum(void **) {
  PlayedPool pool;
  pool.max_size = 8;
  pool.waiting = 1'000'000;
  const std::int64_t begin_us = pool.now_us;
  pool.run_until(begin_us + 3 * kSecondUs);
  assert_int_equal(pool.backends, 8);
  assert_int_equal(pool.starts, 8);
}

void a_lasting_need_stops_at_the_servers_maximum(void **) {
  PlayedPool pool;
  pool.max_backends = 3;
  pool.waiting = 1'000'000;
  pool.run_until(pool.now_us + 3 * kSecondUs);
  assert_int_equal(pool.backends, 3);
}

void failing_starts_are_tried_no_more_than_once_a_pause(void **) {
  PlayedPool pool;
  pool.starts_fail = true;
  pool.waiting = 50;
  pool.run_until(pool.now_us + 10 * kSecondUs);
  assert_int_equal(pool.backends, pool.starts - pool.failures);
  assert_true(pool.starts >= 8 && pool.starts <= 10);
  pool.starts_fail = false;
  pool.run_until(pool.now_us + 2 * kSecondUs);
  assert_int_equal(pool.served, 50);
}

void pinned_clients_do_not_keep_others_from_being_served(void **) {
  PlayedPool pool;
  pool.max_size = 2;
  pool.add_idle_backends(2);
  pool.pin_all_backends();
  pool.waiting = 10;
  pool.run_until(pool.now_us + kSecondUs);
  assert_int_equal(pool.served, 10);
  pool.pin_all_backends();  // those as well
  const int so_far = pool.backends;
  pool.waiting = 1'000'000;
  pool.run_until(pool.now_us + 3 * kSecondUs);
  assert_int_equal(pool.backends, so_far + 2);
}

void pinned_clients_stop_growth_only_at_the_servers_maximum(void **) {
  PlayedPool pool;
  pool.max_size = 2;
  pool.max_backends = 6;
  pool.add_idle_backends(6);
  pool.pin_all_backends();
  pool.waiting = 1;
  pool.run_until(pool.now_us + 3 * kSecondUs);
  assert_int_equal(pool.starts, 0);
  assert_int_equal(pool.served, 0);
}

// A minimum that cannot be kept is no reason to try every second for ever.
void a_minimum_that_nobody_waits_for_is_retried_later_after_each_failure(void **) {
  PoolLoad pool = busy_pool();
  pool.waiting = 0;
  pool.backends = 0;
  pool.min_size = 1;
  pool.minimum_retry_after_us = pool.now_us + 1;
  assert_no_start(decide_growth(pool, kRoomyServer), GrowthReason::starts_failing);
  pool.waiting = 1;
  assert_start(decide_growth(pool, kRoomyServer), GrowthReason::first_backend);
  pool.waiting = 0;
  pool.now_us++;
  assert_start(decide_growth(pool, kRoomyServer), GrowthReason::below_minimum);

  assert_int_equal(sluice::minimum_retry_us(1), kSecondUs);
  assert_int_equal(sluice::minimum_retry_us(2), 2 * kSecondUs);
  assert_int_equal(sluice::minimum_retry_us(5), 16 * kSecondUs);
  assert_int_equal(sluice::minimum_retry_us(7), kMinuteUs);
  assert_int_equal(sluice::minimum_retry_us(std::numeric_limits<int>::max()), kMinuteUs);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(a_minimum_that_nobody_waits_for_is_retried_later_after_each_failure),
      cmocka_unit_test(governor_starts_a_backend_when_clients_wait),
      cmocka_unit_test(governor_starts_the_first_backend_of_a_pool),
      cmocka_unit_test(governor_starts_nothing_when_nobody_waits),
      cmocka_unit_test(governor_starts_nothing_when_enough_starts_are_under_way),
      cmocka_unit_test(governor_starts_nothing_when_the_pool_is_full),
      cmocka_unit_test(resting_backends_do_not_count_against_the_pool),
      cmocka_unit_test(clients_that_think_for_a_moment_do_not_make_the_pool_grow),
      cmocka_unit_test(the_mean_of_working_backends_follows_what_lasts),
      cmocka_unit_test(processors_are_short_when_tasks_wait_for_them_most_of_the_time),
      cmocka_unit_test(resting_backends_count_against_the_server),
      cmocka_unit_test(the_reserve_is_for_clients_that_wait_for_themselves),
      cmocka_unit_test(the_reserve_lifts_a_pool_of_sessions_above_its_maximum),
      cmocka_unit_test(an_open_reserve_is_touched_last),
      cmocka_unit_test(a_full_server_makes_room_for_clients_that_wait),
      cmocka_unit_test(a_full_server_makes_no_room_for_a_minimum),
      cmocka_unit_test(no_room_is_made_for_a_pool_that_could_not_use_it),
      cmocka_unit_test(governor_fills_up_to_the_minimum_while_the_pool_has_clients),
      cmocka_unit_test(the_maximum_is_stronger_than_the_minimum),
      cmocka_unit_test(governor_holds_back_after_a_failed_start),
      cmocka_unit_test(each_reason_has_a_phrase_of_its_own),
      cmocka_unit_test(pinned_clients_do_not_keep_others_from_being_served),
      cmocka_unit_test(pinned_clients_stop_growth_only_at_the_servers_maximum),
      cmocka_unit_test(a_burst_over_idle_backends_starts_one_backend_at_most),
      cmocka_unit_test(a_lasting_need_grows_the_pool_to_its_maximum),
      cmocka_unit_test(a_lasting_need_stops_at_the_servers_maximum),
      cmocka_unit_test(failing_starts_are_tried_no_more_than_once_a_pause),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
