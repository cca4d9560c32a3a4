// SPDX-License-Identifier: PostgreSQL
#include "pg/compat.hpp"

#include "pg/accept/client_port.hpp"

extern "C" {
#include "common/ip.h"
#include "libpq/libpq.h"
#include "port/pg_bswap.h"
}

#include <arpa/inet.h>
#include <cstdio>
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

void fill_socket_address(SockAddr *target, const ClientAddress &address) {
  memset(target, 0, sizeof(*target));
  if (address.family == 4) {
    auto *in = reinterpret_cast<sockaddr_in *>(&target->addr);
    in->sin_family = AF_INET;
    in->sin_port = htons(address.port);
    memcpy(&in->sin_addr, address.bytes, 4);
    target->salen = sizeof(sockaddr_in);
  } else if (address.family == 6) {
    auto *in6 = reinterpret_cast<sockaddr_in6 *>(&target->addr);
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(address.port);
    memcpy(&in6->sin6_addr, address.bytes, 16);
    target->salen = sizeof(sockaddr_in6);
  } else {
    target->addr.ss_family = AF_UNIX;
    target->salen = sizeof(sa_family_t);
  }
}

// IPv4 by hand, since backends do this at every change of client.
void write_address(const ClientAddress &address, char *host, std::size_t host_size, char *port,
                   std::size_t port_size) {
  port[0] = '\0';
  if (address.family == 4)
    snprintf(host, host_size, "%u.%u.%u.%u", address.bytes[0], address.bytes[1], address.bytes[2], address.bytes[3]);
  else if (address.family == 6)
    inet_ntop(AF_INET6, address.bytes, host, static_cast<socklen_t>(host_size));
  else
    strlcpy(host, "[local]", host_size);
  if (address.family == 4 || address.family == 6) snprintf(port, port_size, "%u", address.port);
}

// FNV-1a over the four numbers.
std::uint32_t socket_options_in_force() {
  std::uint32_t hash = 2166136261u;
  for (const int value : {tcp_keepalives_idle, tcp_keepalives_interval, tcp_keepalives_count, tcp_user_timeout})
    for (unsigned shift = 0; shift < 32; shift += 8)
      hash = (hash ^ (static_cast<std::uint32_t>(value) >> shift & 0xff)) * 16777619u;
  return hash != 0 ? hash : 1;
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
