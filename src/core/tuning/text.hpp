// SPDX-License-Identifier: PostgreSQL
//
// Reading the small texts of /proc and /sys, and writing the one-line reasons
// that are shown beside each number found there.
//
// Nothing here allocates.  A parser that finds something it does not expect
// answers false and leaves its result alone: what cannot be read is unknown, and
// never an error.

#ifndef SLUICE_CORE_TUNING_TEXT_HPP
#define SLUICE_CORE_TUNING_TEXT_HPP

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace sluice {

// Without blanks, tabs and line ends on either side.
std::string_view trimmed(std::string_view text) noexcept;

// Cuts the part before the first `separator` off the front of `rest` and
// returns it; the whole of `rest` when there is none.  False when `rest` is
// empty.
bool take_part(std::string_view &rest, char separator, std::string_view &part) noexcept;

// A decimal number that makes up the whole of `text`, blanks around it aside.
bool parse_number(std::string_view text, std::int64_t &value) noexcept;

bool starts_with(std::string_view text, std::string_view prefix) noexcept;
bool contains(std::string_view text, std::string_view part) noexcept;

// Collects a line of text in a buffer it does not own: always terminated; what
// does not fit is replaced by "..." at the end.
class TextWriter {
 public:
  TextWriter(char *buffer, std::size_t size) noexcept;

  TextWriter &add(std::string_view text) noexcept;
  TextWriter &add(std::int64_t number) noexcept;
  TextWriter &add(double number) noexcept;  // at most two decimals, no trailing zeros

  std::string_view text() const noexcept { return {buffer_, length_}; }

 private:
  char *buffer_;
  std::size_t size_;
  std::size_t length_ = 0;
  bool full_ = false;
};

}  // namespace sluice

#endif
