// SPDX-License-Identifier: PostgreSQL

#include "script.hpp"

#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <sstream>

namespace load {

namespace {

std::string trimmed(const std::string &text) {
  const size_t begin = text.find_first_not_of(" \t\r");
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1);
}

bool is_name(char letter) { return isalnum(static_cast<unsigned char>(letter)) || letter == '_'; }

Step parse_pause(const std::string &words) {
  double length = 0;
  char unit[3] = "s";
  if (sscanf(words.c_str(), "%lf %2s", &length, unit) < 1 || length < 0) die("cannot understand: \\sleep " + words);
  const std::string name = unit;
  const double unit_ns = name == "us" ? 1e3 : name == "ms" ? 1e6 : name == "s" ? 1e9 : 0;
  if (unit_ns == 0) die("not a unit of time: " + name);
  Step step;
  step.kind = Step::Kind::pause;
  step.pause_ns = static_cast<int64_t>(length * unit_ns);
  return step;
}

Step parse_draw(const std::string &words) {
  const size_t open = words.find("random(");
  const size_t comma = words.find(',');
  const size_t close = words.rfind(')');
  if (open == std::string::npos || comma == std::string::npos || close == std::string::npos || comma > close)
    die("cannot understand: \\set " + words);
  Step step;
  step.kind = Step::Kind::draw;
  step.text = trimmed(words.substr(0, open));
  step.low = words.substr(open + 7, comma - open - 7);
  step.high = words.substr(comma + 1, close - comma - 1);
  return step;
}

Step parse_copy_in(const std::string &words) {
  unsigned long rows = 0;
  unsigned long bytes = 0;
  if (sscanf(words.c_str(), "%lu %lu", &rows, &bytes) != 2 || bytes < 1 || bytes > 60000)
    die("cannot understand: \\copyin " + words);
  Step step;
  step.kind = Step::Kind::copy_in;
  step.rows = rows;
  step.row_bytes = bytes;
  return step;
}

}  // namespace

void die(const std::string &what) {
  fprintf(stderr, "load_generator: %s\n", what.c_str());
  exit(1);
}

Script script_of_query(const std::string &query) {
  Script script;
  script.steps.emplace_back();
  script.steps.back().text = query;
  return script;
}

Script parse_script(const std::string &text) {
  Script script;
  std::istringstream lines(text);
  std::string line;
  std::string statement;
  bool has_statement = false;
  while (std::getline(lines, line)) {
    line = trimmed(line);
    if (line.empty() || line.compare(0, 2, "--") == 0) continue;
    if (statement.empty() && line[0] == '\\') {
      const size_t blank = line.find_first_of(" \t");
      const std::string command = line.substr(1, blank == std::string::npos ? blank : blank - 1);
      const std::string words = blank == std::string::npos ? "" : trimmed(line.substr(blank));
      if (command == "sleep") script.steps.push_back(parse_pause(words));
      else if (command == "set") script.steps.push_back(parse_draw(words));
      else if (command == "copyin") script.steps.push_back(parse_copy_in(words));
      else die("unknown command: \\" + command);
      continue;
    }
    statement += statement.empty() ? line : "\n" + line;
    if (statement.back() != ';') continue;
    script.steps.emplace_back();
    script.steps.back().text = statement;
    has_statement = true;
    statement.clear();
  }
  if (!statement.empty()) die("the last statement has no semicolon");
  if (!has_statement) die("the script has no statement");
  return script;
}

Template find_variables(const std::string &text, const std::set<std::string> &known) {
  Template result;
  std::string literal;
  for (size_t at = 0; at < text.size(); at++) {
    literal += text[at];
    if (text[at] != ':') continue;
    if (at + 1 < text.size() && text[at + 1] == ':') {  // a cast
      literal += text[++at];
      continue;
    }
    size_t end = at + 1;
    while (end < text.size() && is_name(text[end])) end++;
    const std::string name = text.substr(at + 1, end - at - 1);
    if (known.count(name) == 0) continue;
    literal.pop_back();
    result.literals.push_back(literal);
    result.names.push_back(name);
    literal.clear();
    at = end - 1;
  }
  result.literals.push_back(literal);
  return result;
}

}  // namespace load
