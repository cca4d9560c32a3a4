// SPDX-License-Identifier: PostgreSQL
//
// Logical CPUs and physical cores: see cpu_topology.hpp.

#include "core/tuning/cpu_topology.hpp"

#include "core/tuning/text.hpp"

namespace sluice {

void CpuSet::add(int cpu) noexcept {
  if (cpu < 0 || cpu >= kMaxCpus) return;
  words_[cpu / 64] |= std::uint64_t{1} << (cpu % 64);
}

void CpuSet::add(const CpuSet &other) noexcept {
  for (int i = 0; i < kMaxCpus / 64; ++i) words_[i] |= other.words_[i];
}

bool CpuSet::contains(int cpu) const noexcept {
  if (cpu < 0 || cpu >= kMaxCpus) return false;
  return (words_[cpu / 64] >> (cpu % 64)) & 1;
}

bool CpuSet::intersects(const CpuSet &other) const noexcept {
  for (int i = 0; i < kMaxCpus / 64; ++i) {
    if (words_[i] & other.words_[i]) return true;
  }
  return false;
}

int CpuSet::count() const noexcept {
  int count = 0;
  for (const std::uint64_t word : words_) count += __builtin_popcountll(word);
  return count;
}

bool parse_cpu_list(std::string_view text, CpuSet &set) noexcept {
  text = trimmed(text);
  if (text.empty() || text.back() == ',') return false;

  CpuSet parsed;
  std::string_view part;
  while (take_part(text, ',', part)) {
    const std::size_t dash = part.find('-');
    std::int64_t low = 0;
    if (!parse_number(part.substr(0, dash), low)) return false;
    std::int64_t high = low;
    if (dash != std::string_view::npos && !parse_number(part.substr(dash + 1), high)) return false;
    if (low < 0 || high < low || high >= kMaxCpus) return false;
    for (std::int64_t cpu = low; cpu <= high; ++cpu) parsed.add(static_cast<int>(cpu));
  }
  set = parsed;
  return true;
}

void CoreCounter::add(int cpu, std::string_view siblings, std::string_view package, std::string_view core) noexcept {
  ++logical_;

  CpuSet threads;
  if (parse_cpu_list(siblings, threads) && threads.contains(cpu)) {
    if (!threads.intersects(counted_)) ++physical_;
    counted_.add(threads);
    return;
  }

  Place place{0, 0};
  // Where the kernel does not know the package it says -1 for all of them, which
  // is as good a package as any.
  if (parse_number(package, place.package) && parse_number(core, place.core) && place.core >= 0) {
    for (int i = 0; i < places_used_; ++i) {
      if (places_[i].package == place.package && places_[i].core == place.core) return;
    }
    if (places_used_ < kMaxCpus) places_[places_used_++] = place;
    ++physical_;
    return;
  }

  ++physical_;
  ++unplaced_;
}

}  // namespace sluice
