// SPDX-License-Identifier: PostgreSQL
//
// What an ErrorResponse says, read from its bytes.

#ifndef SLUICE_CORE_STATS_TOLD_ERROR_HPP
#define SLUICE_CORE_STATS_TOLD_ERROR_HPP

#include <cstddef>

namespace sluice {

struct ToldError {
  bool complete = false;           // severity and SQLSTATE have been found
  bool ends_client = false;        // FATAL or PANIC
  const char *sqlstate = nullptr;  // five characters, inside the body
  const char *message = nullptr;   // terminated, inside the body; null if there is none
};

// `body`: the message without type and length.  A body that is not one gives an
// answer that is not complete.  Nothing is read beyond `length`.
ToldError read_error_response(const char *body, std::size_t length) noexcept;

}  // namespace sluice

#endif
