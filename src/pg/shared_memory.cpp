// SPDX-License-Identifier: PostgreSQL
//
// Creates the shared segment.  One piece from the main shared memory:
//
//   SharedState (core/pool/shared_state.hpp) | statement buckets | client area
//
// The client area is a dynamic shared area whose first segment lies in place and
// which grows through dynamic shared memory when clients keep many prepared
// statements.  It is created by the postmaster and pinned, so that it lives as
// long as the segment.

#include "pg/compat.hpp"

extern "C" {
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/dsa.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
}

#include <sys/resource.h>

#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"
#include "pg/stats/history_file.hpp"

namespace sluice::pg {

static_assert(kNameLength == NAMEDATALEN && kApplicationNameLength == NAMEDATALEN &&
              kHistoryNameLength == NAMEDATALEN);

// Room for the start-up settings and statements of a few thousand clients
// before the first dynamic segment is needed.
constexpr Size kClientAreaBytes = 1024 * 1024;
constexpr const char *kTrancheName = "pg_sluice";

// What the segment holds beside SharedState, so that every process finds it.
struct SegmentTail {
  int area_tranche;
  std::uint64_t buckets[kStatementBuckets];
};

static SharedState shared_state;
static SegmentTail *segment_tail = nullptr;
static char *area_place = nullptr;
static dsa_area *area = nullptr;
static LWLockPadded *locks = nullptr;

static shmem_request_hook_type previous_shmem_request_hook = nullptr;
static shmem_startup_hook_type previous_shmem_startup_hook = nullptr;

static SharedSizes configured_sizes() {
  SharedSizes sizes;
  sizes.clients = static_cast<std::size_t>(setting_max_clients);
  sizes.backends = static_cast<std::size_t>(setting_max_backends) + static_cast<std::size_t>(setting_nested_reserve);
  sizes.pools = static_cast<std::size_t>(setting_max_pools);
  sizes.events = static_cast<std::size_t>(setting_max_events);
  sizes.applications = static_cast<std::size_t>(setting_max_applications);
  sizes.history_seconds = static_cast<std::size_t>(setting_history_seconds);
  return sizes;
}

static Size state_bytes() { return CACHELINEALIGN(shared_state_bytes(configured_sizes())); }

static Size segment_bytes() {
  Size bytes = state_bytes();
  bytes = add_size(bytes, CACHELINEALIGN(sizeof(SegmentTail)));
  return add_size(bytes, kClientAreaBytes + PG_CACHE_LINE_SIZE);
}

// Client slots have the same descriptor number in every process: above all that
// PostgreSQL's own file layer may use (max_files_per_process), what libraries open, and
// the dispatcher's own: two for each pool and one for each backend.
static std::uint32_t choose_descriptor_base() {
  const auto below = static_cast<std::uint32_t>(max_files_per_process + 256 + 2 * setting_max_pools +
                                                setting_max_backends + setting_nested_reserve);
  std::uint32_t base = 1024;
  while (base < below) base += 256;
  return base;
}

static void initialize_segment() {
  SharedHeader *header = shared_state.header;
  header->max_clients = static_cast<std::uint32_t>(setting_max_clients);
  header->max_backends = static_cast<std::uint32_t>(setting_max_backends);
  header->backend_slots = static_cast<std::uint32_t>(setting_max_backends + setting_nested_reserve);
  header->max_pools = static_cast<std::uint32_t>(setting_max_pools);
  header->max_applications = static_cast<std::uint32_t>(setting_max_applications);
  header->history_seconds = static_cast<std::uint32_t>(setting_history_seconds);
  shared_state.events->capacity = static_cast<std::uint32_t>(setting_max_events);
  header->descriptor_base = choose_descriptor_base();
  header->started_at.store(GetCurrentTimestamp());
  header->machine.quota_cores.store(-1);
  header->machine.cores.store(1);
  header->machine.spindles.store(-1);
  header->machine.miss_ratio.store(-1);
  header->machine.rule_size.store(2);
  for (std::uint32_t i = 0; i < header->max_clients; i++) {
    shared_state.clients[i].word.store(ClientWord{}.pack());
    shared_state.clients[i].pool.store(kNoIndex);
  }
  for (std::uint32_t i = 0; i < header->backend_slots; i++) {
    shared_state.backends[i].client.store(kNoIndex);
    shared_state.backends[i].pool.store(kNoIndex);
  }
}

static void create_client_area() {
  segment_tail->area_tranche = LWLockNewTrancheId();
  LWLockRegisterTranche(segment_tail->area_tranche, "pg_sluice_clients");
  dsa_area *created = dsa_create_in_place(area_place, kClientAreaBytes, segment_tail->area_tranche, nullptr);
  dsa_pin(created);
  dsa_set_size_limit(created, client_area_limit_bytes());
  // As the statistics system does: the postmaster itself never uses the area.
  dsa_detach(created);
}

extern "C" {

static void sluice_shmem_request() {
  if (previous_shmem_request_hook) previous_shmem_request_hook();
  RequestAddinShmemSpace(segment_bytes());
  RequestNamedLWLockTranche(kTrancheName, kStatementLocks);
}

static void sluice_shmem_startup() {
  bool found;

  if (previous_shmem_startup_hook) previous_shmem_startup_hook();

  LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
  char *segment = static_cast<char *>(ShmemInitStruct("pg_sluice", segment_bytes(), &found));
  segment = reinterpret_cast<char *>(CACHELINEALIGN(segment));
  shared_state = lay_out(segment, configured_sizes());
  segment_tail = reinterpret_cast<SegmentTail *>(segment + state_bytes());
  area_place = reinterpret_cast<char *>(MAXALIGN(segment_tail + 1));
  locks = GetNamedLWLockTranche(kTrancheName);
  if (!found) {
    // The bulk of a fresh segment is zero, and stays untouched until used.
    initialize_segment();
    create_client_area();
  }
  LWLockRelease(AddinShmemInitLock);
  if (!found && !IsUnderPostmaster) keep_history_in_file();
}

}  // extern "C"

std::size_t client_area_limit_bytes() { return static_cast<std::size_t>(setting_client_memory) * 1024 * 1024; }

std::size_t shared_memory_bytes() { return segment_bytes(); }

void request_shared_memory() {
  previous_shmem_request_hook = shmem_request_hook;
  shmem_request_hook = sluice_shmem_request;
  previous_shmem_startup_hook = shmem_startup_hook;
  shmem_startup_hook = sluice_shmem_startup;
}

bool shared_memory_exists() { return shared_state.header != nullptr; }

SharedState &shared() { return shared_state; }

void require_shared_memory() {
  if (!shared_memory_exists())
    ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                    errmsg("pg_sluice must be loaded via \"shared_preload_libraries\""),
                    errhint("Add pg_sluice to shared_preload_libraries in postgresql.conf and restart the server.")));
}

dsa_area *client_area() {
  if (area == nullptr) {
    LWLockRegisterTranche(segment_tail->area_tranche, "pg_sluice_clients");
    MemoryContext caller = MemoryContextSwitchTo(TopMemoryContext);
    area = dsa_attach_in_place(area_place, nullptr);
    dsa_pin_mapping(area);
    MemoryContextSwitchTo(caller);
  }
  return area;
}

std::uint64_t *statement_buckets() { return segment_tail->buckets; }

LWLock *statement_lock(int bucket) { return &locks[bucket % kStatementLocks].lock; }

}  // namespace sluice::pg
