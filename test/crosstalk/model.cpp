// SPDX-License-Identifier: PostgreSQL

#include "model.hpp"

#include <algorithm>
#include <utility>

namespace crosstalk {

const std::vector<SettingKind> &setting_kinds() {
  static const std::vector<SettingKind> kinds = {
      {"work_mem", {"2MB", "3MB", "6MB", "7MB", "11MB"}},
      {"search_path", {"s1", "s2", "s3", "s4", "s5, public", "s6", "s7, s1", "s8", "public"}},
      {"DateStyle", {"ISO, DMY", "SQL, DMY", "German, DMY", "Postgres, MDY"}, false, true},
      {"TimeZone", {"UTC", "Europe/Berlin", "Asia/Tokyo", "America/New_York"}, false, true},
      {"IntervalStyle", {"postgres", "iso_8601", "sql_standard"}, false, true},
      {"application_name", {}, false, true},
      {"client_encoding", {"UTF8", "LATIN1"}, false, true},
      {"statement_timeout", {"301s", "302s", "303s", "304s"}},
      {"extra_float_digits", {"-5", "-2", "0", "1", "3"}},
      {"bytea_output", {"hex", "escape"}},
      {"default_transaction_isolation", {"read committed", "repeatable read"}},
      {"app.user_id", {"1", "2", "3", "7", "19", "26", "33", "48", "50"}, true},
      {"app.tenant", {}, true},
      {"track_functions", {"pl", "all"}, false, false, true},
  };
  return kinds;
}

Model::Model(std::string login_role, Values defaults) : defaults_(std::move(defaults)) {
  defaults_["role"] = "none";
  defaults_["session_authorization"] = std::move(login_role);
}

void Model::begin() {
  levels_.push_back(now);
  aborted_ = false;
}

void Model::commit() {
  if (aborted_) {
    rollback();
    return;
  }
  levels_.clear();
  now.local.clear();
  now.transaction_locks.clear();
  for (auto table = now.tables.begin(); table != now.tables.end();) {
    if (table->second.on_commit == TemporaryTable::OnCommit::delete_rows) table->second.rows = 0;
    table = table->second.on_commit == TemporaryTable::OnCommit::drop ? now.tables.erase(table) : std::next(table);
  }
  if (cursor) cursor->level = 0;
}

void Model::rollback() {
  now = levels_.front();
  drop_cursor_from(1);
  levels_.clear();
  aborted_ = false;
}

void Model::savepoint() { levels_.push_back(now); }

void Model::rollback_to(std::size_t savepoint) {
  now = levels_[savepoint];
  levels_.resize(savepoint + 1);
  drop_cursor_from(savepoint + 1);
  aborted_ = false;
}

void Model::release(std::size_t savepoint) {
  levels_.resize(savepoint);
  if (cursor) cursor->level = std::min(cursor->level, savepoint);
}

void Model::fail() {
  if (levels_.empty()) return;
  now = levels_.back();
  drop_cursor_from(levels_.size());
  aborted_ = true;
}

void Model::drop_cursor_from(std::size_t level) {
  if (cursor && cursor->level >= level) cursor.reset();
}

void Model::set(const std::string &name, const std::string &value, bool local) {
  known_.insert(name);
  if (!local) {
    now.session[name] = value;
    now.local.erase(name);
  } else if (in_block()) {
    now.local[name] = value;
  }
}

void Model::reset(const std::string &name) {
  known_.insert(name);
  now.session.erase(name);
  now.local.erase(name);
}

void Model::reset_all() {
  for (Values *values : {&now.session, &now.local})
    for (auto value = values->begin(); value != values->end();)
      value = value->first == "role" || value->first == "session_authorization" ? std::next(value)
                                                                                : values->erase(value);
}

std::optional<std::string> Model::get_if_known(const std::string &name) const {
  for (const Values *values : {&now.local, &now.session, &defaults_}) {
    const auto value = values->find(name);
    if (value != values->end()) return value->second;
  }
  if (known_.count(name) != 0) return "";
  return std::nullopt;
}

std::string Model::get(const std::string &name) const { return get_if_known(name).value_or(""); }

void Model::set_session_authorization(const std::string &role) {
  if (role == defaults_.at("session_authorization"))
    reset("session_authorization");
  else
    set("session_authorization", role, false);
  reset("role");
}

std::string Model::current_user() const {
  const std::string role = get("role");
  return role == "none" ? session_user() : role;
}

void Model::discard_all() {
  now.session.clear();
  now.local.clear();
  now.tables.clear();
  now.listening = false;
  statements.clear();
  session_locks.clear();
  sequences.clear();
  last_sequence.clear();
  cursor.reset();
}

bool Model::pinning() const {
  return !now.tables.empty() || !session_locks.empty() || now.listening || cursor.has_value();
}

}  // namespace crosstalk
