// SPDX-License-Identifier: PostgreSQL
//
// Pressure, load and memory: see pressure_stall.hpp.

#include "core/tuning/pressure_stall.hpp"

#include "core/tuning/text.hpp"

namespace sluice {

namespace {

constexpr bool is_digit(char c) noexcept {
  return c >= '0' && c <= '9';
}

// Digits, and perhaps a point and more digits.
bool parse_decimal(std::string_view text, double &value) noexcept {
  const std::size_t point = text.find('.');
  const std::string_view whole = text.substr(0, point);
  const std::string_view rest = point == std::string_view::npos ? "0" : text.substr(point + 1);
  if (whole.empty() || rest.empty() || whole.size() > 15 || rest.size() > 15) return false;

  double parsed = 0;
  for (const char c : whole) {
    if (!is_digit(c)) return false;
    parsed = parsed * 10 + (c - '0');
  }
  // One division at the end: the nearest number to the text, which prints as the text.
  double scale = 1;
  for (const char c : rest) {
    if (!is_digit(c)) return false;
    parsed = parsed * 10 + (c - '0');
    scale *= 10;
  }
  value = parsed / scale;
  return true;
}

// "avg10=0.87": false if it is not called `name`, or is no number.
bool take_average(std::string_view &rest, std::string_view name, double &value) noexcept {
  std::string_view field;
  if (!take_part(rest, ' ', field) || !starts_with(field, name)) return false;
  return parse_decimal(field.substr(name.size()), value);
}

bool parse_stall_line(std::string_view rest, StallLine &line) noexcept {
  StallLine parsed;
  if (!take_average(rest, "avg10=", parsed.avg10) || !take_average(rest, "avg60=", parsed.avg60) ||
      !take_average(rest, "avg300=", parsed.avg300))
    return false;
  std::string_view total;
  if (!take_part(rest, ' ', total) || !starts_with(total, "total=")) return false;
  if (!parse_number(total.substr(6), parsed.total_us) || parsed.total_us < 0) return false;
  line = parsed;
  return true;
}

// "MemTotal:       16314560 kB"
bool parse_kilobytes(std::string_view line, std::string_view name, std::int64_t &bytes) noexcept {
  if (!starts_with(line, name)) return false;
  line = trimmed(line.substr(name.size()));
  if (line.size() < 3 || line.substr(line.size() - 2) != "kB") return false;
  std::int64_t kilobytes = 0;
  if (!parse_number(line.substr(0, line.size() - 2), kilobytes)) return false;
  if (kilobytes < 0 || kilobytes > INT64_MAX / 1024) return false;
  bytes = kilobytes * 1024;
  return true;
}

}  // namespace

bool parse_pressure_stall(std::string_view text, PressureStall &stall) noexcept {
  PressureStall parsed;
  std::string_view line;
  while (take_part(text, '\n', line)) {
    line = trimmed(line);
    std::string_view kind;
    if (!take_part(line, ' ', kind)) continue;
    if (kind == "some" && !parse_stall_line(line, parsed.some)) return false;
    if (kind == "full" && !parse_stall_line(line, parsed.full)) return false;
  }
  if (!parsed.some.known()) return false;
  stall = parsed;
  return true;
}

bool parse_load_average(std::string_view text, LoadAverage &load) noexcept {
  text = trimmed(text);
  LoadAverage parsed;
  std::string_view part;
  for (double *average : {&parsed.load1, &parsed.load5, &parsed.load15}) {
    if (!take_part(text, ' ', part) || !parse_decimal(part, *average)) return false;
  }
  std::string_view tasks;
  std::string_view runnable;
  if (!take_part(text, ' ', tasks) || !take_part(tasks, '/', runnable)) return false;
  if (!parse_number(runnable, parsed.runnable) || !parse_number(tasks, parsed.tasks)) return false;
  if (parsed.runnable < 0 || parsed.tasks < 0) return false;
  load = parsed;
  return true;
}

void MemoryInfo::see_line(std::string_view line) noexcept {
  (void)(parse_kilobytes(line, "MemTotal:", total_bytes) || parse_kilobytes(line, "MemAvailable:", available_bytes));
}

}  // namespace sluice
