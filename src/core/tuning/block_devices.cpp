// SPDX-License-Identifier: PostgreSQL
//
// Disks under a file system: see block_devices.hpp.

#include "core/tuning/block_devices.hpp"

namespace sluice {

namespace {

// A device name is a prefix of letters, then a digit or another letter ("vda",
// "xvdb", "nbd0"): longer prefixes stand before the shorter ones they contain.
struct NameRule {
  std::string_view prefix;
  DiskKind kind;
};

constexpr NameRule kNameRules[] = {
    {"nvme", DiskKind::solid_state},    // also over fabrics: nobody puts rotating disks behind it
    {"mmcblk", DiskKind::solid_state},  // flash cards
    {"pmem", DiskKind::memory},        {"zram", DiskKind::memory},       {"ram", DiskKind::memory},
    {"xvd", DiskKind::virtual_disk},   {"loop", DiskKind::virtual_disk}, {"dasd", DiskKind::virtual_disk},
    {"nbd", DiskKind::network_disk},   {"rbd", DiskKind::network_disk},  {"drbd", DiskKind::network_disk},
};

// What makers say of themselves (vendor and model as SCSI reports them).
struct MakerRule {
  std::string_view part;
  DiskKind kind;
};

constexpr MakerRule kMakerRules[] = {
    {"QEMU", DiskKind::virtual_disk},          {"VMware", DiskKind::virtual_disk},  {"VBOX", DiskKind::virtual_disk},
    {"Virtual", DiskKind::virtual_disk},  // "Msft Virtual Disk"
    {"Google", DiskKind::virtual_disk},        {"Xen", DiskKind::virtual_disk},     {"PERC", DiskKind::raid_volume},
    {"LOGICAL VOLUME", DiskKind::raid_volume}, {"MegaRAID", DiskKind::raid_volume}, {"RAID", DiskKind::raid_volume},
    {"AVAGO", DiskKind::raid_volume},          {"Adaptec", DiskKind::raid_volume},  {"iSCSI", DiskKind::network_disk},
    {"LIO-ORG", DiskKind::network_disk},
};

}  // namespace

std::string_view disk_kind_phrase(DiskKind kind) noexcept {
  switch (kind) {
    case DiskKind::rotational:
      return "is rotational";
    case DiskKind::solid_state:
      return "is not rotational";
    case DiskKind::memory:
      return "is memory";
    case DiskKind::unreadable:
      return "cannot be looked up in /sys";
    case DiskKind::virtual_disk:
      return "is a virtual disk";
    case DiskKind::raid_volume:
      return "is a volume of a RAID controller";
    case DiskKind::network_disk:
      return "is a disk of a storage network";
  }
  return "";
}

std::string_view device_name(std::string_view link) noexcept {
  const std::size_t slash = link.rfind('/');
  return slash == std::string_view::npos ? link : link.substr(slash + 1);
}

DiskKind judge_disk(const DeviceFacts &facts) noexcept {
  const std::string_view name = device_name(trimmed(facts.link));
  if (name.empty()) return DiskKind::unreadable;
  for (const NameRule &rule : kNameRules) {
    if (starts_with(name, rule.prefix)) return rule.kind;
  }

  std::int64_t rotational = 0;
  if (!parse_number(facts.rotational, rotational)) return DiskKind::unreadable;
  if (rotational == 0) return DiskKind::solid_state;

  if (starts_with(name, "vd") || contains(facts.link, "/virtual/") || contains(facts.link, "/virtio")) {
    return DiskKind::virtual_disk;
  }
  for (const MakerRule &rule : kMakerRules) {
    if (contains(facts.vendor, rule.part) || contains(facts.model, rule.part)) return rule.kind;
  }
  // The bus of a SCSI disk stands in its path: iSCSI has sessions, Fibre Channel remote ports.
  if (contains(facts.link, "/session") || contains(facts.link, "/rport-")) return DiskKind::network_disk;
  return DiskKind::rotational;
}

DiskCensus::DiskCensus() noexcept
    : known_(known_text_, sizeof(known_text_)), unknown_reason_(unknown_text_, sizeof(unknown_text_)) {}

void DiskCensus::add(DeviceNumber device) noexcept {
  for (std::size_t i = 0; i < device_count_; ++i) {
    if (devices_[i] == device) return;
  }
  if (device_count_ == kMaxDevices) {
    add_unknown("the storage", "has more block devices than can be followed");
    return;
  }
  devices_[device_count_++] = device;
}

void DiskCensus::add_memory(std::string_view type) noexcept {
  count_leaf(type, DiskKind::memory);
}

void DiskCensus::add_unknown(std::string_view what, std::string_view why) noexcept {
  if (!unknown_) unknown_reason_.add("unknown: ").add(what).add(" ").add(why);
  unknown_ = true;
}

bool DiskCensus::next(DeviceNumber &device) const noexcept {
  if (visited_ == device_count_) return false;
  device = devices_[visited_];
  return true;
}

void DiskCensus::visit(const DeviceFacts &facts) noexcept {
  if (visited_ == device_count_) return;
  const DeviceNumber device = devices_[visited_++];
  const std::string_view name = device_name(trimmed(facts.link));

  if (facts.slave_count > 0) {
    // The paths of a multipath device all lead to one disk: one of them is enough.
    const bool multipath = starts_with(facts.dm_uuid, "mpath-");
    if (facts.slaves_incomplete && !multipath) add_unknown(name, "is made of devices that cannot all be read");
    const std::size_t count = multipath ? 1 : facts.slave_count;
    for (std::size_t i = 0; i < count && i < kMaxSlaves; ++i) add(facts.slaves[i]);
    return;
  }
  if (facts.slaves_incomplete) {
    add_unknown(name, "is made of devices that cannot be read");
    return;
  }
  if (facts.is_partition) {
    if (facts.has_parent) {
      add(facts.parent);
    } else {
      add_unknown(name, "is a partition of a disk that cannot be read");
    }
    return;
  }
  if (name.empty()) {
    char number[48];
    TextWriter writer(number, sizeof(number));
    writer.add("device ").add(std::int64_t{device.major}).add(":").add(std::int64_t{device.minor});
    count_leaf(writer.text(), DiskKind::unreadable);
    return;
  }
  count_leaf(name, judge_disk(facts));
}

void DiskCensus::count_leaf(std::string_view name, DiskKind kind) noexcept {
  if (spindles_are_unknown(kind)) {
    add_unknown(name, disk_kind_phrase(kind));
    return;
  }
  if (leaves_ > 0) known_.add(", ");
  known_.add(name).add(" ").add(disk_kind_phrase(kind));
  ++leaves_;
  if (kind == DiskKind::rotational) ++spindles_;
}

std::string_view DiskCensus::reason() const noexcept {
  if (unknown_) return unknown_reason_.text();
  if (leaves_ == 0) return "unknown: no block device was found";
  return known_.text();
}

}  // namespace sluice
