// SPDX-License-Identifier: PostgreSQL
//
// Small texts, cores and CPU quotas, from samples of /proc and /sys.

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <csetjmp>
#include <cstring>
#include <memory>
#include <string>

extern "C" {
#include <cmocka.h>
}

#include "core/tuning/cgroup_quota.hpp"
#include "core/tuning/cpu_topology.hpp"
#include "core/tuning/text.hpp"

using namespace sluice;

namespace {

bool near(double a, double b) {
  return a - b < 1e-9 && b - a < 1e-9;
}

// ---------------------------------------------------------------- texts

void numbers_make_up_the_whole_text(void **) {
  std::int64_t value = 77;
  assert_true(parse_number("12\n", value));
  assert_int_equal(value, 12);
  assert_true(parse_number(" -1 ", value));
  assert_int_equal(value, -1);
  for (const char *garbled : {"", "\n", "12x", "x12", "1 2", "--1", "0x10", "99999999999999999999"}) {
    value = 77;
    assert_false(parse_number(garbled, value));
    assert_int_equal(value, 77);
  }
}

void written_text_is_terminated_and_cut_off_visibly(void **) {
  char small[8];
  TextWriter writer(small, sizeof(small));
  writer.add("abc").add(std::int64_t{-4});
  assert_string_equal(small, "abc-4");
  writer.add("xyz").add("more");
  assert_string_equal(small, "abc-...");

  char exact[4];
  TextWriter(exact, sizeof(exact)).add("abc");
  assert_string_equal(exact, "abc");
}

void written_fractions_have_no_trailing_zeros(void **) {
  const struct {
    double number;
    const char *text;
  } cases[] = {{2, "2"},     {1.5, "1.5"},   {0.25, "0.25"}, {0.05, "0.05"},
               {1.999, "2"}, {-1.5, "-1.5"}, {0, "0"},       {1e300, "?"}};
  for (const auto &one : cases) {
    char text[32];
    TextWriter(text, sizeof(text)).add(one.number);
    assert_string_equal(text, one.text);
  }
}

// ---------------------------------------------------------------- cores

void cpu_lists_are_ranges_and_single_cpus(void **) {
  CpuSet set;
  assert_true(parse_cpu_list("0-3,8,10-11\n", set));
  assert_int_equal(set.count(), 7);
  assert_true(set.contains(0) && set.contains(3) && set.contains(8) && set.contains(10) && set.contains(11));
  assert_false(set.contains(4) || set.contains(9) || set.contains(12) || set.contains(-1) || set.contains(kMaxCpus));
  assert_true(parse_cpu_list("4095", set));
  assert_int_equal(set.count(), 1);
}

void garbled_cpu_lists_change_nothing(void **) {
  CpuSet set;
  set.add(5);
  for (const char *garbled :
       {"", "\n", "a", "1-", "-3", "3-1", "1,,2", "1,", "0-4096", "4096", "1-2-3", "00ff,", "1;2"}) {
    assert_false(parse_cpu_list(garbled, set));
    assert_int_equal(set.count(), 1);
    assert_true(set.contains(5));
  }
}

void threads_of_a_core_count_once(void **) {
  auto counter = std::make_unique<CoreCounter>();
  counter->add(0, "0,4\n", "0", "0");
  counter->add(1, "1,5\n", "0", "1");
  counter->add(4, "0,4\n", "0", "0");
  counter->add(5, "1,5\n", "0", "1");
  assert_int_equal(counter->logical_cpus(), 4);
  assert_int_equal(counter->physical_cores(), 2);
  assert_int_equal(counter->unplaced(), 0);
}

void a_core_with_one_thread_in_the_mask_counts_as_one(void **) {
  auto counter = std::make_unique<CoreCounter>();
  counter->add(4, "0,4", "0", "0");
  counter->add(5, "1,5", "0", "1");
  assert_int_equal(counter->physical_cores(), 2);
}

void without_siblings_package_and_core_tell_cores_apart(void **) {
  auto counter = std::make_unique<CoreCounter>();
  counter->add(0, "", "0\n", "0\n");
  counter->add(1, "garbled", "0\n", "0\n");
  counter->add(2, "", "1\n", "0\n");     // the same core_id in another package
  counter->add(3, "7-9", "1\n", "0\n");  // siblings that do not hold the CPU itself
  assert_int_equal(counter->logical_cpus(), 4);
  assert_int_equal(counter->physical_cores(), 2);
  assert_int_equal(counter->unplaced(), 0);
}

void cpus_without_topology_count_each_and_are_reported(void **) {
  auto counter = std::make_unique<CoreCounter>();
  counter->add(0, "", "", "");
  counter->add(1, "", "0", "");
  counter->add(2, "", "", "0");
  counter->add(3, "", "0", "-1");
  assert_int_equal(counter->physical_cores(), 4);
  assert_int_equal(counter->unplaced(), 4);
}

// ---------------------------------------------------------------- quotas

void cpu_max_is_a_fraction_of_a_period(void **) {
  assert_true(near(parse_cpu_max("150000 100000\n"), 1.5));
  assert_true(near(parse_cpu_max("50000 100000"), 0.5));
  for (const char *none :
       {"max 100000\n", "max", "", "\n", "150000", "150000 0", "0 100000", "-1 100000", "1 2 3", "a b"}) {
    assert_true(parse_cpu_max(none) < 0);
  }
}

void cfs_quota_of_minus_one_is_no_limit(void **) {
  assert_true(near(parse_cfs_quota("250000\n", "100000\n"), 2.5));
  assert_true(parse_cfs_quota("-1\n", "100000\n") < 0);
  assert_true(parse_cfs_quota("", "100000") < 0);
  assert_true(parse_cfs_quota("1000", "") < 0);
}

void smallest_quota_binds(void **) {
  QuotaMinimum minimum;
  assert_true(minimum.cores() < 0);
  minimum.offer(-1);
  assert_true(minimum.cores() < 0);
  minimum.offer(4);
  minimum.offer(-1);
  minimum.offer(1.5);
  minimum.offer(2);
  assert_true(near(minimum.cores(), 1.5));
}

std::string walk(const CgroupHierarchy &hierarchy) {
  char path[kPathLength];
  if (!hierarchy.directory(path)) return "none";
  std::string all = path;
  while (hierarchy.ascend(path)) all = all + " " + path;
  return all;
}

constexpr char kUnified[] = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";

void version_2_is_walked_up_to_its_mount_point(void **) {
  CgroupSearch search;
  search.see_mountinfo_line(kUnified);
  search.see_cgroup_line("0::/system.slice/postgresql.service\n");
  assert_string_equal(walk(search.hierarchy(CgroupVersion::v2)).c_str(),
                      "/sys/fs/cgroup/system.slice/postgresql.service /sys/fs/cgroup/system.slice /sys/fs/cgroup");
  assert_string_equal(walk(search.hierarchy(CgroupVersion::v1)).c_str(), "none");
}

void version_1_is_the_hierarchy_with_the_cpu_controller(void **) {
  CgroupSearch search;
  search.see_mountinfo_line("33 31 0:29 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset");
  search.see_mountinfo_line("34 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct");
  search.see_cgroup_line("5:cpuset:/elsewhere");
  search.see_cgroup_line("4:cpu,cpuacct:/a/b:c");
  assert_string_equal(walk(search.hierarchy(CgroupVersion::v1)).c_str(),
                      "/sys/fs/cgroup/cpu,cpuacct/a/b:c /sys/fs/cgroup/cpu,cpuacct/a /sys/fs/cgroup/cpu,cpuacct");
}

void root_group_is_the_mount_point(void **) {
  CgroupSearch search;
  search.see_mountinfo_line(kUnified);
  search.see_cgroup_line("0::/");
  assert_string_equal(walk(search.hierarchy(CgroupVersion::v2)).c_str(), "/sys/fs/cgroup");
}

void part_of_the_path_that_is_mounted_is_left_out(void **) {
  CgroupSearch search;
  search.see_mountinfo_line("30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw");
  search.see_cgroup_line("0::/docker/abc/inner");
  assert_string_equal(walk(search.hierarchy(CgroupVersion::v2)).c_str(), "/sys/fs/cgroup/inner /sys/fs/cgroup");
}

void groups_outside_what_is_mounted_are_the_mount_point(void **) {
  for (const char *outside : {"0::/../..", "0::/docker/abcd", "0::/other"}) {
    CgroupSearch search;
    search.see_mountinfo_line("30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw");
    search.see_cgroup_line(outside);
    assert_string_equal(walk(search.hierarchy(CgroupVersion::v2)).c_str(), "/sys/fs/cgroup");
  }
}

void garbled_lines_find_no_hierarchy(void **) {
  CgroupSearch search;
  for (const char *line :
       {"", "\n", "garbage", "30 23 0:26 / /sys/fs/cgroup rw", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2",
        "30 23 x / /sys/fs/cgroup rw - cgroup2 cgroup2 rw", "1 2 0:1 / relative rw - cgroup2 c rw",
        "30 23 0:26 / /mnt rw - ext4 /dev/sda1 rw,cpu"}) {
    search.see_mountinfo_line(line);
  }
  for (const char *line : {"", "::", "0:", "0::", "0::relative", "x::/a", "1:cpu"}) search.see_cgroup_line(line);
  assert_string_equal(walk(search.hierarchy(CgroupVersion::v1)).c_str(), "none");
  assert_string_equal(walk(search.hierarchy(CgroupVersion::v2)).c_str(), "none");
}

void paths_that_do_not_fit_are_not_followed(void **) {
  CgroupSearch search;
  search.see_mountinfo_line("30 23 0:26 / /" + std::string(900, 'm') + " rw - cgroup2 cgroup2 rw");
  search.see_cgroup_line("0::/" + std::string(900, 'g'));
  assert_string_equal(walk(search.hierarchy(CgroupVersion::v2)).c_str(), "none");
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(numbers_make_up_the_whole_text),
      cmocka_unit_test(written_text_is_terminated_and_cut_off_visibly),
      cmocka_unit_test(written_fractions_have_no_trailing_zeros),
      cmocka_unit_test(cpu_lists_are_ranges_and_single_cpus),
      cmocka_unit_test(garbled_cpu_lists_change_nothing),
      cmocka_unit_test(threads_of_a_core_count_once),
      cmocka_unit_test(a_core_with_one_thread_in_the_mask_counts_as_one),
      cmocka_unit_test(without_siblings_package_and_core_tell_cores_apart),
      cmocka_unit_test(cpus_without_topology_count_each_and_are_reported),
      cmocka_unit_test(cpu_max_is_a_fraction_of_a_period),
      cmocka_unit_test(cfs_quota_of_minus_one_is_no_limit),
      cmocka_unit_test(smallest_quota_binds),
      cmocka_unit_test(version_2_is_walked_up_to_its_mount_point),
      cmocka_unit_test(version_1_is_the_hierarchy_with_the_cpu_controller),
      cmocka_unit_test(root_group_is_the_mount_point),
      cmocka_unit_test(part_of_the_path_that_is_mounted_is_left_out),
      cmocka_unit_test(groups_outside_what_is_mounted_are_the_mount_point),
      cmocka_unit_test(garbled_lines_find_no_hierarchy),
      cmocka_unit_test(paths_that_do_not_fit_are_not_followed),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
