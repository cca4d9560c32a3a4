// SPDX-License-Identifier: PostgreSQL
//
// The values of one measure, in microseconds.  Up to ten million are kept, and their percentiles are exact; beyond that
// percentiles come from the same histogram the extension uses (off by at most 1.6 percent), which has the log-linear
// buckets of HdrHistogram; that library's C version is not packaged for Debian 12.

#ifndef SLUICE_BENCH_LOAD_MEASUREMENT_HPP
#define SLUICE_BENCH_LOAD_MEASUREMENT_HPP

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "core/stats/histogram.hpp"

namespace load {

class Measurement {
 public:
  explicit Measurement(const std::string &name) : name_(name), histogram_(new sluice::Histogram()) {
    histogram_->reset();
  }

  // A value below 0 counts as 0: the clocks of two processes were read a moment apart.
  void record(int64_t value_us);

  // To be called once, when all is recorded: percentiles need the values in order.
  void finish();

  const std::string &name() const { return name_; }
  uint64_t count() const { return histogram_->total.load(); }
  uint64_t max_us() const { return histogram_->max.load(); }
  uint64_t min_us() const { return count() == 0 ? 0 : min_us_; }
  double mean_us() const;
  // The least value that at least `fraction` (0..1) of all do not exceed.
  uint64_t percentile_us(double fraction) const;

  static void print_header(FILE *out, bool csv);
  void print(FILE *out, bool csv) const;
  // A line "measure,low_us,high_us,count" for each bucket that is not empty.
  void print_histogram(FILE *out) const;

 private:
  std::string name_;
  uint64_t min_us_ = UINT64_MAX;
  std::vector<uint32_t> values_us_;
  std::unique_ptr<sluice::Histogram> histogram_;
};

}  // namespace load

#endif
