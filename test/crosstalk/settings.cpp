// SPDX-License-Identifier: PostgreSQL
//
// Settings and roles: SET, SET LOCAL, set_config() in all places it can be called from, RESET, SET ROLE, SET SESSION
// AUTHORIZATION, DISCARD.

#include <algorithm>

#include "operations.hpp"

namespace crosstalk {

bool is_superuser(const Client &client) {
  const auto &superusers = client.world.options.superusers;
  return std::count(superusers.begin(), superusers.end(), client.model.current_user()) > 0;
}

std::string place(const Client &client) {
  const std::string path = client.model.get("search_path");
  return path[0] == '"' ? "public" : path.substr(0, path.find(','));
}

namespace {

const SettingKind *choose_setting(Client &client) {
  const SettingKind &kind = client.dice.one_of(setting_kinds());
  return kind.superuser_only && !is_superuser(client) ? nullptr : &kind;
}

std::string choose_value(Client &client, const SettingKind &kind) {
  if (!kind.values.empty()) return client.dice.one_of(kind.values);
  return "client " + std::to_string(client.uid) + "." + std::to_string(client.dice.below(1000));
}

std::string set_command(const std::string &scope, const std::string &name, const std::string &value) {
  // A list of schemas is a list, and not a schema with a comma in its name.
  const std::string literal = name == "search_path" ? value : "'" + value + "'";
  return "SET " + scope + name + " = " + literal;
}

bool set(Client &client) {
  const SettingKind *kind = choose_setting(client);
  if (kind == nullptr) return false;
  const std::string name = kind->name, value = choose_value(client, *kind);
  switch (client.dice.below(4)) {
    case 0:
      client.expect(set_command("", name, value), "SET");
      break;
    case 1:
      client.expect(set_command("SESSION ", name, value), "SET");
      break;
    case 2:
      client.expect("SELECT set_config('" + name + "', '" + value + "', false)", value);
      break;
    default:
      client.expect_parameter("SELECT set_config('" + name + "', $1, false)", value, value);
      break;
  }
  client.model.set(name, value, false);
  return true;
}

bool set_in_function(Client &client) {
  const SettingKind *kind = choose_setting(client);
  if (kind == nullptr) return false;
  const std::string name = kind->name, value = choose_value(client, *kind);
  const bool local = client.dice.percent(30);
  const std::string arguments = "('" + name + "', '" + value + "', " + (local ? "true" : "false") + ")";
  if (client.dice.percent(50))
    client.expect("DO $$BEGIN PERFORM set_config" + arguments + "; END$$", "DO");
  else
    client.expect("SELECT crosstalk.put" + arguments, value);
  client.model.set(name, value, local);
  return true;
}

bool set_local(Client &client) {
  const SettingKind *kind = choose_setting(client);
  if (kind == nullptr) return false;
  const std::string name = kind->name, value = choose_value(client, *kind);
  client.expect(set_command("LOCAL ", name, value),
                client.model.in_block() ? "SET" : "WARNING: SET LOCAL can only be used in transaction blocks;SET");
  client.model.set(name, value, true);
  return true;
}

bool set_in_one_message(Client &client) {
  const SettingKind *kind = choose_setting(client);
  if (kind == nullptr) return false;
  const std::string name = kind->name, value = choose_value(client, *kind);
  const std::string show = "SELECT current_setting('" + name + "')";
  if (client.dice.percent(50)) {
    client.expect("BEGIN; " + set_command("LOCAL ", name, value) + "; " + show + "; COMMIT",
                  "BEGIN;SET;" + value + ";COMMIT");
    client.model.set(name, value, true);
  } else {
    // An error takes back what was set before it in the same message.
    client.expect(set_command("", name, value) + "; " + show + "; SELECT 1/0",
                  "SET;" + value + ";ERROR: division by zero");
    client.model.set(name, value, true);
  }
  return true;
}

bool reset(Client &client) {
  const SettingKind *kind = choose_setting(client);
  if (kind == nullptr) return false;
  const std::string name = kind->name;
  const bool by_name = client.dice.percent(70);
  client.expect(by_name ? "RESET " + name : "SET " + name + " TO DEFAULT", by_name ? "RESET" : "SET");
  client.model.reset(name);
  return true;
}

bool reset_all(Client &client) {
  client.expect("RESET ALL", "RESET");
  client.model.reset_all();
  return true;
}

bool bad_value(Client &client) {
  client.expect_error("SET work_mem = 'lots'", "invalid value for parameter \"work_mem\": \"lots\"");
  return true;
}

bool function_with_setting(Client &client) {
  client.expect("SELECT crosstalk.with_setting(), current_setting('work_mem')", "33MB|" + client.model.get("work_mem"));
  return true;
}

bool set_role(Client &client) {
  const std::string team = client.dice.percent(50) ? "crosstalk_red" : "crosstalk_blue";
  const bool local = client.model.in_block() && client.dice.percent(30);
  if (client.dice.percent(15)) {
    client.expect("SELECT set_config('role', '" + team + "', false)", team);
    client.model.set("role", team, false);
    return true;
  }
  client.expect(std::string("SET ") + (local ? "LOCAL " : "") + "ROLE " + team, "SET");
  client.model.set("role", team, local);
  return true;
}

bool reset_role(Client &client) {
  const bool by_name = client.dice.percent(50);
  client.expect(by_name ? "RESET ROLE" : "SET ROLE NONE", by_name ? "RESET" : "SET");
  if (by_name)
    client.model.reset("role");
  else
    client.model.set("role", "none", false);
  return true;
}

bool set_forbidden_role(Client &client) {
  const auto &superusers = client.world.options.superusers;
  if (std::count(superusers.begin(), superusers.end(), client.model.session_user()) > 0) return false;
  client.expect_error("SET ROLE crosstalk_stranger", "permission denied to set role \"crosstalk_stranger\"");
  return true;
}

bool set_session_authorization(Client &client) {
  if (!client.superuser) {
    client.expect_error("SET SESSION AUTHORIZATION crosstalk_red",
                        "permission denied to set session authorization \"crosstalk_red\"");
    return true;
  }
  // How a local role and a new session user go together is a riddle of its own.
  if (client.model.now.local.count("role") != 0) return false;
  const std::string role = client.dice.one_of(client.world.options.roles);
  client.expect("SET SESSION AUTHORIZATION " + role, "SET");
  client.model.set_session_authorization(role);
  return true;
}

bool reset_session_authorization(Client &client) {
  if (!client.superuser || client.model.now.local.count("role") != 0) return false;
  const bool by_name = client.dice.percent(50);
  client.expect(by_name ? "RESET SESSION AUTHORIZATION" : "SET SESSION AUTHORIZATION DEFAULT",
                by_name ? "RESET" : "SET");
  client.model.set_session_authorization(client.role);
  return true;
}

bool discard(Client &client) {
  if (client.model.in_block()) {
    client.expect_error("DISCARD ALL", "DISCARD ALL cannot run inside a transaction block");
    return true;
  }
  switch (client.dice.below(6)) {
    case 0:
      client.expect("DISCARD SEQUENCES", "DISCARD SEQUENCES");
      client.model.sequences.clear();
      client.model.last_sequence.clear();
      return true;
    case 1:
      client.expect("DISCARD TEMP", "DISCARD TEMP");
      client.model.now.tables.clear();
      return true;
    case 2:
      client.expect("DISCARD PLANS", "DISCARD PLANS");
      return true;
    default:
      break;
  }
  // Includes UNLISTEN: what is under way must have arrived before.
  if (client.notifiers > 0) return false;
  client.unsure = true;
  client.wait_for_notifications();
  client.expect("DISCARD ALL", "DISCARD ALL");
  client.model.discard_all();
  client.unsure = false;
  check_everything(client);
  return true;
}

}  // namespace

std::vector<Operation> setting_operations() {
  using Where = Operation::Where;
  return {
      {"set", 20, Where::anywhere, set},
      {"set_in_function", 8, Where::anywhere, set_in_function},
      {"set_local", 4, Where::in_block, set_local},
      {"set_local_outside", 1, Where::alone, set_local},
      {"set_in_one_message", 3, Where::alone, set_in_one_message},
      {"reset", 6, Where::anywhere, reset},
      {"reset_all", 2, Where::anywhere, reset_all},
      {"bad_value", 1, Where::anywhere, bad_value},
      {"function_with_setting", 2, Where::anywhere, function_with_setting},
      {"set_role", 5, Where::anywhere, set_role},
      {"reset_role", 4, Where::anywhere, reset_role},
      {"set_forbidden_role", 1, Where::anywhere, set_forbidden_role},
      {"set_session_authorization", 3, Where::anywhere, set_session_authorization},
      {"reset_session_authorization", 3, Where::anywhere, reset_session_authorization},
      {"discard", 2, Where::alone, discard},
      {"discard_in_block", 1, Where::in_block, discard},
  };
}

}  // namespace crosstalk
