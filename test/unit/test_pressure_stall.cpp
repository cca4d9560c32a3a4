// SPDX-License-Identifier: PostgreSQL
//
// Pressure stall information, load averages and memory, as texts of the kernel.

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <csetjmp>

extern "C" {
#include <cmocka.h>
}

#include "core/tuning/pressure_stall.hpp"

using namespace sluice;

namespace {

bool near(double a, double b) {
  return a - b < 1e-9 && b - a < 1e-9;
}

constexpr std::string_view kBoth =
    "some avg10=12.34 avg60=0.28 avg300=1.68 total=5396170319\n"
    "full avg10=3.00 avg60=0.07 avg300=100.00 total=9223372036854775807\n";

void both_lines_are_read(void **) {
  PressureStall stall;
  assert_true(parse_pressure_stall(kBoth, stall));
  assert_true(stall.some.known() && stall.full.known());
  assert_true(near(stall.some.avg10, 12.34) && near(stall.some.avg60, 0.28) && near(stall.some.avg300, 1.68));
  assert_true(stall.some.total_us == 5396170319);
  assert_true(near(stall.full.avg10, 3) && near(stall.full.avg60, 0.07) && near(stall.full.avg300, 100));
  assert_true(stall.full.total_us == INT64_MAX);
}

void a_file_without_full_is_complete(void **) {
  PressureStall stall;
  assert_true(parse_pressure_stall("some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", stall));
  assert_true(stall.some.known());
  assert_false(stall.full.known());
  assert_true(parse_pressure_stall("some avg10=7 avg60=8 avg300=9 total=1", stall));  // no line end, no decimals
  assert_true(near(stall.some.avg10, 7));
}

void the_order_of_the_lines_does_not_matter(void **) {
  PressureStall stall;
  assert_true(
      parse_pressure_stall("full avg10=1.00 avg60=1.00 avg300=1.00 total=1\n"
                           "irq avg10=x\n\n"
                           "some avg10=2.00 avg60=2.00 avg300=2.00 total=2\n",
                           stall));
  assert_true(near(stall.full.avg10, 1) && near(stall.some.avg10, 2));
}

void malformed_pressure_is_unknown(void **) {
  for (const std::string_view text : {
           "",
           "\n",
           "garbage",
           "some",
           "some ",
           "some avg10=",
           "some avg10=1.00",
           "full avg10=1 avg60=1 avg300=1 total=1",
           "some avg10=1.00 avg60=1.00 avg300=1.00",
           "some avg10=1.00 avg60=1.00 avg300=1.00 total=",
           "some avg10=1.00 avg60=1.00 avg300=1.00 total=x",
           "some avg10=1.00 avg60=1.00 avg300=1.00 total=-1",
           "some avg10=-1.00 avg60=1.00 avg300=1.00 total=1",
           "some avg10=1,00 avg60=1.00 avg300=1.00 total=1",
           "some avg10=1. avg60=1.00 avg300=1.00 total=1",
           "some avg10=.5 avg60=1.00 avg300=1.00 total=1",
           "some avg10=nan avg60=1.00 avg300=1.00 total=1",
           "some avg10=1e9 avg60=1.00 avg300=1.00 total=1",
           "some avg60=1.00 avg10=1.00 avg300=1.00 total=1",
           "some avg10=1.00  avg60=1.00 avg300=1.00 total=1",
           "some avg10=9999999999999999.0 avg60=1.00 avg300=1.00 total=1",
           "some avg10=1.00 avg60=1.00 avg300=1.00 total=99999999999999999999",
           "some avg10=1.00 avg60=1.00 avg300=1.00 total=1\nfull avg10=?",
       }) {
    PressureStall stall;
    stall.some.avg10 = 42;
    assert_false(parse_pressure_stall(text, stall));
    assert_true(near(stall.some.avg10, 42));
    assert_false(stall.full.known());
  }
}

void load_average_is_read(void **) {
  LoadAverage load;
  assert_true(parse_load_average("0.10 10.21 0.94 3/87 7289\n", load));
  assert_true(near(load.load1, 0.1) && near(load.load5, 10.21) && near(load.load15, 0.94));
  assert_true(load.runnable == 3 && load.tasks == 87);
}

void malformed_load_average_is_unknown(void **) {
  for (const std::string_view text :
       {"", "garbage", "0.1 0.2", "0.1 0.2 0.3", "0.1 0.2 0.3 4", "0.1 0.2 0.3 4/", "0.1 0.2 0.3 /4", "0.1 0.2 x 1/2 3",
        "-0.1 0.2 0.3 1/2 3", "0.1 0.2 0.3 -1/2 3"}) {
    LoadAverage load;
    assert_false(parse_load_average(text, load));
    assert_true(load.load1 < 0 && load.runnable < 0 && load.tasks < 0);
  }
}

void memory_is_read_in_bytes(void **) {
  MemoryInfo memory;
  memory.see_line("MemTotal:       16314560 kB");
  memory.see_line("MemFree:         1000000 kB");
  assert_true(memory.available_bytes < 0);  // kernels before 3.14 have nothing more
  memory.see_line("MemAvailable:    8000000 kB");
  memory.see_line("MemTotalX:             1 kB");
  assert_true(memory.total_bytes == std::int64_t{16314560} * 1024);
  assert_true(memory.available_bytes == std::int64_t{8000000} * 1024);
}

void malformed_memory_is_unknown(void **) {
  for (const std::string_view line : {"", "MemTotal", "MemTotal:", "MemTotal: kB", "MemTotal: 12", "MemTotal: 12 MB",
                                      "MemTotal: x kB", "MemTotal: -1 kB", "MemTotal: 9223372036854775807 kB"}) {
    MemoryInfo memory;
    memory.see_line(line);
    assert_true(memory.total_bytes < 0);
    assert_true(memory.available_bytes < 0);
  }
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(both_lines_are_read),
      cmocka_unit_test(a_file_without_full_is_complete),
      cmocka_unit_test(the_order_of_the_lines_does_not_matter),
      cmocka_unit_test(malformed_pressure_is_unknown),
      cmocka_unit_test(load_average_is_read),
      cmocka_unit_test(malformed_load_average_is_unknown),
      cmocka_unit_test(memory_is_read_in_bytes),
      cmocka_unit_test(malformed_memory_is_unknown),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
