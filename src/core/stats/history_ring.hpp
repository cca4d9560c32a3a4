// SPDX-License-Identifier: PostgreSQL
//
// One sample for each second and pool, for the last so many seconds.

#ifndef SLUICE_CORE_STATS_HISTORY_RING_HPP
#define SLUICE_CORE_STATS_HISTORY_RING_HPP

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace sluice {

struct HistorySample {
  std::atomic<std::int64_t> second_at;  // TimestampTz of the end of the second; 0 = none
  std::uint32_t seconds_us;             // its real length
  std::uint32_t transactions;
  std::uint32_t leases;
  std::uint32_t waits;
  std::uint32_t statements;
  std::uint32_t acquire_timeouts;
  std::uint32_t starts;
  std::uint32_t retirements;
  std::uint32_t errors;
  std::uint32_t wait_p99_us;
  std::uint32_t wait_max_us;
  std::uint16_t clients;
  std::uint16_t backends;
  std::uint16_t waiting;
  std::uint16_t peak_waiting;
  std::uint16_t peak_in_use;
  std::uint16_t in_transaction;
  std::uint16_t pinned;
  std::uint16_t reserved;
  float active;  // mean number of backends executing
  float thinking;
  float blocks_per_transaction;
  float wal_records_per_transaction;
};

struct HistoryRing {
  std::atomic<std::uint32_t> state;  // 0 = free
  std::uint32_t database_oid;
  std::uint32_t role_oid;
  char database[64];
  char role[64];
  std::atomic<std::int64_t> last_at;
  // HistorySample[seconds] follows
};

constexpr std::size_t history_ring_bytes(std::size_t seconds) noexcept {
  return (sizeof(HistoryRing) + seconds * sizeof(HistorySample) + 63) / 64 * 64;
}

}  // namespace sluice

#endif
