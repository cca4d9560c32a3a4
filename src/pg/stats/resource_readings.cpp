// SPDX-License-Identifier: PostgreSQL
//
// Processes are counted by the server's own entries for them (PGPROC), of which it
// has a separate list for each kind: max_connections are for direct connections
// and for nothing else, a background worker never takes one of these, whatever
// pg_stat_activity calls it.  An entry is in use while its latch has an owner,
// which holds in all versions; no lock is needed for a number.  A worker that is
// registered and waits to be started has no entry yet and is not counted.
//
// The dispatcher's descriptors are those listed in /proc/<pid>/fd.  From Linux 6.2
// on the size of that directory is their number; before, it has to be read, which
// takes some milliseconds for thousands of clients.

#include "pg/compat.hpp"

#include "pg/stats/resource_readings.hpp"

extern "C" {
#include "postmaster/bgworker.h"
#include "storage/latch.h"
#include "storage/proc.h"
}

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <limits>
#include <sys/resource.h>
#include <sys/stat.h>

#include "core/tuning/machine_snapshot.hpp"
#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"
#include "pg/tuning/system_files.hpp"
#include "pg/tuning/system_pressure.hpp"

namespace sluice::pg {

namespace {

class Readings {
 public:
  explicit Readings(ResourceReading (&readings)[kServerResources]) : readings_(readings) {}

  void know(Resource resource, double used, double maximum) {
    ResourceReading &reading = at(resource);
    reading.known = true;
    reading.used = used;
    reading.maximum = maximum;
  }
  void miss(Resource resource, const char *reason) {
    ResourceReading &reading = at(resource);
    reading.known = false;
    reading.maximum = -1;
    strlcpy(reading.reason, reason, sizeof(reading.reason));
  }

 private:
  ResourceReading &at(Resource resource) { return readings_[static_cast<std::size_t>(resource)]; }

  ResourceReading (&readings_)[kServerResources];
};

// ---------------------------------------------------------------- the server

struct ProcessCounts {
  int connections = 0;
  int workers = 0;
};

ProcessCounts count_processes() {
  ProcessCounts counts;
  for (uint32 i = 0; i < ProcGlobal->allProcCount; i++) {
    const PGPROC &process = ProcGlobal->allProcs[i];
    if (process.procLatch.owner_pid == 0) continue;
    if (process.procgloballist == &ProcGlobal->freeProcs) counts.connections++;
    if (process.procgloballist == &ProcGlobal->bgworkerFreeProcs) counts.workers++;
  }
  return counts;
}

// 0 where the server does not know the setting.
int number_setting(const char *name) {
  const char *value = GetConfigOption(name, true, false);
  return value != nullptr ? atoi(value) : 0;
}

void read_processes(Readings &readings) {
  const ProcessCounts counts = count_processes();
  const int reserved = number_setting("superuser_reserved_connections") + number_setting("reserved_connections");
  readings.know(Resource::worker_slots, counts.workers, max_worker_processes);
  readings.know(Resource::connections, counts.connections, MaxConnections);
  readings.know(Resource::unreserved_connections, counts.connections, MaxConnections - reserved);
}

// ---------------------------------------------------------------- the pools

// Of those that somebody uses: others make room for a new one.
int count_pools_in_use() {
  const SharedState &state = shared();
  int count = 0;
  for (std::uint32_t i = 0; i < state.header->max_pools; i++) {
    const PoolSlot &pool = state.pools[i];
    if (is_open(pool) &&
        (pool.clients.load(std::memory_order_relaxed) > 0 || pool.backends.load(std::memory_order_relaxed) > 0))
      count++;
  }
  return count;
}

// By the dispatcher's own counts: looking at the slots of all clients that could
// be would make the kernel allocate the memory of those that never were.
void read_slots(Readings &readings) {
  const SharedHeader &header = *shared().header;
  const auto count = [](const std::atomic<std::int32_t> &gauge) {
    return Max(gauge.load(std::memory_order_relaxed), 0);
  };
  readings.know(Resource::backends, count(header.backends), header.max_backends);
  readings.know(Resource::client_slots, count(header.clients), header.max_clients);
  readings.know(Resource::unauthenticated_clients, count(header.unauthenticated), setting_max_unauthenticated_clients);
  readings.know(Resource::pools, count_pools_in_use(), header.max_pools);
  readings.know(Resource::client_memory,
                static_cast<double>(header.client_memory_bytes.load(std::memory_order_relaxed)),
                static_cast<double>(client_area_limit_bytes()));
}

// ---------------------------------------------------------------- descriptors

// -1 with errno.  all: read the directory if need be; -2 if it would be needed.
int count_descriptors(pid_t pid, bool all) {
  char path[64];
  struct stat status;
  std::snprintf(path, sizeof(path), "/proc/%d/fd", static_cast<int>(pid));
  if (stat(path, &status) != 0) return -1;
  if (status.st_size > 0) return static_cast<int>(status.st_size);
  if (!all) return -2;
  DIR *directory = opendir(path);
  if (directory == nullptr) return -1;
  int count = 0;
  while (const dirent *entry = readdir(directory)) {
    if (entry->d_name[0] != '.') count++;
  }
  closedir(directory);
  return pid == MyProcPid ? count - 1 : count;
}

void read_dispatcher_descriptors(Readings &readings, bool all) {
  const pid_t pid = shared().header->dispatcher_pid.load(std::memory_order_relaxed);
  if (pid == 0) {
    readings.miss(Resource::dispatcher_descriptors, "the dispatcher is not running");
    return;
  }
  const int count = count_descriptors(pid, all);
  if (count < 0) {
    char reason[128];
    std::snprintf(reason, sizeof(reason), "cannot list the dispatcher's descriptors: %s",
                  count == -1 ? strerror(errno) : "takes too long");
    readings.miss(Resource::dispatcher_descriptors, reason);
    return;
  }
  rlimit limit;
  const bool limited = prlimit(pid, RLIMIT_NOFILE, nullptr, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
  readings.know(Resource::dispatcher_descriptors, count, limited ? static_cast<double>(limit.rlim_cur) : -1);
}

// "used, unused, maximum"
void read_system_descriptors(Readings &readings) {
  const SystemPath path = proc_path("sys/fs/file-nr");
  char buffer[128], reason[200] = "";
  TextWriter why(reason, sizeof(reason));
  int error = 0;
  std::string_view rest = trimmed(read_system_file(path, buffer, &error));
  std::string_view used_text, unused_text;
  std::int64_t used, maximum;
  if (rest.empty()) {
    add_read_failure(why, path, error);
  } else if (!take_part(rest, '\t', used_text) || !take_part(rest, '\t', unused_text) ||
             !parse_number(used_text, used) || !parse_number(rest, maximum)) {
    add_parse_failure(why, path);
  } else {
    // The kernel's way to say that there is none.
    const bool limited = maximum < std::numeric_limits<std::int64_t>::max();
    readings.know(Resource::system_descriptors, static_cast<double>(used),
                  limited ? static_cast<double>(maximum) : -1);
    return;
  }
  readings.miss(Resource::system_descriptors, reason);
}

// ---------------------------------------------------------------- the machine

void read_stall(Readings &readings, Resource resource, double percent, const char *source) {
  if (percent >= 0) {
    readings.know(resource, percent, 100);
  } else {
    readings.miss(resource, source);
  }
}

void read_machine(Readings &readings) {
  const SystemPressure pressure = read_system_pressure();
  read_stall(readings, Resource::cpu_pressure, pressure.cpu_some_avg10, pressure.cpu_source);
  read_stall(readings, Resource::io_pressure, pressure.io_some_avg10, pressure.io_source);
  read_stall(readings, Resource::memory_pressure, pressure.memory_some_avg10, pressure.memory_source);

  MachineSnapshot machine;
  const bool known = read_machine_facts(shared().header->machine, machine) && machine.logical_cpus > 0;
  if (pressure.load1 >= 0) {
    readings.know(Resource::load, pressure.load1, known ? machine.logical_cpus : -1);
  } else {
    readings.miss(Resource::load, pressure.load_source);
  }
  if (pressure.mem_total_bytes >= 0 && pressure.mem_available_bytes >= 0) {
    readings.know(Resource::machine_memory,
                  static_cast<double>(pressure.mem_total_bytes - pressure.mem_available_bytes),
                  static_cast<double>(pressure.mem_total_bytes));
  } else {
    readings.miss(Resource::machine_memory, pressure.meminfo_source);
  }
}

}  // namespace

void read_server_resources(ResourceReading (&readings)[kServerResources], bool all) {
  memset(readings, 0, sizeof(readings));
  Readings into(readings);
  read_processes(into);
  read_slots(into);
  read_dispatcher_descriptors(into, all);
  read_system_descriptors(into);
  read_machine(into);
}

void count_pool_use(PoolUse *uses) {
  const SharedState &state = shared();
  const std::uint32_t pools = state.header->max_pools;
  memset(uses, 0, pools * sizeof(PoolUse));
  for (std::uint32_t i = 0; i < state.header->backend_slots; i++) {
    const BackendSlot &backend = state.backends[i];
    const auto backend_state = static_cast<BackendState>(backend.state.load(std::memory_order_acquire));
    const std::uint32_t pool = backend.pool.load(std::memory_order_relaxed);
    if (backend_state == BackendState::free || backend_state == BackendState::failed || pool >= pools) continue;
    PoolUse &use = uses[pool];
    use.backends++;
    switch (backend_state) {
      case BackendState::thinking:
      case BackendState::pinned:
        use.resting++;
        break;
      case BackendState::waiting:
      case BackendState::lingering:
        break;
      default:
        use.busy++;
        break;
    }
  }
}

}  // namespace sluice::pg
