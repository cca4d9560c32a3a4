// SPDX-License-Identifier: PostgreSQL
#include "core/stats/pressure.hpp"

#include <cmath>

namespace sluice {

namespace {

struct ResourceFacts {
  const char *name;
  const char *unit;
  ResourceKind kind;
  const char *consequence;
};

// By Resource.
constexpr ResourceFacts kFacts[kResources] = {
    {"max_backends", "backends", ResourceKind::amount, "no pool can start another backend"},
    {"worker slots", "processes", ResourceKind::amount, "no background or parallel worker can start"},
    {"max_connections", "connections", ResourceKind::amount, "direct connections are refused"},
    {"max_connections without reserved", "connections", ResourceKind::amount,
     "direct connections of ordinary roles are refused"},
    {"client slots", "clients", ResourceKind::amount, "new clients are refused"},
    {"unauthenticated clients", "clients", ResourceKind::amount, "new clients are refused until others have logged in"},
    {"file descriptors of the dispatcher", "descriptors", ResourceKind::amount, "new clients are refused"},
    {"file descriptors of the system", "descriptors", ResourceKind::amount, "no process can open a file or a socket"},
    {"pools", "pools", ResourceKind::amount, "clients with another database or role are refused"},
    {"client memory", "bytes", ResourceKind::amount, "clients can prepare no more statements, and are pinned by SET"},
    {"cpu pressure", "percent", ResourceKind::rate, "tasks wait for a processor"},
    {"io pressure", "percent", ResourceKind::rate, "tasks wait for disks"},
    {"memory pressure", "percent", ResourceKind::rate, "tasks wait for memory"},
    {"load", "tasks", ResourceKind::load, "more tasks than processors want to run"},
    {"memory of the machine", "bytes", ResourceKind::amount, "processes may be killed"},
    {"pool slots", "backends", ResourceKind::amount, "clients of the pool wait"},
    {"wait queue", "clients", ResourceKind::amount, "clients may be served out of turn"},
};

constexpr double kClose = 0.9;
constexpr double kForecastFrom = 0.5;
constexpr double kForecastMinutes = 60;
constexpr double kBusyRate = 0.1;
constexpr double kOverloadedRate = 0.4;
constexpr double kBusyLoad = 1.0;
constexpr double kOverloadedLoad = 2.0;

const ResourceFacts &facts_of(Resource resource) noexcept {
  return kFacts[static_cast<std::size_t>(resource) % kResources];
}

double forecast_minutes(const ResourceUse &use) noexcept {
  if (judge_trend(ResourceKind::amount, use) != Trend::rising || use.maximum <= use.used) {
    return -1;
  }
  const double minutes = (use.maximum - use.used) / use.trend_per_minute;
  return minutes <= kForecastMinutes ? minutes : -1;
}

PressureVerdict judge_amount(const ResourceUse &use) noexcept {
  PressureVerdict verdict{Verdict::ok, -1};
  if (use.maximum < 0) {
    return verdict;
  }
  if (use.used >= use.maximum) {
    verdict.verdict = Verdict::exhausted;
    return verdict;
  }
  const double ratio = use.ratio();
  const double minutes = forecast_minutes(use);
  if (ratio >= kClose) {
    return {Verdict::close, minutes};
  }
  if (ratio >= kForecastFrom && minutes >= 0) {
    return {Verdict::will_be_reached, minutes};
  }
  verdict.verdict = use.peak >= use.maximum ? Verdict::limit_was_reached : Verdict::ok;
  return verdict;
}

PressureVerdict judge_share(const ResourceUse &use, double busy, double overloaded) noexcept {
  const double ratio = use.ratio();
  return {ratio > overloaded ? Verdict::overloaded : ratio > busy ? Verdict::busy : Verdict::ok, -1};
}

void add_minutes(double minutes, TextWriter &text) noexcept {
  if (minutes < 1) {
    text.add("in less than a minute at this rate");
  } else {
    text.add("in about ").add(static_cast<std::int64_t>(std::llround(minutes))).add(" min at this rate");
  }
}

}  // namespace

const char *name_of(Resource resource) noexcept { return facts_of(resource).name; }
const char *unit_of(Resource resource) noexcept { return facts_of(resource).unit; }
const char *consequence_of(Resource resource) noexcept { return facts_of(resource).consequence; }
ResourceKind kind_of(Resource resource) noexcept { return facts_of(resource).kind; }

const char *describe(Trend trend) noexcept {
  switch (trend) {
    case Trend::falling:
      return "falling";
    case Trend::steady:
      return "steady";
    case Trend::rising:
      return "rising";
    case Trend::unknown:
      break;
  }
  return nullptr;
}

Trend judge_trend(ResourceKind kind, const ResourceUse &use) noexcept {
  if (!use.known || !use.has_trend) {
    return Trend::unknown;
  }
  const double scale = use.maximum > 0 ? use.maximum : use.peak;
  const double steady = std::fmax(0.5, scale * (kind == ResourceKind::amount ? 0.01 : 0.05));
  if (std::fabs(use.trend_per_minute) < steady) {
    return Trend::steady;
  }
  return use.trend_per_minute > 0 ? Trend::rising : Trend::falling;
}

PressureVerdict judge_pressure(ResourceKind kind, const ResourceUse &use) noexcept {
  if (!use.known) {
    return {};
  }
  switch (kind) {
    case ResourceKind::amount:
      return judge_amount(use);
    case ResourceKind::rate:
      return judge_share(use, kBusyRate, kOverloadedRate);
    case ResourceKind::load:
      return judge_share(use, kBusyLoad, kOverloadedLoad);
  }
  return {};
}

void describe(PressureVerdict verdict, Resource resource, const char *reason, TextWriter &text) noexcept {
  switch (verdict.verdict) {
    case Verdict::unknown:
      text.add("unknown: ").add(reason != nullptr && *reason != '\0' ? reason : "no reason given");
      return;
    case Verdict::ok:
      text.add("ok");
      return;
    case Verdict::limit_was_reached:
      text.add("ok now; the limit has been reached");
      return;
    case Verdict::will_be_reached:
      text.add("will be reached ");
      add_minutes(verdict.minutes_left, text);
      return;
    case Verdict::close:
      text.add("close to the limit");
      if (verdict.minutes_left >= 0) {
        text.add(", which will be reached ");
        add_minutes(verdict.minutes_left, text);
      }
      return;
    case Verdict::busy:
      text.add("busy: ").add(consequence_of(resource));
      return;
    case Verdict::overloaded:
      text.add("overloaded: ").add(consequence_of(resource));
      return;
    case Verdict::exhausted:
      text.add("exhausted: ").add(consequence_of(resource));
      return;
  }
}

std::int32_t most_slots_in_use(const PoolSlotsSeen &seen) noexcept {
  if (!seen.queued) {
    return seen.busy;
  }
  const std::int32_t backends = seen.peak_backends > seen.backends ? seen.peak_backends : seen.backends;
  std::int32_t working = backends - (seen.resting > 0 ? seen.resting : 0);
  working = working < seen.max_size ? working : seen.max_size;
  return working > seen.busy ? working : seen.busy;
}

}  // namespace sluice
