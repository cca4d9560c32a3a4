// SPDX-License-Identifier: PostgreSQL
//
// Mounts: see mount_table.hpp.

#include "core/tuning/mount_table.hpp"

#include "core/tuning/text.hpp"

namespace sluice {

namespace {

constexpr bool is_octal(char c) noexcept {
  return c >= '0' && c <= '7';
}

// Copies `from`, resolving backslash and three octal digits.  False if it had to
// be cut off.
template <std::size_t size>
bool unescape(std::string_view from, char (&to)[size]) noexcept {
  std::size_t length = 0;
  while (!from.empty() && length + 1 < size) {
    if (from.size() >= 4 && from[0] == '\\' && is_octal(from[1]) && is_octal(from[2]) && is_octal(from[3])) {
      to[length++] = static_cast<char>((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0'));
      from.remove_prefix(4);
    } else {
      to[length++] = from.front();
      from.remove_prefix(1);
    }
  }
  to[length] = '\0';
  return from.empty();
}

// Is `path` the directory `mount_point` or below it?
bool lies_under(std::string_view path, std::string_view mount_point) noexcept {
  if (mount_point == "/") return true;
  return starts_with(path, mount_point) && (path.size() == mount_point.size() || path[mount_point.size()] == '/');
}

}  // namespace

bool parse_device_number(std::string_view text, DeviceNumber &device) noexcept {
  text = trimmed(text);
  const std::size_t colon = text.find(':');
  if (colon == std::string_view::npos) return false;
  std::int64_t major = 0;
  std::int64_t minor = 0;
  if (!parse_number(text.substr(0, colon), major) || !parse_number(text.substr(colon + 1), minor)) return false;
  if (major < 0 || major > UINT32_MAX || minor < 0 || minor > UINT32_MAX) return false;
  device = DeviceNumber{static_cast<std::uint32_t>(major), static_cast<std::uint32_t>(minor)};
  return true;
}

// id parent device root mount-point options [optional ...] - type source super-options
bool parse_mountinfo_line(std::string_view line, MountEntry &entry) noexcept {
  line = trimmed(line);
  std::string_view field[6];
  for (std::string_view &part : field) {
    if (!take_part(line, ' ', part)) return false;
  }
  std::string_view optional;
  do {
    if (!take_part(line, ' ', optional)) return false;
  } while (optional != "-");

  std::string_view type;
  std::string_view source;
  if (!take_part(line, ' ', type) || !take_part(line, ' ', source)) return false;

  if (!parse_device_number(field[2], entry.device)) return false;
  if (!unescape(field[3], entry.root) || !unescape(field[4], entry.mount_point)) return false;
  if (entry.mount_point[0] != '/') return false;
  (void)unescape(type, entry.type);
  (void)unescape(source, entry.source);
  (void)unescape(line, entry.super_options);
  return true;
}

void MountSearch::see_mountinfo_line(std::string_view line) noexcept {
  MountEntry entry;
  if (!parse_mountinfo_line(line, entry)) return;
  const std::string_view mount_point(entry.mount_point);
  if (mount_point.size() < length_ || !lies_under(path_, mount_point)) return;
  entry_ = entry;
  length_ = mount_point.size();
}

MountKind judge_mount(std::string_view type, std::string_view source) noexcept {
  if (type == "tmpfs" || type == "ramfs") return MountKind::memory;
  // zfs names a data set, nfs a host, overlay nothing at all.
  return starts_with(source, "/dev/") ? MountKind::device : MountKind::unknown;
}

}  // namespace sluice
