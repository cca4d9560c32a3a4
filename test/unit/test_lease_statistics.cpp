// SPDX-License-Identifier: PostgreSQL
//
// What backends count, added up for their pool: resets, ended backends, readers
// beside them, and the ring of holds.

#include <algorithm>
#include <atomic>
#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <thread>

extern "C" {
#include <cmocka.h>
}

#include "core/stats/pool_totals.hpp"

namespace {

using sluice::add_alone;
using sluice::collect_pool_totals;
using sluice::fold_into_pool;
using sluice::kLeaseRecords;
using sluice::LeaseRecord;
using sluice::LeaseStatistics;
using sluice::Measure;
using sluice::PoolSlot;
using sluice::PoolTotals;
using sluice::reset_pool_totals;
using sluice::SharedState;

constexpr std::size_t kWait = static_cast<std::size_t>(Measure::wait);
constexpr std::uint32_t kBackends = 4;

// Two pools, four backends, nobody counted anything yet.
class Segment {
 public:
  Segment() {
    sluice::SharedSizes sizes;
    sizes.backends = kBackends;
    sizes.pools = 2;
    const std::size_t bytes =
        (sluice::shared_state_bytes(sizes) + sluice::kCacheLine - 1) / sluice::kCacheLine * sluice::kCacheLine;
    memory_ = std::aligned_alloc(sluice::kCacheLine, bytes);
    std::memset(memory_, 0, bytes);
    state = sluice::lay_out(memory_, sizes);
    state.header->backend_slots = kBackends;
    state.header->max_pools = 2;
    for (std::uint32_t i = 0; i < kBackends; i++) state.backends[i].pool.store(sluice::kNoIndex);
    for (std::uint32_t i = 0; i < 2; i++) reset_pool_totals(state.pools[i]);
  }
  ~Segment() { std::free(memory_); }
  Segment(const Segment &) = delete;
  Segment &operator=(const Segment &) = delete;

  void join(std::uint32_t backend, std::uint32_t pool) { state.backends[backend].pool.store(pool); }
  PoolSlot &pool(std::uint32_t index = 0) { return state.pools[index]; }
  LeaseStatistics &statistics(std::uint32_t backend) { return state.statistics[backend]; }

  // As a backend does: one transaction that has waited so long.
  void count(std::uint32_t backend, std::uint64_t waited_us) {
    LeaseStatistics &mine = statistics(backend);
    mine.keep_up(state.pools[state.backends[backend].pool.load()].statistics_epoch.load());
    add_alone(mine.totals.transactions, 1);
    add_alone(mine.totals.leases, 1);
    mine.totals.times[kWait].record_alone(waited_us);
  }

  const PoolTotals &collect(std::uint32_t pool = 0, bool with_times = true) {
    collect_pool_totals(state, pool, with_times, totals_);
    return totals_;
  }

  SharedState state;

 private:
  void *memory_;
  PoolTotals totals_;
};

void an_unused_pool_has_counted_nothing(void **) {
  const auto segment = std::make_unique<Segment>();
  assert_int_not_equal(segment->pool().statistics_epoch.load(), 0);
  assert_int_equal(segment->collect().transactions, 0);
  assert_int_equal(segment->collect().times[kWait].total, 0);
}

void the_backends_of_a_pool_are_added_up(void **) {
  const auto segment = std::make_unique<Segment>();
  segment->join(0, 0);
  segment->join(1, 0);
  segment->join(2, 1);
  segment->count(0, 10);
  segment->count(0, 20);
  segment->count(1, 50);
  segment->count(2, 1000);
  const PoolTotals &totals = segment->collect(0);
  assert_int_equal(totals.transactions, 3);
  assert_int_equal(totals.leases, 3);
  assert_int_equal(totals.times[kWait].total, 3);
  assert_int_equal(totals.times[kWait].sum, 80);
  assert_int_equal(totals.times[kWait].max, 50);
  assert_int_equal(segment->collect(1).transactions, 1);
  assert_int_equal(segment->collect(1).times[kWait].max, 1000);
}

void times_are_left_out_on_request(void **) {
  const auto segment = std::make_unique<Segment>();
  segment->join(0, 0);
  segment->count(0, 10);
  fold_into_pool(segment->pool(), segment->statistics(0));
  segment->count(0, 10);
  assert_int_equal(segment->collect(0, false).transactions, 2);
  assert_int_equal(segment->collect(0, false).times[kWait].total, 0);
}

void a_reset_hides_what_was_and_backends_start_from_zero(void **) {
  const auto segment = std::make_unique<Segment>();
  segment->join(0, 0);
  segment->join(1, 0);
  segment->count(0, 10);
  segment->count(1, 20);
  fold_into_pool(segment->pool(), segment->statistics(1));
  segment->pool().start_us.record(5);
  segment->pool().authentication_us.record(5);
  reset_pool_totals(segment->pool());
  assert_int_equal(segment->collect().transactions, 0);
  assert_int_equal(segment->collect().times[kWait].total, 0);
  assert_int_equal(segment->pool().start_us.total.load() + segment->pool().authentication_us.total.load(), 0);
  segment->count(0, 7);
  assert_int_equal(segment->collect().transactions, 1);
  assert_int_equal(segment->collect().times[kWait].max, 7);
  assert_int_equal(segment->statistics(0).epoch.load(), segment->pool().statistics_epoch.load());
}

void an_epoch_is_never_zero(void **) {
  const auto segment = std::make_unique<Segment>();
  segment->pool().statistics_epoch.store(std::numeric_limits<std::uint32_t>::max());
  reset_pool_totals(segment->pool());
  assert_int_equal(segment->pool().statistics_epoch.load(), 1);
}

void what_a_backend_has_counted_outlives_it(void **) {
  const auto segment = std::make_unique<Segment>();
  segment->join(0, 0);
  segment->count(0, 10);
  segment->count(0, 30);
  fold_into_pool(segment->pool(), segment->statistics(0));
  assert_int_equal(segment->collect().transactions, 2);  // once, though the slot is still the pool's
  assert_int_equal(segment->collect().times[kWait].max, 30);
  segment->count(0, 5);  // the slot's next process
  assert_int_equal(segment->collect().transactions, 3);
  fold_into_pool(segment->pool(), segment->statistics(0));
  assert_int_equal(segment->collect().transactions, 3);
  assert_int_equal(segment->pool().folds.load() % 2, 0);
}

void who_ends_behind_a_reset_leaves_nothing_to_the_slots_next_owner(void **) {
  const auto segment = std::make_unique<Segment>();
  segment->join(0, 0);
  segment->count(0, 10);  // in the epoch that pool 1 has
  reset_pool_totals(segment->pool());
  fold_into_pool(segment->pool(), segment->statistics(0));
  assert_int_equal(segment->collect(0).transactions, 0);
  segment->join(0, 1);
  assert_int_equal(segment->collect(1).transactions, 0);
  segment->count(0, 10);
  assert_int_equal(segment->collect(1).transactions, 1);
}

void a_reset_between_two_ends_forgets_the_first(void **) {
  const auto segment = std::make_unique<Segment>();
  segment->join(0, 0);
  segment->join(1, 0);
  segment->count(0, 10);
  fold_into_pool(segment->pool(), segment->statistics(0));
  reset_pool_totals(segment->pool());
  segment->count(1, 20);
  fold_into_pool(segment->pool(), segment->statistics(1));
  assert_int_equal(segment->collect().transactions, 1);
  assert_int_equal(segment->collect().times[kWait].max, 20);
}

void a_dispatcher_that_died_while_adding_does_no_lasting_harm(void **) {
  const auto segment = std::make_unique<Segment>();
  segment->join(0, 0);
  segment->count(0, 10);
  segment->pool().folds.fetch_add(1);
  assert_int_equal(segment->collect().transactions, 1);  // the best there is
  fold_into_pool(segment->pool(), segment->statistics(0));
  assert_int_equal(segment->pool().folds.load() % 2, 0);
  assert_int_equal(segment->collect().transactions, 1);
}

// Backend 0 counts, ends and is added to the pool, again and again; backend 1 stays.  A sum may lag by
// what is under way, but never goes back, and never counts twice.
void a_reader_beside_ending_backends_counts_everything_once(void **) {
  constexpr int kLives = 300, kPerLife = 5;
  const auto segment = std::make_unique<Segment>();
  segment->join(0, 0);
  segment->join(1, 0);
  segment->count(1, 1);
  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> counted{1};
  std::atomic<int> wrong{0}, looks{0};
  std::thread reader([&] {
    const auto totals = std::make_unique<PoolTotals>();
    std::uint64_t last = 0;
    while (!done.load()) {
      const std::uint64_t before = counted.load();
      collect_pool_totals(segment->state, 0, looks.load() % 8 == 0, *totals);
      const std::uint64_t after = counted.load() + 1;  // it may have been counted and not said so
      if (totals->transactions < before || totals->transactions > after || totals->transactions < last) wrong++;
      last = totals->transactions;
      looks++;
    }
  });
  for (int life = 0; life < kLives; life++) {
    for (int i = 0; i < kPerLife; i++) {
      segment->count(0, 100);
      counted.fetch_add(1);
    }
    const int seen = looks.load();
    fold_into_pool(segment->pool(), segment->statistics(0));
    while (looks.load() == seen) std::this_thread::yield();  // so that no look fails for ever
  }
  done.store(true);
  reader.join();
  assert_int_equal(wrong.load(), 0);
  assert_int_equal(segment->collect().transactions, counted.load());
  assert_int_equal(segment->collect().times[kWait].total, counted.load());
}

// Resets by one, ends of backends by another: what was before a reset never comes back.
void a_reset_beside_ending_backends_stays_a_reset(void **) {
  constexpr int kResets = 300;
  const auto segment = std::make_unique<Segment>();
  segment->join(0, 0);
  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> counted{0};
  std::thread dispatcher([&] {
    while (!done.load()) {
      segment->count(0, 100);
      counted.fetch_add(1);
      fold_into_pool(segment->pool(), segment->statistics(0));
    }
  });
  int wrong = 0;
  for (int i = 0; i < kResets; i++) {
    const std::uint64_t before = counted.load();
    reset_pool_totals(segment->pool());
    const std::uint64_t seen = segment->collect().transactions;
    // One under way before the reset may be counted after it.
    if (seen > counted.load() - before + 2) wrong++;
    std::this_thread::yield();
  }
  done.store(true);
  dispatcher.join();
  assert_int_equal(wrong, 0);
}

void the_ring_keeps_the_latest_holds(void **) {
  const auto mine = std::make_unique<LeaseStatistics>();
  mine->begin(1);
  for (std::uint64_t i = 1; i <= kLeaseRecords + 10; i++) {
    mine->record_hold(static_cast<std::int64_t>(i), i * 4, i * 2, i * 3);
  }
  assert_int_equal(mine->recorded.load(), kLeaseRecords + 10);
  const LeaseRecord &latest = mine->records[(kLeaseRecords + 9) % kLeaseRecords];
  assert_int_equal(latest.ready_us.load(), kLeaseRecords + 10);
  assert_int_equal(latest.hold_us.load(), (kLeaseRecords + 10) * 4);
  assert_int_equal(latest.active_us.load(), (kLeaseRecords + 10) * 2);
  assert_int_equal(latest.waited_us.load(), (kLeaseRecords + 10) * 3);
  const auto oldest = std::min_element(
      std::begin(mine->records), std::end(mine->records),
      [](const LeaseRecord &a, const LeaseRecord &b) { return a.ready_us.load() < b.ready_us.load(); });
  assert_int_equal(oldest->ready_us.load(), 11);
}

void very_long_holds_are_cut_not_wrapped(void **) {
  const auto mine = std::make_unique<LeaseStatistics>();
  mine->begin(1);
  mine->record_hold(1, std::uint64_t{1} << 40, std::uint64_t{1} << 33, (std::uint64_t{1} << 32) + 5);
  assert_int_equal(mine->records[0].hold_us.load(), std::numeric_limits<std::uint32_t>::max());
  assert_int_equal(mine->records[0].active_us.load(), std::numeric_limits<std::uint32_t>::max());
  assert_int_equal(mine->records[0].waited_us.load(), std::numeric_limits<std::uint32_t>::max());
}

void beginning_anew_empties_the_ring(void **) {
  const auto mine = std::make_unique<LeaseStatistics>();
  mine->begin(1);
  mine->record_hold(1, 3, 2, 3);
  add_alone(mine->totals.transactions, 1);
  mine->keep_up(1);
  assert_int_equal(mine->recorded.load(), 1);
  mine->keep_up(2);
  assert_int_equal(mine->recorded.load(), 0);
  assert_int_equal(mine->records[0].ready_us.load(), 0);
  assert_int_equal(mine->totals.transactions.load(), 0);
  assert_int_equal(mine->epoch.load(), 2);
}

void measures_have_words(void **) {
  assert_string_equal(sluice::describe(Measure::wait), "wait");
  assert_string_equal(sluice::describe(Measure::hold), "hold");
  assert_string_equal(sluice::describe(Measure::active), "active");
  assert_string_equal(sluice::describe(Measure::thinking), "thinking");
  assert_string_equal(sluice::describe(Measure::start), "start");
  assert_string_equal(sluice::describe(Measure::authentication), "authentication");
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(an_unused_pool_has_counted_nothing),
      cmocka_unit_test(the_backends_of_a_pool_are_added_up),
      cmocka_unit_test(times_are_left_out_on_request),
      cmocka_unit_test(a_reset_hides_what_was_and_backends_start_from_zero),
      cmocka_unit_test(an_epoch_is_never_zero),
      cmocka_unit_test(what_a_backend_has_counted_outlives_it),
      cmocka_unit_test(who_ends_behind_a_reset_leaves_nothing_to_the_slots_next_owner),
      cmocka_unit_test(a_reset_between_two_ends_forgets_the_first),
      cmocka_unit_test(a_dispatcher_that_died_while_adding_does_no_lasting_harm),
      cmocka_unit_test(a_reader_beside_ending_backends_counts_everything_once),
      cmocka_unit_test(a_reset_beside_ending_backends_stays_a_reset),
      cmocka_unit_test(the_ring_keeps_the_latest_holds),
      cmocka_unit_test(very_long_holds_are_cut_not_wrapped),
      cmocka_unit_test(beginning_anew_empties_the_ring),
      cmocka_unit_test(measures_have_words),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
