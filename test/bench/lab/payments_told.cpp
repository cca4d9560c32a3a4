// SPDX-License-Identifier: PostgreSQL

#include "payments_told.hpp"

#include <cinttypes>
#include <cstdlib>

#include "payments_common.hpp"
#include "payments_steps.hpp"

namespace payments {

namespace {

const char *name_of(int step) {
  return step == kAudit ? "audit (second connection)" : journey()[static_cast<size_t>(step)].name;
}

int64_t number_at(const PGresult *rows, int row, int column) {
  return strtoll(PQgetvalue(rows, row, column), nullptr, 10);
}

bool compare(const char *what, int64_t told, int64_t found, FILE *report) {
  if (told == found) return true;
  fprintf(report, "DIFFERS: %s: the clients know %" PRId64 ", the database has %" PRId64 "\n", what, told, found);
  return false;
}

}  // namespace

void Told::add(const Operation &operation) {
  Sums &sums = books_[{operation.step, operation.user}];
  sums.count++;
  sums.amount += operation.amount;
  sums.numbers += operation.number;
}

// ---- on paper

void Told::write(FILE *out) const {
  for (const auto &[key, sums] : books_)
    fprintf(out, "committed %d %d %" PRId64 " %" PRId64 " %" PRId64 "\n", key.first, key.second, sums.count,
            sums.amount, sums.numbers);
  for (const Operation &one : unsettled_)
    fprintf(out, "unsettled %d %d 1 %" PRId64 " %" PRId64 "\n", one.step, one.user, one.amount, one.number);
}

Told Told::read(FILE *in) {
  Told told;
  char kind[16];
  Operation one;
  int64_t count;
  int fields;
  while ((fields = fscanf(in, "%15s %d %d %" SCNd64 " %" SCNd64 " %" SCNd64 "\n", kind, &one.step, &one.user, &count,
                          &one.amount, &one.number)) == 6) {
    if (one.step < kAudit || one.step >= static_cast<int>(journey().size())) die("no such step in the clients' books");
    if (kind[0] == 'u')
      told.unsettled(one);
    else
      told.books_[{one.step, one.user}] = {count, one.amount, one.number};
  }
  if (fields != EOF) die("could not understand the clients' books");
  return told;
}

// ---- compared

Told::Books Told::books_of(PGconn *database) {
  Books books;
  PGresult *rows = query(database,
                         "SELECT step, app_user, count(*), sum(amount)::bigint, sum(operation)::bigint "
                         "FROM ledger GROUP BY 1, 2 "
                         "UNION ALL SELECT -1, app_user, count(*), 0, sum(operation)::bigint FROM audit GROUP BY 1, 2");
  for (int row = 0; row < PQntuples(rows); row++)
    books[{static_cast<int>(number_at(rows, row, 0)), static_cast<int>(number_at(rows, row, 1))}] = {
        number_at(rows, row, 2), number_at(rows, row, 3), number_at(rows, row, 4)};
  PQclear(rows);
  return books;
}

// Unsettled operations the database has are taken for committed: returns how many.
int64_t Told::settle(PGconn *database) {
  int64_t found = 0;
  for (const Operation &one : unsettled_) {
    const std::string table = one.step == kAudit ? "audit" : "ledger";
    PGresult *rows =
        query(database, "SELECT count(*) FROM " + table + " WHERE operation = " + std::to_string(one.number));
    if (number_at(rows, 0, 0) > 0) {
      add(one);
      found++;
    }
    PQclear(rows);
  }
  return found;
}

bool Told::same_books(const Books &found, FILE *report) const {
  bool same = true;
  Books all = found;
  all.insert(books_.begin(), books_.end());
  for (const auto &entry : all) {
    const auto told_at = books_.find(entry.first);
    const auto found_at = found.find(entry.first);
    const Sums told_sums = told_at == books_.end() ? Sums() : told_at->second;
    const Sums found_sums = found_at == found.end() ? Sums() : found_at->second;
    if (!(told_sums != found_sums)) continue;
    const std::string what = std::string(name_of(entry.first.first)) + ", user " + std::to_string(entry.first.second);
    same = false;
    compare((what + ", committed").c_str(), told_sums.count, found_sums.count, report);
    compare((what + ", amounts").c_str(), told_sums.amount, found_sums.amount, report);
    compare((what + ", sum of operation numbers").c_str(), told_sums.numbers, found_sums.numbers, report);
  }
  return same;
}

// What the tables hold that the steps have moved money between.
bool Told::same_money(PGconn *database, FILE *report) const {
  int64_t balance = 0;
  int64_t reserved = 0;
  int64_t merchants = 0;
  int64_t receipts = 0;
  for (const auto &[key, sums] : books_) {
    if (key.first == kAudit) {
      receipts += sums.count;
      continue;
    }
    const Step &step = journey()[static_cast<size_t>(key.first)];
    balance += step.balance_sign * sums.amount;
    reserved += step.reserved_sign * sums.amount;
    merchants += step.merchant_sign * sums.amount;
  }
  PGresult *rows = query(database,
                         "SELECT (SELECT coalesce(sum(balance), 0) FROM accounts)::bigint, "
                         "(SELECT coalesce(sum(reserved), 0) FROM accounts)::bigint, "
                         "(SELECT sum(balance) FROM merchants)::bigint, "
                         "(SELECT sum(last_receipt) FROM merchants)::bigint, "
                         "(SELECT count(DISTINCT (merchant, receipt)) FROM audit)");
  bool same = compare("money of all accounts", balance, number_at(rows, 0, 0), report);
  same = compare("money reserved", reserved, number_at(rows, 0, 1), report) && same;
  same = compare("money of all merchants", merchants, number_at(rows, 0, 2), report) && same;
  same = compare("receipt numbers given", receipts, number_at(rows, 0, 3), report) && same;
  same = compare("different receipts in the audit", receipts, number_at(rows, 0, 4), report) && same;
  fprintf(report, "accounts hold %" PRId64 ", reserved %" PRId64 ", merchants hold %" PRId64 " cents\n",
          number_at(rows, 0, 0), number_at(rows, 0, 1), number_at(rows, 0, 2));
  PQclear(rows);
  return same;
}

bool Told::agrees_with(PGconn *database, FILE *report) const {
  Told settled = *this;
  const int64_t found = settled.settle(database);
  const Books books = books_of(database);
  int64_t operations = 0;
  for (const auto &entry : settled.books_) operations += entry.second.count;
  bool same = settled.same_books(books, report);
  same = settled.same_money(database, report) && same;
  fprintf(report, "%" PRId64 " operations compared; %zu were unsettled, %" PRId64 " of these have happened\n",
          operations, unsettled_.size(), found);
  return same;
}

}  // namespace payments
