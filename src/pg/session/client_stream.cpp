// SPDX-License-Identifier: PostgreSQL
#include "pg/compat.hpp"

#include "pg/session/client_stream.hpp"

extern "C" {
#include "libpq/libpq-be.h"
#include "libpq/libpq.h"
#include "port/pg_bswap.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"
}

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pg/accept/dispatcher.hpp"
#include "pg/session/interrupts.hpp"
#include "pg/session/message_reader.hpp"
#include "pg/session/session.hpp"
#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"
#include "pg/stats/error_count.hpp"

namespace sluice::pg {

constexpr int kInputBytes = 8192;         // as the server's: see begin_copy_in()
constexpr int kOutputBytes = 32 * 1024;   // a system call less for every 32 kB of result

struct Stream {
  int descriptor = -1;
  bool muted = false;
  bool gone = false;
  bool copy_in_announced = false;  // CopyInResponse is in the output buffer
  bool copy_in = false;            // the server reads for itself
  bool lost_sync = false;
  bool sending = false;
  volatile bool receiving = false;  // bytes may have left the socket that are not in `input` yet
  int input_start = 0, input_end = 0;
  char input[kInputBytes];
  char *output = nullptr;
  int output_size = 0, output_start = 0, output_end = 0;
};

static Stream stream;

// ------------------------------------------------------------------ input

bool stream_is_open() { return stream.descriptor >= 0; }
bool stream_has_input() { return stream.input_start < stream.input_end; }
bool stream_peer_is_gone() { return stream.gone; }

void open_stream(int descriptor) {
  stream.descriptor = descriptor;
  stream.gone = false;
  stream.copy_in_announced = stream.copy_in = stream.lost_sync = stream.sending = false;
  stream.input_start = stream.input_end = 0;
  stream.output_start = stream.output_end = 0;
}

void close_stream() { stream.descriptor = -1; }

bool mute_stream(bool on) {
  const bool was_muted = stream.muted;
  stream.muted = on;
  return was_muted;
}

const char *stream_input(std::size_t *available) {
  *available = static_cast<std::size_t>(stream.input_end - stream.input_start);
  return stream.input + stream.input_start;
}

void consume_input(std::size_t bytes) { stream.input_start += static_cast<int>(bytes); }

static ssize_t receive(char *target, std::size_t bytes) {
  ssize_t got;
  do
    got = recv(stream.descriptor, target, bytes, MSG_DONTWAIT);
  while (got < 0 && errno == EINTR);
  return got;
}

static Fill outcome_of(ssize_t got) {
  if (got > 0) return Fill::got_bytes;
  return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? Fill::would_block : Fill::ended;
}

Fill fill_stream() {
  if (stream.input_start == stream.input_end) {
    stream.input_start = stream.input_end = 0;
  } else if (stream.input_end == kInputBytes) {
    memmove(stream.input, stream.input + stream.input_start,
            static_cast<size_t>(stream.input_end - stream.input_start));
    stream.input_end -= stream.input_start;
    stream.input_start = 0;
  }
  stream.receiving = true;
  const ssize_t got =
      receive(stream.input + stream.input_end, static_cast<size_t>(kInputBytes - stream.input_end));
  if (got > 0) stream.input_end += static_cast<int>(got);
  stream.receiving = false;
  return outcome_of(got);
}

Fill read_stream(char *target, std::size_t bytes, std::size_t *got) {
  *got = Min(bytes, static_cast<std::size_t>(stream.input_end - stream.input_start));
  if (*got > 0) {
    memcpy(target, stream.input + stream.input_start, *got);
    stream.input_start += static_cast<int>(*got);
    return Fill::got_bytes;
  }
  stream.receiving = true;
  const ssize_t received = receive(target, bytes);
  stream.receiving = false;
  if (received > 0) *got = static_cast<std::size_t>(received);
  return outcome_of(received);
}

bool stream_has_ended_early() {
  char byte;
  // A signal is delivered at the end of recv(), before anybody knows what that has taken: then the question is asked
  // again when the command begins.
  if (stream.copy_in || stream.receiving || stream.input_start < stream.input_end) return false;
  const ssize_t got = recv(stream.descriptor, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  // A connection that was reset is an error once, and its end from then on.
  return got == 0 || (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

// ------------------------------------------------------------------ output

void mark_stream_gone() {
  stream.gone = true;
  stream.output_start = stream.output_end = 0;
}

// The query stops at its next check for interrupts; what it still sends vanishes.
static void stop_query() {
  if (session.in_query) {
    session.client_vanished = 1;
    InterruptPending = true;
    QueryCancelPending = true;
  }
}

static void lose_client() {
  const int saved_errno = errno;
  if (!stream.gone) {
    mark_stream_gone();
    errno = saved_errno;
    ereport(COMMERROR, (errcode_for_socket_access(), errmsg("could not send data to client: %m")));
  }
  stop_query();
}

// sluice.send_timeout.  Nothing can be said to a client that does not read, and half
// a message has been sent: it is lost, as one that has hung up.  08006 is what the
// server calls that.
static void give_client_up() {
  constexpr const char *kMessage = "terminating connection because the client does not read";
  mark_stream_gone();
  count_error(ErrorClass::client_end, ERRCODE_CONNECTION_FAILURE, session.pool->role_oid, kMessage);
  ereport(COMMERROR,
          (errcode(ERRCODE_CONNECTION_FAILURE), errmsg("%s", kMessage),
           errdetail("It has taken nothing of the answer for %d ms (\"%s\").", setting_send_timeout,
                     "sluice.send_timeout")));
  stop_query();
}

// The client does not read.  Only the end of this process, or of the client, is
// a reason to stop waiting: half a message has been sent.
static void wait_until_writable(std::int64_t deadline_us) {
  pgstat_report_wait_start(WAIT_EVENT_CLIENT_WRITE);
  const Wake wake = wait_for_socket(stream.descriptor, POLLOUT, deadline_us);
  pgstat_report_wait_end();
  if (wake == Wake::timed_out || (deadline_us >= 0 && wake == Wake::interrupted && monotonic_us() >= deadline_us)) {
    give_client_up();
    return;
  }
  if (wake != Wake::interrupted) return;
  session.mail = 0;
  ResetLatch(MyLatch);
  if (session.client_vanished || session.told_to_leave) {
    mark_stream_gone();
    return;
  }
  if (ProcDiePending && InterruptHoldoffCount == 0 && CritSectionCount == 0) {
    mark_stream_gone();
    CHECK_FOR_INTERRUPTS();
  }
  // Everything else (cancel, reload, invalidations) waits for its turn; without a
  // pause the pending flags would make this a busy loop.
  pollfd interest{stream.descriptor, POLLOUT, 0};
  pgstat_report_wait_start(WAIT_EVENT_CLIENT_WRITE);
  poll(&interest, 1, 10);
  pgstat_report_wait_end();
}

static int send_buffered(bool blocking) {
  std::int64_t deadline_us = -1;  // of the pause under way
  while (stream.output_start < stream.output_end) {
    if (stream.gone || stream.muted || stream.descriptor < 0) {
      stream.output_start = stream.output_end = 0;
      return stream.gone ? EOF : 0;
    }
    const ssize_t sent =
        send(stream.descriptor, stream.output + stream.output_start,
             static_cast<size_t>(stream.output_end - stream.output_start), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) {
      stream.output_start += static_cast<int>(sent);
      deadline_us = -1;
    } else if (sent < 0 && errno == EINTR) {
      continue;
    } else if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      if (!blocking) return 0;
      if (deadline_us < 0) deadline_us = idle_deadline_us(setting_send_timeout);
      wait_until_writable(deadline_us);
    } else {
      lose_client();
      return EOF;
    }
  }
  stream.output_start = stream.output_end = 0;
  return 0;
}

static int put_bytes(const char *bytes, std::size_t length) {
  while (length > 0) {
    if (stream.output_end == stream.output_size && send_buffered(true) != 0) return EOF;
    const std::size_t part = Min(length, static_cast<std::size_t>(stream.output_size - stream.output_end));
    memcpy(stream.output + stream.output_end, bytes, part);
    stream.output_end += static_cast<int>(part);
    bytes += part;
    length -= part;
  }
  return 0;
}

static int put_message(char type, const char *body, std::size_t length) {
  char header[5];
  const uint32 length_word = pg_hton32(static_cast<uint32>(length + 4));
  header[0] = type;
  memcpy(header + 1, &length_word, 4);
  return put_bytes(header, sizeof(header)) != 0 || put_bytes(body, length) != 0 ? EOF : 0;
}

// ------------------------------------------------------------------ COPY FROM STDIN

// The server's COPY reads the socket with its own functions and waits on
// FeBeWaitSet, which cannot be re-targeted: it is built for each COPY (5.7 us).
// What we have read ahead goes into the server's receive buffer through a socket
// pair: both buffers have 8 kB, so one read takes it all.
static void begin_copy_in() {
  if (FeBeWaitSet != nullptr) return;  // another COPY of the same query string: the server reads already
  stream.copy_in = true;
  if (stream_has_input()) {
    int pair[2];
    const std::size_t ahead = static_cast<std::size_t>(stream.input_end - stream.input_start);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0)
      ereport(ERROR, (errcode_for_socket_access(), errmsg("could not hand over COPY data: %m")));
    const ssize_t sent = send(pair[0], stream.input + stream.input_start, ahead, MSG_NOSIGNAL | MSG_DONTWAIT);
    const bool handed_over = sent == static_cast<ssize_t>(ahead);
    if (handed_over) {
      MyProcPort->sock = pair[1];
      pq_startmsgread();
      (void)pq_peekbyte();
      pq_endmsgread();
      stream.input_start = stream.input_end = 0;
    }
    close(pair[0]);
    close(pair[1]);
    if (!handed_over) ereport(ERROR, (errcode_for_socket_access(), errmsg("could not hand over COPY data: %m")));
  }
  MyProcPort->sock = stream.descriptor;
  FeBeWaitSet = CreateWaitEventSet(TopMemoryContext, FeBeWaitSetNEvents);
  AddWaitEventToSet(FeBeWaitSet, WL_SOCKET_WRITEABLE, stream.descriptor, nullptr, nullptr);
  AddWaitEventToSet(FeBeWaitSet, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, nullptr);
  AddWaitEventToSet(FeBeWaitSet, WL_POSTMASTER_DEATH, PGINVALID_SOCKET, nullptr, nullptr);
  // The request may have come before there was anything to cut short.
  if (session.told_to_leave) cut_copy_in_short();
}

void cut_copy_in_short() {
  if (stream.copy_in) shutdown(stream.descriptor, SHUT_RD);
}

void end_copy_in() {
  stream.copy_in_announced = false;
  if (!stream.copy_in) return;
  stream.copy_in = false;
  if (pq_is_reading_msg()) {
    stream.lost_sync = true;
    pq_endmsgread();
  }
  // What the server has read ahead fits exactly: our own buffer is empty since the COPY began.
  stream.input_start = stream.input_end = 0;
  pq_startmsgread();
  while (pq_buffer_has_data()) {
    const char byte = static_cast<char>(pq_getbyte());
    if (stream.input_end < kInputBytes)
      stream.input[stream.input_end++] = byte;
    else
      stream.lost_sync = true;
  }
  pq_endmsgread();
  if (FeBeWaitSet != nullptr) {
    FreeWaitEventSet(FeBeWaitSet);
    FeBeWaitSet = nullptr;
  }
}

bool copy_in_lost_sync() {
  const bool lost = stream.lost_sync;
  stream.lost_sync = false;
  return lost;
}

// ------------------------------------------------------------------ PqCommMethods

extern "C" {

static void comm_reset() { stream.sending = false; }

static int comm_flush() {
  if (stream.sending) return 0;
  stream.sending = true;
  const int result = send_buffered(true);
  stream.sending = false;
  if (stream.copy_in_announced && !stream.muted) {
    stream.copy_in_announced = false;
    // The COPY must not begin: it would wait on a FeBeWaitSet that is not there.
    if (stream.gone) ereport(ERROR, (errcode(ERRCODE_CONNECTION_FAILURE), errmsg("connection to client lost")));
    begin_copy_in();
  }
  return result;
}

static int comm_flush_if_writable() {
  if (stream.sending) return 0;
  stream.sending = true;
  const int result = send_buffered(false);
  stream.sending = false;
  return result;
}

static bool comm_is_send_pending() { return stream.output_start < stream.output_end; }

// Whom a notification comes from is told as the number of a process, and clients compare it with what they were told
// in BackendKeyData.  For a pooled backend that number belongs to the client that has sent its last NOTIFY: the one in
// question, unless another has sent one through it since.
static std::uint32_t notifier_of(std::uint32_t process) {
  const SharedState &state = shared();
  for (std::uint32_t i = 0; i < state.header->backend_slots; i++) {
    const BackendSlot &backend = state.backends[i];
    if (static_cast<std::uint32_t>(backend.pid.load(std::memory_order_relaxed)) != process) continue;
    const std::uint32_t notifier = backend.notifier.load(std::memory_order_relaxed);
    return notifier != 0 ? notifier : process;
  }
  return process;
}

static void name_notifier(char *body, size_t length) {
  uint32 process;
  if (length < sizeof(process)) return;
  memcpy(&process, body, sizeof(process));
  process = pg_hton32(notifier_of(pg_ntoh32(process)));
  memcpy(body, &process, sizeof(process));
}

static int comm_putmessage(char type, const char *body, size_t length) {
  // A message raised while sending (an error in the log path) must not land in
  // the middle of another one.
  if (type == 'G') stream.copy_in_announced = true;
  if (type == 'A') name_notifier(const_cast<char *>(body), length);  // the server's buffer, not used again
  if (stream.muted || stream.gone || stream.sending || stream.descriptor < 0) return stream.gone ? EOF : 0;
  if (type == 'E') count_told_error(body, length, session.pool->role_oid);
  stream.sending = true;
  const int result = put_message(type, body, length);
  stream.sending = false;
  return result;
}

static void comm_putmessage_noblock(char type, const char *body, size_t length) {
  const int needed = stream.output_end + 5 + static_cast<int>(length);
  if (needed > stream.output_size) {
    stream.output = static_cast<char *>(repalloc(stream.output, static_cast<Size>(needed)));
    stream.output_size = needed;
  }
  (void)comm_putmessage(type, body, length);
}

static const PQcommMethods client_stream_methods = {
    comm_reset,           comm_flush,      comm_flush_if_writable,
    comm_is_send_pending, comm_putmessage, comm_putmessage_noblock,
};

}  // extern "C"

bool flush_stream() { return comm_flush() == 0; }

void install_client_stream() {
  stream.output = static_cast<char *>(MemoryContextAlloc(TopMemoryContext, kOutputBytes));
  stream.output_size = kOutputBytes;
  PqCommMethods = &client_stream_methods;
}

}  // namespace sluice::pg
