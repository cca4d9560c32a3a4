// SPDX-License-Identifier: PostgreSQL
//
// How busy the machine is now: pressure stall information, load, memory.
//
// The pressure is that of the control group (version 2) the server runs in, where
// it has one that tells: what stalls there is this server, or its container.
// Elsewhere it is the pressure of the whole machine.  Load and memory are always
// those of the machine.

#ifndef SLUICE_PG_TUNING_SYSTEM_PRESSURE_HPP
#define SLUICE_PG_TUNING_SYSTEM_PRESSURE_HPP

#include <cstddef>
#include <cstdint>

namespace sluice::pg {

constexpr std::size_t kSystemSourceLength = 200;

// What is unknown is < 0.  "some" and "full": percent of the time in which some
// tasks, or all of them, stood still for want of the resource.  A source is the
// file the numbers are from ("cpu.pressure" of a control group, or
// "pressure/cpu" of the machine), or why they are unknown; to be shown with
// shown_system_text().
struct SystemPressure {
  double cpu_some_avg10 = -1;
  double cpu_some_avg60 = -1;
  char cpu_source[kSystemSourceLength] = "";

  double io_some_avg10 = -1;
  double io_some_avg60 = -1;
  double io_full_avg10 = -1;
  double io_full_avg60 = -1;
  char io_source[kSystemSourceLength] = "";

  double memory_some_avg10 = -1;
  double memory_some_avg60 = -1;
  double memory_full_avg10 = -1;
  double memory_full_avg60 = -1;
  char memory_source[kSystemSourceLength] = "";

  double load1 = -1;
  double load5 = -1;
  double load15 = -1;
  std::int64_t runnable = -1;  // tasks
  char load_source[kSystemSourceLength] = "";

  std::int64_t mem_total_bytes = -1;
  std::int64_t mem_available_bytes = -1;
  char meminfo_source[kSystemSourceLength] = "";
};

// Reads all of it now: some ten small files, a fraction of a millisecond.  Raises
// nothing and allocates nothing.
SystemPressure read_system_pressure();

// How long some task has waited for a processor, all together, in microseconds: one
// small file, which is looked for at the first call.  False if it cannot be read.
bool read_processor_stall(std::int64_t *total_us);

}  // namespace sluice::pg

#endif
