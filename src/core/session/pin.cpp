// SPDX-License-Identifier: PostgreSQL
#include "core/session/pin.hpp"

#include <cstdio>
#include <cstring>

namespace sluice {

struct PinWords {
  const char *name;
  const char *description;
};

static const PinWords kWords[kPinReasonCount] = {
    {"temporary_objects", "temporary objects"},
    {"advisory_lock", "an advisory lock held by the session"},
    {"listen", "listening to notifications"},
    {"held_cursor", "a cursor WITH HOLD"},
    {"loaded_library", "a library loaded by LOAD"},
    {"random_seed", "a seed set by setseed"},
    {"replication", "a replication origin or temporary replication slot"},
    {"backup", "an online backup in progress"},
    {"function", "a function named in sluice.pin_functions"},
    {"state_too_large", "session state for which there is no shared memory"},
};

const char *name_of(PinReason reason) noexcept { return kWords[static_cast<std::size_t>(reason)].name; }

const char *describe(PinReason reason) noexcept { return kWords[static_cast<std::size_t>(reason)].description; }

std::size_t describe_pins(std::uint32_t mask, char *text, std::size_t size) noexcept {
  std::size_t length = 0;

  if (size > 0) text[0] = '\0';
  for (std::size_t i = 0; i < kPinReasonCount; i++) {
    const auto reason = static_cast<PinReason>(i);
    if ((mask & pin_bit(reason)) == 0) continue;
    char *end = length < size ? text + length : nullptr;
    const int written =
        std::snprintf(end, end == nullptr ? 0 : size - length, "%s%s", length > 0 ? ", " : "", name_of(reason));
    length += static_cast<std::size_t>(written);
  }
  return length;
}

}  // namespace sluice
