// SPDX-License-Identifier: PostgreSQL
//
// Hiding.  The server keeps records sorted by name and finds them by that order.
// A hidden placeholder gets the same name with a byte behind it that no name can
// contain and that sorts before all others: the order stays what it was, and no
// look-up finds it.  Placeholders are not shown by SHOW ALL or pg_settings.  Nor is
// it marked as one any more, or a library that reserves the prefix would tell
// another client about it.
//
// A client that uses a hidden name gets the hidden record again (the utility hook
// sees SET), or, through set_config(), makes another one.  So there may be several
// hidden records of one name.  The one brought back is always the first of them in
// the server's order, since the others have to stay behind it.

#include "pg/compat.hpp"

#include "pg/session/setting_records.hpp"

extern "C" {
#include "utils/builtins.h"
#include "utils/memutils.h"
}

namespace sluice::pg {

struct HiddenSetting {
  HiddenSetting *next;
  config_generic *record;
  const char *own_name;
};

constexpr char kHiddenMark = '\x01';

static HiddenSetting *hidden_settings = nullptr;
static int hidden_count = 0;

// ------------------------------------------------------------------ by name

// ASCII letters without case, whatever the locale.
int compare_setting_names(const char *left, const char *right) {
  for (;; left++, right++) {
    const char a = *left >= 'A' && *left <= 'Z' ? static_cast<char>(*left + ('a' - 'A')) : *left;
    const char b = *right >= 'A' && *right <= 'Z' ? static_cast<char>(*right + ('a' - 'A')) : *right;
    if (a != b) return a == '\0' ? -1 : b == '\0' ? 1 : a - b;
    if (a == '\0') return 0;
  }
}

// The place of the first record whose name is not before `name`.
static int find_place(config_generic **records, int count, const char *name) {
  int low = 0;
  while (low < count) {
    const int middle = low + (count - low) / 2;
    if (compare_setting_names(records[middle]->name, name) < 0)
      low = middle + 1;
    else
      count = middle;
  }
  return low;
}

static config_generic *find_exactly(const char *name) {
  int count;
  config_generic **records = all_settings(&count);
  const int place = find_place(records, count, name);
  return place < count && compare_setting_names(records[place]->name, name) == 0 ? records[place] : nullptr;
}

config_generic *find_setting(const char *name) {
  config_generic *record = find_exactly(name);
  if (record != nullptr) return record;
  const char *present_name = nullptr;
  (void)GetConfigOptionByName(name, &present_name, true);
  return present_name != nullptr && compare_setting_names(present_name, name) != 0 ? find_exactly(present_name) : nullptr;
}

// ------------------------------------------------------------------ as text

void append_setting_value(StringInfo text, const config_generic *record) {
  char number[64];

  switch (record->vartype) {
    case PGC_BOOL:
      appendStringInfoString(text, *reinterpret_cast<const config_bool *>(record)->variable ? "on" : "off");
      break;
    case PGC_INT:
      pg_ltoa(*reinterpret_cast<const config_int *>(record)->variable, number);
      appendStringInfoString(text, number);
      break;
    case PGC_REAL:
      pg_snprintf(number, sizeof(number), "%.17g", *reinterpret_cast<const config_real *>(record)->variable);
      appendStringInfoString(text, number);
      break;
    case PGC_STRING: {
      const char *value = *reinterpret_cast<const config_string *>(record)->variable;
      if (value != nullptr) appendStringInfoString(text, value);
      break;
    }
    case PGC_ENUM: {
      auto *setting = const_cast<config_enum *>(reinterpret_cast<const config_enum *>(record));
      appendStringInfoString(text, config_enum_lookup_by_value(setting, *setting->variable));
      break;
    }
  }
}

// ------------------------------------------------------------------ placeholders

bool is_hidden(const config_generic *record) {
  return record->group == CUSTOM_OPTIONS && record->name[strlen(record->name) - 1] == kHiddenMark;
}

bool is_made_up_in_session(const config_generic *record) {
  return (record->flags & GUC_CUSTOM_PLACEHOLDER) != 0 && record->reset_source == PGC_S_DEFAULT && !is_hidden(record);
}

void hide_setting(config_generic *record) {
  const std::size_t length = strlen(record->name);
  auto *hidden = static_cast<HiddenSetting *>(MemoryContextAlloc(TopMemoryContext, sizeof(HiddenSetting)));
  auto *name = static_cast<char *>(MemoryContextAlloc(TopMemoryContext, length + 2));

  memcpy(name, record->name, length);
  name[length] = kHiddenMark;
  name[length + 1] = '\0';
  hidden->record = record;
  hidden->own_name = record->name;
  hidden->next = hidden_settings;
  hidden_settings = hidden;
  hidden_count++;
  record->name = name;
  record->flags &= ~GUC_CUSTOM_PLACEHOLDER;
}

static void show_again(config_generic *record) {
  HiddenSetting **link = &hidden_settings;
  while ((*link)->record != record) link = &(*link)->next;
  HiddenSetting *hidden = *link;
  pfree(const_cast<char *>(record->name));
  record->name = hidden->own_name;
  record->flags |= GUC_CUSTOM_PLACEHOLDER;
  *link = hidden->next;
  pfree(hidden);
  hidden_count--;
}

bool unhide_setting(const char *name) {
  if (hidden_count == 0 || find_exactly(name) != nullptr) return false;
  char *hidden_name = psprintf("%s%c", name, kHiddenMark);
  config_generic *record = find_exactly(hidden_name);
  pfree(hidden_name);
  if (record == nullptr) return false;
  show_again(record);
  return true;
}

int count_hidden_settings() { return hidden_count; }

}  // namespace sluice::pg
