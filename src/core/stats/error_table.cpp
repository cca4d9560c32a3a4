// SPDX-License-Identifier: PostgreSQL
#include "core/stats/error_table.hpp"

#include <cstring>

#include "core/stats/cut_text.hpp"

namespace sluice {

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr int kReadAttempts = 8;

constexpr std::uint64_t make_key(ErrorClass error_class, std::uint32_t code) noexcept {
  return (static_cast<std::uint64_t>(code) << 8) | (static_cast<std::uint64_t>(error_class) + 1);
}

// Fibonacci hashing: SQLSTATEs differ in few bits.
constexpr std::size_t first_look(std::uint64_t key) noexcept {
  return static_cast<std::size_t>((key * 0x9e3779b97f4a7c15u) >> 32) % (kErrorSlots - kErrorClasses);
}

// The row of this key, made if there is room; else that for all others of the class.
ErrorSlot &find_slot(ErrorTable &table, ErrorClass error_class, std::uint32_t code) noexcept {
  const std::uint64_t key = make_key(error_class, code);
  const std::size_t start = first_look(key);
  for (std::size_t looks = 0; looks < kErrorSlots - kErrorClasses; looks++) {
    ErrorSlot &slot = table.slots[kErrorClasses + (start + looks) % (kErrorSlots - kErrorClasses)];
    std::uint64_t seen = slot.key.load(kRelaxed);
    // Nothing but the key is published by it: everything else of a new row is zero.
    if (seen == 0 && slot.key.compare_exchange_strong(seen, key, kRelaxed)) {
      return slot;
    }
    if (seen == key) {
      return slot;
    }
  }
  return table.slots[static_cast<std::size_t>(error_class)];
}

void note_times(ErrorSlot &slot, std::int64_t now_at) noexcept {
  std::int64_t seen = slot.first_at.load(kRelaxed);
  while ((seen == 0 || now_at < seen) && !slot.first_at.compare_exchange_weak(seen, now_at, kRelaxed)) {
  }
  seen = slot.last_at.load(kRelaxed);
  while (now_at > seen && !slot.last_at.compare_exchange_weak(seen, now_at, kRelaxed)) {
  }
}

void keep_message(ErrorSlot &slot, std::uint32_t role_oid, const char *text) noexcept {
  std::uint32_t version = slot.version.load(kRelaxed);
  if (version % 2 != 0 || !slot.version.compare_exchange_strong(version, version + 1, std::memory_order_acquire)) {
    return;  // somebody else's is as new
  }
  ErrorMessage message;
  message.role_oid = role_oid;
  (void)copy_cut(message.text, sizeof(message.text), text);
  std::atomic_thread_fence(std::memory_order_release);
  slot.message.store(message);
  slot.version.store(version + 2, std::memory_order_release);
}

bool copy_message(const ErrorSlot &slot, ErrorMessage &message) noexcept {
  for (int attempt = 0; attempt < kReadAttempts; attempt++) {
    const std::uint32_t version = slot.version.load(std::memory_order_acquire);
    if (version % 2 != 0) {
      continue;
    }
    slot.message.load(message);
    std::atomic_thread_fence(std::memory_order_acquire);
    if (slot.version.load(kRelaxed) == version) {
      return message.text[0] != '\0';
    }
  }
  return false;
}

}  // namespace

const char *name_of(ErrorClass error_class) noexcept {
  switch (error_class) {
    case ErrorClass::authentication:
      return "authentication";
    case ErrorClass::limit:
      return "limit";
    case ErrorClass::acquire_timeout:
      return "acquire_timeout";
    case ErrorClass::protocol:
      return "protocol";
    case ErrorClass::statement:
      return "statement";
    case ErrorClass::client_end:
      return "client_end";
    case ErrorClass::backend_start:
      return "backend_start";
    case ErrorClass::internal:
      return "internal";
  }
  return "unknown";
}

ErrorClass class_of_told_error(bool ended_the_client, const char *sqlstate) noexcept {
  if (std::strncmp(sqlstate, "XX", 2) == 0) {
    return ErrorClass::internal;
  }
  if (std::strncmp(sqlstate, "08P01", 5) == 0) {
    return ErrorClass::protocol;
  }
  return ended_the_client ? ErrorClass::client_end : ErrorClass::statement;
}

ErrorClass class_of_refusal(const char *sqlstate) noexcept {
  if (std::strncmp(sqlstate, "XX", 2) == 0) {
    return ErrorClass::internal;
  }
  if (std::strncmp(sqlstate, "08P01", 5) == 0) {
    return ErrorClass::protocol;
  }
  // 53: resources, connections included.  57P01, 57P03: of no fault of the client's the server is leaving, or not
  // there yet.
  if (std::strncmp(sqlstate, "53", 2) == 0 || std::strncmp(sqlstate, "57P01", 5) == 0 ||
      std::strncmp(sqlstate, "57P03", 5) == 0) {
    return ErrorClass::limit;
  }
  return ErrorClass::authentication;
}

void record_error(ErrorTable &table, ErrorClass error_class, std::uint32_t code, std::uint32_t role_oid,
                  const char *message, std::int64_t now_at) noexcept {
  ErrorSlot &slot = find_slot(table, error_class, code);
  note_times(slot, now_at);
  keep_message(slot, role_oid, message);
  // Last, so that whoever sees the count sees the times.
  slot.count.fetch_add(1, std::memory_order_release);
}

bool read_error(const ErrorTable &table, std::size_t index, ErrorRow &row) noexcept {
  const ErrorSlot &slot = table.slots[index];
  row.count = slot.count.load(std::memory_order_acquire);
  if (row.count == 0) {
    return false;
  }
  row.others = index < kErrorClasses;
  const std::uint64_t key =
      row.others ? make_key(static_cast<ErrorClass>(index), 0) : slot.key.load(kRelaxed);
  row.error_class = static_cast<ErrorClass>((key & 0xff) - 1);
  row.code = static_cast<std::uint32_t>(key >> 8);
  const std::int64_t since_at = table.since_at.load(kRelaxed);
  row.first_at = slot.first_at.load(kRelaxed);
  if (row.first_at == 0) {
    row.first_at = since_at;
  }
  row.last_at = slot.last_at.load(kRelaxed);
  if (row.last_at < row.first_at) {
    row.last_at = row.first_at;
  }
  row.has_message = copy_message(slot, row.message);
  return true;
}

void reset_errors(ErrorTable &table, std::int64_t now_at) noexcept {
  table.since_at.store(now_at, kRelaxed);
  for (ErrorSlot &slot : table.slots) {
    slot.count.store(0, kRelaxed);
    slot.first_at.store(0, kRelaxed);
    slot.last_at.store(0, kRelaxed);
  }
}

}  // namespace sluice
