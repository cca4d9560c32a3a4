// SPDX-License-Identifier: PostgreSQL
//
// Why a client stays on its backend between transactions in transaction mode.
//
// A pin lasts as long as the state that causes it.  Reasons are bits of a mask,
// since a client may have several; zero means that the client may be served by
// any backend of its pool.

#ifndef SLUICE_CORE_SESSION_PIN_HPP
#define SLUICE_CORE_SESSION_PIN_HPP

#include <cstddef>
#include <cstdint>

namespace sluice {

enum class PinReason : std::uint32_t {
  temporary_objects = 0,
  advisory_lock,     // held by the session
  listen,
  held_cursor,       // WITH HOLD
  loaded_library,    // LOAD
  random_seed,       // setseed()
  replication,       // origin or temporary slot of the session
  backup,            // between pg_backup_start() and pg_backup_stop()
  function,          // one of sluice.pin_functions was executed
  state_too_large,   // no memory to carry settings, statements or sequences
};

constexpr std::size_t kPinReasonCount = 10;

constexpr std::uint32_t pin_bit(PinReason reason) noexcept { return 1u << static_cast<std::uint32_t>(reason); }

// The name in views and counters: lower case, underscores ("temporary_objects").
const char *name_of(PinReason reason) noexcept;

// What the client did, for DETAIL and log ("temporary objects").
const char *describe(PinReason reason) noexcept;

// The names of all reasons in `mask`, separated by ", ", into `text`, which is
// always terminated; returns the length it would have had.
std::size_t describe_pins(std::uint32_t mask, char *text, std::size_t size) noexcept;

}  // namespace sluice

#endif
