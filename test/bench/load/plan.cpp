// SPDX-License-Identifier: PostgreSQL

#include "plan.hpp"

#include <strings.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <set>

#include "arrivals.hpp"
#include "messages.hpp"

namespace load {

namespace {

constexpr size_t kCopyChunk = 60000;

class Compiler {
 public:
  Compiler(const Variables &variables, bool prepared) : variables_(variables), prepared_(prepared) {
    if (variables.count("client_id") == 0) slots_["client_id"] = 0;
  }

  Plan compile(const Script &script) {
    Plan plan;
    plan.name = script.name;
    plan.weight = script.weight;
    known_.clear();
    known_.insert("client_id");
    for (const auto &variable : variables_) known_.insert(variable.first);
    drawn_.clear();
    for (const Step &step : script.steps) {
      if (step.kind == Step::Kind::copy_in) {
        if (plan.actions.empty() || plan.actions.back().kind != Step::Kind::statement)
          die("\\copyin has to follow a COPY ... FROM STDIN");
        add_copy(step, plan.actions.back().statement);
        continue;
      }
      plan.actions.emplace_back();
      Action &action = plan.actions.back();
      action.kind = step.kind;
      action.pause_ns = step.pause_ns;
      if (step.kind == Step::Kind::draw) action.draw = compile_draw(step);
      if (step.kind == Step::Kind::statement) action.statement = compile_statement(step.text);
    }
    return plan;
  }

  size_t slots() const { return next_slot_; }
  size_t texts() const { return texts_.size(); }

 private:
  Operand operand(const std::string &name) const {
    const auto found = variables_.find(name);
    if (drawn_.count(name) == 0 && found != variables_.end()) return {-1, found->second, 0};
    return {slots_.at(name), "", 0};
  }

  std::vector<Operand> compile_product(const std::string &text) const {
    std::vector<Operand> factors;
    for (size_t at = 0; at <= text.size();) {
      const size_t end = std::min(text.find('*', at), text.size());
      const size_t begin = text.find_first_not_of(" \t", at);
      const size_t last = end == 0 ? 0 : text.find_last_not_of(" \t", end - 1);
      const std::string factor = begin < end ? text.substr(begin, last - begin + 1) : "";
      Operand value = {-1, factor, 0};
      if (factor[0] == ':' && known_.count(factor.substr(1)) > 0) value = operand(factor.substr(1));
      char *rest;
      value.number = strtoll(value.fixed.c_str(), &rest, 10);
      if (value.slot < 0 && (value.fixed.empty() || *rest != '\0')) die("not a product of whole numbers: " + text);
      factors.push_back(value);
      at = end + 1;
    }
    return factors;
  }

  Draw compile_draw(const Step &step) {
    Draw draw;
    draw.low = compile_product(step.low);
    draw.high = compile_product(step.high);
    if (slots_.count(step.text) == 0) slots_[step.text] = static_cast<int>(next_slot_++);
    draw.slot = slots_[step.text];
    known_.insert(step.text);
    drawn_.insert(step.text);
    return draw;
  }

  Statement compile_statement(const std::string &text) {
    const Template found = find_variables(text, known_);
    return prepared_ && strncasecmp(text.c_str(), "COPY", 4) != 0 ? compile_prepared(found) : compile_simple(found);
  }

  Statement compile_simple(const Template &found) const {
    Statement statement;
    statement.pieces.push_back(found.literals[0]);
    for (size_t i = 0; i < found.names.size(); i++) {
      const Operand value = operand(found.names[i]);
      if (value.slot < 0) {
        statement.pieces.back() += value.fixed + found.literals[i + 1];
        continue;
      }
      statement.operands.push_back(value);
      statement.pieces.push_back(found.literals[i + 1]);
    }
    if (statement.operands.empty()) statement.pieces[0] = query_message(statement.pieces[0]);
    return statement;
  }

  Statement compile_prepared(const Template &found) {
    Statement statement;
    statement.prepared = true;
    std::map<std::string, size_t> parameters;
    std::string text = found.literals[0];
    for (size_t i = 0; i < found.names.size(); i++) {
      const auto place = parameters.emplace(found.names[i], parameters.size() + 1);
      if (place.second) statement.operands.push_back(operand(found.names[i]));
      text += "$" + std::to_string(place.first->second) + found.literals[i + 1];
    }
    statement.number = texts_.emplace(text, texts_.size()).first->second;
    const std::string name = "load_" + std::to_string(statement.number);

    std::string body;
    append_string(body, name);
    append_string(body, text);
    append_int16(body, 0);  // the server finds out the parameters' types
    statement.parse = simple_message('P', body) + simple_message('D', "S" + name + '\0');

    body.assign(1, '\0');  // the portal without a name
    append_string(body, name);
    append_int16(body, 0);  // all parameters are text
    append_int16(body, static_cast<uint16_t>(statement.operands.size()));
    statement.bind_head = body;
    statement.rest.assign(2, '\0');  // all results are text; the end of Bind
    statement.rest += simple_message('E', std::string(5, '\0')) + simple_message('S', "");
    if (statement.operands.empty())
      statement.pieces.push_back(simple_message('B', body + std::string(2, '\0')) + statement.rest.substr(2));
    return statement;
  }

  void add_copy(const Step &step, Statement &statement) const {
    std::string row;
    const size_t place = begin_message(row, 'd');
    row += std::string(step.row_bytes - 1, 'x') + '\n';
    end_message(row, place);
    const size_t rows_of_chunk = std::max<size_t>(1, std::min(step.rows, kCopyChunk / row.size()));
    std::string chunk;
    std::string rest;
    for (size_t i = 0; i < rows_of_chunk; i++) chunk += row;
    for (size_t i = 0; i < step.rows % rows_of_chunk; i++) rest += row;
    statement.copies_in = true;
    statement.copy_full = step.rows / rows_of_chunk;
    statement.copy_chunks = {chunk, rest + simple_message('c', "")};
  }

  const Variables &variables_;
  const bool prepared_;
  std::map<std::string, int> slots_;
  std::map<std::string, size_t> texts_;
  std::set<std::string> known_;  // at this point of the script
  std::set<std::string> drawn_;
  size_t next_slot_ = 1;
};

int64_t product(const std::vector<Operand> &factors, const int64_t *values) {
  int64_t result = 1;
  for (const Operand &factor : factors)
    result *= factor.slot >= 0 ? values[factor.slot] : factor.number;
  return result;
}

// The text of an operand; the buffer has room for any number.
struct Digits {
  char buffer[24];
  const char *text;
  size_t length;
  Digits(const Operand &operand, const int64_t *values) {
    if (operand.slot < 0) {
      text = operand.fixed.data();
      length = operand.fixed.size();
      return;
    }
    text = buffer;
    length = static_cast<size_t>(std::to_chars(buffer, buffer + sizeof(buffer), values[operand.slot]).ptr - buffer);
  }
};

}  // namespace

const Plan &Plans::choose(std::mt19937_64 &dice) const {
  if (plans.size() == 1) return plans[0];
  const double point = uniform(dice) * until.back();
  size_t which = 0;
  while (which + 1 < plans.size() && point >= until[which]) which++;
  return plans[which];
}

Plans compile(const std::vector<Script> &scripts, const Variables &variables, bool prepared) {
  Compiler compiler(variables, prepared);
  Plans result;
  double sum = 0;
  for (const Script &script : scripts) {
    result.plans.push_back(compiler.compile(script));
    result.until.push_back(sum += script.weight);
  }
  result.slots = compiler.slots();
  result.texts = compiler.texts();
  return result;
}

void draw(const Draw &draw, int64_t *values, std::mt19937_64 &dice) {
  const int64_t low = product(draw.low, values);
  const int64_t high = product(draw.high, values);
  if (high < low) die("an empty range of random()");
  values[draw.slot] = low + static_cast<int64_t>(uniform(dice) * static_cast<double>(high - low + 1));
}

void append_statement(std::string &out, const Statement &statement, const int64_t *values, bool parse) {
  if (parse) out += statement.parse;
  if (statement.operands.empty()) {
    out += statement.pieces[0];
    return;
  }
  const size_t place = begin_message(out, statement.prepared ? 'B' : 'Q');
  if (statement.prepared) {
    out += statement.bind_head;
    for (const Operand &operand : statement.operands) {
      const Digits digits(operand, values);
      append_int32(out, static_cast<uint32_t>(digits.length));
      out.append(digits.text, digits.length);
    }
    out.append(statement.rest, 0, 2);
    end_message(out, place);
    out.append(statement.rest, 2, std::string::npos);
    return;
  }
  out += statement.pieces[0];
  for (size_t i = 0; i < statement.operands.size(); i++) {
    const Digits digits(statement.operands[i], values);
    out.append(digits.text, digits.length);
    out += statement.pieces[i + 1];
  }
  out += '\0';
  end_message(out, place);
}

}  // namespace load
