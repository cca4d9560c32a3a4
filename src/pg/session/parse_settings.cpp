// SPDX-License-Identifier: PostgreSQL
#include "pg/compat.hpp"

#include "pg/session/parse_settings.hpp"

extern "C" {
#include "access/xact.h"
#include "common/hashfn.h"
#include "lib/stringinfo.h"
#include "utils/elog.h"
#include "utils/guc_tables.h"
#include "utils/memutils.h"
}

namespace sluice::pg {

// What is read while a text is scanned and analysed: quoting, "= NULL", and the
// input functions of date and time types, money, xml and arrays.  Input functions of
// other types look at no settings.  Plans are made again when session_replication_role
// or row_security changes; the plan cache sees to that.
static const char *const kMeaningNames[] = {
    "standard_conforming_strings", "backslash_quote", "transform_null_equals", "array_nulls", "xmloption",
    "DateStyle",                   "IntervalStyle",   "TimeZone",              "timezone_abbreviations",
    "lc_monetary"};
constexpr int kMeaningCount = static_cast<int>(lengthof(kMeaningNames));
constexpr int kMaxPlannerSettings = 128;
constexpr int kNoSettingsAssumed = 0;

static config_generic *meaning_records[kMeaningCount];
static config_generic *planner_records[kMaxPlannerSettings];
static int planner_count = 0;
static config_string *search_path_record = nullptr;
static bool has_records = false;

static std::uint64_t rendered_meaning = 0;
static StringInfoData rendered;

// Records of the server's own settings stay where they are.
static void find_records() {
  int count;
  config_generic **records = all_settings(&count);

  for (int i = 0; i < count; i++) {
    config_generic *record = records[i];
    for (int j = 0; j < kMeaningCount; j++)
      if (strcmp(record->name, kMeaningNames[j]) == 0) meaning_records[j] = record;
    if (strcmp(record->name, "search_path") == 0)
      search_path_record = reinterpret_cast<config_string *>(record);
    else if ((record->flags & GUC_EXPLAIN) != 0 && (record->flags & GUC_CUSTOM_PLACEHOLDER) == 0 &&
             record->group != CUSTOM_OPTIONS && record->vartype != PGC_STRING && planner_count < kMaxPlannerSettings)
      planner_records[planner_count++] = record;
  }
  for (int j = 0; j < kMeaningCount; j++)
    if (meaning_records[j] == nullptr) elog(ERROR, "there is no setting \"%s\"", kMeaningNames[j]);
  MemoryContext caller = MemoryContextSwitchTo(TopMemoryContext);
  initStringInfo(&rendered);
  MemoryContextSwitchTo(caller);
  has_records = true;
}

static std::uint64_t mix(std::uint64_t hash, const void *bytes, std::size_t length) {
  return hash_bytes_extended(static_cast<const unsigned char *>(bytes), static_cast<int>(length), hash);
}

static const char *string_value(const config_generic *record) {
  const char *value = *reinterpret_cast<const config_string *>(record)->variable;
  return value == nullptr ? "" : value;
}

// The value of a setting that is no string, as eight bytes.
static std::uint64_t plain_value(const config_generic *record) {
  std::uint64_t bits = 0;
  switch (record->vartype) {
    case PGC_BOOL:
      return *reinterpret_cast<const config_bool *>(record)->variable ? 1 : 0;
    case PGC_INT:
      return static_cast<std::uint64_t>(*reinterpret_cast<const config_int *>(record)->variable);
    case PGC_ENUM:
      return static_cast<std::uint64_t>(*reinterpret_cast<const config_enum *>(record)->variable);
    case PGC_REAL:
      memcpy(&bits, reinterpret_cast<const config_real *>(record)->variable, sizeof(bits));
      return bits;
    default:
      return 0;
  }
}

std::uint64_t current_meaning() {
  std::uint64_t plain[kMeaningCount];
  std::uint64_t hash = 1;
  int plain_count = 0;

  if (!has_records) return 0;
  for (const config_generic *record : meaning_records) {
    if (record->vartype == PGC_STRING) {
      const char *value = string_value(record);
      hash = mix(hash, value, strlen(value) + 1);
    } else {
      plain[plain_count++] = plain_value(record);
    }
  }
  return mix(hash, plain, static_cast<std::size_t>(plain_count) * sizeof(plain[0]));
}

static std::uint64_t current_key(std::uint64_t meaning) {
  std::uint64_t plain[kMaxPlannerSettings + 1];
  const char *search_path = string_value(&search_path_record->gen);

  for (int i = 0; i < planner_count; i++) plain[i] = plain_value(planner_records[i]);
  plain[planner_count] = GetUserId();
  return mix(mix(meaning, plain, static_cast<std::size_t>(planner_count + 1) * sizeof(plain[0])), search_path,
             strlen(search_path));
}

static const char *value_text(config_generic *record) {
  switch (record->vartype) {
    case PGC_BOOL:
      return *reinterpret_cast<config_bool *>(record)->variable ? "on" : "off";
    case PGC_ENUM: {
      auto *setting = reinterpret_cast<config_enum *>(record);
      return config_enum_lookup_by_value(setting, *setting->variable);
    }
    default:
      return string_value(record);
  }
}

ParseSettings current_parse_settings() {
  if (!has_records) find_records();
  const std::uint64_t meaning = current_meaning();
  if (meaning != rendered_meaning) {
    rendered_meaning = 0;
    resetStringInfo(&rendered);
    for (config_generic *record : meaning_records) {
      const char *value = value_text(record);
      appendBinaryStringInfo(&rendered, value, static_cast<int>(strlen(value)) + 1);
    }
    rendered_meaning = meaning;
  }
  return ParseSettings{current_key(meaning), meaning, rendered.data, static_cast<std::uint32_t>(rendered.len)};
}

static void assume(const char *name, const char *value) {
  (void)set_config_option(name, value, PGC_SUSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, ERROR, false);
}

int assume_settings(const char *text, std::uint32_t length) {
  // The end of an aborted transaction does not restore settings any more.
  if (IsAbortedTransactionBlockState()) return kNoSettingsAssumed;
  const char *end = text + length;
  const int level = NewGUCNestLevel();

  if (!has_records) find_records();
  if (client_min_messages < ERROR) assume("client_min_messages", "error");
  if (log_min_messages < ERROR) assume("log_min_messages", "error");
  for (config_generic *record : meaning_records) {
    if (text >= end) break;
    if (strcmp(value_text(record), text) != 0) assume(record->name, text);
    text += strlen(text) + 1;
  }
  return level;
}

void resume_settings(int level) {
  if (level != kNoSettingsAssumed) AtEOXact_GUC(true, level);
}

}  // namespace sluice::pg
