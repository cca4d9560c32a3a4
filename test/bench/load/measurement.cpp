// SPDX-License-Identifier: PostgreSQL

#include "measurement.hpp"

#include <algorithm>
#include <cinttypes>

#include "core/stats/percentile.hpp"

namespace load {

namespace {

constexpr size_t kExactValues = 10 * 1000 * 1000;

struct Percentile {
  double fraction;
  const char *name;
};
constexpr Percentile kPercentiles[] = {{0.5, "p50_us"},   {0.9, "p90_us"},     {0.95, "p95_us"},
                                       {0.99, "p99_us"}, {0.999, "p999_us"}, {0.9999, "p9999_us"}};

}  // namespace

void Measurement::record(int64_t value_us) {
  const uint64_t value = value_us < 0 ? 0 : static_cast<uint64_t>(value_us);
  histogram_->record_alone(value);
  min_us_ = std::min(min_us_, value);
  if (values_us_.size() < kExactValues)
    values_us_.push_back(static_cast<uint32_t>(std::min<uint64_t>(value, UINT32_MAX)));
}

void Measurement::finish() { std::sort(values_us_.begin(), values_us_.end()); }

double Measurement::mean_us() const {
  return count() == 0 ? 0 : static_cast<double>(histogram_->sum.load()) / static_cast<double>(count());
}

uint64_t Measurement::percentile_us(double fraction) const {
  if (count() == 0) return 0;
  if (count() > values_us_.size()) return histogram_->percentile(fraction);
  return values_us_[sluice::percentile_rank(fraction, values_us_.size()) - 1];
}

void Measurement::print_header(FILE *out, bool csv) {
  fprintf(out, csv ? "%s,%s,%s,%s" : "%-10s %9s %12s %10s", "measure", "count", "mean_us", "min_us");
  for (const Percentile &percentile : kPercentiles) fprintf(out, csv ? ",%s" : " %10s", percentile.name);
  fprintf(out, csv ? ",%s\n" : " %10s\n", "max_us");
}

void Measurement::print(FILE *out, bool csv) const {
  fprintf(out, csv ? "%s,%" PRIu64 ",%.1f,%" PRIu64 : "%-10s %9" PRIu64 " %12.1f %10" PRIu64, name_.c_str(), count(),
          mean_us(), min_us());
  for (const Percentile &percentile : kPercentiles)
    fprintf(out, csv ? ",%" PRIu64 : " %10" PRIu64, percentile_us(percentile.fraction));
  fprintf(out, csv ? ",%" PRIu64 "\n" : " %10" PRIu64 "\n", max_us());
}

void Measurement::print_histogram(FILE *out) const {
  for (size_t bucket = 0; bucket < sluice::kHistogramBuckets; bucket++) {
    const uint64_t count = histogram_->counts[bucket].load();
    if (count == 0) continue;
    fprintf(out, "%s,%" PRIu64 ",%" PRIu64 ",%" PRIu64 "\n", name_.c_str(), sluice::histogram_bucket_low(bucket),
            sluice::histogram_bucket_high(bucket), count);
  }
}

}  // namespace load
