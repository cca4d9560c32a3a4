// SPDX-License-Identifier: PostgreSQL
#include "pg/compat.hpp"

#include "pg/pool/descriptor_pull.hpp"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace sluice::pg {

static int dispatcher_handle = -1;

void permit_descriptor_pull() {
#ifdef PR_SET_PTRACER
  prctl(PR_SET_PTRACER, static_cast<unsigned long>(PostmasterPid), 0, 0, 0);
#endif
}

static int take(int number) {
#ifdef SYS_pidfd_getfd
  return static_cast<int>(syscall(SYS_pidfd_getfd, dispatcher_handle, number, 0));
#else
  (void)number;
  return -1;
#endif
}

bool open_descriptor_pull(int dispatcher_pid) {
#ifdef SYS_pidfd_open
  dispatcher_handle = static_cast<int>(syscall(SYS_pidfd_open, dispatcher_pid, 0));
#else
  (void)dispatcher_pid;
#endif
  if (dispatcher_handle < 0) return false;
  // Its standard error is always open: may it be taken?
  const int probe = take(STDERR_FILENO);
  if (probe < 0) {
    close(dispatcher_handle);
    dispatcher_handle = -1;
    return false;
  }
  close(probe);
  return true;
}

bool can_pull_descriptors() { return dispatcher_handle >= 0; }

int pull_copy(int number) { return can_pull_descriptors() ? take(number) : -1; }

bool pull_descriptor(int number) {
  const int taken = take(number);
  if (taken < 0) return false;
  const bool placed = dup3(taken, number, O_CLOEXEC) >= 0;
  close(taken);
  return placed;
}

}  // namespace sluice::pg
