// SPDX-License-Identifier: PostgreSQL
//
// What sluice.monitor draws, cut to fit: all of it together fits into 80 columns.

#ifndef SLUICE_CORE_STATS_UTILISATION_BAR_HPP
#define SLUICE_CORE_STATS_UTILISATION_BAR_HPP

#include <cstddef>
#include <cstdint>

namespace sluice {

constexpr std::size_t kBarCells = 10;

// What the backends of a pool do.
struct PoolUse {
  std::int32_t executing = 0;  // for a client, or about to
  std::int32_t resting = 0;    // their client's turn: they think, or are held or pinned
  std::int32_t max_size = 1;
  std::int32_t waiting = 0;    // clients
  bool stuck = false;          // clients seem to wait for each other
};

// "[######==..]" and its NUL: # executing, = resting, . free.  A full bar is
// max_size backends, or all there are if they are more.  Whatever there is fills a
// cell at least, and there is a dot as long as something is free.
using UtilisationBar = char[kBarCells + 3];
void draw_utilisation(const PoolUse &use, UtilisationBar &bar) noexcept;

// "9/10", in seven characters at most: numbers that would not fit are cut to
// thousands, "12k/15k".
using UseText = char[8];
void write_use(const PoolUse &use, UseText &text) noexcept;

// Milliseconds in six characters at most: "0.05", "12.3", "1234", then "999999".
using TimeText = char[7];
void write_ms(std::uint64_t time_us, TimeText &text) noexcept;

// One word, seven characters at most: "idle" (nothing in use), "ok", "busy" (four
// of five in use), "full" (all of them, and nobody waits), "waiting" (clients are),
// "stuck" (clients seem to wait for each other).
const char *use_word(const PoolUse &use) noexcept;

// How many columns of `columns` the names of database and role get, beside the
// slash between them.  What one does not need is the other's.
struct LabelWidths {
  std::size_t database = 0;
  std::size_t role = 0;
};
LabelWidths share_label(std::size_t database, std::size_t role, std::size_t columns) noexcept;

}  // namespace sluice

#endif
