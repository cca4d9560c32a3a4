// SPDX-License-Identifier: PostgreSQL
//
// The server's records of settings: found by name, written as text, and, for
// custom settings that a client has made up, hidden from other clients.

#ifndef SLUICE_PG_SESSION_SETTING_RECORDS_HPP
#define SLUICE_PG_SESSION_SETTING_RECORDS_HPP

#include "pg/compat.hpp"

extern "C" {
#include "lib/stringinfo.h"
#include "utils/guc_tables.h"
}

namespace sluice::pg {

// The record of that name, also of a former name of a setting; null when the
// server knows none.  Makes no placeholder and raises nothing.
config_generic *find_setting(const char *name);

// The server's order of names: < 0, 0, > 0.
int compare_setting_names(const char *left, const char *right);

// Appends the value as the setting can be given again, exactly: no units, reals
// with all digits; nothing for a string without a value.
void append_setting_value(StringInfo text, const config_generic *record);

// True for a custom setting nobody has defined, made up by a SET of this session
// (not by a configuration file, a role or a start-up packet).
bool is_made_up_in_session(const config_generic *record);

// A placeholder cannot be removed.  While it is hidden its name is unknown, as in
// a session that never used it; others may make it up anew.
void hide_setting(config_generic *record);
bool is_hidden(const config_generic *record);

// Brings a hidden one back instead of making another.  False when there is none.
bool unhide_setting(const char *name);

// How many are hidden: they stay for the life of the process.
int count_hidden_settings();

}  // namespace sluice::pg

#endif
