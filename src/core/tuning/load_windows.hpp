// SPDX-License-Identifier: PostgreSQL
//
// From the seconds of one pool's past to the measurements of one query mix.
//
// A scalability law holds for one kind of work.  If cheap look-ups run at noon
// and reports at night, throughput changes with the work and not with the
// concurrency, and any curve through both is nonsense.  What the transactions
// of a second were like shows in three quantities that do not depend on how many
// of them there were: statements, blocks (buffer accesses) and WAL records per
// transaction.  Seconds that are alike in all three are one mix; the mix that
// most of the recent transactions belong to is chosen.
//
// Its seconds are condensed to one point for each level of concurrency, the
// median over the level: checkpoints and other hiccups do not count, and the
// points are few enough to fit a curve over and over again.

#ifndef SLUICE_CORE_TUNING_LOAD_WINDOWS_HPP
#define SLUICE_CORE_TUNING_LOAD_WINDOWS_HPP

#include <cstddef>

#include "core/tuning/scalability.hpp"

namespace sluice {

// One second of one pool.  Seconds that are missing are left out, or have NaN or
// a negative number in any field.
struct LoadSample {
  double active;  // mean number of active backends
  double commits_per_s;
  double statements_per_transaction;
  double blocks_per_transaction;
  double writes_per_transaction;  // WAL records
};

constexpr std::size_t kMostSamples = 3600;  // of more, the newest are looked at
constexpr std::size_t kMostLoadPoints = 64;
constexpr int kMostMixes = 16;

// Less than this in a second measures the clock rather than the server.
constexpr double kLeastSampleActive = 0.2;
constexpr double kLeastSampleCommits = 20;

// Seconds belong to a mix if none of the three quantities is further than this
// factor from the mix's (geometric) mean, after the floor has been added to both:
// 0 and 0.01 WAL records per transaction are the same thing.  A mix of a few kinds
// of transactions scatters by some ten per cent from second to second.
constexpr double kMixFactor = 1.5;
constexpr double kStatementsFloor = 0.5;
constexpr double kBlocksFloor = 5;
constexpr double kWritesFloor = 0.5;

// Transactions lose half their weight in this many samples, so that a mix that
// has changed for good prevails after about five minutes; but only a mix with
// enough seconds is chosen while there is one that has.
constexpr double kMixHalfLife = 300;
constexpr int kLeastMixSamples = 60;

// A level is this wide, or a 64th of the range (as a factor) if that is wider.
constexpr double kLevelWidth = 1.12;
// Fewer seconds have no median worth the name.
constexpr int kLeastLevelSamples = 3;
// The weight of a level is n / (n + kHalfWeightSamples) for n seconds.  The
// variance of a level's throughput has a part that falls with n and one that does
// not (the law is not exact, nor is the mix); this is its inverse if both parts
// are equal at that many seconds.  Thus an hour at one level counts hardly more
// than half a minute at another.
constexpr double kHalfWeightSamples = 10;

struct LoadWindows {
  LoadPoint points[kMostLoadPoints];  // in ascending order of `active`
  std::size_t count = 0;

  // Each sample looked at is counted in exactly one of these.
  int used = 0;
  int other_mixes = 0;
  int too_quiet = 0;  // too little in them, or missing
  int sparse = 0;     // of the mix, but with too few others at their level

  // The mix: geometric means; 0 if there is none.
  double statements_per_transaction = 0;
  double blocks_per_transaction = 0;
  double writes_per_transaction = 0;
};

// `samples` in order of time, oldest first; may be null if `count` is 0.  Needs
// about 35 kB of stack.
LoadWindows choose_load_windows(const LoadSample *samples, std::size_t count) noexcept;

}  // namespace sluice

#endif
