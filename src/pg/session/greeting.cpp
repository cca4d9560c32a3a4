// SPDX-License-Identifier: PostgreSQL
#include "pg/compat.hpp"

#include "pg/session/greeting.hpp"

extern "C" {
#include "libpq/libpq-be.h"
#include "libpq/pqformat.h"
#include "pgstat.h"
#include "utils/backend_status.h"
#include "utils/guc.h"
#include "utils/memutils.h"
}

#include <arpa/inet.h>
#include <cstdio>
#include <netinet/in.h>
#include <sys/socket.h>

#include "pg/accept/client_port.hpp"
#include "pg/session/client_settings.hpp"
#include "pg/session/client_stream.hpp"
#include "pg/session/session.hpp"
#include "pg/session/socket_options.hpp"

namespace sluice::pg {

static Port port;
static char remote_host[INET6_ADDRSTRLEN];
static char remote_port[8];

// What pg_stat_database calls a session is a client here.  The server's own call starts the clock of session_time, and
// counts a session that there is not.
static void open_session_statistics() {
  pgstat_report_connect(MyDatabaseId);
  --*unreported_sessions();
}

void open_reception() {
  memset(&port, 0, sizeof(port));
  port.sock = PGINVALID_SOCKET;
  port.proto = PG_PROTOCOL(3, 0);
  port.user_name = session.pool->role;
  port.database_name = session.pool->database;
  port.remote_host = remote_host;
  port.remote_port = remote_port;
  FrontendProtocol = PG_PROTOCOL(3, 0);
  open_session_statistics();
}

// What pg_stat_activity shows about this backend: a client backend with the
// client's address while it serves one, a worker while it does not.
static void show_in_activity(BackendType type) {
  volatile PgBackendStatus *entry = MyBEEntry;
  if (entry == nullptr) return;
  PGSTAT_BEGIN_WRITE_ACTIVITY(entry);
  entry->st_backendType = type;
  memcpy(const_cast<SockAddr *>(&entry->st_clientaddr), &port.raddr, sizeof(port.raddr));
  if (type == B_BG_WORKER) entry->st_appname[0] = '\0';
  PGSTAT_END_WRITE_ACTIVITY(entry);
}

void receive_client(int descriptor) {
  port.sock = descriptor;
  forget_socket_options(&port);
  MyProcPort = &port;
  fill_socket_address(&port.raddr, session.client->address);
  fill_socket_address(&port.laddr, session.client->server_address);
  write_address(session.client->address, remote_host, sizeof(remote_host), remote_port, sizeof(remote_port));
  open_stream(descriptor);
  MyBackendType = B_BACKEND;
  show_in_activity(B_BACKEND);
  apply_client_settings(session.client);
  follow_socket_options(&port, session.client);
  // The setting may be what it was; what is shown is not.
  pgstat_report_appname(application_name);
  if ((session.client->flags.load(std::memory_order_relaxed) & kClientUncounted) != 0) {
    session.client->flags.fetch_and(~kClientUncounted);
    ++*unreported_sessions();
  }
}

static void send_cancel_key() {
  StringInfoData message;
  pq_beginmessage(&message, 'K');
  pq_sendint32(&message, session.client->cancel_pid.load());
  pq_sendint32(&message, session.client->cancel_key.load());
  pq_endmessage(&message);
}

void greet_client() {
  StringInfoData message;

  // In session mode the client has one backend for good, and may know it.
  if (session.held) session.client->cancel_pid.store(static_cast<std::uint32_t>(MyProcPid));
  pq_beginmessage(&message, 'R');
  pq_sendint32(&message, 0);
  pq_endmessage(&message);
  send_all_parameters();
  session.client->told_parameters = reported_base_parameters();
  send_cancel_key();
  ++*unreported_sessions();
  session.client->flags.fetch_or(kClientGreeted);
}

void see_client_off() {
  close_stream();
  port.sock = PGINVALID_SOCKET;
  memset(&port.raddr, 0, sizeof(port.raddr));
  MyProcPort = nullptr;
  show_in_activity(B_BG_WORKER);
}

}  // namespace sluice::pg
