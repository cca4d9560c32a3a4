// SPDX-License-Identifier: PostgreSQL
#include "core/session/sequence_values.hpp"

#include <limits>

namespace sluice {

std::uint32_t sequence_capacity(std::uint32_t count) noexcept {
  std::uint32_t capacity = 4;
  while (capacity < count) capacity *= 2;
  return capacity < kMaxSequences ? capacity : kMaxSequences;
}

std::size_t sequence_table_bytes(std::uint32_t capacity) noexcept {
  return offsetof(SequenceTable, values) + capacity * sizeof(SequenceValue);
}

const SequenceValue *find_sequence(const SequenceTable &table, std::uint32_t relation) noexcept {
  for (std::uint32_t i = 0; i < table.count; i++)
    if (table.values[i].relation == relation) return &table.values[i];
  return nullptr;
}

SequenceStep step_towards(std::int64_t value) noexcept {
  if (value == std::numeric_limits<std::int64_t>::min()) return SequenceStep{value + 1, -1};
  return SequenceStep{value - 1, 1};
}

}  // namespace sluice
