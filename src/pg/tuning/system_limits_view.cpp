// SPDX-License-Identifier: PostgreSQL
//
// sluice.system_limits: limits of the operating system beside what this
// configuration needs of them.  They are read and put into words here; what is
// needed and what follows is decided in core/tuning/system_limits.
//
// Nothing is remembered: each call reads some thirty small files.  A limit that
// cannot be read keeps its row, and the reason stands in it.  The network's
// limits are those of the network the caller's process is in, which is the
// server's.

#include "pg/stats/view_row.hpp"

extern "C" {
#include "storage/dsm_impl.h"
#include "utils/guc.h"
}

#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/tuning/cgroup_quota.hpp"
#include "core/tuning/pressure_stall.hpp"
#include "core/tuning/system_limits.hpp"
#include "pg/accept/listener.hpp"
#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"
#include "pg/tuning/system_files.hpp"
#include "pg/tuning/system_pressure.hpp"

namespace sluice::pg {

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr std::size_t kReasonLength = 400;

struct Circumstances {
  LimitedConfiguration configuration;
  SystemUse use;
  SystemNeeds needs;
  int dispatcher_pid;  // 0: does not run
};

// ---------------------------------------------------------------- reading

// Numbers of a file, or why there are none.
struct Reading {
  std::int64_t numbers[kMaxLimitNumbers];
  std::size_t count;
  int error;            // of the system, while reading
  const char *failure;  // null: as many numbers as were asked for

  std::int64_t number(std::size_t index) const { return failure == nullptr ? numbers[index] : -1; }
};

const char *parse_failure(const SystemPath &path) {
  char reason[kReasonLength];
  TextWriter writer(reason, sizeof(reason));
  add_parse_failure(writer, path);
  return shown_system_text(reason);
}

const char *read_failure(const SystemPath &path, int error) {
  char reason[kReasonLength];
  TextWriter writer(reason, sizeof(reason));
  add_read_failure(writer, path, error);
  return shown_system_text(reason);
}

Reading read_numbers(const SystemPath &path, std::size_t wanted = 1) {
  Reading reading{};
  char buffer[256];
  const std::string_view text = read_system_file(path, buffer, &reading.error);
  if (text.empty()) {
    reading.failure = read_failure(path, reading.error);
    return reading;
  }
  reading.count = parse_limits(text, reading.numbers);
  if (reading.count < wanted) reading.failure = parse_failure(path);
  return reading;
}

// "net.core.somaxconn" is in sys/net/core/somaxconn.
SystemPath sysctl_path(const char *name) {
  char file[128];
  strlcpy(file, name, sizeof(file));
  for (char *c = file; *c != '\0'; c++) {
    if (*c == '.') *c = '/';
  }
  return proc_path("sys/%s", file);
}

Reading read_sysctl(const char *name, std::size_t wanted = 1) {
  return read_numbers(sysctl_path(name), wanted);
}

std::int64_t count_own_mappings() {
  std::int64_t lines = 0;
  return for_each_system_line(proc_path("self/maps"), [&lines](std::string_view) { lines++; }) ? lines : -1;
}

SystemUse measure_use() {
  SystemUse use;
  use.open_files = read_sysctl("fs.file-nr", 3).number(0);
  use.syn_cookies = read_sysctl("net.ipv4.tcp_syncookies").number(0);
  use.own_mappings = count_own_mappings();

  const auto see_sockets = [&use](std::string_view line) { (void)parse_tcp_pages(line, use.tcp_pages); };
  (void)for_each_system_line(proc_path("net/sockstat"), see_sockets);

  char buffer[256];
  LoadAverage load;
  if (parse_load_average(read_system_file(proc_path("loadavg"), buffer), load)) use.tasks = load.tasks;
  return use;
}

Circumstances look_around() {
  const SharedHeader &header = *shared().header;
  Circumstances now{};
  now.configuration.max_clients = header.max_clients;
  now.configuration.clients = header.clients.load(kRelaxed);
  now.configuration.max_backends = header.max_backends;
  now.configuration.backends = header.backends.load(kRelaxed);
  now.configuration.max_pools = header.max_pools;
  now.configuration.max_listeners = kMaxListeners;
  now.configuration.max_connections = MaxConnections;
  now.configuration.max_unauthenticated_clients = setting_max_unauthenticated_clients;
  now.configuration.descriptor_base = header.descriptor_base;
  now.configuration.server_processes = MaxBackends;
  now.use = measure_use();
  now.needs = work_out_needs(now.configuration, now.use);
  now.dispatcher_pid = header.dispatcher_pid.load(kRelaxed);
  return now;
}

// ---------------------------------------------------------------- rows

// One row; the strings live in the current memory context.
struct LimitRow {
  const char *resource;
  const char *unit;
  LimitQuestion question;
  const char *explanation;
  const char *failure;  // why the value is unknown
};

void emit_limit(FunctionCallInfo fcinfo, const LimitRow &limit, LimitAnswer answer, const char *command) {
  ViewRow row;
  start_row(row);
  put_text(row, limit.resource);
  put_bigint_or_null(row, static_cast<std::uint64_t>(limit.question.value), limit.question.value >= 0);
  put_text(row, limit.unit);
  put_bigint_or_null(row, static_cast<std::uint64_t>(limit.question.needed), limit.question.needed >= 0);
  put_text(row, limit_verdict_phrase(answer.verdict).data());
  put_text(row, limit.failure != nullptr ? limit.failure : limit.explanation);
  put_text(row, command);
  emit_row(fcinfo, row);
}

void emit_sysctl(FunctionCallInfo fcinfo, const LimitRow &limit) {
  const LimitAnswer answer = judge_limit(limit.question);
  const char *command = answer.recommended < 0
                            ? psprintf("sysctl %s", limit.resource)
                            : psprintf("sysctl -w %s=" INT64_FORMAT, limit.resource, answer.recommended);
  emit_limit(fcinfo, limit, answer, command);
}

// Where the limits of the server's processes are set, on a machine with systemd.
const char *unit_command(const char *setting, std::int64_t value) {
  return psprintf("systemctl edit postgresql@%s-main  # in [Service]: %s=" INT64_FORMAT "; then restart the server",
                  PG_MAJORVERSION, setting, value);
}

const char *amount(std::int64_t number) {
  return number < 0 ? "an unknown number" : psprintf(INT64_FORMAT, number);
}

// ---------------------------------------------------------------- files

struct ResourceLimit {
  std::int64_t soft = -1;
  std::int64_t hard = -1;
  const char *failure = nullptr;
};

std::int64_t as_limit(rlim_t limit) {
  return limit == RLIM_INFINITY ? kUnlimited : static_cast<std::int64_t>(limit);
}

ResourceLimit read_resource_limit(int pid, decltype(RLIMIT_NOFILE) resource) {
  ResourceLimit limit;
  struct rlimit found;
  if (prlimit(pid, resource, nullptr, &found) == 0) {
    limit.soft = as_limit(found.rlim_cur);
    limit.hard = as_limit(found.rlim_max);
  } else {
    limit.failure = psprintf("cannot read the limits of process %d: %s", pid, strerror(errno));
  }
  return limit;
}

void emit_descriptor_limits(FunctionCallInfo fcinfo, const Circumstances &now) {
  const ResourceLimit limit = read_resource_limit(now.dispatcher_pid, RLIMIT_NOFILE);
  const char *formula = psprintf("descriptors of clients begin at " INT64_FORMAT ", sluice.max_clients is " INT64_FORMAT
                                 ", and " INT64_FORMAT " are spare",
                                 now.configuration.descriptor_base, now.configuration.max_clients, kSpareDescriptors);
  const int pid = now.dispatcher_pid != 0 ? now.dispatcher_pid : MyProcPid;

  LimitRow soft{
      "RLIMIT_NOFILE (soft)", "descriptors of a process", {limit.soft, now.needs.descriptors}, nullptr, limit.failure};
  // It raises its own to the hard one as it starts.
  soft.question.judged = now.dispatcher_pid != 0;
  soft.explanation =
      now.dispatcher_pid != 0
          ? psprintf("of the dispatcher (process %d): %s", now.dispatcher_pid, formula)
          : psprintf("of this session, as the dispatcher does not run; it raises its own to the hard one: %s", formula);
  LimitRow hard{"RLIMIT_NOFILE (hard)", soft.unit, {limit.hard, now.needs.descriptors}, nullptr, limit.failure};
  hard.explanation = psprintf("dispatcher and backends raise their own soft limits up to this one: %s", formula);

  for (const LimitRow *row : {&soft, &hard}) {
    const LimitAnswer answer = judge_limit(row->question);
    emit_limit(fcinfo, *row, answer,
               answer.recommended < 0 ? psprintf("prlimit --nofile --pid %d", pid)
                                      : unit_command("LimitNOFILE", answer.recommended));
  }
}

void emit_file_limits(FunctionCallInfo fcinfo, const Circumstances &now) {
  const Reading files = read_sysctl("fs.file-max");
  emit_sysctl(fcinfo,
              {"fs.file-max",
               "open files of the machine",
               {files.number(0), now.needs.open_files, true},
               psprintf("open on the machine now (fs.file-nr): %s; one more for each further client, two for each "
                        "possible pool, two for each further backend. A copy of a client's socket in another process "
                        "is no further open file, but an entry in that process's table: 8 bytes for each descriptor "
                        "up to the highest. Files with data are not counted here (max_files_per_process)",
                        amount(now.use.open_files)),
               files.failure});

  const Reading most = read_sysctl("fs.nr_open");
  emit_sysctl(fcinfo, {"fs.nr_open",
                       "descriptors of a process",
                       {most.number(0), now.needs.descriptors},
                       "RLIMIT_NOFILE cannot be raised above this",
                       most.failure});

  const Reading watches = read_sysctl("fs.epoll.max_user_watches");
  emit_sysctl(fcinfo,
              {"fs.epoll.max_user_watches",
               "registrations of a user",
               {watches.number(0), now.needs.watches, true},
               psprintf("two for each client (dispatcher and pool), two for each pool, one for each backend's control "
                        "channel and each listener, and " INT64_FORMAT " for each of the server's own processes",
                        kWatchesPerProcess),
               watches.failure});
}

// ---------------------------------------------------------------- network

void emit_backlog_limits(FunctionCallInfo fcinfo, const Circumstances &now) {
  const Reading accepted = read_sysctl("net.core.somaxconn");
  emit_sysctl(fcinfo, {"net.core.somaxconn",
                       "connections of a listener",
                       {accepted.number(0), now.needs.backlog},
                       psprintf("the backlog the pooled port asks for when the dispatcher starts: max_connections * 2 "
                                "+ sluice.max_unauthenticated_clients, at most %d; the kernel cuts it down to this. "
                                "In a burst of new clients those that find it full try again after a second",
                                kGreatestBacklog),
                       accepted.failure});

  const Reading half = read_sysctl("net.ipv4.tcp_max_syn_backlog");
  emit_sysctl(fcinfo,
              {"net.ipv4.tcp_max_syn_backlog",
               "half-open connections",
               {half.number(0), now.needs.syn_backlog},
               now.needs.syn_backlog < 0
                   ? "not in force, as SYN cookies are on (net.ipv4.tcp_syncookies)"
                   : "without SYN cookies (net.ipv4.tcp_syncookies) three quarters of it are for hosts that are "
                     "not known yet, and these have to hold the backlog of the pooled port",
               half.failure});

  const char *resource = "net.ipv4.ip_local_port_range";
  const Reading range = read_sysctl(resource, 2);
  const std::int64_t ports = range.failure == nullptr ? count_ports(range.numbers, range.count) : -1;
  LimitRow row{resource, "ports of a host", {ports, now.needs.client_ports}, nullptr, range.failure};
  row.question.judged = false;
  row.explanation =
      "one address has so many connections to one port of another at most. That is the concern of a host that opens "
      "them, this one only for clients that run here: needed is what it takes if all clients come from one address. "
      "Unix sockets, more addresses or more hosts have no such limit";
  if (ports < 0 && row.failure == nullptr) row.failure = parse_failure(sysctl_path(resource));
  emit_sysctl(fcinfo, row);
}

void emit_socket_memory(FunctionCallInfo fcinfo, const Circumstances &now) {
  const Reading pages = read_sysctl("net.ipv4.tcp_mem", 3);
  const LimitRow row{"net.ipv4.tcp_mem",
                     "pages of memory",
                     {pages.number(1), now.needs.tcp_pages, true},
                     psprintf("the second of its numbers, from where on TCP saves memory. In use now: %s pages; two "
                              "more for each client whose request and answer are both under way. Idle sockets hold "
                              "no data and take none. A page is %ld bytes",
                              amount(now.use.tcp_pages), sysconf(_SC_PAGESIZE)),
                     pages.failure};
  const LimitAnswer answer = judge_limit(row.question);
  // The kernel's own proportions: 3 to 4 to 6.
  emit_limit(fcinfo, row, answer,
             answer.recommended < 0
                 ? "sysctl net.ipv4.tcp_mem"
                 : psprintf("sysctl -w net.ipv4.tcp_mem=\"" INT64_FORMAT " " INT64_FORMAT " " INT64_FORMAT "\"",
                            answer.recommended / 4 * 3, answer.recommended, answer.recommended / 2 * 3));

  for (const char *name : {"net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"}) {
    const Reading buffer = read_sysctl(name, 3);
    emit_sysctl(fcinfo, {name,
                         "bytes",
                         {buffer.number(0), -1},
                         "the first of its numbers: what a socket may always use for a buffer, even when TCP saves "
                         "memory. A buffer takes memory only while there is data in it",
                         buffer.failure});
  }
}

// ---------------------------------------------------------------- processes

void emit_task_limits(FunctionCallInfo fcinfo, const Circumstances &now) {
  const char *explanation =
      psprintf("processes and threads of the machine now: %s; and all processes this server may have: " INT64_FORMAT
               ", sluice.max_backends among them. Those that run already are counted twice",
               amount(now.use.tasks), now.needs.processes);
  for (const char *name : {"kernel.pid_max", "kernel.threads-max"}) {
    const Reading tasks = read_sysctl(name);
    emit_sysctl(fcinfo,
                {name, "tasks of the machine", {tasks.number(0), now.needs.tasks, true}, explanation, tasks.failure});
  }

  const ResourceLimit limit = read_resource_limit(PostmasterPid, RLIMIT_NPROC);
  const LimitRow row{"RLIMIT_NPROC",
                     "tasks of a user",
                     {limit.soft, now.needs.processes, true},
                     "all processes this server may have; whatever else the same user runs comes on top",
                     limit.failure};
  const LimitAnswer answer = judge_limit(row.question);
  emit_limit(fcinfo, row, answer,
             answer.recommended < 0 ? psprintf("prlimit --nproc --pid %d", PostmasterPid)
                                    : unit_command("LimitNPROC", answer.recommended));
}

// The smallest pids.max on the way from the server's control group to the root.
void emit_group_tasks(FunctionCallInfo fcinfo, const Circumstances &now) {
  LimitRow row{"pids.max (control group)",
               "tasks of the group",
               {-1, now.needs.processes, true},
               "all processes this server may have; whatever else runs in the control group or below it comes on top. "
               "TasksMax of a systemd unit",
               nullptr};
  char reason[kReasonLength];
  TextWriter why(reason, sizeof(reason));
  CgroupSearch search;
  char directory[kPathLength];
  if (!look_for_control_groups(search, why)) {
    row.failure = shown_system_text(reason);
  } else if (!search.hierarchy(CgroupVersion::v2).directory(directory)) {
    row.failure = "there is no hierarchy of control groups of version 2";
  } else {
    do {
      const Reading tasks = read_numbers(mounted_path(directory, "pids.max"));
      if (row.question.value < 0 && row.failure == nullptr) row.failure = tasks.failure;
      if (tasks.failure != nullptr) continue;
      if (row.question.value < 0 || tasks.number(0) < row.question.value) row.question.value = tasks.number(0);
    } while (search.hierarchy(CgroupVersion::v2).ascend(directory));
    if (row.question.value >= 0) row.failure = nullptr;
  }
  const LimitAnswer answer = judge_limit(row.question);
  emit_limit(fcinfo, row, answer,
             answer.recommended < 0 ? psprintf("systemctl show -p TasksMax postgresql@%s-main", PG_MAJORVERSION)
                                    : unit_command("TasksMax", answer.recommended));
}

void emit_ptrace_scope(FunctionCallInfo fcinfo) {
  const char *resource = "kernel.yama.ptrace_scope";
  const Reading scope = read_sysctl(resource);
  LimitRow row{resource, "mode", {scope.number(0), -1}, nullptr, scope.failure};
  LimitAnswer answer = judge_ptrace_scope(row.question.value);
  if (scope.error == ENOENT && read_sysctl("kernel.pid_max").failure == nullptr) {
    row.failure = "the kernel is without Yama, and nothing of that kind keeps backends from taking clients' sockets";
    answer = judge_ptrace_scope(0);
  }
  row.explanation =
      answer.verdict == LimitVerdict::ok
          ? "a backend may take a client's socket from the dispatcher with pidfd_getfd()"
          : "a backend must ask the dispatcher for each client it meets for the first time, as it may not "
            "take the socket itself with pidfd_getfd(): all works, and connecting wakes the dispatcher "
            "twice more";
  emit_limit(fcinfo, row, answer,
             answer.recommended < 0 ? psprintf("sysctl %s", resource)
                                    : psprintf("sysctl -w %s=" INT64_FORMAT, resource, answer.recommended));
}

// ---------------------------------------------------------------- memory

void emit_kernel_memory(FunctionCallInfo fcinfo, const Circumstances &now) {
  const SystemPressure pressure = read_system_pressure();
  const LimitRow row{"memory of sockets",
                     "bytes",
                     {pressure.mem_available_bytes, now.needs.socket_bytes, true},
                     psprintf("value is the memory available now; needed are about " INT64_FORMAT
                              " bytes of kernel memory for each client that may still connect. If that is too much, "
                              "lower sluice.max_clients",
                              kIdleSocketBytes),
                     pressure.mem_available_bytes >= 0 ? nullptr : shown_system_text(pressure.meminfo_source)};
  emit_limit(fcinfo, row, judge_limit(row.question), "free -b");
}

void emit_shared_memory(FunctionCallInfo fcinfo) {
  const LimitRow row{"shared memory of pg_sluice",
                     "bytes",
                     {static_cast<std::int64_t>(shared_memory_bytes()), -1},
                     "part of the server's shared memory: slots of clients, backends and pools. What is never used is "
                     "never touched, unless the server runs with huge pages",
                     nullptr};
  emit_limit(fcinfo, row, judge_limit(row.question), "SELECT * FROM pg_shmem_allocations WHERE name = 'pg_sluice';");

  LimitRow free{"/dev/shm", "bytes", {-1, -1}, nullptr, nullptr};
  struct statvfs place;
  if (statvfs(free.resource, &place) == 0) {
    free.question.value = static_cast<std::int64_t>(place.f_bavail) * static_cast<std::int64_t>(place.f_frsize);
  } else {
    free.failure = psprintf("cannot examine \"%s\": %s", free.resource, strerror(errno));
  }
  free.explanation =
      dynamic_shared_memory_type == DSM_IMPL_POSIX
          ? psprintf("free there. Start-up settings and prepared statements of clients take up to %d MB of it "
                     "(sluice.client_memory), once they need more than 1 MB; parallel queries of the server take of "
                     "it, too",
                     setting_client_memory)
          : "free there, and of no concern, as dynamic_shared_memory_type is not posix";
  emit_limit(fcinfo, free, judge_limit(free.question), "df -B1 /dev/shm");
}

const char *explain_overcommit(std::int64_t mode) {
  if (mode == 2)
    return "2: a backend starts only if all memory it might write fits below CommitLimit (see meminfo): nothing is "
           "killed for want of memory, but starts fail when vm.overcommit_ratio leaves too little";
  return "0 or 1: more memory is promised than there is, and when it is used up the kernel may kill a process of the "
         "server, which restarts all of it; 2 is what PostgreSQL recommends";
}

void emit_memory_limits(FunctionCallInfo fcinfo, const Circumstances &now) {
  const Reading mappings = read_sysctl("vm.max_map_count");
  emit_sysctl(fcinfo, {"vm.max_map_count",
                       "mappings of a process",
                       {mappings.number(0), now.needs.mappings, true},
                       psprintf("mappings of this session's process now (%s), and at most " INT64_FORMAT
                                " segments with what clients bring along; clients themselves take none",
                                amount(now.use.own_mappings), kAreaSegments),
                       mappings.failure});

  const Reading overcommit = read_sysctl("vm.overcommit_memory");
  emit_sysctl(fcinfo, {"vm.overcommit_memory",
                       "mode",
                       {overcommit.number(0), -1},
                       explain_overcommit(overcommit.number(0)),
                       overcommit.failure});
}

}  // namespace

extern "C" {

PG_FUNCTION_INFO_V1(sluice_system_limits);

PGDLLEXPORT Datum sluice_system_limits(PG_FUNCTION_ARGS) {
  require_shared_memory();
  InitMaterializedSRF(fcinfo, 0);

  const Circumstances now = look_around();
  emit_descriptor_limits(fcinfo, now);
  emit_file_limits(fcinfo, now);
  emit_backlog_limits(fcinfo, now);
  emit_socket_memory(fcinfo, now);
  emit_kernel_memory(fcinfo, now);
  emit_task_limits(fcinfo, now);
  emit_group_tasks(fcinfo, now);
  emit_ptrace_scope(fcinfo);
  emit_memory_limits(fcinfo, now);
  emit_shared_memory(fcinfo);
  return static_cast<Datum>(0);
}

}  // extern "C"

}  // namespace sluice::pg
