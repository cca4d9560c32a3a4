// SPDX-License-Identifier: PostgreSQL
//
// Needs and verdicts: see system_limits.hpp.

#include "core/tuning/system_limits.hpp"

#include "core/tuning/text.hpp"

namespace sluice {

namespace {

bool is_all_digits(std::string_view text) noexcept {
  for (const char c : text) {
    if (c < '0' || c > '9') return false;
  }
  return !text.empty();
}

constexpr std::int64_t at_least_zero(std::int64_t number) noexcept {
  return number > 0 ? number : 0;
}

// percent of `number`, rounded down; kUnlimited if that is too large.
std::int64_t percent_of(std::int64_t number, int percent) noexcept {
  return number > kUnlimited / percent ? kUnlimited : number * percent / 100;
}

std::int64_t rounded_up(std::int64_t number) noexcept {
  if (number <= kRoundTo || number > kUnlimited - kRoundTo) return number;
  return (number + kRoundTo - 1) / kRoundTo * kRoundTo;
}

}  // namespace

bool parse_limit(std::string_view text, std::int64_t &limit) noexcept {
  text = trimmed(text);
  if (text == "max" || text == "unlimited") {
    limit = kUnlimited;
    return true;
  }
  if (!is_all_digits(text)) return false;
  if (!parse_number(text, limit)) limit = kUnlimited;
  return true;
}

std::size_t parse_limits(std::string_view text, std::int64_t (&limits)[kMaxLimitNumbers]) noexcept {
  text = trimmed(text);
  std::size_t count = 0;
  while (count < kMaxLimitNumbers && !text.empty()) {
    const std::size_t blank = text.find_first_of(" \t\n");
    if (!parse_limit(text.substr(0, blank), limits[count])) break;
    ++count;
    text = blank == std::string_view::npos ? std::string_view() : trimmed(text.substr(blank));
  }
  return count;
}

bool parse_tcp_pages(std::string_view line, std::int64_t &pages) noexcept {
  if (!starts_with(line, "TCP:")) return false;
  std::string_view word;
  while (take_part(line, ' ', word)) {
    std::int64_t parsed = 0;
    if (word != "mem") continue;
    if (!take_part(line, ' ', word) || !parse_number(word, parsed) || parsed < 0) return false;
    pages = parsed;
    return true;
  }
  return false;
}

std::int64_t count_ports(const std::int64_t (&range)[kMaxLimitNumbers], std::size_t count) noexcept {
  if (count != 2 || range[1] > 65535 || range[0] > range[1]) return -1;
  return range[1] - range[0] + 1;
}

std::string_view limit_verdict_phrase(LimitVerdict verdict) noexcept {
  switch (verdict) {
    case LimitVerdict::ok:
      return "ok";
    case LimitVerdict::close:
      return "close";
    case LimitVerdict::too_low:
      return "too low";
    case LimitVerdict::unknown:
      return "unknown";
    case LimitVerdict::information:
      return "information";
  }
  return "";
}

LimitAnswer judge_limit(const LimitQuestion &question) noexcept {
  if (question.value < 0) return {LimitVerdict::unknown, -1};
  if (question.needed < 0 || !question.judged) return {LimitVerdict::information, -1};
  if (question.value == kUnlimited) return {LimitVerdict::ok, -1};

  const bool too_low = question.value < question.needed;
  const bool close = question.shared && question.needed > percent_of(question.value, kClosePercent);
  if (!too_low && !close) return {LimitVerdict::ok, -1};
  const std::int64_t wanted = question.shared ? percent_of(question.needed, kRoomPercent) : question.needed;
  return {too_low ? LimitVerdict::too_low : LimitVerdict::close, rounded_up(wanted)};
}

LimitAnswer judge_ptrace_scope(std::int64_t scope) noexcept {
  if (scope < 0) return {LimitVerdict::unknown, -1};
  if (scope <= 1) return {LimitVerdict::ok, -1};
  return {LimitVerdict::information, 1};
}

int listen_backlog(int max_connections, int max_unauthenticated_clients) noexcept {
  const std::int64_t wanted = std::int64_t{max_connections} * 2 + max_unauthenticated_clients;
  return wanted < kGreatestBacklog ? static_cast<int>(wanted) : kGreatestBacklog;
}

SystemNeeds work_out_needs(const LimitedConfiguration &configuration, const SystemUse &use) noexcept {
  const std::int64_t more_clients = at_least_zero(configuration.max_clients - configuration.clients);
  const std::int64_t more_backends = at_least_zero(configuration.max_backends - configuration.backends);

  SystemNeeds needs{};
  needs.descriptors = configuration.descriptor_base + configuration.max_clients + kSpareDescriptors;
  // A client is one open file, whoever has copies of its descriptor; a pool has an
  // epoll set and a bell, a control channel two ends.
  needs.open_files = at_least_zero(use.open_files) + more_clients + 2 * configuration.max_pools + 2 * more_backends;
  needs.backlog = listen_backlog(static_cast<int>(configuration.max_connections),
                                 static_cast<int>(configuration.max_unauthenticated_clients));
  // Where cookies are off the kernel keeps the last quarter for hosts it knows.
  needs.syn_backlog = use.syn_cookies > 0 ? -1 : (needs.backlog * 4 + 2) / 3;
  needs.client_ports = configuration.max_clients;
  needs.tcp_pages = at_least_zero(use.tcp_pages) + kPagesPerBusySocket * configuration.max_clients;
  needs.socket_bytes = kIdleSocketBytes * more_clients;
  needs.processes = configuration.server_processes + kOtherServerProcesses;
  needs.tasks = at_least_zero(use.tasks) + needs.processes;
  // A client is watched by the dispatcher and by its pool.  A pool watches its bell
  // and is watched by the dispatcher, as are control channels and listeners.
  needs.watches = 2 * configuration.max_clients + 2 * configuration.max_pools + configuration.max_backends +
                  configuration.max_listeners + 1 + kWatchesPerProcess * needs.processes;
  needs.mappings = use.own_mappings < 0 ? -1 : use.own_mappings + kAreaSegments;
  return needs;
}

}  // namespace sluice
