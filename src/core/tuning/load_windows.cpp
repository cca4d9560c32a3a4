// SPDX-License-Identifier: PostgreSQL
//
// Choosing a mix and condensing its seconds: see load_windows.hpp.
//
// Mixes are found by leader clustering on the logarithms of the three quantities,
// from the newest second to the oldest: a second joins the nearest mix if that is
// near enough, and moves its mean; otherwise it founds one.  As the means move,
// who joined does not count in the end: the seconds that are near the final mean
// of the chosen mix are used.

#include "core/tuning/load_windows.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>

#include "core/stats/percentile.hpp"

namespace sluice {

namespace {

constexpr int kQuantities = 3;
constexpr double kFloors[kQuantities] = {kStatementsFloor, kBlocksFloor, kWritesFloor};

// Greater numbers are taken for broken ones.
constexpr double kGreatestPerTransaction = 1e15;

struct Signature {
  double logs[kQuantities];
};

struct Mix {
  Signature mean;
  int samples;
  double transactions;  // the older, the less
};

struct Samples {
  const LoadSample *all;
  std::size_t count;
};

bool per_transaction(double value) noexcept {
  return value >= 0 && value <= kGreatestPerTransaction;
}

bool usable(const LoadSample &sample) noexcept {
  return sample.active >= kLeastSampleActive && sample.active <= kGreatestActive &&
         sample.commits_per_s >= kLeastSampleCommits && sample.commits_per_s <= kGreatestCommitsPerSecond &&
         per_transaction(sample.statements_per_transaction) && per_transaction(sample.blocks_per_transaction) &&
         per_transaction(sample.writes_per_transaction);
}

Signature signature_of(const LoadSample &sample) noexcept {
  return {{std::log(sample.statements_per_transaction + kFloors[0]),
           std::log(sample.blocks_per_transaction + kFloors[1]), std::log(sample.writes_per_transaction + kFloors[2])}};
}

// The logarithm of the greatest factor between two signatures.
double distance(const Signature &a, const Signature &b) noexcept {
  double greatest = 0;
  for (int i = 0; i < kQuantities; i++) greatest = std::max(greatest, std::fabs(a.logs[i] - b.logs[i]));
  return greatest;
}

bool alike(const Signature &a, const Signature &b) noexcept {
  return distance(a, b) <= std::log(kMixFactor);
}

// Seconds that fit nowhere when all mixes are taken belong to none.
int find_mixes(const Samples &samples, Mix *mixes) noexcept {
  const double keep = std::exp2(-1 / kMixHalfLife);
  double worth = 1;
  int count = 0;
  for (std::size_t i = samples.count; i-- > 0; worth *= keep) {
    const LoadSample &sample = samples.all[i];
    if (!usable(sample)) continue;
    const Signature signature = signature_of(sample);
    int nearest = 0;
    for (int m = 1; m < count; m++) {
      if (distance(mixes[m].mean, signature) < distance(mixes[nearest].mean, signature)) nearest = m;
    }
    if (count == 0 || !alike(mixes[nearest].mean, signature)) {
      if (count == kMostMixes) continue;
      nearest = count++;
      mixes[nearest] = {signature, 0, 0};
    }
    Mix &mix = mixes[nearest];
    mix.samples++;
    mix.transactions += worth * sample.commits_per_s;
    for (int q = 0; q < kQuantities; q++) mix.mean.logs[q] += (signature.logs[q] - mix.mean.logs[q]) / mix.samples;
  }
  return count;
}

const Mix &choose(const Mix *mixes, int count) noexcept {
  const auto worse = [](const Mix &a, const Mix &b) noexcept {
    const bool a_has_enough = a.samples >= kLeastMixSamples;
    const bool b_has_enough = b.samples >= kLeastMixSamples;
    return a_has_enough != b_has_enough ? b_has_enough : a.transactions < b.transactions;
  };
  return *std::max_element(mixes, mixes + count, worse);
}

// The level of each sample, on a logarithmic scale.
struct Levels {
  static constexpr std::uint8_t kNone = kMostLoadPoints;  // not of the mix
  std::uint8_t of[kMostSamples];
  int members[kMostLoadPoints + 1];
};

void divide(const Samples &samples, const Mix &mix, Levels *levels) noexcept {
  double least = HUGE_VAL;
  double greatest = 0;
  for (std::size_t i = 0; i < samples.count; i++) {
    const LoadSample &sample = samples.all[i];
    const bool belongs = usable(sample) && alike(mix.mean, signature_of(sample));
    levels->of[i] = belongs ? 0 : Levels::kNone;
    if (!belongs) continue;
    least = std::min(least, sample.active);
    greatest = std::max(greatest, sample.active);
  }
  std::fill(std::begin(levels->members), std::end(levels->members), 0);
  for (std::size_t i = 0; i < samples.count; i++) {
    if (levels->of[i] != Levels::kNone) {
      const double width = std::max(std::log(kLevelWidth), std::log(greatest / least) / kMostLoadPoints);
      const double level = std::log(samples.all[i].active / least) / width;
      levels->of[i] = static_cast<std::uint8_t>(std::min(level, kMostLoadPoints - 1.0));
    }
    levels->members[levels->of[i]]++;
  }
}

double median_of(const Samples &samples, const Levels &levels, std::size_t level, double LoadSample::*field) noexcept {
  double values[kMostSamples];
  std::size_t found = 0;
  for (std::size_t i = 0; i < samples.count; i++) {
    if (levels.of[i] == level) values[found++] = samples.all[i].*field;
  }
  return take_median(values, found);
}

void condense(const Samples &samples, const Mix &mix, LoadWindows *windows) noexcept {
  Levels levels;
  divide(samples, mix, &levels);
  for (std::size_t level = 0; level < kMostLoadPoints; level++) {
    const int members = levels.members[level];
    if (members < kLeastLevelSamples) {
      windows->sparse += members;
      continue;
    }
    LoadPoint &point = windows->points[windows->count++];
    point.active = median_of(samples, levels, level, &LoadSample::active);
    point.commits_per_s = median_of(samples, levels, level, &LoadSample::commits_per_s);
    point.weight = members / (members + kHalfWeightSamples);
    windows->used += members;
  }
}

}  // namespace

LoadWindows choose_load_windows(const LoadSample *all, std::size_t count) noexcept {
  LoadWindows windows = {};
  Samples samples = {all, count};
  if (count > kMostSamples) samples = {all + (count - kMostSamples), kMostSamples};

  int usable_samples = 0;
  for (std::size_t i = 0; i < samples.count; i++) usable_samples += usable(samples.all[i]) ? 1 : 0;
  windows.too_quiet = static_cast<int>(samples.count) - usable_samples;
  if (usable_samples == 0) return windows;

  Mix mixes[kMostMixes];
  const Mix &mix = choose(mixes, find_mixes(samples, mixes));
  condense(samples, mix, &windows);
  windows.other_mixes = usable_samples - windows.used - windows.sparse;
  windows.statements_per_transaction = std::max(0.0, std::exp(mix.mean.logs[0]) - kFloors[0]);
  windows.blocks_per_transaction = std::max(0.0, std::exp(mix.mean.logs[1]) - kFloors[1]);
  windows.writes_per_transaction = std::max(0.0, std::exp(mix.mean.logs[2]) - kFloors[2]);
  return windows;
}

}  // namespace sluice
