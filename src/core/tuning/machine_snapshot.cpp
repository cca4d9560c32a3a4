// SPDX-License-Identifier: PostgreSQL
//
// The sequence lock around MachineFacts: see machine_snapshot.hpp.

#include "core/tuning/machine_snapshot.hpp"

namespace sluice {

namespace {

constexpr int kTries = 10000;
constexpr auto kRelaxed = std::memory_order_relaxed;

template <std::size_t size>
void store_text(char (&to)[size], const char (&from)[size]) noexcept {
  for (std::size_t i = 0; i < size; ++i) __atomic_store_n(&to[i], from[i], __ATOMIC_RELAXED);
}

template <std::size_t size>
void load_text(char (&to)[size], const char (&from)[size]) noexcept {
  for (std::size_t i = 0; i < size; ++i) to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
  to[size - 1] = '\0';
}

}  // namespace

void publish_machine_facts(MachineFacts &facts, const MachineSnapshot &snapshot) noexcept {
  // Even plus one, or, after a writer that did not come to its end, odd plus two.
  const std::uint32_t writing = (facts.version.load(kRelaxed) + 1) | 1;
  facts.version.store(writing, kRelaxed);
  std::atomic_thread_fence(std::memory_order_release);

  facts.logical_cpus.store(snapshot.logical_cpus, kRelaxed);
  facts.physical_cores.store(snapshot.physical_cores, kRelaxed);
  facts.quota_cores.store(snapshot.quota_cores, kRelaxed);
  facts.cores.store(snapshot.cores, kRelaxed);
  facts.spindles.store(snapshot.spindles, kRelaxed);
  facts.miss_ratio.store(snapshot.miss_ratio, kRelaxed);
  facts.rule_size.store(snapshot.rule_size, kRelaxed);
  store_text(facts.spindles_reason, snapshot.spindles_reason);
  store_text(facts.cores_reason, snapshot.cores_reason);

  facts.version.store(writing + 1, std::memory_order_release);
}

bool read_machine_facts(const MachineFacts &facts, MachineSnapshot &snapshot) noexcept {
  for (int i = 0; i < kTries; ++i) {
    const std::uint32_t before = facts.version.load(std::memory_order_acquire);
    if (before == 0) return false;
    if (before & 1) continue;

    MachineSnapshot copy;
    copy.logical_cpus = facts.logical_cpus.load(kRelaxed);
    copy.physical_cores = facts.physical_cores.load(kRelaxed);
    copy.quota_cores = facts.quota_cores.load(kRelaxed);
    copy.cores = facts.cores.load(kRelaxed);
    copy.spindles = facts.spindles.load(kRelaxed);
    copy.miss_ratio = facts.miss_ratio.load(kRelaxed);
    copy.rule_size = facts.rule_size.load(kRelaxed);
    load_text(copy.spindles_reason, facts.spindles_reason);
    load_text(copy.cores_reason, facts.cores_reason);

    std::atomic_thread_fence(std::memory_order_acquire);
    if (facts.version.load(kRelaxed) == before) {
      snapshot = copy;
      return true;
    }
  }
  return false;
}

}  // namespace sluice
