// SPDX-License-Identifier: PostgreSQL
//
// Does the machine itself stand still?  A virtual processor that its hypervisor does not run for 30 ms leaves a queue in
// front of a busy pool that takes several times as long to be worked off, and no pool can help it.
//
// A thread for each processor, bound to it, wants to be woken every millisecond and notes how late that was.  It has a
// real-time priority, so that no ordinary process can make it late but by what the kernel does for that: what it sees
// are the hypervisor, the kernel and other real-time processes.  It does not see a limit of processor time (cpu.max),
// which holds up ordinary processes only.  Where it may not have that priority ordinary processes count too, and the result says so.

#ifndef SLUICE_BENCH_LOAD_STALL_WATCH_HPP
#define SLUICE_BENCH_LOAD_STALL_WATCH_HPP

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace load {

struct Stalls {
  bool watched = false;
  bool realtime = false;   // all threads had that priority
  uint64_t count = 0;      // stalls of at least kStallNs, of all processors
  double total_ms = 0;     // of an average processor
  double longest_ms = 0;
};

constexpr int64_t kStallNs = 3000000;

class StallWatch {
 public:
  StallWatch() = default;
  ~StallWatch() { stop(); }
  StallWatch(const StallWatch &) = delete;
  StallWatch &operator=(const StallWatch &) = delete;

  void start();
  // What has been seen since start().  Without a start nothing is known.
  Stalls stop();

 private:
  struct Look {
    bool realtime = false;
    uint64_t count = 0;
    int64_t total_ns = 0;
    int64_t longest_ns = 0;
  };

  void watch(int processor, Look &look) const;

  std::atomic<bool> ending_{false};
  std::vector<Look> looks_;
  std::vector<std::thread> threads_;
};

}  // namespace load

#endif
