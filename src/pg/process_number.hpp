// SPDX-License-Identifier: PostgreSQL
//
// How a process tells others, in shared memory, where its PGPROC is: its place among all
// of them + 1; 0 = none.  What is found there may be another process by now: a latch is set
// for nothing, and what is read is a hint.

#ifndef SLUICE_PG_PROCESS_NUMBER_HPP
#define SLUICE_PG_PROCESS_NUMBER_HPP

#include "pg/compat.hpp"

#include <cstdint>

extern "C" {
#include "storage/proc.h"
}

namespace sluice::pg {

inline std::uint32_t own_process_number() { return static_cast<std::uint32_t>(MyProc - ProcGlobal->allProcs) + 1; }

// number: not 0.
inline PGPROC &process_of_number(std::uint32_t number) { return ProcGlobal->allProcs[number - 1]; }

// 0 while it waits for nothing.
inline std::uint32_t read_wait_event(const PGPROC &process) {
  return *static_cast<const volatile uint32 *>(&process.wait_event_info);
}

}  // namespace sluice::pg

#endif
