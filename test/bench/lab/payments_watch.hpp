// SPDX-License-Identifier: PostgreSQL
//
// Looks at the pool and at the memory of its processes while the payments run, from a process of its own so that
// looking delays no user.
//
// What the connections of the server do comes from sluice.pools for pg_sluice, and for all others from the server's
// pg_stat_activity, to which every pooler is the same.  It does not know who waits in a pooler: the application server
// does, see payments_server.hpp.
//
// Memory: RssAnon is what processes have for themselves, and what a leak would raise.  The proportional set size adds
// their share of what is shared, buffers above all, and grows until every buffer has been touched; it is looked at less
// often.

#ifndef SLUICE_BENCH_LAB_PAYMENTS_WATCH_HPP
#define SLUICE_BENCH_LAB_PAYMENTS_WATCH_HPP

#include <string>
#include <vector>

namespace payments {

struct ProcessGroup {
  std::string name;
  int pid;
  bool with_children;
};

struct WatchSettings {
  std::string label;
  std::string conninfo;  // of the server, directly
  bool sluice = false;
  std::vector<ProcessGroup> processes;
  double seconds = 86400;
  double every_ms = 500;
  double memory_every_ms = 5000;
  std::string pool_file;
  std::string memory_file;
};

// Until the time is over or SIGTERM comes.
void watch(const WatchSettings &settings);

}  // namespace payments

#endif
