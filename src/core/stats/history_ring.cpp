// SPDX-License-Identifier: PostgreSQL
#include "core/stats/history_ring.hpp"

namespace sluice {

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

// 0 is for rings that never had an owner.
std::uint32_t after(std::uint32_t version) noexcept {
  return version + 2 == 0 ? 2 : version + 2;
}

std::uint32_t begin_change(HistoryRing &ring) noexcept {
  const std::uint32_t version = ring.version.load(kRelaxed);
  ring.version.store(version + 1, kRelaxed);
  std::atomic_thread_fence(std::memory_order_release);
  return version;
}

// The owner and the version it was read under; 0 if there is none.
std::uint32_t read_owner(const HistoryRing &ring, HistoryOwner &owner) noexcept {
  const std::uint32_t version = ring.version.load(std::memory_order_acquire);
  if (version == 0 || version % 2 != 0) {
    return 0;
  }
  ring.owner.load(owner);
  std::atomic_thread_fence(std::memory_order_acquire);
  return ring.version.load(kRelaxed) == version ? version : 0;
}

}  // namespace

double HistorySample::transactions_per_second() const noexcept {
  return length_s > 0 ? static_cast<double>(transactions) / static_cast<double>(length_s) : 0.0;
}

double HistorySample::statements_per_transaction() const noexcept {
  return transactions > 0 ? static_cast<double>(statements) / static_cast<double>(transactions) : -1.0;
}

void give_ring_away(HistoryRing &ring, const HistoryOwner &owner) noexcept {
  const std::uint32_t version = begin_change(ring);
  ring.owner.store(owner);
  ring.first.store(ring.next.load(kRelaxed), kRelaxed);
  ring.last_at.store(0, kRelaxed);
  ring.baseline = HistoryBaseline{};
  ring.version.store(after(version), std::memory_order_release);
}

void rename_ring_owner(HistoryRing &ring, const HistoryOwner &owner) noexcept {
  const std::uint32_t version = begin_change(ring);
  ring.owner.store(owner);
  ring.version.store(after(version), std::memory_order_release);
}

void append_sample(HistoryRing &ring, std::size_t seconds, const HistorySample &sample) noexcept {
  const std::uint64_t number = ring.next.load(kRelaxed);
  HistorySlot &slot = ring.slots()[number % seconds];
  slot.version.store(2 * number + 1, kRelaxed);
  std::atomic_thread_fence(std::memory_order_release);
  slot.sample.store(sample);
  slot.version.store(2 * number + 2, std::memory_order_release);
  ring.last_at.store(sample.at, kRelaxed);
  ring.next.store(number + 1, std::memory_order_release);
}

bool read_ring_owner(const HistoryRing &ring, HistoryOwner &owner) noexcept {
  return read_owner(ring, owner) != 0;
}

SampleRange sample_range(const HistoryRing &ring, std::size_t seconds) noexcept {
  SampleRange range;
  range.end = ring.next.load(std::memory_order_acquire);
  range.begin = ring.first.load(kRelaxed);
  if (range.begin > range.end) {  // given away between the two looks
    range.begin = range.end;
  }
  if (range.end - range.begin > seconds) {
    range.begin = range.end - seconds;
  }
  return range;
}

bool read_sample(const HistoryRing &ring, std::size_t seconds, std::uint64_t number, HistorySample &sample) noexcept {
  const HistorySlot &slot = ring.slots()[number % seconds];
  const std::uint64_t version = slot.version.load(std::memory_order_acquire);
  if (version != 2 * number + 2) {
    return false;
  }
  slot.sample.load(sample);
  std::atomic_thread_fence(std::memory_order_acquire);
  return slot.version.load(kRelaxed) == version;
}

std::size_t copy_ring(const HistoryRing &ring, std::size_t seconds, HistoryOwner &owner, HistorySample *target,
                      std::size_t capacity) noexcept {
  const std::uint32_t version = read_owner(ring, owner);
  if (version == 0) {
    return 0;
  }
  SampleRange range = sample_range(ring, seconds);
  if (range.end - range.begin > capacity) {
    range.begin = range.end - capacity;
  }
  std::size_t count = 0;
  for (std::uint64_t number = range.begin; number < range.end; number++) {
    count += read_sample(ring, seconds, number, target[count]) ? 1 : 0;
  }
  std::atomic_thread_fence(std::memory_order_acquire);
  return ring.version.load(kRelaxed) == version ? count : 0;
}

}  // namespace sluice
