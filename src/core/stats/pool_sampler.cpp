// SPDX-License-Identifier: PostgreSQL
#include "core/stats/pool_sampler.hpp"

#include <cstring>
#include <limits>

#include "core/stats/pool_totals.hpp"

namespace sluice {

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr int kPartAttempts = 8;
constexpr int kAttempts = 100;

template <typename T>
T cut(std::uint64_t value) noexcept {
  constexpr std::uint64_t kGreatest = std::numeric_limits<T>::max();
  return static_cast<T>(value < kGreatest ? value : kGreatest);
}

template <typename T>
T gauge(const std::atomic<std::int32_t> &value) noexcept {
  const std::int32_t now = value.load(kRelaxed);
  return now > 0 ? cut<T>(static_cast<std::uint64_t>(now)) : T{0};
}

// A counter that has become smaller has been reset.
std::uint64_t grown(std::uint64_t now, std::uint64_t before) noexcept { return now >= before ? now - before : now; }

// What a backend has finished, and what it has begun.  A part that ends while we
// look is recorded first and taken out of the slot then; so look again.
void add_part(const std::atomic<std::int64_t> &since, const Histogram &finished, bool counts, std::int64_t now_us,
              std::uint64_t &finished_us, std::uint64_t &under_way_us) noexcept {
  std::int64_t since_us = since.load(std::memory_order_acquire);
  std::uint64_t sum_us = 0;
  for (int attempt = 0; attempt < kPartAttempts; attempt++) {
    sum_us = finished.sum.load(std::memory_order_acquire);
    const std::int64_t again_us = since.load(std::memory_order_acquire);
    if (again_us == since_us) {
      break;
    }
    since_us = again_us;
  }
  finished_us += counts ? sum_us : 0;
  under_way_us += since_us != 0 && now_us > since_us ? static_cast<std::uint64_t>(now_us - since_us) : 0;
}

const Histogram &times(const LeaseTotals &totals, Measure measure) noexcept {
  return totals.times[static_cast<std::size_t>(measure)];
}

void add_totals(const LeaseTotals &totals, PoolCounters &counters) noexcept {
  counters.transactions += totals.transactions.load(kRelaxed);
  counters.leases += totals.leases.load(kRelaxed);
  counters.waits += totals.waits.load(kRelaxed);
  counters.statements += totals.statements.load(kRelaxed);
  counters.blocks += totals.blocks.load(kRelaxed);
  counters.wal_records += totals.wal_records.load(kRelaxed);
  counters.wait.add(times(totals, Measure::wait));
}

void add_up(const SharedState &state, std::uint32_t index, std::int64_t now_us, PoolCounters &counters) noexcept {
  const PoolSlot &pool = state.pools[index];
  counters.epoch = pool.statistics_epoch.load(std::memory_order_acquire);
  if (const LeaseTotals *retired = totals_of_retired(pool, counters.epoch)) {
    add_totals(*retired, counters);
    counters.active_us = times(*retired, Measure::active).sum.load(kRelaxed);
    counters.thinking_us = times(*retired, Measure::thinking).sum.load(kRelaxed);
  }
  for (std::uint32_t i = 0; i < state.header->backend_slots; i++) {
    const BackendSlot &backend = state.backends[i];
    if (backend.pool.load(kRelaxed) != index) {
      continue;
    }
    const LeaseStatistics &statistics = state.statistics[i];
    const bool counts = statistics.epoch.load(std::memory_order_acquire) == counters.epoch;
    add_part(backend.active_since_us, times(statistics.totals, Measure::active), counts, now_us, counters.active_us,
             counters.active_under_way_us);
    add_part(backend.thinking_since_us, times(statistics.totals, Measure::thinking), counts, now_us,
             counters.thinking_us, counters.thinking_under_way_us);
    if (counts) {
      add_totals(statistics.totals, counters);
    }
  }
}

// Mean number of backends that did this.  No more than there can have been: what a
// reading has counted twice is not believed.
float mean(std::uint64_t finished_us, std::uint64_t under_way_us, std::uint64_t under_way_before_us, double length_s,
           std::uint64_t backends) noexcept {
  const double us = static_cast<double>(finished_us) + static_cast<double>(under_way_us) -
                    static_cast<double>(under_way_before_us);
  const double greatest = static_cast<double>(backends);
  const double value = length_s > 0 ? us / (length_s * 1e6) : 0.0;
  return static_cast<float>(value < 0 ? 0.0 : value > greatest ? greatest : value);
}

float each(std::uint64_t sum, std::uint64_t transactions) noexcept {
  return transactions == 0 ? kUnknownMean
                           : static_cast<float>(static_cast<double>(sum) / static_cast<double>(transactions));
}

std::int32_t take_peak(std::atomic<std::int32_t> &peak, std::int32_t now) noexcept {
  const std::int32_t seen = peak.exchange(now, kRelaxed);
  return seen > now ? seen : now;
}

bool has_counted(const PoolCounters &before, const PoolCounters &now) noexcept {
  return now.transactions != before.transactions || now.leases != before.leases ||
         now.starts != before.starts || now.retirements != before.retirements ||
         now.acquire_timeouts != before.acquire_timeouts || now.clients_lost != before.clients_lost;
}

// Since the counters were reset, all of what they say; what was under way still is.
PoolCounters after_reset(const PoolCounters &before, const PoolCounters &now) noexcept {
  if (before.epoch == now.epoch) {
    return before;
  }
  PoolCounters zero;
  zero.epoch = now.epoch;
  zero.active_under_way_us = before.active_under_way_us;
  zero.thinking_under_way_us = before.thinking_under_way_us;
  return zero;
}

// False if the slot is not in use, or is being given to another pool.
bool read_owner(const PoolSlot &pool, std::uint32_t generation, HistoryOwner &owner) noexcept {
  if (pool.state.load(std::memory_order_acquire) != static_cast<std::uint32_t>(PoolState::open)) {
    return false;
  }
  owner.database_oid = pool.database_oid;
  owner.role_oid = pool.role_oid;
  std::memcpy(owner.database, pool.database, kHistoryNameLength);
  std::memcpy(owner.role, pool.role, kHistoryNameLength);
  owner.database[kHistoryNameLength - 1] = '\0';
  owner.role[kHistoryNameLength - 1] = '\0';
  std::atomic_thread_fence(std::memory_order_acquire);
  return pool.state.load(kRelaxed) == static_cast<std::uint32_t>(PoolState::open) &&
         pool.generation.load(kRelaxed) == generation;
}

bool is_named(const HistoryRing &ring, const HistoryOwner &owner) noexcept {
  HistoryOwner named;
  return read_ring_owner(ring, named) && std::memcmp(&named, &owner, sizeof(owner)) == 0;
}

// The ring of the slot's number first: without a history from before a restart it is the right one.
HistoryRing *find_ring_near(const SharedState &state, std::uint32_t index, const HistoryOwner &owner) noexcept {
  HistoryOwner other;
  HistoryRing *ring = state.history_ring(index);
  if (read_ring_owner(*ring, other) && other.is(owner.database_oid, owner.role_oid)) {
    return ring;
  }
  return find_ring(state, owner.database_oid, owner.role_oid);
}

// Of a pool that nobody uses and that has no ring, only what it did since the last
// tick matters: it may have had a ring that was given away.
bool is_new(const PoolSlot &pool, const SampleTick &tick) noexcept {
  return tick.now_at - pool.created_at <= tick.now_us - tick.previous_us;
}

// Since the baseline; without one, since the pool was made, but at least a tick.
double sample_length_s(const PoolSlot &pool, const HistoryBaseline *baseline, const SampleTick &tick) noexcept {
  if (baseline != nullptr) {
    return static_cast<double>(tick.now_us - baseline->taken_us) / 1e6;
  }
  const std::int64_t tick_us = tick.now_us - tick.previous_us;
  const std::int64_t age_us = tick.now_at - pool.created_at;
  return static_cast<double>(tick_us > age_us ? tick_us : age_us) / 1e6;
}

bool sample_pool(SharedState &state, std::uint32_t index, const SampleTick &tick) noexcept {
  PoolSlot &pool = state.pools[index];
  const std::uint32_t generation = pool.generation.load(std::memory_order_acquire);
  HistoryOwner owner;
  if (!read_owner(pool, generation, owner)) {
    return false;
  }
  PoolCounters now;
  read_pool_counters(state, index, tick.now_us, now);
  HistoryRing *ring = find_ring_near(state, index, owner);
  HistoryBaseline *baseline = ring != nullptr && ring->baseline.known != 0 && ring->baseline.pool == index &&
                                      ring->baseline.pool_generation == generation
                                  ? &ring->baseline
                                  : nullptr;
  PoolCounters before;
  before.epoch = now.epoch;
  if (baseline != nullptr) {
    before = after_reset(baseline->counters, now);
  }
  const bool used = pool.clients.load(kRelaxed) > 0 || pool.backends.load(kRelaxed) > 0;
  if (!used && !((baseline != nullptr || is_new(pool, tick)) && has_counted(before, now))) {
    (void)take_peak(pool.second_peak_waiting, 0);
    (void)take_peak(pool.second_peak_in_use, 0);
    if (baseline != nullptr) {
      baseline->taken_us = tick.now_us;
    }
    return false;
  }
  const HistorySample sample = make_sample(pool, before, now, sample_length_s(pool, baseline, tick), tick);
  if (pool.generation.load(std::memory_order_acquire) != generation) {
    return false;
  }
  if (ring == nullptr) {
    ring = claim_ring(state, owner, std::numeric_limits<std::int64_t>::max());
  }
  if (!is_named(*ring, owner)) {
    rename_ring_owner(*ring, owner);
  }
  append_sample(*ring, state.header->history_seconds, sample);
  ring->baseline.known = 1;
  ring->baseline.pool = index;
  ring->baseline.pool_generation = generation;
  ring->baseline.taken_us = tick.now_us;
  ring->baseline.counters = now;
  return true;
}

}  // namespace

void read_pool_counters(const SharedState &state, std::uint32_t index, std::int64_t now_us,
                        PoolCounters &counters) noexcept {
  const PoolSlot &pool = state.pools[index];
  read_between_folds(pool, [&]() noexcept {
    counters = PoolCounters{};
    add_up(state, index, now_us, counters);
  });
  counters.acquire_timeouts = pool.acquire_timeouts.load(kRelaxed);
  counters.starts = pool.starts.load(kRelaxed);
  counters.retirements = pool.retirements.load(kRelaxed);
  counters.clients_lost = pool.clients_lost.load(kRelaxed);
}

HistorySample make_sample(PoolSlot &pool, const PoolCounters &before, const PoolCounters &now, double length_s,
                          const SampleTick &tick) noexcept {
  HistorySample sample;
  const std::uint64_t transactions = grown(now.transactions, before.transactions);
  const std::uint64_t retirements = grown(now.retirements, before.retirements);
  sample.at = tick.now_at;
  sample.length_s = static_cast<float>(length_s);
  sample.transactions = cut<std::uint32_t>(transactions);
  sample.leases = cut<std::uint32_t>(grown(now.leases, before.leases));
  sample.waits = cut<std::uint32_t>(grown(now.waits, before.waits));
  sample.statements = cut<std::uint32_t>(grown(now.statements, before.statements));
  sample.acquire_timeouts = cut<std::uint32_t>(grown(now.acquire_timeouts, before.acquire_timeouts));
  sample.starts = cut<std::uint32_t>(grown(now.starts, before.starts));
  sample.retirements = cut<std::uint32_t>(retirements);
  sample.clients_lost = cut<std::uint32_t>(grown(now.clients_lost, before.clients_lost));
  sample.clients = gauge<std::uint32_t>(pool.clients);
  sample.waiting = gauge<std::uint32_t>(pool.queued);
  sample.peak_waiting =
      cut<std::uint32_t>(static_cast<std::uint64_t>(
          take_peak(pool.second_peak_waiting, gauge<std::int32_t>(pool.queued))));
  sample.backends = gauge<std::uint16_t>(pool.backends);
  sample.starting = gauge<std::uint16_t>(pool.starting);
  sample.max_size = gauge<std::uint16_t>(pool.max_size);
  sample.peak_in_use =
      cut<std::uint16_t>(static_cast<std::uint64_t>(take_peak(pool.second_peak_in_use, backends_in_use(pool))));
  sample.in_transaction = gauge<std::uint16_t>(pool.thinking);
  sample.pinned = gauge<std::uint16_t>(pool.pinned);
  sample.blocks_per_transaction = each(grown(now.blocks, before.blocks), transactions);
  sample.wal_records_per_transaction = each(grown(now.wal_records, before.wal_records), transactions);
  if (!tick.timed) {
    return sample;
  }
  const std::uint64_t backends = gauge<std::uint64_t>(pool.backends) + retirements;
  sample.active = mean(grown(now.active_us, before.active_us), now.active_under_way_us, before.active_under_way_us,
                       length_s, backends);
  sample.thinking = mean(grown(now.thinking_us, before.thinking_us), now.thinking_under_way_us,
                         before.thinking_under_way_us, length_s, backends);
  const HistogramCounts waits = now.wait.since(before.wait);
  if (waits.total > 0) {
    sample.wait_p50_us = cut<std::uint32_t>(waits.percentile(0.50));
    sample.wait_p99_us = cut<std::uint32_t>(waits.percentile(0.99));
    sample.wait_max_us = cut<std::uint32_t>(waits.max);
  }
  return sample;
}

std::size_t sample_pools(SharedState &state, const SampleTick &tick) noexcept {
  std::size_t samples = 0;
  if (state.header->history_seconds == 0) {
    return 0;
  }
  for (std::uint32_t i = 0; i < state.header->max_pools; i++) {
    samples += sample_pool(state, i, tick) ? 1 : 0;
  }
  return samples;
}

HistoryRing *find_ring(const SharedState &state, std::uint32_t database_oid, std::uint32_t role_oid) noexcept {
  if (state.header->history_seconds == 0) {
    return nullptr;
  }
  for (std::uint32_t i = 0; i < state.header->max_pools; i++) {
    HistoryOwner owner;
    HistoryRing *ring = state.history_ring(i);
    if (read_ring_owner(*ring, owner) && owner.is(database_oid, role_oid)) {
      return ring;
    }
  }
  return nullptr;
}

HistoryRing *claim_ring(SharedState &state, const HistoryOwner &owner, std::int64_t last_at) noexcept {
  HistoryRing *oldest = find_ring(state, owner.database_oid, owner.role_oid);
  if (oldest != nullptr || state.header->history_seconds == 0) {
    return oldest;
  }
  for (std::uint32_t i = 0; i < state.header->max_pools; i++) {
    HistoryRing *ring = state.history_ring(i);
    if (ring->version.load(kRelaxed) == 0) {
      oldest = ring;
      break;
    }
    if (oldest == nullptr || ring->last_at.load(kRelaxed) < oldest->last_at.load(kRelaxed)) {
      oldest = ring;
    }
  }
  if (oldest->version.load(kRelaxed) != 0 && oldest->last_at.load(kRelaxed) >= last_at) {
    return nullptr;
  }
  give_ring_away(*oldest, owner);
  return oldest;
}

std::size_t copy_pool_history(const SharedState &state, std::uint32_t database_oid, std::uint32_t role_oid,
                              HistorySample *target, std::size_t capacity) noexcept {
  for (int attempt = 0; attempt < kAttempts; attempt++) {
    HistoryOwner owner;
    const HistoryRing *ring = find_ring(state, database_oid, role_oid);
    if (ring == nullptr) {
      return 0;
    }
    const std::size_t count = copy_ring(*ring, state.header->history_seconds, owner, target, capacity);
    if (count > 0 && owner.is(database_oid, role_oid)) {
      return count;
    }
  }
  return 0;
}

}  // namespace sluice
