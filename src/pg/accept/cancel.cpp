// SPDX-License-Identifier: PostgreSQL
//
// The race: between finding the backend that serves a client and signalling it,
// that backend may have finished and taken another client.  The answer: each
// lease of a backend has a number.  The request names the lease; the backend's
// signal handler, which runs in the very process that changes leases, compares
// it with the lease it is in, and drops a request for any other.
//
//   dispatcher                          backend
//   word  = client.word (leased by B)
//   lease = B.lease
//   word again: unchanged, so `lease`
//     is this client's or a later one
//     of the same client
//   B.cancel_lease = lease; SIGUSR2 -->  handler: cancel_lease == my lease?

#include "pg/compat.hpp"

#include "pg/accept/cancel.hpp"

#include <signal.h>

#include "pg/accept/client_registry.hpp"
#include "pg/shared_memory.hpp"

namespace sluice::pg {

constexpr std::uint32_t kFirstCancelNumber = 1u << 23;  // above Linux's largest pid_max, 2^22

std::uint32_t client_cancel_number(ClientRef client) { return kFirstCancelNumber + client.slot; }

// The lease under which the client is served now; 0 when it is not.
static std::uint64_t find_lease(std::uint32_t slot, std::uint32_t *backend) {
  SharedState &state = shared();
  const std::uint64_t packed = state.clients[slot].word.load();
  const ClientWord word = ClientWord::unpack(packed);

  if (word.state != ClientState::leased || word.backend >= state.header->backend_slots) return 0;
  const std::uint64_t lease = state.backends[word.backend].lease.load();
  // An assigned backend may not have opened this client's lease yet.
  if (state.backends[word.backend].client.load() != slot ||
      state.backends[word.backend].client_generation.load() != word.generation ||
      state.clients[slot].word.load() != packed)
    return 0;
  *backend = word.backend;
  return lease;
}

bool cancel_query_of(std::uint32_t slot) {
  std::uint32_t index;
  const std::uint64_t lease = find_lease(slot, &index);
  if (lease == 0) return false;
  BackendSlot &backend = shared().backends[index];
  backend.cancel_lease.store(lease);
  const std::int32_t pid = backend.pid.load();
  return pid != 0 && kill(pid, SIGUSR2) == 0;
}

void report_vanished(std::uint32_t slot) {
  std::uint32_t index;
  const std::uint64_t lease = find_lease(slot, &index);
  if (lease == 0) return;
  BackendSlot &backend = shared().backends[index];
  if (static_cast<BackendState>(backend.state.load()) != BackendState::active) return;
  backend.vanished_lease.store(lease);
  const std::int32_t pid = backend.pid.load();
  if (pid != 0) kill(pid, SIGUSR2);
}

// Without looking at all clients: strangers may ask.  The number says the slot, or is
// that of the backend which keeps its client (session mode).
static std::uint32_t find_client(std::uint32_t cancel_number) {
  const SharedState &state = shared();
  std::uint32_t slot = kNoIndex;

  if (cancel_number >= kFirstCancelNumber) {
    slot = cancel_number - kFirstCancelNumber;
  } else if (cancel_number != 0) {
    for (std::uint32_t i = 0; i < state.header->backend_slots && slot == kNoIndex; i++)
      if (static_cast<std::uint32_t>(state.backends[i].pid.load()) == cancel_number)
        slot = state.backends[i].client.load();
  }
  if (slot >= client_high_water()) return kNoIndex;
  const ClientSlot &client = state.clients[slot];
  const ClientWord word = ClientWord::unpack(client.word.load());
  const bool has_key = word.state != ClientState::free && word.state != ClientState::authenticating;
  return has_key && client.cancel_pid.load() == cancel_number ? slot : kNoIndex;
}

void handle_cancel_request(std::uint32_t cancel_number, std::uint32_t key) {
  SharedState &state = shared();
  const std::uint32_t i = find_client(cancel_number);

  if (i == kNoIndex) {
    ereport(LOG, (errmsg("number %u in cancel request did not match any client", cancel_number)));
    return;
  }
  // One word each: the comparison takes the same time whatever the key.
  if ((state.clients[i].cancel_key.load() ^ key) != 0) {
    ereport(LOG, (errmsg("wrong key in cancel request for client %u", i)));
    return;
  }
  state.pools[state.clients[i].pool.load()].cancels.fetch_add(1);
  cancel_query_of(i);
}

}  // namespace sluice::pg
