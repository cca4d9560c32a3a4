// SPDX-License-Identifier: PostgreSQL

#ifndef SLUICE_PG_ACCEPT_CONNECTION_LOGGING_HPP
#define SLUICE_PG_ACCEPT_CONNECTION_LOGGING_HPP

#include "pg/compat.hpp"

namespace sluice::pg {

// After a reload: makes log_connections and log_disconnections follow the
// configuration files in this process.
void reread_connection_logging();

}  // namespace sluice::pg

#endif
