// SPDX-License-Identifier: PostgreSQL
//
// Peaks that are not missed, resets, trends of steady rises, steps and noise, and
// a reader beside a writer.

#include <atomic>
#include <cmath>
#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <thread>

extern "C" {
#include <cmocka.h>
}

#include "core/stats/resource_track.hpp"

namespace {

using sluice::ResourceEra;
using sluice::ResourceHistory;
using sluice::ResourceTrack;

constexpr std::int64_t kSecond = 1'000'000;
constexpr ResourceEra kEra{1, 0};

std::unique_ptr<ResourceTrack> empty_track() {
  auto track = std::make_unique<ResourceTrack>();
  std::memset(static_cast<void *>(track.get()), 0, sizeof(ResourceTrack));
  return track;
}

// The value of each second from `from` on.
template <typename Value>
void sample_seconds(ResourceTrack &track, int from, int count, Value value) {
  for (int second = from; second < from + count; second++) {
    const double now = value(second);
    track.sample(kEra, now, now, second * kSecond, 1000 + second);
  }
}

void an_empty_track_knows_nothing(void **) {
  const auto track = empty_track();
  const ResourceHistory history = track->read(kEra);
  assert_false(history.has_peak);
  assert_false(history.has_trend);
}

void the_peak_is_remembered_with_its_time(void **) {
  const auto track = empty_track();
  sample_seconds(*track, 1, 10, [](int second) { return second == 4 ? 17.0 : second == 7 ? 17.0 : 3.0; });
  const ResourceHistory history = track->read(kEra);
  assert_true(history.has_peak);
  assert_true(history.peak == 17);
  assert_int_equal(history.peak_at, 1004);  // when it was first seen
}

void what_was_higher_between_samples_counts_for_the_peak_only(void **) {
  const auto track = empty_track();
  sample_seconds(*track, 1, 40, [](int) { return 5.0; });
  track->sample(kEra, 5, 12, 41 * kSecond, 2000);
  assert_true(track->read(kEra).peak == 12);
  assert_int_equal(track->read(kEra).peak_at, 2000);
  assert_true(track->read(kEra).trend_per_minute == 0);
}

void raised_numbers_are_not_missed(void **) {
  const auto track = empty_track();
  sample_seconds(*track, 1, 1, [](int) { return 5.0; });
  track->raise(9);
  track->raise(7);
  track->sample(kEra, 5, 5, 2 * kSecond, 2000);
  assert_true(track->read(kEra).peak == 9);
  track->sample(kEra, 5, 5, 3 * kSecond, 3000);
  assert_int_equal(track->read(kEra).peak_at, 2000);
}

void a_peak_of_nothing_is_a_peak(void **) {
  const auto track = empty_track();
  sample_seconds(*track, 1, 2, [](int) { return 0.0; });
  const ResourceHistory history = track->read(kEra);
  assert_true(history.has_peak && history.peak == 0);
  assert_int_equal(history.peak_at, 1001);
}

void a_reset_forgets_the_peak_at_once_and_keeps_the_trend(void **) {
  const auto track = empty_track();
  const ResourceEra later{1, 1};
  sample_seconds(*track, 1, 100, [](int second) { return 1000.0 - second; });
  assert_false(track->read(later).has_peak);
  assert_true(track->read(later).has_trend);
  track->sample(later, 899, 899, 101 * kSecond, 2000);
  assert_true(track->read(later).has_peak && track->read(later).peak == 899);
  assert_true(track->read(later).trend_per_minute < -40);
}

void another_owner_begins_anew(void **) {
  const auto track = empty_track();
  const ResourceEra other{2, 0};
  sample_seconds(*track, 1, 100, [](int second) { return 1000.0 - second; });
  assert_false(track->read(other).has_peak);
  assert_false(track->read(other).has_trend);
  track->sample(other, 3, 3, 101 * kSecond, 2000);
  assert_true(track->read(other).has_peak && track->read(other).peak == 3);
  assert_false(track->read(other).has_trend);
}

void half_a_minute_is_needed_for_a_trend(void **) {
  const auto track = empty_track();
  sample_seconds(*track, 1, 30, [](int second) { return double(second); });
  assert_false(track->read(kEra).has_trend);
  sample_seconds(*track, 31, 1, [](int second) { return double(second); });
  assert_true(track->read(kEra).has_trend);
}

void a_steady_rise_is_measured(void **) {
  for (const int seconds : {40, 120, 600, 3000}) {
    const auto track = empty_track();
    sample_seconds(*track, 1, seconds, [](int second) { return 0.5 * second; });
    assert_true(std::fabs(track->read(kEra).trend_per_minute - 30) < 3);
  }
}

void irregular_samples_do_no_harm(void **) {
  const auto track = empty_track();
  std::int64_t now_us = kSecond;
  for (int i = 0; i < 200; i++) {
    track->sample(kEra, static_cast<double>(now_us) / 2e6, 0, now_us, i);
    now_us += (i % 7 == 0 ? 9 : 1) * kSecond;
  }
  assert_true(std::fabs(track->read(kEra).trend_per_minute - 30) < 5);
}

void a_step_is_no_lasting_rise(void **) {
  const auto track = empty_track();
  const auto step = [](int second) { return second < 600 ? 10.0 : 510.0; };
  sample_seconds(*track, 1, 605, step);
  assert_true(track->read(kEra).trend_per_minute > 20);
  sample_seconds(*track, 606, 120, step);
  assert_true(std::fabs(track->read(kEra).trend_per_minute) < 5);
}

void a_constant_is_steady_and_a_turn_contradicts_itself(void **) {
  const auto constant = empty_track();
  sample_seconds(*constant, 1, 100, [](int) { return 42.0; });
  assert_true(constant->read(kEra).trend_per_minute == 0);
  const auto turn = empty_track();
  sample_seconds(*turn, 1, 330, [](int second) { return second < 300 ? double(second) : 600.0 - second; });
  assert_true(turn->read(kEra).trend_per_minute <= 0);
}

void a_long_pause_begins_the_trend_anew(void **) {
  const auto track = empty_track();
  sample_seconds(*track, 1, 100, [](int second) { return double(second); });
  track->sample(kEra, 5000, 5000, 1000 * kSecond, 5000);
  assert_false(track->read(kEra).has_trend);
  assert_true(track->read(kEra).peak == 5000);
}

void a_sampler_that_died_while_writing_is_passed_over(void **) {
  const auto track = empty_track();
  sample_seconds(*track, 1, 1, [](int) { return 5.0; });
  track->version.fetch_add(1);
  assert_false(track->read(kEra).has_peak);
  sample_seconds(*track, 2, 1, [](int) { return 6.0; });
  assert_true(track->read(kEra).has_peak && track->read(kEra).peak == 6);
}

void a_reader_beside_the_sampler_sees_peaks_with_their_own_time(void **) {
  const auto track = empty_track();
  std::atomic<bool> done{false};
  std::atomic<int> wrong{0};
  std::thread reader([&] {
    while (!done.load()) {
      const ResourceHistory history = track->read(kEra);
      if (history.has_peak && history.peak_at != static_cast<std::int64_t>(history.peak) + 7) wrong++;
    }
  });
  std::thread raiser([&] {
    while (!done.load()) track->raise(1);
  });
  for (int i = 2; i < 100000; i++) {
    track->sample(kEra, i, i, i * 1000, i + 7);
  }
  done.store(true);
  reader.join();
  raiser.join();
  assert_int_equal(wrong.load(), 0);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(an_empty_track_knows_nothing),
      cmocka_unit_test(the_peak_is_remembered_with_its_time),
      cmocka_unit_test(what_was_higher_between_samples_counts_for_the_peak_only),
      cmocka_unit_test(raised_numbers_are_not_missed),
      cmocka_unit_test(a_peak_of_nothing_is_a_peak),
      cmocka_unit_test(a_reset_forgets_the_peak_at_once_and_keeps_the_trend),
      cmocka_unit_test(another_owner_begins_anew),
      cmocka_unit_test(half_a_minute_is_needed_for_a_trend),
      cmocka_unit_test(a_steady_rise_is_measured),
      cmocka_unit_test(irregular_samples_do_no_harm),
      cmocka_unit_test(a_step_is_no_lasting_rise),
      cmocka_unit_test(a_constant_is_steady_and_a_turn_contradicts_itself),
      cmocka_unit_test(a_long_pause_begins_the_trend_anew),
      cmocka_unit_test(a_sampler_that_died_while_writing_is_passed_over),
      cmocka_unit_test(a_reader_beside_the_sampler_sees_peaks_with_their_own_time),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
