// SPDX-License-Identifier: PostgreSQL
//
// What this configuration needs of each limit of the operating system, whether
// the limit allows it, and what to raise it to.
//
// Values in, values out: the caller reads the limits and writes the sentences.
// What is unknown is negative, and a limit that does not limit is kUnlimited.
//
// Two kinds of limits.  One that is ours alone (the descriptors of one process,
// the backlog of one listener) is enough when it is as large as the need.  One
// that is shared with the rest of the machine is close when little would be
// left: the need includes what others use at this moment, and that moves.
//
// Sources of the formulas stand with each need.  What is counted is what
// pg_sluice asks for, and where it says so the processes of the server: data
// files that the server's processes keep open are theirs (max_files_per_process).

#ifndef SLUICE_CORE_TUNING_SYSTEM_LIMITS_HPP
#define SLUICE_CORE_TUNING_SYSTEM_LIMITS_HPP

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace sluice {

constexpr std::int64_t kUnlimited = INT64_MAX;

// A number, "max" or "unlimited"; a number too large for the type does not limit
// anything.
bool parse_limit(std::string_view text, std::int64_t &limit) noexcept;

// The first numbers of a text, separated by blanks, as limits.  Returns how many.
constexpr std::size_t kMaxLimitNumbers = 4;
std::size_t parse_limits(std::string_view text, std::int64_t (&limits)[kMaxLimitNumbers]) noexcept;

// Pages of memory that TCP uses: a line of /proc/net/sockstat, "TCP: inuse 1 orphan
// 0 tw 0 alloc 1 mem 228".  False if it is another line.
bool parse_tcp_pages(std::string_view line, std::int64_t &pages) noexcept;

// How many ports net.ipv4.ip_local_port_range leaves; < 0 if that is no range.
std::int64_t count_ports(const std::int64_t (&range)[kMaxLimitNumbers], std::size_t count) noexcept;

enum class LimitVerdict { ok, close, too_low, unknown, information };

std::string_view limit_verdict_phrase(LimitVerdict verdict) noexcept;

constexpr int kClosePercent = 90;        // of a shared limit: needed above that is close
constexpr int kRoomPercent = 125;        // of the need: recommended for a shared limit
constexpr std::int64_t kRoundTo = 1024;  // recommended numbers, where they are larger

struct LimitQuestion {
  std::int64_t value = -1;   // < 0: unknown
  std::int64_t needed = -1;  // < 0: nothing definite
  bool shared = false;       // with the rest of the machine
  bool judged = true;        // else whatever is known is information
};

struct LimitAnswer {
  LimitVerdict verdict;
  std::int64_t recommended;  // < 0: leave it as it is
};

LimitAnswer judge_limit(const LimitQuestion &question) noexcept;

// kernel.yama.ptrace_scope: 0 and 1 let a backend take a client's socket with
// pidfd_getfd(2); 2 and 3 do not, and it asks the dispatcher for each instead.
LimitAnswer judge_ptrace_scope(std::int64_t scope) noexcept;

// ---------------------------------------------------------------- needs

// Descriptors above those of clients, for sockets that have no slot yet, control
// channels, and whatever the server opens.
constexpr std::int64_t kSpareDescriptors = 64;

// One idle TCP socket in kernel memory: the socket, its inode, directory entry and
// open file (3700 bytes), and two registrations in epoll sets (400).  Measured on
// Linux 6.18, x86-64, as the growth of Slab in /proc/meminfo with 12000 sockets;
// other versions differ by some hundred bytes.  Buffers come on top, while data is
// in them.
constexpr std::int64_t kIdleSocketBytes = 4100;

// Buffers are charged by the page, each way: a request and an answer under way.
constexpr std::int64_t kPagesPerBusySocket = 2;

// An epoll set made by the server waits for a latch, the postmaster and a socket
// (FeBeWaitSet) or for a latch and the postmaster (LatchWaitSet).
constexpr std::int64_t kWatchesPerProcess = 5;

// The area for clients' settings and statements grows by segments of 1 MB, 1 MB,
// 2, 2, 4, 4 and so on up to 512 MB (sluice.client_memory) altogether; each is a
// mapping.  Doubling that limit takes two more.
constexpr std::int64_t kAreaSegments = 20;

// Postmaster, checkpointer, background writer, WAL writer, archiver, logger,
// statistics and start-up: whatever is not in MaxBackends.
constexpr std::int64_t kOtherServerProcesses = 10;

// The backlog the pooled port asks for: room for the direct connections that might
// be pooled, and for those that log in.  The kernel's own field has 16 bits in
// old versions.
constexpr int kGreatestBacklog = 65535;
int listen_backlog(int max_connections, int max_unauthenticated_clients) noexcept;

struct LimitedConfiguration {
  std::int64_t max_clients = 0;
  std::int64_t clients = 0;  // now
  std::int64_t max_backends = 0;
  std::int64_t backends = 0;  // now
  std::int64_t max_pools = 0;
  std::int64_t max_listeners = 0;
  std::int64_t max_connections = 0;
  std::int64_t max_unauthenticated_clients = 0;
  std::int64_t descriptor_base = 0;
  std::int64_t server_processes = 0;  // MaxBackends: pooled backends are among them
};

// What is in use on the machine now, ours included; < 0: unknown, counted as none.
struct SystemUse {
  std::int64_t open_files = -1;
  std::int64_t tasks = -1;
  std::int64_t tcp_pages = -1;
  std::int64_t own_mappings = -1;  // of one server process
  std::int64_t syn_cookies = -1;   // net.ipv4.tcp_syncookies
};

struct SystemNeeds {
  std::int64_t descriptors;  // the highest number of one process, plus one
  std::int64_t open_files;   // of the whole machine
  std::int64_t backlog;
  std::int64_t syn_backlog;   // < 0: SYN cookies take its place
  std::int64_t client_ports;  // if all clients come from one address
  std::int64_t tcp_pages;
  std::int64_t socket_bytes;  // of clients that are not there yet
  std::int64_t processes;     // of the server
  std::int64_t tasks;         // of the whole machine
  std::int64_t watches;       // of the server's user
  std::int64_t mappings;      // < 0: unknown
};

SystemNeeds work_out_needs(const LimitedConfiguration &configuration, const SystemUse &use) noexcept;

}  // namespace sluice

#endif
