// SPDX-License-Identifier: PostgreSQL
//
// What a user of the payments application does, again and again: a journey of seven steps.
//
// Each step is one transaction of several statements with an external call in the middle of it (a payment provider, a
// tokeniser, a mail server), for which the transaction stays open.  That is how such applications are written: what
// the provider has said must be in the same transaction as what it was asked.  The last step needs a number from
// a counter that must not stay locked for so long; it is taken in a transaction of its own, on another connection,
// while the first one is held (REQUIRES_NEW in the words of many frameworks).
//
// All steps can be checked: each writes a line with the number of the operation into the ledger, and moves money
// between an account, what of it is reserved, and a merchant.  The sums are known to whoever knows which steps
// were committed.

#ifndef SLUICE_BENCH_LAB_PAYMENTS_STEPS_HPP
#define SLUICE_BENCH_LAB_PAYMENTS_STEPS_HPP

#include <cstddef>
#include <cstdint>
#include <vector>

namespace payments {

// What a user remembers from one statement to the next, and passes as parameters.
enum class Value : size_t { user, operation, step, account, method, authorization, merchant, amount, balance, receipt };
constexpr size_t kValues = 10;

struct Action {
  enum class Kind {
    statement,      // on the user's own connection
    commit,         // likewise; if it is not answered nobody knows whether the step has happened
    external_call,  // the user waits, the transaction stays open
    on_second,      // a statement on a second connection, which is taken for the first of them
    commit_second,  // likewise the end of its transaction; the second connection is given back
  };
  Kind kind;
  const char *sql;
  std::vector<Value> parameters;
  std::vector<Value> answers;  // columns of the only row of the answer
  bool changes_one_row;
};

// Cents: drawn between both; the same as in the step before if highest is negative.
struct Amount {
  int64_t lowest;
  int64_t highest;
};
constexpr Amount kSameAmount = {0, -1};

struct Step {
  const char *name;
  Amount amount;
  int balance_sign;   // what it does to the account's balance, times the amount
  int reserved_sign;  // ... to the reserved part
  int merchant_sign;  // ... to the merchant
  std::vector<Action> actions;
};

const std::vector<Step> &journey();

constexpr int kMerchants = 100;

// The statements that make the tables anew.
extern const char kTables[];

}  // namespace payments

#endif
