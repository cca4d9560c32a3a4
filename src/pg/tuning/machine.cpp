// SPDX-License-Identifier: PostgreSQL
//
// Looks at the machine, with open, read, stat and readdir alone.
//
// None of PostgreSQL's file functions is used: they raise, and here nothing is
// an error (see system_files.hpp); a tablespace may have vanished, too.  All of
// this ends as "unknown" and a reason.  Buffers are small and of fixed size; what
// does not fit is treated as unreadable, but for lines of /proc/self/mountinfo,
// whose ends hold nothing of interest.
//
// A stat() on a tablespace behind a dead network mount may hang.  Then so does
// this process alone: pools keep the size they have.

#include "pg/compat.hpp"

#include "pg/tuning/machine.hpp"

#include <dirent.h>
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
#include "pg/tuning/system_files.hpp"

namespace sluice::pg {

namespace {

// Why something could not be found out: the first failure alone.
struct Reason {
  char text[200];
  TextWriter writer{text, sizeof(text)};

  Reason() = default;
  Reason(const Reason &) = delete;  // its writer points into it
  Reason &operator=(const Reason &) = delete;

  bool empty() const { return writer.text().empty(); }
  void add(const SystemPath &path, int error) {
    if (empty()) add_read_failure(writer, path, error);
  }
};

// ---------------------------------------------------------------- processors

SystemPath topology_path(int cpu, const char *name) {
  return sys_path("devices/system/cpu/cpu%d/topology/%s", cpu, name);
}

std::string_view read_topology(int cpu, const char *name, char (&buffer)[1024]) {
  return read_system_file(topology_path(cpu, name), buffer);
}

void count_cores(CoresFound &found, Reason &reason) {
  unsigned long mask[kMaxCpus / (8 * sizeof(unsigned long))] = {};
  if (sched_getaffinity(0, sizeof(mask), reinterpret_cast<cpu_set_t *>(mask)) != 0) return;

  CoreCounter counter;
  for (int cpu = 0; cpu < kMaxCpus; ++cpu) {
    if (!CPU_ISSET_S(cpu, sizeof(mask), reinterpret_cast<cpu_set_t *>(mask))) continue;
    char siblings_text[1024];
    char package_text[1024];
    char core_text[1024];
    const SystemPath siblings_path = topology_path(cpu, "core_cpus_list");
    int error;
    std::string_view siblings = read_system_file(siblings_path, siblings_text, &error);
    if (siblings.empty()) siblings = read_topology(cpu, "thread_siblings_list", siblings_text);
    if (siblings.empty()) reason.add(siblings_path, error);
    counter.add(cpu, siblings, read_topology(cpu, "physical_package_id", package_text),
                read_topology(cpu, "core_id", core_text));
  }
  found.logical_cpus = counter.logical_cpus();
  // One CPU whose core is unknown makes the number of cores unknown.
  if (counter.unplaced() == 0) found.physical_cores = counter.physical_cores();
}

double read_quota(CgroupVersion version, const char *directory) {
  char first[64];
  char second[64];
  if (version == CgroupVersion::v2) return parse_cpu_max(read_system_file(mounted_path(directory, "cpu.max"), first));
  const std::string_view quota = read_system_file(mounted_path(directory, "cpu.cfs_quota_us"), first);
  return parse_cfs_quota(quota, read_system_file(mounted_path(directory, "cpu.cfs_period_us"), second));
}

double find_quota(Reason &reason) {
  CgroupSearch search;
  // What could be seen counts: a mount point without a group is the nearest group.
  (void)look_for_control_groups(search, reason.writer);

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
  return read_system_file(sys_path("dev/block/%u:%u/%s", device.major, device.minor, name), buffer);
}

void read_slaves(DeviceNumber device, DeviceFacts &facts) {
  DIR *directory = opendir(sys_path("dev/block/%u:%u/slaves", device.major, device.minor).text);
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

DeviceFacts read_device(DeviceNumber device, DeviceTexts &texts, Reason &reason) {
  DeviceFacts facts;
  const SystemPath path = sys_path("dev/block/%u:%u", device.major, device.minor);
  const ssize_t length = readlink(path.text, texts.link, sizeof(texts.link));
  if (length < 0) reason.add(path, errno);
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
void add_mount(DiskCensus &census, const char *path, Reason &reason) {
  char resolved[PATH_MAX];
  if (realpath(path, resolved) == nullptr) {
    census.add_unknown(path, "cannot be resolved");
    return;
  }
  MountSearch search(resolved);
  const SystemPath mounts = proc_path("self/mountinfo");
  int error;
  if (!for_each_system_line(mounts, [&search](std::string_view line) { search.see_mountinfo_line(line); }, &error))
    reason.add(mounts, error);
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

void add_place(DiskCensus &census, const char *path, Reason &reason) {
  struct stat place;
  if (stat(path, &place) != 0) {
    census.add_unknown(path, "cannot be examined");
  } else if (major(place.st_dev) != 0) {
    census.add(DeviceNumber{major(place.st_dev), minor(place.st_dev)});
  } else {
    add_mount(census, path, reason);
  }
}

void count_disks(DiskCensus &census, Reason &reason) {
  add_place(census, ".", reason);
  if (DIR *directory = opendir("pg_tblspc")) {
    while (const dirent *entry = readdir(directory)) {
      if (entry->d_name[0] == '.') continue;
      char path[300];
      std::snprintf(path, sizeof(path), "pg_tblspc/%s", entry->d_name);
      add_place(census, path, reason);
    }
    closedir(directory);
  } else {
    census.add_unknown("pg_tblspc", "cannot be listed");
  }

  DeviceNumber device;
  while (census.next(device)) {
    DeviceTexts texts;
    census.visit(read_device(device, texts, reason));
  }
}

void write_cores_reason(MachineSnapshot &snapshot, CoresLimit limit, const Reason &topology, const Reason &quota) {
  TextWriter reason(snapshot.cores_reason, sizeof(snapshot.cores_reason));
  reason.add(cores_limit_phrase(limit));
  if (limit == CoresLimit::configured) return;
  if (snapshot.physical_cores <= 0 && !topology.empty()) reason.add("; ").add(topology.writer.text());
  if (!quota.empty()) reason.add("; CPU quota unknown: ").add(quota.writer.text());
}

void write_spindles(MachineSnapshot &snapshot) {
  TextWriter text(snapshot.spindles_reason, sizeof(snapshot.spindles_reason));
  if (setting_spindles >= 0) {
    snapshot.spindles = setting_spindles;
    text.add("set by sluice.spindles");
    return;
  }
  DiskCensus census;
  Reason reason;
  count_disks(census, reason);
  snapshot.spindles = census.spindles();
  text.add(census.reason());
  if (snapshot.spindles < 0 && !reason.empty()) text.add("; ").add(reason.writer.text());
}

}  // namespace

void refresh_machine_facts(double miss_ratio) {
  MachineSnapshot snapshot;

  CoresFound found;
  Reason topology;
  Reason quota;
  found.configured = setting_cores;
  count_cores(found, topology);
  found.quota_cores = find_quota(quota);
  const CoresDecision cores = decide_cores(found);
  snapshot.logical_cpus = found.logical_cpus;
  snapshot.physical_cores = found.physical_cores;
  snapshot.quota_cores = found.quota_cores;
  snapshot.cores = cores.cores;
  write_cores_reason(snapshot, cores.limit, topology, quota);
  write_spindles(snapshot);

  snapshot.miss_ratio = miss_ratio;
  snapshot.rule_size = rule_size(cores.cores, effective_spindles(snapshot.spindles, miss_ratio));
  publish_machine_facts(shared().header->machine, snapshot);
}

}  // namespace sluice::pg
