// SPDX-License-Identifier: PostgreSQL
//
// Limits that keep strangers, or one client of many, from taking what all need.
//
// How fast: a token bucket in front of accept().  What exceeds it waits in the
// kernel's backlog, where it costs nobody anything, while the dispatcher goes on
// with the clients it has.
//
// How many of an address: a hash table of this process, keyed by what
// core/accept/address_key.hpp takes for one address.  An entry exists while a client
// of that address does, and each slot points to its entry (dynahash never moves
// one), so a login costs one look-up and a departure another one at most.  There can
// be no more entries than clients.  Roles and databases are counted by their pools,
// of which there are few, so they need no table.
//
// Two limits for addresses, because they are against different things.  Clients that
// log in are strangers and hold one of a small number of places: one address gets
// nine tenths of them unless told otherwise.  Clients that are logged in are known:
// an application server or a proxy may well have all of sluice.max_clients, so there
// is no limit unless one is set.  It is applied when the socket is accepted, before
// anyone knows the role; therefore superusers are not exempt.
//
// What strangers can make the dispatcher remember is bounded:
//   sluice.max_unauthenticated_clients * (sluice.max_login_bytes * 3 + 16 kB)
// at most, since the login keeps a packet in a buffer that grows by doubling and a
// message once more as it is handed on; with the defaults 200 MB, and in practice a
// few kilobytes each, because only a password message may be longer than 10000 bytes.
// With TLS the library keeps some tens of kilobytes for each beside that.
//
// The log gets one line in kLogIntervalUs for each kind of refusal, with the number
// of those left out: strangers do not choose the size of the log.  sluice.errors
// counts each of them.

#include "pg/compat.hpp"

#include "pg/accept/client_limits.hpp"

extern "C" {
#include "libpq/libpq-be.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
}

#include <sys/socket.h>
#include <unistd.h>

#include "core/accept/address_key.hpp"
#include "core/accept/log_throttle.hpp"
#include "core/accept/reserved_slots.hpp"
#include "core/accept/token_bucket.hpp"
#include "pg/accept/client_port.hpp"
#include "pg/accept/client_registry.hpp"
#include "pg/accept/dispatcher.hpp"
#include "pg/auth/shared_catalog.hpp"
#include "pg/error_response.hpp"
#include "pg/pool/pool_keeper.hpp"
#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"
#include "pg/stats/error_count.hpp"

namespace sluice::pg {

constexpr std::int64_t kLogIntervalUs = 5'000'000;

// ------------------------------------------------------------------ how fast

static TokenBucket accept_bucket;
static LogThrottle rate_log{kLogIntervalUs};
static LogThrottle failure_log{kLogIntervalUs};

// Some clients at once are no flood: a tenth of a second's worth, or a few batches.
constexpr int kLeastBurst = 64;

static const char *left_out_detail(std::uint64_t left_out) {
  return psprintf("The same happened %llu times since it was logged last.", static_cast<unsigned long long>(left_out));
}

std::int64_t accept_wait_us() {
  if (setting_max_accept_rate == 0) return 0;
  accept_bucket.set_rate(setting_max_accept_rate, Max(setting_max_accept_rate / 10, kLeastBurst));
  const std::int64_t now_us = monotonic_us();
  const std::int64_t wait_us = accept_bucket.wait_us(now_us);
  if (wait_us == 0) return 0;
  count_error(ErrorClass::limit, ERRCODE_CONFIGURATION_LIMIT_EXCEEDED, InvalidOid,
              "accepting pooled clients has been slowed down");
  const LogThrottle::Verdict verdict = rate_log.note(now_us);
  if (verdict.log)
    ereport(LOG, (errmsg("accepting pooled clients has been slowed down to %d per second", setting_max_accept_rate),
                  verdict.left_out > 0 ? errdetail_internal("%s", left_out_detail(verdict.left_out)) : 0,
                  errhint("If they are legitimate, increase \"%s\".", "sluice.max_accept_rate")));
  return wait_us;
}

void count_accept() {
  if (setting_max_accept_rate > 0) (void)accept_bucket.take(monotonic_us());
}

void note_accept_failure(int error) {
  count_error(ErrorClass::limit, ERRCODE_INSUFFICIENT_RESOURCES, InvalidOid, "could not accept a pooled client");
  const LogThrottle::Verdict verdict = failure_log.note(monotonic_us());
  if (!verdict.log) return;
  errno = error;
  ereport(LOG, (errcode(ERRCODE_INSUFFICIENT_RESOURCES), errmsg("could not accept a pooled client: %m"),
                verdict.left_out > 0 ? errdetail_internal("%s", left_out_detail(verdict.left_out)) : 0,
                errhint("Clients wait until there is room again.  See sluice.system_limits.")));
}

// ------------------------------------------------------------------ how many of an address

struct AddressCount {
  AddressKey key;
  std::int32_t clients;          // those logging in included
  std::int32_t unauthenticated;
};

static HTAB *addresses = nullptr;
static AddressCount **counted_at = nullptr;  // [client slot]

void open_client_limits() {
  HASHCTL control;
  memset(&control, 0, sizeof(control));
  control.keysize = sizeof(AddressKey);
  control.entrysize = sizeof(AddressCount);
  control.hcxt = TopMemoryContext;
  addresses = hash_create("pg_sluice client addresses", 128, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
  counted_at = static_cast<AddressCount **>(MemoryContextAllocExtended(
      TopMemoryContext, sizeof(AddressCount *) * (static_cast<Size>(client_capacity()) + 1),
      MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO));
}

static std::uint32_t local_user(int descriptor) {
  ucred peer;
  socklen_t length = sizeof(peer);
  return getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 ? peer.uid : UINT32_MAX;
}

static AddressKey key_of(int descriptor, const SockAddr &peer) {
  ClientAddress address;
  remember_address(&address, peer);
  return address_key(address, address.family == 1 ? local_user(descriptor) : 0);
}

static void count_client(ClientRef client, const AddressKey &key) {
  bool found;
  auto *entry = static_cast<AddressCount *>(hash_search(addresses, &key, HASH_ENTER, &found));
  if (!found) entry->clients = entry->unauthenticated = 0;
  entry->clients++;
  entry->unauthenticated++;
  counted_at[client.slot] = entry;
}

void client_came_in(ClientRef client) {
  AddressCount *entry = counted_at[client.slot];
  if (entry != nullptr) entry->unauthenticated--;
}

void client_left(ClientRef client, bool was_in) {
  AddressCount *entry = counted_at[client.slot];
  if (entry == nullptr) return;
  counted_at[client.slot] = nullptr;
  if (!was_in) entry->unauthenticated--;
  if (--entry->clients > 0) return;
  const AddressKey key = entry->key;
  (void)hash_search(addresses, &key, HASH_REMOVE, nullptr);
}

// ------------------------------------------------------------------ refusing a socket

struct SocketRefusal {
  const char *message;  // for the client
  const char *counted;  // for sluice.errors: which limit it was
  const char *setting;
  LogThrottle log;
};

static SocketRefusal too_many_unauthenticated{"sorry, too many clients already", "too many clients are logging in",
                                              "sluice.max_unauthenticated_clients", LogThrottle{kLogIntervalUs}};
static SocketRefusal too_many_clients{"sorry, too many clients already", "sorry, too many clients already",
                                      "sluice.max_clients", LogThrottle{kLogIntervalUs}};
static SocketRefusal too_many_of_address{"too many clients from this address", "too many clients from this address",
                                         "sluice.max_clients_per_address", LogThrottle{kLogIntervalUs}};
static SocketRefusal too_many_unauthenticated_of_address{
    "too many clients from this address are logging in", "too many clients from this address are logging in",
    "sluice.max_unauthenticated_per_address", LogThrottle{kLogIntervalUs}};

static void log_refusal(SocketRefusal *refusal, const SockAddr &peer) {
  const LogThrottle::Verdict verdict = refusal->log.note(monotonic_us());
  if (!verdict.log) return;
  ClientAddress address;
  char host[64], port[8];
  remember_address(&address, peer);
  write_address(address, host, sizeof(host), port, sizeof(port));
  ereport(LOG, (errcode(ERRCODE_TOO_MANY_CONNECTIONS),
                errmsg("pooled client from %s refused: %s", host, refusal->counted),
                verdict.left_out > 0 ? errdetail_internal("%s", left_out_detail(verdict.left_out)) : 0,
                errhint("You may need to increase \"%s\".", refusal->setting)));
}

static void refuse_socket(int descriptor, const SockAddr &peer, SocketRefusal *refusal) {
  StringInfoData words;
  initStringInfo(&words);
  append_fatal_response(&words, ERRCODE_TOO_MANY_CONNECTIONS, refusal->message, nullptr,
                        psprintf("You may need to increase \"%s\".", refusal->setting));
  count_error(ErrorClass::limit, ERRCODE_TOO_MANY_CONNECTIONS, InvalidOid, refusal->counted);
  log_refusal(refusal, peer);
  const ssize_t sent = send(descriptor, words.data, static_cast<size_t>(words.len), MSG_DONTWAIT | MSG_NOSIGNAL);
  (void)sent;
  close(descriptor);
  shared().header->connections_refused.fetch_add(1);
}

static SocketRefusal *find_refusal(const AddressKey &key) {
  const auto *entry = static_cast<const AddressCount *>(hash_search(addresses, &key, HASH_FIND, nullptr));
  if (entry != nullptr) {
    if (setting_max_clients_per_address > 0 && entry->clients >= setting_max_clients_per_address)
      return &too_many_of_address;
    const std::int32_t limit = unauthenticated_limit_of_address(setting_max_unauthenticated_per_address,
                                                                setting_max_unauthenticated_clients);
    // Where the limit of all is no greater, it is that one which is met.
    if (limit < setting_max_unauthenticated_clients && entry->unauthenticated >= limit)
      return &too_many_unauthenticated_of_address;
  }
  if (shared().header->unauthenticated.load() >= setting_max_unauthenticated_clients) return &too_many_unauthenticated;
  return nullptr;
}

bool take_client_slot(int descriptor, const SockAddr &peer, ClientRef *client) {
  const AddressKey key = key_of(descriptor, peer);
  SocketRefusal *refusal = find_refusal(key);
  if (refusal == nullptr && !register_client(descriptor, client)) refusal = &too_many_clients;
  if (refusal == nullptr) {
    count_client(*client, key);
    return true;
  }
  // What the refusal allocates is gone with this.
  MemoryContext scratch = AllocSetContextCreate(TopMemoryContext, "pg_sluice refusal", ALLOCSET_SMALL_SIZES);
  MemoryContext caller = MemoryContextSwitchTo(scratch);
  refuse_socket(descriptor, peer, refusal);
  MemoryContextSwitchTo(caller);
  MemoryContextDelete(scratch);
  return false;
}

// ------------------------------------------------------------------ how many of a role and a database

void require_unreserved_slot(const LoginTarget &target) {
  if (target.superuser) return;
  const SlotReserve reserve = slot_reserve();
  const SlotRight right =
      who_may_enter(client_capacity(), shared().header->clients.load(), reserve.superuser, reserve.privileged);
  if (right == SlotRight::everyone) return;
  if (right == SlotRight::reserved_connection && is_member_of(target.role, "pg_use_reserved_connections") &&
      may_use_reserved_connections(target.role))
    return;
  raise_reserved_slots(right == SlotRight::superuser);
}

void check_clients_per_role_and_database(const LoginTarget &target) {
  if (target.superuser) return;
  if (setting_max_clients_per_role > 0 && count_clients_of_role(target.role) >= setting_max_clients_per_role)
    ereport(ERROR, (errcode(ERRCODE_TOO_MANY_CONNECTIONS),
                    errmsg("too many pooled clients of role \"%s\"", target.role_name),
                    errhint("You may need to increase \"%s\".", "sluice.max_clients_per_role")));
  if (setting_max_clients_per_database > 0 &&
      count_clients_of_database(target.database) >= setting_max_clients_per_database)
    ereport(ERROR, (errcode(ERRCODE_TOO_MANY_CONNECTIONS),
                    errmsg("too many pooled clients of database \"%s\"", target.database_name),
                    errhint("You may need to increase \"%s\".", "sluice.max_clients_per_database")));
}

// ------------------------------------------------------------------ how much

bool exceeds_login_bytes(std::int64_t bytes) { return bytes > std::int64_t{setting_max_login_bytes} * 1024; }

void describe_login_bytes(ErrorData *error) {
  memset(error, 0, sizeof(*error));
  error->sqlerrcode = ERRCODE_CONFIGURATION_LIMIT_EXCEEDED;
  error->message = const_cast<char *>("client sent too much before it was authenticated");
  error->hint = const_cast<char *>("You may need to increase \"sluice.max_login_bytes\".");
}

}  // namespace sluice::pg
