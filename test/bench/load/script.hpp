// SPDX-License-Identifier: PostgreSQL
//
// What one request does: a query, or the statements of a file, sent one by one.  The file is a small part of what
// pgbench understands:
//
//   SELECT ...;                          a statement ends with a semicolon at the end of a line
//   \sleep 2 ms                          the client thinks (us, ms, s)
//   \set name random(1, 100000 * :scale) a whole number between two products of numbers and variables
//   :name                                in a statement: the variable's value; unknown ones are left alone
//   -- ...                               a comment

#ifndef SLUICE_BENCH_LOAD_SCRIPT_HPP
#define SLUICE_BENCH_LOAD_SCRIPT_HPP

#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

namespace load {

using Variables = std::map<std::string, std::string>;

struct Step {
  enum class Kind { statement, pause, draw };
  Kind kind = Kind::statement;
  std::string text;       // statement; or the variable to be drawn
  int64_t pause_ns = 0;   // pause
  std::string low, high;  // draw: bounds, both included
};

struct Script {
  std::vector<Step> steps;
};

Script script_of_query(const std::string &query);
// Ends the program if the text cannot be understood.
Script parse_script(const std::string &text);
std::string substitute(const std::string &text, const Variables &variables);
void draw(const Step &step, Variables &variables, std::mt19937_64 &dice);

[[noreturn]] void die(const std::string &what);

}  // namespace load

#endif
