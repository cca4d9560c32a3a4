// SPDX-License-Identifier: PostgreSQL
//
// What the parts of the payments program share: giving up, the clock, and a query that must succeed.

#ifndef SLUICE_BENCH_LAB_PAYMENTS_COMMON_HPP
#define SLUICE_BENCH_LAB_PAYMENTS_COMMON_HPP

#include <libpq-fe.h>
#include <time.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace payments {

[[noreturn]] inline void die(const std::string &why) {
  fprintf(stderr, "payments_clients: %s\n", why.c_str());
  exit(1);
}

inline int64_t clock_us() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<int64_t>(now.tv_sec) * 1000000 + now.tv_nsec / 1000;
}

inline std::string without_line_ends(std::string text) {
  for (char &letter : text)
    if (letter == '\n') letter = ' ';
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

inline void be_silent(void *, const PGresult *) {}

inline PGconn *connect_or_die(const std::string &conninfo) {
  PGconn *connection = PQconnectdb(conninfo.c_str());
  if (PQstatus(connection) != CONNECTION_OK) die(without_line_ends(PQerrorMessage(connection)));
  PQsetNoticeReceiver(connection, be_silent, nullptr);
  return connection;
}

// Rows or none; the caller clears it.
inline PGresult *query(PGconn *connection, const std::string &sql) {
  PGresult *result = PQexec(connection, sql.c_str());
  const ExecStatusType status = PQresultStatus(result);
  if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) die(without_line_ends(PQerrorMessage(connection)));
  return result;
}

// A file that further runs add to; the first line names the columns.
inline FILE *append_to(const char *name, const char *columns) {
  FILE *file = fopen(name, "a");
  if (file == nullptr) die(std::string("could not write ") + name);
  fseek(file, 0, SEEK_END);
  if (ftell(file) == 0) fprintf(file, "%s\n", columns);
  return file;
}

}  // namespace payments

#endif
