// SPDX-License-Identifier: PostgreSQL
//
// From a string of switches to settings.
//
// Two passes.  The first splits the string into arguments, one after the other in
// the caller's buffer, each with its NUL.  The second walks over them as getopt()
// would: switches may be bundled (-is), an argument may be joined (-S64) or come
// next (-S 64), "--" ends the switches, and "--name=value" is the switch '-' with
// an argument.  What is no switch is an error, but only once all switches have
// been read: GNU getopt() moves such arguments to the end.  (The culprit named is
// the one that holds the bad switch; the server, counting back from getopt()'s
// position, names the argument before it when the switch is not last in its
// bundle.)

#include "core/accept/startup_options.hpp"

#include <cstring>

namespace sluice {

namespace {

// The switches that need no code: their letter, whether an argument follows, and
// what they set.  No setting: accepted and ignored when it comes from a client.
// No value: the argument is the value.
struct Switch {
  char letter;
  bool takes_argument;
  const char *setting;
  const char *value;
};

constexpr Switch kSwitches[] = {
    {'B', true, "shared_buffers", nullptr},
    {'C', true, nullptr, nullptr},
    {'D', true, nullptr, nullptr},
    {'E', false, nullptr, nullptr},
    {'F', false, "fsync", "false"},
    {'N', true, "max_connections", nullptr},
    {'O', false, "allow_system_table_mods", "true"},
    {'P', false, "ignore_system_indexes", "true"},
    {'S', true, "work_mem", nullptr},
    {'T', false, nullptr, nullptr},
    {'W', true, "post_auth_delay", nullptr},
    {'b', false, nullptr, nullptr},
    {'e', false, "datestyle", "euro"},
    {'h', true, "listen_addresses", nullptr},
    {'i', false, "listen_addresses", "*"},
    {'j', false, nullptr, nullptr},
    {'k', true, "unix_socket_directories", nullptr},
    {'l', false, "ssl", "true"},
    {'n', false, nullptr, nullptr},
    {'p', true, "port", nullptr},
    {'r', true, nullptr, nullptr},
    {'s', false, "log_statement_stats", "true"},
    {'v', true, nullptr, nullptr},
};

// The switches that need code; each takes an argument.
constexpr const char *kCodedSwitches = "-cdft";

const Switch *find_switch(char letter) noexcept {
  for (const Switch &known : kSwitches) {
    if (known.letter == letter) {
      return &known;
    }
  }
  return nullptr;
}

bool is_coded(char letter) noexcept {
  return letter != '\0' && std::strchr(kCodedSwitches, letter) != nullptr;
}

// isspace() of the C locale.
bool is_space(char c) noexcept {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

const char *plan_setting(const char *argument) noexcept {
  switch (argument[0]) {
    case 's':
      return "enable_seqscan";
    case 'i':
      return "enable_indexscan";
    case 'o':
      return "enable_indexonlyscan";
    case 'b':
      return "enable_bitmapscan";
    case 't':
      return "enable_tidscan";
    case 'n':
      return "enable_nestloop";
    case 'm':
      return "enable_mergejoin";
    case 'h':
      return "enable_hashjoin";
    default:
      return nullptr;
  }
}

const char *statistics_setting(const char *argument) noexcept {
  if (argument[0] == 'e') {
    return "log_executor_stats";
  }
  if (argument[0] == 'p' && argument[1] == 'a') {
    return "log_parser_stats";
  }
  if (argument[0] == 'p' && argument[1] == 'l') {
    return "log_planner_stats";
  }
  return nullptr;
}

// atoi() with an answer for every input: white space, sign, digits, the rest is
// ignored; out of range becomes the greatest int.  Not above 0: 0.
int debug_level(const char *text) noexcept {
  constexpr int kGreatest = 0x7fffffff;
  while (is_space(*text)) {
    text++;
  }
  if (*text == '-') {
    return 0;
  }
  if (*text == '+') {
    text++;
  }
  int level = 0;
  for (; *text >= '0' && *text <= '9'; text++) {
    const int digit = *text - '0';
    level = level > (kGreatest - digit) / 10 ? kGreatest : level * 10 + digit;
  }
  return level;
}

// One run over one string.
class OptionsReader {
 public:
  OptionsReader(char *buffer, std::size_t buffer_size, StartupParameter *out, std::size_t out_capacity) noexcept
      : buffer_(buffer), free_(buffer), end_(buffer + buffer_size), out_(out), capacity_(out_capacity) {}

  OptionsResult read(const char *options) noexcept {
    if (split(options)) {
      walk();
    }
    return result_;
  }

 private:
  bool fail(OptionsError error, const char *argument = nullptr) noexcept {
    result_.error = error;
    result_.argument = argument;
    return false;
  }

  bool append(char c) noexcept {
    if (free_ == end_) {
      return fail(OptionsError::too_long);
    }
    *free_++ = c;
    return true;
  }

  bool split(const char *options) noexcept;
  void walk() noexcept;
  char *next_argument() noexcept;
  bool read_bundle(char *argument) noexcept;
  bool apply(char letter, char *value, const char *culprit) noexcept;
  bool apply_assignment(char letter, char *text) noexcept;
  bool apply_debug_level(int level) noexcept;
  bool set(const char *name, const char *value) noexcept;

  char *buffer_;
  char *free_;
  char *end_;
  StartupParameter *out_;
  std::size_t capacity_;
  char *next_ = nullptr;            // first byte of the argument to be read next
  std::size_t arguments_left_ = 0;  // including that one
  OptionsResult result_;
};

bool OptionsReader::split(const char *options) noexcept {
  for (;;) {
    while (is_space(*options)) {
      options++;
    }
    if (*options == '\0') {
      break;
    }
    bool escaped = false;
    for (; *options != '\0' && (escaped || !is_space(*options)); options++) {
      if (!escaped && *options == '\\') {
        escaped = true;
        continue;
      }
      escaped = false;
      if (!append(*options)) {
        return false;
      }
    }
    if (!append('\0')) {
      return false;
    }
    arguments_left_++;
  }
  next_ = buffer_;
  return true;
}

// The next argument, or nullptr.  Steps over it before anyone cuts it up.
char *OptionsReader::next_argument() noexcept {
  if (arguments_left_ == 0) {
    return nullptr;
  }
  char *argument = next_;
  arguments_left_--;
  next_ += std::strlen(argument) + 1;
  return argument;
}

void OptionsReader::walk() noexcept {
  const char *stray = nullptr;  // the first argument that is no switch
  while (char *argument = next_argument()) {
    if (std::strcmp(argument, "--") == 0) {
      const char *rest = next_argument();
      stray = stray != nullptr ? stray : rest;
      break;
    }
    if (argument[0] != '-' || argument[1] == '\0') {
      stray = stray != nullptr ? stray : argument;
      continue;
    }
    if (!read_bundle(argument)) {
      return;
    }
  }
  if (stray != nullptr) {
    fail(OptionsError::invalid_argument, stray);
  }
}

// One or more switches behind one dash.
bool OptionsReader::read_bundle(char *argument) noexcept {
  for (char *letter = argument + 1; *letter != '\0'; letter++) {
    const Switch *known = find_switch(*letter);
    if (known == nullptr && !is_coded(*letter)) {
      return fail(OptionsError::invalid_argument, argument);
    }
    if (known != nullptr && !known->takes_argument) {
      if (!apply(*letter, nullptr, argument)) {
        return false;
      }
      continue;
    }
    if (letter[1] != '\0') {
      return apply(*letter, letter + 1, argument);
    }
    char *value = next_argument();
    if (value == nullptr) {
      return fail(OptionsError::invalid_argument, argument);
    }
    return apply(*letter, value, value);
  }
  return true;
}

bool OptionsReader::apply(char letter, char *value, const char *culprit) noexcept {
  switch (letter) {
    case 'c':
    case '-':
      return apply_assignment(letter, value);
    case 'd':
      return apply_debug_level(debug_level(value));
    case 'f': {
      const char *setting = plan_setting(value);
      return setting != nullptr ? set(setting, "false") : fail(OptionsError::invalid_argument, culprit);
    }
    case 't': {
      const char *setting = statistics_setting(value);
      return setting != nullptr ? set(setting, "true") : fail(OptionsError::invalid_argument, culprit);
    }
    default:
      break;
  }
  const Switch *known = find_switch(letter);
  if (known == nullptr || known->setting == nullptr) {
    return true;
  }
  return set(known->setting, known->value != nullptr ? known->value : value);
}

// "name=value", cut in place; dashes in the name stand for underscores.
bool OptionsReader::apply_assignment(char letter, char *text) noexcept {
  char *equals = std::strchr(text, '=');
  if (equals == nullptr) {
    result_.flag = letter;
    return fail(OptionsError::missing_value, text);
  }
  *equals = '\0';
  for (char *c = text; *c != '\0'; c++) {
    if (*c == '-') {
      *c = '_';
    }
  }
  return set(text, equals + 1);
}

// -d N stands for several settings.
bool OptionsReader::apply_debug_level(int level) noexcept {
  const char *messages = "notice";
  if (level > 0) {
    char digits[kDebugLevelBytes];
    std::size_t count = 0;
    for (int rest = level; rest > 0; rest /= 10) {
      digits[count++] = static_cast<char>('0' + rest % 10);
    }
    messages = free_;
    for (const char *c = "debug"; *c != '\0'; c++) {
      if (!append(*c)) {
        return false;
      }
    }
    while (count > 0) {
      if (!append(digits[--count])) {
        return false;
      }
    }
    if (!append('\0')) {
      return false;
    }
  }
  return set("log_min_messages", messages) && (level < 2 || set("log_statement", "all")) &&
         (level < 3 || set("debug_print_parse", "true")) && (level < 4 || set("debug_print_plan", "true")) &&
         (level < 5 || set("debug_print_rewritten", "true"));
}

bool OptionsReader::set(const char *name, const char *value) noexcept {
  if (result_.count == capacity_) {
    return fail(OptionsError::too_many);
  }
  out_[result_.count++] = StartupParameter{name, value};
  return true;
}

}  // namespace

OptionsResult parse_startup_options(const char *options, char *buffer, std::size_t buffer_size, StartupParameter *out,
                                    std::size_t out_capacity) noexcept {
  return OptionsReader(buffer, buffer_size, out, out_capacity).read(options);
}

}  // namespace sluice
