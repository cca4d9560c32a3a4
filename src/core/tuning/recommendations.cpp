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

bool is_far_above_rule(const PoolPressure &pool) noexcept {
  return pool.configured >= 1 && pool.rule_size >= 1 && pool.max_size > kFarFactor * pool.rule_size &&
         pool.max_size - pool.rule_size >= kLeastExcess;
}

// Only a pool that has been as large as it may be is held back by its size.
bool is_held_back_below_rule(const PoolPressure &pool) noexcept {
  return pool.configured >= 1 && pool.rule_size >= 1 && kFarFactor * pool.max_size <= pool.rule_size &&
         pool.peak_backends >= pool.max_size && clients_wait(pool);
}

bool is_held_up_by_idle_transactions(const PoolPressure &pool) noexcept {
  const bool endless =
      pool.idle_transaction_timeout_ms <= 0 || pool.idle_transaction_timeout_ms > kLongestIdleTransactionMs;
  return endless && pool.queued > 0 && pool.thinking > 0 && pool.thinking * 2 >= pool.backends;
}

}  // namespace

int sensible_size(const PoolPressure &pool) noexcept {
  return is_far_above_rule(pool) ? pool.rule_size : pool.max_size;
}

Recommendations recommend_for_pool(const PoolPressure &pool) noexcept {
  Recommendations list;

  if (pool.session_mode) {
    if (pool.acquire_timeouts > 0 || pool.queued > 0)
      add(list, Advice::one_backend_per_client, pool.max_size,
          at_least(pool.clients, std::int64_t{pool.max_size} + pool.max_size / 2 + 1));
    if (pool.start_failures > 0) add(list, Advice::mend_starts, static_cast<std::int64_t>(pool.start_failures), -1);
    return list;
  }
  const bool too_small = is_held_back_below_rule(pool);
  const bool held_up = is_held_up_by_idle_transactions(pool);

  if (is_far_above_rule(pool)) add(list, Advice::shrink_pool, pool.max_size, pool.rule_size);
  if (too_small) add(list, Advice::grow_pool, pool.max_size, pool.rule_size);
  if (held_up) {
    add(list, Advice::end_idle_transactions, pool.idle_transaction_timeout_ms, kLongestIdleTransactionMs);
  }
  if (pool.acquire_timeouts > 0 && !too_small && !held_up) {
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
  if (server.backends >= server.max_backends && somebody_waits && !shrinking_helps &&
      server.max_backends < kGreatestMaxBackends) {
    const std::int64_t more = server.max_backends + at_least(server.max_backends / 2, 1);
    add(list, Advice::raise_max_backends, server.max_backends,
        at_most(at_least(needed_backends, more), kGreatestMaxBackends));
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

  // Where next to nothing is read, no number of spindles would change the size.
  const bool misses_matter = server.miss_ratio < 0 || server.miss_ratio >= kMissesWorthMention;
  if (server.machine_known && server.spindles < 0 && misses_matter) add(list, Advice::tell_spindles, -1, -1);
  return list;
}

}  // namespace sluice
