// SPDX-License-Identifier: PostgreSQL
//
// The settings of a client, applied to whichever backend serves it: those it
// brings with its start-up packet (here), and those it has SET since
// (session_settings.hpp).

#ifndef SLUICE_PG_SESSION_CLIENT_SETTINGS_HPP
#define SLUICE_PG_SESSION_CLIENT_SETTINGS_HPP

#include "pg/compat.hpp"

#include <cstdint>

#include "core/pool/shared_state.hpp"

namespace sluice::pg {

// Remembers what this backend is like without any client.  Once, after start.
void remember_baseline_settings();

// Makes this backend's settings those of the client, start-up settings and those
// of its session (session_settings.hpp); nothing is done when they are the same.
// Errors are those of a direct connection's start; what had been applied by then
// is taken back by the next call.
// Tells the client if parameters have changed below its own while it was away.
void apply_client_settings(ClientSlot *client);

// Stands for the values of the parameters clients are told about, as they are
// without a client; two backends with the same values have the same.
std::uint64_t reported_base_parameters();

// Takes them all back.
void withdraw_client_settings();

// True if a library has defined settings since the baseline.
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
