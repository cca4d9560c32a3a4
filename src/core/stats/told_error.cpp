// SPDX-License-Identifier: PostgreSQL
#include "core/stats/told_error.hpp"

#include <cstring>

namespace sluice {

namespace {

constexpr std::size_t kSqlstateLength = 5;

}  // namespace

ToldError read_error_response(const char *body, std::size_t length) noexcept {
  ToldError error;
  bool severity_known = false;

  for (std::size_t at = 0; at < length && body[at] != '\0';) {
    const char field = body[at++];
    const char *value = body + at;
    const std::size_t value_length = strnlen(value, length - at);
    if (value_length == length - at) {
      break;  // not terminated
    }
    if (field == 'V') {  // the severity that is never translated
      severity_known = true;
      error.ends_client = std::strcmp(value, "FATAL") == 0 || std::strcmp(value, "PANIC") == 0;
    } else if (field == 'C' && value_length == kSqlstateLength) {
      error.sqlstate = value;
    } else if (field == 'M') {
      error.message = value;
    }
    at += value_length + 1;
  }
  error.complete = severity_known && error.sqlstate != nullptr;
  return error;
}

}  // namespace sluice
