// SPDX-License-Identifier: PostgreSQL
//
// What a client's session knows about sequences, as it is kept between two
// backends: for each sequence that nextval() or setval() has been called for,
// the value currval() gives and the values fetched ahead (CREATE SEQUENCE ...
// CACHE), and which sequence lastval() is about.
//
// One table for each client, in one piece of memory.  It belongs to the client:
// whoever owns the client's slot may touch it, so there is no lock.

#ifndef SLUICE_CORE_SESSION_SEQUENCE_VALUES_HPP
#define SLUICE_CORE_SESSION_SEQUENCE_VALUES_HPP

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace sluice {

// A client that has used more sequences stays on its backend: moving them would
// take longer than most transactions.
constexpr std::uint32_t kMaxSequences = 1000;

struct SequenceValue {
  std::uint32_t relation;   // its OID, never 0
  std::uint32_t file;       // relfilenode as last seen: another one means that fetched values are void
  std::int64_t last;        // what currval() gives
  std::int64_t cached;      // the last value fetched ahead; equal to `last` when there is none
  std::int64_t increment;   // from one fetched value to the next
};

struct SequenceTable {
  std::uint64_t version;    // changes with every change of the table; unique among the tables of this client
  std::uint32_t count;
  std::uint32_t capacity;   // there is room for that many values
  std::uint32_t last_used;  // relation lastval() is about, 0 = none
  std::uint32_t reserved;
  SequenceValue values[1];  // [capacity]; `count` are used
};
static_assert(std::is_standard_layout_v<SequenceTable> && std::is_trivially_destructible_v<SequenceTable>);

// How many values to make room for, so that a table does not move with every
// new sequence: a power of two, or kMaxSequences.  `count` from 1 to kMaxSequences.
std::uint32_t sequence_capacity(std::uint32_t count) noexcept;

// Bytes of a table with room for `capacity` values.
std::size_t sequence_table_bytes(std::uint32_t capacity) noexcept;

// nullptr when the sequence is not in the table.
const SequenceValue *find_sequence(const SequenceTable &table, std::uint32_t relation) noexcept;

// Where a counter has to stand, and which step it has to take, to arrive at
// `value` without overflow.
struct SequenceStep {
  std::int64_t from;
  std::int64_t increment;
};
SequenceStep step_towards(std::int64_t value) noexcept;

// Which sequence lastval() is about is private to the server.  What is known:
// only nextval() changes it, and leaves a mark on the sequence it was called
// for; so do currval(), setval() and lastval().  The marks since the last time
// it was known:
class SequenceMarks {
 public:
  // One sequence that has a value: is it marked, and is it the one that was last used when it was last known?
  void see(bool marked, bool was_last_used) noexcept {
    if (marked && !was_last_used) others_++;
    if (marked) marked_++;
  }
  bool any() const noexcept { return marked_ != 0; }
  // A mark on the one itself changes nothing; one on another may be nextval()'s.
  bool last_used_may_have_changed() const noexcept { return others_ != 0; }

 private:
  std::uint32_t marked_ = 0;
  std::uint32_t others_ = 0;
};

}  // namespace sluice

#endif
