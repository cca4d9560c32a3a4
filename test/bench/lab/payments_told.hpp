// SPDX-License-Identifier: PostgreSQL
//
// What the clients of the payments application were told about their operations, and whether the database agrees.
//
// An operation is committed (COMMIT was answered), undone (an error, or the connection went before COMMIT was sent), or
// unsettled: COMMIT was sent and never answered.  Nobody but the database knows what has become of an unsettled one, so
// it is looked up, and either is right.  Of all others sums are kept, by user and step, so that hours fit into memory:
// count, sum of amounts, sum of operation numbers.  An operation that was lost, done twice, undone in name only or
// changed makes one of them differ.

#ifndef SLUICE_BENCH_LAB_PAYMENTS_TOLD_HPP
#define SLUICE_BENCH_LAB_PAYMENTS_TOLD_HPP

#include <libpq-fe.h>

#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace payments {

struct Operation {
  int64_t number = 0;
  int user = 0;
  int step = 0;  // of the journey; kAudit: an entry made through a second connection
  int64_t amount = 0;
};
constexpr int kAudit = -1;

class Told {
 public:
  void committed(const Operation &operation) { add(operation); }
  void unsettled(const Operation &operation) { unsettled_.push_back(operation); }

  // Lines of text, for a check that comes later.
  void write(FILE *out) const;
  static Told read(FILE *in);

  // Prints what it has compared.  False if something differs; dies if it cannot look.
  bool agrees_with(PGconn *database, FILE *report) const;

 private:
  struct Sums {
    int64_t count = 0;
    int64_t amount = 0;
    int64_t numbers = 0;
    bool operator!=(const Sums &other) const {
      return count != other.count || amount != other.amount || numbers != other.numbers;
    }
  };
  using Books = std::map<std::pair<int, int>, Sums>;  // by step, user

  void add(const Operation &operation);
  static Books books_of(PGconn *database);
  int64_t settle(PGconn *database);
  bool same_books(const Books &found, FILE *report) const;
  bool same_money(PGconn *database, FILE *report) const;

  Books books_;
  std::vector<Operation> unsettled_;
};

}  // namespace payments

#endif
