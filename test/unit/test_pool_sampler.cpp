// SPDX-License-Identifier: PostgreSQL
//
// Samples of pools: together they are what the pools have counted, whatever
// happens between two of them.

#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <vector>

extern "C" {
#include <cmocka.h>
}

#include "core/stats/pool_sampler.hpp"
#include "core/stats/pool_totals.hpp"

namespace {

using sluice::BackendSlot;
using sluice::HistorySample;
using sluice::kUnknownMean;
using sluice::kUnknownTime;
using sluice::Measure;
using sluice::PoolSlot;
using sluice::SampleTick;
using sluice::SharedState;

constexpr std::int64_t kSecond = 1'000'000;
constexpr std::int64_t kYear2026 = 820'000'000 * kSecond;

// A segment with `pools` pools of which none is open, and a clock.
class World {
 public:
  World(std::size_t pools, std::size_t backends, std::size_t seconds) {
    sluice::SharedSizes sizes;
    sizes.clients = 1;
    sizes.backends = backends;
    sizes.pools = pools;
    sizes.events = 1;
    sizes.applications = 1;
    sizes.history_seconds = seconds;
    const std::size_t bytes = (sluice::shared_state_bytes(sizes) + 63) / 64 * 64;
    memory_ = std::aligned_alloc(64, bytes);
    std::memset(memory_, 0, bytes);
    state = sluice::lay_out(memory_, sizes);
    state.header->max_pools = static_cast<std::uint32_t>(pools);
    state.header->backend_slots = static_cast<std::uint32_t>(backends);
    state.header->history_seconds = static_cast<std::uint32_t>(seconds);
    for (std::uint32_t i = 0; i < backends; i++) state.backends[i].pool.store(sluice::kNoIndex);
    tick_.now_us = 1000 * kSecond;
    tick_.now_at = kYear2026;
    tick_.previous_us = tick_.now_us - kSecond;
  }
  ~World() { std::free(memory_); }
  World(const World &) = delete;
  World &operator=(const World &) = delete;

  PoolSlot &open(std::uint32_t index, std::uint32_t database, std::uint32_t role) {
    PoolSlot &pool = state.pools[index];
    pool.database_oid = database;
    pool.role_oid = role;
    std::snprintf(pool.database, sizeof(pool.database), "d%u", database);
    std::snprintf(pool.role, sizeof(pool.role), "r%u", role);
    pool.created_at = tick_.now_at;
    pool.max_size.store(10);
    sluice::reset_pool_totals(pool);
    pool.starts.store(0);
    pool.generation.fetch_add(1);
    pool.state.store(static_cast<std::uint32_t>(sluice::PoolState::open));
    return pool;
  }
  BackendSlot &start(std::uint32_t index, std::uint32_t pool) {
    state.backends[index].pool.store(pool);
    state.pools[pool].backends.fetch_add(1);
    state.pools[pool].starts.fetch_add(1);
    return state.backends[index];
  }
  sluice::LeaseTotals &totals(std::uint32_t backend) {
    const std::uint32_t pool = state.backends[backend].pool.load();
    state.statistics[backend].keep_up(state.pools[pool].statistics_epoch.load());
    return state.statistics[backend].totals;
  }
  void transact(std::uint32_t backend, std::uint64_t count) { sluice::add_alone(totals(backend).transactions, count); }
  void execute(std::uint32_t backend, std::uint64_t time_us) {
    totals(backend).times[static_cast<std::size_t>(Measure::active)].record_alone(time_us);
  }
  void bury(std::uint32_t backend) {
    const std::uint32_t pool = state.backends[backend].pool.load();
    sluice::fold_into_pool(state.pools[pool], state.statistics[backend]);
    state.backends[backend].pool.store(sluice::kNoIndex);
    state.pools[pool].backends.fetch_sub(1);
    state.pools[pool].retirements.fetch_add(1);
  }
  std::int64_t now_us() const { return tick_.now_us; }
  std::int64_t now_at() const { return tick_.now_at; }
  SampleTick &tick() { return tick_; }
  std::size_t sample(std::int64_t passed_us = kSecond) {
    tick_.previous_us = tick_.now_us;
    tick_.now_us += passed_us;
    tick_.now_at += passed_us;
    return sluice::sample_pools(state, tick_);
  }
  std::vector<HistorySample> history(std::uint32_t database, std::uint32_t role) const {
    std::vector<HistorySample> samples(state.header->history_seconds);
    samples.resize(sluice::copy_pool_history(state, database, role, samples.data(), samples.size()));
    return samples;
  }
  HistorySample latest(std::uint32_t database = 1, std::uint32_t role = 2) const {
    const std::vector<HistorySample> samples = history(database, role);
    return samples.empty() ? HistorySample{} : samples.back();
  }

  SharedState state;

 private:
  void *memory_;
  SampleTick tick_;
};

std::uint64_t sum_of_transactions(const std::vector<HistorySample> &samples) {
  std::uint64_t sum = 0;
  for (const HistorySample &sample : samples) sum += sample.transactions;
  return sum;
}

bool is_about(float value, double expected) {
  return static_cast<double>(value) > expected - 0.001 && static_cast<double>(value) < expected + 0.001;
}

void without_seconds_nothing_is_sampled(void **) {
  World world(2, 2, 0);
  world.open(0, 1, 2).clients.store(1);
  assert_int_equal(world.sample(), 0);
  assert_null(sluice::find_ring(world.state, 1, 2));
  HistorySample sample;
  assert_int_equal(sluice::copy_pool_history(world.state, 1, 2, &sample, 1), 0);
}

void pools_without_anybody_are_not_sampled(void **) {
  World world(3, 2, 5);
  assert_int_equal(world.sample(), 0);
  world.open(1, 1, 2);
  assert_int_equal(world.sample(), 0);
  world.state.pools[1].clients.store(1);
  assert_int_equal(world.sample(), 1);
  world.state.pools[1].clients.store(0);
  assert_int_equal(world.sample(), 0);
  assert_int_equal(world.history(1, 2).size(), 1);
}

void what_was_counted_by_those_who_have_gone_is_sampled(void **) {
  World world(2, 2, 5);
  world.open(0, 1, 2);
  world.start(0, 0);
  world.transact(0, 7);
  world.bury(0);
  assert_int_equal(world.sample(), 1);
  assert_int_equal(world.latest().transactions, 7);
  assert_int_equal(world.latest().starts, 1);
  assert_int_equal(world.latest().retirements, 1);
  assert_int_equal(world.sample(), 0);
}

void samples_add_up_to_the_counters(void **) {
  World world(2, 3, 100);
  world.open(0, 1, 2);
  std::uint64_t expected = 0;
  std::srand(1);
  for (int second = 0; second < 60; second++) {
    const auto backend = static_cast<std::uint32_t>(std::rand() % 3);
    if (world.state.backends[backend].pool.load() != 0)
      world.start(backend, 0);
    else if (std::rand() % 4 == 0)
      world.bury(backend);
    for (std::uint32_t i = 0; i < 3; i++) {
      if (world.state.backends[i].pool.load() != 0) continue;
      const auto count = static_cast<std::uint64_t>(std::rand() % 1000);
      world.transact(i, count);
      expected += count;
    }
    world.sample(kSecond + std::rand() % 1000);
  }
  assert_int_equal(sum_of_transactions(world.history(1, 2)), expected);
}

void a_late_second_says_so(void **) {
  World world(1, 1, 5);
  world.open(0, 1, 2);
  world.start(0, 0);
  world.sample();
  world.transact(0, 300);
  world.sample(3 * kSecond);
  assert_true(is_about(world.latest().length_s, 3.0));
  assert_true(world.latest().transactions_per_second() > 99.9 && world.latest().transactions_per_second() < 100.1);
  assert_int_equal(world.history(1, 2).size(), 2);
}

void a_pool_that_comes_back_is_not_charged_for_its_absence(void **) {
  World world(1, 1, 5);
  world.open(0, 1, 2).clients.store(1);
  world.sample();
  world.state.pools[0].clients.store(0);
  for (int i = 0; i < 100; i++) world.sample();
  world.state.pools[0].clients.store(1);
  world.sample();
  assert_int_equal(world.history(1, 2).size(), 2);
  assert_true(is_about(world.latest().length_s, 1.0));
}

void a_statistician_that_starts_again_goes_on(void **) {
  World world(1, 1, 5);
  world.open(0, 1, 2);
  world.start(0, 0);
  world.sample();
  world.transact(0, 50);
  world.tick().now_us += 5 * kSecond;  // nobody was there
  world.tick().now_at += 5 * kSecond;
  world.sample();
  assert_int_equal(world.latest().transactions, 50);
  assert_true(is_about(world.latest().length_s, 6.0));
}

void time_counts_while_it_passes(void **) {
  World world(1, 2, 20);
  world.open(0, 1, 2);
  BackendSlot &backend = world.start(0, 0);
  world.start(1, 0);
  world.sample();
  backend.active_since_us.store(world.now_us());
  for (int i = 0; i < 3; i++) {
    world.sample();
    assert_true(is_about(world.latest().active, 1.0));
  }
  world.execute(0, 3'500'000);  // it ends half a second later
  backend.active_since_us.store(0);
  world.sample();
  assert_true(is_about(world.latest().active, 0.5));
  world.sample();
  assert_true(is_about(world.latest().active, 0.0));
  assert_true(is_about(world.latest().thinking, 0.0));
}

void thinking_is_not_executing(void **) {
  World world(1, 1, 20);
  world.open(0, 1, 2);
  BackendSlot &backend = world.start(0, 0);
  world.sample();
  backend.thinking_since_us.store(world.now_us());
  world.sample();
  assert_true(is_about(world.latest().thinking, 1.0));
  assert_true(is_about(world.latest().active, 0.0));
}

void no_more_are_active_than_there_are(void **) {
  World world(1, 1, 20);
  world.open(0, 1, 2);
  world.start(0, 0);
  world.sample();
  world.execute(0, 60'000'000);  // impossible in a second
  world.sample();
  assert_true(is_about(world.latest().active, 1.0));
}

void a_reset_loses_nothing_afterwards(void **) {
  World world(1, 1, 20);
  PoolSlot &pool = world.open(0, 1, 2);
  BackendSlot &backend = world.start(0, 0);
  world.transact(0, 1000);
  backend.active_since_us.store(world.now_us());
  world.sample();
  sluice::reset_pool_totals(pool);
  pool.starts.store(0);
  world.transact(0, 1005);  // more than there were before
  world.sample();
  assert_int_equal(world.latest().transactions, 1005);
  assert_int_equal(world.latest().starts, 0);
  assert_true(is_about(world.latest().active, 1.0));
  world.execute(0, 2'000'000);
  backend.active_since_us.store(0);
  world.sample();
  assert_int_equal(world.latest().transactions, 0);
  assert_true(is_about(world.latest().active, 0.0));
}

void a_slot_given_to_another_pool_begins_anew(void **) {
  World world(2, 1, 20);
  world.open(0, 1, 2);
  world.start(0, 0);
  world.transact(0, 10);
  world.sample();
  world.bury(0);
  world.open(0, 3, 4);
  world.start(0, 0);
  world.transact(0, 3);
  world.sample();
  assert_int_equal(world.latest(3, 4).transactions, 3);
  assert_true(is_about(world.latest(3, 4).length_s, 1.0));
  assert_int_equal(sum_of_transactions(world.history(1, 2)), 10);
}

void a_pool_finds_its_history_from_another_slot(void **) {
  World world(3, 2, 20);
  world.open(0, 1, 2).clients.store(1);
  world.sample();
  world.state.pools[0].state.store(0);
  world.open(2, 1, 2).clients.store(1);
  world.sample();
  assert_int_equal(world.history(1, 2).size(), 2);
}

void the_longest_quiet_history_is_given_up(void **) {
  World world(2, 2, 20);
  for (std::uint32_t role = 1; role <= 3; role++) {
    world.open(0, 1, role).clients.store(1);
    world.sample();
    world.state.pools[0].state.store(0);
  }
  assert_int_equal(world.history(1, 1).size(), 0);
  assert_int_equal(world.history(1, 2).size(), 1);
  assert_int_equal(world.history(1, 3).size(), 1);
}

void an_unused_pool_takes_no_ring_from_others(void **) {
  World world(2, 1, 20);
  world.open(0, 1, 1);
  world.start(0, 0);
  world.transact(0, 5);
  world.sample();
  world.bury(0);
  world.sample();
  sluice::give_ring_away(*sluice::find_ring(world.state, 1, 1), sluice::HistoryOwner{9, 9, "d", "r"});
  assert_int_equal(world.sample(), 0);
  assert_null(sluice::find_ring(world.state, 1, 1));
}

void names_follow_those_of_the_pool(void **) {
  World world(1, 1, 5);
  PoolSlot &pool = world.open(0, 1, 2);
  pool.clients.store(1);
  world.sample();
  std::strcpy(pool.role, "renamed");
  world.sample();
  sluice::HistoryOwner owner;
  assert_true(sluice::read_ring_owner(*sluice::find_ring(world.state, 1, 2), owner));
  assert_string_equal(owner.role, "renamed");
  assert_int_equal(world.history(1, 2).size(), 2);
}

void peaks_are_of_one_second(void **) {
  World world(1, 4, 20);
  PoolSlot &pool = world.open(0, 1, 2);
  for (std::uint32_t i = 0; i < 4; i++) world.start(i, 0);
  pool.waiters.store(4);
  world.sample();
  pool.queued.store(30);
  sluice::note_waiting(pool);
  pool.queued.store(2);
  sluice::note_waiting(pool);
  pool.waiters.store(1);
  sluice::note_use(pool);
  pool.waiters.store(3);
  sluice::note_use(pool);
  world.sample();
  assert_int_equal(world.latest().peak_waiting, 30);
  assert_int_equal(world.latest().waiting, 2);
  assert_int_equal(world.latest().peak_in_use, 3);
  world.sample();
  assert_int_equal(world.latest().peak_waiting, 2);
  assert_int_equal(world.latest().peak_in_use, 1);
  assert_int_equal(pool.peak_waiting.load(), 30);
}

void waits_are_of_one_second(void **) {
  World world(1, 1, 20);
  world.open(0, 1, 2);
  world.start(0, 0);
  for (int i = 0; i < 100; i++) world.totals(0).times[0].record_alone(100'000);
  world.sample();
  assert_true(world.latest().wait_p50_us > 95'000);
  for (int i = 0; i < 98; i++) world.totals(0).times[0].record_alone(0);
  for (int i = 0; i < 2; i++) world.totals(0).times[0].record_alone(50);
  world.sample();
  assert_int_equal(world.latest().wait_p50_us, 0);
  assert_int_equal(world.latest().wait_p99_us, 50);
  assert_int_equal(world.latest().wait_max_us, 50);
  world.sample();
  assert_int_equal(world.latest().wait_p99_us, kUnknownTime);
}

void what_is_not_timed_is_not_known(void **) {
  World world(1, 1, 20);
  world.open(0, 1, 2);
  world.start(0, 0);
  world.transact(0, 4);
  world.tick().timed = false;
  world.sample();
  assert_true(world.latest().active == kUnknownMean && world.latest().thinking == kUnknownMean);
  assert_int_equal(world.latest().wait_max_us, kUnknownTime);
  assert_int_equal(world.latest().transactions, 4);
}

void the_mix_is_known_for_each_transaction(void **) {
  World world(1, 1, 20);
  world.open(0, 1, 2);
  world.start(0, 0);
  world.sample();
  world.transact(0, 4);
  sluice::add_alone(world.totals(0).statements, 12);
  sluice::add_alone(world.totals(0).blocks, 10);
  sluice::add_alone(world.totals(0).wal_records, 2);
  world.sample();
  assert_true(world.latest().statements_per_transaction() == 3.0);
  assert_true(is_about(world.latest().blocks_per_transaction, 2.5));
  assert_true(is_about(world.latest().wal_records_per_transaction, 0.5));
  world.sample();
  assert_true(world.latest().blocks_per_transaction == kUnknownMean);
}

void numbers_stop_where_their_type_ends(void **) {
  World world(1, 1, 20);
  PoolSlot &pool = world.open(0, 1, 2);
  world.start(0, 0);
  world.transact(0, std::uint64_t{1} << 40);
  pool.backends.store(100000);
  pool.clients.store(1000000);
  pool.thinking.store(-5);
  world.sample();
  assert_true(world.latest().transactions == std::numeric_limits<std::uint32_t>::max());
  assert_int_equal(world.latest().backends, 65535);
  assert_int_equal(world.latest().peak_in_use, 65535);
  assert_int_equal(world.latest().clients, 1000000);
  assert_int_equal(world.latest().in_transaction, 0);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(without_seconds_nothing_is_sampled),
      cmocka_unit_test(pools_without_anybody_are_not_sampled),
      cmocka_unit_test(what_was_counted_by_those_who_have_gone_is_sampled),
      cmocka_unit_test(samples_add_up_to_the_counters),
      cmocka_unit_test(a_late_second_says_so),
      cmocka_unit_test(a_pool_that_comes_back_is_not_charged_for_its_absence),
      cmocka_unit_test(a_statistician_that_starts_again_goes_on),
      cmocka_unit_test(time_counts_while_it_passes),
      cmocka_unit_test(thinking_is_not_executing),
      cmocka_unit_test(no_more_are_active_than_there_are),
      cmocka_unit_test(a_reset_loses_nothing_afterwards),
      cmocka_unit_test(a_slot_given_to_another_pool_begins_anew),
      cmocka_unit_test(a_pool_finds_its_history_from_another_slot),
      cmocka_unit_test(the_longest_quiet_history_is_given_up),
      cmocka_unit_test(an_unused_pool_takes_no_ring_from_others),
      cmocka_unit_test(names_follow_those_of_the_pool),
      cmocka_unit_test(peaks_are_of_one_second),
      cmocka_unit_test(waits_are_of_one_second),
      cmocka_unit_test(what_is_not_timed_is_not_known),
      cmocka_unit_test(the_mix_is_known_for_each_transaction),
      cmocka_unit_test(numbers_stop_where_their_type_ends),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
