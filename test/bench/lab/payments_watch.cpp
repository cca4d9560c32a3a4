// SPDX-License-Identifier: PostgreSQL

#include "payments_watch.hpp"

#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstring>
#include <fstream>

#include "payments_common.hpp"

namespace payments {

namespace {

volatile sig_atomic_t asked_to_stop = 0;
void stop(int) {
  asked_to_stop = 1;
}

const char kSluicePools[] =
    "SELECT coalesce(sum(total), 0), coalesce(sum(active), 0), coalesce(sum(in_transaction + held + pinned), 0), "
    "coalesce(sum(idle), 0), coalesce(sum(starting + retiring), 0), coalesce(sum(waiting), 0) "
    "FROM sluice.pools WHERE database = current_database()";
const char kServersView[] =
    "SELECT count(*), count(*) FILTER (WHERE state = 'active'), "
    "count(*) FILTER (WHERE state LIKE 'idle in transaction%'), count(*) FILTER (WHERE state = 'idle'), 0 "
    "FROM pg_stat_activity "
    "WHERE backend_type = 'client backend' AND datname = current_database() AND pid <> pg_backend_pid()";

struct Watcher {
  const WatchSettings &settings;
  PGconn *server;
  FILE *pool;
  FILE *memory;
  int64_t began_us;
};

double at_s(const Watcher &watcher) {
  return static_cast<double>(clock_us() - watcher.began_us) / 1e6;
}

void look_at_pool(const Watcher &watcher) {
  const double at = at_s(watcher);
  PGresult *rows = query(watcher.server, watcher.settings.sluice ? kSluicePools : kServersView);
  fprintf(watcher.pool, "%s,%.2f", watcher.settings.label.c_str(), at);
  for (int column = 0; column < PQnfields(rows); column++) fprintf(watcher.pool, ",%s", PQgetvalue(rows, 0, column));
  PQclear(rows);
  fputs(watcher.settings.sluice ? "\n" : ",\n", watcher.pool);
  fflush(watcher.pool);
}

// The kilobytes behind "NAME:" in a file of /proc; -1 if there is no such file or line, as for a process that ends.
int64_t kilobytes(const std::string &file, const char *name) {
  std::ifstream lines(file);
  std::string line;
  while (std::getline(lines, line))
    if (line.compare(0, strlen(name), name) == 0) return strtoll(line.c_str() + strlen(name), nullptr, 10);
  return -1;
}

std::vector<int> pids_of(const ProcessGroup &group) {
  std::vector<int> pids = {group.pid};
  if (!group.with_children) return pids;
  const std::string pid = std::to_string(group.pid);
  std::ifstream children("/proc/" + pid + "/task/" + pid + "/children");
  int child;
  while (children >> child) pids.push_back(child);
  return pids;
}

// Adding up the pages of a process takes a millisecond, of the hundred a tenth of a second that the load lacks.
constexpr int kLooksPerPss = 10;
constexpr int kFirstPss = 5;

void look_at_memory(const Watcher &watcher, int look) {
  const bool with_pss = look % kLooksPerPss == kFirstPss;
  for (const ProcessGroup &group : watcher.settings.processes) {
    const double at = at_s(watcher);
    int64_t rss_anon = 0;
    int64_t pss = 0;
    int processes = 0;
    for (const int pid : pids_of(group)) {
      const std::string folder = "/proc/" + std::to_string(pid);
      const int64_t anonymous = kilobytes(folder + "/status", "RssAnon:");
      if (anonymous < 0) continue;
      processes++;
      rss_anon += anonymous * 1024;
      if (with_pss) pss += std::max<int64_t>(0, kilobytes(folder + "/smaps_rollup", "Pss:")) * 1024;
    }
    fprintf(watcher.memory, "%s,%.2f,%s,%d,%" PRId64 ",%s\n", watcher.settings.label.c_str(), at, group.name.c_str(),
            processes, rss_anon, with_pss ? std::to_string(pss).c_str() : "");
  }
  fflush(watcher.memory);
}

void sleep_until(int64_t at_us) {
  const timespec at = {static_cast<time_t>(at_us / 1000000), static_cast<long>(at_us % 1000000 * 1000)};
  while (asked_to_stop == 0 && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr) == EINTR) continue;
}

}  // namespace

void watch(const WatchSettings &settings) {
  struct sigaction action = {};
  action.sa_handler = stop;
  sigaction(SIGTERM, &action, nullptr);
  Watcher watcher = {settings, connect_or_die(settings.conninfo), nullptr, nullptr, clock_us()};
  watcher.pool = append_to(settings.pool_file.c_str(), "leg,at_s,total,active,in_transaction,idle,starting,waiting");
  watcher.memory = append_to(settings.memory_file.c_str(), "leg,at_s,group,processes,rss_anon_bytes,pss_bytes");
  const int64_t every_us = static_cast<int64_t>(settings.every_ms * 1e3);
  const int64_t end_us = watcher.began_us + static_cast<int64_t>(settings.seconds * 1e6);
  int64_t memory_due_us = watcher.began_us;
  int memory_looks = 0;
  for (int64_t due_us = watcher.began_us; asked_to_stop == 0 && due_us <= end_us;) {
    look_at_pool(watcher);
    if (due_us >= memory_due_us) {
      look_at_memory(watcher, memory_looks++);
      memory_due_us += static_cast<int64_t>(settings.memory_every_ms * 1e3);
    }
    // What could not be looked at in time is left out, not made up for.
    do due_us += every_us;
    while (due_us < clock_us());
    sleep_until(due_us);
  }
  fclose(watcher.pool);
  fclose(watcher.memory);
  PQfinish(watcher.server);
}

}  // namespace payments
