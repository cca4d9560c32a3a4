// SPDX-License-Identifier: PostgreSQL
//
// The bytes between this backend and its client.
//
// Input is ours: a buffer of the same size as the server's, so that what was
// read ahead can be handed over when the server's COPY FROM STDIN reads for
// itself, and taken back afterwards.
//
// Output goes through PqCommMethods, the server's own switch point: the server's
// socket methods end the process when the client has gone, and here the backend
// has to live on.  A client that has gone makes output vanish and the query stop
// at its next check for interrupts.

#ifndef SLUICE_PG_SESSION_CLIENT_STREAM_HPP
#define SLUICE_PG_SESSION_CLIENT_STREAM_HPP

#include "pg/compat.hpp"

extern "C" {
#include "lib/stringinfo.h"
}

#include <cstdint>

namespace sluice::pg {

// Installs the output methods.  Once.
void install_client_stream();

// The stream now belongs to the client at this descriptor, with empty buffers.
void open_stream(int descriptor);
void close_stream();

bool stream_is_open();
bool stream_has_input();
bool stream_peer_is_gone();   // an output error has shown it
void mark_stream_gone();

enum class Fill { got_bytes, would_block, ended };
// Reads what is there, without blocking.
Fill fill_stream();

const char *stream_input(std::size_t *available);
void consume_input(std::size_t bytes);

// The same, but straight into `target`, up to `bytes`; what is buffered comes first.
Fill read_stream(char *target, std::size_t bytes, std::size_t *got);

// For the signal handler: the peer has closed, and neither in our buffer nor in
// the socket is anything left to be executed.
bool stream_has_ended_early();

// While muted, output is thrown away.  Returns whether it was muted before.
bool mute_stream(bool on);

// Sends what is buffered.  False when the client has gone.
bool flush_stream();

// The server's COPY FROM STDIN heeds no cancel while it waits for data: this ends the data instead.  For the signal
// handler; does nothing when no COPY reads.
void cut_copy_in_short();

// After an error or at the end of a command: COPY FROM STDIN reads no longer.
void end_copy_in();
// True if an error came while the server was in the middle of a COPY message:
// the position in the stream is lost.
bool copy_in_lost_sync();

}  // namespace sluice::pg

#endif
