// SPDX-License-Identifier: PostgreSQL
#include "pg/compat.hpp"

#include "pg/accept/client_port.hpp"

extern "C" {
#include "common/ip.h"
#include "libpq/libpq.h"
#include "port/pg_bswap.h"
}

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace sluice::pg {

void remember_address(ClientAddress *target, const SockAddr &address) {
  memset(target, 0, sizeof(*target));
  if (address.addr.ss_family == AF_INET) {
    const auto *in = reinterpret_cast<const sockaddr_in *>(&address.addr);
    target->family = 4;
    target->port = pg_ntoh16(in->sin_port);
    memcpy(target->bytes, &in->sin_addr, 4);
  } else if (address.addr.ss_family == AF_INET6) {
    const auto *in6 = reinterpret_cast<const sockaddr_in6 *>(&address.addr);
    target->family = 6;
    target->port = pg_ntoh16(in6->sin6_port);
    memcpy(target->bytes, &in6->sin6_addr, 16);
  } else {
    target->family = 1;
  }
}

static void prepare_socket(Port *port) {
  port->laddr.salen = sizeof(port->laddr.addr);
  getsockname(port->sock, reinterpret_cast<sockaddr *>(&port->laddr.addr), &port->laddr.salen);
  (void)pq_setkeepalivesidle(tcp_keepalives_idle, port);
  (void)pq_setkeepalivesinterval(tcp_keepalives_interval, port);
  (void)pq_setkeepalivescount(tcp_keepalives_count, port);
  (void)pq_settcpusertimeout(tcp_user_timeout, port);
}

void prepare_port(Port *port, int descriptor, const SockAddr &peer) {
  char host[NI_MAXHOST], service[NI_MAXSERV];

  port->sock = descriptor;
  port->raddr = peer;
  host[0] = service[0] = '\0';
  if (peer.addr.ss_family == AF_UNIX) {
    port->laddr.addr.ss_family = AF_UNIX;
    strlcpy(host, "[local]", sizeof(host));
  } else {
    prepare_socket(port);
    pg_getnameinfo_all(&port->raddr.addr, static_cast<int>(port->raddr.salen), host, sizeof(host), service,
                       sizeof(service), NI_NUMERICHOST | NI_NUMERICSERV);
  }
  port->remote_host = pstrdup(host);
  port->remote_port = pstrdup(service);
}

}  // namespace sluice::pg
