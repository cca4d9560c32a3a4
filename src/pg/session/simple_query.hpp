// SPDX-License-Identifier: PostgreSQL
#ifndef SLUICE_PG_SESSION_SIMPLE_QUERY_HPP
#define SLUICE_PG_SESSION_SIMPLE_QUERY_HPP

namespace sluice::pg {

// Executes a Query message: any number of statements, as one transaction unless
// they say otherwise.
void execute_simple_query(const char *query);

}  // namespace sluice::pg

#endif
