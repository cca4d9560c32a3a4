// SPDX-License-Identifier: PostgreSQL
//
// Recommendations: see recommendations.hpp.

#include "core/tuning/recommendations.hpp"

namespace sluice {

namespace {

void add(Recommendations &list, Advice advice, std::int64_t current, std::int64_t recommended) noexcept {
  if (list.count < kMaxRecommendations) list.items[list.count++] = Recommendation{advice, current, recommended};
}

std::int64_t at_most(std::int64_t value, std::int64_t limit) noexcept {
  return value < limit ? value : limit;
}
std::int64_t at_least(std::int64_t value, std::int64_t limit) noexcept {
  return value > limit ? value : limit;
}

bool clients_wait(const PoolPressure &pool) noexcept {
  return pool.queued > 0 || pool.acquire_timeouts > 0 ||
         (pool.waits > 0 && pool.waits >= pool.leases / kWaitsWorthMention);
}

// The rule is no measurement, so a pool that follows it is not told to leave it,
// and one that does not only if it is far away.
bool may_be_resized(const PoolPressure &pool) noexcept {
  return pool.advised >= 1 && (pool.measured || pool.configured >= 1);
}

// By what has been measured, the advised size would cost throughput.
bool would_cost_throughput(const PoolPressure &pool) noexcept {
  return pool.throughput_gain > 0 && pool.throughput_gain < kKneeShare;
}

bool is_too_large(const PoolPressure &pool) noexcept {
  if (!may_be_resized(pool) || pool.max_size <= pool.advised || pool.bound == SizeBound::at_least) return false;
  const bool far = pool.max_size > kFarFactor * pool.advised && pool.max_size - pool.advised >= kLeastExcess;
  return (far && !would_cost_throughput(pool)) || (pool.measured && pool.throughput_gain >= kThroughputWorthMention);
}

// Only a pool that has been as large as it may be is held back by its size, and not while something else holds back
// what it has: an operator who reads in sluice.pressure that more backends would not help must not find a larger pool
// recommended here.
bool is_too_small(const PoolPressure &pool) noexcept {
  if (!pool.more_would_help || !may_be_resized(pool) || pool.max_size >= pool.advised ||
      pool.bound == SizeBound::at_most)
    return false;
  const bool far = kFarFactor * pool.max_size <= pool.advised && !would_cost_throughput(pool);
  return (far || (pool.measured && pool.throughput_gain >= kThroughputWorthMention)) &&
         pool.peak_backends >= pool.max_size && clients_wait(pool);
}

bool transactions_may_idle(const PoolPressure &pool) noexcept {
  return pool.idle_transaction_timeout_ms <= 0 || pool.idle_transaction_timeout_ms > kLongestIdleTransactionMs;
}

bool is_held_up_by_idle_transactions(const PoolPressure &pool) noexcept {
  return transactions_may_idle(pool) && pool.queued > 0 && pool.thinking > 0 && pool.thinking * 2 >= pool.backends;
}

bool is_held_up_by_pins(const PoolPressure &pool) noexcept {
  return pool.queued > 0 && pool.pinned > 0 && pool.pinned * 2 >= pool.backends;
}

}  // namespace

int sensible_size(const PoolPressure &pool) noexcept {
  return is_too_large(pool) ? pool.advised : pool.max_size;
}

Recommendations recommend_for_pool(const PoolPressure &pool) noexcept {
  Recommendations list;

  if (pool.session_mode) {
    const bool was_full = pool.peak_backends >= pool.max_size;
    if (pool.queued > 0 || (pool.acquire_timeouts > 0 && was_full))
      add(list, Advice::one_backend_per_client, pool.max_size,
          at_most(at_least(pool.clients, std::int64_t{pool.max_size} + pool.max_size / 2 + 1), kGreatestMaxBackends));
    if (pool.start_failures > 0) add(list, Advice::mend_starts, static_cast<std::int64_t>(pool.start_failures), -1);
    return list;
  }
  const bool too_small = is_too_small(pool);
  const bool held_up = is_held_up_by_idle_transactions(pool);
  const bool pinned = is_held_up_by_pins(pool);
  const bool nested = pool.nested_acquires > 0;

  if (is_too_large(pool)) add(list, Advice::shrink_pool, pool.max_size, pool.advised);
  if (too_small) add(list, Advice::grow_pool, pool.max_size, pool.advised);
  const bool unexplored = pool.more_would_help && (!pool.measured || pool.bound == SizeBound::at_least);
  if (pool.advised >= 1 && unexplored && !too_small && pool.max_size <= pool.advised &&
      pool.peak_backends >= pool.max_size && (pool.queued > 0 || pool.acquire_timeouts > 0) && !nested && !held_up &&
      !pinned) {
    add(list, Advice::calibrate, pool.max_size, -1);
  }
  if (nested) add(list, Advice::break_nested_acquire, pool.max_backends, -1);
  if (held_up) {
    add(list, Advice::end_idle_transactions, pool.idle_transaction_timeout_ms, kLongestIdleTransactionMs);
  } else if (pool.leaks > 0 && transactions_may_idle(pool)) {
    add(list, Advice::end_long_transactions, pool.idle_transaction_timeout_ms, kLongestIdleTransactionMs);
  }
  if (pinned) add(list, Advice::release_pins, pool.pinned, -1);
  if (pool.acquire_timeouts > 0 && !too_small && !held_up && !pinned && !nested) {
    add(list, Advice::look_at_holders, static_cast<std::int64_t>(pool.acquire_timeouts), -1);
  }
  if (pool.start_failures > 0) add(list, Advice::mend_starts, static_cast<std::int64_t>(pool.start_failures), -1);
  return list;
}

Recommendations recommend_for_server(const ServerPressure &server) noexcept {
  Recommendations list;

  // Where a pool should shrink, that comes first: it may make room enough.
  const bool somebody_waits = server.queued > 0 || server.acquire_timeouts > 0;
  const std::int64_t needed_backends = server.wanted_backends + server.thinking + server.pinned;
  const bool shrinking_helps = server.oversized_pools > 0 && needed_backends <= server.max_backends;
  // Where all pools are as large as they may be, more room for them together changes nothing.
  const bool is_short = server.backends >= server.max_backends && somebody_waits && !shrinking_helps &&
                        needed_backends > server.max_backends;
  const bool nested_is_short = server.nested_minimum > server.max_backends + server.nested_reserve;
  if ((is_short || nested_is_short) && server.max_backends < kGreatestMaxBackends) {
    const std::int64_t more = is_short ? server.max_backends + at_least(server.max_backends / 2, 1) : 0;
    const std::int64_t enough = at_least(is_short ? needed_backends : 0, server.nested_minimum);
    add(list, Advice::raise_max_backends, server.max_backends, at_most(at_least(enough, more), kGreatestMaxBackends));
  }

  const bool clients_full =
      std::int64_t{server.clients} * 100 >= std::int64_t{server.max_clients} * kClientsFullPercent;
  if (server.clients > 0 && clients_full && server.max_clients < kGreatestMaxClients) {
    add(list, Advice::raise_max_clients, server.max_clients,
        at_most(std::int64_t{server.max_clients} * 2, kGreatestMaxClients));
  }

  const std::int64_t descriptors_needed = server.descriptor_base + server.max_clients;
  if (server.descriptor_limit >= 0 && server.descriptor_limit < descriptors_needed) {
    add(list, Advice::raise_descriptor_limit, server.descriptor_limit, descriptors_needed);
  }

  // The peak of direct connections is not known: twice what there is now, and never
  // less than the default, leaves room for it.
  if (server.direct_connections >= 0 && server.pooled_transactions > 0) {
    const std::int64_t needed = at_least(std::int64_t{server.direct_connections} * 2, kFewConnections);
    if (server.max_connections >= kFarTooManyConnections * needed) {
      add(list, Advice::lower_max_connections, server.max_connections, needed);
    }
  }

  if (!server.track_timing) add(list, Advice::track_timing, 0, 1);

  // Where next to nothing is read, no number of spindles would change the size.
  const bool misses_matter = server.miss_ratio < 0 || server.miss_ratio >= kMissesWorthMention;
  if (server.machine_known && server.spindles < 0 && misses_matter) add(list, Advice::tell_spindles, -1, -1);
  return list;
}

}  // namespace sluice
