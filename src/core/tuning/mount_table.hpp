// SPDX-License-Identifier: PostgreSQL
//
// Lines of /proc/self/mountinfo, and the file system a path lies on.
//
// Usually stat() names the block device of a file.  Where it does not (the
// device number has major 0: btrfs, tmpfs, overlay, network file systems) the
// mount that the path lies on says what there is instead.

#ifndef SLUICE_CORE_TUNING_MOUNT_TABLE_HPP
#define SLUICE_CORE_TUNING_MOUNT_TABLE_HPP

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace sluice {

struct DeviceNumber {
  std::uint32_t major = 0;
  std::uint32_t minor = 0;

  constexpr bool operator==(const DeviceNumber &other) const noexcept {
    return major == other.major && minor == other.minor;
  }
};

// "8:17"
bool parse_device_number(std::string_view text, DeviceNumber &device) noexcept;

// One line, with \040 and the like resolved.  Fields that are too long are cut
// off, but for the mount point and the root: without them there is no entry.
struct MountEntry {
  DeviceNumber device;
  char root[1024];
  char mount_point[1024];
  char type[64];
  char source[1024];
  char super_options[256];
};

bool parse_mountinfo_line(std::string_view line, MountEntry &entry) noexcept;

// Finds the mount of one path (absolute, symbolic links resolved): the longest
// mount point above it, and of two that are equal the later, which hides the
// other.
class MountSearch {
 public:
  explicit MountSearch(std::string_view path) noexcept : path_(path) {}

  void see_mountinfo_line(std::string_view line) noexcept;

  bool found() const noexcept { return length_ > 0; }
  const MountEntry &entry() const noexcept { return entry_; }

 private:
  std::string_view path_;
  std::size_t length_ = 0;  // of the best mount point so far
  MountEntry entry_;
};

enum class MountKind {
  device,   // the source is the path of a block device
  memory,   // no disk at all
  unknown,  // network, overlay, or a file system that manages its own disks
};

MountKind judge_mount(std::string_view type, std::string_view source) noexcept;

}  // namespace sluice

#endif
