// SPDX-License-Identifier: PostgreSQL
//
// What the kernel says about the load of the machine: pressure stall
// information, the load average, and memory.
//
// A pressure file (/proc/pressure/cpu, io, memory, and cpu.pressure and so on of
// a control group of version 2) holds the share of time in which tasks stood
// still for want of the resource: "some" of them, or all at once ("full").
// Averages are percent of the last 10, 60 and 300 seconds, the total is
// microseconds.  For the processor "full" came later (Linux 5.13) and says
// nothing for the machine as a whole: a file without it is complete.  The format
// is described in Documentation/accounting/psi.rst of the kernel.
//
// Numbers are parsed by hand: strtod() would follow the locale.  A text that is
// not understood leaves the result as it was, which is "unknown".

#ifndef SLUICE_CORE_TUNING_PRESSURE_STALL_HPP
#define SLUICE_CORE_TUNING_PRESSURE_STALL_HPP

#include <cstdint>
#include <string_view>

namespace sluice {

// One line; everything < 0 if it was not there.
struct StallLine {
  double avg10 = -1;  // percent
  double avg60 = -1;
  double avg300 = -1;
  std::int64_t total_us = -1;

  bool known() const noexcept { return avg10 >= 0; }
};

struct PressureStall {
  StallLine some;
  StallLine full;  // may be unknown where `some` is known
};

// Whole lines are needed, and one that says "some"; lines that begin with
// another word are passed over.
bool parse_pressure_stall(std::string_view text, PressureStall &stall) noexcept;

// /proc/loadavg: "0.20 0.18 0.12 1/80 11206"
struct LoadAverage {
  double load1 = -1;
  double load5 = -1;
  double load15 = -1;
  std::int64_t runnable = -1;  // tasks now
  std::int64_t tasks = -1;     // processes and threads there are
};

bool parse_load_average(std::string_view text, LoadAverage &load) noexcept;

// Lines of /proc/meminfo, one after the other; < 0: not met.  MemAvailable, the
// kernel's own estimate of what could be had without swapping, is there since
// Linux 3.14.
struct MemoryInfo {
  std::int64_t total_bytes = -1;
  std::int64_t available_bytes = -1;

  void see_line(std::string_view line) noexcept;
};

}  // namespace sluice

#endif
