// SPDX-License-Identifier: PostgreSQL
//
//   client ──TLS──► network │ SSL │ near end ◄──socket pair──► far end = the client's socket, for all others
//
// Two directions, each with at most one leftover: what has been read on one side
// and the other side does not take yet.  While there is a leftover, nothing more is
// read in that direction, so a client (or a backend) that does not read stops its
// own stream and costs one buffer of kPieceBytes.
//
//   network readable ─► SSL_read ─► near end      full: wait until the near end is writable
//   near end readable ─► SSL_write ─► network     full: wait until the network is writable
//
// Descriptors are watched level-triggered, and each turn moves a bounded amount, so
// that the epoll set itself is the queue of relays that have more to do and a large
// result does not keep others waiting.  A direction that has ended is no longer
// watched: hang-ups are reported whether asked for or not, and would be for ever.
//
// OpenSSL reads ahead: header and body of a record with one system call.  What it
// holds, epoll does not see.  So a turn goes on while OpenSSL has something, and a
// relay whose turn is over nevertheless is put into a list of its own (`more`), which
// the dispatcher comes back to before it sleeps.  Half a record is no reason to come
// back: its other half will be an event.
//
// The end
//   The client ends its stream: what it has said is passed on, then the near end is
//   shut for writing; the dispatcher sees a hang-up of the client, as on any socket.
//   The dispatcher forgets the client (it shuts the far end): what is left for the
//   client is sent, then close_notify, then the relay ends.  A client that takes nothing
//   of it for kLingerUs, or takes longer than kLongestLingerUs, is dropped.  A relay may
//   therefore outlive its client's slot; that is why relays have places of their own.  If
//   none is free, the one that has lingered longest makes room.
//   A reset or an error on the network ends both at once; unread bytes are lost with
//   the client.

#include "pg/accept/tls_relay.hpp"

extern "C" {
#include "postmaster/postmaster.h"
}

#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/accept/log_throttle.hpp"
#include "core/pool/shared_state.hpp"
#include "pg/accept/client_registry.hpp"
#include "pg/accept/dispatcher.hpp"
#include "pg/shared_memory.hpp"

namespace sluice::pg {

#ifdef USE_OPENSSL

constexpr std::size_t kPieceBytes = 16384;  // of one TLS record
constexpr int kPiecesPerTurn = 8;
constexpr std::int64_t kLingerUs = 10 * 1000000;
constexpr std::int64_t kLongestLingerUs = 300 * static_cast<std::int64_t>(1000000);

struct Leftover {
  char *bytes;  // malloc'd while there is one
  std::size_t start, end;
};

struct Relay {
  SSL *connection;  // null: the place is free, or only reserved
  Leftover to_pair, to_network;
  std::uint32_t network_events, pair_events;  // watched for
  bool network_watched, pair_watched;
  bool client_ended;                          // nothing more comes from the client
  bool pair_shut;                             // and everybody knows
  bool pair_ended;                            // nothing more comes for the client
  bool wants_output;                          // OpenSSL has to write before it can read
  bool lingers;
  std::int64_t linger_since_us, linger_until_us;
  std::uint32_t earlier, later;               // among those that linger, by linger_until_us
  KeyChanges key_changes;
  bool in_more;
  std::uint32_t next;  // free place, or relay with more to do
};

static int dispatcher_epoll = -1;
static int first_number = 0;
static Relay *relays = nullptr;
static std::uint32_t capacity = 0;
static std::uint32_t used = 0;  // places at and above this have never been used
static std::uint32_t first_free = kNoIndex;
static std::uint32_t first_more = kNoIndex;
static std::uint32_t first_lingering = kNoIndex, last_lingering = kNoIndex;
static char scratch[kPieceBytes];

static int network_of(std::uint32_t relay) { return first_number + static_cast<int>(relay) * 2; }
static int pair_of(std::uint32_t relay) { return network_of(relay) + 1; }

// ------------------------------------------------------------------ places

void open_relays(int epoll, int first_descriptor) {
  rlimit limit;
  dispatcher_epoll = epoll;
  first_number = first_descriptor;
  capacity = shared().header->max_clients;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
    const auto numbers = static_cast<std::int64_t>(limit.rlim_cur) - first_descriptor;
    capacity = static_cast<std::uint32_t>(Max(Min(numbers / 2, static_cast<std::int64_t>(capacity)), 0));
  }
  if (EnableSSL && capacity < client_capacity())
    ereport(LOG, (errmsg("only %u of %u clients can be served with SSL", capacity, client_capacity()),
                  errdetail("Each needs two more file descriptors than other clients, unless the kernel encrypts."),
                  errhint("Raise the limit of open files of the server (LimitNOFILE, ulimit -n) to at least %u.",
                          static_cast<unsigned>(first_descriptor) + 2 * client_capacity())));
  // Not palloc0(): pages of places that are never used stay untouched.
  relays = static_cast<Relay *>(calloc(capacity + 1, sizeof(Relay)));
  if (relays == nullptr) ereport(FATAL, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
}

std::uint32_t relay_capacity() { return capacity; }

static void end_relay(std::uint32_t index);

std::uint32_t reserve_relay() {
  if (first_free == kNoIndex && used == capacity && first_lingering != kNoIndex) end_relay(first_lingering);
  std::uint32_t relay = first_free;
  if (relay != kNoIndex)
    first_free = relays[relay].next;
  else if (used < capacity)
    relay = used++;
  return relay;
}

void release_relay(std::uint32_t relay) {
  relays[relay].next = first_free;
  first_free = relay;
}

static void leave_more(std::uint32_t index) {
  std::uint32_t *link = &first_more;
  while (*link != index) link = &relays[*link].next;
  *link = relays[index].next;
  relays[index].in_more = false;
}

static void join_more(std::uint32_t index) {
  if (relays[index].in_more) return;
  relays[index].in_more = true;
  relays[index].next = first_more;
  first_more = index;
}

// ------------------------------------------------------------------ lingering

static void stop_lingering(std::uint32_t index) {
  Relay &relay = relays[index];
  (relay.earlier != kNoIndex ? relays[relay.earlier].later : first_lingering) = relay.later;
  (relay.later != kNoIndex ? relays[relay.later].earlier : last_lingering) = relay.earlier;
  relay.lingers = false;
}

// Everybody lingers equally long, so whoever joins is the last.
static void linger(std::uint32_t index, std::int64_t now_us) {
  Relay &relay = relays[index];
  if (relay.lingers)
    stop_lingering(index);
  else
    relay.linger_since_us = now_us;
  relay.lingers = true;
  relay.client_ended = true;  // whatever it still says, nobody is there
  relay.linger_until_us = now_us + kLingerUs;
  relay.earlier = last_lingering;
  relay.later = kNoIndex;
  (last_lingering != kNoIndex ? relays[last_lingering].later : first_lingering) = index;
  last_lingering = index;
}

static void end_relay(std::uint32_t index) {
  Relay &relay = relays[index];
  if (relay.in_more) leave_more(index);
  if (relay.lingers) stop_lingering(index);
  free(relay.to_pair.bytes);
  free(relay.to_network.bytes);
  SSL_free(relay.connection);
  close(pair_of(index));
  shutdown(network_of(index), SHUT_RDWR);
  close(network_of(index));
  memset(&relay, 0, sizeof(relay));
  release_relay(index);
}

// ------------------------------------------------------------------ watching

// `wanted` is false when nothing more is to be heard of a descriptor, not even that it
// has hung up.  False: the kernel has no room for it.
static bool watch(std::uint32_t index, bool network, bool wanted, std::uint32_t events) {
  Relay &relay = relays[index];
  bool &watched = network ? relay.network_watched : relay.pair_watched;
  std::uint32_t &watched_events = network ? relay.network_events : relay.pair_events;
  if (wanted == watched && events == watched_events) return true;
  epoll_event event{};
  event.events = events;
  event.data.u64 = ClientRef{network ? kRelayNetworkTag : kRelayPairTag, index}.pack();
  const int action = !wanted ? EPOLL_CTL_DEL : watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
  if (epoll_ctl(dispatcher_epoll, action, network ? network_of(index) : pair_of(index), &event) != 0) return false;
  watched = wanted;
  watched_events = events;
  return true;
}

static bool is_full(const Leftover &leftover) { return leftover.bytes != nullptr; }

static bool watch_what_is_wanted(std::uint32_t index) {
  const Relay &relay = relays[index];
  std::uint32_t network = 0, pair = 0;
  if (!relay.client_ended && !is_full(relay.to_pair)) network |= EPOLLIN;
  if (is_full(relay.to_network) || relay.wants_output) network |= EPOLLOUT;
  if (!relay.pair_ended && !is_full(relay.to_network)) pair |= EPOLLIN;
  if (is_full(relay.to_pair)) pair |= EPOLLOUT;
  // While nothing is read from the near end only this says that the client was forgotten.
  if (!relay.pair_ended && !relay.lingers) pair |= EPOLLRDHUP;
  // A reset is reported unasked.
  return watch(index, true, !relay.client_ended || network != 0, network) && watch(index, false, pair != 0, pair);
}

// ------------------------------------------------------------------ moving bytes

enum class Moved {
  all,           // there may be more
  some,          // the other side is full
  nothing,       // there is nothing now
  pair_gone,     // nobody reads the far end any more
  network_gone,  // the connection is broken
};

static bool keep(Leftover &leftover, const char *bytes, std::size_t length) {
  leftover.bytes = static_cast<char *>(malloc(length));
  if (leftover.bytes == nullptr) return false;
  memcpy(leftover.bytes, bytes, length);
  leftover.start = 0;
  leftover.end = length;
  return true;
}

static void drop(Leftover &leftover) {
  free(leftover.bytes);
  leftover.bytes = nullptr;
}

static Moved write_to_pair(std::uint32_t index, const char *bytes, std::size_t length, std::size_t *done) {
  *done = 0;
  while (*done < length) {
    const ssize_t sent = send(pair_of(index), bytes + *done, length - *done, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent > 0)
      *done += static_cast<std::size_t>(sent);
    else if (errno == EAGAIN || errno == EWOULDBLOCK)
      return Moved::some;
    else if (errno != EINTR)
      return Moved::pair_gone;
  }
  return Moved::all;
}

static Moved write_to_network(std::uint32_t index, const char *bytes, std::size_t length, std::size_t *done) {
  SSL *connection = relays[index].connection;
  *done = 0;
  while (*done < length) {
    ERR_clear_error();
    const int sent = SSL_write(connection, bytes + *done, static_cast<int>(length - *done));
    if (sent > 0)
      *done += static_cast<std::size_t>(sent);
    else if (const int kind = SSL_get_error(connection, sent); kind == SSL_ERROR_WANT_WRITE || kind == SSL_ERROR_WANT_READ)
      return Moved::some;
    else
      return Moved::network_gone;
  }
  return Moved::all;
}

using Write = Moved (*)(std::uint32_t, const char *, std::size_t, std::size_t *);

static Moved write_or_keep(std::uint32_t index, Leftover &leftover, Write write, const char *bytes,
                           std::size_t length) {
  std::size_t done;
  const Moved moved = write(index, bytes, length, &done);
  if (moved == Moved::some && !keep(leftover, bytes + done, length - done)) return Moved::network_gone;
  return moved;
}

static Moved write_leftover(std::uint32_t index, Leftover &leftover, Write write) {
  std::size_t done;
  if (!is_full(leftover)) return Moved::all;
  const Moved moved = write(index, leftover.bytes + leftover.start, leftover.end - leftover.start, &done);
  leftover.start += done;
  if (moved == Moved::all) drop(leftover);
  return moved;
}

static Moved read_network(std::uint32_t index) {
  Relay &relay = relays[index];
  ERR_clear_error();
  relay.wants_output = false;
  const int got = SSL_read(relay.connection, scratch, sizeof(scratch));
  if (got > 0) {
    const Moved moved = write_or_keep(index, relay.to_pair, write_to_pair, scratch, static_cast<std::size_t>(got));
    return moved == Moved::all && got < static_cast<int>(sizeof(scratch)) && !SSL_has_pending(relay.connection)
               ? Moved::nothing
               : moved;
  }
  if (has_too_many(relay.key_changes)) return Moved::network_gone;
  switch (SSL_get_error(relay.connection, got)) {
    case SSL_ERROR_WANT_WRITE:
      relay.wants_output = true;
      return Moved::nothing;
    case SSL_ERROR_WANT_READ:
      return Moved::nothing;
    case SSL_ERROR_ZERO_RETURN:
      relay.client_ended = true;
      return Moved::nothing;
    default:
      return Moved::network_gone;
  }
}

static Moved read_pair(std::uint32_t index) {
  Relay &relay = relays[index];
  ssize_t got;
  do got = recv(pair_of(index), scratch, sizeof(scratch), MSG_DONTWAIT);
  while (got < 0 && errno == EINTR);
  if (got > 0) {
    const Moved moved =
        write_or_keep(index, relay.to_network, write_to_network, scratch, static_cast<std::size_t>(got));
    return moved == Moved::all && got < static_cast<ssize_t>(sizeof(scratch)) ? Moved::nothing : moved;
  }
  if (got == 0 || (errno != EAGAIN && errno != EWOULDBLOCK)) relay.pair_ended = true;
  return Moved::nothing;
}

// ------------------------------------------------------------------ a turn

static Moved move_piece_to_pair(std::uint32_t index) {
  Relay &relay = relays[index];
  const Moved moved = write_leftover(index, relay.to_pair, write_to_pair);
  if (moved != Moved::all) return moved;
  return relay.client_ended ? Moved::nothing : read_network(index);
}

static Moved move_piece_to_network(std::uint32_t index) {
  Relay &relay = relays[index];
  const Moved moved = write_leftover(index, relay.to_network, write_to_network);
  if (moved != Moved::all) return moved;
  return relay.pair_ended ? Moved::nothing : read_pair(index);
}

static Moved move_to_pair(std::uint32_t index) {
  Relay &relay = relays[index];
  Moved moved = Moved::all;
  for (int piece = 0; moved == Moved::all && piece < kPiecesPerTurn; piece++) moved = move_piece_to_pair(index);
  if (moved == Moved::all && SSL_has_pending(relay.connection)) join_more(index);
  if (moved == Moved::pair_gone) {
    drop(relay.to_pair);
    relay.client_ended = true;
  }
  if (relay.client_ended && !is_full(relay.to_pair) && !relay.pair_shut) {
    relay.pair_shut = true;
    shutdown(pair_of(index), SHUT_WR);
  }
  return moved;
}

static Moved move_to_network(std::uint32_t index) {
  Relay &relay = relays[index];
  Moved moved = Moved::all;
  const std::uint64_t sent_before = BIO_number_written(SSL_get_wbio(relay.connection));
  for (int piece = 0; moved == Moved::all && piece < kPiecesPerTurn; piece++) moved = move_piece_to_network(index);
  if (moved == Moved::network_gone) return moved;
  const std::int64_t now_us = relay.pair_ended || relay.lingers ? monotonic_us() : 0;
  const bool progress = BIO_number_written(SSL_get_wbio(relay.connection)) != sent_before;
  if (!relay.lingers ? relay.pair_ended : progress && now_us - relay.linger_since_us < kLongestLingerUs)
    linger(index, now_us);
  return moved;
}

static void end_in_order(std::uint32_t index) {
  ERR_clear_error();
  SSL_shutdown(relays[index].connection);
  end_relay(index);
}

static void end_unwatched(std::uint32_t index) {
  static LogThrottle log{60 * 1000000};
  if (log.note(monotonic_us()).log)
    ereport(LOG, (errcode_for_socket_access(), errmsg("could not watch the connection of a client with SSL: %m")));
  end_relay(index);
}

void serve_relay(std::uint32_t index, bool network, std::uint32_t events) {
  if (index >= capacity || relays[index].connection == nullptr) return;
  Relay &relay = relays[index];
  if (network && (events & (EPOLLERR | EPOLLHUP)) != 0) {
    end_relay(index);
    return;
  }
  const bool to_pair = network ? (events & ~static_cast<std::uint32_t>(EPOLLOUT)) != 0 || relay.wants_output
                               : (events & EPOLLOUT) != 0;
  const bool to_network = network ? (events & EPOLLOUT) != 0 : (events & ~static_cast<std::uint32_t>(EPOLLOUT)) != 0;
  if (!network && (events & (EPOLLRDHUP | EPOLLHUP)) != 0 && !relay.lingers) linger(index, monotonic_us());
  if ((to_pair && move_to_pair(index) == Moved::network_gone) ||
      (to_network && move_to_network(index) == Moved::network_gone)) {
    end_relay(index);
    return;
  }
  if (relay.pair_ended && !is_full(relay.to_network))
    end_in_order(index);
  else if (!watch_what_is_wanted(index))
    end_unwatched(index);
}

bool relays_have_more() { return first_more != kNoIndex; }

void serve_relays_with_more() {
  std::uint32_t index = first_more;
  first_more = kNoIndex;
  while (index != kNoIndex) {
    const std::uint32_t next = relays[index].next;
    relays[index].in_more = false;
    serve_relay(index, true, EPOLLIN);
    index = next;
  }
}

// The client's socket and the near end go to the relay's numbers, the far end to the client's.
static bool place(std::uint32_t index, int descriptor, const int (&pair)[2]) {
  if (dup3(descriptor, network_of(index), O_CLOEXEC) < 0) return false;
  epoll_ctl(dispatcher_epoll, EPOLL_CTL_DEL, descriptor, nullptr);
  if (dup3(pair[0], pair_of(index), O_CLOEXEC) >= 0) {
    if (dup3(pair[1], descriptor, O_CLOEXEC) >= 0) return true;
    close(pair_of(index));
  }
  close(network_of(index));
  return false;
}

bool start_relay(std::uint32_t index, TlsSession *tls, int descriptor) {
  Relay &relay = relays[index];
  int pair[2];

  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0) return false;
  const bool placed = place(index, descriptor, pair);
  close(pair[0]);
  close(pair[1]);
  if (!placed) return false;
  relay.connection = release_connection(tls);
  // Not SSL_set_fd(), which would forget what the kernel already encrypts.
  BIO_set_fd(SSL_get_rbio(relay.connection), network_of(index), BIO_NOCLOSE);
  SSL_set_read_ahead(relay.connection, 1);
  count_key_changes(relay.connection, &relay.key_changes);
  // The client may have said more than the login has read.
  serve_relay(index, true, EPOLLIN);
  return true;
}

// ------------------------------------------------------------------ the end

std::int64_t expire_relays(std::int64_t now_us) {
  while (first_lingering != kNoIndex) {
    const std::int64_t left_us = relays[first_lingering].linger_until_us - now_us;
    if (left_us > 0) return left_us;
    end_relay(first_lingering);
  }
  return -1;
}

void flush_relays() {
  for (std::uint32_t i = 0; i < used; i++) {
    if (relays[i].connection == nullptr) continue;
    if (move_to_network(i) == Moved::network_gone) continue;
    ERR_clear_error();
    SSL_shutdown(relays[i].connection);
  }
}

#else

void open_relays(int, int) {}
std::uint32_t relay_capacity() { return 0; }
std::uint32_t reserve_relay() { return kNoIndex; }
void release_relay(std::uint32_t) {}
bool relays_have_more() { return false; }
void serve_relays_with_more() {}
bool start_relay(std::uint32_t, TlsSession *, int) { return false; }
void serve_relay(std::uint32_t, bool, std::uint32_t) {}
std::int64_t expire_relays(std::int64_t) { return -1; }
void flush_relays() {}

#endif

}  // namespace sluice::pg
