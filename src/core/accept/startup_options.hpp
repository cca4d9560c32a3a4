// SPDX-License-Identifier: PostgreSQL
//
// The start-up parameter "options": switches of the postgres command, as a
// client sends them (PGOPTIONS), turned into settings.
//
// A backend of the server hands this string to getopt().  A pooled backend was
// started long before the client came, so the same meaning is worked out here:
// the string is split at white space (a backslash takes the next character
// literally), and each switch becomes the settings it stands for.  Switches the
// server accepts from a client and ignores are accepted and ignored.

#ifndef SLUICE_CORE_ACCEPT_STARTUP_OPTIONS_HPP
#define SLUICE_CORE_ACCEPT_STARTUP_OPTIONS_HPP

#include <cstddef>
#include <cstdint>

#include "core/accept/startup_packet.hpp"

namespace sluice {

enum class OptionsError {
  none,
  invalid_argument,  // "invalid command-line argument for server process: <argument>"
  missing_value,     // "-c <argument> requires a value", "--<argument> requires a value"
  too_long,          // does not fit into the buffer
  too_many,          // more settings than out_capacity
};

struct OptionsResult {
  OptionsError error = OptionsError::none;
  std::size_t count = 0;           // settings in `out`; on error those that stand before the culprit
  const char *argument = nullptr;  // the culprit, in `buffer`; nullptr unless invalid_argument or missing_value
  char flag = '\0';                // missing_value: 'c' or '-'
};

// Enough of a buffer for any string of `length` bytes without -d.  Each -d with a
// level above 0 takes up to kDebugLevelBytes more.
constexpr std::size_t options_buffer_bytes(std::size_t length) noexcept {
  return length + 1;
}
constexpr std::size_t kDebugLevelBytes = 16;

// Names and values point into `buffer` or to constants.  Values are not looked
// at; whether the client may set them is for set_config_option() to say.  To
// report errors in the server's order, apply out[0..count) before raising.
OptionsResult parse_startup_options(const char *options, char *buffer, std::size_t buffer_size, StartupParameter *out,
                                    std::size_t out_capacity) noexcept;

}  // namespace sluice

#endif
