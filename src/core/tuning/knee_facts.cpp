// SPDX-License-Identifier: PostgreSQL
#include "core/tuning/knee_facts.hpp"

#include <cmath>

#include "core/stats/percentile.hpp"

namespace sluice {

double find_active_per_slot(double *ratios, std::size_t count) noexcept {
  if (count < kLeastSaturatedSeconds) {
    return 1;
  }
  const double median = take_median(ratios, count);
  return median > 1 ? median : 1;
}

int knee_as_pool_size(const KneeFacts &facts) noexcept {
  if (facts.fit.knee < 1) {
    return 0;
  }
  const long size = std::lround(facts.fit.knee / facts.active_per_slot);
  return size > 1 ? static_cast<int>(size) : 1;
}

double calibrated_transactions_per_s(const CalibrationFacts &facts, double size) noexcept {
  for (std::int32_t i = 0; i < facts.count; i++) {
    if (size == facts.sizes[i]) {
      return facts.transactions_per_s[i];
    }
    if (i > 0 && size > facts.sizes[i - 1] && size < facts.sizes[i]) {
      const double share = (size - facts.sizes[i - 1]) / (facts.sizes[i] - facts.sizes[i - 1]);
      return facts.transactions_per_s[i - 1] + share * (facts.transactions_per_s[i] - facts.transactions_per_s[i - 1]);
    }
  }
  return 0;
}

}  // namespace sluice
