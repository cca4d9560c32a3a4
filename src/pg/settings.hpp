// SPDX-License-Identifier: PostgreSQL
//
// The settings of pg_sluice (prefix "sluice."), as PostgreSQL keeps them.
// Defined and documented in settings.cpp; read-only for everyone else.

#ifndef SLUICE_PG_SETTINGS_HPP
#define SLUICE_PG_SETTINGS_HPP

namespace sluice::pg {

// Known from server start on.
extern int setting_port;
extern char *setting_listen_addresses;         // "" = the server's own
extern char *setting_unix_socket_directories;  // "" = the server's own
extern int setting_max_clients;
extern int setting_max_backends;
extern int setting_max_pools;
extern int setting_nested_reserve;    // backends beyond setting_max_backends
extern int setting_max_events;
extern int setting_max_applications;
extern int setting_client_memory;    // MB
extern int setting_history_seconds;   // 0 = no history

// Can change with a reload.
extern int setting_max_unauthenticated_clients;
extern bool setting_kernel_tls;
extern double setting_cores;  // -1 = detect
extern int setting_spindles;  // -1 = detect
extern char *setting_procfs;  // absolute, shorter than kMountPathLength
extern char *setting_sysfs;   // likewise
extern int setting_max_prepared_statements;
extern int setting_max_unauthenticated_per_address;  // -1 = nine tenths, 0 = no limit of its own
extern int setting_max_login_bytes;                  // kB
extern int setting_max_clients_per_address;          // 0 = no limit
extern int setting_max_clients_per_role;             // 0 = no limit
extern int setting_max_clients_per_database;         // 0 = no limit
extern int setting_max_accept_rate;                  // per second, 0 = no limit
extern int setting_max_client_memory;                // kB
extern bool setting_track_timing;
extern bool setting_save_history;
extern int setting_debug_backend_start_delay;  // ms

// Can also be set per role and per database; each pool has its own values.
extern int setting_pool_mode;  // PoolMode
extern int setting_min_pool_size;
extern int setting_max_pool_size;    // -1 = follow the sizing rule
extern int setting_acquire_timeout;  // ms, 0 = no limit
extern int setting_idle_timeout;     // ms, 0 = never
extern int setting_max_lifetime;     // ms, 0 = never
extern int setting_on_session_state;  // OnSessionState
extern int setting_pin_timeout;       // ms, 0 = never
extern int setting_send_timeout;      // ms, 0 = never
extern int setting_message_timeout;   // ms, 0 = never
extern int setting_leak_threshold;    // ms, 0 = never
extern char *setting_pin_functions;   // names, separated by commas
extern bool setting_log_pins;
extern bool setting_debug_force_switch;

enum class OnSessionState : int { pin = 0, error = 1 };

// Defines them all.  Called once, from _PG_init.
void define_settings();

}  // namespace sluice::pg

#endif
