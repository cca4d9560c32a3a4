// SPDX-License-Identifier: PostgreSQL
#include "pg/compat.hpp"

#include "pg/pool/time_limits.hpp"

#include "pg/accept/client_registry.hpp"
#include "pg/error_response.hpp"
#include "pg/pool/backend_keeper.hpp"
#include "pg/shared_memory.hpp"

namespace sluice::pg {

// Ends a client that waits or is idle: last words, then forgotten.
static bool end_client(ClientRef client, ClientState from, const StringInfoData *words) {
  PoolSlot &pool = shared().pools[shared().clients[client.slot].pool.load()];

  if (!change_client_state(client, from, ClientState::closing)) return false;
  if (from == ClientState::ready) pool.queued.fetch_sub(1);
  if (from == ClientState::idle) pool.armed.fetch_sub(1);
  send_last_words(client.slot, words->data, words->len);
  forget_client(client);
  return true;
}

void fail_waiting_clients(std::uint32_t pool_index, int sqlerrcode, const char *message, const char *hint) {
  SharedState &state = shared();
  StringInfoData words;

  initStringInfo(&words);
  append_fatal_response(&words, sqlerrcode, message, nullptr, hint);
  for (std::uint32_t i = 0; i < client_high_water(); i++) {
    const ClientSlot &slot = state.clients[i];
    const ClientWord word = ClientWord::unpack(slot.word.load());
    if (slot.pool.load() == pool_index && word.state == ClientState::ready)
      end_client(ClientRef{i, word.generation}, ClientState::ready, &words);
  }
  pfree(words.data);
}

// An assigned or leased client whose backend is no more.
void forget_clients_of_backend(std::uint32_t backend) {
  for (std::uint32_t i = 0; i < client_high_water(); i++) {
    ClientSlot &slot = shared().clients[i];
    std::uint64_t packed = slot.word.load();
    const ClientWord word = ClientWord::unpack(packed);
    if (word.state != ClientState::leased || word.backend != backend) continue;
    const ClientWord closing{word.generation, kNoIndex, ClientState::closing};
    if (slot.word.compare_exchange_strong(packed, closing.pack())) forget_client(ClientRef{i, word.generation});
  }
}

// ------------------------------------------------------------------ time limits

static void append_pinned(StringInfo detail, const PoolCensus &census) {
  char reasons[256];
  describe_pins(census.longest_pinned_reasons, reasons, sizeof(reasons));
  appendStringInfo(detail, ", %d pinned (longest " INT64_FORMAT " s, pid %d", census.pinned,
                   census.longest_pinned_us / 1000000, census.longest_pinned_pid);
  if (reasons[0] != '\0') appendStringInfo(detail, ": %s", reasons);  // it may have been released just now
  appendStringInfoChar(detail, ')');
}

// Pinned backends count against the server's maximum alone: they are in the way
// when that is reached, also for other pools.
struct FullServer {
  bool is_full = false;
  int pinned = 0;
  std::uint32_t worst_pool = kNoIndex;  // the one with most of them
  int worst_pinned = 0;
};

static FullServer look_at_server() {
  const SharedState &state = shared();
  FullServer server;

  server.is_full = state.header->backends.load() >= static_cast<std::int32_t>(state.header->max_backends);
  for (std::uint32_t i = 0; server.is_full && i < state.header->max_pools; i++) {
    if (state.pools[i].state.load() != static_cast<std::uint32_t>(PoolState::open)) continue;
    const int pinned = take_census(i, 0).pinned;
    server.pinned += pinned;
    if (pinned > server.worst_pinned) {
      server.worst_pinned = pinned;
      server.worst_pool = i;
    }
  }
  return server;
}

static void append_full_server(StringInfo detail, const FullServer &server) {
  if (!server.is_full) return;
  appendStringInfo(detail, " All %u pooled backends of the server (\"sluice.max_backends\") are in use",
                   shared().header->max_backends);
  if (server.pinned > 0) {
    const PoolSlot &pool = shared().pools[server.worst_pool];
    appendStringInfo(detail, ", %d of them pinned, %d by clients of pool \"%s/%s\"", server.pinned,
                     server.worst_pinned, pool.role, pool.database);
  }
  appendStringInfoChar(detail, '.');
}

static void describe_full_pool(StringInfo detail, std::uint32_t pool_index, std::int64_t now_us) {
  const PoolSlot &pool = shared().pools[pool_index];
  const PoolCensus census = take_census(pool_index, now_us);

  const int backends = pool.backends.load();
  const int waiting = pool.queued.load();
  if (backends == 1)
    appendStringInfo(detail, "The only backend is busy: ");
  else if (backends > 1)
    appendStringInfo(detail, "All %d backends are busy: ", backends);
  else
    appendStringInfo(detail, "The pool has no backend: ");
  appendStringInfo(detail, "%d active, %d idle in transaction", census.active, census.thinking);
  if (census.thinking > 0)
    appendStringInfo(detail, " (longest " INT64_FORMAT " s, pid %d)", census.longest_thinking_us / 1000000,
                     census.longest_thinking_pid);
  if (census.held > 0) appendStringInfo(detail, ", %d held by sessions", census.held);
  if (census.pinned > 0) append_pinned(detail, census);
  if (census.starting > 0) appendStringInfo(detail, ", %d starting", census.starting);
  appendStringInfo(detail, waiting == 1 ? "; %d client is waiting." : "; %d clients are waiting.", waiting);
}

static void time_out_client(std::uint32_t pool_index, ClientRef client, std::int64_t now_us) {
  PoolSlot &pool = shared().pools[pool_index];
  StringInfoData words, message, detail;

  initStringInfo(&words);
  initStringInfo(&message);
  initStringInfo(&detail);
  appendStringInfo(&message, "could not get a backend from pool \"%s/%s\" within %d ms", pool.role, pool.database,
                   pool.acquire_timeout_ms.load());
  describe_full_pool(&detail, pool_index, now_us);
  const FullServer server = look_at_server();
  append_full_server(&detail, server);
  const char *hint = server.pinned > 0
                         ? "See the column \"pins\" of the view sluice.clients, or consider setting "
                           "\"sluice.pin_timeout\", or \"sluice.on_session_state\" to \"error\"."
                         : "See the view sluice.backends, or consider raising \"sluice.max_pool_size\".";
  append_fatal_response(&words, ERRCODE_TOO_MANY_CONNECTIONS, message.data, detail.data, hint);
  // Unless a backend has taken it at the last moment.
  if (end_client(client, ClientState::ready, &words)) {
    ErrorData error;
    memset(&error, 0, sizeof(error));
    error.sqlerrcode = ERRCODE_TOO_MANY_CONNECTIONS;
    error.message = message.data;
    error.detail = detail.data;
    error.hint = const_cast<char *>(hint);
    log_as_fatal(&error);
    pool.acquire_timeouts.fetch_add(1);
  }
  pfree(words.data);
  pfree(message.data);
  pfree(detail.data);
}

static void dismiss_client(ClientRef client, ClientState from, int sqlerrcode, const char *message) {
  StringInfoData words;
  initStringInfo(&words);
  append_fatal_response(&words, sqlerrcode, message, nullptr, nullptr);
  end_client(client, from, &words);
  pfree(words.data);
}

// A ready client that found the queue full is put back as soon as there is room,
// one whose entry got lost after a while.  A double entry is harmless.
constexpr std::int64_t kRequeueUs = 250000;

static void requeue(PoolSlot &pool, ClientSlot &slot, ClientRef client) {
  if (pool.wait_queue.get().bounded_push(client.pack())) slot.flags.fetch_and(~kClientUnqueued);
}

// What the client has set itself, or what its role and database give it.
static std::int64_t idle_session_limit_us(const ClientSlot &slot, const PoolSlot &pool) {
  const std::int32_t own_ms = slot.idle_session_timeout_ms.load(std::memory_order_relaxed);
  return std::int64_t{own_ms >= 0 ? own_ms : pool.idle_session_timeout_ms.load()} * 1000;
}

void scan_clients(std::int64_t now_us) {
  SharedState &state = shared();
  for (std::uint32_t i = 0; i < client_high_water(); i++) {
    ClientSlot &slot = state.clients[i];
    const ClientWord word = ClientWord::unpack(slot.word.load(std::memory_order_relaxed));
    const std::uint32_t pool_index = slot.pool.load(std::memory_order_relaxed);
    const ClientRef client{i, word.generation};
    if (word.state == ClientState::closing) {
      forget_client(client);
      continue;
    }
    if (pool_index == kNoIndex) continue;
    PoolSlot &pool = state.pools[pool_index];
    const bool told_to_leave = (slot.flags.load(std::memory_order_relaxed) & kClientToLeave) != 0;
    if (word.state == ClientState::ready) {
      const std::int64_t waited_us = now_us - slot.ready_since_us.load(std::memory_order_relaxed);
      const std::int64_t limit_us = static_cast<std::int64_t>(pool.acquire_timeout_ms.load()) * 1000;
      if (told_to_leave)
        dismiss_client(client, ClientState::ready, ERRCODE_ADMIN_SHUTDOWN,
                       "terminating connection due to administrator command");
      else if (limit_us > 0 && waited_us > limit_us)
        time_out_client(pool_index, client, now_us);
      else if ((slot.flags.load(std::memory_order_relaxed) & kClientUnqueued) != 0 ||
               (waited_us > kRequeueUs && pool.wait_queue.get().empty()))
        requeue(pool, slot, client);
    } else if (word.state == ClientState::idle) {
      const std::int64_t idle_us = now_us - slot.state_since_us.load(std::memory_order_relaxed);
      const std::int64_t limit_us = idle_session_limit_us(slot, pool);
      if (told_to_leave)
        dismiss_client(client, ClientState::idle, ERRCODE_ADMIN_SHUTDOWN, "terminating connection due to administrator command");
      else if (limit_us > 0 && idle_us > limit_us)
        dismiss_client(client, ClientState::idle, ERRCODE_IDLE_SESSION_TIMEOUT,
                        "terminating connection due to idle-session timeout");
    }
  }
}

}  // namespace sluice::pg
