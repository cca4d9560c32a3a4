// SPDX-License-Identifier: PostgreSQL
//
// Time summed by role and application_name.
//
// A table of fixed size with open addressing.  A row, once given to a name, keeps
// it until the server restarts: clients come back, and nobody has to ask whether
// a number is still the same application's.  When the table is full, or when two
// processes bring a new name at the same moment, the time goes to a row that
// stands for all others (kOtherApplications), or to a second row of the same name;
// whoever shows the table adds up rows of equal names.
//
// A claimed row has its name before its state says so.  Sums are relaxed.

#ifndef SLUICE_CORE_STATS_APPLICATION_TABLE_HPP
#define SLUICE_CORE_STATS_APPLICATION_TABLE_HPP

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace sluice {

constexpr std::size_t kApplicationNameLength = 64;  // NAMEDATALEN, asserted in src/pg/shared_memory.cpp

enum class ApplicationState : std::uint32_t { free = 0, claimed, used };

// What one or several leases have taken, in microseconds.
struct ApplicationTimes {
  std::uint64_t transactions = 0;
  std::uint64_t leases = 0;
  std::uint64_t waited_us = 0;
  std::uint64_t hold_us = 0;
  std::uint64_t active_us = 0;
  std::uint64_t thinking_us = 0;
  std::uint64_t longest_hold_us = 0;
};

struct alignas(64) ApplicationSlot {
  std::atomic<std::uint32_t> state;  // ApplicationState
  std::uint32_t role_oid;
  char name[kApplicationNameLength];
  std::atomic<std::uint64_t> transactions;
  std::atomic<std::uint64_t> leases;
  std::atomic<std::uint64_t> waited_us;
  std::atomic<std::uint64_t> hold_us;
  std::atomic<std::uint64_t> active_us;
  std::atomic<std::uint64_t> thinking_us;
  std::atomic<std::uint64_t> longest_hold_us;

  void add(const ApplicationTimes &times) noexcept;
  ApplicationTimes read() const noexcept;
  void reset() noexcept;  // the sums; the name stays
};
static_assert(std::is_standard_layout_v<ApplicationSlot> && std::is_trivially_destructible_v<ApplicationSlot>);

constexpr std::uint32_t kOtherApplications = 0;  // index of the row for those that found no room

// The row of this role and name (cut to kApplicationNameLength - 1 bytes), made if
// there is room: 1..count-1, else kOtherApplications.  Wait-free: at most `count` looks.
std::uint32_t find_application(ApplicationSlot *table, std::uint32_t count, std::uint32_t role_oid,
                               const char *name) noexcept;

}  // namespace sluice

#endif
