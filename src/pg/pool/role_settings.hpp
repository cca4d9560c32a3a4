// SPDX-License-Identifier: PostgreSQL
//
// Notices changes of the settings that roles and databases give their sessions.

#ifndef SLUICE_PG_POOL_ROLE_SETTINGS_HPP
#define SLUICE_PG_POOL_ROLE_SETTINGS_HPP

namespace sluice::pg {

// From now on every process of the server counts, in PoolSlot::role_setting_changes,
// the transactions that have changed what new sessions of a pool start with.
// Called once, from _PG_init in the postmaster: its children inherit it.
void install_role_settings_watch();

}  // namespace sluice::pg

#endif
