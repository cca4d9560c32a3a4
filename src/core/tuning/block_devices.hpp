// SPDX-License-Identifier: PostgreSQL
//
// How many rotating disks lie under the data directory and the tablespaces.
//
// A file system lies on a block device; that may be a partition of another one,
// or be put together (device mapper, md, bcache) from several, which its
// directory `slaves` lists.  A DiskCensus follows these to the leaves, visits
// each device once, and judges the leaves by name, by `queue/rotational`, and by
// what the device says of its maker.
//
// The census asks and is told: take a device from next(), find out its
// DeviceFacts, and hand them to visit(); repeat until next() answers false.
//
// What counts
//   rotational          one spindle
//   solid state         none: a flash device has no arm to wait for
//   memory              none
//   unknown             then the sum is unknown as well, with the reason
// The flag `rotational` of a virtual disk says nothing about the disks behind
// it: virtio reports 1 unless told otherwise, Xen always 0, emulated SCSI disks
// 1, and a RAID controller or a storage network shows one disk where there are
// many.  Saying "unknown" there is better than counting a spindle that may be
// none or forty; the setting sluice.spindles is for those who know.
//
// Not promised: btrfs names one of its devices where it may have several.

#ifndef SLUICE_CORE_TUNING_BLOCK_DEVICES_HPP
#define SLUICE_CORE_TUNING_BLOCK_DEVICES_HPP

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/tuning/mount_table.hpp"
#include "core/tuning/text.hpp"

namespace sluice {

constexpr std::size_t kMaxSlaves = 64;
constexpr std::size_t kMaxDevices = 256;
constexpr std::size_t kCensusReason = 160;  // MachineFacts has room for it and more

// The files of one device under /sys/dev/block/<major>:<minor>.  Empty text: the
// file could not be read.
struct DeviceFacts {
  std::string_view link;        // target of that symbolic link
  std::string_view rotational;  // queue/rotational
  std::string_view vendor;      // device/vendor
  std::string_view model;       // device/model
  std::string_view dm_uuid;     // dm/uuid
  bool is_partition = false;    // has a file `partition`
  bool has_parent = false;      // of a partition: `parent` could be read
  DeviceNumber parent;          // the `dev` of the directory above
  DeviceNumber slaves[kMaxSlaves];
  std::size_t slave_count = 0;
  bool slaves_incomplete = false;  // there are more, or one could not be read
};

enum class DiskKind {
  rotational,
  solid_state,
  memory,
  unreadable,    // no entry in /sys
  virtual_disk,  // the host knows what is behind it
  raid_volume,   // the controller knows
  network_disk,  // the storage network knows
};

// In words, for a reason: "is a virtual disk".
std::string_view disk_kind_phrase(DiskKind kind) noexcept;

constexpr bool spindles_are_unknown(DiskKind kind) noexcept {
  return kind >= DiskKind::unreadable;
}

// Judges a leaf: neither a partition nor put together from others.
DiskKind judge_disk(const DeviceFacts &facts) noexcept;

// "sda1" out of "../../devices/.../block/sda/sda1".
std::string_view device_name(std::string_view link) noexcept;

// About 4 kB large.
class DiskCensus {
 public:
  DiskCensus() noexcept;
  DiskCensus(const DiskCensus &) = delete;  // its writers point into it
  DiskCensus &operator=(const DiskCensus &) = delete;

  // Where to begin: the device of the data directory, of a tablespace.
  void add(DeviceNumber device) noexcept;
  // A place that has no block device, by the type of its file system.
  void add_memory(std::string_view type) noexcept;
  void add_unknown(std::string_view what, std::string_view why) noexcept;

  bool next(DeviceNumber &device) const noexcept;
  void visit(const DeviceFacts &facts) noexcept;  // the one that next() has named

  int spindles() const noexcept { return unknown_ || leaves_ == 0 ? -1 : spindles_; }
  // One line: the leaves, each with what it is; the first unknown one alone.
  std::string_view reason() const noexcept;

 private:
  void count_leaf(std::string_view name, DiskKind kind) noexcept;

  DeviceNumber devices_[kMaxDevices];  // seen; those from visited_ on still to be visited
  std::size_t device_count_ = 0;
  std::size_t visited_ = 0;
  int leaves_ = 0;
  int spindles_ = 0;
  bool unknown_ = false;
  char known_text_[kCensusReason];
  char unknown_text_[kCensusReason];
  TextWriter known_;
  TextWriter unknown_reason_;
};

}  // namespace sluice

#endif
