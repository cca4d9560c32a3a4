// SPDX-License-Identifier: PostgreSQL
//
// What belongs to a session and is no setting: temporary tables, advisory locks, cursors, sequences.  And a row of the
// client's own in an ordinary table, which shows whether transactions end as they should.

#include <stdlib.h>

#include <algorithm>

#include "operations.hpp"

namespace crosstalk {

namespace {

using OnCommit = TemporaryTable::OnCommit;

// Takes an idle client out of the game for a while, so that its model stays true.
class Reservation {
 public:
  explicit Reservation(Client &client) : client_(client) { client_.busy = true; }
  ~Reservation() { client_.busy = false; }
  Reservation(const Reservation &) = delete;
  Reservation &operator=(const Reservation &) = delete;

 private:
  Client &client_;
};

// --- temporary tables: all clients use the same two names

std::string choose_table(Client &client) { return client.dice.percent(60) ? "tt1" : "tt2"; }

bool create_table(Client &client) {
  const std::string name = choose_table(client);
  if (client.model.now.tables.count(name) != 0) {
    client.expect_error("CREATE TEMP TABLE " + name + " (n bigint, place text)",
                        "relation \"" + name + "\" already exists");
    return true;
  }
  if (!client.may_pin()) return false;
  TemporaryTable table;
  table.owner = client.model.current_user();
  const char *clause = "";
  switch (client.dice.below(4)) {
    case 0:
      // Outside a block it would be gone at once.
      if (client.model.in_block()) {
        table.on_commit = OnCommit::drop;
        clause = " ON COMMIT DROP";
      }
      break;
    case 1:
      table.on_commit = OnCommit::delete_rows;
      clause = " ON COMMIT DELETE ROWS";
      break;
    default:
      break;
  }
  // Whichever role the client has later.
  const std::string grant = "GRANT ALL ON " + name + " TO PUBLIC";
  client.expect("CREATE TEMP TABLE " + name + " (n bigint, place text)" + clause + "; " + grant, "CREATE TABLE;GRANT");
  client.model.now.tables[name] = table;
  return true;
}

bool fill_table(Client &client) {
  const std::string name = choose_table(client), n = std::to_string(client.uid);
  const auto table = client.model.now.tables.find(name);
  if (table == client.model.now.tables.end()) {
    client.expect_error("INSERT INTO " + name + " VALUES (" + n + ", 'x')", "relation \"" + name + "\" does not exist");
    return true;
  }
  if (client.dice.percent(50)) {
    client.expect("INSERT INTO " + name + " SELECT " + n + ", name FROM here", "INSERT 0 1");
    table->second.rows += 1;
  } else {
    client.expect_copy_in("COPY " + name + " FROM STDIN", n + "\tcopied\n" + n + "\tas well\n", "COPY 2");
    table->second.rows += 2;
  }
  // Those that forget their rows do so when no block keeps the transaction open.
  if (!client.model.in_block() && table->second.on_commit == OnCommit::delete_rows) table->second.rows = 0;
  return true;
}

bool read_table(Client &client) {
  const std::string name = choose_table(client), n = std::to_string(client.uid);
  const std::string query = "SELECT count(*), min(n), max(n) FROM " + name;
  const auto table = client.model.now.tables.find(name);
  if (table == client.model.now.tables.end())
    client.expect_error(query, "relation \"" + name + "\" does not exist");
  else if (table->second.rows == 0)
    client.expect(query, "0|<NULL>|<NULL>");
  else
    client.expect(query, std::to_string(table->second.rows) + "|" + n + "|" + n);
  return true;
}

bool drop_table(Client &client) {
  const std::string name = choose_table(client), user = client.model.current_user();
  const auto table = client.model.now.tables.find(name);
  if (table == client.model.now.tables.end()) {
    client.expect("DROP TABLE IF EXISTS " + name, "NOTICE: table \"" + name + "\" does not exist, skipping;DROP TABLE");
    return true;
  }
  const std::string &owner = table->second.owner;
  // All login roles are members of both teams.
  const auto &roles = client.world.options.roles;
  const bool of_team = owner == "crosstalk_red" || owner == "crosstalk_blue";
  const bool member = of_team && std::count(roles.begin(), roles.end(), user) > 0;
  if (is_superuser(client) || owner == user || member) {
    client.expect("DROP TABLE " + name, "DROP TABLE");
    client.model.now.tables.erase(table);
  } else {
    client.expect_error("DROP TABLE " + name, "must be owner of table " + name);
  }
  return true;
}

// --- advisory locks: each client has two keys of its own

long choose_key(Client &client) { return client.uid * 10 + static_cast<long>(client.dice.below(2)); }

bool lock(Client &client) {
  if (!client.may_pin()) return false;
  const long key = choose_key(client);
  if (client.dice.percent(50))
    client.expect("SELECT pg_advisory_lock(" + std::to_string(key) + ")", "");
  else
    client.expect("SELECT pg_try_advisory_lock(" + std::to_string(key) + ")", "t");
  client.model.session_locks[key]++;
  return true;
}

bool unlock(Client &client) {
  const long key = choose_key(client);
  const std::string query = "SELECT pg_advisory_unlock(" + std::to_string(key) + ")";
  const auto held = client.model.session_locks.find(key);
  if (held == client.model.session_locks.end()) {
    client.expect(query, "WARNING: you don't own a lock of type ExclusiveLock;f");
    return true;
  }
  client.expect(query, "t");
  if (--held->second == 0) client.model.session_locks.erase(held);
  return true;
}

bool unlock_all(Client &client) {
  client.expect("SELECT pg_advisory_unlock_all()", "");
  client.model.session_locks.clear();
  return true;
}

bool lock_for_transaction(Client &client) {
  const long key = choose_key(client);
  client.expect("SELECT pg_advisory_xact_lock(" + std::to_string(key) + ")", "");
  if (client.model.in_block()) client.model.now.transaction_locks.insert(key);
  return true;
}

// A lock is held exactly while the model of its owner says so: others can tell.
bool probe_lock(Client &client) {
  const auto suits = [&client](const Client &other) {
    return !other.busy && other.connected() && other.database == client.database;
  };
  // Most of them hold none: look for one that does, but not always.
  Client *chosen = client.dice.one_of(client.world.clients).get();
  const unsigned attempts = client.dice.percent(80) ? 100 : 1;
  for (unsigned i = 1; i < attempts && !(suits(*chosen) && !chosen->model.session_locks.empty()); i++)
    chosen = client.dice.one_of(client.world.clients).get();
  if (!suits(*chosen)) return false;
  Client &other = *chosen;
  const long key = choose_key(other);
  const bool held = other.model.session_locks.count(key) != 0;
  // If it is free, this client would have it, and its owner would wait for the end of this block.
  if (!held && client.model.in_block()) return false;
  const Reservation reservation(other);
  client.expect("SELECT pg_try_advisory_xact_lock(" + std::to_string(key) + ")", held ? "f" : "t");
  return true;
}

// --- a cursor that outlives its transaction

constexpr int kCursorRows = 40;

bool declare_cursor(Client &client) {
  if (client.model.cursor) {
    client.expect_error("DECLARE hc CURSOR WITH HOLD FOR SELECT 1", "cursor \"hc\" already exists");
    return true;
  }
  if (!client.may_pin()) return false;
  const long base = client.uid * 100;
  client.expect("DECLARE hc CURSOR WITH HOLD FOR SELECT " + std::to_string(base) + " + g FROM generate_series(1, " +
                    std::to_string(kCursorRows) + ") g",
                "DECLARE CURSOR");
  client.model.cursor = Cursor{base, 0, client.model.level()};
  return true;
}

bool fetch(Client &client) {
  const int count = 1 + static_cast<int>(client.dice.below(6));
  const std::string command = "FETCH " + std::to_string(count) + " FROM hc";
  if (!client.model.cursor) {
    client.expect_error(command, "cursor \"hc\" does not exist");
    return true;
  }
  Cursor &cursor = *client.model.cursor;
  std::string expected;
  for (int i = 0; i < count && cursor.position < kCursorRows; i++)
    expected += (expected.empty() ? "" : "\n") + std::to_string(cursor.base + ++cursor.position);
  client.expect(command, expected.empty() ? "(none)" : expected);
  return true;
}

bool close_cursor(Client &client) {
  if (!client.model.cursor) {
    client.expect_error("CLOSE hc", "cursor \"hc\" does not exist");
    return true;
  }
  client.expect("CLOSE hc", "CLOSE CURSOR");
  client.model.cursor.reset();
  return true;
}

// --- sequences

std::string own_sequence(const Client &client) { return "crosstalk.own_" + std::to_string(client.number); }

void note_value(Client &client, const std::string &sequence, long value) {
  client.model.sequences[sequence] = value;
  client.model.last_sequence = sequence;
}

bool next_of_own_sequence(Client &client) {
  const std::string sequence = own_sequence(client);
  const auto known = client.model.sequences.find(sequence);
  const std::string query = "SELECT nextval('" + sequence + "')", got = client.ask(query);
  // Nobody else uses it.
  if (known != client.model.sequences.end()) client.compare(query, std::to_string(known->second + 1), got);
  note_value(client, sequence, strtol(got.c_str(), nullptr, 10));
  client.compare(query, std::to_string(client.model.sequences[sequence]), got);
  return true;
}

// Values of two clients lie between each other, but each sees them grow: also those a session keeps in advance (CACHE).
bool next_of_shared_sequence(Client &client) {
  const std::string sequence = client.dice.percent(50) ? "crosstalk.shared" : "crosstalk.cached";
  const auto known = client.model.sequences.find(sequence);
  const std::string query = "SELECT nextval('" + sequence + "')", got = client.ask(query);
  const long value = strtol(got.c_str(), nullptr, 10);
  client.compare(query, std::to_string(value), got);
  if (known != client.model.sequences.end() && value <= known->second)
    client.mismatch(query, "more than " + std::to_string(known->second), got);
  note_value(client, sequence, value);
  return true;
}

bool set_own_sequence(Client &client) {
  const std::string sequence = own_sequence(client);
  const long value = 1 + static_cast<long>(client.dice.below(1000000));
  client.expect("SELECT setval('" + sequence + "', " + std::to_string(value) + ")", std::to_string(value));
  client.model.sequences[sequence] = value;
  return true;
}

bool insert_with_default(Client &client) {
  const std::string sequence = place(client) + ".items_id_seq";
  const std::string query = "INSERT INTO items (uid) VALUES (" + std::to_string(client.uid) + ") RETURNING id";
  const std::string got = client.ask(query);
  const long value = strtol(got.c_str(), nullptr, 10);
  client.compare(query, std::to_string(value), got);
  note_value(client, sequence, value);
  return true;
}

// --- a row in an ordinary table

bool write_note(Client &client) {
  const int value = static_cast<int>(client.dice.below(100000));
  client.expect("INSERT INTO crosstalk.notes VALUES (" + std::to_string(client.uid) + ", " + std::to_string(value) +
                    ") ON CONFLICT (uid) DO UPDATE SET value = excluded.value",
                "INSERT 0 1");
  client.model.now.note = value;
  return true;
}

}  // namespace

std::vector<Operation> object_operations() {
  using Where = Operation::Where;
  return {
      {"create_table", 5, Where::anywhere, create_table},
      {"fill_table", 6, Where::anywhere, fill_table},
      {"read_table", 6, Where::anywhere, read_table},
      {"drop_table", 7, Where::anywhere, drop_table},
      {"lock", 4, Where::anywhere, lock},
      {"unlock", 6, Where::anywhere, unlock},
      {"unlock_all", 1, Where::anywhere, unlock_all},
      {"lock_for_transaction", 2, Where::anywhere, lock_for_transaction},
      {"probe_lock", 12, Where::anywhere, probe_lock},
      {"declare_cursor", 3, Where::anywhere, declare_cursor},
      {"fetch", 5, Where::anywhere, fetch},
      {"close_cursor", 4, Where::anywhere, close_cursor},
      {"next_of_own_sequence", 5, Where::anywhere, next_of_own_sequence},
      {"next_of_shared_sequence", 6, Where::anywhere, next_of_shared_sequence},
      {"set_own_sequence", 2, Where::anywhere, set_own_sequence},
      {"insert_with_default", 4, Where::anywhere, insert_with_default},
      {"write_note", 5, Where::anywhere, write_note},
  };
}

}  // namespace crosstalk
