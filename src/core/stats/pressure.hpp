// SPDX-License-Identifier: PostgreSQL
//
// What can run out, or be too busy: its name, its unit, and a verdict on how near
// it is to its limit.
//
// The verdict looks at what is in use now, at the peak since the last reset, and
// at the trend: a limit that will be reached soon is worth a word before it is.
// Thresholds are rules of thumb, stated here and nowhere else.

#ifndef SLUICE_CORE_STATS_PRESSURE_HPP
#define SLUICE_CORE_STATS_PRESSURE_HPP

#include <cstddef>
#include <cstdint>

#include "core/tuning/text.hpp"

namespace sluice {

enum class Resource : std::uint32_t {
  // of the whole server
  backends = 0,
  worker_slots,
  connections,
  unreserved_connections,
  client_slots,
  unauthenticated_clients,
  dispatcher_descriptors,
  system_descriptors,
  pools,
  client_memory,
  cpu_pressure,
  io_pressure,
  memory_pressure,
  load,
  machine_memory,
  // of each pool
  pool_slots,
  wait_queue,
};
constexpr std::size_t kServerResources = 15;
constexpr std::size_t kResources = 17;

enum class ResourceKind {
  amount,  // can run out: refused beyond the limit
  rate,    // share of time; the maximum is the whole of it
  load,    // may exceed its maximum, and waits then
};

// The name in the view; the unit of used, maximum and peak; what happens at the
// limit, as the rest of a sentence.
const char *name_of(Resource resource) noexcept;
const char *unit_of(Resource resource) noexcept;
const char *consequence_of(Resource resource) noexcept;
ResourceKind kind_of(Resource resource) noexcept;

enum class Trend { unknown, falling, steady, rising };

// One lower-case word; null for unknown.
const char *describe(Trend trend) noexcept;

// A negative number that can be none is "not known".
struct ResourceUse {
  bool known = false;
  double used = 0;
  double maximum = -1;  // < 0: no limit, or not known
  double peak = 0;      // at least `used`
  bool has_trend = false;
  double trend_per_minute = 0;

  double ratio() const noexcept { return known && maximum > 0 ? used / maximum : 0; }
};

// Less than this a minute is steady: 1 % of the maximum (5 % of a rate), and half
// a unit at least.
Trend judge_trend(ResourceKind kind, const ResourceUse &use) noexcept;

enum class Verdict {
  unknown,
  ok,
  limit_was_reached,     // by the peak
  will_be_reached,       // half used, and rising so that it takes at most an hour
  close,                 // nine tenths
  busy,                  // rate: a tenth; load: more than there is
  overloaded,            // rate: four tenths; load: more than twice
  exhausted,
};

struct PressureVerdict {
  Verdict verdict = Verdict::unknown;
  double minutes_left = -1;  // at this rate; < 0: no forecast
};

PressureVerdict judge_pressure(ResourceKind kind, const ResourceUse &use) noexcept;

// In words.  reason: why it is unknown.
void describe(PressureVerdict verdict, Resource resource, const char *reason, TextWriter &text) noexcept;

// A pool's slots in use between two samples.  Somebody had to queue, so no backend
// slept then: all but the resting ones were in use, and no more than the maximum.
struct PoolSlotsSeen {
  std::int32_t busy = 0;           // now
  std::int32_t backends = 0;       // now
  std::int32_t peak_backends = 0;  // if that has grown since the last sample, else 0
  std::int32_t resting = 0;        // now
  std::int32_t max_size = 0;
  bool queued = false;             // has anybody, since the last sample?
};
std::int32_t most_slots_in_use(const PoolSlotsSeen &seen) noexcept;

}  // namespace sluice

#endif
