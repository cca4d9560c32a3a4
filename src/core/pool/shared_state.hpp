// SPDX-License-Identifier: PostgreSQL
//
// The one description of what pg_sluice keeps in shared memory.
//
// Everything here has a fixed size, is standard layout and trivially
// destructible, and is reached by index, never by pointer: each process may map
// the segment wherever it likes.  The slot's own state word is the truth; the
// wait queue, the free lists and the counters beside it are hints that a
// periodic scan by the dispatcher may correct.
//
// Who writes what
//   ClientSlot   the dispatcher while the client is authenticating or closing,
//                the leasing backend while the state is `leased`.  `word` is
//                changed by compare-and-set where several may want to; the one
//                who owns the client (authenticating, leased) may just store it.
//   PoolSlot     the dispatcher; the counters by every backend of the pool; the
//                published settings by the backend that started last.
//   BackendSlot  the backend itself, but for the request fields
//                (`retire_requested`, `cancel_lease`, `poked`), which others set.
//   LeaseStatistics, one for each backend slot: that backend.
//   ResourceTrack, wherever it lies: the statistician, but for `raised`.
//
// Times are microseconds of CLOCK_MONOTONIC unless a name says `_at` (then they
// are PostgreSQL's TimestampTz: microseconds since 2000-01-01, UTC).

#ifndef SLUICE_CORE_POOL_SHARED_STATE_HPP
#define SLUICE_CORE_POOL_SHARED_STATE_HPP

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "core/accept/client_address.hpp"
#include "core/accept/tls_facts.hpp"
#include "core/auth/name_lookup.hpp"
#include "core/pool/wait_queue.hpp"
#include "core/session/pin.hpp"
#include "core/stats/application_table.hpp"
#include "core/stats/error_table.hpp"
#include "core/stats/event_log.hpp"
#include "core/stats/histogram.hpp"
#include "core/stats/history_ring.hpp"
#include "core/stats/lease_statistics.hpp"
#include "core/stats/pressure.hpp"
#include "core/stats/published.hpp"
#include "core/stats/resource_track.hpp"
#include "core/tuning/knee_facts.hpp"

namespace sluice {

constexpr std::size_t kNameLength = 64;  // NAMEDATALEN, asserted in src/pg/shared_memory.cpp
constexpr std::uint32_t kNoIndex = 0x00ffffff;  // "no backend", "no pool"
constexpr std::size_t kCacheLine = 64;

static_assert(std::atomic<std::uint64_t>::is_always_lock_free);
static_assert(std::atomic<std::int64_t>::is_always_lock_free);
static_assert(std::atomic<std::uint32_t>::is_always_lock_free);

// ---------------------------------------------------------------- clients

//            accept                       no backend sleeps
//   free ──────────► authenticating ─────────────────────────► ready
//    ▲                 │   │    └── greeted without ──► idle ──┘ │ take from the queue
//    │ refused         │   │       a backend           ▲  │  drained
//    ├─────────────────┘   │ assigned      give back   │  │ epoll event
//    │                     └───────────────────────► leased ◄────┘
//    │ forgotten                                       │
//    └── closing ◄─────────────────────────────────────┘   (and from idle, ready)
enum class ClientState : std::uint8_t {
  free = 0,
  authenticating,  // the dispatcher reads and writes the socket
  ready,           // has something to do; stands in the pool's wait queue
  leased,          // one backend reads and writes the socket
  idle,            // armed in the pool's epoll set, or left to the dispatcher's; nobody touches the socket
  closing,         // socket shut down; waits for the dispatcher to forget it
};

// The truth about a client, in one word:
// generation (32 bits), backend (24), state (8).  The generation grows each time
// a slot is given to a new client, so that events, queue entries and copies of
// descriptors that outlived their client are recognised.
struct ClientWord {
  std::uint32_t generation = 0;
  std::uint32_t backend = kNoIndex;  // meaningful while leased
  ClientState state = ClientState::free;

  constexpr std::uint64_t pack() const noexcept {
    return (static_cast<std::uint64_t>(generation) << 32) |
           (static_cast<std::uint64_t>(backend & 0x00ffffff) << 8) | static_cast<std::uint64_t>(state);
  }
  static constexpr ClientWord unpack(std::uint64_t word) noexcept {
    return ClientWord{static_cast<std::uint32_t>(word >> 32), static_cast<std::uint32_t>((word >> 8) & 0x00ffffff),
                      static_cast<ClientState>(word & 0xff)};
  }
};

// A client as queue entries, epoll events and control messages name it.
struct ClientRef {
  std::uint32_t slot = 0;
  std::uint32_t generation = 0;

  constexpr std::uint64_t pack() const noexcept { return (static_cast<std::uint64_t>(generation) << 32) | slot; }
  static constexpr ClientRef unpack(std::uint64_t packed) noexcept {
    return ClientRef{static_cast<std::uint32_t>(packed), static_cast<std::uint32_t>(packed >> 32)};
  }
};

// bits of ClientSlot::flags
constexpr std::uint32_t kClientGreeted = 1u << 0;   // has got its first ReadyForQuery
constexpr std::uint32_t kClientVanished = 1u << 1;  // the peer has closed its end
constexpr std::uint32_t kClientHeld = 1u << 2;      // keeps its backend between transactions (session mode)
constexpr std::uint32_t kClientToLeave = 1u << 3;   // is to be disconnected (disconnect_client)
constexpr std::uint32_t kClientInSet = 1u << 4;     // has been added to the pool's epoll set
constexpr std::uint32_t kClientUncounted = 1u << 5;  // greeted by the dispatcher; pg_stat_database has not counted it
constexpr std::uint32_t kClientHungUp = 1u << 6;     // its hang-up was reported, and something is left to be read
constexpr std::uint32_t kClientUnqueued = 1u << 7;   // ready, but the wait queue was full
constexpr std::uint32_t kClientUsedTemporary = 1u << 8;  // has used the temporary schema, of whichever backend
constexpr std::uint32_t kClientTls = 1u << 9;             // encrypted; see SharedState::tls
constexpr std::uint32_t kClientKernelTls = 1u << 10;      // by the kernel
constexpr std::uint32_t kClientSocketLost = 1u << 11;    // closing, because its backend could not get its socket
constexpr std::uint32_t kClientPinsToldShift = 16;       // from here on: the pins there has been an event of, pin_bit()
static_assert(kClientPinsToldShift + kPinReasonCount <= 32);

struct alignas(kCacheLine) ClientSlot {
  std::atomic<std::uint64_t> word;               // ClientWord
  std::atomic<std::uint32_t> pool;               // index, kNoIndex until authenticated
  std::atomic<std::uint32_t> flags;              // kClient...
  std::atomic<std::int64_t> state_since_us;      // when `word` last changed state (coarse clock)
  std::atomic<std::int64_t> ready_since_us;      // when it was found ready; 0 when it is not waiting
  std::atomic<std::uint64_t> transactions;       // finished ones, this client
  std::atomic<std::uint64_t> waited_us;          // in the wait queue, summed
  std::int64_t connected_at;                     // TimestampTz
  std::atomic<std::uint32_t> thoughts;           // transactions it is taken for one that thinks for, see nested_acquire
  std::atomic<std::uint32_t> cancel_pid;         // as told in BackendKeyData
  std::atomic<std::uint32_t> cancel_key;
  std::uint64_t startup_settings;                // dsa_pointer, 0 = none; see pg/session/client_settings
  std::uint64_t statements;                      // dsa_pointer to the list of prepared statements, 0 = none
  std::uint64_t unnamed_statement;               // dsa_pointer to a statement, 0 = none
  std::uint64_t session_settings;                // dsa_pointer, 0 = none; see pg/session/session_settings
  std::uint64_t told_parameters;                 // which values of reported parameters lie below its own settings
  std::uint64_t sequences;                       // dsa_pointer, 0 = none; see pg/session/sequences
  std::atomic<std::int64_t> pinned_since_us;     // coarse clock; 0 while it is not pinned
  std::atomic<std::uint32_t> pins;               // pin_bit(PinReason), while it is pinned
  std::atomic<std::uint32_t> last_backend;       // that gave it back last, kNoIndex = none (debug_force_switch)
  std::atomic<std::int32_t> idle_session_timeout_ms;  // its own SET; -1 = that of the pool
  std::atomic<std::uint32_t> memory_bytes;       // of the client area, kept for it; see pg/session/client_store
  std::atomic<std::uint32_t> socket_options;     // in force on its socket; see pg/session/socket_options
  std::int32_t peer_pid;                              // its process, through a Unix socket; 0 = unknown
  ClientAddress address;
  ClientAddress server_address;                  // the end of ours it connected to
  char application_name[kNameLength];            // of the start-up packet
};
static_assert(sizeof(ClientSlot) <= 256, "an idle client must stay cheap");
static_assert(std::is_standard_layout_v<ClientSlot> && std::is_trivially_destructible_v<ClientSlot>);

// ---------------------------------------------------------------- pools

enum class PoolMode : std::int32_t { transaction = 0, session = 1, statement = 2 };

// What a new client of the pool is told; see pg/pool/quick_greeting.cpp.
struct PoolGreeting {
  std::atomic<std::uint32_t> version;  // odd while it is written
  std::atomic<std::uint32_t> length;   // 0 = not published
  std::uint64_t role_setting_changes;  // of the backend that wrote it
  std::uint64_t parameters;            // for ClientSlot::told_parameters
  char application_name[kNameLength];  // of clients that bring none
  char text[1024];                     // ParameterStatus messages
};

enum class PoolState : std::uint32_t { free = 0, open };

// bits of PoolSlot::own_settings: not the server's, but of the role or the database
constexpr std::uint32_t kOwnMode = 1u << 0;
constexpr std::uint32_t kOwnMinSize = 1u << 1;
constexpr std::uint32_t kOwnMaxSize = 1u << 2;
constexpr std::uint32_t kOwnAcquireTimeout = 1u << 3;
constexpr std::uint32_t kOwnIdleTimeout = 1u << 4;
constexpr std::uint32_t kOwnMaxLifetime = 1u << 5;
constexpr std::uint32_t kOwnLeakThreshold = 1u << 6;

struct alignas(kCacheLine) PoolSlot {
  std::atomic<std::uint32_t> state;       // PoolState
  std::atomic<std::uint32_t> generation;  // grows each time the slot is given to a new (database, role)
  std::uint32_t database_oid;
  std::uint32_t role_oid;
  std::atomic<std::uint32_t> superuser;   // is the role one? as of the latest login
  char database[kNameLength];
  char role[kNameLength];
  std::int64_t created_at;  // TimestampTz

  // Settings as the newest backend of the pool saw them (ALTER ROLE and ALTER
  // DATABASE included), or the server-wide ones until there is a backend.
  std::atomic<std::int32_t> mode;                // PoolMode
  std::atomic<std::int32_t> min_size;
  std::atomic<std::int32_t> configured_max_size;  // sluice.max_pool_size; -1 = the sizing rule
  std::atomic<std::int32_t> max_size;            // resolved by the dispatcher: never -1
  std::atomic<std::int32_t> acquire_timeout_ms;  // 0 = no limit
  std::atomic<std::int32_t> idle_timeout_ms;     // 0 = never
  std::atomic<std::int32_t> max_lifetime_ms;     // 0 = never
  std::atomic<std::int32_t> leak_threshold_ms;   // 0 = never
  std::atomic<std::int32_t> idle_session_timeout_ms;  // PostgreSQL's own; 0 = never
  std::atomic<std::int32_t> idle_transaction_timeout_ms;  // idle_in_transaction_session_timeout; 0 = never
  std::atomic<std::uint32_t> own_settings;            // kOwn...: what a reload of the server's settings leaves alone
  // How often ALTER ROLE or ALTER DATABASE ... SET has changed what a session of
  // this role in this database starts with; see pg/pool/role_settings.
  std::atomic<std::uint64_t> role_setting_changes;

  // Gauges (snapshots).
  std::atomic<std::int32_t> clients;    // authenticated clients of this pool
  std::atomic<std::int32_t> backends;   // started or starting
  std::atomic<std::int32_t> starting;   // of these, not ready yet
  std::atomic<std::int32_t> thinking;   // of these, client's turn inside a transaction
  std::atomic<std::int32_t> pinned;     // of these, pinned client's turn outside a transaction

  // Probably a deadlock of an application with itself; see core/pool/nested_acquire.
  std::atomic<std::int64_t> nested_since_us;  // monotonic; 0 = none seen
  std::atomic<std::int64_t> nested_until_us;  // monotonic; until then the queue may be served by preference
  std::atomic<std::int32_t> nested_threads;   // Tn, the most that were seen since the statistics were reset
  std::atomic<std::int32_t> nested_minimum;   // Tn * (Cm - 1) + 1 for these

  // Hand-over; see pg/pool/lease.cpp for the races and their answers.
  alignas(kCacheLine) std::atomic<std::int32_t> waiters;  // backends asleep in the epoll set
  std::atomic<std::int32_t> lingerers;                    // backends staying on an idle client
  alignas(kCacheLine) std::atomic<std::int32_t> armed;    // idle clients: in the epoll set, or at the door
  std::atomic<std::int32_t> queued;                       // clients in the wait queue
  std::atomic<std::uint32_t> watched;                     // 1 while the dispatcher ticks for this pool
  std::atomic<std::int64_t> drained_us;                   // when it last moved ready clients into the queue

  // Counters since `statistics_since_at`.  What happens in every transaction is
  // counted by the backends (LeaseStatistics); see core/stats/pool_totals.
  alignas(kCacheLine) std::atomic<std::uint64_t> acquire_timeouts;
  std::atomic<std::uint64_t> starts;             // backends started
  std::atomic<std::uint64_t> start_failures;
  std::atomic<std::uint64_t> starts_elided;      // growth asked for and found needless
  std::atomic<std::uint64_t> retirements;
  std::atomic<std::uint64_t> clients_total;
  std::atomic<std::uint64_t> cancels;
  std::atomic<std::uint64_t> clients_lost;       // vanished inside a transaction or a result
  std::atomic<std::uint64_t> pins[kPinReasonCount];  // clients pinned for this reason, by PinReason
  std::atomic<std::uint64_t> pins_refused;       // sluice.on_session_state = error
  std::atomic<std::uint64_t> pin_timeouts;       // clients ended by sluice.pin_timeout
  std::atomic<std::uint64_t> leaks;              // holds longer than sluice.leak_threshold while others waited
  std::atomic<std::uint64_t> nested_acquires;    // times all backends were held by clients that waited for another
  std::atomic<std::int32_t> peak_waiting;
  std::atomic<std::int32_t> peak_backends;
  // Inside the second that is under way; the statistician takes them and begins
  // anew.  Raised by whoever makes them grow; see note_waiting(), note_use().
  std::atomic<std::int32_t> second_peak_waiting;
  std::atomic<std::int32_t> second_peak_in_use;
  std::atomic<std::int64_t> statistics_since_at;  // TimestampTz
  std::atomic<std::uint32_t> flush_requests;      // see pg/session/statistics
  std::atomic<std::uint32_t> statistics_epoch;    // never 0; see core/stats/lease_statistics.hpp
  std::atomic<std::uint32_t> folds;               // odd while the dispatcher adds to `retired`
  std::atomic<std::uint32_t> retired_epoch;       // of the numbers in `retired`
  LeaseTotals retired;                            // of backends that have ended; by the dispatcher
  Histogram start_us;                             // a backend's start: asked for until it joined
  Histogram authentication_us;                    // a client's way from accept to here
  Published<KneeFacts> knee;                      // by the statistician

  // Of this generation.
  alignas(kCacheLine) ResourceTrack slots_in_use;
  ResourceTrack waiting;

  PoolGreeting greeting;
  WaitQueueStorage wait_queue;
};
static_assert(std::is_standard_layout_v<PoolSlot> && std::is_trivially_destructible_v<PoolSlot>);

inline bool is_open(const PoolSlot &pool) noexcept {
  return pool.state.load() == static_cast<std::uint32_t>(PoolState::open);
}

// Only loads, unless there is a new peak.
inline void raise_peak(std::atomic<std::int32_t> &peak, std::int32_t value) noexcept {
  std::int32_t seen = peak.load(std::memory_order_relaxed);
  while (value > seen && !peak.compare_exchange_weak(seen, value, std::memory_order_relaxed)) {
  }
}

// Backends that neither start nor sleep nor linger.  Adds up gauges that change
// meanwhile: one on its way between two of them may count, or not.
inline std::int32_t backends_in_use(const PoolSlot &pool) noexcept {
  const std::int32_t in_use = pool.backends.load(std::memory_order_relaxed) -
                              pool.starting.load(std::memory_order_relaxed) -
                              pool.waiters.load(std::memory_order_relaxed) -
                              pool.lingerers.load(std::memory_order_relaxed);
  return in_use > 0 ? in_use : 0;
}

// By the dispatcher, after it has queued clients.
inline void note_waiting(PoolSlot &pool) noexcept {
  const std::int32_t waiting = pool.queued.load(std::memory_order_relaxed);
  raise_peak(pool.peak_waiting, waiting);
  raise_peak(pool.second_peak_waiting, waiting);
}

// By a backend that has got work after it slept or lingered.
inline void note_use(PoolSlot &pool) noexcept { raise_peak(pool.second_peak_in_use, backends_in_use(pool)); }

// ---------------------------------------------------------------- backends

enum class BackendState : std::uint32_t {
  free = 0,
  starting,   // registered; not yet connected to its database
  waiting,    // asleep in the pool's epoll set
  assigned,   // the dispatcher has leased a new client to it and woken it
  lingering,  // stays on its last client, ready to be called away
  active,     // executes for its client
  thinking,   // its client's turn, inside a transaction
  held,       // its client's turn, outside a transaction, but kept (session mode)
  pinned,     // the same in transaction mode, because of session state that cannot be carried
  retiring,   // told to leave, or leaving
  failed,     // could not start; failure_message says why
};

constexpr std::size_t kFailureLength = 256;

struct alignas(kCacheLine) BackendSlot {
  std::atomic<std::uint32_t> state;       // BackendState
  std::atomic<std::uint32_t> generation;  // grows with each new process in this slot
  std::atomic<std::int32_t> pid;          // 0 until it runs
  std::atomic<std::uint32_t> pool;
  std::atomic<std::uint32_t> process;     // index of its PGPROC + 1; 0 = none yet
  std::atomic<std::uint32_t> client;            // slot it leases, kNoIndex if none
  std::atomic<std::uint32_t> client_generation;
  std::atomic<std::uint64_t> lease;             // number of its current or last lease
  std::atomic<std::int64_t> state_since_us;     // coarse clock, or the fine one
  std::atomic<std::int64_t> lease_since_us;     // likewise
  // The hold under way, on the fine clock; see pg/session/lease_clock.  All 0 while
  // nothing is timed.
  std::atomic<std::int64_t> hold_since_us;
  std::atomic<std::int64_t> active_since_us;    // 0 = not executing
  std::atomic<std::int64_t> thinking_since_us;  // 0 = not the client's turn inside a transaction
  std::atomic<std::int64_t> transaction_since_us;  // of the transaction under way, or the latest of the hold
  std::atomic<std::uint64_t> hold_active_us;    // finished parts of this hold
  std::atomic<std::uint64_t> hold_thinking_us;
  std::atomic<std::int64_t> started_at;         // TimestampTz
  std::atomic<std::int64_t> start_requested_us;
  std::atomic<std::int64_t> expires_us;         // max_lifetime with jitter; 0 = never
  std::atomic<std::int64_t> leaked_transaction_us;  // transaction_since_us of the latest one reported as a leak
  std::atomic<std::uint64_t> transactions;
  std::atomic<std::uint32_t> notifier;          // cancel_pid of the client that sent its last NOTIFY, 0 = none
  std::atomic<std::uint32_t> flushes;           // the last of the pool's flush_requests it has obeyed
  std::atomic<std::uint64_t> role_setting_changes;  // of the pool, before this process was asked for

  // Set by others, followed by SIGUSR2.
  std::atomic<std::uint32_t> retire_requested;  // RetireReason, 0 = none
  std::atomic<std::uint32_t> poked;             // come back to the epoll set
  std::atomic<std::uint64_t> cancel_lease;      // cancel the query of this lease number
  std::atomic<std::uint64_t> vanished_lease;    // the client of this lease number has gone
  std::atomic<std::uint64_t> leave_lease;       // end the client of this lease number (disconnect_client)
  std::atomic<std::uint64_t> assigned_client;   // ClientRef, while the state is `assigned`

  // Why it could not start; written by the starting process before it exits.
  char failure_sqlstate[8];
  char failure_message[kFailureLength];
};
static_assert(std::is_standard_layout_v<BackendSlot> && std::is_trivially_destructible_v<BackendSlot>);

// What the dispatcher tells a backend that it asks the postmaster for.
struct BackendOrder {
  std::uint32_t generation;  // of its slot
  bool for_established;      // the pool has clients that have been let in before
};
static_assert(std::is_trivially_copyable_v<BackendOrder>);

// ---------------------------------------------------------------- sizing inputs

// What the statistician found out about the machine.  Written by it alone,
// under `version` as a sequence lock (odd while being written).
struct MachineFacts {
  std::atomic<std::uint32_t> version;
  std::atomic<std::int32_t> logical_cpus;      // inside the affinity mask
  std::atomic<std::int32_t> physical_cores;    // inside the affinity mask
  std::atomic<double> quota_cores;             // cgroup CPU quota in cores; < 0 = none
  std::atomic<double> cores;                   // what the rule uses
  std::atomic<std::int32_t> spindles;          // rotational leaf disks; -1 = unknown
  std::atomic<double> miss_ratio;              // buffer reads / (reads + hits); < 0 = unknown
  std::atomic<std::int32_t> rule_size;         // cores * 2 + effective spindles, at least 1
  char spindles_reason[400];                   // which devices, or why unknown
  char cores_reason[400];                      // which limit binds, and what could not be read
};

// ---------------------------------------------------------------- the whole

struct alignas(kCacheLine) SharedHeader {
  std::uint32_t max_clients;
  std::uint32_t max_backends;   // that may run at a time, but for the reserve
  std::uint32_t backend_slots;  // max_backends and sluice.nested_reserve
  std::uint32_t max_pools;
  std::uint32_t max_applications;
  std::uint32_t history_seconds;
  std::uint32_t descriptor_base;  // client slot i has descriptor base + i in every process
  std::atomic<std::int32_t> dispatcher_pid;
  std::atomic<std::int32_t> dispatcher_epoll;  // a descriptor number of the dispatcher; for watch_for_goodbye()
  std::atomic<std::uint32_t> dispatcher_epoch;  // grows each time a dispatcher starts
  // Asks the dispatcher to look at all clients at once: raise it, then SIGUSR2.  It
  // has done so, and let in whom it was about to, when `looks` has caught up.
  std::atomic<std::uint32_t> look_requests;
  std::atomic<std::uint32_t> looks;
  std::atomic<std::int32_t> statistician_pid;
  std::atomic<std::int32_t> port;               // listening; 0 = not
  std::atomic<std::int32_t> clients;            // slots in use
  std::atomic<std::int32_t> unauthenticated;
  std::atomic<std::int32_t> backends;           // slots in use
  std::atomic<std::uint64_t> connections_total;
  std::atomic<std::uint64_t> connections_refused;
  std::atomic<std::uint64_t> authentication_failures;
  std::atomic<std::uint64_t> protocol_violations;
  std::atomic<std::int64_t> started_at;
  std::atomic<std::uint32_t> role_settings_prepared;  // 1 once a prepared transaction has changed some
  std::atomic<std::int64_t> client_memory_bytes;      // given out of the client area
  std::atomic<std::uint32_t> resource_resets;         // ResourceEra::resets of all tracks
  std::atomic<std::int64_t> resources_since_at;       // when they were reset; 0 = never
  ResourceTrack resources[kServerResources];          // by Resource
  MachineFacts machine;
  std::atomic<std::int32_t> calibration_pid;      // who runs sluice.calibrate(); 0 = nobody, of a dead process too
  std::atomic<std::uint32_t> calibrations_guard;  // 1 while somebody writes one of the next
  Published<CalibrationFacts> calibrations[kCalibrationSlots];  // at the database's OID modulo their number
};
static_assert(std::is_standard_layout_v<SharedHeader> && std::is_trivially_destructible_v<SharedHeader>);

// How many there are of everything.
struct SharedSizes {
  std::size_t clients = 0;
  std::size_t backends = 0;  // slots, the reserve included
  std::size_t pools = 0;
  std::size_t events = 0;
  std::size_t applications = 0;
  std::size_t history_seconds = 0;
};

// Where everything lies.  Pointers of this process; never stored in the segment.
struct SharedState {
  SharedHeader *header = nullptr;
  ClientSlot *clients = nullptr;            // [header->max_clients]
  BackendSlot *backends = nullptr;          // [header->backend_slots]
  PoolSlot *pools = nullptr;                // [header->max_pools]
  LeaseStatistics *statistics = nullptr;    // [header->backend_slots]
  ApplicationSlot *applications = nullptr;  // [header->max_applications]
  ErrorTable *errors = nullptr;
  EventLog *events = nullptr;
  NameBoard *names = nullptr;
  TlsFacts *tls = nullptr;       // [header->max_clients], of clients with kClientTls
  std::byte *history = nullptr;  // [header->max_pools] times history_ring_bytes(header->history_seconds), maybe 0

  HistoryRing *history_ring(std::size_t index) const noexcept {
    return reinterpret_cast<HistoryRing *>(history + index * history_ring_bytes(header->history_seconds));
  }
};

// What follows it is aligned as it is.
constexpr std::size_t kNameBoardBytes = (sizeof(NameBoard) + kCacheLine - 1) / kCacheLine * kCacheLine;

constexpr std::size_t shared_state_bytes(const SharedSizes &sizes) noexcept {
  return sizeof(SharedHeader) + sizes.clients * sizeof(ClientSlot) + sizes.backends * sizeof(BackendSlot) +
         sizes.pools * sizeof(PoolSlot) + sizes.backends * sizeof(LeaseStatistics) +
         sizes.applications * sizeof(ApplicationSlot) + sizeof(ErrorTable) + event_log_bytes(sizes.events) +
         kNameBoardBytes + sizes.clients * sizeof(TlsFacts) + sizes.pools * history_ring_bytes(sizes.history_seconds) + kCacheLine;
}

// Lays the parts out in `memory` (aligned to kCacheLine, shared_state_bytes()
// long).  Does not initialise anything.
inline SharedState lay_out(void *memory, const SharedSizes &sizes) noexcept {
  SharedState state;
  auto *next = static_cast<std::byte *>(memory);
  const auto take = [&next](std::size_t bytes) noexcept {
    std::byte *part = next;
    next += bytes;
    return part;
  };
  state.header = reinterpret_cast<SharedHeader *>(take(sizeof(SharedHeader)));
  state.clients = reinterpret_cast<ClientSlot *>(take(sizes.clients * sizeof(ClientSlot)));
  state.backends = reinterpret_cast<BackendSlot *>(take(sizes.backends * sizeof(BackendSlot)));
  state.pools = reinterpret_cast<PoolSlot *>(take(sizes.pools * sizeof(PoolSlot)));
  state.statistics = reinterpret_cast<LeaseStatistics *>(take(sizes.backends * sizeof(LeaseStatistics)));
  state.applications = reinterpret_cast<ApplicationSlot *>(take(sizes.applications * sizeof(ApplicationSlot)));
  state.errors = reinterpret_cast<ErrorTable *>(take(sizeof(ErrorTable)));
  state.events = reinterpret_cast<EventLog *>(take(event_log_bytes(sizes.events)));
  state.names = reinterpret_cast<NameBoard *>(take(kNameBoardBytes));
  state.tls = reinterpret_cast<TlsFacts *>(take(sizes.clients * sizeof(TlsFacts)));
  state.history = take(sizes.pools * history_ring_bytes(sizes.history_seconds));
  return state;
}

}  // namespace sluice

#endif
