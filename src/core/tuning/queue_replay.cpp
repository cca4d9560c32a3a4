// SPDX-License-Identifier: PostgreSQL
//
// The replay: see queue_replay.hpp.
//
// The backends stand in a binary heap, the one that is free first on top; a lease
// replaces the top.  First come first served means that leases begin in the order
// in which they arrived, so those that wait at any moment are neighbours: one
// index that only grows finds the length of the queue.

#include "core/tuning/queue_replay.hpp"

#include <algorithm>
#include <cmath>

#include "core/stats/percentile.hpp"

namespace sluice {

namespace {

constexpr std::int64_t kFarFuture = INT64_MAX / 2;

// Times are cut off at kFarFuture.
std::int64_t after(std::int64_t time, std::int64_t duration) noexcept {
  return time < kFarFuture - duration ? time + duration : kFarFuture;
}

std::int64_t arrival_us(const RecordedLease &lease) noexcept {
  return std::min(lease.ready_us, kFarFuture);
}

std::int64_t scaled(std::uint32_t hold_us, double scale) noexcept {
  return std::llround(static_cast<double>(hold_us) * scale);
}

// Puts a new value on top of the heap in its place.
void sift_down(std::int64_t *heap, std::size_t count, std::int64_t value) noexcept {
  std::size_t hole = 0;
  for (std::size_t child = 1; child < count; child = 2 * hole + 1) {
    if (child + 1 < count && heap[child + 1] < heap[child]) child++;
    if (heap[child] >= value) break;
    heap[hole] = heap[child];
    hole = child;
  }
  heap[hole] = value;
}

ReplayVerdict check(const RecordedLease *leases, std::size_t count, const ReplayQuestion &question,
                    const ReplayScratch &scratch) noexcept {
  if (leases == nullptr || count == 0) return ReplayVerdict::no_leases;
  if (question.backends == 0) return ReplayVerdict::no_backends;
  if (!(question.hold_scale > 0 && question.hold_scale <= kGreatestHoldScale)) return ReplayVerdict::bad_hold_scale;
  if (scratch.free_at_us == nullptr || scratch.free_at_count < std::min(question.backends, count) ||
      scratch.waits_us == nullptr || scratch.waits_count < count) {
    return ReplayVerdict::scratch_too_small;
  }
  if (leases[0].ready_us < 0) return ReplayVerdict::not_in_order;
  for (std::size_t i = 1; i < count; i++) {
    if (leases[i].ready_us < leases[i - 1].ready_us) return ReplayVerdict::not_in_order;
  }
  return ReplayVerdict::keeps_up;
}

double mean(const std::int64_t *values, std::size_t begin, std::size_t end) noexcept {
  double sum = 0;
  for (std::size_t i = begin; i < end; i++) sum += static_cast<double>(values[i]);
  return end > begin ? sum / static_cast<double>(end - begin) : 0;
}

// waits_us in the order of arrival.
bool queue_still_grows(const RecordedLease *leases, std::size_t count, const ReplayQuestion &question,
                       const std::int64_t *waits_us) noexcept {
  if (count < kLeastLeasesForTrend) return false;
  const std::size_t middle = count / 2;
  double work_us = 0;
  for (std::size_t i = middle; i + 1 < count; i++) {
    work_us += static_cast<double>(scaled(leases[i].hold_us, question.hold_scale));
  }
  const auto span_us = static_cast<double>(leases[count - 1].ready_us - leases[middle].ready_us);
  if (work_us <= span_us * static_cast<double>(question.backends)) return false;
  const std::size_t last_quarter = count - count / 4;
  return mean(waits_us, last_quarter, count) > mean(waits_us, middle, last_quarter);
}

// Each percentile is looked for among what the one before has left above itself.
void take_percentiles(std::int64_t *waits_us, std::size_t count, ReplayAnswer *answer) noexcept {
  std::size_t sorted_below = 0;
  const auto take = [&](double fraction) noexcept {
    const auto index = static_cast<std::size_t>(percentile_rank(fraction, count) - 1);
    std::nth_element(waits_us + sorted_below, waits_us + index, waits_us + count);
    sorted_below = index;
    return waits_us[index];
  };
  answer->wait_p50_us = take(0.50);
  answer->wait_p90_us = take(0.90);
  answer->wait_p95_us = take(0.95);
  answer->wait_p99_us = take(0.99);
  answer->wait_max_us = take(1.0);
}

}  // namespace

std::string_view describe(ReplayVerdict verdict) noexcept {
  switch (verdict) {
    case ReplayVerdict::keeps_up:
      return "the backends keep up with the load";
    case ReplayVerdict::above_capacity:
      return "the load is above the capacity of the backends: the queue is still growing at the end";
    case ReplayVerdict::no_leases:
      return "not enough data: no leases have been recorded";
    case ReplayVerdict::no_backends:
      return "a pool without backends serves nobody";
    case ReplayVerdict::bad_hold_scale:
      return "the factor for the hold times is out of range";
    case ReplayVerdict::not_in_order:
      return "the recorded leases are not in order of time";
    case ReplayVerdict::scratch_too_small:
      return "not enough memory for the replay";
  }
  return "";
}

ReplayAnswer replay_queue(const RecordedLease *leases, std::size_t count, const ReplayQuestion &question,
                          const ReplayScratch &scratch) noexcept {
  ReplayAnswer answer;
  answer.verdict = check(leases, count, question, scratch);
  if (!has_numbers(answer.verdict)) return answer;

  // More backends than leases are never used.
  const std::size_t heap_size = std::min(question.backends, count);
  const std::int64_t begin_us = arrival_us(leases[0]);
  std::fill_n(scratch.free_at_us, heap_size, begin_us);  // equal values are a heap

  double busy_us = 0;
  std::int64_t end_us = begin_us;
  std::size_t waited = 0;
  std::size_t first_waiting = 0;  // the first lease that has not begun when this one arrives
  for (std::size_t i = 0; i < count; i++) {
    const std::int64_t ready_us = arrival_us(leases[i]);
    const std::int64_t hold_us = scaled(leases[i].hold_us, question.hold_scale);
    const std::int64_t start_us = std::max(ready_us, scratch.free_at_us[0]);
    const std::int64_t free_us = after(start_us, hold_us);
    sift_down(scratch.free_at_us, heap_size, free_us);

    scratch.waits_us[i] = start_us - ready_us;
    busy_us += static_cast<double>(free_us - start_us);
    end_us = std::max(end_us, free_us);
    if (start_us > ready_us) waited++;
    while (first_waiting <= i && arrival_us(leases[first_waiting]) + scratch.waits_us[first_waiting] <= ready_us) {
      first_waiting++;
    }
    answer.greatest_queue = std::max(answer.greatest_queue, i + 1 - first_waiting);
  }

  const auto leases_count = static_cast<double>(count);
  const double total_us = static_cast<double>(end_us - begin_us) * static_cast<double>(question.backends);
  answer.utilisation = total_us > 0 ? std::min(busy_us / total_us, 1.0) : 0;
  answer.waited_share = static_cast<double>(waited) / leases_count;
  answer.wait_mean_us = mean(scratch.waits_us, 0, count);
  if (queue_still_grows(leases, count, question, scratch.waits_us)) answer.verdict = ReplayVerdict::above_capacity;
  take_percentiles(scratch.waits_us, count, &answer);
  return answer;
}

}  // namespace sluice
