// SPDX-License-Identifier: PostgreSQL
//
// Errors counted by class and SQLSTATE.

#ifndef SLUICE_CORE_STATS_ERROR_TABLE_HPP
#define SLUICE_CORE_STATS_ERROR_TABLE_HPP

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace sluice {

constexpr std::size_t kErrorSlots = 256;
constexpr std::size_t kErrorMessageLength = 200;

struct alignas(64) ErrorSlot {
  std::atomic<std::uint64_t> key;  // class and SQLSTATE; 0 = free
  std::atomic<std::uint64_t> count;
  std::atomic<std::int64_t> first_at;  // TimestampTz
  std::atomic<std::int64_t> last_at;
  std::atomic<std::uint32_t> version;  // odd while the message is written
  std::uint32_t role_oid;              // whose error the message is of
  char message[kErrorMessageLength];
};

struct ErrorTable {
  ErrorSlot slots[kErrorSlots];
};
static_assert(std::is_standard_layout_v<ErrorTable> && std::is_trivially_destructible_v<ErrorTable>);

}  // namespace sluice

#endif
