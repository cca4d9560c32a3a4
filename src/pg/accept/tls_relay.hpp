// SPDX-License-Identifier: PostgreSQL
//
// Between a client that speaks TLS and everybody else: the dispatcher decrypts and
// encrypts, and the far end of a socket pair takes the place of the client's socket.

#ifndef SLUICE_PG_ACCEPT_TLS_RELAY_HPP
#define SLUICE_PG_ACCEPT_TLS_RELAY_HPP

#include <cstdint>

#include "pg/accept/tls_session.hpp"

namespace sluice::pg {

// `first_descriptor`: two numbers for each relay from there on are theirs, up to the
// process's limit of open files.  `epoll` is the dispatcher's own set.
void open_relays(int epoll, int first_descriptor);

// How many are possible at a time.
std::uint32_t relay_capacity();

// A place for a client that is about to begin its handshake; kNoIndex if there is
// none.  Given back by release_relay() unless start_relay() has been called.
std::uint32_t reserve_relay();
void release_relay(std::uint32_t relay);

// From now on `descriptor`, which was the socket of the client, is the far end.
// Takes the connection out of `tls` if it succeeds; the client's decrypted bytes
// follow at once.  False if the pair could not be made.
bool start_relay(std::uint32_t relay, TlsSession *tls, int descriptor);

// Tags of relays in the dispatcher's epoll set; generation = relay.
constexpr std::uint32_t kRelayNetworkTag = 0xffffff10;
constexpr std::uint32_t kRelayPairTag = 0xffffff11;

// One of its two descriptors has news (EPOLL...).
void serve_relay(std::uint32_t relay, bool network, std::uint32_t events);

// Relays whose turn has ended with something left that no descriptor will report.
bool relays_have_more();
void serve_relays_with_more();

// Ends relays whose last bytes the client does not take.  Returns microseconds until
// the next one is due, -1 if there is none.
std::int64_t expire_relays(std::int64_t now_us);

// The dispatcher leaves: last words that are on their way are sent.
void flush_relays();

}  // namespace sluice::pg

#endif
