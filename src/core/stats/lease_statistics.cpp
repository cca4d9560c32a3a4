// SPDX-License-Identifier: PostgreSQL
//
// All accesses are relaxed but for the epoch: a reader that sees the new epoch
// sees the zeroes written before it.

#include "core/stats/lease_statistics.hpp"

#include <initializer_list>
#include <limits>

namespace sluice {

namespace {

std::uint32_t cut(std::uint64_t value) noexcept {
  constexpr std::uint64_t kGreatest = std::numeric_limits<std::uint32_t>::max();
  return static_cast<std::uint32_t>(value < kGreatest ? value : kGreatest);
}

std::uint64_t read(const std::atomic<std::uint64_t> &counter) noexcept {
  return counter.load(std::memory_order_relaxed);
}

}  // namespace

const char *describe(Measure measure) noexcept {
  switch (measure) {
    case Measure::wait:
      return "wait";
    case Measure::hold:
      return "hold";
    case Measure::active:
      return "active";
    case Measure::thinking:
      return "thinking";
    case Measure::start:
      return "start";
    case Measure::authentication:
      return "authentication";
  }
  return "unknown";
}

void LeaseTotals::reset() noexcept {
  for (std::atomic<std::uint64_t> *counter : {&transactions, &leases, &waits, &statements, &blocks, &wal_records}) {
    counter->store(0, std::memory_order_relaxed);
  }
  for (Histogram &histogram : times) {
    histogram.reset();
  }
}

void LeaseTotals::add(const LeaseTotals &other) noexcept {
  add_alone(transactions, read(other.transactions));
  add_alone(leases, read(other.leases));
  add_alone(waits, read(other.waits));
  add_alone(statements, read(other.statements));
  add_alone(blocks, read(other.blocks));
  add_alone(wal_records, read(other.wal_records));
  for (std::size_t i = 0; i < kLeaseMeasures; i++) {
    times[i].add(other.times[i]);
  }
}

void LeaseStatistics::begin(std::uint32_t pool_epoch) noexcept {
  epoch.store(0, std::memory_order_relaxed);
  totals.reset();
  recorded.store(0, std::memory_order_relaxed);
  for (LeaseRecord &record : records) {
    record.ready_us.store(0, std::memory_order_relaxed);
  }
  epoch.store(pool_epoch, std::memory_order_release);
}

void LeaseStatistics::record_hold(std::int64_t ready_us, std::uint64_t hold_us, std::uint64_t active_us,
                                  std::uint64_t waited_us) noexcept {
  const std::uint64_t number = recorded.load(std::memory_order_relaxed);
  LeaseRecord &record = records[number % kLeaseRecords];
  record.ready_us.store(ready_us, std::memory_order_relaxed);
  record.hold_us.store(cut(hold_us), std::memory_order_relaxed);
  record.active_us.store(cut(active_us), std::memory_order_relaxed);
  record.waited_us.store(cut(waited_us), std::memory_order_relaxed);
  recorded.store(number + 1, std::memory_order_release);
}

void PoolTotals::add(const LeaseTotals &other, bool with_times) noexcept {
  transactions += read(other.transactions);
  leases += read(other.leases);
  waits += read(other.waits);
  statements += read(other.statements);
  blocks += read(other.blocks);
  wal_records += read(other.wal_records);
  for (std::size_t i = 0; with_times && i < kLeaseMeasures; i++) {
    times[i].add(other.times[i]);
  }
}

}  // namespace sluice
