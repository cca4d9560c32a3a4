// SPDX-License-Identifier: PostgreSQL
//
// How many physical cores the server may run on.
//
// The sizing rule speaks of cores, not of hardware threads.  Which logical CPUs
// share a core is told by /sys/devices/system/cpu/cpu<n>/topology/: best by the
// list of thread siblings (core_cpus_list, thread_siblings_list before Linux
// 5.2), else by the pair of physical_package_id and core_id (core_id alone
// repeats from package to package).  Only CPUs inside the affinity mask count; a
// core of which one thread is allowed counts as one.

#ifndef SLUICE_CORE_TUNING_CPU_TOPOLOGY_HPP
#define SLUICE_CORE_TUNING_CPU_TOPOLOGY_HPP

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace sluice {

constexpr int kMaxCpus = 4096;

class CpuSet {
 public:
  void add(int cpu) noexcept;  // ignored outside 0..kMaxCpus-1
  void add(const CpuSet &other) noexcept;
  bool contains(int cpu) const noexcept;
  bool intersects(const CpuSet &other) const noexcept;
  int count() const noexcept;

 private:
  std::uint64_t words_[kMaxCpus / 64] = {};
};

// "0-3,8,10-11".  False, with `set` unchanged, unless the whole text is such a
// list of at least one CPU.
bool parse_cpu_list(std::string_view text, CpuSet &set) noexcept;

// Counts cores while it is shown one logical CPU after the other.  It is 50 kB
// large: not for a small stack.
class CoreCounter {
 public:
  // One CPU of the affinity mask, each once, with the texts of its topology
  // files; empty for those that could not be read.  A CPU about which nothing is
  // known counts as a core of its own.
  void add(int cpu, std::string_view siblings, std::string_view package, std::string_view core) noexcept;

  int logical_cpus() const noexcept { return logical_; }
  int physical_cores() const noexcept { return physical_; }
  int unplaced() const noexcept { return unplaced_; }  // CPUs about which nothing was known

 private:
  struct Place {
    std::int64_t package;
    std::int64_t core;
  };
  CpuSet counted_;          // CPUs whose core has been counted, their siblings included
  Place places_[kMaxCpus];  // cores counted by (package, core)
  int places_used_ = 0;
  int logical_ = 0;
  int physical_ = 0;
  int unplaced_ = 0;
};

}  // namespace sluice

#endif
