// SPDX-License-Identifier: PostgreSQL
//
// Taking a copy of a client's socket out of the dispatcher without asking it.
//
// pidfd_getfd(2), Linux 5.6 and later, between processes of one user.  Being sent
// the copy over the control channel costs a system call more on either side, and
// asking for it two wake-ups; so this is tried first.  Where the kernel or a
// security module refuses, nothing is lost but time.

#ifndef SLUICE_PG_POOL_DESCRIPTOR_PULL_HPP
#define SLUICE_PG_POOL_DESCRIPTOR_PULL_HPP

namespace sluice::pg {

// In the dispatcher: lets the postmaster's other children take descriptors where
// Yama (kernel.yama.ptrace_scope = 1) would not.
void permit_descriptor_pull();

// In a backend.  False when it does not work here.
bool open_descriptor_pull(int dispatcher_pid);
bool can_pull_descriptors();

// Copies the dispatcher's descriptor `number` to the same number here.
bool pull_descriptor(int number);

// Copies it to whatever number is free; -1 when that does not work.
int pull_copy(int number);

}  // namespace sluice::pg

#endif
