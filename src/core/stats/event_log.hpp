// SPDX-License-Identifier: PostgreSQL
//
// The latest events, in a ring that any process may write to.
//
// Events are numbered from 1.  Number n lies in slot (n - 1) % capacity, so the
// numbers that are still there tell how many have been overwritten.  A writer
// draws its number first and then takes the slot by compare-and-set on its
// sequence: 2n + 1 while it is written, 2n + 2 afterwards.  Nobody waits.
//
//   Race: a reader beside a writer.  Answer: it knows which sequence the event it
//   wants has, looks before and after its copy, and leaves out what is not whole.
//   Race: two writers in one slot, a ring apart.  Answer: the newer one overwrites
//   an older event, but never beside a writer: the slot's sequence is odd then, and
//   the event is dropped.  The older one gives up when it finds a newer event.
//   Either way a number is missing: numbers in a view may have gaps.
//
// A writer that is stopped for a whole round keeps its slot from being used until
// it goes on; one that dies in the middle takes the segment along (the reasons are
// those at the top of error_table.hpp: nothing but stores lies between).
//
// Names are copied into the event: it may outlive the pool.

#ifndef SLUICE_CORE_STATS_EVENT_LOG_HPP
#define SLUICE_CORE_STATS_EVENT_LOG_HPP

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "core/stats/shared_record.hpp"

namespace sluice {

enum class EventKind : std::uint32_t {
  pool_created = 0,
  backend_started,   // reason: the governor's
  start_failed,      // reason: the message, which may name what others should not see
  start_elided,      // a start that was put off and then not needed
  backend_retired,   // has ended; reason: why it was asked to
  acquire_timeout,
  pinned,            // reason: what by
  pin_refused,       // sluice.on_session_state = error
  pin_timeout,
  leak,
  nested_acquire,
  client_lost,       // vanished inside a transaction or a command
  statistics_reset,
};

constexpr std::size_t kEventKinds = 13;

// The name in the view: the enumerator's.
const char *name_of(EventKind kind) noexcept;

// One lower-case phrase, for comments and logs ("backend started").
const char *describe(EventKind kind) noexcept;

// Kinds that clients can cause as often as they like: each process writes them at
// the rate of EventRation only.
bool is_rationed(EventKind kind) noexcept;

constexpr std::size_t kEventNameLength = 64;
constexpr std::size_t kEventReasonLength = 160;

struct Event {
  std::int64_t at;      // TimestampTz
  std::uint32_t kind;   // EventKind
  std::int32_t pid;     // of the backend; 0 = none
  std::int32_t client;  // slot; -1 = none
  std::uint32_t role_oid;
  char database[kEventNameLength];  // empty = none
  char role[kEventNameLength];
  char reason[kEventReasonLength];  // cut where a character ends; zeroes behind it
};

struct alignas(64) EventSlot {
  std::atomic<std::uint64_t> sequence;  // 2 * number + 1 while it is written, 2 * number + 2 afterwards; 0 = unused
  SharedRecord<Event> event;
};
static_assert(std::is_standard_layout_v<EventSlot> && std::is_trivially_destructible_v<EventSlot>);

struct alignas(64) EventLog {
  std::atomic<std::uint64_t> next;  // how many numbers have been drawn
  std::uint32_t capacity;
  // EventSlot[capacity] follows
};
static_assert(std::is_standard_layout_v<EventLog> && std::is_trivially_destructible_v<EventLog>);

constexpr std::size_t event_log_bytes(std::size_t capacity) noexcept {
  return sizeof(EventLog) + capacity * sizeof(EventSlot);
}

// Returns the event's number, or 0 if it has been dropped; see above.
std::uint64_t write_event(EventLog &log, const Event &event) noexcept;

// The numbers that may still be there: from oldest_event() to newest_event(), both
// included; none if the newest is 0.  New ones may come any time.
std::uint64_t newest_event(const EventLog &log) noexcept;
std::uint64_t oldest_event(const EventLog &log, std::uint64_t newest) noexcept;

// False if that event is not there (any more, or yet).
bool read_event(const EventLog &log, std::uint64_t number, Event &event) noexcept;

// How many events of one kind one process writes: a handful at once, then one each
// second.  What is withheld is counted, and told by the next one.
constexpr std::uint32_t kEventBurst = 20;
constexpr std::int64_t kEventIntervalUs = 1'000'000;

class EventRation {
 public:
  // `now_us`: any clock.  False: withhold it.
  bool admits(std::int64_t now_us) noexcept;

  // Those withheld since the last one that was admitted; forgotten by the call.
  std::uint64_t take_withheld() noexcept;

 private:
  std::int64_t filled_us_ = 0;
  std::uint32_t left_ = kEventBurst;
  std::uint64_t withheld_ = 0;
};

}  // namespace sluice

#endif
