// SPDX-License-Identifier: PostgreSQL
//
// The server applies these settings when it accepts a connection, and again
// whenever one of them changes (their assign hooks act on MyProcPort).  A pooled
// client is accepted by the dispatcher, which knows the server's values only; those
// of its role and database, a reload, and its own SET while another client was
// served by this process have to follow it to its socket.  Each slot remembers which
// values are in force there, as a hash; a lease compares, and acts where they differ.
//
// The server's own functions are not used for that: they take what they find on a
// socket for the system's default, and it may be what the client has set through
// another backend.  Defaults come from a socket that nobody has touched.
//
// A client that idles through a reload has the new values from its next command on.
// Behind a relay (TLS) the socket here is not a TCP one; its options are those the
// dispatcher has set on the real one.

#include "pg/compat.hpp"

#include "pg/session/socket_options.hpp"

extern "C" {
#include "libpq/libpq.h"
}

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pg/accept/client_port.hpp"

namespace sluice::pg {

struct SystemDefaults {
  int idle_s, interval_s, count;  // 0 = unknown
};

static int read_option(int descriptor, int option) {
  int value = 0;
  socklen_t length = sizeof(value);
  return getsockopt(descriptor, IPPROTO_TCP, option, &value, &length) == 0 ? value : 0;
}

static const SystemDefaults &system_defaults() {
  static SystemDefaults defaults;
  static bool known = false;
  if (known) return defaults;
  known = true;
  const int probe = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (probe < 0) return defaults;
  defaults.idle_s = read_option(probe, TCP_KEEPIDLE);
  defaults.interval_s = read_option(probe, TCP_KEEPINTVL);
  defaults.count = read_option(probe, TCP_KEEPCNT);
  close(probe);
  return defaults;
}

void forget_socket_options(Port *port) {
  const SystemDefaults &defaults = system_defaults();
  port->keepalives_idle = port->keepalives_interval = port->keepalives_count = port->tcp_user_timeout = 0;
  port->default_keepalives_idle = defaults.idle_s;
  port->default_keepalives_interval = defaults.interval_s;
  port->default_keepalives_count = defaults.count;
  port->default_tcp_user_timeout = 0;
}

static bool is_tcp(int descriptor) {
  int domain = 0;
  socklen_t length = sizeof(domain);
  return getsockopt(descriptor, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 &&
         (domain == AF_INET || domain == AF_INET6);
}

// 0 stands for the system's default.
static void write_option(int descriptor, int option, int value, int system_default) {
  if (value == 0) value = system_default;
  if (value == 0 && option != TCP_USER_TIMEOUT) return;
  (void)setsockopt(descriptor, IPPROTO_TCP, option, &value, sizeof(value));
}

void follow_socket_options(Port *port, ClientSlot *client) {
  if (client->address.family != 4 && client->address.family != 6) return;
  // For SHOW, and for the next change: what the socket will have.
  port->keepalives_idle = tcp_keepalives_idle;
  port->keepalives_interval = tcp_keepalives_interval;
  port->keepalives_count = tcp_keepalives_count;
  port->tcp_user_timeout = tcp_user_timeout;
  port->default_tcp_user_timeout = 0;
  const std::uint32_t wanted = socket_options_in_force();
  if (client->socket_options.load(std::memory_order_relaxed) == wanted) return;
  client->socket_options.store(wanted, std::memory_order_relaxed);
  if (!is_tcp(port->sock)) return;
  const SystemDefaults &defaults = system_defaults();
  write_option(port->sock, TCP_KEEPIDLE, tcp_keepalives_idle, defaults.idle_s);
  write_option(port->sock, TCP_KEEPINTVL, tcp_keepalives_interval, defaults.interval_s);
  write_option(port->sock, TCP_KEEPCNT, tcp_keepalives_count, defaults.count);
  write_option(port->sock, TCP_USER_TIMEOUT, tcp_user_timeout, 0);
}

}  // namespace sluice::pg
