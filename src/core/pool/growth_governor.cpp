// SPDX-License-Identifier: PostgreSQL
//
// The order of the questions is the order of the reasons: first whether anyone
// needs a backend, then whether one is on its way, then what stands against it,
// from the narrowest limit to the widest.  Room is made last, when nothing but
// the server's limit is in the way.

#include "core/pool/growth_governor.hpp"

namespace sluice {

namespace {

constexpr std::int64_t kLeastLifetimeForJitterUs = 10'000'000;
constexpr std::int64_t kJitterDivisor = 40;  // 2.5 %

// Gauges are changed one after the other: `resting` may be below zero, or above
// `backends`, for a moment.  Then the answer is `backends`, or below zero: room.
int working(int backends, int resting) noexcept {
  return resting > 0 ? backends - resting : backends;
}

}  // namespace

const char *describe(GrowthReason reason) noexcept {
  switch (reason) {
    case GrowthReason::none:
      return "not asked";
    case GrowthReason::below_minimum:
      return "below the minimum size";
    case GrowthReason::clients_wait:
      return "clients wait";
    case GrowthReason::first_backend:
      return "first backend of the pool";
    case GrowthReason::nested_acquire:
      return "clients wait for themselves";
    case GrowthReason::enough_starting:
      return "enough starts under way";
    case GrowthReason::pool_is_full:
      return "pool is full";
    case GrowthReason::server_is_full:
      return "server is full";
    case GrowthReason::nobody_waits:
      return "nobody waits";
    case GrowthReason::starts_failing:
      return "starts are failing";
  }
  return "unknown reason";
}

int WorkingMean::look(int working, std::int64_t now_us) noexcept {
  const std::int64_t since_us = now_us - looked_us;
  const bool anew = looked_us == 0 || since_us >= kWorkingPauseUs || since_us < 0;
  const double weight =
      anew || since_us >= kWorkingMeanUs ? 1 : static_cast<double>(since_us) / static_cast<double>(kWorkingMeanUs);
  mean += (working - mean) * weight;
  looked_us = now_us;
  return static_cast<int>(mean + 0.5);
}

void ProcessorShortage::look(std::int64_t stalled_now_us, std::int64_t now_us) noexcept {
  const std::int64_t since_us = now_us - looked_us;
  is_short = looked_us != 0 && since_us < kShortagePauseUs && 2 * (stalled_now_us - stalled_us) > since_us;
  stalled_us = stalled_now_us;
  looked_us = now_us;
}

GrowthDecision decide_growth(const PoolLoad &pool, const ServerLoad &server) noexcept {
  const bool clients_wait = pool.waiting > 0;
  const bool below_minimum = pool.clients > 0 && pool.backends < pool.min_size;
  if (!clients_wait && !below_minimum) {
    return {false, false, GrowthReason::nobody_waits};
  }
  if (pool.starting >= kEnoughStarting) {
    return {false, false, GrowthReason::enough_starting};
  }
  const bool pool_is_full =
      working(pool.backends, pool.resting) >= pool.max_size || pool.working_lately >= pool.max_size;
  const bool reserve_is_open = clients_wait && server.reserve > 0 &&
                               working(pool.backends, pool.resting) < pool.max_size + server.reserve &&
                               server.backends < server.max_backends + server.reserve;
  if (pool_is_full && !reserve_is_open) {
    return {false, false, GrowthReason::pool_is_full};
  }
  if (pool.now_us < pool.retry_after_us || (!clients_wait && pool.now_us < pool.minimum_retry_after_us)) {
    return {false, false, GrowthReason::starts_failing};
  }
  if (reserve_is_open && (pool_is_full || server.backends >= server.max_backends)) {
    return {true, false, GrowthReason::nested_acquire};
  }
  if (server.backends >= server.max_backends) {
    return {false, clients_wait, GrowthReason::server_is_full};
  }
  if (!clients_wait) {
    return {true, false, GrowthReason::below_minimum};
  }
  return {true, false, pool.backends <= 0 ? GrowthReason::first_backend : GrowthReason::clients_wait};
}

std::int64_t minimum_retry_us(int failed_starts) noexcept {
  std::int64_t delay_us = kStartRetryUs;
  for (int i = 1; i < failed_starts && delay_us < kLongestStartRetryUs; i++) delay_us *= 2;
  return delay_us < kLongestStartRetryUs ? delay_us : kLongestStartRetryUs;
}

const char *describe(RetireReason reason) noexcept {
  switch (reason) {
    case RetireReason::none:
      return "not retired";
    case RetireReason::idle:
      return "idle for too long";
    case RetireReason::lifetime:
      return "end of its lifetime";
    case RetireReason::gave_way:
      return "gave way to another pool";
    case RetireReason::above_maximum:
      return "pool above its maximum size";
    case RetireReason::requested:
      return "retired on request";
    case RetireReason::changed_defaults:
      return "defaults of its role or database have changed";
    case RetireReason::reserve:
      return "reserve is no longer needed";
    case RetireReason::shutdown:
      return "shutdown";
    case RetireReason::database_wanted:
      return "its database was wanted by a statement";
    case RetireReason::pool_released:
      return "its pool was released";
  }
  return "unknown reason";
}

bool is_above_maximum(int backends, int retiring, int resting, int max_size) noexcept {
  return working(backends - retiring, resting) > max_size;
}

RetireReason decide_retirement(const BackendLoad &load) noexcept {
  const BackendAge &age = load.age;
  if (load.asked != RetireReason::none) {
    return load.asked;
  }
  if (age.expires_us != 0 && age.now_us >= age.expires_us) {
    return RetireReason::lifetime;
  }
  if (!load.pinned && load.above_maximum_since_us != 0 &&
      age.now_us - load.above_maximum_since_us >= kAboveMaximumGraceUs &&
      is_above_maximum(load.backends, load.retiring, load.resting, load.max_size)) {
    return RetireReason::above_maximum;
  }
  if (age.idle_since_us != 0 && load.beyond_server - load.retiring > 0) {
    return RetireReason::reserve;
  }
  const int minimum = load.clients > 0 ? load.min_size : 0;
  if (load.idle_timeout_us > 0 && age.idle_since_us != 0 && age.now_us - age.idle_since_us >= load.idle_timeout_us &&
      load.backends - load.retiring > minimum) {
    return RetireReason::idle;
  }
  return RetireReason::none;
}

std::int64_t lifetime_with_jitter_us(std::int64_t max_lifetime_us, std::uint32_t random) noexcept {
  if (max_lifetime_us <= 0) {
    return 0;
  }
  if (max_lifetime_us <= kLeastLifetimeForJitterUs) {
    return max_lifetime_us;
  }
  // span * random / 2^32 in two halves, because the product may not fit.
  const auto span = static_cast<std::uint64_t>(max_lifetime_us / kJitterDivisor);
  const std::uint64_t variance = (span >> 32) * random + (((span & 0xffffffffu) * random) >> 32);
  return max_lifetime_us - static_cast<std::int64_t>(variance);
}

}  // namespace sluice
