// SPDX-License-Identifier: PostgreSQL
//
// Memory for secrets: nothing that was in it is left behind when it is freed.
//
// The server frees memory without wiping it, and functions of the server that deal
// with secrets leave copies in the memory context they are called in.  So they are
// called in a context of their own.  Its memory is one block, as long as no more
// than kSecretBytes are asked for; when the context is deleted, whatever the reason,
// the block is emptied, taken again piece by piece, and zeroed.
//
// Not reached: what did not fit into the block (what is above 1 kB has a block of its
// own); what a crash leaves in a core file.

#ifndef SLUICE_PG_AUTH_SECRET_MEMORY_HPP
#define SLUICE_PG_AUTH_SECRET_MEMORY_HPP

#include "pg/compat.hpp"

#include <cstddef>

namespace sluice::pg {

constexpr std::size_t kSecretBytes = 8192;

// A child of `parent`, and deleted with it.
MemoryContext create_secret_context(MemoryContext parent);

// A string that is not needed any more; null is none.
void wipe_text(char *text);

// What a function of the server has left in memory that it took with malloc() and
// gave back with free(): the next block of this size is that one.
void wipe_freed(std::size_t bytes);

}  // namespace sluice::pg

#endif
