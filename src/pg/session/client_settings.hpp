// SPDX-License-Identifier: PostgreSQL
//
// The settings a client brings with its start-up packet, applied to whichever
// backend serves it, and what its transactions leave behind, taken away again.

#ifndef SLUICE_PG_SESSION_CLIENT_SETTINGS_HPP
#define SLUICE_PG_SESSION_CLIENT_SETTINGS_HPP

#include "pg/compat.hpp"

#include <cstdint>

#include "core/pool/shared_state.hpp"

namespace sluice::pg {

// Remembers what this backend is like without any client.  Once, after start.
void remember_baseline_settings();

// Makes this backend's start-up settings those of the client (nothing is done
// when they are the same).  Errors are those of a direct connection's start;
// what had been applied by then is taken back by the next call.
void apply_startup_settings(const ClientSlot *client);

// Takes all start-up settings back.
void apply_no_startup_settings();

// The hash of the start-up settings in force; 0 = none.
std::uint64_t startup_settings_hash();

// True if some setting was changed since the transaction or session began
// (SET, set_config, SET LOCAL while the transaction lasts).
bool session_settings_changed();

// RESET ALL, with the role and session authorization.
void reset_session_settings();

// True if a setting has come into existence since the baseline: a library was
// loaded or a custom setting was made up.
bool settings_were_added();

// Reads the configuration files again, below whatever the client has set, and
// publishes the pool's settings.
void reload_configuration();

// Tells the dispatcher this pool's settings as role and database define them.
void publish_pool_settings();

// Sends a ParameterStatus message for every setting clients are told about.
void send_all_parameters();

}  // namespace sluice::pg

#endif
