// SPDX-License-Identifier: PostgreSQL
//
// Settings.  Three kinds: what shapes shared memory and sockets is fixed at
// server start; what concerns all pools follows a reload; what concerns one pool
// can also be set per role and per database (by a superuser: ALTER ROLE ... SET),
// and takes effect with the pool's next backend.
//
// No setting's range depends on another setting: relations between settings are
// judged where they meet (at start, or in sluice.recommendations).

#include "pg/compat.hpp"

extern "C" {
#include "nodes/pg_list.h"
#include "utils/guc.h"
#include "utils/varlena.h"
}

#include <climits>

#include "core/pool/shared_state.hpp"
#include "pg/settings.hpp"
#include "pg/tuning/system_files.hpp"

namespace sluice::pg {

int setting_port = 6432;
char *setting_listen_addresses = nullptr;
char *setting_unix_socket_directories = nullptr;
int setting_max_clients = 10000;
int setting_max_backends = 100;
int setting_max_pools = 64;
int setting_max_unauthenticated_clients = 500;
int setting_max_unauthenticated_per_address = -1;
int setting_max_login_bytes = 128;
int setting_max_clients_per_address = 0;
int setting_max_clients_per_role = 0;
int setting_max_clients_per_database = 0;
int setting_max_accept_rate = 20000;
int setting_client_memory = 512;
int setting_max_client_memory = 32 * 1024;
bool setting_kernel_tls = true;
int setting_nested_reserve = 4;
int setting_max_events = 1000;
int setting_max_applications = 200;
int setting_history_seconds = 3600;
bool setting_track_timing = true;
bool setting_save_history = true;
double setting_cores = -1;
int setting_spindles = -1;
char *setting_procfs = nullptr;
char *setting_sysfs = nullptr;
int setting_max_prepared_statements = 1000;
int setting_debug_backend_start_delay = 0;
int setting_pool_mode = static_cast<int>(PoolMode::transaction);
int setting_min_pool_size = 0;
int setting_max_pool_size = -1;
int setting_acquire_timeout = 30000;
int setting_idle_timeout = 600000;
int setting_max_lifetime = 1800000;
int setting_on_session_state = static_cast<int>(OnSessionState::pin);
int setting_pin_timeout = 0;
int setting_send_timeout = 3600000;
int setting_message_timeout = 300000;
int setting_leak_threshold = 60000;
char *setting_pin_functions = nullptr;
bool setting_log_pins = false;
bool setting_debug_force_switch = false;

static const struct config_enum_entry kPoolModes[] = {
    {"transaction", static_cast<int>(PoolMode::transaction), false},
    {"session", static_cast<int>(PoolMode::session), false},
    {"statement", static_cast<int>(PoolMode::statement), false},
    {nullptr, 0, false},
};

static const struct config_enum_entry kOnSessionState[] = {
    {"pin", static_cast<int>(OnSessionState::pin), false},
    {"error", static_cast<int>(OnSessionState::error), false},
    {nullptr, 0, false},
};

extern "C" {

static bool check_max_pool_size(int *newval, void **, GucSource) {
  if (*newval == 0) {
    GUC_check_errdetail("A pool without backends could not serve anyone.");
    GUC_check_errhint("Use -1 to follow the sizing rule, or a number of at least 1.");
    return false;
  }
  return true;
}

static bool check_pin_functions(char **newval, void **, GucSource) {
  List *names = NIL;
  char *copy = pstrdup(*newval);
  bool valid = SplitIdentifierString(copy, ',', &names);
  ListCell *cell;
  if (!valid) GUC_check_errdetail("List syntax is invalid.");
  foreach (cell, names) {
    if (strchr(static_cast<const char *>(lfirst(cell)), '.') == nullptr) continue;
    GUC_check_errdetail("Functions are named without their schema.");
    valid = false;
  }
  list_free(names);
  pfree(copy);
  return valid;
}

static bool check_cores(double *newval, void **, GucSource) {
  if (*newval != -1 && *newval <= 0) {
    GUC_check_errdetail("The number of cores must be positive.");
    GUC_check_errhint("Use -1 to detect it.");
    return false;
  }
  return true;
}

// Whether anything is mounted there is seen when it is read: it may come later.
static bool check_mount_path(char **newval, void **, GucSource) {
  if (!is_absolute_path(*newval)) {
    GUC_check_errdetail("The path must be absolute.");
    return false;
  }
  if (strlen(*newval) >= kMountPathLength) {
    GUC_check_errdetail("The path must be shorter than %d bytes.", static_cast<int>(kMountPathLength));
    return false;
  }
  return true;
}

}  // extern "C"

static void define_server_settings() {
  DefineCustomIntVariable("sluice.port", "Sets the TCP port and the Unix socket number pooled clients connect to.",
                          nullptr, &setting_port, 6432, 1, 65535, PGC_POSTMASTER, 0, nullptr, nullptr, nullptr);
  DefineCustomStringVariable("sluice.listen_addresses", "Sets the host names or IP addresses pooled clients connect to.",
                             "An empty value means the same as listen_addresses.", &setting_listen_addresses, "",
                             PGC_POSTMASTER, GUC_LIST_INPUT, nullptr, nullptr, nullptr);
  DefineCustomStringVariable("sluice.unix_socket_directories",
                             "Sets the directories in which the Unix socket for pooled clients is created.",
                             "An empty value means the same as unix_socket_directories.",
                             &setting_unix_socket_directories, "", PGC_POSTMASTER, GUC_LIST_INPUT | GUC_SUPERUSER_ONLY,
                             nullptr, nullptr, nullptr);
  DefineCustomIntVariable("sluice.max_clients", "Sets the greatest number of clients of all pools together.",
                          "Each takes one file descriptor in the dispatcher and in every backend of its pool.",
                          &setting_max_clients, 10000, 1, 1000000, PGC_POSTMASTER, 0, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("sluice.max_backends", "Sets the greatest number of pooled backends of all pools together.",
                          "This many worker processes are added to max_worker_processes at server start.",
                          &setting_max_backends, 100, 1, 10000, PGC_POSTMASTER, 0, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("sluice.max_pools", "Sets the greatest number of pools, one for each database and role in use.",
                          nullptr, &setting_max_pools, 64, 1, 4096, PGC_POSTMASTER, 0, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("sluice.nested_reserve",
                          "Sets the number of backends kept for clients whose application holds all others.",
                          "They are started beyond sluice.max_backends when clients wait for a second connection of an "
                          "application that already holds every backend.  0 keeps none.",
                          &setting_nested_reserve, 4, 0, 1000, PGC_POSTMASTER, 0, nullptr, nullptr, nullptr);
}

// Against clients that take what others need; see pg/accept/client_limits.cpp.
static void define_limits() {
  DefineCustomIntVariable("sluice.max_unauthenticated_clients",
                          "Sets the greatest number of clients that may be logging in at the same time.", nullptr,
                          &setting_max_unauthenticated_clients, 500, 1, 1000000, PGC_SIGHUP, 0, nullptr, nullptr,
                          nullptr);
  DefineCustomIntVariable("sluice.max_unauthenticated_per_address",
                          "Sets the greatest number of clients of one address that may be logging in at the same time.",
                          "-1 allows nine tenths of sluice.max_unauthenticated_clients, 0 all of them.",
                          &setting_max_unauthenticated_per_address, -1, -1, 1000000, PGC_SIGHUP, 0, nullptr, nullptr,
                          nullptr);
  DefineCustomIntVariable("sluice.max_login_bytes",
                          "Sets how much a client may send before it is authenticated.",
                          "The longest start-up packet and password together have 74 kB.", &setting_max_login_bytes, 128,
                          16, 1024, PGC_SIGHUP, GUC_UNIT_KB, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("sluice.max_clients_per_address", "Sets the greatest number of clients of one address.",
                          "Those logging in and superusers are counted.  0 sets no limit.",
                          &setting_max_clients_per_address, 0, 0, 1000000, PGC_SIGHUP, 0, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("sluice.max_clients_per_role", "Sets the greatest number of clients of one role.",
                          "Not for superusers.  0 sets no limit.", &setting_max_clients_per_role, 0, 0, 1000000,
                          PGC_SIGHUP, 0, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("sluice.max_clients_per_database", "Sets the greatest number of clients of one database.",
                          "Not for superusers.  0 sets no limit.", &setting_max_clients_per_database, 0, 0, 1000000,
                          PGC_SIGHUP, 0, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("sluice.max_accept_rate", "Sets how many clients are accepted in a second.",
                          "Others wait in the backlog of the operating system.  0 sets no limit.",
                          &setting_max_accept_rate, 20000, 0, 1000000, PGC_SIGHUP, 0, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("sluice.client_memory",
                          "Sets how much shared memory is used for what all clients leave behind between transactions.",
                          "Start-up settings, session settings, prepared statements and sequence values.",
                          &setting_client_memory, 512, 8, 1048576, PGC_POSTMASTER, GUC_UNIT_MB, nullptr, nullptr,
                          nullptr);
  DefineCustomIntVariable("sluice.max_client_memory", "Sets how much of sluice.client_memory one client may use.",
                          "A prepared statement that several clients share counts in full for each of them.",
                          &setting_max_client_memory, 32 * 1024, 64, 1048576, PGC_SIGHUP, GUC_UNIT_KB, nullptr, nullptr,
                          nullptr);
}

static void define_client_timeouts() {
  DefineCustomIntVariable("sluice.send_timeout",
                          "Sets how long a backend waits for a client to take more of an answer.",
                          "The time in which the client takes nothing at all.  0 waits forever.", &setting_send_timeout,
                          3600000, 0, INT_MAX, PGC_SUSET, GUC_UNIT_MS, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("sluice.message_timeout",
                          "Sets how long a backend waits for the rest of a message that a client has begun.",
                          "The time in which nothing at all arrives.  0 waits forever.", &setting_message_timeout,
                          300000, 0, INT_MAX, PGC_SUSET, GUC_UNIT_MS, nullptr, nullptr, nullptr);
}

static void define_statistics_settings() {
  DefineCustomIntVariable("sluice.max_events", "Sets the number of events kept for the view sluice.events.", nullptr,
                          &setting_max_events, 1000, 16, 100000, PGC_POSTMASTER, 0, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("sluice.max_applications",
                          "Sets the number of pairs of role and application_name whose times are kept apart.", nullptr,
                          &setting_max_applications, 200, 2, 10000, PGC_POSTMASTER, 0, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("sluice.history_seconds", "Sets for how long a sample of each second is kept for each pool.",
                          "0 keeps no history.", &setting_history_seconds, 3600, 0, 86400, PGC_POSTMASTER, GUC_UNIT_S,
                          nullptr, nullptr, nullptr);
  DefineCustomBoolVariable("sluice.track_timing",
                           "Collects how long clients wait, and how long backends are held and execute.", nullptr,
                           &setting_track_timing, true, PGC_SIGHUP, 0, nullptr, nullptr, nullptr);
  DefineCustomBoolVariable("sluice.save_history", "Saves the history across server restarts.", nullptr,
                           &setting_save_history, true, PGC_SIGHUP, 0, nullptr, nullptr, nullptr);
}

static void define_reloadable_settings() {
  DefineCustomBoolVariable("sluice.kernel_tls", "Lets the kernel encrypt clients' connections where it can.",
                           "Where it cannot, the dispatcher does.", &setting_kernel_tls, true, PGC_SIGHUP, 0, nullptr,
                           nullptr, nullptr);
  DefineCustomRealVariable("sluice.cores", "Sets the number of cores the sizing rule assumes.",
                           "-1 detects the physical cores this server may use; a fraction is allowed.", &setting_cores,
                           -1, -1, 100000, PGC_SIGHUP, 0, check_cores, nullptr, nullptr);
  DefineCustomIntVariable("sluice.spindles", "Sets the number of rotating disks the sizing rule assumes.",
                          "-1 detects them under the data directory and the tablespaces.", &setting_spindles, -1, -1,
                          100000, PGC_SIGHUP, 0, nullptr, nullptr, nullptr);
  DefineCustomStringVariable("sluice.procfs", "Sets where the proc file system is mounted.",
                             "For containers that hide it, or have the host's somewhere else.", &setting_procfs,
                             "/proc", PGC_SIGHUP, GUC_SUPERUSER_ONLY, check_mount_path, nullptr, nullptr);
  DefineCustomStringVariable("sluice.sysfs", "Sets where the sys file system is mounted.",
                             "For containers that hide it, or have the host's somewhere else.", &setting_sysfs, "/sys",
                             PGC_SIGHUP, GUC_SUPERUSER_ONLY, check_mount_path, nullptr, nullptr);
  DefineCustomIntVariable("sluice.max_prepared_statements",
                          "Sets the greatest number of prepared statements a client may keep.", nullptr,
                          &setting_max_prepared_statements, 1000, 1, 1000000, PGC_SIGHUP, 0, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("sluice.debug_backend_start_delay", "Sets a delay added to the start of each pooled backend.",
                          "For testing the growth of pools.", &setting_debug_backend_start_delay, 0, 0, 600000,
                          PGC_SIGHUP, GUC_UNIT_MS | GUC_NOT_IN_SAMPLE, nullptr, nullptr, nullptr);
}

static void define_pool_settings() {
  DefineCustomEnumVariable("sluice.pool_mode", "Sets when a client gives its backend back.",
                           "\"transaction\" at the end of each transaction, \"session\" when it disconnects, "
                           "\"statement\" as \"transaction\", but transaction blocks are refused.",
                           &setting_pool_mode, static_cast<int>(PoolMode::transaction), kPoolModes, PGC_SUSET, 0,
                           nullptr, nullptr, nullptr);
  DefineCustomIntVariable("sluice.min_pool_size", "Sets the number of backends a pool in use keeps when they are idle.",
                          nullptr, &setting_min_pool_size, 0, 0, 10000, PGC_SUSET, 0, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("sluice.max_pool_size", "Sets the greatest number of backends of a pool.",
                          "-1 follows the rule cores * 2 + spindles.  A backend whose client thinks inside a "
                          "transaction counts against sluice.max_backends only.",
                          &setting_max_pool_size, -1, -1, 10000, PGC_SUSET, 0, check_max_pool_size, nullptr, nullptr);
  DefineCustomIntVariable("sluice.acquire_timeout", "Sets the longest time a client waits for a backend.",
                          "0 waits without limit.", &setting_acquire_timeout, 30000, 0, INT_MAX, PGC_SUSET, GUC_UNIT_MS,
                          nullptr, nullptr, nullptr);
  DefineCustomIntVariable("sluice.idle_timeout",
                          "Sets how long a backend above sluice.min_pool_size stays without work.",
                          "0 keeps idle backends until their lifetime is over.", &setting_idle_timeout, 600000, 0,
                          INT_MAX, PGC_SUSET, GUC_UNIT_MS, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("sluice.max_lifetime", "Sets the age at which a pooled backend is replaced.",
                          "Up to 2.5 percent are taken off at random, so that backends do not retire together.  "
                          "0 lets them live forever.",
                          &setting_max_lifetime, 1800000, 0, INT_MAX, PGC_SUSET, GUC_UNIT_MS, nullptr, nullptr,
                          nullptr);
}

static void define_session_state_settings() {
  DefineCustomEnumVariable("sluice.on_session_state",
                           "Sets what happens when a client makes session state that cannot be carried between backends.",
                           "\"pin\" keeps the client on its backend while the state exists, \"error\" refuses the "
                           "statement.",
                           &setting_on_session_state, static_cast<int>(OnSessionState::pin), kOnSessionState, PGC_SUSET,
                           0, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("sluice.leak_threshold",
                          "Sets how long a client may hold a backend while others wait before that is logged.",
                          "0 never logs it.", &setting_leak_threshold, 60000, 0, INT_MAX, PGC_SUSET, GUC_UNIT_MS,
                          nullptr, nullptr, nullptr);
  DefineCustomIntVariable("sluice.pin_timeout", "Sets how long a pinned client may be idle before it is ended.",
                          "0 never ends it.", &setting_pin_timeout, 0, 0, INT_MAX, PGC_SUSET, GUC_UNIT_MS, nullptr,
                          nullptr, nullptr);
  DefineCustomStringVariable("sluice.pin_functions",
                             "Sets the functions that bind the client that executes them to its backend.",
                             "Names without schema, separated by commas: functions that keep data of the session in "
                             "the memory of their process.",
                             &setting_pin_functions, "", PGC_SUSET, GUC_LIST_INPUT, check_pin_functions, nullptr,
                             nullptr);
  DefineCustomBoolVariable("sluice.log_pins", "Logs when a client is pinned to its backend and when it is released.",
                           nullptr, &setting_log_pins, false, PGC_SUSET, 0, nullptr, nullptr, nullptr);
  DefineCustomBoolVariable("sluice.debug_force_switch", "Makes every transaction of a client run on another backend.",
                           "For testing that nothing is lost between backends; pools should have at least two.",
                           &setting_debug_force_switch, false, PGC_SUSET, GUC_NOT_IN_SAMPLE, nullptr, nullptr,
                           nullptr);
}

void define_settings() {
  define_server_settings();
  define_reloadable_settings();
  define_pool_settings();
  define_session_state_settings();
  define_limits();
  define_client_timeouts();
  define_statistics_settings();
  MarkGUCPrefixReserved("sluice");
}

}  // namespace sluice::pg
