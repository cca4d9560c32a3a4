// SPDX-License-Identifier: PostgreSQL
//
// Looks at the machine, with open, read, stat and readdir alone.
//
// None of PostgreSQL's file functions is used: they raise, and here nothing is
// an error.  /sys may be missing, read-only, or the host's; /proc may be hidden;
// a tablespace may have vanished.  All of these end as "unknown" and a reason.
// Buffers are small and of fixed size; what does not fit is treated as
// unreadable, but for lines of /proc/self/mountinfo, whose ends hold nothing of
// interest.
//
// A stat() on a tablespace behind a dead network mount may hang.  Then so does
// this process alone: pools keep the size they have.

#include "pg/compat.hpp"

#include "pg/tuning/machine.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "core/tuning/block_devices.hpp"
#include "core/tuning/cgroup_quota.hpp"
#include "core/tuning/cpu_topology.hpp"
#include "core/tuning/machine_snapshot.hpp"
#include "core/tuning/mount_table.hpp"
#include "core/tuning/sizing.hpp"
#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"

namespace sluice::pg {

namespace {

ssize_t read_again(int fd, char *buffer, std::size_t size) {
  ssize_t got;
  do {
    got = read(fd, buffer, size);
  } while (got < 0 && errno == EINTR);
  return got;
}

// The whole of a small file; empty if it cannot be read or does not fit.
template <std::size_t size>
std::string_view read_file(const char *path, char (&buffer)[size]) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {};
  std::size_t length = 0;
  for (;;) {
    const ssize_t got = read_again(fd, buffer + length, size - length);
    if (got <= 0) {
      close(fd);
      return got == 0 ? std::string_view(buffer, length) : std::string_view();
    }
    length += static_cast<std::size_t>(got);
    if (length == size) {
      close(fd);
      return {};
    }
  }
}

// Shows each line of a file to `see`, without its line end.  Of a line longer
// than the buffer only the beginning.
template <typename See>
bool for_each_line(const char *path, See see) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  char buffer[8192];
  std::size_t length = 0;
  bool skipping = false;  // the rest of a line that was too long
  for (;;) {
    const ssize_t got = read_again(fd, buffer + length, sizeof(buffer) - length);
    if (got <= 0) break;
    length += static_cast<std::size_t>(got);

    std::size_t start = 0;
    while (const void *end = std::memchr(buffer + start, '\n', length - start)) {
      const std::size_t stop = static_cast<std::size_t>(static_cast<const char *>(end) - buffer);
      if (!skipping) see(std::string_view(buffer + start, stop - start));
      skipping = false;
      start = stop + 1;
    }
    std::memmove(buffer, buffer + start, length - start);
    length -= start;
    if (length == sizeof(buffer)) {
      if (!skipping) see(std::string_view(buffer, length));
      skipping = true;
      length = 0;
    }
  }
  if (length > 0 && !skipping) see(std::string_view(buffer, length));
  close(fd);
  return true;
}

// ---------------------------------------------------------------- processors

std::string_view read_topology(int cpu, const char *name, char (&buffer)[1024]) {
  char path[128];
  std::snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/topology/%s", cpu, name);
  return read_file(path, buffer);
}

void count_cores(CoresFound &found) {
  unsigned long mask[kMaxCpus / (8 * sizeof(unsigned long))] = {};
  if (sched_getaffinity(0, sizeof(mask), reinterpret_cast<cpu_set_t *>(mask)) != 0) return;

  CoreCounter counter;
  for (int cpu = 0; cpu < kMaxCpus; ++cpu) {
    if (!CPU_ISSET_S(cpu, sizeof(mask), reinterpret_cast<cpu_set_t *>(mask))) continue;
    char siblings_text[1024];
    char package_text[1024];
    char core_text[1024];
    std::string_view siblings = read_topology(cpu, "core_cpus_list", siblings_text);
    if (siblings.empty()) siblings = read_topology(cpu, "thread_siblings_list", siblings_text);
    counter.add(cpu, siblings, read_topology(cpu, "physical_package_id", package_text),
                read_topology(cpu, "core_id", core_text));
  }
  found.logical_cpus = counter.logical_cpus();
  // One CPU whose core is unknown makes the number of cores unknown.
  if (counter.unplaced() == 0) found.physical_cores = counter.physical_cores();
}

double read_quota(CgroupVersion version, const char *directory) {
  char path[kPathLength + 32];
  char first[64];
  char second[64];
  if (version == CgroupVersion::v2) {
    std::snprintf(path, sizeof(path), "%s/cpu.max", directory);
    return parse_cpu_max(read_file(path, first));
  }
  std::snprintf(path, sizeof(path), "%s/cpu.cfs_quota_us", directory);
  const std::string_view quota = read_file(path, first);
  std::snprintf(path, sizeof(path), "%s/cpu.cfs_period_us", directory);
  return parse_cfs_quota(quota, read_file(path, second));
}

double find_quota() {
  CgroupSearch search;
  for_each_line("/proc/self/mountinfo", [&search](std::string_view line) { search.see_mountinfo_line(line); });
  for_each_line("/proc/self/cgroup", [&search](std::string_view line) { search.see_cgroup_line(line); });

  QuotaMinimum minimum;
  for (const CgroupVersion version : {CgroupVersion::v1, CgroupVersion::v2}) {
    const CgroupHierarchy &hierarchy = search.hierarchy(version);
    char directory[kPathLength];
    if (!hierarchy.directory(directory)) continue;
    do {
      minimum.offer(read_quota(version, directory));
    } while (hierarchy.ascend(directory));
  }
  return minimum.cores();
}

// ---------------------------------------------------------------- disks

// The texts that DeviceFacts looks at.
struct DeviceTexts {
  char link[1024];
  char rotational[32];
  char vendor[64];
  char model[128];
  char dm_uuid[256];
};

template <std::size_t size>
std::string_view read_device_file(DeviceNumber device, const char *name, char (&buffer)[size]) {
  char path[512];
  std::snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s", device.major, device.minor, name);
  return read_file(path, buffer);
}

void read_slaves(DeviceNumber device, DeviceFacts &facts) {
  char path[128];
  std::snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/slaves", device.major, device.minor);
  DIR *directory = opendir(path);
  if (directory == nullptr) {
    facts.slaves_incomplete = errno != ENOENT && errno != ENOTDIR;
    return;
  }
  while (const dirent *entry = readdir(directory)) {
    if (entry->d_name[0] == '.') continue;
    char name[300];
    char text[32];
    std::snprintf(name, sizeof(name), "slaves/%s/dev", entry->d_name);
    DeviceNumber slave;
    if (facts.slave_count == kMaxSlaves || !parse_device_number(read_device_file(device, name, text), slave)) {
      facts.slaves_incomplete = true;
      continue;
    }
    facts.slaves[facts.slave_count++] = slave;
  }
  closedir(directory);
}

DeviceFacts read_device(DeviceNumber device, DeviceTexts &texts) {
  DeviceFacts facts;
  char path[128];
  std::snprintf(path, sizeof(path), "/sys/dev/block/%u:%u", device.major, device.minor);
  const ssize_t length = readlink(path, texts.link, sizeof(texts.link));
  if (length <= 0 || static_cast<std::size_t>(length) == sizeof(texts.link)) return facts;
  facts.link = std::string_view(texts.link, static_cast<std::size_t>(length));

  facts.rotational = read_device_file(device, "queue/rotational", texts.rotational);
  facts.vendor = read_device_file(device, "device/vendor", texts.vendor);
  facts.model = read_device_file(device, "device/model", texts.model);
  facts.dm_uuid = read_device_file(device, "dm/uuid", texts.dm_uuid);

  char text[32];
  facts.is_partition = !read_device_file(device, "partition", text).empty();
  // The path goes through the symbolic link, so that ".." is the whole disk.
  if (facts.is_partition)
    facts.has_parent = parse_device_number(read_device_file(device, "../dev", text), facts.parent);
  read_slaves(device, facts);
  return facts;
}

// The device number is one of no block device: ask the table of mounts.
void add_mount(DiskCensus &census, const char *path) {
  char resolved[PATH_MAX];
  if (realpath(path, resolved) == nullptr) {
    census.add_unknown(path, "cannot be resolved");
    return;
  }
  MountSearch search(resolved);
  for_each_line("/proc/self/mountinfo", [&search](std::string_view line) { search.see_mountinfo_line(line); });
  if (!search.found()) {
    census.add_unknown(path, "is not in the table of mounts");
    return;
  }
  const MountEntry &mount = search.entry();
  switch (judge_mount(mount.type, mount.source)) {
    case MountKind::memory:
      census.add_memory(mount.type);
      return;
    case MountKind::device: {
      struct stat source;
      if (stat(mount.source, &source) == 0 && S_ISBLK(source.st_mode)) {
        census.add(DeviceNumber{major(source.st_rdev), minor(source.st_rdev)});
      } else {
        census.add_unknown(mount.source, "cannot be examined");
      }
      return;
    }
    case MountKind::unknown:
      census.add_unknown(mount.type, "is a file system that does not tell its disks");
      return;
  }
}

void add_place(DiskCensus &census, const char *path) {
  struct stat place;
  if (stat(path, &place) != 0) {
    census.add_unknown(path, "cannot be examined");
  } else if (major(place.st_dev) != 0) {
    census.add(DeviceNumber{major(place.st_dev), minor(place.st_dev)});
  } else {
    add_mount(census, path);
  }
}

void count_disks(DiskCensus &census) {
  add_place(census, ".");
  if (DIR *directory = opendir("pg_tblspc")) {
    while (const dirent *entry = readdir(directory)) {
      if (entry->d_name[0] == '.') continue;
      char path[300];
      std::snprintf(path, sizeof(path), "pg_tblspc/%s", entry->d_name);
      add_place(census, path);
    }
    closedir(directory);
  } else {
    census.add_unknown("pg_tblspc", "cannot be listed");
  }

  DeviceNumber device;
  while (census.next(device)) {
    DeviceTexts texts;
    census.visit(read_device(device, texts));
  }
}

}  // namespace

void refresh_machine_facts(double miss_ratio) {
  MachineSnapshot snapshot;

  CoresFound found;
  found.configured = setting_cores;
  count_cores(found);
  found.quota_cores = find_quota();
  const CoresDecision cores = decide_cores(found);
  snapshot.logical_cpus = found.logical_cpus;
  snapshot.physical_cores = found.physical_cores;
  snapshot.quota_cores = found.quota_cores;
  snapshot.cores = cores.cores;
  TextWriter(snapshot.cores_reason, sizeof(snapshot.cores_reason)).add(cores_limit_phrase(cores.limit));

  TextWriter spindles_reason(snapshot.spindles_reason, sizeof(snapshot.spindles_reason));
  if (setting_spindles >= 0) {
    snapshot.spindles = setting_spindles;
    spindles_reason.add("set by sluice.spindles");
  } else {
    DiskCensus census;
    count_disks(census);
    snapshot.spindles = census.spindles();
    spindles_reason.add(census.reason());
  }

  snapshot.miss_ratio = miss_ratio;
  snapshot.rule_size = rule_size(cores.cores, effective_spindles(snapshot.spindles, miss_ratio));
  publish_machine_facts(shared().header->machine, snapshot);
}

}  // namespace sluice::pg
