// SPDX-License-Identifier: PostgreSQL
//
// What the text of a statement means depends on settings: parse analysis reads
// its literals under them ('01/02/2003', '2 BC', '\x', NULL in arrays), once, and
// a prepared statement keeps what came out.  So a statement is kept together with
// the values of these settings, and is analysed under them wherever that happens.
//
// Two hashes.  The meaning: of the settings that the scanner, parse analysis and
// input functions look at.  The key: of these, of those the planner looks at, of
// search_path and of the role in force; statements are shared by key, so that
// nobody gets a plan made for other circumstances.  Everything else (settings of
// the application, output formats) has no part in it.

#ifndef SLUICE_PG_SESSION_PARSE_SETTINGS_HPP
#define SLUICE_PG_SESSION_PARSE_SETTINGS_HPP

#include "pg/compat.hpp"

#include <cstdint>

namespace sluice::pg {

struct ParseSettings {
  std::uint64_t key;
  std::uint64_t meaning;
  const char *text;  // the values that make the meaning, in a fixed order, each with its terminating zero
  std::uint32_t length;
};

// Those in force.  Well under a microsecond, and no memory is taken unless the
// values differ from those of the call before.  The text is valid until the next
// call.
ParseSettings current_parse_settings();

// The meaning alone.  Never raises, once current_parse_settings() has been called.
std::uint64_t current_meaning();

// From here to resume_settings(level) the settings are those of `text`, and what
// analysis remarks (notices, warnings) is heard by nobody: the client has heard it.
// An error in between restores them with the transaction or subtransaction; in an aborted
// one, where it would not, nothing is changed: only what ends it is analysed there.
int assume_settings(const char *text, std::uint32_t length);
void resume_settings(int level);

}  // namespace sluice::pg

#endif
