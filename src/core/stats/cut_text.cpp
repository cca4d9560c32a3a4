// SPDX-License-Identifier: PostgreSQL
#include "core/stats/cut_text.hpp"

#include <cstring>

namespace sluice {

namespace {

constexpr std::size_t kMostContinuationBytes = 3;

bool continues_character(char byte) noexcept { return (static_cast<unsigned char>(byte) & 0xc0) == 0x80; }

}  // namespace

std::size_t cut_length(const char *text, std::size_t length, std::size_t room) noexcept {
  if (length <= room) {
    return length;
  }
  std::size_t kept = room;
  for (std::size_t i = 0; i < kMostContinuationBytes && kept > 0 && continues_character(text[kept]); i++) {
    kept--;
  }
  return kept;
}

std::size_t copy_cut(char *target, std::size_t size, const char *source) noexcept {
  // A source may be very long: what lies behind the cut is not looked at, but for one byte.
  const std::size_t length = source != nullptr ? strnlen(source, size) : 0;
  const std::size_t kept = length > 0 ? cut_length(source, length, size - 1) : 0;
  if (kept > 0) {
    std::memcpy(target, source, kept);
  }
  std::memset(target + kept, 0, size - kept);
  return kept;
}

}  // namespace sluice
