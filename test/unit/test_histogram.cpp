// SPDX-License-Identifier: PostgreSQL
//
// Buckets without gaps, percentiles that keep their promise, recordings by many.

#include <algorithm>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <csetjmp>
#include <limits>
#include <memory>
#include <random>
#include <thread>
#include <vector>

extern "C" {
#include <cmocka.h>
}

#include "core/stats/histogram.hpp"

namespace {

using sluice::Histogram;
using sluice::HistogramCounts;
using sluice::histogram_bucket;
using sluice::histogram_bucket_high;
using sluice::histogram_bucket_low;
using sluice::kHistogramBuckets;

constexpr std::uint64_t kGreatest = std::numeric_limits<std::uint64_t>::max();
constexpr std::uint64_t kCutOff = std::uint64_t{1} << sluice::kHistogramMaxBits;

std::unique_ptr<Histogram> empty_histogram() {
  auto histogram = std::make_unique<Histogram>();
  histogram->reset();
  return histogram;
}

void buckets_follow_each_other_without_gap(void **) {
  assert_int_equal(histogram_bucket_low(0), 0);
  for (std::size_t bucket = 0; bucket < kHistogramBuckets; bucket++) {
    const std::uint64_t low = histogram_bucket_low(bucket);
    const std::uint64_t high = histogram_bucket_high(bucket);
    assert_true(low <= high);
    assert_int_equal(histogram_bucket(low), bucket);
    assert_int_equal(histogram_bucket(high), bucket);
    if (bucket + 1 < kHistogramBuckets) {
      assert_true(histogram_bucket_low(bucket + 1) == high + 1);
    }
  }
}

void small_values_have_a_bucket_each(void **) {
  for (std::uint64_t value = 0; value < 64; value++) {
    assert_int_equal(histogram_bucket(value), value);
    assert_int_equal(histogram_bucket_high(value), value);
  }
  assert_int_equal(histogram_bucket(64), histogram_bucket(65));
}

void no_bucket_is_wider_than_a_32nd_of_its_values(void **) {
  for (std::size_t bucket = 0; bucket + 1 < kHistogramBuckets; bucket++) {
    const std::uint64_t low = histogram_bucket_low(bucket);
    assert_true((histogram_bucket_high(bucket) - low) * 32 <= low);
  }
}

void values_beyond_the_cut_off_share_the_last_bucket(void **) {
  for (const std::uint64_t value : {kCutOff - 1, kCutOff, kCutOff * 2, kGreatest}) {
    assert_int_equal(histogram_bucket(value), kHistogramBuckets - 1);
  }
  assert_true(histogram_bucket_high(kHistogramBuckets - 1) == kGreatest);
  const auto histogram = empty_histogram();
  histogram->record(3 * kCutOff);
  assert_true(histogram->percentile(0.5) == 3 * kCutOff);
}

void an_empty_histogram_answers_zero(void **) {
  const auto histogram = empty_histogram();
  for (const double fraction : {0.0, 0.5, 1.0}) {
    assert_int_equal(histogram->percentile(fraction), 0);
  }
}

void recording_counts_sums_and_keeps_the_greatest(void **) {
  const auto histogram = empty_histogram();
  for (const std::uint64_t value : {7, 1000, 3}) {
    histogram->record(value);
  }
  assert_int_equal(histogram->total.load(), 3);
  assert_int_equal(histogram->sum.load(), 1010);
  assert_int_equal(histogram->max.load(), 1000);
  assert_int_equal(histogram->counts[histogram_bucket(1000)].load(), 1);
}

void percentiles_of_few_values_are_what_one_expects(void **) {
  const auto histogram = empty_histogram();
  for (std::uint64_t value = 1; value <= 50; value++) {
    histogram->record(value);
    histogram->record(value);
  }
  assert_int_equal(histogram->percentile(0.0), 1);
  assert_int_equal(histogram->percentile(0.01), 1);
  assert_int_equal(histogram->percentile(0.02), 1);
  assert_int_equal(histogram->percentile(0.03), 2);
  assert_int_equal(histogram->percentile(0.07), 4);
  assert_int_equal(histogram->percentile(0.5), 25);
  assert_int_equal(histogram->percentile(0.99), 50);
  assert_int_equal(histogram->percentile(1.0), 50);
}

void rounding_of_the_fraction_does_not_shift_the_rank(void **) {
  // 0.07 * 100 is a little more than 7 as a double.
  const auto histogram = empty_histogram();
  for (int i = 0; i < 100; i++) {
    histogram->record(i < 7 ? 1 : 2);
  }
  assert_int_equal(histogram->percentile(0.07), 1);
  assert_int_equal(histogram->percentile(0.0701), 2);
}

void fractions_out_of_range_are_brought_in(void **) {
  const auto histogram = empty_histogram();
  histogram->record(10);
  histogram->record(20);
  assert_int_equal(histogram->percentile(-1.0), 10);
  assert_int_equal(histogram->percentile(2.0), 20);
  assert_int_equal(histogram->percentile(std::numeric_limits<double>::quiet_NaN()), 10);
}

void percentiles_never_exceed_the_greatest_value(void **) {
  const auto histogram = empty_histogram();
  histogram->record(1000);
  for (const double fraction : {0.0, 0.5, 0.999, 1.0}) {
    assert_int_equal(histogram->percentile(fraction), 1000);
  }
}

void percentiles_are_within_a_64th_of_the_exact_ones(void **) {
  std::mt19937_64 random(99);
  const auto histogram = empty_histogram();
  std::vector<std::uint64_t> values(10000);
  for (std::uint64_t &value : values) {
    value = random() >> (24 + random() % 40);
    histogram->record(value);
  }
  std::sort(values.begin(), values.end());
  for (std::size_t rank = 1; rank <= values.size(); rank += 37) {
    const double fraction = static_cast<double>(rank) / static_cast<double>(values.size());
    const std::uint64_t exact = values[rank - 1];
    const std::uint64_t answer = histogram->percentile(fraction);
    assert_true((answer > exact ? answer - exact : exact - answer) * 64 <= exact);
  }
}

void a_maximum_not_yet_written_does_not_mislead(void **) {
  const auto histogram = empty_histogram();
  histogram->counts[histogram_bucket(1000)].fetch_add(1);  // as seen in the middle of a recording
  const std::size_t bucket = histogram_bucket(1000);
  assert_int_equal(histogram->percentile(0.5), (histogram_bucket_low(bucket) + histogram_bucket_high(bucket)) / 2);
}

void a_lone_writer_records_the_same(void **) {
  const auto one = empty_histogram();
  const auto other = empty_histogram();
  for (std::uint64_t value = 1; value < 1000000; value = value * 3 + 1) {
    one->record(value);
    other->record_alone(value);
  }
  assert_memory_equal(one.get(), other.get(), sizeof(Histogram));
}

void histograms_add_up(void **) {
  const auto one = empty_histogram();
  const auto other = empty_histogram();
  const auto both = empty_histogram();
  for (std::uint64_t value = 1; value < 1000000; value = value * 2 + 1) {
    (value % 3 == 0 ? one : other)->record(value);
    both->record(value);
  }
  HistogramCounts sum;
  sum.add(*one);
  sum.add(*other);
  one->add(*other);
  assert_memory_equal(one.get(), both.get(), sizeof(Histogram));
  for (const double fraction : {0.1, 0.5, 0.9, 0.999, 1.0}) {
    assert_int_equal(sum.percentile(fraction), both->percentile(fraction));
  }
  assert_int_equal(sum.total, both->total.load());
  assert_int_equal(sum.sum, both->sum.load());
}

void a_difference_holds_what_came_since(void **) {
  const auto histogram = empty_histogram();
  histogram->record(10);
  histogram->record(50000);
  HistogramCounts earlier;
  earlier.add(*histogram);
  histogram->record(20);
  histogram->record(30);
  HistogramCounts now;
  now.add(*histogram);
  const HistogramCounts since = now.since(earlier);
  assert_int_equal(since.total, 2);
  assert_int_equal(since.sum, 50);
  assert_int_equal(since.max, 30);
  assert_int_equal(since.percentile(0.5), 20);
  assert_int_equal(earlier.since(now).total, 2);  // a reset in between: all there is
}

void reset_forgets_everything(void **) {
  const auto histogram = empty_histogram();
  histogram->record(5);
  histogram->reset();
  assert_int_equal(histogram->total.load(), 0);
  assert_int_equal(histogram->sum.load(), 0);
  assert_int_equal(histogram->max.load(), 0);
  assert_int_equal(histogram->percentile(1.0), 0);
}

void no_recording_of_many_threads_is_lost(void **) {
  constexpr std::uint64_t kThreads = 4;
  constexpr std::uint64_t kEach = 50000;
  const auto histogram = empty_histogram();
  std::vector<std::thread> threads;
  for (std::uint64_t number = 0; number < kThreads; number++) {
    threads.emplace_back([&histogram, number] {
      for (std::uint64_t i = 0; i < kEach; i++) {
        histogram->record(i * kThreads + number);
      }
    });
  }
  for (std::thread &thread : threads) {
    thread.join();
  }
  constexpr std::uint64_t kAll = kThreads * kEach;
  std::uint64_t counted = 0;
  for (const auto &count : histogram->counts) {
    counted += count.load();
  }
  assert_int_equal(counted, kAll);
  assert_int_equal(histogram->total.load(), kAll);
  assert_int_equal(histogram->sum.load(), kAll * (kAll - 1) / 2);
  assert_int_equal(histogram->max.load(), kAll - 1);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(buckets_follow_each_other_without_gap),
      cmocka_unit_test(small_values_have_a_bucket_each),
      cmocka_unit_test(no_bucket_is_wider_than_a_32nd_of_its_values),
      cmocka_unit_test(values_beyond_the_cut_off_share_the_last_bucket),
      cmocka_unit_test(an_empty_histogram_answers_zero),
      cmocka_unit_test(recording_counts_sums_and_keeps_the_greatest),
      cmocka_unit_test(percentiles_of_few_values_are_what_one_expects),
      cmocka_unit_test(rounding_of_the_fraction_does_not_shift_the_rank),
      cmocka_unit_test(fractions_out_of_range_are_brought_in),
      cmocka_unit_test(percentiles_never_exceed_the_greatest_value),
      cmocka_unit_test(percentiles_are_within_a_64th_of_the_exact_ones),
      cmocka_unit_test(a_maximum_not_yet_written_does_not_mislead),
      cmocka_unit_test(a_lone_writer_records_the_same),
      cmocka_unit_test(histograms_add_up),
      cmocka_unit_test(a_difference_holds_what_came_since),
      cmocka_unit_test(reset_forgets_everything),
      cmocka_unit_test(no_recording_of_many_threads_is_lost),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
