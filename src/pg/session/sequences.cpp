// SPDX-License-Identifier: PostgreSQL
//
// The server's table and how it is reached
//
//   commands/sequence.c has a hash table of SeqTableData, found by relation, and
//   a pointer to the entry that was last used; both static.  The table lives in
//   a memory context of its own that bears its name, and the name stands right
//   behind the table's control structure: so it can be found, and is then read
//   and written through the server's own functions for hash tables.  The layout
//   of an entry is the same in all versions this is built for (15 to 18).  It is
//   private all the same: each backend compares a fresh table and a fresh entry
//   with what is expected (`is_as_expected`), and carries nothing if they differ.
//
// The pointer to the last used entry
//
//   cannot be reached, but the entry it points to can be given another key
//   without being moved (hash_update_hash_key).  That entry is called the anchor.
//   Once there is one, lastval() is made to be about any sequence, or about none
//   by a key that no relation has: the server then says that lastval is not yet
//   defined.
//   - To get the first anchor, nextval() is called for an entry that claims to
//     have fetched one value ahead, which is the one wanted: the server takes
//     it, and touches the sequence itself in no way.
//   - To learn the anchor when another sequence may have become the last used
//     one, each entry gets its index as value while lastval() is called.
//
// What a client has used
//
//   Every function marks the entry with the local transaction it runs in.  The
//   marks are removed here, so an entry with a mark was used since.
//
// DISCARD SEQUENCES destroys the table; a callback of its memory context tells.
// A table found later was made by the server for the client of this lease.

#include "pg/compat.hpp"

#include "pg/session/sequences.hpp"

extern "C" {
#include "access/relation.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "commands/sequence.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "nodes/memnodes.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/dsa.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
}

#include "core/session/sequence_values.hpp"
#include "pg/session/client_store.hpp"
#include "pg/session/session.hpp"
#include "pg/shared_memory.hpp"

namespace sluice::pg {

// SeqTableData of the server.
struct ServerEntry {
  Oid relation;  // the key
  Oid file;
  LocalTransactionId transaction;  // that used it last; 0 here: not since the last look
  bool has_value;
  std::int64_t last;
  std::int64_t cached;
  std::int64_t increment;
};
static_assert(sizeof(ServerEntry) == 40 && offsetof(ServerEntry, last) == 16);

// The name the server gives its table, and its context.
constexpr const char *kTableName = "Sequence values";
// Key of an anchor that is about nothing: no relation has it.
constexpr Oid kNoRelation = InvalidOid;
// A table that has grown beyond this is not worth being emptied entry by entry.
constexpr long kLargeTable = 4 * static_cast<long>(kMaxSequences);

static bool can_carry = false;
static HTAB *table = nullptr;           // nullptr: none, or one that has not been looked for
static ServerEntry *anchor = nullptr;   // nullptr: no sequence was ever the last used one of this table
static bool is_consistent = true;       // false: `anchor` may be wrong
static MemoryContextCallback end_of_table;

// The client whose values are in the table, unmarked, since it parted.
struct Resident {
  std::uint64_t client = 0;
  std::uint64_t version = 0;
};
static Resident resident;

// ------------------------------------------------------------------ finding the table

extern "C" {

static void forget_table(void *) {
  table = nullptr;
  anchor = nullptr;
  is_consistent = true;
  resident = Resident{};
}

}  // extern "C"

static MemoryContext find_context() {
  for (MemoryContext context = TopMemoryContext->firstchild; context != nullptr; context = context->nextchild)
    if (context->ident != nullptr && strcmp(context->ident, kTableName) == 0 &&
        strcmp(context->name, "dynahash") == 0)
      return context;
  return nullptr;
}

// The control structure ends where the name begins.  It holds, one after the other, two pointers, the hash function,
// three more functions, the memory context and the name.
static HTAB *control_structure_of(MemoryContext context) {
  constexpr int kFarthest = 24;  // pointers to look at: twice its size
  constexpr int kHash = 2, kContext = 6, kName = 7;
  void *const *const end = reinterpret_cast<void *const *>(context->ident);

  if (reinterpret_cast<std::uintptr_t>(end) % alignof(void *) != 0) return nullptr;
  for (int back = kName + 1; back <= kFarthest; back++) {
    void *const *word = end - back;
    if (word[kName] == end && word[kContext] == context && word[kHash] == reinterpret_cast<void *>(&uint32_hash))
      return reinterpret_cast<HTAB *>(const_cast<void **>(word));
  }
  return nullptr;
}

// A table that the server has made since.  What its last used entry is, is not known.
static bool adopt_table(MemoryContext context) {
  if (context == nullptr) return false;
  table = control_structure_of(context);
  if (table == nullptr) return false;
  end_of_table.func = forget_table;
  end_of_table.arg = nullptr;
  MemoryContextRegisterResetCallback(context, &end_of_table);
  anchor = nullptr;
  return true;
}

static LocalTransactionId current_transaction() {
  VirtualTransactionId transaction;
  GET_VXID_FROM_PGPROC(transaction, *MyProc);
  return transaction.localTransactionId;
}

// ------------------------------------------------------------------ making the table

// The server makes it when it is first asked for a sequence, even if that does not exist.
static void ask_for_nothing() {
  const MemoryContext context = CurrentMemoryContext;
  const ResourceOwner owner = CurrentResourceOwner;
  const uint32 interrupts_held = InterruptHoldoffCount, cancels_held = QueryCancelHoldoffCount;

  BeginInternalSubTransaction(nullptr);
  PG_TRY();
  {
    (void)OidFunctionCall1(F_CURRVAL, ObjectIdGetDatum(kNoRelation));
  }
  PG_CATCH();
  {
    MemoryContextSwitchTo(context);
    FlushErrorState();
    // The error has let go of what the caller holds.
    InterruptHoldoffCount = interrupts_held;
    QueryCancelHoldoffCount = cancels_held;
  }
  PG_END_TRY();
  RollbackAndReleaseCurrentSubTransaction();
  MemoryContextSwitchTo(context);
  CurrentResourceOwner = owner;
}

static ServerEntry *enter(Oid relation) {
  bool found;
  return static_cast<ServerEntry *>(hash_search(table, &relation, HASH_ENTER, &found));
}

static void remove(Oid relation) { (void)hash_search(table, &relation, HASH_REMOVE, nullptr); }

// A table that has just been asked for kNoRelation.  The elements of a new table lie side by side, each behind a link
// and a hash value.
static bool is_as_expected() {
  constexpr std::ptrdiff_t kElementBytes = 16 + sizeof(ServerEntry);
  const Oid key = kNoRelation;

  if (hash_get_num_entries(table) != 1) return false;
  const auto *entry = static_cast<ServerEntry *>(hash_search(table, &key, HASH_FIND, nullptr));
  if (entry == nullptr || entry->relation != kNoRelation || entry->file != 0 ||
      entry->transaction != current_transaction() || entry->has_value || entry->last != 0 || entry->cached != 0)
    return false;
  const auto *next = enter(FirstNormalObjectId);
  const std::ptrdiff_t distance = reinterpret_cast<const char *>(next) - reinterpret_cast<const char *>(entry);
  remove(FirstNormalObjectId);
  return distance == kElementBytes || distance == -kElementBytes;
}

// False, and no table, if it is not as expected.
static bool make_table() {
  StartTransactionCommand();
  ResetSequenceCaches();
  ask_for_nothing();
  const bool usable = adopt_table(find_context()) && is_as_expected();
  if (usable)
    remove(kNoRelation);
  else
    ResetSequenceCaches();
  CommitTransactionCommand();
  return usable;
}

void install_sequence_carrying() {
  can_carry = make_table();
  if (!can_carry)
    ereport(LOG, (errmsg("values of sequences cannot be carried between backends of this server"),
                  errdetail("Clients that use sequences will stay on their backend.")));
}

// ------------------------------------------------------------------ which sequence was last used

struct Survey {
  SequenceMarks marks;
  std::uint32_t values = 0;
};

static bool carries_value(const ServerEntry *entry) { return entry->has_value && entry->relation != kNoRelation; }

static Survey survey_table() {
  Survey survey;
  HASH_SEQ_STATUS scan;

  hash_seq_init(&scan, table);
  while (auto *entry = static_cast<ServerEntry *>(hash_seq_search(&scan))) {
    if (!carries_value(entry)) continue;
    survey.values++;
    survey.marks.see(entry->transaction != 0, entry == anchor);
  }
  return survey;
}

struct Candidate {
  ServerEntry *entry;
  std::int64_t last;
};
static Candidate candidates[kMaxSequences];  // for the time of ask_last_used()

enum class Answer { known, undefined, unknown };

// The server would wait for a lock that it has not got.  It is not worth waiting for: what is asked does not depend on
// the sequence, and whoever locks it out may wait for this client.  The weakest one satisfies the server's assertions.
static void lock_if_possible(Oid relation) { (void)ConditionalLockRelationOid(relation, AccessShareLock); }

// In a transaction, as a superuser.  Each candidate says which one it is.
static std::int64_t ask_lastval(std::uint32_t count) {
  const LocalTransactionId transaction = current_transaction();

  for (std::uint32_t i = 0; i < count; i++) {
    lock_if_possible(candidates[i].entry->relation);
    candidates[i].entry->last = i;
    candidates[i].entry->transaction = transaction;
  }
  return DatumGetInt64(OidFunctionCall0(F_LASTVAL));
}

// An error may come from the server's look at the catalog.  It costs the transaction, never the client or the backend.
static Answer ask_in_transaction(std::uint32_t count) {
  const MemoryContext context = CurrentMemoryContext;
  const uint32 interrupts_held = InterruptHoldoffCount, cancels_held = QueryCancelHoldoffCount;
  volatile Answer answer = Answer::unknown;
  Oid user;
  int security;

  HOLD_INTERRUPTS();
  PG_TRY();
  {
    StartTransactionCommand();
    GetUserIdAndSecContext(&user, &security);
    SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, security | SECURITY_LOCAL_USERID_CHANGE);
    // Nobody could end this process while it waits.
    const bool may_look = ConditionalLockRelationOid(RelationRelationId, AccessShareLock);
    const std::int64_t index = may_look ? ask_lastval(count) : -1;
    SetUserIdAndSecContext(user, security);
    CommitTransactionCommand();
    if (index >= 0 && index < count) {
      anchor = candidates[index].entry;
      answer = Answer::known;
    }
  }
  PG_CATCH();
  {
    MemoryContextSwitchTo(context);
    if (geterrcode() == ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE) answer = Answer::undefined;
    FlushErrorState();
    AbortCurrentTransaction();
  }
  PG_END_TRY();
  MemoryContextSwitchTo(context);
  InterruptHoldoffCount = interrupts_held;
  QueryCancelHoldoffCount = cancels_held;
  return answer;
}

// Undefined: no sequence, or one that has been dropped.
static Answer ask_last_used() {
  HASH_SEQ_STATUS scan;
  std::uint32_t count = 0;

  hash_seq_init(&scan, table);
  while (auto *entry = static_cast<ServerEntry *>(hash_seq_search(&scan)))
    if (carries_value(entry) && (entry->transaction != 0 || entry == anchor))
      candidates[count++] = Candidate{entry, entry->last};
  const Answer answer = ask_in_transaction(count);
  for (std::uint32_t i = 0; i < count; i++) candidates[i].entry->last = candidates[i].last;
  return answer;
}

// ------------------------------------------------------------------ the client's table

static SequenceTable *stored_table(const ClientSlot *slot) {
  return slot->sequences == 0 ? nullptr : static_cast<SequenceTable *>(dsa_get_address(client_area(), slot->sequences));
}

void release_stored_sequences(ClientSlot *slot) { free_for_client(slot, &slot->sequences); }

// With room for `count` values.  nullptr, and the old one stays, if there is no memory.
static SequenceTable *make_room(ClientSlot *slot, std::uint32_t count) {
  SequenceTable *stored = stored_table(slot);
  if (stored != nullptr && stored->capacity >= count) return stored;
  const std::uint32_t capacity = sequence_capacity(count);
  const dsa_pointer made = allocate_for_client(slot, sequence_table_bytes(capacity));
  if (!DsaPointerIsValid(made)) return nullptr;
  release_stored_sequences(slot);
  slot->sequences = made;
  stored = stored_table(slot);
  stored->capacity = capacity;
  return stored;
}

static void note_resident(const SequenceTable *stored) {
  resident.client = session.client_ref.pack();
  resident.version = stored->version;
}

// Removes the marks.
static bool write_table(ClientSlot *slot, std::uint32_t count, bool knows_last_used) {
  HASH_SEQ_STATUS scan;
  SequenceTable *stored = nullptr;

  if (count == 0)
    release_stored_sequences(slot);
  else if ((stored = make_room(slot, count)) == nullptr)
    return false;
  std::uint32_t written = 0;
  hash_seq_init(&scan, table);
  while (auto *entry = static_cast<ServerEntry *>(hash_seq_search(&scan))) {
    entry->transaction = 0;
    if (stored != nullptr && carries_value(entry))
      stored->values[written++] =
          SequenceValue{entry->relation, entry->file, entry->last, entry->cached, entry->increment};
  }
  if (stored == nullptr) return true;
  stored->count = written;
  stored->last_used = knows_last_used && anchor != nullptr ? anchor->relation : kNoRelation;
  // A backend stores the table of a client once for each lease.
  stored->version = (static_cast<std::uint64_t>(session.index) << 40) | session.backend->lease.load();
  note_resident(stored);
  return true;
}

// ------------------------------------------------------------------ parting

// Nothing in it, but for an anchor that is about nothing.
static bool is_empty() {
  return hash_get_num_entries(table) == (anchor == nullptr ? 0 : 1) &&
         (anchor == nullptr || anchor->relation == kNoRelation);
}

static bool store_changes(ClientSlot *slot, bool adopted) {
  const Survey survey = survey_table();
  const SequenceTable *stored = stored_table(slot);
  Answer answer = Answer::known;

  if (!survey.marks.any() && !adopted) {
    if (stored != nullptr) note_resident(stored);
    return true;
  }
  if (survey.values > kMaxSequences) return false;
  if (survey.marks.last_used_may_have_changed()) answer = ask_last_used();
  // The table may have been destroyed by what an error of a transaction brings about.
  if (answer == Answer::unknown || table == nullptr) return false;
  if (!write_table(slot, survey.values, answer == Answer::known)) return false;
  if (answer == Answer::undefined) is_consistent = false;
  return true;
}

bool store_sequences() {
  if (!can_carry) return find_context() == nullptr;
  ClientSlot *slot = session.client;
  const MemoryContext made = table == nullptr ? find_context() : nullptr;

  if (made != nullptr && !adopt_table(made)) return false;
  if (table == nullptr || is_empty()) {
    release_stored_sequences(slot);
    return true;
  }
  if (!store_changes(slot, made != nullptr)) return false;
  if (!is_consistent || hash_get_num_entries(table) > kLargeTable) ResetSequenceCaches();
  return true;
}

// ------------------------------------------------------------------ arriving

static void rename_anchor(Oid relation) {
  if (anchor->relation == relation) return;
  if (!hash_update_hash_key(table, anchor, &relation))
    elog(ERROR, "sequence %u is twice in the table of sequences", relation);
}

static void fill(ServerEntry *entry, const SequenceValue &value) {
  entry->file = value.file;
  entry->transaction = 0;
  entry->has_value = true;
  entry->last = value.last;
  entry->cached = value.cached;
  entry->increment = value.increment;
}

// Takes away what another client has left.  That one may have gone without parting.
static void empty_table() {
  HASH_SEQ_STATUS scan;

  if (table != nullptr && is_consistent && is_empty()) return;
  if (table == nullptr || !is_consistent || survey_table().marks.last_used_may_have_changed()) {
    ResetSequenceCaches();
    return;
  }
  hash_seq_init(&scan, table);
  while (auto *entry = static_cast<ServerEntry *>(hash_seq_search(&scan)))
    if (entry != anchor) remove(entry->relation);
  if (anchor == nullptr) return;
  rename_anchor(kNoRelation);
  fill(anchor, SequenceValue{kNoRelation, 0, 0, 0, 0});
  anchor->has_value = false;
}

// The first one of this table.  None is needed for a sequence that has been dropped: lastval() is undefined without.
static void take_anchor(const SequenceValue &value) {
  StartTransactionCommand();
  XactReadOnly = false;  // nothing is going to be written
  lock_if_possible(value.relation);
  // Held open, it does not change its file meanwhile: nextval() would fetch a value in earnest then.
  const Relation relation = try_relation_open(value.relation, NoLock);
  if (relation != nullptr) {
    if (relation->rd_rel->relkind == RELKIND_SEQUENCE) {
      const SequenceStep step = step_towards(value.last);
      ServerEntry *entry = enter(value.relation);
      fill(entry, SequenceValue{value.relation, relation->rd_rel->relfilenode, step.from, value.last, step.increment});
      entry->transaction = current_transaction();
      if (nextval_internal(value.relation, false) != value.last)
        elog(ERROR, "could not restore the last value of sequence %u", value.relation);
      anchor = entry;
    }
    relation_close(relation, NoLock);
  }
  CommitTransactionCommand();
}

static void read_table(const SequenceTable &stored) {
  if (stored.last_used != kNoRelation) {
    if (anchor == nullptr)
      take_anchor(*find_sequence(stored, stored.last_used));
    else
      rename_anchor(stored.last_used);
  }
  for (std::uint32_t i = 0; i < stored.count; i++) fill(enter(stored.values[i].relation), stored.values[i]);
}

void load_sequences() {
  if (!can_carry) {
    ResetSequenceCaches();
    return;
  }
  const SequenceTable *stored = stored_table(session.client);
  const bool is_here = stored != nullptr && table != nullptr && resident.client == session.client_ref.pack() &&
                       resident.version == stored->version;

  resident = Resident{};
  if (is_here) return;
  empty_table();
  if (stored == nullptr) return;
  if (table == nullptr && !make_table())
    ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not restore the values of sequences")));
  is_consistent = false;  // if one of the following raises
  read_table(*stored);
  is_consistent = true;
}

}  // namespace sluice::pg
