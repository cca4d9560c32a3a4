// SPDX-License-Identifier: PostgreSQL
//
// Mounts and disks, from samples of /proc/self/mountinfo and /sys/dev/block.

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <csetjmp>
#include <cstring>
#include <string>
#include <vector>

extern "C" {
#include <cmocka.h>
}

#include "core/tuning/block_devices.hpp"
#include "core/tuning/mount_table.hpp"

using namespace sluice;

namespace {

// ---------------------------------------------------------------- mounts

void device_numbers_are_two_numbers(void **) {
  DeviceNumber device{9, 9};
  assert_true(parse_device_number("8:17\n", device));
  assert_int_equal(device.major, 8);
  assert_int_equal(device.minor, 17);
  for (const char *garbled : {"", "8", "8:", ":17", "8:17:1", "a:b", "-1:2", "8:4294967296"}) {
    assert_false(parse_device_number(garbled, device));
    assert_int_equal(device.minor, 17);
  }
}

void mount_lines_have_any_number_of_optional_fields(void **) {
  MountEntry entry;
  assert_true(parse_mountinfo_line(
      "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue", entry));
  assert_int_equal(entry.device.major, 98);
  assert_string_equal(entry.root, "/mnt1");
  assert_string_equal(entry.mount_point, "/mnt2");
  assert_string_equal(entry.type, "ext3");
  assert_string_equal(entry.source, "/dev/root");
  assert_string_equal(entry.super_options, "rw,errors=continue");
  assert_true(parse_mountinfo_line("27 1 254:0 / / rw - ext4 /dev/vda rw", entry));
  assert_string_equal(entry.mount_point, "/");
}

void mount_lines_have_blanks_escaped(void **) {
  MountEntry entry;
  assert_true(parse_mountinfo_line("1 2 8:1 / /my\\040data\\134x rw - ext4 /dev/a\\040b rw", entry));
  assert_string_equal(entry.mount_point, "/my data\\x");
  assert_string_equal(entry.source, "/dev/a b");
  assert_true(parse_mountinfo_line("1 2 8:1 / /odd\\04 rw - ext4 s rw", entry));
  assert_string_equal(entry.mount_point, "/odd\\04");
}

void garbled_mount_lines_are_no_entries(void **) {
  MountEntry entry;
  for (const char *garbled : {"", "1", "1 2 8:1 / /data rw", "1 2 8:1 / /data rw shared:1", "1 2 8:1 / /data rw -",
                              "1 2 8:1 / /data rw - ext4", "1 2 nope / /data rw - ext4 s rw"}) {
    assert_false(parse_mountinfo_line(garbled, entry));
  }
  assert_false(parse_mountinfo_line("1 2 8:1 / /" + std::string(2000, 'x') + " rw - ext4 s rw", entry));
  assert_true(
      parse_mountinfo_line("1 2 0:1 / /merged rw - overlay overlay rw,lowerdir=" + std::string(9000, 'x'), entry));
  assert_string_equal(entry.type, "overlay");
}

std::string mount_of(const char *path) {
  MountSearch search(path);
  for (const char *line : {"1 0 8:1 / / rw - ext4 /dev/sda1 rw", "2 1 0:5 / /srv rw - btrfs /dev/sdb rw", "garbage",
                           "3 2 0:6 / /srv/data rw - tmpfs tmpfs rw", "4 2 0:7 / /srv/data rw - nfs4 host:/x rw",
                           "5 1 8:3 / /srv/database rw - xfs /dev/sdc rw"}) {
    search.see_mountinfo_line(line);
  }
  return search.found() ? search.entry().type : "none";
}

void a_path_lies_on_the_longest_mount_point_above_it(void **) {
  assert_string_equal(mount_of("/home/x").c_str(), "ext4");
  assert_string_equal(mount_of("/srv").c_str(), "btrfs");
  assert_string_equal(mount_of("/srv/dat").c_str(), "btrfs");
  assert_string_equal(mount_of("/srv/database/15").c_str(), "xfs");
  assert_false(MountSearch("/").found());
}

void a_later_mount_hides_an_earlier_one(void **) {
  assert_string_equal(mount_of("/srv/data/15").c_str(), "nfs4");
}

void mounts_are_judged_by_type_and_source(void **) {
  assert_true(judge_mount("tmpfs", "tmpfs") == MountKind::memory);
  assert_true(judge_mount("btrfs", "/dev/sdb") == MountKind::device);
  for (const char *type : {"nfs4", "overlay", "zfs", "9p", "virtiofs"}) {
    assert_true(judge_mount(type, "pool/data") == MountKind::unknown);
  }
}

// ---------------------------------------------------------------- single disks

constexpr char kSataPath[] = "../../devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda";

DeviceFacts disk(std::string_view link, std::string_view rotational) {
  DeviceFacts facts;
  facts.link = link;
  facts.rotational = rotational;
  return facts;
}

DiskKind judge(std::string_view link, std::string_view rotational, std::string_view vendor = "",
               std::string_view model = "") {
  DeviceFacts facts = disk(link, rotational);
  facts.vendor = vendor;
  facts.model = model;
  return judge_disk(facts);
}

void real_disks_are_what_they_say(void **) {
  assert_true(judge(kSataPath, "1\n", "ATA     \n", "WDC WD40EFRX-68N\n") == DiskKind::rotational);
  assert_true(judge(kSataPath, "0\n", "ATA     \n", "Samsung SSD 860\n") == DiskKind::solid_state);
  assert_true(judge("../../devices/pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n1", "0") == DiskKind::solid_state);
  assert_true(judge("../../devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1", "0") == DiskKind::solid_state);
  assert_true(judge("../../devices/platform/mmc/mmcblk0", "0") == DiskKind::solid_state);
}

void disks_that_rotate_virtually_are_unknown(void **) {
  assert_true(judge("../../devices/pci0000:00/0000:00:02.0/virtio1/block/vda", "1\n") == DiskKind::virtual_disk);
  assert_true(judge("../../devices/pci0000:00/virtio0/host0/target0:0:0/0:0:0:0/block/sda", "1") ==
              DiskKind::virtual_disk);
  assert_true(judge("../../devices/virtual/block/loop0", "1\n") == DiskKind::virtual_disk);
  assert_true(judge("../../devices/virtual/block/zd0", "1\n") == DiskKind::virtual_disk);
  assert_true(judge(kSataPath, "1", "QEMU", "QEMU HARDDISK") == DiskKind::virtual_disk);
  assert_true(judge(kSataPath, "1", "VMware", "Virtual disk") == DiskKind::virtual_disk);
  assert_true(judge(kSataPath, "1", "ATA", "VBOX HARDDISK") == DiskKind::virtual_disk);
  assert_true(judge(kSataPath, "1", "Msft", "Virtual Disk") == DiskKind::virtual_disk);
  assert_true(judge(kSataPath, "1", "Google", "PersistentDisk") == DiskKind::virtual_disk);
}

void a_virtio_disk_that_was_told_not_to_rotate_is_believed(void **) {
  assert_true(judge("../../devices/pci0000:00/0000:00:02.0/virtio1/block/vda", "0\n") == DiskKind::solid_state);
}

void a_xen_disk_is_never_believed(void **) {
  assert_true(judge("../../devices/vbd-51712/block/xvda", "0") == DiskKind::virtual_disk);
  assert_true(judge("../../devices/vbd-51712/block/xvda", "1") == DiskKind::virtual_disk);
}

void controllers_and_networks_hide_their_disks(void **) {
  assert_true(judge(kSataPath, "1", "DELL", "PERC H730 Mini") == DiskKind::raid_volume);
  assert_true(judge(kSataPath, "1", "HP", "LOGICAL VOLUME") == DiskKind::raid_volume);
  assert_true(judge("../../devices/platform/host3/session1/target3:0:0/3:0:0:0/block/sdb", "1") ==
              DiskKind::network_disk);
  assert_true(judge("../../devices/pci0/host7/rport-7:0-2/target7:0:0/7:0:0:1/block/sdc", "1") ==
              DiskKind::network_disk);
  assert_true(judge("../../devices/virtual/block/nbd0", "0") == DiskKind::network_disk);
  assert_true(judge("../../devices/rbd/0/block/rbd0", "0") == DiskKind::network_disk);
}

void memory_has_no_spindles(void **) {
  assert_true(judge("../../devices/virtual/block/zram0", "0") == DiskKind::memory);
  assert_true(judge("../../devices/virtual/block/ram3", "1") == DiskKind::memory);
}

void what_cannot_be_read_is_unreadable(void **) {
  assert_true(judge("", "1") == DiskKind::unreadable);
  assert_true(judge(kSataPath, "") == DiskKind::unreadable);
  assert_true(judge(kSataPath, "maybe") == DiskKind::unreadable);
}

// ---------------------------------------------------------------- the census

struct Device {
  DeviceNumber number;
  DeviceFacts facts;
};

void take(DiskCensus &census, const std::vector<Device> &devices) {
  DeviceNumber number;
  while (census.next(number)) {
    DeviceFacts facts;  // of a device /sys does not have
    for (const Device &device : devices) {
      if (device.number == number) facts = device.facts;
    }
    census.visit(facts);
  }
}

std::string reason_of(const DiskCensus &census) {
  return std::string(census.reason());
}

DeviceFacts partition(std::string_view link, DeviceNumber parent) {
  DeviceFacts facts = disk(link, "");
  facts.is_partition = true;
  facts.has_parent = true;
  facts.parent = parent;
  return facts;
}

DeviceFacts stack(std::string_view link, const std::vector<DeviceNumber> &slaves) {
  DeviceFacts facts = disk(link, "1");
  for (const DeviceNumber &slave : slaves) facts.slaves[facts.slave_count++] = slave;
  return facts;
}

void a_partition_leads_to_its_disk(void **) {
  DiskCensus census;
  census.add({8, 1});
  take(census, {{{8, 0}, disk("../../x/block/sda", "1")}, {{8, 1}, partition("../../x/block/sda/sda1", {8, 0})}});
  assert_int_equal(census.spindles(), 1);
  assert_string_equal(reason_of(census).c_str(), "sda is rotational");
}

void lvm_on_raid_on_partitions_leads_to_all_disks(void **) {
  DiskCensus census;
  census.add({253, 0});
  take(census, {{{253, 0}, stack("../../devices/virtual/block/dm-0", {{9, 0}})},
                {{9, 0}, stack("../../devices/virtual/block/md0", {{8, 1}, {8, 17}, {8, 33}})},
                {{8, 1}, partition("../../x/block/sda/sda1", {8, 0})},
                {{8, 17}, partition("../../x/block/sdb/sdb1", {8, 16})},
                {{8, 33}, partition("../../x/block/sdc/sdc1", {8, 32})},
                {{8, 0}, disk("../../x/block/sda", "1")},
                {{8, 16}, disk("../../x/block/sdb", "1")},
                {{8, 32}, disk("../../x/block/sdc", "0")}});
  assert_int_equal(census.spindles(), 2);
  assert_string_equal(reason_of(census).c_str(), "sda is rotational, sdb is rotational, sdc is not rotational");
}

void a_disk_shared_by_several_places_counts_once(void **) {
  DiskCensus census;
  census.add({8, 1});
  census.add({8, 2});
  census.add({8, 1});
  take(census, {{{8, 0}, disk("../../x/block/sda", "1")},
                {{8, 1}, partition("../../x/block/sda/sda1", {8, 0})},
                {{8, 2}, partition("../../x/block/sda/sda2", {8, 0})}});
  assert_int_equal(census.spindles(), 1);
}

void paths_of_a_multipath_device_count_once(void **) {
  DeviceFacts multipath = stack("../../devices/virtual/block/dm-1", {{8, 0}, {8, 16}});
  multipath.dm_uuid = "mpath-3600508b\n";
  DiskCensus census;
  census.add({253, 1});
  take(census,
       {{{253, 1}, multipath}, {{8, 0}, disk("../../x/block/sda", "1")}, {{8, 16}, disk("../../x/block/sdb", "1")}});
  assert_int_equal(census.spindles(), 1);
}

void devices_that_contain_each_other_end(void **) {
  DiskCensus census;
  census.add({253, 0});
  take(census, {{{253, 0}, stack("../../devices/virtual/block/dm-0", {{253, 1}})},
                {{253, 1}, stack("../../devices/virtual/block/dm-1", {{253, 0}})}});
  assert_int_equal(census.spindles(), -1);
}

void one_unknown_disk_makes_the_sum_unknown(void **) {
  DiskCensus census;
  census.add({8, 0});
  census.add({254, 0});
  take(census, {{{8, 0}, disk("../../x/block/sda", "1")}, {{254, 0}, disk("../../devices/virtio1/block/vda", "1")}});
  assert_int_equal(census.spindles(), -1);
  assert_string_equal(reason_of(census).c_str(), "unknown: vda is a virtual disk");
}

void solid_state_and_memory_are_zero_spindles(void **) {
  DiskCensus census;
  census.add({259, 0});
  census.add_memory("tmpfs");
  take(census, {{{259, 0}, disk("../../x/nvme/nvme0/nvme0n1", "0")}});
  assert_int_equal(census.spindles(), 0);
  assert_string_equal(reason_of(census).c_str(), "tmpfs is memory, nvme0n1 is not rotational");
}

void a_missing_sys_is_unknown_with_the_device_number(void **) {
  DiskCensus census;
  census.add({8, 1});
  take(census, {});
  assert_int_equal(census.spindles(), -1);
  assert_string_equal(reason_of(census).c_str(), "unknown: device 8:1 cannot be looked up in /sys");
}

void an_incomplete_stack_is_unknown(void **) {
  DeviceFacts raid = stack("../../devices/virtual/block/md0", {{8, 0}});
  raid.slaves_incomplete = true;
  DiskCensus census;
  census.add({9, 0});
  take(census, {{{9, 0}, raid}, {{8, 0}, disk("../../x/block/sda", "1")}});
  assert_int_equal(census.spindles(), -1);

  DeviceFacts orphan = partition("../../x/block/sda/sda1", {0, 0});
  orphan.has_parent = false;
  DiskCensus other;
  other.add({8, 1});
  take(other, {{{8, 1}, orphan}});
  assert_int_equal(other.spindles(), -1);
  assert_string_equal(reason_of(other).c_str(), "unknown: sda1 is a partition of a disk that cannot be read");
}

void nothing_at_all_is_unknown(void **) {
  DiskCensus census;
  assert_int_equal(census.spindles(), -1);
  assert_string_equal(reason_of(census).c_str(), "unknown: no block device was found");
  census.visit(DeviceFacts{});  // nothing was asked for
  assert_int_equal(census.spindles(), -1);
}

void more_devices_than_fit_are_unknown(void **) {
  DiskCensus census;
  for (std::uint32_t i = 0; i <= kMaxDevices; ++i) census.add({8, i});
  DeviceNumber number;
  while (census.next(number)) census.visit(disk("../../x/block/sda", "1"));
  assert_int_equal(census.spindles(), -1);
  assert_true(census.reason().size() < kCensusReason);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(device_numbers_are_two_numbers),
      cmocka_unit_test(mount_lines_have_any_number_of_optional_fields),
      cmocka_unit_test(mount_lines_have_blanks_escaped),
      cmocka_unit_test(garbled_mount_lines_are_no_entries),
      cmocka_unit_test(a_path_lies_on_the_longest_mount_point_above_it),
      cmocka_unit_test(a_later_mount_hides_an_earlier_one),
      cmocka_unit_test(mounts_are_judged_by_type_and_source),
      cmocka_unit_test(real_disks_are_what_they_say),
      cmocka_unit_test(disks_that_rotate_virtually_are_unknown),
      cmocka_unit_test(a_virtio_disk_that_was_told_not_to_rotate_is_believed),
      cmocka_unit_test(a_xen_disk_is_never_believed),
      cmocka_unit_test(controllers_and_networks_hide_their_disks),
      cmocka_unit_test(memory_has_no_spindles),
      cmocka_unit_test(what_cannot_be_read_is_unreadable),
      cmocka_unit_test(a_partition_leads_to_its_disk),
      cmocka_unit_test(lvm_on_raid_on_partitions_leads_to_all_disks),
      cmocka_unit_test(a_disk_shared_by_several_places_counts_once),
      cmocka_unit_test(paths_of_a_multipath_device_count_once),
      cmocka_unit_test(devices_that_contain_each_other_end),
      cmocka_unit_test(one_unknown_disk_makes_the_sum_unknown),
      cmocka_unit_test(solid_state_and_memory_are_zero_spindles),
      cmocka_unit_test(a_missing_sys_is_unknown_with_the_device_number),
      cmocka_unit_test(an_incomplete_stack_is_unknown),
      cmocka_unit_test(nothing_at_all_is_unknown),
      cmocka_unit_test(more_devices_than_fit_are_unknown),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
