// SPDX-License-Identifier: PostgreSQL
#include "core/stats/application_table.hpp"

#include <cstring>
#include <initializer_list>

namespace sluice {

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

// FNV-1a.
std::uint32_t hash(std::uint32_t role_oid, const char *name) noexcept {
  std::uint32_t value = 2166136261u ^ role_oid;
  for (std::size_t i = 0; i < kApplicationNameLength - 1 && name[i] != '\0'; i++) {
    value = (value ^ static_cast<unsigned char>(name[i])) * 16777619u;
  }
  return value;
}

bool is_of(const ApplicationSlot &slot, std::uint32_t role_oid, const char *name) noexcept {
  return slot.role_oid == role_oid && std::strncmp(slot.name, name, kApplicationNameLength - 1) == 0;
}

// False if somebody else has taken it.
bool claim(ApplicationSlot &slot, std::uint32_t role_oid, const char *name) noexcept {
  auto state = static_cast<std::uint32_t>(ApplicationState::free);
  if (!slot.state.compare_exchange_strong(state, static_cast<std::uint32_t>(ApplicationState::claimed))) {
    return false;
  }
  slot.role_oid = role_oid;
  std::strncpy(slot.name, name, kApplicationNameLength - 1);
  slot.name[kApplicationNameLength - 1] = '\0';
  slot.state.store(static_cast<std::uint32_t>(ApplicationState::used), std::memory_order_release);
  return true;
}

}  // namespace

void ApplicationSlot::add(const ApplicationTimes &times) noexcept {
  transactions.fetch_add(times.transactions, kRelaxed);
  leases.fetch_add(times.leases, kRelaxed);
  waited_us.fetch_add(times.waited_us, kRelaxed);
  hold_us.fetch_add(times.hold_us, kRelaxed);
  active_us.fetch_add(times.active_us, kRelaxed);
  thinking_us.fetch_add(times.thinking_us, kRelaxed);
  std::uint64_t seen = longest_hold_us.load(kRelaxed);
  while (times.longest_hold_us > seen &&
         !longest_hold_us.compare_exchange_weak(seen, times.longest_hold_us, kRelaxed)) {
  }
}

ApplicationTimes ApplicationSlot::read() const noexcept {
  ApplicationTimes times;
  times.transactions = transactions.load(kRelaxed);
  times.leases = leases.load(kRelaxed);
  times.waited_us = waited_us.load(kRelaxed);
  times.hold_us = hold_us.load(kRelaxed);
  times.active_us = active_us.load(kRelaxed);
  times.thinking_us = thinking_us.load(kRelaxed);
  times.longest_hold_us = longest_hold_us.load(kRelaxed);
  return times;
}

void ApplicationSlot::reset() noexcept {
  for (std::atomic<std::uint64_t> *sum :
       {&transactions, &leases, &waited_us, &hold_us, &active_us, &thinking_us, &longest_hold_us}) {
    sum->store(0, kRelaxed);
  }
}

std::uint32_t find_application(ApplicationSlot *table, std::uint32_t count, std::uint32_t role_oid,
                               const char *name) noexcept {
  if (count < 2) {
    return kOtherApplications;
  }
  const std::uint32_t rows = count - 1;
  const std::uint32_t start = hash(role_oid, name) % rows;
  for (std::uint32_t looks = 0; looks < rows; looks++) {
    const std::uint32_t index = 1 + (start + looks) % rows;
    ApplicationSlot &slot = table[index];
    const auto state = static_cast<ApplicationState>(slot.state.load(std::memory_order_acquire));
    if (state == ApplicationState::used && is_of(slot, role_oid, name)) {
      return index;
    }
    if (state == ApplicationState::free && claim(slot, role_oid, name)) {
      return index;
    }
  }
  return kOtherApplications;
}

}  // namespace sluice
