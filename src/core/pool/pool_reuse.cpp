// SPDX-License-Identifier: PostgreSQL
#include "core/pool/pool_reuse.hpp"

namespace sluice {

namespace {

// The less the better: free, empty and gone, gone, empty, with backends.
int cost(const PoolUse &use) noexcept {
  if (!use.open) return 0;
  const bool empty = use.backends <= 0;
  if (use.gone) return empty ? 1 : 3;
  return empty ? 2 : 4;
}

}  // namespace

SlotChoice better_slot(const SlotChoice &best, std::uint32_t index, const PoolUse &use) noexcept {
  if (use.open && use.clients > 0) return best;
  const SlotChoice candidate{!use.open || use.backends <= 0 ? SlotAction::take : SlotAction::vacate, index, use};
  if (best.action == SlotAction::none) return candidate;
  if (cost(use) != cost(best.use)) return cost(use) < cost(best.use) ? candidate : best;
  return use.open && use.unused_since_us < best.use.unused_since_us ? candidate : best;
}

bool is_to_be_released(const PoolUse &use) noexcept { return use.open && use.gone && use.clients <= 0; }

}  // namespace sluice
