// SPDX-License-Identifier: PostgreSQL
//
// How the dispatcher hands copies of clients' sockets to pooled backends.
//
// A SOCK_SEQPACKET Unix socket inside the data directory (mode 0700, so only the
// server's own user reaches it).  Not every process of that user is one of the
// server's: the dispatcher listens to nobody but the very process that has
// registered itself in a backend slot, and speaks about that slot with it only; a
// backend speaks to the process that is the dispatcher and to no other.
// Each backend keeps one connection.  Messages have a fixed size and may carry
// one descriptor (SCM_RIGHTS).
//
//   backend -> dispatcher   hello      I am backend B, generation G
//   dispatcher -> backend   welcome    + the pool's epoll set
//   backend -> dispatcher   request    I need client (slot, generation)
//   dispatcher -> backend   client     + the client's socket (also unasked, at connect time)
//   dispatcher -> backend   gone       that client has left

#ifndef SLUICE_PG_POOL_CONTROL_CHANNEL_HPP
#define SLUICE_PG_POOL_CONTROL_CHANNEL_HPP

#include <cstdint>

namespace sluice::pg {

enum class ControlKind : std::uint32_t { hello = 1, welcome, request, client, gone };

struct ControlMessage {
  ControlKind kind;
  std::uint32_t backend;
  std::uint32_t slot;        // client slot, or the backend's generation in hello
  std::uint32_t generation;  // of the client; in hello 1 if the backend takes descriptors itself
};

// The dispatcher's end.  Returns the listening descriptor, or -1 with errno.
int listen_on_control_channel();

// A backend's end.  Returns the connected descriptor, or -1 with errno.
int connect_to_control_channel();

// The process that has connected (asked by the dispatcher), or that listens (asked by
// a backend), as the kernel noted it then, if it runs as the same user as this
// server; else 0 with errno.  Whether it is the right one is for the caller to say.
int control_peer(int channel);

// Sends without blocking; `descriptor` -1 sends none.  False with errno.
bool send_control_message(int channel, const ControlMessage &message, int descriptor);

enum class ControlReceipt { message, nothing, closed };

// Receives without blocking; *descriptor is -1 when the message carried none.
// The descriptor belongs to the caller.
ControlReceipt receive_control_message(int channel, ControlMessage *message, int *descriptor);

}  // namespace sluice::pg

#endif
