// SPDX-License-Identifier: PostgreSQL
#include "core/stats/event_log.hpp"

namespace sluice {

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

struct KindWords {
  const char *name;
  const char *description;
  bool rationed;
};

constexpr KindWords kWords[kEventKinds] = {
    {"pool_created", "pool created", false},
    {"backend_started", "backend started", false},
    {"start_failed", "backend could not start", false},
    {"start_elided", "start of a backend put off and then not needed", true},
    {"backend_retired", "backend ended", false},
    {"acquire_timeout", "client waited in vain for a backend", true},
    {"pinned", "client pinned to its backend", true},
    {"pin_refused", "statement refused that would have pinned its client", true},
    {"pin_timeout", "client ended that was pinned and idle for too long", true},
    {"leak", "backend held for too long while others waited", true},
    {"nested_acquire", "all backends held by clients that waited for another", true},
    {"client_lost", "client vanished inside a transaction or a command", true},
    {"statistics_reset", "statistics reset", false},
};

const KindWords *words_of(EventKind kind) noexcept {
  const auto index = static_cast<std::size_t>(kind);
  return index < kEventKinds ? &kWords[index] : nullptr;
}

// They follow the head, as event_log_bytes() has it.
EventSlot *slots_of(EventLog &log) noexcept { return reinterpret_cast<EventSlot *>(&log + 1); }

const EventSlot *slots_of(const EventLog &log) noexcept { return reinterpret_cast<const EventSlot *>(&log + 1); }

constexpr std::uint64_t sequence_while_written(std::uint64_t number) noexcept { return 2 * number + 1; }
constexpr std::uint64_t sequence_when_whole(std::uint64_t number) noexcept { return 2 * number + 2; }

}  // namespace

const char *name_of(EventKind kind) noexcept {
  const KindWords *words = words_of(kind);
  return words != nullptr ? words->name : "unknown";
}

const char *describe(EventKind kind) noexcept {
  const KindWords *words = words_of(kind);
  return words != nullptr ? words->description : "unknown event";
}

bool is_rationed(EventKind kind) noexcept {
  const KindWords *words = words_of(kind);
  return words != nullptr && words->rationed;
}

std::uint64_t write_event(EventLog &log, const Event &event) noexcept {
  const std::uint64_t number = log.next.fetch_add(1, kRelaxed) + 1;
  EventSlot &slot = slots_of(log)[(number - 1) % log.capacity];
  const std::uint64_t mine = sequence_while_written(number);
  std::uint64_t seen = slot.sequence.load(kRelaxed);
  do {
    if (seen % 2 != 0 || seen > mine) {
      return 0;
    }
  } while (!slot.sequence.compare_exchange_weak(seen, mine, std::memory_order_acquire, kRelaxed));
  std::atomic_thread_fence(std::memory_order_release);
  slot.event.store(event);
  slot.sequence.store(sequence_when_whole(number), std::memory_order_release);
  return number;
}

std::uint64_t newest_event(const EventLog &log) noexcept { return log.next.load(kRelaxed); }

std::uint64_t oldest_event(const EventLog &log, std::uint64_t newest) noexcept {
  return newest > log.capacity ? newest - log.capacity + 1 : 1;
}

bool read_event(const EventLog &log, std::uint64_t number, Event &event) noexcept {
  if (number == 0) {
    return false;
  }
  const EventSlot &slot = slots_of(log)[(number - 1) % log.capacity];
  if (slot.sequence.load(std::memory_order_acquire) != sequence_when_whole(number)) {
    return false;
  }
  slot.event.load(event);
  std::atomic_thread_fence(std::memory_order_acquire);
  return slot.sequence.load(kRelaxed) == sequence_when_whole(number);
}

bool EventRation::admits(std::int64_t now_us) noexcept {
  const std::int64_t passed_us = now_us - filled_us_;
  if (passed_us < 0 || passed_us >= kEventIntervalUs * kEventBurst) {
    // Long ago; or the clock was set back, and nobody shall wait for it to catch up.
    left_ = passed_us < 0 ? left_ : kEventBurst;
    filled_us_ = now_us;
  } else if (passed_us >= kEventIntervalUs) {
    const std::int64_t due = passed_us / kEventIntervalUs;
    const std::uint32_t filled = left_ + static_cast<std::uint32_t>(due);
    left_ = filled < kEventBurst ? filled : kEventBurst;
    filled_us_ += due * kEventIntervalUs;
  }
  if (left_ == 0) {
    withheld_++;
    return false;
  }
  left_--;
  return true;
}

std::uint64_t EventRation::take_withheld() noexcept {
  const std::uint64_t withheld = withheld_;
  withheld_ = 0;
  return withheld;
}

}  // namespace sluice
