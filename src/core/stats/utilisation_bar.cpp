// SPDX-License-Identifier: PostgreSQL
#include "core/stats/utilisation_bar.hpp"

#include <cstdio>
#include <cstring>

namespace sluice {

namespace {

std::int32_t positive(std::int32_t value) noexcept { return value > 0 ? value : 0; }

// Of kBarCells, to the nearest, but one at least if there is something.
std::int32_t cells(std::int64_t part, std::int64_t whole) noexcept {
  const std::int64_t all = static_cast<std::int64_t>(kBarCells);
  const auto rounded = static_cast<std::int32_t>((2 * part * all + whole) / (2 * whole));
  return part > 0 && rounded == 0 ? 1 : rounded;
}

// In three characters.
void write_short(std::int64_t value, char (&text)[4]) noexcept {
  if (value < 1000) {
    std::snprintf(text, sizeof(text), "%d", static_cast<int>(value));
  } else {
    const int thousands = value < 99000 ? static_cast<int>(value / 1000) : 99;
    std::snprintf(text, sizeof(text), "%dk", thousands);
  }
}

}  // namespace

void draw_utilisation(const PoolUse &use, UtilisationBar &bar) noexcept {
  const auto all = static_cast<std::int32_t>(kBarCells);
  const std::int64_t executing = positive(use.executing);
  const std::int64_t in_use = executing + positive(use.resting);
  const std::int64_t size = use.max_size > 1 ? use.max_size : 1;
  const std::int64_t whole = in_use > size ? in_use : size;
  std::int32_t filled = cells(in_use, whole);
  if (in_use < whole && filled == all) filled = all - 1;
  std::int32_t hashes = cells(executing, whole);
  if (hashes > filled) hashes = filled;
  if (executing < in_use && hashes == filled) {  // something rests: room for its mark
    if (filled > 1)
      hashes--;
    else
      filled++;
  }
  bar[0] = '[';
  for (std::int32_t i = 0; i < all; i++) bar[i + 1] = i < hashes ? '#' : i < filled ? '=' : '.';
  bar[all + 1] = ']';
  bar[all + 2] = '\0';
}

void write_use(const PoolUse &use, UseText &text) noexcept {
  const std::int64_t in_use = std::int64_t{positive(use.executing)} + positive(use.resting);
  char whole[32];
  std::snprintf(whole, sizeof(whole), "%lld/%d", static_cast<long long>(in_use), positive(use.max_size));
  if (std::strlen(whole) < sizeof(text)) {
    std::memcpy(text, whole, std::strlen(whole) + 1);
    return;
  }
  char used[4];
  char size[4];
  write_short(in_use, used);
  write_short(positive(use.max_size), size);
  std::snprintf(whole, sizeof(whole), "%s/%s", used, size);
  std::memcpy(text, whole, std::strlen(whole) + 1);
}

void write_ms(std::uint64_t time_us, TimeText &text) noexcept {
  constexpr std::uint64_t kGreatest = 999'999;
  const double ms = static_cast<double>(time_us) / 1000.0;
  char whole[32];
  if (time_us < 9'995) {
    std::snprintf(whole, sizeof(whole), "%.2f", ms);
  } else if (time_us < 999'950) {
    std::snprintf(whole, sizeof(whole), "%.1f", ms);
  } else {
    const std::uint64_t rounded = time_us / 1000 + (time_us % 1000 >= 500 ? 1 : 0);
    std::snprintf(whole, sizeof(whole), "%d", static_cast<int>(rounded < kGreatest ? rounded : kGreatest));
  }
  std::memcpy(text, whole, std::strlen(whole) + 1);
}

const char *use_word(const PoolUse &use) noexcept {
  const std::int64_t in_use = std::int64_t{positive(use.executing)} + positive(use.resting);
  const std::int64_t size = use.max_size > 1 ? use.max_size : 1;
  if (use.stuck) return "stuck";
  if (use.waiting > 0) return "waiting";
  if (in_use == 0) return "idle";
  if (use.executing >= size) return "full";
  return 5 * in_use >= 4 * size ? "busy" : "ok";
}

LabelWidths share_label(std::size_t database, std::size_t role, std::size_t columns) noexcept {
  const std::size_t room = columns > 0 ? columns - 1 : 0;
  LabelWidths widths{database, role};
  if (database + role <= room) return widths;
  const std::size_t half = room / 2;
  if (role <= half) {
    widths.database = room - role;
  } else if (database <= half) {
    widths.role = room - database;
  } else {
    widths.database = room - half;
    widths.role = half;
  }
  return widths;
}

}  // namespace sluice
