// SPDX-License-Identifier: PostgreSQL
#include "pg/compat.hpp"

#include "pg/pool/time_limits.hpp"

#include "core/stats/pool_totals.hpp"
#include "pg/accept/client_registry.hpp"
#include "pg/error_response.hpp"
#include "pg/pool/backend_keeper.hpp"
#include "pg/pool/keeper_books.hpp"
#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"
#include "pg/stats/error_count.hpp"
#include "pg/stats/event_log.hpp"
#include "pg/stats/pool_diagnosis.hpp"

namespace sluice::pg {

// The last words for a client, and what they count as.
struct LastWords {
  ErrorClass error_class;
  int sqlerrcode;
  const char *message;
  StringInfoData response;
};

static void begin_last_words(LastWords *words, ErrorClass error_class, int sqlerrcode, const char *message,
                             const char *detail, const char *hint) {
  words->error_class = error_class;
  words->sqlerrcode = sqlerrcode;
  words->message = message;
  initStringInfo(&words->response);
  append_fatal_response(&words->response, sqlerrcode, message, detail, hint);
}

// Ends a client that waits or is idle: last words, then forgotten.
static bool end_client(ClientRef client, ClientState from, const LastWords &words) {
  PoolSlot &pool = shared().pools[shared().clients[client.slot].pool.load()];

  if (!change_client_state(client, from, ClientState::closing)) return false;
  if (from == ClientState::ready) pool.queued.fetch_sub(1);
  if (from == ClientState::idle) pool.armed.fetch_sub(1);
  count_error(words.error_class, words.sqlerrcode, pool.role_oid, words.message);
  send_last_words(client.slot, words.response.data, words.response.len);
  forget_client(client);
  return true;
}

void fail_waiting_clients(std::uint32_t pool_index, int sqlerrcode, const char *message, const char *hint) {
  SharedState &state = shared();
  LastWords words;

  begin_last_words(&words, ErrorClass::backend_start, sqlerrcode, message, nullptr, hint);
  for (std::uint32_t i = 0; i < client_high_water(); i++) {
    const ClientSlot &slot = state.clients[i];
    const ClientWord word = ClientWord::unpack(slot.word.load());
    if (slot.pool.load() == pool_index && word.state == ClientState::ready)
      end_client(ClientRef{i, word.generation}, ClientState::ready, words);
  }
  pfree(words.response.data);
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

static void append_full_server(StringInfo detail) {
  const SharedHeader &header = *shared().header;
  if (header.backends.load() < static_cast<std::int32_t>(header.max_backends)) return;
  appendStringInfo(detail, " All %u pooled backends of the server (\"sluice.max_backends\") are in use.",
                   header.max_backends);
}

// A sentence of its own.
static void append_cause(StringInfo detail, const PoolDiagnosis &diagnosis) {
  appendStringInfoChar(detail, ' ');
  const int start = detail->len;
  append_verdict(detail, diagnosis);
  detail->data[start] = pg_toupper(static_cast<unsigned char>(detail->data[start]));
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

static void log_timed_out_client(std::uint32_t pool_index, ClientRef client, std::int64_t now_us) {
  const PoolCensus census = take_census(pool_index, now_us);
  char reason[kEventReasonLength];
  snprintf(reason, sizeof(reason), "no backend within %d ms: %d active, %d idle in transaction, %d held, %d pinned",
           shared().pools[pool_index].acquire_timeout_ms.load(), census.active, census.thinking, census.held,
           census.pinned);
  log_event(EventKind::acquire_timeout, pool_index, kNoProcess, static_cast<std::int32_t>(client.slot), reason);
}

// The log is told all, the client what its role may know.
static void time_out_client(std::uint32_t pool_index, ClientRef client, std::int64_t now_us) {
  PoolSlot &pool = shared().pools[pool_index];
  const std::int64_t waited_us = now_us - shared().clients[client.slot].ready_since_us.load(std::memory_order_relaxed);
  // What keeps the pool from having another backend is the better reason: it will not pass by waiting.
  const PoolBook &book = pool_books[pool_index];
  const bool refused = book.failed_starts > 0 && book.refusal[0] != '\0';
  const int sqlerrcode = refused ? book.refusal_sqlerrcode : ERRCODE_TOO_MANY_CONNECTIONS;
  StringInfoData message, detail, told;
  LastWords words;

  initStringInfo(&message);
  initStringInfo(&detail);
  initStringInfo(&told);
  appendStringInfo(&message, "could not get a backend from pool \"%s/%s\" within %d ms", pool.role, pool.database,
                   pool.acquire_timeout_ms.load());
  // A look behind locks costs more than the rest, and clients often give up together.
  const PoolDiagnosis &diagnosis = look_at_pool_lately(pool_index, now_us);
  describe_full_pool(&detail, pool_index, now_us);
  append_full_server(&detail);
  appendBinaryStringInfo(&told, detail.data, detail.len);
  append_cause(&detail, diagnosis);
  PoolDiagnosis shown = diagnosis;
  hide_from_role(shown, pool.role_oid);
  append_cause(&told, shown);
  begin_last_words(&words, ErrorClass::acquire_timeout, sqlerrcode, refused ? book.refusal : message.data, told.data,
                   hint_about(shown.advice));
  // Unless a backend has taken it at the last moment.
  if (end_client(client, ClientState::ready, words)) {
    ErrorData error;
    memset(&error, 0, sizeof(error));
    error.sqlerrcode = ERRCODE_TOO_MANY_CONNECTIONS;
    error.message = message.data;
    error.detail = detail.data;
    error.hint = const_cast<char *>(hint_about(diagnosis.advice));
    log_as_fatal(&error);
    pool.acquire_timeouts.fetch_add(1);
    if (setting_track_timing) record_given_up(pool, static_cast<std::uint64_t>(Max(waited_us, 0)));
    log_timed_out_client(pool_index, client, now_us);
  }
  pfree(words.response.data);
  pfree(message.data);
  pfree(detail.data);
  pfree(told.data);
}

static void dismiss_client(ClientRef client, ClientState from, int sqlerrcode, const char *message) {
  LastWords words;
  begin_last_words(&words, ErrorClass::client_end, sqlerrcode, message, nullptr, nullptr);
  end_client(client, from, words);
  pfree(words.response.data);
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

// Its backend had no descriptor left, so it could not tell the client.
static void tell_lost_socket(ClientRef client) {
  const ClientSlot &slot = shared().clients[client.slot];
  constexpr const char *kMessage = "could not hand the connection over to a backend";
  LastWords words;

  begin_last_words(&words, ErrorClass::limit, ERRCODE_INSUFFICIENT_RESOURCES, kMessage, nullptr,
                   "The server may have too many open files; see the view sluice.system_limits.");
  count_error(words.error_class, words.sqlerrcode, shared().pools[slot.pool.load()].role_oid, kMessage);
  send_last_words(client.slot, words.response.data, words.response.len);
  pfree(words.response.data);
}

void scan_clients(std::int64_t now_us) {
  SharedState &state = shared();
  for (std::uint32_t i = 0; i < client_high_water(); i++) {
    ClientSlot &slot = state.clients[i];
    const ClientWord word = ClientWord::unpack(slot.word.load(std::memory_order_relaxed));
    const std::uint32_t pool_index = slot.pool.load(std::memory_order_relaxed);
    const ClientRef client{i, word.generation};
    if (word.state == ClientState::closing) {
      if ((slot.flags.load() & kClientSocketLost) != 0 && pool_index != kNoIndex) tell_lost_socket(client);
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
        dismiss_client(client, ClientState::idle, ERRCODE_ADMIN_SHUTDOWN,
                       "terminating connection due to administrator command");
      else if (limit_us > 0 && idle_us > limit_us)
        dismiss_client(client, ClientState::idle, ERRCODE_IDLE_SESSION_TIMEOUT,
                        "terminating connection due to idle-session timeout");
    }
  }
}

}  // namespace sluice::pg
