// SPDX-License-Identifier: PostgreSQL

#include "payments_steps.hpp"

namespace payments {

// The ledger and the audit have no unique key on purpose: what happens twice must show.
const char kTables[] = R"(
DROP TABLE IF EXISTS accounts, payment_methods, authorizations, purchases, receipts, merchants, ledger, audit;
CREATE TABLE merchants (merchant int PRIMARY KEY, balance bigint NOT NULL, last_receipt bigint NOT NULL)
  WITH (fillfactor = 20);
CREATE TABLE accounts (account bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, owner int NOT NULL,
  balance bigint NOT NULL CHECK (balance >= 0), reserved bigint NOT NULL DEFAULT 0 CHECK (reserved >= 0),
  visits int NOT NULL DEFAULT 0, seen_at timestamptz NOT NULL DEFAULT now()) WITH (fillfactor = 60);
CREATE TABLE payment_methods (method bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account bigint NOT NULL REFERENCES accounts, token text NOT NULL);
CREATE INDEX ON payment_methods (account);
CREATE TABLE authorizations (authorization_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account bigint NOT NULL REFERENCES accounts, method bigint NOT NULL REFERENCES payment_methods,
  amount bigint NOT NULL, state text NOT NULL, changed_at timestamptz NOT NULL DEFAULT now()) WITH (fillfactor = 60);
CREATE TABLE purchases (purchase bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account bigint NOT NULL REFERENCES accounts, merchant int NOT NULL REFERENCES merchants, amount bigint NOT NULL);
CREATE TABLE receipts (merchant int NOT NULL REFERENCES merchants, receipt bigint NOT NULL,
  account bigint NOT NULL REFERENCES accounts, amount bigint NOT NULL);
CREATE TABLE ledger (operation bigint NOT NULL, app_user int NOT NULL, step int NOT NULL, account bigint NOT NULL,
  amount bigint NOT NULL, at timestamptz NOT NULL DEFAULT now());
CREATE INDEX ON ledger (account);
CREATE TABLE audit (operation bigint NOT NULL, app_user int NOT NULL, merchant int NOT NULL, receipt bigint NOT NULL,
  at timestamptz NOT NULL DEFAULT now());
INSERT INTO merchants SELECT number, 0, 0 FROM generate_series(1, 100) AS number;
ANALYZE;
)";

namespace {

Action statement(const char *sql, std::vector<Value> parameters, std::vector<Value> answers = {}) {
  return {Action::Kind::statement, sql, std::move(parameters), std::move(answers), false};
}

Action change(const char *sql, std::vector<Value> parameters, std::vector<Value> answers = {}) {
  return {Action::Kind::statement, sql, std::move(parameters), std::move(answers), true};
}

Action begin() {
  return statement("BEGIN", {});
}
Action commit() {
  return {Action::Kind::commit, "COMMIT", {}, {}, false};
}
Action external_call() {
  return {Action::Kind::external_call, "", {}, {}, false};
}

Action write_down() {
  return change("INSERT INTO ledger (operation, app_user, step, account, amount) VALUES ($1, $2, $3, $4, $5)",
                {Value::operation, Value::user, Value::step, Value::account, Value::amount});
}

Step create_account() {
  return {
      "create account",
      {50000, 99999},
      1,
      0,
      0,
      {begin(),
       change("INSERT INTO accounts (owner, balance) VALUES ($1, $2) RETURNING account", {Value::user, Value::amount},
              {Value::account}),
       statement("SELECT count(*) FROM merchants WHERE balance >= 0", {}), external_call(), write_down(), commit()}};
}

Step visit() {
  return {"visit",
          {0, 0},
          0,
          0,
          0,
          {begin(), statement("SELECT balance FROM accounts WHERE account = $1", {Value::account}, {Value::balance}),
           statement("SELECT operation, step, amount, at FROM ledger WHERE account = $1 ORDER BY at DESC LIMIT 10",
                     {Value::account}),
           external_call(),
           change("UPDATE accounts SET visits = visits + 1, seen_at = now() WHERE account = $1", {Value::account}),
           write_down(), commit()}};
}

Step add_payment_method() {
  return {
      "add payment method",
      {0, 0},
      0,
      0,
      0,
      {begin(), statement("SELECT count(*) FROM payment_methods WHERE account = $1", {Value::account}), external_call(),
       change("INSERT INTO payment_methods (account, token) VALUES ($1, md5($2)) RETURNING method",
              {Value::account, Value::operation}, {Value::method}),
       write_down(), commit()}};
}

Step authorize() {
  return {"authorize",
          {100, 9999},
          -1,
          1,
          0,
          {begin(),
           statement("SELECT balance FROM accounts WHERE account = $1 FOR UPDATE", {Value::account}, {Value::balance}),
           change("INSERT INTO authorizations (account, method, amount, state) VALUES ($1, $2, $3, 'asked') "
                  "RETURNING authorization_id",
                  {Value::account, Value::method, Value::amount}, {Value::authorization}),
           external_call(),
           change("UPDATE accounts SET balance = balance - $2, reserved = reserved + $2 WHERE account = $1",
                  {Value::account, Value::amount}),
           change("UPDATE authorizations SET state = 'authorized', changed_at = now() "
                  "WHERE authorization_id = $1 AND state = 'asked'",
                  {Value::authorization}),
           write_down(), commit()}};
}

Step capture() {
  return {
      "capture",
      kSameAmount,
      0,
      -1,
      1,
      {begin(),
       statement("SELECT amount FROM authorizations WHERE authorization_id = $1 AND state = 'authorized' FOR UPDATE",
                 {Value::authorization}, {Value::amount}),
       external_call(),
       change("UPDATE authorizations SET state = 'captured', changed_at = now() WHERE authorization_id = $1",
              {Value::authorization}),
       change("UPDATE accounts SET reserved = reserved - $2 WHERE account = $1", {Value::account, Value::amount}),
       write_down(),
       change("UPDATE merchants SET balance = balance + $2 WHERE merchant = $1", {Value::merchant, Value::amount}),
       commit()}};
}

Step purchase() {
  return {"purchase",
          {100, 9999},
          -1,
          0,
          1,
          {begin(),
           statement("SELECT balance FROM accounts WHERE account = $1 FOR UPDATE", {Value::account}, {Value::balance}),
           external_call(),
           change("UPDATE accounts SET balance = balance - $2 WHERE account = $1", {Value::account, Value::amount}),
           change("INSERT INTO purchases (account, merchant, amount) VALUES ($1, $2, $3)",
                  {Value::account, Value::merchant, Value::amount}),
           write_down(),
           change("UPDATE merchants SET balance = balance + $2 WHERE merchant = $1", {Value::merchant, Value::amount}),
           commit()}};
}

Action on_second(const char *sql, std::vector<Value> parameters, std::vector<Value> answers, bool changes_one_row) {
  return {Action::Kind::on_second, sql, std::move(parameters), std::move(answers), changes_one_row};
}

Step receipt() {
  return {"receipt (2 connections)",
          {0, 0},
          0,
          0,
          0,
          {begin(),
           statement("SELECT sum(amount) FROM ledger WHERE account = $1", {Value::account}),
           external_call(),
           on_second("BEGIN", {}, {}, false),
           on_second("UPDATE merchants SET last_receipt = last_receipt + 1 WHERE merchant = $1 RETURNING last_receipt",
                     {Value::merchant}, {Value::receipt}, true),
           on_second("INSERT INTO audit (operation, app_user, merchant, receipt) VALUES ($1, $2, $3, $4)",
                     {Value::operation, Value::user, Value::merchant, Value::receipt}, {}, true),
           {Action::Kind::commit_second, "COMMIT", {}, {}, false},
           change("INSERT INTO receipts (merchant, receipt, account, amount) VALUES ($1, $2, $3, $4)",
                  {Value::merchant, Value::receipt, Value::account, Value::amount}),
           write_down(),
           commit()}};
}

}  // namespace

const std::vector<Step> &journey() {
  static const std::vector<Step> steps = {create_account(), visit(),  add_payment_method(), authorize(), capture(),
                                          purchase(),       receipt()};
  return steps;
}

}  // namespace payments
