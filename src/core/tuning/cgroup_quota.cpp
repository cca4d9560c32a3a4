// SPDX-License-Identifier: PostgreSQL
//
// CPU time allowed by control groups: see cgroup_quota.hpp.

#include "core/tuning/cgroup_quota.hpp"

#include <cstring>

#include "core/tuning/mount_table.hpp"
#include "core/tuning/text.hpp"

namespace sluice {

namespace {

bool copy_path(char (&to)[kPathLength], std::string_view from) noexcept {
  if (from.size() >= kPathLength) return false;
  std::memcpy(to, from.data(), from.size());
  to[from.size()] = '\0';
  return true;
}

bool lists(std::string_view options, std::string_view wanted) noexcept {
  std::string_view option;
  while (take_part(options, ',', option)) {
    if (option == wanted) return true;
  }
  return false;
}

// What of `group` lies below `root`; empty (the root itself) when it lies elsewhere.
std::string_view below(std::string_view group, std::string_view root) noexcept {
  if (contains(group, "/..")) return {};
  if (root == "/") return group;
  if (!starts_with(group, root)) return {};
  group.remove_prefix(root.size());
  return group.empty() || group.front() == '/' ? group : std::string_view();
}

}  // namespace

void CgroupHierarchy::set_mount(std::string_view root, std::string_view mount_point) noexcept {
  if (mounted_) return;  // a second mount of the hierarchy shows the same files
  mounted_ = copy_path(root_, root) && copy_path(mount_point_, mount_point);
}

void CgroupHierarchy::set_group(std::string_view group) noexcept {
  if (!copy_path(group_, group)) group_[0] = '\0';
}

bool CgroupHierarchy::directory(char (&path)[kPathLength]) const noexcept {
  if (!mounted_) return false;
  std::string_view rest = below(group_, root_);
  while (!rest.empty() && rest.back() == '/') rest.remove_suffix(1);
  const std::size_t mount_length = std::strlen(mount_point_);
  if (mount_length + rest.size() >= kPathLength) return false;
  std::memcpy(path, mount_point_, mount_length);
  if (!rest.empty()) std::memcpy(path + mount_length, rest.data(), rest.size());
  path[mount_length + rest.size()] = '\0';
  return true;
}

bool CgroupHierarchy::ascend(char (&path)[kPathLength]) const noexcept {
  const std::size_t mount_length = std::strlen(mount_point_);
  std::size_t length = std::strlen(path);
  if (length <= mount_length) return false;
  while (length > mount_length && path[length - 1] != '/') --length;
  if (length > mount_length) --length;  // the slash
  path[length] = '\0';
  return true;
}

void CgroupSearch::see_mountinfo_line(std::string_view line) noexcept {
  MountEntry entry;
  if (!parse_mountinfo_line(line, entry)) return;
  if (std::strcmp(entry.type, "cgroup2") == 0) {
    hierarchies_[static_cast<int>(CgroupVersion::v2)].set_mount(entry.root, entry.mount_point);
  } else if (std::strcmp(entry.type, "cgroup") == 0 && lists(entry.super_options, "cpu")) {
    hierarchies_[static_cast<int>(CgroupVersion::v1)].set_mount(entry.root, entry.mount_point);
  }
}

// hierarchy number ":" controllers ":" path, where the path may hold colons
void CgroupSearch::see_cgroup_line(std::string_view line) noexcept {
  line = trimmed(line);
  std::string_view number;
  std::string_view controllers;
  std::int64_t hierarchy = 0;
  if (!take_part(line, ':', number) || !parse_number(number, hierarchy)) return;
  if (!take_part(line, ':', controllers) || line.empty() || line.front() != '/') return;
  if (hierarchy == 0 && controllers.empty()) {
    hierarchies_[static_cast<int>(CgroupVersion::v2)].set_group(line);
  } else if (lists(controllers, "cpu")) {
    hierarchies_[static_cast<int>(CgroupVersion::v1)].set_group(line);
  }
}

double parse_cpu_max(std::string_view text) noexcept {
  text = trimmed(text);
  std::string_view quota;
  if (!take_part(text, ' ', quota)) return -1;
  return parse_cfs_quota(quota, text);
}

double parse_cfs_quota(std::string_view quota_us, std::string_view period_us) noexcept {
  std::int64_t quota = 0;
  std::int64_t period = 0;
  if (!parse_number(quota_us, quota) || !parse_number(period_us, period)) return -1;
  if (quota <= 0 || period <= 0) return -1;
  return static_cast<double>(quota) / static_cast<double>(period);
}

}  // namespace sluice
