// SPDX-License-Identifier: PostgreSQL
//
// A point in time as the server writes it, in microseconds since 1970: a timestamptz in ISO style
// ("2030-12-31 23:59:59.123456+01:30") or a number of seconds ("1924988399.123456").

#ifndef SLUICE_BENCH_LOAD_SERVER_CLOCK_HPP
#define SLUICE_BENCH_LOAD_SERVER_CLOCK_HPP

#include <time.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace load {

inline bool parse_server_time(const char *text, int64_t *result_us) {
  char *end;
  const double number = strtod(text, &end);
  if (end != text && *end == '\0') {
    *result_us = llround(number * 1e6);
    return true;
  }
  tm date = {};
  double seconds;
  char sign;
  int hours;
  int minutes = 0;
  int length = 0;
  if (sscanf(text, "%4d-%2d-%2d %2d:%2d:%lf%c%2d%n", &date.tm_year, &date.tm_mon, &date.tm_mday, &date.tm_hour,
             &date.tm_min, &seconds, &sign, &hours, &length) != 8)
    return false;
  if (sign != '+' && sign != '-') return false;
  if (text[length] == ':' && sscanf(text + length, ":%2d", &minutes) != 1) return false;
  date.tm_year -= 1900;
  date.tm_mon -= 1;
  const int64_t offset_s = (sign == '-' ? -1 : 1) * (hours * 3600 + minutes * 60);
  *result_us = (timegm(&date) - offset_s) * 1000000 + llround(seconds * 1e6);
  return true;
}

}  // namespace load

#endif
