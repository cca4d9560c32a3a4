// SPDX-License-Identifier: PostgreSQL
//
// One ring: the latest samples, in order, whole, and of nobody else.

#include <atomic>
#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

extern "C" {
#include <cmocka.h>
}

#include "core/stats/history_ring.hpp"

namespace {

using sluice::HistoryOwner;
using sluice::HistoryRing;
using sluice::HistorySample;

// A ring in zeroed memory of exactly its size, so that a step too far is seen.
class Ring {
 public:
  explicit Ring(std::size_t seconds) : memory_(std::aligned_alloc(64, sluice::history_ring_bytes(seconds))) {
    std::memset(memory_, 0, sluice::history_ring_bytes(seconds));
  }
  ~Ring() { std::free(memory_); }
  Ring(const Ring &) = delete;
  Ring &operator=(const Ring &) = delete;
  HistoryRing &operator*() const { return *static_cast<HistoryRing *>(memory_); }

 private:
  void *memory_;
};

HistoryOwner owner_named(std::uint32_t number, const char *name) {
  HistoryOwner owner;
  owner.database_oid = number;
  owner.role_oid = number + 1;
  std::strcpy(owner.database, name);
  std::strcpy(owner.role, name);
  return owner;
}

// All fields say the same number, so that a torn one is recognised.
HistorySample sample_number(std::uint32_t number) {
  HistorySample sample;
  sample.at = number;
  sample.transactions = number;
  sample.leases = number;
  sample.clients = number;
  sample.peak_waiting = number;
  sample.active = static_cast<float>(number % 1024);
  sample.wal_records_per_transaction = static_cast<float>(number % 1024);
  return sample;
}

bool is_whole(const HistorySample &sample) {
  const auto number = static_cast<std::uint32_t>(sample.at);
  const HistorySample expected = sample_number(number);
  return std::memcmp(&sample, &expected, sizeof(sample)) == 0;
}

void a_fresh_ring_is_nobodys_and_empty(void **) {
  Ring ring(5);
  HistoryOwner owner;
  HistorySample samples[5];
  assert_false(sluice::read_ring_owner(*ring, owner));
  assert_int_equal(sluice::copy_ring(*ring, 5, owner, samples, 5), 0);
}

void no_seconds_take_no_memory(void **) {
  assert_int_equal(sluice::history_ring_bytes(0), 0);
  for (const std::size_t seconds : {1u, 2u, 7u, 3600u}) {
    assert_int_equal(sluice::history_ring_bytes(seconds) % 64, 0);
    assert_true(sluice::history_ring_bytes(seconds) >=
                sizeof(HistoryRing) + seconds * sizeof(sluice::HistorySlot));
  }
}

void the_latest_samples_are_kept_in_order(void **) {
  for (const std::size_t seconds : {1u, 2u, 3u, 8u, 60u}) {
    Ring ring(seconds);
    sluice::give_ring_away(*ring, owner_named(1, "a"));
    std::vector<HistorySample> samples(seconds + 3);
    for (std::uint32_t number = 1; number <= 3 * seconds + 1; number++) {
      HistoryOwner owner;
      sluice::append_sample(*ring, seconds, sample_number(number));
      const std::size_t count = sluice::copy_ring(*ring, seconds, owner, samples.data(), samples.size());
      assert_int_equal(count, number < seconds ? number : seconds);
      assert_int_equal(owner.database_oid, 1);
      for (std::size_t i = 0; i < count; i++) {
        assert_true(is_whole(samples[i]));
        assert_int_equal(samples[i].at, number - count + 1 + i);
      }
    }
  }
}

void fewer_are_the_latest(void **) {
  Ring ring(10);
  HistoryOwner owner;
  HistorySample samples[3];
  sluice::give_ring_away(*ring, owner_named(1, "a"));
  for (std::uint32_t number = 1; number <= 25; number++) sluice::append_sample(*ring, 10, sample_number(number));
  assert_int_equal(sluice::copy_ring(*ring, 10, owner, samples, 3), 3);
  assert_int_equal(samples[0].at, 23);
  assert_int_equal(samples[2].at, 25);
  assert_int_equal(sluice::copy_ring(*ring, 10, owner, samples, 0), 0);
}

void a_ring_given_away_forgets(void **) {
  Ring ring(4);
  HistoryOwner owner;
  HistorySample samples[4];
  sluice::give_ring_away(*ring, owner_named(1, "a"));
  for (std::uint32_t number = 1; number <= 6; number++) sluice::append_sample(*ring, 4, sample_number(number));
  (*ring).baseline.known = 1;
  sluice::give_ring_away(*ring, owner_named(7, "b"));
  assert_int_equal((*ring).baseline.known, 0);
  assert_int_equal(sluice::copy_ring(*ring, 4, owner, samples, 4), 0);
  sluice::append_sample(*ring, 4, sample_number(9));
  assert_int_equal(sluice::copy_ring(*ring, 4, owner, samples, 4), 1);
  assert_int_equal(owner.database_oid, 7);
  assert_string_equal(owner.role, "b");
  assert_int_equal(samples[0].at, 9);
}

void a_renamed_owner_keeps_its_samples(void **) {
  Ring ring(4);
  HistoryOwner owner;
  HistorySample samples[4];
  sluice::give_ring_away(*ring, owner_named(1, "a"));
  sluice::append_sample(*ring, 4, sample_number(1));
  sluice::rename_ring_owner(*ring, owner_named(1, "z"));
  assert_int_equal(sluice::copy_ring(*ring, 4, owner, samples, 4), 1);
  assert_string_equal(owner.database, "z");
}

void the_version_never_becomes_that_of_nobody(void **) {
  Ring ring(1);
  HistoryOwner owner;
  (*ring).version.store(0xfffffffeu);
  sluice::rename_ring_owner(*ring, owner_named(1, "a"));
  assert_int_not_equal((*ring).version.load(), 0);
  assert_int_equal((*ring).version.load() % 2, 0);
  assert_true(sluice::read_ring_owner(*ring, owner));
}

void rates_are_of_the_real_length(void **) {
  HistorySample sample;
  assert_true(sample.transactions_per_second() == 0.0);
  assert_true(sample.statements_per_transaction() < 0);
  sample.length_s = 2.5f;
  sample.transactions = 10;
  sample.statements = 25;
  assert_true(sample.transactions_per_second() == 4.0);
  assert_true(sample.statements_per_transaction() == 2.5);
}

void readers_see_whole_samples_of_one_owner_in_order(void **) {
  constexpr std::size_t kSeconds = 3;
  Ring ring(kSeconds);
  std::atomic<bool> stop{false};
  std::atomic<int> failures{0};
  sluice::give_ring_away(*ring, owner_named(2, "even"));
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; i++) {
    readers.emplace_back([&] {
      while (!stop.load()) {
        HistoryOwner owner;
        HistorySample samples[kSeconds];
        const std::size_t count = sluice::copy_ring(*ring, kSeconds, owner, samples, kSeconds);
        for (std::size_t j = 0; j < count; j++) {
          const bool is_even = samples[j].at / 1000 % 2 == 0;
          if (!is_whole(samples[j]) || is_even != (owner.database_oid == 2)) failures++;
          if (std::strcmp(owner.role, is_even ? "even" : "odd") != 0) failures++;
          if (j > 0 && samples[j].at <= samples[j - 1].at) failures++;
        }
      }
    });
  }
  for (std::uint32_t number = 1; number < 300000; number++) {
    if (number % 1000 == 0)
      sluice::give_ring_away(*ring, number / 1000 % 2 == 0 ? owner_named(2, "even") : owner_named(3, "odd"));
    sluice::append_sample(*ring, kSeconds, sample_number(number));
  }
  stop.store(true);
  for (std::thread &reader : readers) reader.join();
  assert_int_equal(failures.load(), 0);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(a_fresh_ring_is_nobodys_and_empty),
      cmocka_unit_test(no_seconds_take_no_memory),
      cmocka_unit_test(the_latest_samples_are_kept_in_order),
      cmocka_unit_test(fewer_are_the_latest),
      cmocka_unit_test(a_ring_given_away_forgets),
      cmocka_unit_test(a_renamed_owner_keeps_its_samples),
      cmocka_unit_test(the_version_never_becomes_that_of_nobody),
      cmocka_unit_test(rates_are_of_the_real_length),
      cmocka_unit_test(readers_see_whole_samples_of_one_owner_in_order),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
