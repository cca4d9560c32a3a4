// SPDX-License-Identifier: PostgreSQL
//
// What it costs a backend to count and time one transaction: the calls that
// src/pg/session/lease_clock.cpp makes for a lease with one command cycle, over the
// core's own structures, with two looks at the clock.  Processor time, so that a
// machine that does other things as well does not matter.
//
// Prints a line for each of so many rounds: nanoseconds for each transaction.

#include <ctime>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "core/stats/lease_statistics.hpp"

namespace {

constexpr int kRounds = 7;
constexpr int kTransactions = 2000000;
constexpr std::uint32_t kEpoch = 1;

std::int64_t clock_ns(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return static_cast<std::int64_t>(now.tv_sec) * 1000000000 + now.tv_nsec;
}

std::int64_t clock_us() { return clock_ns(CLOCK_MONOTONIC) / 1000; }

sluice::Histogram &times(sluice::LeaseStatistics &statistics, sluice::Measure measure) {
  return statistics.totals.times[static_cast<std::size_t>(measure)];
}

void record_transaction(sluice::LeaseStatistics &mine, std::uint64_t number) {
  const std::int64_t since_us = clock_us();
  const std::uint64_t waited_us = 600 + number % 400;
  mine.keep_up(kEpoch);
  sluice::add_alone(mine.totals.leases, 1);
  sluice::add_alone(mine.totals.waits, 1);
  times(mine, sluice::Measure::wait).record_alone(waited_us);
  sluice::add_alone(mine.totals.statements, 1);

  const std::int64_t until_us = clock_us();
  const auto took_us = static_cast<std::uint64_t>(until_us - since_us) + 20 + number % 30;
  mine.keep_up(kEpoch);
  times(mine, sluice::Measure::active).record_alone(took_us);
  times(mine, sluice::Measure::hold).record_alone(took_us);
  mine.record_hold(since_us, took_us, took_us, waited_us);
  sluice::add_alone(mine.totals.transactions, 1);
  sluice::add_alone(mine.totals.blocks, 3);
  sluice::add_alone(mine.totals.wal_records, 0);
}

}  // namespace

int main() {
  auto *mine = static_cast<sluice::LeaseStatistics *>(
      std::aligned_alloc(alignof(sluice::LeaseStatistics), sizeof(sluice::LeaseStatistics)));
  if (mine == nullptr) return EXIT_FAILURE;
  std::memset(static_cast<void *>(mine), 0, sizeof(*mine));
  for (int round = 0; round < kRounds; round++) {
    const std::int64_t began_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    for (std::uint64_t i = 0; i < kTransactions; i++) record_transaction(*mine, i);
    const std::int64_t took_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - began_ns;
    std::printf("%.1f\n", static_cast<double>(took_ns) / kTransactions);
  }
  std::free(mine);
  return EXIT_SUCCESS;
}
