// SPDX-License-Identifier: PostgreSQL
//
// What one request does: a query, or the statements of a file, sent one by one.  The file is a small part of what
// pgbench understands:
//
//   SELECT ...;                          a statement ends with a semicolon at the end of a line
//   \sleep 2 ms                          the client thinks (us, ms, s)
//   \set name random(1, 100000 * :scale) a whole number between two products of numbers and variables
//   :name                                in a statement: the variable's value; unknown ones are left alone
//   COPY ... FROM STDIN;                 ... and below it, what is copied:
//   \copyin 1000 100                     so many rows of so many bytes (a letter repeated, and a newline)
//   -- ...                               a comment
//
// :client_id is the number of the connection, unless a variable of that name is given.  COPY ... TO STDOUT is read to
// its end.

#ifndef SLUICE_BENCH_LOAD_SCRIPT_HPP
#define SLUICE_BENCH_LOAD_SCRIPT_HPP

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace load {

using Variables = std::map<std::string, std::string>;

struct Step {
  enum class Kind { statement, pause, draw, copy_in };
  Kind kind = Kind::statement;
  std::string text;       // statement; or the variable to be drawn
  int64_t pause_ns = 0;   // pause
  std::string low, high;  // draw: bounds, both included
  size_t rows = 0, row_bytes = 0;  // copy_in
};

struct Script {
  std::string name;  // in a mix
  double weight = 1;
  std::vector<Step> steps;
};

Script script_of_query(const std::string &query);
// Ends the program if the text cannot be understood.
Script parse_script(const std::string &text);

// A text around its variables: literals[0] name[0] literals[1] ... literals[n].
struct Template {
  std::vector<std::string> literals;
  std::vector<std::string> names;
};
Template find_variables(const std::string &text, const std::set<std::string> &known);

[[noreturn]] void die(const std::string &what);

}  // namespace load

#endif
