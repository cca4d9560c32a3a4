// SPDX-License-Identifier: PostgreSQL
#include "core/tuning/knee_facts.hpp"

namespace sluice {

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
