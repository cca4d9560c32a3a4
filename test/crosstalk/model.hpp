// SPDX-License-Identifier: PostgreSQL
//
// What a client knows about its own session, and therefore what the server must answer.
//
// PostgreSQL keeps session state in two ways.  What is *transactional* (settings, roles, temporary tables, LISTEN) goes
// back to what it was when a transaction or savepoint is rolled back; the model keeps a copy for each level.  All else
// (prepared statements, locks of the session, sequences, the position of a cursor) stays as it is.  Three rules are
// easily forgotten, and are part of the model:
//
//   - An error undoes the innermost level at once, not at the ROLLBACK that follows.
//   - An own setting ("app.user_id") exists from its first mention on, even if that is rolled back; then it reads
//     '' and no longer NULL.
//   - SET SESSION AUTHORIZATION also ends SET ROLE.

#ifndef CROSSTALK_MODEL_HPP
#define CROSSTALK_MODEL_HPP

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace crosstalk {

using Values = std::map<std::string, std::string>;

struct SettingKind {
  const char *name;
  std::vector<std::string> values;  // empty: made up for each client
  bool custom = false;              // belongs to no library; NULL before its first mention
  bool reported = false;            // by ParameterStatus
  bool superuser_only = false;
};

// All settings that clients change.  Not among them: role and session_authorization.
const std::vector<SettingKind> &setting_kinds();

struct TemporaryTable {
  enum class OnCommit { preserve, drop, delete_rows };
  std::string owner;
  OnCommit on_commit = OnCommit::preserve;
  int rows = 0;
};

struct Transactional {
  Values session;  // SET
  Values local;    // SET LOCAL
  std::map<std::string, TemporaryTable> tables;
  std::set<long> transaction_locks;
  bool listening = false;
  std::optional<int> note;  // the client's own row in a table
};

enum class StatementKind { number, text, place, mood, pair, rows, session, count };

struct Statement {
  StatementKind kind = StatementKind::number;
  std::string text;
  std::string schema;  // of its parameter's type
  bool from_sql = false;
};

struct Cursor {
  long base = 0;
  int position = 0;
  std::size_t level = 0;  // of the transaction it was declared in; 0: it is held
};

class Model {
 public:
  Model() = default;
  // A fresh session: `defaults` are the values that RESET returns to.
  Model(std::string login_role, Values defaults);

  Transactional now;
  std::map<std::string, Statement> statements;
  std::map<long, int> session_locks;      // key to how often
  std::map<std::string, long> sequences;  // name to the value currval() must give
  std::string last_sequence;
  std::optional<Cursor> cursor;

  // --- transactions
  bool in_block() const { return !levels_.empty(); }
  bool aborted() const { return aborted_; }
  std::size_t savepoints() const { return levels_.empty() ? 0 : levels_.size() - 1; }
  void begin();
  void commit();  // rolls back if aborted
  void rollback();
  void savepoint();
  void rollback_to(std::size_t savepoint);  // 1 is the first
  void release(std::size_t savepoint);
  void fail();  // a statement in a block ended with an error
  bool listening_for_certain() const { return now.listening && (levels_.empty() || levels_.front().listening); }

  // --- settings
  void set(const std::string &name, const std::string &value, bool local);
  void reset(const std::string &name);
  void reset_all();
  std::string get(const std::string &name) const;
  // As current_setting(name, true): nothing if it does not exist.
  std::optional<std::string> get_if_known(const std::string &name) const;

  // --- roles
  void set_session_authorization(const std::string &role);
  std::string session_user() const { return get("session_authorization"); }
  std::string current_user() const;

  void discard_all();
  // Whether this state keeps a client on its backend.
  bool pinning() const;
  std::size_t level() const { return levels_.size(); }

 private:
  void drop_cursor_from(std::size_t level);

  Values defaults_;
  std::set<std::string> known_;  // custom settings
  std::vector<Transactional> levels_;
  bool aborted_ = false;
};

}  // namespace crosstalk

#endif
