// SPDX-License-Identifier: PostgreSQL

#include "client.hpp"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

namespace crosstalk {

namespace {

constexpr std::size_t kHistory = 20;

std::string quoted_option(const std::string &name, const std::string &value) {
  std::string text = "-c " + name + "=";
  for (const char c : value) {
    if (c == ' ' || c == '\\') text += '\\';
    text += c;
  }
  return text;
}

std::string shortened(const std::string &text) {
  return text.size() <= 300 ? text : text.substr(0, 300) + "... (" + std::to_string(text.size()) + " bytes)";
}

}  // namespace

Client::Client(World &the_world, int the_number)
    : world(the_world),
      number(the_number),
      dice(the_world.options.seed * 1000003 + static_cast<unsigned>(the_number)) {}

Client::~Client() { hang_up(false); }

std::string Client::name() const {
  return "client " + std::to_string(number) + " (uid " + std::to_string(uid) + ", " + role + " in " + database + ")";
}

void Client::remember(const std::string &what) {
  if (history_.size() == kHistory) history_.pop_front();
  history_.push_back((model.in_block() ? (model.aborted() ? "[E] " : "[T] ") : "[I] ") + shortened(what));
}

void Client::mismatch(const std::string &what, const std::string &expected, const std::string &got) {
  printf("MISMATCH %d: %s\n", ++world.mismatches, name().c_str());
  printf("  at:       %s\n  expected: %s\n  got:      %s\n  history:\n", shortened(what).c_str(),
         shortened(expected).c_str(), shortened(got).c_str());
  for (const std::string &line : history_) printf("    %s\n", line.c_str());
  std::string pids;
  for (const std::string &pid : backends_) pids += " " + pid;
  printf("  backends it has met:%s\n", pids.c_str());
  fflush(stdout);
  throw GivenUp();
}

void Client::compare(const std::string &what, const std::string &expected, const std::string &got) {
  if (expected != got) mismatch(what, expected, got);
}

void Client::note_backend(const std::string &pid) {
  backends_.insert(pid);
  backend_notes_++;
}

// --- connection

void Client::connect_at_random() {
  const Options &options = world.options;
  const std::size_t which = dice.below(options.roles.size() + options.superusers.size());
  const bool boss = which >= options.roles.size();
  const std::string &chosen_role = boss ? options.superusers[which - options.roles.size()] : options.roles[which];
  const std::string &chosen_database = dice.one_of(options.databases);
  Values settings;
  if (dice.percent(50)) {
    for (const SettingKind &kind : setting_kinds()) {
      if (!dice.percent(35) || (kind.superuser_only && !boss)) continue;
      // Not the number of this connection: it has none yet.
      const std::string own = "start " + std::to_string(dice.below(100000));
      settings[kind.name] = kind.values.empty() ? own : dice.one_of(kind.values);
    }
  }
  connect(chosen_database, chosen_role, settings);
}

void Client::connect(const std::string &database_name, const std::string &role_name, const Values &settings) {
  database = database_name;
  role = role_name;
  superuser = std::count(world.options.superusers.begin(), world.options.superusers.end(), role) > 0;
  uid = number * 1000L + ++generation_ % 1000;
  history_.clear();
  backends_.clear();
  backend_notes_ = 0;
  notices_.clear();
  expected_notifications.clear();
  unsure = false;

  Values defaults;
  const auto known = world.defaults.find(database + "/" + role);
  if (known != world.defaults.end()) defaults = known->second;
  std::string options;
  const char *application_name = nullptr, *client_encoding = nullptr;
  for (const auto &[name, value] : settings) {
    defaults[name] = value;
    if (name == "application_name")
      application_name = value.c_str();
    else if (name == "client_encoding")
      client_encoding = value.c_str();
    else
      options += (options.empty() ? "" : " ") + quoted_option(name, value);
  }
  model = Model(role, defaults);
  remember("connect with options \"" + options + "\"");

  const char *keywords[] = {"host",       "port",    "dbname",           "user",            "sslmode",
                            "gssencmode", "options", "application_name", "client_encoding", nullptr};
  const char *values[] = {world.options.host.c_str(), world.options.port.c_str(), database.c_str(), role.c_str(),
                          "disable", "disable", options.c_str(), application_name, client_encoding, nullptr};
  connection_ = PQconnectStartParams(keywords, values, 0);
  if (connection_ == nullptr) mismatch("connect", "a connection", "no memory");
  PostgresPollingStatusType status = PGRES_POLLING_WRITING;
  while (PQstatus(connection_) != CONNECTION_BAD && status != PGRES_POLLING_OK && status != PGRES_POLLING_FAILED) {
    const short events = status == PGRES_POLLING_READING ? POLLIN : POLLOUT;
    if (!world.fibers.wait_for_socket(PQsocket(connection_), events, world.options.timeout_s * 1000))
      mismatch("connect", "a connection", "nothing within the limit of time");
    status = PQconnectPoll(connection_);
  }
  if (PQstatus(connection_) != CONNECTION_OK) mismatch("connect", "a connection", PQerrorMessage(connection_));
  PQsetnonblocking(connection_, 1);
  PQsetNoticeReceiver(connection_, &Client::receive_notice, this);
}

void Client::hang_up(bool cut_the_line) {
  if (connection_ == nullptr) return;
  if (cut_the_line && PQsocket(connection_) >= 0) shutdown(PQsocket(connection_), SHUT_RDWR);
  PQfinish(connection_);
  connection_ = nullptr;
  // One or two say nothing about the way from backend to backend.
  if (backend_notes_ >= 3) world.backends_seen.push_back(backends_.size());
  model = Model(role, Values());
  settle_pin();
}

Values Client::read_defaults() {
  Values defaults;
  for (const SettingKind &kind : setting_kinds()) {
    const std::string value = ask(std::string("SELECT current_setting('") + kind.name + "', true)");
    if (value != "<NULL>") defaults[kind.name] = value;
  }
  return defaults;
}

// --- conversation

void Client::receive_notice(void *client, const PGresult *notice) {
  const char *severity = PQresultErrorField(notice, PG_DIAG_SEVERITY_NONLOCALIZED);
  const char *message = PQresultErrorField(notice, PG_DIAG_MESSAGE_PRIMARY);
  auto *self = static_cast<Client *>(client);
  if (!self->notices_.empty()) self->notices_ += ";";
  self->notices_ += std::string(severity ? severity : "?") + ": " + (message ? message : "?");
}

void Client::check_sent(int sent) {
  if (sent != 1) mismatch("send", "a request sent", PQerrorMessage(connection_));
}

void Client::flush() {
  int left;
  while ((left = PQflush(connection_)) == 1) {
    if (!world.fibers.wait_for_socket(PQsocket(connection_), POLLIN | POLLOUT, world.options.timeout_s * 1000))
      mismatch("send", "a server that reads", "nothing within the limit of time");
    if (PQconsumeInput(connection_) != 1) mismatch("send", "a connection", PQerrorMessage(connection_));
  }
  if (left != 0) mismatch("send", "a connection", PQerrorMessage(connection_));
}

PGresult *Client::next_result() {
  while (PQisBusy(connection_)) {
    if (!world.fibers.wait_for_socket(PQsocket(connection_), POLLIN, world.options.timeout_s * 1000))
      mismatch("receive", "an answer", "nothing within the limit of time");
    // What has arrived before the end of the stream can still be read.
    if (PQconsumeInput(connection_) != 1 && PQstatus(connection_) == CONNECTION_BAD && PQisBusy(connection_))
      mismatch("receive", "an answer", PQerrorMessage(connection_));
  }
  return PQgetResult(connection_);
}

std::string Client::render(PGresult *result) {
  std::string text;
  switch (PQresultStatus(result)) {
    case PGRES_TUPLES_OK:
      if (PQntuples(result) == 0) return "(none)";
      for (int row = 0; row < PQntuples(result); row++) {
        if (row > 0) text += "\n";
        for (int field = 0; field < PQnfields(result); field++) {
          if (field > 0) text += "|";
          text += PQgetisnull(result, row, field) ? "<NULL>" : PQgetvalue(result, row, field);
        }
      }
      return text;
    case PGRES_COMMAND_OK:
      return PQcmdStatus(result);
    case PGRES_EMPTY_QUERY:
      return "empty";
    case PGRES_PIPELINE_SYNC:
      return "sync";
    case PGRES_PIPELINE_ABORTED:
      return "skipped";
    case PGRES_COPY_IN:
      check_sent(PQputCopyData(connection_, copy_in_.data(), static_cast<int>(copy_in_.size())));
      check_sent(PQputCopyEnd(connection_, nullptr));
      flush();
      return "";
    case PGRES_COPY_OUT:
      for (;;) {
        char *row = nullptr;
        const int size = PQgetCopyData(connection_, &row, 1);
        if (size > 0) {
          text.append(row, static_cast<std::size_t>(size));
          PQfreemem(row);
        } else if (size != 0) {
          return text;
        } else if (!world.fibers.wait_for_socket(PQsocket(connection_), POLLIN, world.options.timeout_s * 1000) ||
                   PQconsumeInput(connection_) != 1) {
          mismatch("COPY", "data", PQerrorMessage(connection_));
        }
      }
    default: {
      const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
      const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
      if (message == nullptr) return std::string("lost connection: ") + PQerrorMessage(connection_);
      return std::string(severity ? severity : "?") + ": " + message;
    }
  }
}

std::string Client::converse() {
  flush();
  std::string text;
  const auto add = [&text](const std::string &piece) {
    if (!text.empty() && !piece.empty()) text += ";";
    text += piece;
  };
  for (;;) {
    PGresult *result = next_result();
    add(std::exchange(notices_, std::string()));
    if (result == nullptr) break;
    // Reading COPY data may give up, and then nobody frees the result.
    const std::unique_ptr<PGresult, void (*)(PGresult *)> owner(result, &PQclear);
    add(render(result));
    if (PQstatus(connection_) == CONNECTION_BAD) mismatch("receive", "a connection", text);
  }
  drain_notifications();
  if (PQtransactionStatus(connection_) == PQTRANS_IDLE) world.transactions++;
  return text;
}

std::string Client::ask(const std::string &sql) {
  check_state_of_connection();
  remember(sql);
  check_sent(PQsendQuery(connection_, sql.c_str()));
  return converse();
}

void Client::expect(const std::string &sql, const std::string &expected) { compare(sql, expected, ask(sql)); }

void Client::expect_error(const std::string &sql, const std::string &message) {
  expect(sql, "ERROR: " + message);
  model.fail();
}

void Client::expect_prepare(const std::string &name, const std::string &sql, const std::string &parameter_type,
                            const std::string &expected) {
  check_state_of_connection();
  remember("Parse " + name + ": " + sql);
  const Oid type = static_cast<Oid>(strtoul(parameter_type.c_str(), nullptr, 10));
  check_sent(PQsendPrepare(connection_, name.c_str(), sql.c_str(), type != 0 ? 1 : 0, &type));
  compare("Parse " + name, expected, converse());
}

void Client::expect_execute(const std::string &name, const std::string &parameter, const std::string &expected) {
  check_state_of_connection();
  remember("Bind " + name + ": " + parameter);
  const char *value = parameter.c_str();
  check_sent(PQsendQueryPrepared(connection_, name.c_str(), 1, &value, nullptr, nullptr, 0));
  compare("Bind " + name, expected, converse());
}

void Client::expect_parameter(const std::string &sql, const std::string &parameter, const std::string &expected) {
  check_state_of_connection();
  remember(sql + " with " + parameter);
  const char *value = parameter.c_str();
  check_sent(PQsendQueryParams(connection_, sql.c_str(), 1, nullptr, &value, nullptr, nullptr, 0));
  compare(sql, expected, converse());
}

void Client::expect_copy_in(const std::string &sql, const std::string &data, const std::string &expected) {
  copy_in_ = data;
  expect(sql, expected);
}

void Client::send_only(const std::string &sql) {
  remember("without waiting: " + sql);
  check_sent(PQsendQuery(connection_, sql.c_str()));
  flush();
}

void Client::expect_pipeline(const std::vector<Piece> &pieces) {
  check_state_of_connection();
  if (PQenterPipelineMode(connection_) != 1) mismatch("pipeline", "entered", PQerrorMessage(connection_));
  for (const Piece &piece : pieces) {
    remember("pipeline: " + piece.name + " " + piece.text + (piece.parameter ? " with " + *piece.parameter : ""));
    const char *value = piece.parameter ? piece.parameter->c_str() : nullptr;
    const int values = piece.parameter ? 1 : 0;
    switch (piece.kind) {
      case Piece::Kind::query:
        check_sent(PQsendQueryParams(connection_, piece.text.c_str(), values, nullptr, &value, nullptr, nullptr, 0));
        break;
      case Piece::Kind::prepare:
        check_sent(PQsendPrepare(connection_, piece.name.c_str(), piece.text.c_str(), 0, nullptr));
        break;
      case Piece::Kind::execute:
        check_sent(PQsendQueryPrepared(connection_, piece.name.c_str(), values, &value, nullptr, nullptr, 0));
        break;
      case Piece::Kind::sync:
        check_sent(PQpipelineSync(connection_));
        break;
    }
  }
  flush();
  for (const Piece &piece : pieces) {
    std::string got;
    PGresult *result;
    while ((result = next_result()) != nullptr) {
      const std::unique_ptr<PGresult, void (*)(PGresult *)> owner(result, &PQclear);
      got += (got.empty() ? "" : ";") + render(result);
      if (piece.kind == Piece::Kind::sync) break;
    }
    compare("pipeline: " + piece.name + " " + piece.text, piece.expected, got);
  }
  compare("pipeline", "no notices", notices_.empty() ? "no notices" : notices_);
  if (PQexitPipelineMode(connection_) != 1) mismatch("pipeline", "left", PQerrorMessage(connection_));
  drain_notifications();
  if (PQtransactionStatus(connection_) == PQTRANS_IDLE) world.transactions++;
}

// --- what has nothing to do with a request

void Client::drain_notifications() {
  while (PGnotify *raw = PQnotifies(connection_)) {
    const std::unique_ptr<PGnotify, void (*)(void *)> notification(raw, &PQfreemem);
    const std::string text = std::string(notification->relname) + ": " + notification->extra;
    remember("notification " + text);
    const auto expected = expected_notifications.find(text);
    if (expected == expected_notifications.end()) {
      std::string all;
      for (const std::string &other : expected_notifications) all += other + "; ";
      mismatch("notification", all.empty() ? "none" : all, text);
    }
    expected_notifications.erase(expected);
  }
}

void Client::wait_for_notifications() {
  const long long deadline = now_ms() + world.options.timeout_s * 1000LL;
  for (;;) {
    if (PQconsumeInput(connection_) != 1) mismatch("notification", "a connection", PQerrorMessage(connection_));
    drain_notifications();
    if (expected_notifications.empty()) return;
    const int left_ms = static_cast<int>(std::max(0LL, deadline - now_ms()));
    if (!world.fibers.wait_for_socket(PQsocket(connection_), POLLIN, left_ms))
      mismatch("notification", *expected_notifications.begin(), "nothing within the limit of time");
  }
}

void Client::check_state_of_connection() {
  const PGTransactionStatusType status = PQtransactionStatus(connection_);
  const PGTransactionStatusType expected =
      !model.in_block() ? PQTRANS_IDLE : model.aborted() ? PQTRANS_INERROR : PQTRANS_INTRANS;
  if (status != expected) mismatch("state of the transaction", std::to_string(expected), std::to_string(status));
  if (world.defaults.empty()) return;

  const auto check = [this](const char *parameter, const std::string &value) {
    const char *reported = PQparameterStatus(connection_, parameter);
    compare(std::string("ParameterStatus of ") + parameter, value, reported ? reported : "(never reported)");
  };
  for (const SettingKind &kind : setting_kinds())
    if (kind.reported) check(kind.name, model.get(kind.name));
  check("session_authorization", model.session_user());
  const auto &superusers = world.options.superusers;
  const bool is_superuser = std::count(superusers.begin(), superusers.end(), model.current_user()) > 0;
  check("is_superuser", is_superuser ? "on" : "off");
}

std::string Client::type_oid(const std::string &qualified_name) {
  static std::map<std::string, std::string> known;
  std::string &oid = known[database + "/" + qualified_name];
  if (oid.empty()) oid = ask("SELECT '" + qualified_name + "'::regtype::oid");
  return oid;
}

// --- limits

bool Client::may_pin() {
  if (has_pin_) return true;
  if (world.pinned >= world.options.max_pinned) return false;
  has_pin_ = true;
  world.most_pinned = std::max(world.most_pinned, ++world.pinned);
  return true;
}

void Client::settle_pin() {
  if (!has_pin_ || model.in_block() || model.pinning()) return;
  has_pin_ = false;
  world.pinned--;
}

void Client::think() {
  if (dice.percent(60)) world.fibers.think(static_cast<unsigned>(1 + dice.below(dice.percent(10) ? 60 : 12)));
}

}  // namespace crosstalk
