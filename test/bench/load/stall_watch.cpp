// SPDX-License-Identifier: PostgreSQL

#include "stall_watch.hpp"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <system_error>

namespace load {

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kPause{1};

bool bind_to(int processor) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<size_t>(processor), &set);
  return pthread_setaffinity_np(pthread_self(), sizeof(set), &set) == 0;
}

bool become_realtime() {
  sched_param parameter = {};
  parameter.sched_priority = sched_get_priority_min(SCHED_FIFO);
  return pthread_setschedparam(pthread_self(), SCHED_FIFO, &parameter) == 0;
}

}  // namespace

void StallWatch::watch(int processor, Look &look) const {
  look.realtime = bind_to(processor) && become_realtime();
  while (!ending_.load(std::memory_order_relaxed)) {
    const Clock::time_point before = Clock::now();
    std::this_thread::sleep_for(kPause);
    const int64_t late_ns = std::chrono::nanoseconds(Clock::now() - before - kPause).count();
    if (late_ns < kStallNs) continue;
    look.count++;
    look.total_ns += late_ns;
    look.longest_ns = std::max(look.longest_ns, late_ns);
  }
}

void StallWatch::start() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return;
  std::vector<int> processors;
  for (int i = 0; i < CPU_SETSIZE; i++)
    if (CPU_ISSET(static_cast<size_t>(i), &allowed)) processors.push_back(i);
  looks_.assign(processors.size(), Look());
  try {
    for (size_t i = 0; i < processors.size(); i++)
      threads_.emplace_back(&StallWatch::watch, this, processors[i], std::ref(looks_[i]));
  } catch (const std::system_error &) {  // a limit of threads: not watched
    stop();
    looks_.clear();
  }
}

Stalls StallWatch::stop() {
  ending_.store(true);
  for (std::thread &thread : threads_) thread.join();
  threads_.clear();
  Stalls stalls;
  stalls.watched = !looks_.empty();
  stalls.realtime = stalls.watched;
  int64_t total_ns = 0;
  int64_t longest_ns = 0;
  for (const Look &look : looks_) {
    stalls.realtime = stalls.realtime && look.realtime;
    stalls.count += look.count;
    total_ns += look.total_ns;
    longest_ns = std::max(longest_ns, look.longest_ns);
  }
  if (!looks_.empty()) stalls.total_ms = static_cast<double>(total_ns) / 1e6 / static_cast<double>(looks_.size());
  stalls.longest_ms = static_cast<double>(longest_ns) / 1e6;
  return stalls;
}

}  // namespace load
