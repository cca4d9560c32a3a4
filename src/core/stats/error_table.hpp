// SPDX-License-Identifier: PostgreSQL
//
// Errors counted by class and SQLSTATE, with the latest message of each.
//
// A table of fixed size with open addressing, written by any process.  Nobody ever
// waits: a row is claimed by compare-and-set on its key, which it keeps until the
// server restarts; numbers are added; times are raised or lowered by
// compare-and-set.  A row whose count is zero is not shown.
//
// The first kErrorClasses rows are not given to keys.  Each stands for the errors
// of one class that found the table full (clients may raise any SQLSTATE they
// like), so that the sum of a class is always right.
//
// The message has a version, odd while it is written.
//   Race: two writers.  Answer: the one that makes the version odd writes; the
//   other leaves the message alone and only counts.
//   Race: a reader beside a writer.  Answer: it compares versions around its copy,
//   tries a few times, and shows the row without a message if that was in vain.
//   The message is written before the error is counted: a row with a count has one.
//
// A writer that never finishes leaves the version odd.  Nobody waits for it: the
// row is counted on, without its message.  It stays so only while the writer is
// stopped.  A writer that dies there does not leave that behind, because between
// the two versions are nothing but stores: no call that can raise, no check for
// interrupts, and the server's signal handlers only set flags.  What ends a
// process there nevertheless (SIGKILL, SIGQUIT, a crash) makes the postmaster
// throw this memory away and begin with a new segment.  To take over from a
// writer that may only be slow would mix two messages of two roles.
//
// A reset stores zeroes while others count on.  An error counted in the same
// moment may be lost, or keep its count and lose its times; then the time of the
// reset stands for them.

#ifndef SLUICE_CORE_STATS_ERROR_TABLE_HPP
#define SLUICE_CORE_STATS_ERROR_TABLE_HPP

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "core/stats/shared_record.hpp"

namespace sluice {

enum class ErrorClass : std::uint32_t {
  authentication = 0,  // a client could not log in
  limit,               // a client was refused because some limit was reached, or the server starts or stops
  acquire_timeout,     // a client waited in vain for a backend
  protocol,            // a client broke the protocol
  statement,           // an error that left the client its connection
  client_end,          // an error that ended an established client
  backend_start,       // a client waited for a backend that could not start
  internal,            // SQLSTATE XX...: should never happen
};

constexpr std::size_t kErrorClasses = 8;

// The name in the view: lower case, underscores ("acquire_timeout").
const char *name_of(ErrorClass error_class) noexcept;

// The class of an error that a client with a backend was told.  `sqlstate`: five
// characters.
ErrorClass class_of_told_error(bool ended_the_client, const char *sqlstate) noexcept;

// The class of an error that a client was told instead of being let in.
ErrorClass class_of_refusal(const char *sqlstate) noexcept;

constexpr std::size_t kErrorSlots = 256;
constexpr std::size_t kErrorMessageLength = 204;

struct ErrorMessage {
  std::uint32_t role_oid;          // whose error it is of; 0 = of somebody who had not logged in
  char text[kErrorMessageLength];  // cut where a character ends; zeroes behind it
};

struct alignas(64) ErrorSlot {
  std::atomic<std::uint64_t> key;  // class and SQLSTATE; 0 = free
  std::atomic<std::uint64_t> count;
  std::atomic<std::int64_t> first_at;  // TimestampTz; 0 = none
  std::atomic<std::int64_t> last_at;
  std::atomic<std::uint32_t> version;  // odd while the message is written
  SharedRecord<ErrorMessage> message;
};

struct alignas(64) ErrorTable {
  std::atomic<std::int64_t> since_at;  // TimestampTz of the last reset; 0 = none yet
  ErrorSlot slots[kErrorSlots];
};
static_assert(std::is_standard_layout_v<ErrorTable> && std::is_trivially_destructible_v<ErrorTable>);
static_assert(kErrorClasses < kErrorSlots);

// A row as found at one moment.
struct ErrorRow {
  ErrorClass error_class = ErrorClass::internal;
  bool others = false;     // of any SQLSTATE for which there was no row
  std::uint32_t code = 0;  // SQLSTATE, as it was given
  std::uint64_t count = 0;
  std::int64_t first_at = 0;
  std::int64_t last_at = 0;  // not before first_at
  bool has_message = false;
  ErrorMessage message = {};
};

// `code`: the SQLSTATE as PostgreSQL packs it, which is opaque here.  `message` may
// be null.  `now_at`: TimestampTz.  Wait-free but for the times, which are lock-free.
void record_error(ErrorTable &table, ErrorClass error_class, std::uint32_t code, std::uint32_t role_oid,
                  const char *message, std::int64_t now_at) noexcept;

// Row `index` (< kErrorSlots); false if there is none.
bool read_error(const ErrorTable &table, std::size_t index, ErrorRow &row) noexcept;

void reset_errors(ErrorTable &table, std::int64_t now_at) noexcept;

}  // namespace sluice

#endif
