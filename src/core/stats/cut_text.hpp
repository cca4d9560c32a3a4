// SPDX-License-Identifier: PostgreSQL
//
// Text into fields of fixed size.

#ifndef SLUICE_CORE_STATS_CUT_TEXT_HPP
#define SLUICE_CORE_STATS_CUT_TEXT_HPP

#include <cstddef>

namespace sluice {

// How many of the `length` bytes at `text` may be kept where there is room for
// `room`: all, or as many as fit without cutting a UTF-8 character in two.  Text in
// another encoding may lose up to three bytes more.
std::size_t cut_length(const char *text, std::size_t length, std::size_t room) noexcept;

// Copies `source` (null is empty) into `target` of `size` bytes, cut if need be;
// the rest of `target` becomes zero, and there is at least one such byte.
// `size` > 0.  Returns the length.
std::size_t copy_cut(char *target, std::size_t size, const char *source) noexcept;

}  // namespace sluice

#endif
