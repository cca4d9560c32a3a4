// SPDX-License-Identifier: PostgreSQL
//
// The ring keeps the latest events, whole; a ration lets a burst through and then a trickle.

#include <atomic>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

extern "C" {
#include <cmocka.h>
}

#include "core/stats/cut_text.hpp"
#include "core/stats/event_log.hpp"

namespace {

using sluice::Event;
using sluice::EventKind;
using sluice::EventLog;
using sluice::EventRation;
using sluice::EventSlot;
using sluice::kEventBurst;
using sluice::kEventIntervalUs;
using sluice::newest_event;
using sluice::oldest_event;
using sluice::read_event;
using sluice::write_event;

// A ring in memory of its own, all zero but for the capacity.
class Ring {
 public:
  explicit Ring(std::uint32_t capacity) : bytes_(sluice::event_log_bytes(capacity) + alignof(EventLog)) {
    void *place = bytes_.data();
    std::size_t space = bytes_.size();
    place = std::align(alignof(EventLog), sluice::event_log_bytes(capacity), place, space);
    log_ = static_cast<EventLog *>(place);
    log_->capacity = capacity;
  }
  EventLog &log() { return *log_; }
  EventSlot &slot(std::size_t index) { return reinterpret_cast<EventSlot *>(log_ + 1)[index]; }

 private:
  std::vector<unsigned char> bytes_;
  EventLog *log_;
};

// All parts say the same number.
Event event_about(std::int32_t value) {
  Event event{};
  char text[16];
  std::snprintf(text, sizeof(text), "%d", value);
  event.at = value;
  event.kind = static_cast<std::uint32_t>(EventKind::pinned);
  event.pid = value;
  event.client = value;
  event.role_oid = static_cast<std::uint32_t>(value);
  (void)sluice::copy_cut(event.database, sizeof(event.database), text);
  (void)sluice::copy_cut(event.role, sizeof(event.role), text);
  (void)sluice::copy_cut(event.reason, sizeof(event.reason), text);
  return event;
}

bool is_whole(const Event &event) {
  const Event expected = event_about(event.pid);
  return std::memcmp(&event, &expected, sizeof(event)) == 0;
}

void an_empty_ring_has_no_events(void **) {
  Ring ring(4);
  Event event;
  assert_int_equal(newest_event(ring.log()), 0);
  for (std::uint64_t number = 0; number < 10; number++) {
    assert_false(read_event(ring.log(), number, event));
  }
}

void events_are_numbered_from_one(void **) {
  Ring ring(4);
  Event event;
  assert_int_equal(write_event(ring.log(), event_about(11)), 1);
  assert_int_equal(write_event(ring.log(), event_about(12)), 2);
  assert_int_equal(newest_event(ring.log()), 2);
  assert_int_equal(oldest_event(ring.log(), 2), 1);
  assert_true(read_event(ring.log(), 1, event));
  assert_int_equal(event.pid, 11);
  assert_true(read_event(ring.log(), 2, event));
  assert_int_equal(event.pid, 12);
  assert_true(is_whole(event));
  assert_false(read_event(ring.log(), 3, event));
}

void the_ring_keeps_the_latest(void **) {
  Ring ring(4);
  Event event;
  for (std::int32_t value = 1; value <= 10; value++) {
    assert_int_equal(write_event(ring.log(), event_about(value)), value);
  }
  assert_int_equal(oldest_event(ring.log(), newest_event(ring.log())), 7);
  for (std::uint64_t number = 1; number <= 6; number++) {
    assert_false(read_event(ring.log(), number, event));
  }
  for (std::uint64_t number = 7; number <= 10; number++) {
    assert_true(read_event(ring.log(), number, event));
    assert_int_equal(event.pid, number);
    assert_true(is_whole(event));
  }
}

void an_unfinished_event_is_not_shown_and_its_slot_is_left_alone(void **) {
  Ring ring(2);
  Event event;
  (void)write_event(ring.log(), event_about(1));
  ring.slot(0).sequence.store(2 * 1 + 1);  // a writer that has stopped in the middle
  assert_false(read_event(ring.log(), 1, event));
  assert_int_equal(write_event(ring.log(), event_about(2)), 2);
  assert_int_equal(write_event(ring.log(), event_about(3)), 0);  // dropped
  assert_int_equal(write_event(ring.log(), event_about(4)), 4);
  assert_false(read_event(ring.log(), 3, event));
  assert_true(read_event(ring.log(), 4, event));
  ring.slot(0).sequence.store(2 * 1 + 2);  // it goes on
  assert_int_equal(write_event(ring.log(), event_about(5)), 5);
  assert_true(read_event(ring.log(), 5, event));
}

void a_writer_that_was_overtaken_gives_up(void **) {
  Ring ring(2);
  Event event;
  for (std::int32_t value = 1; value <= 3; value++) {
    (void)write_event(ring.log(), event_about(value));
  }
  ring.log().next.store(0);  // number 1 is drawn only now
  assert_int_equal(write_event(ring.log(), event_about(99)), 0);
  assert_true(read_event(ring.log(), 3, event));
  assert_int_equal(event.pid, 3);
}

void every_kind_has_words_of_its_own(void **) {
  for (std::size_t i = 0; i < sluice::kEventKinds; i++) {
    const auto kind = static_cast<EventKind>(i);
    assert_string_not_equal(sluice::name_of(kind), "unknown");
    assert_string_not_equal(sluice::describe(kind), "unknown event");
    for (std::size_t j = 0; j < i; j++) {
      assert_string_not_equal(sluice::name_of(kind), sluice::name_of(static_cast<EventKind>(j)));
      assert_string_not_equal(sluice::describe(kind), sluice::describe(static_cast<EventKind>(j)));
    }
  }
  const auto beyond = static_cast<EventKind>(sluice::kEventKinds);
  assert_string_equal(sluice::name_of(beyond), "unknown");
  assert_string_equal(sluice::describe(beyond), "unknown event");
  assert_false(sluice::is_rationed(beyond));
  assert_string_equal(sluice::name_of(EventKind::statistics_reset), "statistics_reset");
  assert_true(sluice::is_rationed(EventKind::pinned));
  assert_false(sluice::is_rationed(EventKind::backend_started));
}

void a_ration_lets_a_burst_through_and_then_one_each_second(void **) {
  EventRation ration;
  std::int64_t now_us = 1'000'000'000'000;
  for (std::uint32_t i = 0; i < kEventBurst; i++) {
    assert_true(ration.admits(now_us));
  }
  assert_int_equal(ration.take_withheld(), 0);
  assert_false(ration.admits(now_us));
  assert_false(ration.admits(now_us + kEventIntervalUs - 1));
  now_us += kEventIntervalUs;
  assert_true(ration.admits(now_us));
  assert_int_equal(ration.take_withheld(), 2);
  assert_int_equal(ration.take_withheld(), 0);
  assert_false(ration.admits(now_us));
  now_us += 3 * kEventIntervalUs;
  for (int i = 0; i < 3; i++) {
    assert_true(ration.admits(now_us));
  }
  assert_false(ration.admits(now_us));
}

void a_quiet_time_fills_a_ration_and_no_more(void **) {
  EventRation ration;
  std::int64_t now_us = 5;
  while (ration.admits(now_us)) {
  }
  now_us += 1000 * kEventIntervalUs;
  for (std::uint32_t i = 0; i < kEventBurst; i++) {
    assert_true(ration.admits(now_us));
  }
  assert_false(ration.admits(now_us));
}

void a_clock_set_back_stops_a_ration_for_a_second_only(void **) {
  EventRation ration;
  while (ration.admits(1000 * kEventIntervalUs)) {
  }
  assert_false(ration.admits(10 * kEventIntervalUs));
  assert_true(ration.admits(11 * kEventIntervalUs));
}

void readers_get_whole_events_while_many_threads_write(void **) {
  constexpr int kWriters = 4;
  constexpr int kEach = 20000;
  Ring ring(16);
  std::atomic<int> writing{kWriters};
  std::atomic<bool> torn{false};
  std::atomic<std::uint64_t> written{0}, seen{0};
  std::vector<std::thread> threads;
  for (int writer = 0; writer < kWriters; writer++) {
    threads.emplace_back([&, writer] {
      for (int i = 0; i < kEach; i++) {
        if (write_event(ring.log(), event_about(writer * kEach + i)) != 0) {
          written++;
        }
      }
      writing--;
    });
  }
  threads.emplace_back([&] {
    while (writing.load() > 0) {
      const std::uint64_t newest = newest_event(ring.log());
      for (std::uint64_t number = oldest_event(ring.log(), newest); number <= newest; number++) {
        Event event;
        if (read_event(ring.log(), number, event)) {
          seen++;
          if (!is_whole(event)) {
            torn = true;
          }
        }
      }
    }
  });
  for (std::thread &thread : threads) {
    thread.join();
  }
  assert_false(torn.load());
  assert_int_equal(newest_event(ring.log()), kWriters * kEach);
  assert_true(written.load() > 0);
  // Nobody writes any more: each slot has a whole event.
  for (std::size_t i = 0; i < 16; i++) {
    const std::uint64_t sequence = ring.slot(i).sequence.load();
    Event event;
    assert_int_equal(sequence % 2, 0);
    assert_true(read_event(ring.log(), (sequence - 2) / 2, event));
    assert_true(is_whole(event));
  }
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(an_empty_ring_has_no_events),
      cmocka_unit_test(events_are_numbered_from_one),
      cmocka_unit_test(the_ring_keeps_the_latest),
      cmocka_unit_test(an_unfinished_event_is_not_shown_and_its_slot_is_left_alone),
      cmocka_unit_test(a_writer_that_was_overtaken_gives_up),
      cmocka_unit_test(every_kind_has_words_of_its_own),
      cmocka_unit_test(a_ration_lets_a_burst_through_and_then_one_each_second),
      cmocka_unit_test(a_quiet_time_fills_a_ration_and_no_more),
      cmocka_unit_test(a_clock_set_back_stops_a_ration_for_a_second_only),
      cmocka_unit_test(readers_get_whole_events_while_many_threads_write),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
