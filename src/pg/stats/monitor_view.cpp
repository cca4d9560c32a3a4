// SPDX-License-Identifier: PostgreSQL
//
// sluice.monitor: a line for each pool, at most 80 columns wide.
//
// Backends are counted by looking at their slots, waiting clients by the pool's
// gauge: looking at all clients each second for one number would be a waste.  The
// numbers of a second are those of the latest sample of the history, if it is not
// older than kFreshUs.

#include "pg/stats/view_row.hpp"

extern "C" {
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
}

#include <cstring>

#include "core/stats/pool_sampler.hpp"
#include "core/stats/utilisation_bar.hpp"
#include "pg/shared_memory.hpp"
#include "pg/stats/snapshot.hpp"

namespace sluice::pg {

namespace {

constexpr std::size_t kLabelColumns = 14;
constexpr TimestampTz kFreshUs = 3'000'000;
constexpr std::uint64_t kGreatestRate = 9'999'999;  // seven digits

// The text of a name as the current database can show it, cut to `columns`.
void append_cut(StringInfo label, const char *name, std::size_t columns) {
  const bool in_utf8 = GetDatabaseEncoding() == PG_UTF8;
  std::size_t used = 0;
  const char *next = name;
  const char *kept = name;  // end of what leaves room for the mark
  for (; *next != '\0'; next += pg_mblen(next)) {
    const int width = Max(pg_dsplen(next), 0);
    if (used + static_cast<std::size_t>(width) > columns) break;
    used += static_cast<std::size_t>(width);
    if (used < columns) kept = next + pg_mblen(next);
  }
  if (*next == '\0') {
    appendStringInfoString(label, name);
    return;
  }
  appendBinaryStringInfo(label, name, static_cast<int>(kept - name));
  appendStringInfoString(label, in_utf8 ? "\xe2\x80\xa6" : "~");
}

std::size_t display_columns(const char *name) {
  std::size_t columns = 0;
  for (; *name != '\0'; name += pg_mblen(name)) columns += static_cast<std::size_t>(Max(pg_dsplen(name), 0));
  return columns;
}

// A line break or the like would not fit into a line.
char *shown_name(const char *name) {
  char *shown = displayable(name);
  for (char *c = shown; *c != '\0'; c += pg_mblen(c)) {
    const auto byte = static_cast<unsigned char>(*c);
    if (byte < 0x20 || byte == 0x7f) *c = '?';
  }
  return shown;
}

void put_label(ViewRow &row, const PoolNames &names) {
  StringInfoData label;
  const char *database = shown_name(names.database);
  const char *role = shown_name(names.role);
  const LabelWidths widths = share_label(display_columns(database), display_columns(role), kLabelColumns);
  initStringInfo(&label);
  append_cut(&label, database, widths.database);
  appendStringInfoChar(&label, '/');
  append_cut(&label, role, widths.role);
  put_text(row, label.data);
}

PoolUse look_at_pool(std::uint32_t index) {
  const SharedState &state = shared();
  const PoolSlot &pool = state.pools[index];
  PoolUse use;
  for (std::uint32_t i = 0; i < state.header->backend_slots; i++) {
    if (state.backends[i].pool.load(std::memory_order_relaxed) != index) continue;
    switch (static_cast<BackendState>(state.backends[i].state.load(std::memory_order_relaxed))) {
      case BackendState::assigned:
      case BackendState::active:
        use.executing++;
        break;
      case BackendState::thinking:
      case BackendState::held:
      case BackendState::pinned:
        use.resting++;
        break;
      case BackendState::free:
      case BackendState::starting:
      case BackendState::waiting:
      case BackendState::lingering:
      case BackendState::retiring:
      case BackendState::failed:
        break;
    }
  }
  use.max_size = pool.max_size.load(std::memory_order_relaxed);
  use.waiting = Max(pool.queued.load(std::memory_order_relaxed), 0);
  use.stuck = pool.nested_since_us.load(std::memory_order_relaxed) != 0;
  return use;
}

void put_last_second(ViewRow &row, std::uint32_t database_oid, std::uint32_t role_oid) {
  HistorySample sample;
  const bool fresh = copy_pool_history(shared(), database_oid, role_oid, &sample, 1) == 1 &&
                     GetCurrentTimestamp() - sample.at <= kFreshUs;
  const auto rate = static_cast<std::uint64_t>(sample.transactions_per_second() + 0.5);
  put_bigint_or_null(row, Min(rate, kGreatestRate), fresh);
  TimeText wait;
  write_ms(sample.wait_p99_us, wait);
  if (fresh && sample.wait_p99_us != kUnknownTime)
    put_numeric(row, wait);
  else
    put_null(row);
}

}  // namespace

extern "C" {

PG_FUNCTION_INFO_V1(sluice_monitor);

PGDLLEXPORT Datum sluice_monitor(PG_FUNCTION_ARGS) {
  require_shared_memory();
  InitMaterializedSRF(fcinfo, 0);

  for (std::uint32_t i = 0; i < shared().header->max_pools; i++) {
    PoolNames names;
    if (!copy_pool_names(i, names)) continue;
    const std::uint32_t database_oid = shared().pools[i].database_oid;
    const PoolUse use = look_at_pool(i);
    UtilisationBar bar;
    UseText in_use;
    draw_utilisation(use, bar);
    write_use(use, in_use);
    ViewRow row;
    start_row(row);
    put_label(row, names);
    put_text(row, bar);
    put_text(row, in_use);
    put_int(row, use.waiting);
    put_last_second(row, database_oid, names.role_oid);
    put_text(row, use_word(use));
    emit_row(fcinfo, row);
  }
  return static_cast<Datum>(0);
}

}  // extern "C"

}  // namespace sluice::pg
