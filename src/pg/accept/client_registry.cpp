// SPDX-License-Identifier: PostgreSQL
//
// A client's socket lives at descriptor base + slot, here and in every backend:
// epoll knows a registration by (open file, descriptor number), so a backend can
// re-arm a client in the shared set only with the same number.  Other processes
// hold copies of the socket; closing ours ends nothing.  Therefore a client is
// forgotten in this order: out of the epoll sets, shutdown(), close().  Copies
// elsewhere are recognised by the slot's generation and replaced at next use.

#include "pg/compat.hpp"

#include "pg/accept/client_registry.hpp"

extern "C" {
#include "libpq/libpq-be.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

extern bool Log_disconnections;  // no header of the server has it
}

#include <arpa/inet.h>
#include <cstdio>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/tuning/system_limits.hpp"
#include "pg/accept/client_limits.hpp"
#include "pg/accept/client_port.hpp"
#include "pg/accept/dispatcher.hpp"
#include "pg/accept/tls_session.hpp"
#include "pg/pool/pool_keeper.hpp"
#include "pg/session/client_store.hpp"
#include "pg/shared_memory.hpp"

namespace sluice::pg {

static int dispatcher_epoll = -1;
static std::uint32_t capacity = 0;
static std::uint32_t *free_slots = nullptr;
static std::uint32_t free_count = 0;
static std::uint32_t high_water = 0;

constexpr auto kSpare = static_cast<rlim_t>(kSpareDescriptors);

static std::uint32_t raise_descriptor_limit() {
  const SharedHeader *header = shared().header;
  rlimit limit;

  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return header->max_clients;
  if (limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  const rlim_t wanted = static_cast<rlim_t>(header->descriptor_base) + header->max_clients + kSpare;
  if (limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= wanted) return header->max_clients;
  const rlim_t fits = limit.rlim_cur > header->descriptor_base + kSpare
                          ? limit.rlim_cur - header->descriptor_base - kSpare
                          : 0;
  ereport(WARNING,
          (errmsg("only %u of %u clients can be served", static_cast<unsigned>(fits), header->max_clients),
           errdetail("The limit of open files is %lu, but %lu are needed.", static_cast<unsigned long>(limit.rlim_cur),
                     static_cast<unsigned long>(wanted)),
           errhint("Raise the limit of open files of the server (LimitNOFILE, ulimit -n), or lower \"%s\".",
                   "sluice.max_clients")));
  return static_cast<std::uint32_t>(fits);
}

void open_client_registry(int epoll) {
  SharedState &state = shared();

  dispatcher_epoll = epoll;
  state.header->dispatcher_epoll.store(epoll);
  capacity = raise_descriptor_limit();
  free_slots =
      static_cast<std::uint32_t *>(MemoryContextAlloc(TopMemoryContext, sizeof(std::uint32_t) * Max(capacity, 1u)));
  free_count = 0;
  for (std::uint32_t i = capacity; i-- > 0;) {
    ClientSlot &slot = state.clients[i];
    const ClientWord word = ClientWord::unpack(slot.word.load());
    // Clients of an earlier dispatcher: their sockets died with it.
    if (word.state != ClientState::free) {
      release_client_store(&slot);
      slot.cancel_key.store(0);
      slot.cancel_pid.store(0);
      slot.word.store(ClientWord{word.generation + 1, kNoIndex, ClientState::free}.pack());
    }
    free_slots[free_count++] = i;
  }
  state.header->clients.store(0);
  state.header->unauthenticated.store(0);
}

std::uint32_t client_capacity() { return capacity; }

std::uint32_t client_high_water() { return high_water; }

int client_descriptor(std::uint32_t slot) { return static_cast<int>(shared().header->descriptor_base + slot); }

// At the other end of a Unix socket; 0 for others, and for processes of other pid namespaces.
static std::int32_t peer_process(int descriptor) {
  ucred peer;
  socklen_t length = sizeof(peer);
  return getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && peer.pid > 0 ? peer.pid : 0;
}

bool register_client(int descriptor, ClientRef *client) {
  SharedState &state = shared();

  if (free_count == 0) return false;
  const std::uint32_t index = free_slots[free_count - 1];
  const int fixed = client_descriptor(index);
  if (dup3(descriptor, fixed, O_CLOEXEC) < 0) return false;

  ClientSlot &slot = state.clients[index];
  const std::uint32_t generation = ClientWord::unpack(slot.word.load()).generation;
  *client = ClientRef{index, generation};
  close(descriptor);
  free_count--;
  if (index >= high_water) high_water = index + 1;

  slot.pool.store(kNoIndex, std::memory_order_relaxed);
  slot.flags.store(0, std::memory_order_relaxed);
  slot.transactions.store(0, std::memory_order_relaxed);
  slot.waited_us.store(0, std::memory_order_relaxed);
  slot.ready_since_us.store(0, std::memory_order_relaxed);
  slot.state_since_us.store(coarse_monotonic_us(), std::memory_order_relaxed);
  slot.connected_at = GetCurrentTimestamp();
  slot.cancel_pid.store(0, std::memory_order_relaxed);
  slot.cancel_key.store(0, std::memory_order_relaxed);
  slot.startup_settings = 0;
  slot.statements = 0;
  slot.unnamed_statement = 0;
  slot.session_settings = 0;
  slot.sequences = 0;
  slot.told_parameters = 0;
  slot.pins.store(0, std::memory_order_relaxed);
  slot.pinned_since_us.store(0, std::memory_order_relaxed);
  slot.last_backend.store(kNoIndex, std::memory_order_relaxed);
  slot.thoughts.store(0, std::memory_order_relaxed);
  slot.idle_session_timeout_ms.store(-1, std::memory_order_relaxed);
  slot.application_name[0] = '\0';
  slot.peer_pid = peer_process(fixed);
  slot.word.store(ClientWord{generation, kNoIndex, ClientState::authenticating}.pack());
  raise_resource(Resource::client_slots, state.header->clients.fetch_add(1) + 1);
  raise_resource(Resource::unauthenticated_clients, state.header->unauthenticated.fetch_add(1) + 1);
  state.header->connections_total.fetch_add(1);
  return true;
}

static bool watch(ClientRef client, std::uint32_t events, bool anew) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = client.pack();
  return epoll_ctl(dispatcher_epoll, anew ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, client_descriptor(client.slot), &event) == 0;
}

bool watch_for_input(ClientRef client) { return watch(client, EPOLLIN | EPOLLRDHUP, true); }

void watch_for_output(ClientRef client, bool on) {
  watch(client, on ? static_cast<std::uint32_t>(EPOLLOUT) : EPOLLIN | EPOLLRDHUP, false);
}

void watch_for_hangup(ClientRef client, bool anew) { watch(client, EPOLLRDHUP | EPOLLET, anew); }

bool change_client_state(ClientRef client, ClientState from, ClientState to) {
  ClientSlot &slot = shared().clients[client.slot];
  std::uint64_t word = slot.word.load();
  const ClientWord seen = ClientWord::unpack(word);

  if (seen.generation != client.generation || seen.state != from) return false;
  if (!slot.word.compare_exchange_strong(word, ClientWord{seen.generation, kNoIndex, to}.pack())) return false;
  slot.state_since_us.store(coarse_monotonic_us(), std::memory_order_relaxed);
  return true;
}

void send_last_words(std::uint32_t slot, const char *bytes, int length) {
  ssize_t sent = send(client_descriptor(slot), bytes, static_cast<size_t>(length), MSG_DONTWAIT | MSG_NOSIGNAL);
  (void)sent;
}

// In the server's words.  Here, because no backend sees all clients leave.
static void log_disconnection(ClientSlot &slot) {
  PoolSlot &pool = shared().pools[slot.pool.load()];
  Port *const former_port = MyProcPort;
  char *const own_name = application_name;
  Port port;
  char host[INET6_ADDRSTRLEN], remote_port[8];
  long seconds;
  int microseconds;

  write_address(slot.address, host, sizeof(host), remote_port, sizeof(remote_port));
  TimestampDifference(slot.connected_at, GetCurrentTimestamp(), &seconds, &microseconds);
  // What log_line_prefix shows of a client.
  memset(&port, 0, sizeof(port));
  port.sock = PGINVALID_SOCKET;
  port.user_name = pool.role;
  port.database_name = pool.database;
  port.remote_host = host;
  port.remote_port = remote_port;
  MyProcPort = &port;
  application_name = slot.application_name;
  ereport(LOG, (errmsg("disconnection: session time: %ld:%02ld:%02ld.%03d user=%s database=%s host=%s%s%s",
                       seconds / 3600, seconds / 60 % 60, seconds % 60, microseconds / 1000, pool.role, pool.database,
                       host, remote_port[0] != '\0' ? " port=" : "", remote_port)));
  application_name = own_name;
  MyProcPort = former_port;
}

void forget_client(ClientRef client) {
  SharedState &state = shared();
  ClientSlot &slot = state.clients[client.slot];
  const ClientWord word = ClientWord::unpack(slot.word.load());
  const int descriptor = client_descriptor(client.slot);

  if (word.generation != client.generation) return;
  Assert(word.state == ClientState::authenticating || word.state == ClientState::closing);

  const std::uint32_t pool = slot.pool.load();
  if (pool != kNoIndex) {
    if (Log_disconnections) log_disconnection(slot);
    pool_forgets_client(pool, client);
  } else {
    state.header->unauthenticated.fetch_sub(1);
  }
  client_left(client, pool != kNoIndex);
  epoll_ctl(dispatcher_epoll, EPOLL_CTL_DEL, descriptor, nullptr);
  if (pool != kNoIndex && (slot.flags.load() & kClientKernelTls) != 0) say_end_of_kernel_tls(descriptor);
  shutdown(descriptor, SHUT_RDWR);
  close(descriptor);
  release_client_store(&slot);
  slot.pool.store(kNoIndex);
  slot.cancel_key.store(0);
  slot.cancel_pid.store(0);
  state.header->clients.fetch_sub(1);
  slot.word.store(ClientWord{word.generation + 1, kNoIndex, ClientState::free}.pack());
  free_slots[free_count++] = client.slot;
}

}  // namespace sluice::pg
