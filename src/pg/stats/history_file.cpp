// SPDX-License-Identifier: PostgreSQL
//
// Bytes in and out; what they mean is decided in core/stats/history_file.
//
// Nobody else runs: the postmaster has no children yet when it reads, and none any
// more when it writes.  It reads and writes in pieces, for the whole history may be
// larger than what the postmaster should ask for.
//
// What does not look like our own file (a link, another owner, no regular file) is
// not opened: opening a pipe would stop the start of the server.  What lies where the
// new file is written is removed first, for the same reason.
//
// A start may fail after the file has been read, and be tried again: so it is removed
// by the first process that runs when the server does, the statistician.

#include "pg/compat.hpp"

#include "pg/stats/history_file.hpp"

extern "C" {
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "storage/ipc.h"
}

#include <sys/stat.h>
#include <unistd.h>

#include "core/stats/history_file.hpp"
#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"

namespace sluice::pg {

namespace {

constexpr const char *kPath = PGSTAT_STAT_PERMANENT_DIRECTORY "/pg_sluice.stat";
constexpr const char *kTemporaryPath = PGSTAT_STAT_PERMANENT_DIRECTORY "/pg_sluice.stat.tmp";
constexpr std::size_t kPieceBytes = 65536;

bool history_is_saved() { return setting_save_history && shared().header->history_seconds > 0; }

// What cannot be removed now is overwritten at the next shutdown, or reported again.
void remove_file(const char *path) {
  if (unlink(path) != 0 && errno != ENOENT)
    ereport(LOG, (errcode_for_file_access(), errmsg("could not remove file \"%s\": %m", path)));
}

void ignore_file(const char *reason) {
  ereport(LOG, (errcode(ERRCODE_DATA_CORRUPTED), errmsg("ignoring invalid data in file \"%s\"", kPath),
                errdetail("%s", reason)));
}

// False if there is no such file, or none of ours.
bool look_at_file(struct stat *status) {
  if (lstat(kPath, status) != 0) {
    if (errno != ENOENT)
      ereport(LOG, (errcode_for_file_access(), errmsg("could not stat file \"%s\": %m", kPath)));
    return false;
  }
  if (!S_ISREG(status->st_mode)) {
    ignore_file("It is not a regular file.");
    return false;
  }
  if (status->st_uid != geteuid()) {
    ignore_file("It does not belong to the user the server runs as.");
    return false;
  }
  return true;
}

// False if something was wrong, which has been logged.
bool decode_file(FILE *file, std::uint64_t bytes, std::byte *buffer) {
  HistoryDecoder decoder(shared(), PG_VERSION_NUM / 10000, bytes);
  for (;;) {
    const std::size_t size = fread(buffer, 1, kPieceBytes, file);
    if (size == 0) break;
    if (decoder.feed(buffer, size) != HistoryFileError::none) break;
  }
  if (ferror(file)) {
    ereport(LOG, (errcode_for_file_access(), errmsg("could not read file \"%s\": %m", kPath)));
    return false;
  }
  const HistoryFileError error = decoder.finish();
  if (error != HistoryFileError::none) ignore_file(describe(error));
  return error == HistoryFileError::none;
}

void load_history() {
  struct stat status;
  if (!look_at_file(&status)) return;
  FILE *file = AllocateFile(kPath, PG_BINARY_R);
  if (file == nullptr) {
    ereport(LOG, (errcode_for_file_access(), errmsg("could not open file \"%s\": %m", kPath)));
    return;
  }
  auto *buffer = static_cast<std::byte *>(palloc(kPieceBytes));
  if (!decode_file(file, static_cast<std::uint64_t>(status.st_size), buffer)) forget_history(shared());
  pfree(buffer);
  FreeFile(file);
}

// False with errno set.
bool write_history(FILE *file, HistoryEncoder &encoder, std::byte *buffer) {
  for (;;) {
    const std::size_t size = encoder.next(buffer, kPieceBytes);
    if (size == 0) return true;
    errno = 0;
    if (fwrite(buffer, 1, size, file) != size) {
      if (errno == 0) errno = ENOSPC;  // if it is not said, assume the disk is full
      return false;
    }
  }
}

void save_history() {
  HistoryEncoder encoder(shared(), PG_VERSION_NUM / 10000);
  if (encoder.rings() == 0) return;
  remove_file(kTemporaryPath);
  FILE *file = AllocateFile(kTemporaryPath, PG_BINARY_W);
  bool written = false;
  if (file != nullptr) {
    auto *buffer = static_cast<std::byte *>(palloc(kPieceBytes));
    written = write_history(file, encoder, buffer);
    pfree(buffer);
    const int write_errno = errno;
    const bool closed = FreeFile(file) == 0;
    if (!written) errno = write_errno;
    written = written && closed;
  }
  if (!written) {
    ereport(LOG, (errcode_for_file_access(), errmsg("could not write file \"%s\": %m", kTemporaryPath)));
    remove_file(kTemporaryPath);
    return;
  }
  (void)durable_rename(kTemporaryPath, kPath, LOG);
}

}  // namespace

extern "C" {

// A code other than 0: the server dies of something, or starts over after a crash.
// An immediate shutdown ends with 0 as well, but then the statistician had no time
// to take its number away.
static void history_at_exit(int code, Datum) {
  if (code != 0 || !shared_memory_exists() || shared().header->statistician_pid.load() != 0) return;
  if (history_is_saved()) save_history();
}

}  // extern "C"

void keep_history_in_file() {
  if (history_is_saved())
    load_history();
  else
    remove_file(kPath);  // it must not come back another time
  on_shmem_exit(history_at_exit, static_cast<Datum>(0));
}

void forget_history_file() { remove_file(kPath); }

}  // namespace sluice::pg
