// SPDX-License-Identifier: PostgreSQL
//
// The latest events, in a ring that any process may write to.

#ifndef SLUICE_CORE_STATS_EVENT_LOG_HPP
#define SLUICE_CORE_STATS_EVENT_LOG_HPP

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace sluice {

constexpr std::size_t kEventReasonLength = 160;

struct EventSlot {
  std::atomic<std::uint64_t> sequence;  // 2 * number + 1 while it is written, 2 * number + 2 afterwards
  std::int64_t at;                      // TimestampTz
  std::uint32_t kind;                   // EventKind
  std::int32_t pid;
  std::int32_t client;
  std::uint32_t role_oid;
  char database[64];
  char role[64];
  char reason[kEventReasonLength];
};

struct EventLog {
  std::atomic<std::uint64_t> next;  // number of the next event
  std::uint32_t capacity;
  // EventSlot[capacity] follows, aligned to 64
};
static_assert(std::is_standard_layout_v<EventSlot> && std::is_trivially_destructible_v<EventSlot>);

constexpr std::size_t event_log_bytes(std::size_t capacity) noexcept {
  return 64 + (capacity * sizeof(EventSlot) + 63) / 64 * 64;
}

}  // namespace sluice

#endif
