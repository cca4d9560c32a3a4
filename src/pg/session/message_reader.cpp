// SPDX-License-Identifier: PostgreSQL
#include "pg/compat.hpp"

#include "pg/session/message_reader.hpp"

extern "C" {
#include "access/xact.h"
#include "libpq/libpq-be.h"
#include "pgstat.h"
#include "storage/proc.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"
}

#include <poll.h>

#include "core/session/message.hpp"
#include "pg/accept/dispatcher.hpp"
#include "pg/pool/lease.hpp"
#include "pg/session/client_stream.hpp"
#include "pg/session/interrupts.hpp"
#include "pg/session/lease_clock.hpp"
#include "pg/session/pins.hpp"
#include "pg/session/session.hpp"
#include "pg/session/statistics.hpp"
#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"
#include "pg/stats/error_count.hpp"

namespace sluice::pg {

std::int64_t idle_deadline_us(int timeout_ms) {
  return timeout_ms > 0 ? monotonic_us() + static_cast<std::int64_t>(timeout_ms) * 1000 : -1;
}

void raise_idle_timeout() {
  if (IsTransactionOrTransactionBlock())
    ereport_client_end((errcode(ERRCODE_IDLE_IN_TRANSACTION_SESSION_TIMEOUT),
                        errmsg("terminating connection due to idle-in-transaction timeout")));
  ereport_client_end((errcode(ERRCODE_IDLE_SESSION_TIMEOUT),
                      errmsg("terminating connection due to idle-session timeout")));
  pg_unreachable();
}

// 57P05 and not 08P01: what it means is that the session ended because its client
// kept silent, which drivers and pools know how to take (connect again).  A protocol
// violation would blame the driver, where mostly it is the network.
static void raise_message_timeout() {
  ereport_client_end((errcode(ERRCODE_IDLE_SESSION_TIMEOUT),
                      errmsg("terminating connection due to message timeout"),
                      errdetail("Nothing of a message that was begun has arrived for %d ms.", setting_message_timeout),
                      errhint("You may need to increase \"%s\".", "sluice.message_timeout")));
}

static void leave_if_told() {
  if (session.told_to_leave)
    ereport_client_end((errcode(ERRCODE_ADMIN_SHUTDOWN),
                        errmsg("terminating connection due to administrator command")));
}

// -1 is none.
static std::int64_t earlier_deadline(std::int64_t one, std::int64_t other) {
  return one < 0 || (other >= 0 && other < one) ? other : one;
}

// How long a client may take for its next message, from the moment it is waited for: parts of a message buy no time, as
// on a direct connection.  Otherwise whoever sends half a message would keep the backend, and the locks of its
// transaction, past every limit.
struct ReadLimits {
  bool in_transaction;
  std::int64_t idle_us;  // deadlines; -1: none
  std::int64_t pin_us;
};

static ReadLimits begin_to_wait() {
  const bool in_transaction = IsTransactionOrTransactionBlock();
  const bool between_messages = session.transaction_started && !in_transaction;  // of one extended-protocol cycle
  const bool is_pinned = session.pins != 0 && !in_transaction && !between_messages;
  return ReadLimits{
      in_transaction,
      between_messages ? -1 : idle_deadline_us(in_transaction ? IdleInTransactionSessionTimeout : IdleSessionTimeout),
      is_pinned ? idle_deadline_us(setting_pin_timeout) : -1};
}

// There is no input: sleeps until there may be some, or something else is to be done.  `message_us`: the deadline of
// sluice.message_timeout, if a message has begun.
static void wait_for_input(const ReadLimits &limits, std::int64_t message_us) {
  std::int64_t until_us = limits.idle_us;
  const std::int64_t statistics_us = limits.in_transaction ? -1 : statistics_deadline_us();
  until_us = earlier_deadline(until_us, statistics_us);
  until_us = earlier_deadline(until_us, limits.pin_us);
  until_us = earlier_deadline(until_us, message_us);
  pgstat_report_wait_start(WAIT_EVENT_CLIENT_READ);
  const Wake wake = wait_for_socket(MyProcPort->sock, POLLIN, until_us);
  pgstat_report_wait_end();
  if (wake == Wake::interrupted) handle_interrupts();
  if (wake != Wake::ready && limits.idle_us >= 0 && monotonic_us() >= limits.idle_us) raise_idle_timeout();
  if (wake != Wake::ready && message_us >= 0 && monotonic_us() >= message_us) raise_message_timeout();
  if (wake == Wake::timed_out && limits.pin_us >= 0 && monotonic_us() >= limits.pin_us) raise_pin_timeout();
  if (!limits.in_transaction) flush_due_statistics();
}

// More of a header.  False when the stream has ended.
static bool await_input(const ReadLimits &limits) {
  const std::int64_t message_us = stream_has_input() ? idle_deadline_us(setting_message_timeout) : -1;
  for (;;) {
    leave_if_told();
    const Fill fill = fill_stream();
    if (fill != Fill::would_block) return fill == Fill::got_bytes;
    wait_for_input(limits, message_us);
  }
}

// False when the stream ends before.
static bool read_exactly(char *target, std::size_t bytes, const ReadLimits &limits) {
  std::int64_t message_us = -1;  // of the pause under way
  while (bytes > 0) {
    std::size_t got;
    switch (read_stream(target, bytes, &got)) {
      case Fill::got_bytes:
        target += got;
        bytes -= got;
        message_us = -1;
        break;
      case Fill::ended:
        return false;
      case Fill::would_block:
        leave_if_told();
        if (message_us < 0) message_us = idle_deadline_us(setting_message_timeout);
        wait_for_input(limits, message_us);
        break;
    }
  }
  return true;
}

// The server's own answer to what it cannot read goes to the log only.
static void log_protocol_violation(const char *message) {
  count_error(ErrorClass::protocol, ERRCODE_PROTOCOL_VIOLATION, session.pool->role_oid, message);
  ereport(COMMERROR, (errcode(ERRCODE_PROTOCOL_VIOLATION), errmsg_internal("%s", message)));
}

static void raise_frame_error(const Frame &frame) {
  shared().header->protocol_violations.fetch_add(1);
  if (frame.status == FrameStatus::invalid_type)
    ereport_client_end((errcode(ERRCODE_PROTOCOL_VIOLATION),
                        errmsg("invalid frontend message type %d", static_cast<unsigned char>(frame.type))));
  log_protocol_violation(_("invalid message length"));
}

// An allocation that fails must not lose the position in the stream.
static bool read_body(StringInfo message, std::uint32_t length, const ReadLimits &limits) {
  PG_TRY();
  {
    enlargeStringInfo(message, static_cast<int>(length));
  }
  PG_CATCH();
  {
    char discarded[1024];
    for (std::uint32_t left = length; left > 0;) {
      const std::uint32_t part = Min(left, static_cast<std::uint32_t>(sizeof(discarded)));
      if (!read_exactly(discarded, part, limits)) break;
      left -= part;
    }
    session.reading_command = false;  // the stream is in step again: only the command is lost
    PG_RE_THROW();
  }
  PG_END_TRY();
  if (!read_exactly(message->data, length, limits)) {
    log_protocol_violation(_("incomplete message from client"));
    return false;
  }
  message->len = static_cast<int>(length);
  message->data[length] = '\0';
  return true;
}

// Reads one message.  Returns its type, or EOF when the client has gone or
// cannot be understood any more.
int read_message(StringInfo message) {
  Frame frame;

  const ReadLimits limits = begin_to_wait();
  session.reading_command = true;
  for (;;) {
    std::size_t available;
    const char *input = stream_input(&available);
    frame = parse_frame(input, available);
    if (frame.status != FrameStatus::incomplete) break;
    if (!await_input(limits)) {
      session.reading_command = false;
      return EOF;
    }
  }
  if (frame.status != FrameStatus::complete) {
    raise_frame_error(frame);
    session.reading_command = false;
    return EOF;
  }
  consume_input(kMessageHeaderBytes);
  // As soon as the type is known an error belongs to this message.
  session.extended_message = frame.extended;
  if (frame.type == 'S' || frame.type == 'X') session.skip_until_sync = false;
  const bool whole = read_body(message, frame.body_length, limits);
  session.reading_command = false;
  const auto state = static_cast<BackendState>(session.backend->state.load(std::memory_order_relaxed));
  if (state != BackendState::active) {
    const std::int64_t now_us = coarse_monotonic_us();
    if (state == BackendState::thinking)
      note_thought(now_us - session.backend->state_since_us.load(std::memory_order_relaxed));
    enter_state(BackendState::active, now_us);
  }
  start_command();
  return whole ? frame.type : EOF;
}

}  // namespace sluice::pg
