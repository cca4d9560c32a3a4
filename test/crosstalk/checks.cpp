// SPDX-License-Identifier: PostgreSQL
//
// Checks of a whole kind of session state at a time: nothing is missing, and nothing of anybody else is there.

#include <stdio.h>
#include <stdlib.h>

#include "operations.hpp"

namespace crosstalk {

namespace {

std::string or_null(const std::string &list) { return list.empty() ? "<NULL>" : list; }

void append(std::string &list, const std::string &item) { list += (list.empty() ? "" : ",") + item; }

bool check_settings(Client &client) {
  std::string query = "SELECT pg_backend_pid(), current_user, session_user";
  std::string expected = client.model.current_user() + "|" + client.model.session_user();
  for (const SettingKind &kind : setting_kinds()) {
    query += std::string(", current_setting('") + kind.name + "', true)";
    expected += "|" + client.model.get_if_known(kind.name).value_or("<NULL>");
  }
  const std::string got = client.ask(query);
  const std::size_t end_of_pid = got.find('|');
  if (end_of_pid == std::string::npos) client.mismatch(query, expected, got);
  client.compare(query, expected, got.substr(end_of_pid + 1));
  client.note_backend(got.substr(0, end_of_pid));
  return true;
}

// Settings do what they say.
bool check_effects(Client &client) {
  const Model &model = client.model;
  static const std::map<std::string, std::string> dates = {
      {"ISO", "2026-03-04"}, {"SQL, DMY", "04/03/2026"}, {"SQL, MDY", "03/04/2026"}, {"German", "04.03.2026"},
      {"Postgres, DMY", "04-03-2026"}, {"Postgres, MDY", "03-04-2026"}};
  static const std::map<std::string, std::string> intervals = {
      {"postgres", "1 day 02:00:00"}, {"iso_8601", "P1DT2H"}, {"sql_standard", "1 2:00:00"}};
  static const std::map<std::string, std::string> offsets = {
      {"UTC", "0"}, {"Etc/UTC", "0"}, {"GMT", "0"}, {"Europe/Berlin", "3600"}, {"Asia/Tokyo", "32400"},
      {"America/New_York", "-18000"}};
  const std::string date_style = model.get("DateStyle");
  auto date = dates.find(date_style);
  if (date == dates.end()) date = dates.find(date_style.substr(0, date_style.find(',')));
  const auto interval = intervals.find(model.get("IntervalStyle"));
  const auto offset = offsets.find(model.get("TimeZone"));
  if (date == dates.end() || interval == intervals.end() || offset == offsets.end()) return false;

  const int digits = static_cast<int>(strtol(model.get("extra_float_digits").c_str(), nullptr, 10));
  char third[40];
  snprintf(third, sizeof third, "%.*g", digits > 0 ? 16 : 15 + digits, 1.0 / 3.0);
  client.expect(
      "SELECT date '2026-03-04', interval '1 day 2 hours', "
      "extract(timezone FROM timestamptz '2026-01-15 12:00Z')::int, 1::float8 / 3, '\\x41'::bytea, chr(233), "
      "(SELECT name FROM here), current_setting('transaction_isolation')",
      date->second + "|" + interval->second + "|" + offset->second + "|" + third + "|" +
          (model.get("bytea_output") == "hex" ? "\\x41" : "A") + "|" +
          (model.get("client_encoding") == "LATIN1" ? "\xe9" : "\xc3\xa9") + "|" + place(client) + "|" +
          (model.in_block() ? client.isolation : model.get("default_transaction_isolation")));
  return true;
}

bool check_statements(Client &client) {
  std::string expected;
  for (const auto &[name, statement] : client.model.statements)
    expected += (expected.empty() ? "" : "\n") + name + "|" + statement.text + "|" + (statement.from_sql ? "t" : "f");
  client.expect("SELECT name, statement, from_sql FROM pg_prepared_statements ORDER BY name COLLATE \"C\"",
                expected.empty() ? "(none)" : expected);
  return true;
}

bool check_tables(Client &client) {
  std::string expected;
  for (const auto &[name, table] : client.model.now.tables) append(expected, name);
  client.expect(
      "SELECT string_agg(relname, ',' ORDER BY relname COLLATE \"C\") FROM pg_class "
      "WHERE relnamespace = pg_my_temp_schema() AND relkind = 'r'",
      or_null(expected));
  return true;
}

bool check_locks(Client &client) {
  std::set<long> keys = client.model.now.transaction_locks;
  for (const auto &[key, count] : client.model.session_locks) keys.insert(key);
  std::string expected;
  for (const long key : keys) append(expected, std::to_string(key));
  client.expect(
      "SELECT string_agg(key::text, ',' ORDER BY key) FROM (SELECT classid::bigint << 32 | objid::bigint AS key "
      "FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) AS held",
      or_null(expected));
  return true;
}

bool check_channels(Client &client) {
  // Inside a block LISTEN has not happened yet.
  if (client.model.in_block()) return false;
  client.expect("SELECT string_agg(channel, ',') FROM pg_listening_channels() AS channel",
                client.model.now.listening ? "news_" + std::to_string(client.number) : "<NULL>");
  return true;
}

bool check_cursors(Client &client) {
  client.expect("SELECT string_agg(name, ',') FROM pg_cursors WHERE name <> ''", client.model.cursor ? "hc" : "<NULL>");
  return true;
}

// Asks for the value of each sequence the session has used, and in turn for one it has not: that is an error.
bool check_sequences(Client &client) {
  const Model &model = client.model;
  for (const auto &[sequence, value] : model.sequences)
    client.expect("SELECT currval('" + sequence + "')", std::to_string(value));
  if (!model.last_sequence.empty())
    client.expect("SELECT lastval()", std::to_string(model.sequences.at(model.last_sequence)));
  else if (!model.in_block() || client.dice.percent(20))
    client.expect_error("SELECT lastval()", "lastval is not yet defined in this session");
  if (!model.aborted() && model.sequences.count("crosstalk.shared") == 0 && client.dice.percent(20))
    client.expect_error("SELECT currval('crosstalk.shared')",
                        "currval of sequence \"shared\" is not yet defined in this session");
  return true;
}

bool check_note(Client &client) {
  client.expect("SELECT value FROM crosstalk.notes WHERE uid = " + std::to_string(client.uid),
                client.model.now.note ? std::to_string(*client.model.now.note) : "(none)");
  return true;
}

}  // namespace

std::vector<Operation> check_operations() {
  using Where = Operation::Where;
  return {
      {"check_settings", 40, Where::anywhere, check_settings},
      {"check_effects", 12, Where::anywhere, check_effects},
      {"check_statements", 10, Where::anywhere, check_statements},
      {"check_tables", 6, Where::anywhere, check_tables},
      {"check_locks", 6, Where::anywhere, check_locks},
      {"check_channels", 4, Where::alone, check_channels},
      {"check_cursors", 4, Where::anywhere, check_cursors},
      {"check_note", 6, Where::anywhere, check_note},
      // Ends with an error, sometimes.
      {"check_sequences", 10, Where::anywhere, check_sequences},
  };
}

void check_everything(Client &client) {
  static const std::vector<Operation> checks = check_operations();
  for (const Operation &check : checks)
    if (client.world.options.without.count(check.name) == 0) check.run(client);
}

}  // namespace crosstalk
