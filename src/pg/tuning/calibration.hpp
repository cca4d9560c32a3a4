// SPDX-License-Identifier: PostgreSQL
//
// What the sweep (calibration.cpp), its crew of workers (calibration_crew.cpp)
// and a worker (calibrator.cpp) know of each other.
//
// They share one DSM segment:
//
//   CalibrationHeader | CalibratorSlot[workers] | script | settings
//
// The caller writes the header, the script and the settings before it registers
// the first worker; afterwards only `quit` changes.  Of a slot the caller writes
// `wanted_phase`, and the parameters of the phase before that (release); its
// worker reads it (acquire) and writes all the rest, `finished_phase` last
// (release); the caller reads the results after it has seen that (acquire).  So
// each field has one writer at a time, and results need no lock.
//
// `wanted_phase` is the start barrier too: it is set for all who take part before
// the first of them is woken.

#ifndef SLUICE_PG_TUNING_CALIBRATION_HPP
#define SLUICE_PG_TUNING_CALIBRATION_HPP

#include "pg/compat.hpp"

extern "C" {
#include "postmaster/bgworker.h"
#include "storage/dsm.h"
}

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "core/stats/histogram.hpp"

struct PGPROC;

namespace sluice::pg {

constexpr char kCalibratorType[] = "pg_sluice calibrator";

// An error, cut to fit at a character's end.
struct CalibratorError {
  std::int32_t sqlerrcode;
  char message[512];
  char detail[512];
  char hint[256];
  char context[1024];
};

enum class CalibratorState : std::uint32_t {
  starting = 0,
  joined,  // can run phases
  failed,  // ended before it had joined; `error` says why, unless its message is empty
};

struct alignas(64) CalibratorSlot {
  // Written by the caller.
  std::atomic<std::uint32_t> wanted_phase;  // from 1
  std::int64_t window_us;                   // begin no transaction later than this after the first; 0: execute once
  std::int32_t cut_off_ms;                  // cancel what runs this long after the beginning of the phase

  // Written by the worker.
  std::atomic<std::uint32_t> finished_phase;
  std::atomic<CalibratorState> state;
  std::atomic<PGPROC *> process;  // whose latch wakes the worker; null: not there yet
  std::int64_t elapsed_us;        // from here on: of the phase that was finished last
  std::uint64_t errors;
  bool was_cut_off;
  CalibratorError error;  // the first of the phase, or of the start
  Histogram latency_us;   // of the transactions that were committed; its total is their number
};
static_assert(std::is_standard_layout_v<CalibratorSlot> && std::is_trivially_destructible_v<CalibratorSlot>);

struct CalibrationHeader {
  std::atomic<bool> quit;
  PGPROC *caller;
  std::int32_t caller_pid;
  Oid database;
  Oid role;
  std::uint32_t workers;
  std::uint32_t settings;  // how many: see append_carried_settings()
  std::size_t slots_at;    // offsets in the segment
  std::size_t script_at;
  std::size_t settings_at;
};

inline CalibratorSlot *calibrator_slots(CalibrationHeader *header) {
  return reinterpret_cast<CalibratorSlot *>(reinterpret_cast<char *>(header) + header->slots_at);
}

// Is this process a worker?
bool is_calibrator();

// The settings that a worker takes over from its caller; returns how many.  Each
// is: name, 0, value, 0, context (1 byte) in which it was set and OID (4) of the
// role that has set it.  See the top of calibrator.cpp for which.  May raise.
std::uint32_t append_carried_settings(StringInfo target);

// ---------------------------------------------------------------- the crew, in the caller

// Lives in TopTransactionContext.  Ends with the DSM segment, whoever detaches it:
// end_crew(), an error, or the end of the process.
struct CalibrationCrew {
  dsm_segment *segment;
  CalibrationHeader *header;
  CalibratorSlot *slots;
  int registered;                    // worker processes asked for
  BackgroundWorkerHandle **handles;  // of these
  int joined;                        // of these, the ones that can run phases
  int *members;                      // their slots
  std::uint32_t phase;
};

// Worker processes that nobody uses at this moment.
int count_free_worker_slots();

// Starts up to `wanted` workers (1 or more) and waits until each has joined or
// failed.  There may be fewer than asked for, but not none: then it raises why.
CalibrationCrew *start_crew(const char *script, int wanted);

// The first `size` members execute the script, for a transaction only or for
// `seconds`; what is still running `cut_off_s` after the beginning is cancelled.
// Returns when all have finished.  Raises if a member has died, or on an interrupt.
void run_phase(CalibrationCrew *crew, int size, double seconds, double cut_off_s);

// Ends the workers and waits until they are gone.
void end_crew(CalibrationCrew *crew);

// Raises an error of a worker as one of the caller.
[[noreturn]] void raise_calibrator_error(const CalibratorError &error);

// Waits that long, and serves interrupts.
void pause_calibration(double seconds);

}  // namespace sluice::pg

#endif
