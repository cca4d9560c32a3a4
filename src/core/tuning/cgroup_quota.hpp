// SPDX-License-Identifier: PostgreSQL
//
// How much CPU time the control groups of Linux allow the server, in cores.
//
// Version 2 says it in `cpu.max` ("150000 100000" is a core and a half, "max
// 100000" no limit), version 1 in `cpu.cfs_quota_us` (-1: no limit) and
// `cpu.cfs_period_us`.  A group cannot use more than any group above it, so that
// the smallest limit on the way to the root of the hierarchy is the one that
// binds.  It stays a fraction: half a core is an honest quota.  A machine may
// have both versions mounted; then both are asked.
//
// The way: show a CgroupSearch every line of /proc/self/mountinfo and of
// /proc/self/cgroup; then walk each hierarchy it has found from the group's own
// directory upwards, and offer what the files there say to a QuotaMinimum.
//
// Inside a container the paths of /proc/self/cgroup may be those of the host,
// or lead out of what is mounted ("/../.."): the mount point itself is then the
// nearest group that can be seen.

#ifndef SLUICE_CORE_TUNING_CGROUP_QUOTA_HPP
#define SLUICE_CORE_TUNING_CGROUP_QUOTA_HPP

#include <cstddef>
#include <string_view>

namespace sluice {

constexpr std::size_t kPathLength = 1024;

enum class CgroupVersion { v1 = 0, v2 };

// A hierarchy that may limit CPU time.  Paths are cut off nowhere: one that is
// too long makes the hierarchy unusable, and found() is false.
class CgroupHierarchy {
 public:
  bool found() const noexcept { return mounted_; }

  // The directory of the group this process is in.  False if it does not fit.
  bool directory(char (&path)[kPathLength]) const noexcept;
  // Turns a directory into the one above it; false at the mount point.
  bool ascend(char (&path)[kPathLength]) const noexcept;

  void set_mount(std::string_view root, std::string_view mount_point) noexcept;
  void set_group(std::string_view group) noexcept;

 private:
  bool mounted_ = false;
  char mount_point_[kPathLength] = "";
  char root_[kPathLength] = "";   // the part of the hierarchy that is mounted there
  char group_[kPathLength] = "";  // of this process, inside the hierarchy
};

class CgroupSearch {
 public:
  void see_mountinfo_line(std::string_view line) noexcept;
  void see_cgroup_line(std::string_view line) noexcept;

  const CgroupHierarchy &hierarchy(CgroupVersion version) const noexcept {
    return hierarchies_[static_cast<int>(version)];
  }

 private:
  CgroupHierarchy hierarchies_[2];
};

// The limit in cores that `cpu.max` states; < 0 for "no limit" and for anything
// that is not understood.
double parse_cpu_max(std::string_view text) noexcept;
// Likewise for the two files of version 1.
double parse_cfs_quota(std::string_view quota_us, std::string_view period_us) noexcept;

class QuotaMinimum {
 public:
  void offer(double cores) noexcept {
    if (cores > 0 && (cores_ < 0 || cores < cores_)) cores_ = cores;
  }
  double cores() const noexcept { return cores_; }  // < 0: no limit

 private:
  double cores_ = -1;
};

}  // namespace sluice

#endif
