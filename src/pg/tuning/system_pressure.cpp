// SPDX-License-Identifier: PostgreSQL
//
// The load of the machine: see system_pressure.hpp.
//
// Inside a container the server's control group may look like the root of the
// hierarchy, and the real root has pressure files too, with the numbers of the
// machine.  cgroup.type tells them apart: every group has it, but not the root
// (Documentation/admin-guide/cgroup-v2.rst of the kernel).

#include "pg/compat.hpp"

#include "pg/tuning/system_pressure.hpp"

#include "core/tuning/cgroup_quota.hpp"
#include "core/tuning/pressure_stall.hpp"
#include "pg/tuning/system_files.hpp"

namespace sluice::pg {

namespace {

// The directory of the server's control group of version 2, unless it is the root.
bool find_own_group(char (&directory)[kPathLength]) {
  CgroupSearch search;
  char reason[kSystemSourceLength];
  TextWriter why(reason, sizeof(reason));
  if (!look_for_control_groups(search, why)) return false;
  char type[64];
  return search.hierarchy(CgroupVersion::v2).directory(directory) &&
         !read_system_file(mounted_path(directory, "cgroup.type"), type).empty();
}

bool read_stall(const SystemPath &path, PressureStall &stall, char (&source_text)[kSystemSourceLength]) {
  TextWriter source(source_text, sizeof(source_text));
  char buffer[512];
  int error;
  const std::string_view text = read_system_file(path, buffer, &error);
  if (text.empty()) {
    add_read_failure(source, path, error);
    return false;
  }
  if (!parse_pressure_stall(text, stall)) {
    add_parse_failure(source, path);
    return false;
  }
  add_path(source, path);
  return true;
}

// group: directory, or null.
PressureStall read_stall_of(const char *resource, const char *group, char (&source)[kSystemSourceLength]) {
  PressureStall stall;
  if (group != nullptr) {
    char name[32];
    TextWriter(name, sizeof(name)).add(resource).add(".pressure");
    if (read_stall(mounted_path(group, name), stall, source)) return stall;
  }
  (void)read_stall(proc_path("pressure/%s", resource), stall, source);
  return stall;
}

void read_stalls(SystemPressure &pressure) {
  char directory[kPathLength];
  const char *group = find_own_group(directory) ? directory : nullptr;

  const PressureStall cpu = read_stall_of("cpu", group, pressure.cpu_source);
  pressure.cpu_some_avg10 = cpu.some.avg10;
  pressure.cpu_some_avg60 = cpu.some.avg60;

  const PressureStall io = read_stall_of("io", group, pressure.io_source);
  pressure.io_some_avg10 = io.some.avg10;
  pressure.io_some_avg60 = io.some.avg60;
  pressure.io_full_avg10 = io.full.avg10;
  pressure.io_full_avg60 = io.full.avg60;

  const PressureStall memory = read_stall_of("memory", group, pressure.memory_source);
  pressure.memory_some_avg10 = memory.some.avg10;
  pressure.memory_some_avg60 = memory.some.avg60;
  pressure.memory_full_avg10 = memory.full.avg10;
  pressure.memory_full_avg60 = memory.full.avg60;
}

void read_load(SystemPressure &pressure) {
  const SystemPath path = proc_path("loadavg");
  TextWriter source(pressure.load_source, sizeof(pressure.load_source));
  char buffer[256];
  int error;
  const std::string_view text = read_system_file(path, buffer, &error);
  LoadAverage load;
  if (text.empty()) {
    add_read_failure(source, path, error);
  } else if (!parse_load_average(text, load)) {
    add_parse_failure(source, path);
  } else {
    add_path(source, path);
  }
  pressure.load1 = load.load1;
  pressure.load5 = load.load5;
  pressure.load15 = load.load15;
  pressure.runnable = load.runnable;
}

void read_memory(SystemPressure &pressure) {
  const SystemPath path = proc_path("meminfo");
  TextWriter source(pressure.meminfo_source, sizeof(pressure.meminfo_source));
  MemoryInfo memory;
  int error;
  if (!for_each_system_line(
          path, [&memory](std::string_view line) { memory.see_line(line); }, &error)) {
    add_read_failure(source, path, error);
  } else if (memory.total_bytes < 0 && memory.available_bytes < 0) {
    add_parse_failure(source, path);
  } else {
    add_path(source, path);
    if (memory.available_bytes < 0) source.add(" has no MemAvailable");
  }
  pressure.mem_total_bytes = memory.total_bytes;
  pressure.mem_available_bytes = memory.available_bytes;
}

}  // namespace

bool read_processor_stall(std::int64_t *total_us) {
  static bool looked = false;
  static bool has_group = false;
  static char group[kPathLength];
  char source[kSystemSourceLength];

  if (!looked) has_group = find_own_group(group);
  looked = true;
  const PressureStall stall = read_stall_of("cpu", has_group ? group : nullptr, source);
  if (stall.some.total_us < 0) return false;
  *total_us = stall.some.total_us;
  return true;
}

SystemPressure read_system_pressure() {
  SystemPressure pressure;
  read_stalls(pressure);
  read_load(pressure);
  read_memory(pressure);
  return pressure;
}

}  // namespace sluice::pg
