// SPDX-License-Identifier: PostgreSQL
//
// A script made ready to be run very often: its messages are built as far as they do not depend on a request, so that a
// request copies at most a few numbers into them and allocates nothing.
//
// Simple protocol: a statement is one Query message.  Prepared protocol: each distinct text is parsed once on each
// connection (Parse and Describe, in front of its first use), and then takes Bind, Execute and Sync in one send, its
// variables being parameters in text form.  COPY always takes the simple protocol: with the other one it has rules of
// its own that would measure nothing.

#ifndef SLUICE_BENCH_LOAD_PLAN_HPP
#define SLUICE_BENCH_LOAD_PLAN_HPP

#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "script.hpp"

namespace load {

// Where a value comes from: a number drawn by the connection, or a text that never changes.
struct Operand {
  int slot = -1;  // in the connection's values; -1: fixed
  std::string fixed;
  int64_t number = 0;  // the fixed text as a number, where one is needed
};

struct Statement {
  // The message around the values: pieces[0] operand[0] pieces[1] ...; if there is no operand, pieces[0] is all of it.
  std::vector<std::string> pieces;
  std::vector<Operand> operands;
  bool prepared = false;
  size_t number = 0;      // prepared: which of the texts
  std::string parse;      // prepared: Parse and Describe
  std::string bind_head;  // prepared: the body of Bind up to the parameters' values
  std::string rest;       // prepared: Execute and Sync
  std::vector<std::string> copy_chunks;  // after COPY FROM STDIN: CopyData messages, sent copy_full times ...
  size_t copy_full = 0;                  // ... the first of them; the last one, with what is left and CopyDone, once
  bool copies_in = false;
};

// low..high: products of operands.
struct Draw {
  int slot = -1;
  std::vector<Operand> low, high;
};

struct Action {
  Step::Kind kind;
  int64_t pause_ns = 0;
  Draw draw;
  Statement statement;
};

struct Plan {
  std::string name;
  double weight = 1;
  std::vector<Action> actions;
};

struct Plans {
  std::vector<Plan> plans;
  std::vector<double> until;  // cumulated weights
  size_t slots = 0;           // values a connection needs; slot 0 is its number
  size_t texts = 0;           // prepared statements a connection may have

  const Plan &choose(std::mt19937_64 &dice) const;
};

Plans compile(const std::vector<Script> &scripts, const Variables &variables, bool prepared);

// Sets the value of a draw.  Ends the program if its range is empty.
void draw(const Draw &draw, int64_t *values, std::mt19937_64 &dice);

// Appends what has to be sent for a statement.  `parse`: in front of it, Parse.
void append_statement(std::string &out, const Statement &statement, const int64_t *values, bool parse);

}  // namespace load

#endif
