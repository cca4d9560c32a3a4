// SPDX-License-Identifier: PostgreSQL
//
// Prepared statements, of the protocol and of SQL: all clients use the same four names for different texts, with
// parameters of different types.  Also pipelines, large answers, and statements that fail.

#include "operations.hpp"

namespace crosstalk {

namespace {

std::string choose_name(Client &client) { return "p" + std::to_string(1 + client.dice.below(4)); }

// The attributes of type "pair" are in another order in every second schema.
bool number_first(const std::string &schema) { return schema == "public" || (schema.back() - '0') % 2 == 1; }

struct Text {
  const char *parameter_type;
  std::string query;
};

Text text_of(StatementKind kind, const Client &client) {
  const std::string uid = std::to_string(client.uid);
  switch (kind) {
    case StatementKind::number:
      return {"int", "SELECT $1::int + " + uid};
    case StatementKind::text:
      return {"text", "SELECT $1::text || '/" + uid + "'"};
    case StatementKind::place:
      return {"int", "SELECT name || '/" + uid + "' FROM here WHERE $1::int = 1"};
    case StatementKind::mood:
      return {"mood", "SELECT $1::text || '/" + uid + "'"};
    case StatementKind::pair:
      return {"pair", "SELECT ($1).a + " + uid + ", ($1).b"};
    case StatementKind::rows:
      return {"int", "SELECT count(*) FROM crosstalk.private_rows WHERE $1::int = 1"};
    default:
      return {"int", "SELECT current_user || '/' || coalesce(current_setting('app.user_id', true), 'never') || '/" +
                         uid + "' WHERE $1::int = 1"};
  }
}

// How many rows the policy of the table shows: user n has n % 7 + 1 of them.
long visible_rows(const Client &client) {
  const auto rows_of = [](long user) { return user % 7 + 1; };
  if (is_superuser(client)) {
    long all = 0;
    for (long user = 1; user <= 50; user++) all += rows_of(user);
    return all;
  }
  const std::string user = client.model.get("app.user_id");
  return user.empty() ? 0 : rows_of(std::stol(user));
}

struct Execution {
  std::string parameter, answer;
};

Execution execution_of(const Statement &statement, Client &client) {
  const std::string uid = std::to_string(client.uid);
  const long number = static_cast<long>(client.dice.below(1000));
  switch (statement.kind) {
    case StatementKind::number:
      return {std::to_string(number), std::to_string(number + client.uid)};
    case StatementKind::text:
      return {"t" + std::to_string(number), "t" + std::to_string(number) + "/" + uid};
    case StatementKind::place:
      return {"1", place(client) + "/" + uid};
    case StatementKind::mood: {
      if (client.dice.percent(15)) {
        const std::string type = place(client) == statement.schema ? "mood" : statement.schema + ".mood";
        return {"gloomy", "ERROR: invalid input value for enum " + type + ": \"gloomy\""};
      }
      const std::string label = statement.schema + (number % 2 ? "_calm" : "_wild");
      return {label, label + "/" + uid};
    }
    case StatementKind::pair: {
      const std::string n = std::to_string(number);
      return {number_first(statement.schema) ? "(" + n + ",x)" : "(x," + n + ")",
              std::to_string(number + client.uid) + "|x"};
    }
    case StatementKind::rows:
      return {"1", std::to_string(visible_rows(client))};
    default:
      return {"1", client.model.current_user() + "/" +
                       client.model.get_if_known("app.user_id").value_or("never") + "/" + uid};
  }
}

bool prepare(Client &client, bool from_sql) {
  const std::string name = choose_name(client);
  const auto kind = static_cast<StatementKind>(client.dice.below(static_cast<std::size_t>(StatementKind::count)));
  const Text text = text_of(kind, client);
  const std::string schema = place(client);
  const bool exists = client.model.statements.count(name) != 0;
  const std::string failure = "ERROR: prepared statement \"" + name + "\" already exists";
  Statement statement{kind, text.query, schema, from_sql};
  if (from_sql) {
    statement.text = "PREPARE " + name + "(" + text.parameter_type + ") AS " + text.query;
    client.expect(statement.text, exists ? failure : "PREPARE");
  } else {
    // Of a type the server cannot guess.
    const bool typed = kind == StatementKind::mood || kind == StatementKind::pair;
    const std::string type = typed ? client.type_oid(schema + "." + text.parameter_type) : "0";
    client.expect_prepare(name, text.query, type, exists ? failure : "");
  }
  if (exists)
    client.model.fail();
  else
    client.model.statements[name] = statement;
  return true;
}

bool prepare_sql(Client &client) { return prepare(client, true); }
bool prepare_protocol(Client &client) { return prepare(client, false); }

bool execute(Client &client, bool from_sql) {
  const std::string name = choose_name(client);
  const auto known = client.model.statements.find(name);
  Execution execution{"1", "ERROR: prepared statement \"" + name + "\" does not exist"};
  if (known != client.model.statements.end()) execution = execution_of(known->second, client);
  if (from_sql)
    client.expect("EXECUTE " + name + "('" + execution.parameter + "')", execution.answer);
  else
    client.expect_execute(name, execution.parameter, execution.answer);
  if (execution.answer.compare(0, 5, "ERROR") == 0) client.model.fail();
  return true;
}

bool execute_sql(Client &client) { return execute(client, true); }
bool execute_protocol(Client &client) { return execute(client, false); }

bool explain_execute(Client &client) {
  const std::string name = choose_name(client);
  const auto known = client.model.statements.find(name);
  if (known == client.model.statements.end() || known->second.kind != StatementKind::text) return false;
  client.expect("EXPLAIN (COSTS OFF) EXECUTE " + name + "('x')", "Result");
  return true;
}

bool deallocate(Client &client) {
  const std::string name = choose_name(client);
  if (client.model.statements.count(name) == 0) {
    client.expect_error("DEALLOCATE " + name, "prepared statement \"" + name + "\" does not exist");
    return true;
  }
  client.expect("DEALLOCATE " + name, "DEALLOCATE");
  client.model.statements.erase(name);
  return true;
}

bool deallocate_all(Client &client) {
  client.expect("DEALLOCATE ALL", "DEALLOCATE ALL");
  client.model.statements.clear();
  return true;
}

// --- pipelines

using Piece = Client::Piece;

bool pipeline(Client &client) {
  const std::string tenant = "piped " + std::to_string(client.uid) + "." + std::to_string(client.dice.below(1000));
  const std::string name = choose_name(client), uid = std::to_string(client.uid);
  const bool exists = client.model.statements.count(name) != 0, fails = client.dice.percent(35);
  std::vector<Piece> pieces = {
      {Piece::Kind::query, "SELECT set_config('app.tenant', $1, false)", "", tenant, tenant},
      {Piece::Kind::query, "SELECT current_setting('app.tenant', true)", "", tenant, {}},
      {Piece::Kind::query, "SELECT $1::int + " + uid, "", std::to_string(client.uid + 1), "1"},
  };
  if (!exists) {
    const Statement statement{StatementKind::text, text_of(StatementKind::text, client).query, place(client), false};
    pieces.push_back({Piece::Kind::prepare, statement.text, name, "", {}});
    pieces.push_back({Piece::Kind::execute, "", name, "piped/" + uid, "piped"});
    client.model.statements[name] = statement;
  }
  if (fails) {
    pieces.push_back({Piece::Kind::query, "SELECT 1/0", "", "ERROR: division by zero", {}});
    pieces.push_back({Piece::Kind::query, "SELECT 1", "", "skipped", {}});
  }
  pieces.push_back({Piece::Kind::sync, "", "", "sync", {}});
  // The first error takes back the setting, and in a block all that follows is refused.
  const std::string before = client.model.get("app.tenant");
  const bool in_block = client.model.in_block();
  if (!in_block || !fails) {
    const std::string after = fails ? before : tenant;
    pieces.push_back({Piece::Kind::query, "SELECT current_setting('app.tenant', true)", "", after, {}});
    pieces.push_back({Piece::Kind::sync, "", "", "sync", {}});
  }
  client.expect_pipeline(pieces);
  client.model.set("app.tenant", tenant, fails && !in_block);
  if (fails) client.model.fail();
  return true;
}

// --- large answers, notices, errors

bool large_answer(Client &client) {
  const std::string row = std::to_string(client.uid) + "|" + std::string(500, 'x');
  std::string expected = row;
  for (int i = 1; i < 200; i++) expected += "\n" + row;
  client.expect("SELECT " + std::to_string(client.uid) + ", repeat('x', 500) FROM generate_series(1, 200)", expected);
  return true;
}

bool copy_out(Client &client) {
  const std::string uid = std::to_string(client.uid);
  client.expect("COPY (SELECT " + uid + " + g FROM generate_series(0, 1) g) TO STDOUT",
                uid + "\n" + std::to_string(client.uid + 1) + "\n;COPY 2");
  return true;
}

bool notice(Client &client) {
  const std::string text = "a word of " + std::to_string(client.uid);
  client.expect("SELECT crosstalk.say('" + text + "')", "NOTICE: " + text);
  return true;
}

bool failure(Client &client) {
  const std::string uid = std::to_string(client.uid);
  switch (client.dice.below(5)) {
    case 0:
      client.expect_error("SELECT " + uid + " / 0", "division by zero");
      return true;
    case 1:
      client.expect_error("SELECT * FROM nowhere_" + uid, "relation \"nowhere_" + uid + "\" does not exist");
      return true;
    case 2:
      client.expect_error("SELECT crosstalk.fail('failure of " + uid + "')", "failure of " + uid);
      return true;
    case 3:
      client.expect_error("SELEKT " + uid, "syntax error at or near \"SELEKT\"");
      return true;
    default:
      if (is_superuser(client)) return false;
      client.expect_error("SELECT * FROM crosstalk.secret", "permission denied for table secret");
      return true;
  }
}

bool see_rows(Client &client) {
  const long rows = visible_rows(client);
  const std::string user = rows == 0 ? "<NULL>" : client.model.get("app.user_id");
  client.expect("SELECT count(*), min(user_id), max(user_id) FROM crosstalk.private_rows",
                std::to_string(rows) + (is_superuser(client) ? "|1|50" : "|" + user + "|" + user));
  return true;
}

}  // namespace

std::vector<Operation> statement_operations() {
  using Where = Operation::Where;
  return {
      {"prepare_sql", 7, Where::anywhere, prepare_sql},
      {"prepare_protocol", 7, Where::anywhere, prepare_protocol},
      {"execute_sql", 12, Where::anywhere, execute_sql},
      {"execute_protocol", 12, Where::anywhere, execute_protocol},
      {"explain_execute", 2, Where::anywhere, explain_execute},
      {"deallocate", 4, Where::anywhere, deallocate},
      {"deallocate_all", 1, Where::anywhere, deallocate_all},
      {"pipeline", 6, Where::anywhere, pipeline},
      {"large_answer", 2, Where::anywhere, large_answer},
      {"copy_out", 2, Where::anywhere, copy_out},
      {"notice", 3, Where::anywhere, notice},
      {"failure", 4, Where::anywhere, failure},
      {"see_rows", 6, Where::anywhere, see_rows},
  };
}

}  // namespace crosstalk
