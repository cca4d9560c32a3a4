// SPDX-License-Identifier: PostgreSQL
#include "pg/pool/control_channel.hpp"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

namespace sluice::pg {

// Every server process runs in the data directory, so a relative name is enough
// and never too long for sun_path.
constexpr const char *kControlPath = "pg_sluice.control";

static void fill_address(sockaddr_un *address) {
  memset(address, 0, sizeof(*address));
  address->sun_family = AF_UNIX;
  strncpy(address->sun_path, kControlPath, sizeof(address->sun_path) - 1);
}

int listen_on_control_channel() {
  sockaddr_un address;
  fill_address(&address);
  // A file left by an earlier server: the data directory's lock says we are alone.
  unlink(kControlPath);
  const int channel = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (channel < 0) return -1;
  if (::bind(channel, reinterpret_cast<sockaddr *>(&address), sizeof(address)) != 0 || chmod(kControlPath, 0600) != 0 ||
      listen(channel, 1024) != 0) {
    const int saved_errno = errno;
    close(channel);
    errno = saved_errno;
    return -1;
  }
  return channel;
}

int connect_to_control_channel() {
  sockaddr_un address;
  fill_address(&address);
  const int channel = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (channel < 0) return -1;
  int result;
  do result = connect(channel, reinterpret_cast<sockaddr *>(&address), sizeof(address));
  while (result != 0 && errno == EINTR);
  if (result != 0) {
    const int saved_errno = errno;
    close(channel);
    errno = saved_errno;
    return -1;
  }
  return channel;
}

int control_peer(int channel) {
  ucred peer;
  socklen_t length = sizeof(peer);
  if (getsockopt(channel, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return 0;
  // A process that our pid namespace does not know has the number 0.
  if (peer.uid == geteuid() && peer.pid > 0) return peer.pid;
  errno = EACCES;
  return 0;
}

bool send_control_message(int channel, const ControlMessage &message, int descriptor) {
  iovec part{const_cast<ControlMessage *>(&message), sizeof(message)};
  alignas(cmsghdr) char ancillary[CMSG_SPACE(sizeof(int))];
  msghdr header;
  memset(&header, 0, sizeof(header));
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  if (descriptor >= 0) {
    memset(ancillary, 0, sizeof(ancillary));
    header.msg_control = ancillary;
    header.msg_controllen = sizeof(ancillary);
    cmsghdr *rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(rights), &descriptor, sizeof(int));
  }
  ssize_t sent;
  do sent = sendmsg(channel, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  return sent == static_cast<ssize_t>(sizeof(message));
}

ControlReceipt receive_control_message(int channel, ControlMessage *message, int *descriptor) {
  iovec part{message, sizeof(*message)};
  alignas(cmsghdr) char ancillary[CMSG_SPACE(sizeof(int))];
  msghdr header;
  memset(&header, 0, sizeof(header));
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = ancillary;
  header.msg_controllen = sizeof(ancillary);
  *descriptor = -1;
  ssize_t received;
  do received = recvmsg(channel, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  while (received < 0 && errno == EINTR);
  if (received < 0) return errno == EAGAIN || errno == EWOULDBLOCK ? ControlReceipt::nothing : ControlReceipt::closed;
  for (cmsghdr *part_of = CMSG_FIRSTHDR(&header); part_of != nullptr; part_of = CMSG_NXTHDR(&header, part_of))
    if (part_of->cmsg_level == SOL_SOCKET && part_of->cmsg_type == SCM_RIGHTS)
      memcpy(descriptor, CMSG_DATA(part_of), sizeof(int));
  if (received != static_cast<ssize_t>(sizeof(*message))) {
    if (*descriptor >= 0) close(*descriptor);
    *descriptor = -1;
    return ControlReceipt::closed;
  }
  return ControlReceipt::message;
}

}  // namespace sluice::pg
