// SPDX-License-Identifier: PostgreSQL
//
// What has been measured about the best size of a pool, as it lies in shared
// memory (core/stats/published.hpp): the knee of the load a pool has had, and what
// sluice.calibrate() found.

#ifndef SLUICE_CORE_TUNING_KNEE_FACTS_HPP
#define SLUICE_CORE_TUNING_KNEE_FACTS_HPP

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "core/tuning/scalability.hpp"

namespace sluice {

struct KneeFacts {
  // Whose it is: for another owner, or after the statistics have been reset, it says nothing.
  std::uint32_t database_oid = 0;
  std::uint32_t role_oid = 0;
  std::uint32_t statistics_epoch = 0;
  std::int64_t at = 0;  // TimestampTz
  ScalabilityFit fit;
  // Seconds of the pool's history: used for the fit, left out as another query mix,
  // left out as too quiet.
  int used = 0;
  int other_mixes = 0;
  int too_quiet = 0;
  double statements_per_transaction = 0;  // of the mix
  double blocks_per_transaction = 0;
  double wal_records_per_transaction = 0;
  double active_per_slot = 1;  // see below
};
static_assert(std::is_trivially_copyable_v<KneeFacts>);

// The law speaks of backends that execute, a pool's size of those it lets begin a
// transaction: a client that comes back from thinking inside one does not wait, so
// more may execute than the size says.  How many for each slot: the median of
// `ratios` (active / max_size in seconds in which clients waited), at least 1; 1 if
// there are too few.  Reorders `ratios`.
constexpr std::size_t kLeastSaturatedSeconds = 10;
double find_active_per_slot(double *ratios, std::size_t count) noexcept;

// The pool size at which as many backends execute as the knee says, at least 1; 0 if
// there is no knee.
int knee_as_pool_size(const KneeFacts &facts) noexcept;

constexpr std::size_t kCalibrationPoints = 64;

// The latest calibration in one database.
struct CalibrationFacts {
  std::uint32_t database_oid = 0;
  std::uint32_t role_oid = 0;
  std::int64_t at = 0;  // TimestampTz
  std::int32_t best_size = 0;
  std::int32_t count = 0;  // of points
  std::int32_t sizes[kCalibrationPoints] = {};  // ascending
  double transactions_per_s[kCalibrationPoints] = {};
};
static_assert(std::is_trivially_copyable_v<CalibrationFacts>);

// Throughput at a size, by straight lines between the measured ones; 0 outside of them.
double calibrated_transactions_per_s(const CalibrationFacts &facts, double size) noexcept;

// Places for calibrations.  Databases that share one put each other's out.
constexpr std::size_t kCalibrationSlots = 16;

}  // namespace sluice

#endif
