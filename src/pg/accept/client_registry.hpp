// SPDX-License-Identifier: PostgreSQL
//
// The dispatcher's book of clients: which slots are free, and what has to happen
// when a client comes and goes.

#ifndef SLUICE_PG_ACCEPT_CLIENT_REGISTRY_HPP
#define SLUICE_PG_ACCEPT_CLIENT_REGISTRY_HPP

#include <cstdint>

#include "core/pool/shared_state.hpp"

namespace sluice::pg {

// Tags of the dispatcher's own descriptors in its epoll set: slot numbers no
// client can have.
constexpr std::uint32_t kListenerTag = 0xffffff00;
constexpr std::uint32_t kControlListenerTag = 0xffffff01;
constexpr std::uint32_t kControlTag = 0xffffff02;  // generation = backend slot
constexpr std::uint32_t kPoolTag = 0xffffff03;     // generation = pool slot

// Makes all slots free and raises the limit of open files.  `epoll` is the
// dispatcher's own set.
void open_client_registry(int epoll);

// How many clients fit, given sluice.max_clients and the descriptor limit.
std::uint32_t client_capacity();

// Slots at and above this number have never been used: scans end here.
std::uint32_t client_high_water();

// Puts an accepted socket into a free slot (state authenticating), at its fixed
// descriptor number.  The descriptor passed in is closed.
// Returns false, with the descriptor still open, when there is no free slot.
bool register_client(int descriptor, ClientRef *client);

// The client's socket in this process.
int client_descriptor(std::uint32_t slot);

// Watches a client that logs in.
bool watch_for_input(ClientRef client);

// The same client now waits for room in its socket's buffer (or, again, for input).
void watch_for_output(ClientRef client, bool on);

// From now on only the end of the client's stream is reported (EPOLLRDHUP).
// `anew`: it has not been watched so far.
void watch_for_hangup(ClientRef client, bool anew);

// Forgets a client in state authenticating or closing: takes its socket out of
// all sets, shuts it down, frees what it left behind and its slot.
void forget_client(ClientRef client);

// Changes the client's state from `from` to `to` if it still is that client in
// that state.
bool change_client_state(ClientRef client, ClientState from, ClientState to);

// Sends bytes to an idle or authenticating client without blocking; what does not
// fit into the socket's buffer is lost.  For last words.
void send_last_words(std::uint32_t slot, const char *bytes, int length);

}  // namespace sluice::pg

#endif
