// SPDX-License-Identifier: PostgreSQL
#include "pg/accept/listener.hpp"

extern "C" {
#include "common/ip.h"
#include "libpq/libpq.h"
#include "postmaster/postmaster.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/varlena.h"
}

#include <cstdio>
#include <fcntl.h>
#include <grp.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/tuning/system_limits.hpp"
#include "pg/settings.hpp"

namespace sluice::pg {

static char socket_files[kMaxListeners][UNIXSOCK_PATH_BUFLEN];
static int socket_file_count = 0;

static bool start_listening(int descriptor) {
  return listen(descriptor, listen_backlog(MaxConnections, setting_max_unauthenticated_clients)) == 0;
}

static bool add_listener(Listeners *listeners, int descriptor) {
  if (listeners->count == kMaxListeners) {
    close(descriptor);
    ereport(LOG, (errmsg("could not listen on all requested addresses: more than %d", kMaxListeners)));
    return false;
  }
  listeners->descriptors[listeners->count++] = descriptor;
  return true;
}

static void listen_on_address(Listeners *listeners, const addrinfo *address, const char *name) {
  const int one = 1;
  const int descriptor = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

  if (descriptor < 0) {
    ereport(LOG, (errcode_for_socket_access(), errmsg("could not create a socket for address \"%s\": %m", name)));
    return;
  }
  setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  // Inherited by what is accepted here.
  setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  setsockopt(descriptor, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
  // Clients speak first: a connection that has not said anything yet is no news.
  setsockopt(descriptor, IPPROTO_TCP, TCP_DEFER_ACCEPT, &one, sizeof(one));
  if (address->ai_family == AF_INET6) setsockopt(descriptor, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
  if (::bind(descriptor, address->ai_addr, address->ai_addrlen) != 0 || !start_listening(descriptor)) {
    const int saved_errno = errno;
    close(descriptor);
    errno = saved_errno;
    ereport(LOG, (errcode_for_socket_access(),
                  errmsg("could not listen on address \"%s\", port %d for pooled clients: %m", name, setting_port),
                  setting_port == PostPortNumber
                      ? errhint("This is the server's own port: \"%s\" must be another.", "sluice.port")
                  : saved_errno == EADDRINUSE
                      ? errhint("Is another server already running on port %d? If not, wait a few seconds; or change \"%s\".",
                                setting_port, "sluice.port")
                      : 0));
    return;
  }
  if (add_listener(listeners, descriptor))
    ereport(LOG, (errmsg("listening for pooled clients on address \"%s\", port %d", name, setting_port)));
}

static void listen_on_host(Listeners *listeners, const char *host) {
  addrinfo hint;
  addrinfo *addresses = nullptr;
  char service[16];

  memset(&hint, 0, sizeof(hint));
  hint.ai_family = AF_UNSPEC;
  hint.ai_flags = AI_PASSIVE;
  hint.ai_socktype = SOCK_STREAM;
  snprintf(service, sizeof(service), "%d", setting_port);
  const bool every = strcmp(host, "*") == 0;
  const int result = pg_getaddrinfo_all(every ? nullptr : host, service, &hint, &addresses);
  if (result != 0) {
    ereport(LOG, (errmsg("could not translate host name \"%s\" to an address for pooled clients: %s", host,
                         gai_strerror(result))));
    return;
  }
  for (const addrinfo *address = addresses; address != nullptr; address = address->ai_next) {
    if (address->ai_family != AF_INET && address->ai_family != AF_INET6) continue;
    char text[NI_MAXHOST];
    if (pg_getnameinfo_all(reinterpret_cast<const sockaddr_storage *>(address->ai_addr),
                           static_cast<int>(address->ai_addrlen), text, sizeof(text), nullptr, 0,
                           NI_NUMERICHOST) != 0)
      strlcpy(text, host, sizeof(text));
    listen_on_address(listeners, address, text);
  }
  pg_freeaddrinfo_all(AF_UNSPEC, addresses);
}

// Is somebody else serving this path?  A file nobody listens on is a leftover.
static bool socket_path_is_served(const sockaddr_un *address) {
  const int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (probe < 0) return false;
  const bool served = connect(probe, reinterpret_cast<const sockaddr *>(address), sizeof(*address)) == 0 ||
                      errno == EAGAIN || errno == EINPROGRESS;
  close(probe);
  return served;
}

// As unix_socket_group does for the server's own socket.
static bool apply_socket_permissions(const char *path) {
  if (Unix_socket_group[0] != '\0') {
    char *end;
    gid_t group = static_cast<gid_t>(strtoul(Unix_socket_group, &end, 10));
    if (*end != '\0') {
      const struct group *entry = getgrnam(Unix_socket_group);
      if (entry == nullptr) {
        ereport(LOG, (errmsg("group \"%s\" does not exist", Unix_socket_group)));
        return false;
      }
      group = entry->gr_gid;
    }
    if (chown(path, static_cast<uid_t>(-1), group) != 0) {
      ereport(LOG, (errcode_for_file_access(), errmsg("could not set group of file \"%s\": %m", path)));
      return false;
    }
  }
  if (chmod(path, static_cast<mode_t>(Unix_socket_permissions)) != 0) {
    ereport(LOG, (errcode_for_file_access(), errmsg("could not set permissions of file \"%s\": %m", path)));
    return false;
  }
  return true;
}

static void listen_on_directory(Listeners *listeners, const char *directory) {
  sockaddr_un address;
  const bool abstract = directory[0] == '@';

  memset(&address, 0, sizeof(address));
  address.sun_family = AF_UNIX;
  const int length =
      snprintf(address.sun_path, sizeof(address.sun_path), "%s/.s.PGSQL.%d", directory, setting_port);
  if (length >= static_cast<int>(sizeof(address.sun_path))) {
    ereport(LOG, (errmsg("Unix-domain socket path \"%s/.s.PGSQL.%d\" is too long (maximum %d bytes)", directory,
                         setting_port, static_cast<int>(sizeof(address.sun_path) - 1))));
    return;
  }
  if (!abstract) {
    if (socket_path_is_served(&address)) {
      ereport(LOG, (errmsg("could not listen on Unix socket \"%s\" for pooled clients: it is in use",
                           address.sun_path),
                    errhint("Is another server already running on port %d?", setting_port)));
      return;
    }
    unlink(address.sun_path);
  }
  const int descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  socklen_t address_length = sizeof(address);
  if (abstract) {
    address.sun_path[0] = '\0';
    address_length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + static_cast<size_t>(length));
  }
  if (descriptor < 0 || ::bind(descriptor, reinterpret_cast<sockaddr *>(&address), address_length) != 0 ||
      (!abstract && !apply_socket_permissions(address.sun_path)) || !start_listening(descriptor)) {
    const int saved_errno = errno;
    if (descriptor >= 0) close(descriptor);
    errno = saved_errno;
    ereport(LOG, (errcode_for_socket_access(),
                  errmsg("could not listen on Unix socket \"%s/.s.PGSQL.%d\" for pooled clients: %m", directory,
                         setting_port)));
    return;
  }
  if (!add_listener(listeners, descriptor)) return;
  if (!abstract && socket_file_count < kMaxListeners)
    strlcpy(socket_files[socket_file_count++], address.sun_path, sizeof(socket_files[0]));
  ereport(LOG, (errmsg("listening for pooled clients on Unix socket \"%s/.s.PGSQL.%d\"", directory, setting_port)));
}

bool open_listeners(Listeners *listeners) {
  const char *addresses = setting_listen_addresses[0] != '\0' ? setting_listen_addresses : ListenAddresses;
  const char *directories =
      setting_unix_socket_directories[0] != '\0' ? setting_unix_socket_directories : Unix_socket_directories;
  List *names = NIL;
  ListCell *cell;

  listeners->count = 0;
  if (addresses != nullptr && SplitGUCList(pstrdup(addresses), ',', &names)) {
    foreach (cell, names) listen_on_host(listeners, static_cast<const char *>(lfirst(cell)));
  }
  names = NIL;
  if (directories != nullptr && SplitDirectoriesString(pstrdup(directories), ',', &names)) {
    foreach (cell, names) listen_on_directory(listeners, static_cast<const char *>(lfirst(cell)));
  }
  return listeners->count > 0;
}

void remove_listener_files() {
  for (int i = 0; i < socket_file_count; i++) unlink(socket_files[i]);
  socket_file_count = 0;
}

}  // namespace sluice::pg
