// SPDX-License-Identifier: PostgreSQL
//
// Small texts: see text.hpp.

#include "core/tuning/text.hpp"

#include <charconv>
#include <cstring>

namespace sluice {

namespace {

constexpr bool is_blank(char c) noexcept {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

}  // namespace

std::string_view trimmed(std::string_view text) noexcept {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

bool take_part(std::string_view &rest, char separator, std::string_view &part) noexcept {
  if (rest.empty()) return false;
  const std::size_t end = rest.find(separator);
  part = rest.substr(0, end);
  rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  return true;
}

bool parse_number(std::string_view text, std::int64_t &value) noexcept {
  text = trimmed(text);
  std::int64_t parsed = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), parsed);
  if (error != std::errc() || end != text.data() + text.size()) return false;
  value = parsed;
  return true;
}

bool starts_with(std::string_view text, std::string_view prefix) noexcept {
  return text.substr(0, prefix.size()) == prefix;
}

bool contains(std::string_view text, std::string_view part) noexcept {
  return text.find(part) != std::string_view::npos;
}

TextWriter::TextWriter(char *buffer, std::size_t size) noexcept : buffer_(buffer), size_(size) {
  if (size_ > 0) buffer_[0] = '\0';
}

TextWriter &TextWriter::add(std::string_view text) noexcept {
  if (full_ || size_ == 0) return *this;
  std::size_t fits = size_ - 1 - length_;
  if (text.size() > fits) full_ = true;
  if (text.size() < fits) fits = text.size();
  std::memcpy(buffer_ + length_, text.data(), fits);
  length_ += fits;
  buffer_[length_] = '\0';
  if (full_ && length_ >= 3) std::memcpy(buffer_ + length_ - 3, "...", 3);
  return *this;
}

TextWriter &TextWriter::add(std::int64_t number) noexcept {
  char digits[24];
  const auto result = std::to_chars(digits, digits + sizeof(digits), number);
  return add(std::string_view(digits, static_cast<std::size_t>(result.ptr - digits)));
}

TextWriter &TextWriter::add(double number) noexcept {
  // By hand: std::snprintf would follow the locale's decimal point.
  if (!(number > -1e15 && number < 1e15)) return add("?");
  if (number < 0) add("-");
  const auto hundredths = static_cast<std::int64_t>((number < 0 ? -number : number) * 100 + 0.5);
  add(hundredths / 100);
  const int rest = static_cast<int>(hundredths % 100);
  if (rest == 0) return *this;
  const char decimals[3] = {'.', static_cast<char>('0' + rest / 10), static_cast<char>('0' + rest % 10)};
  return add(std::string_view(decimals, rest % 10 == 0 ? 2 : 3));
}

}  // namespace sluice
