// SPDX-License-Identifier: PostgreSQL
#include "pg/compat.hpp"

#include "pg/auth/secret_memory.hpp"

extern "C" {
#include "utils/memutils.h"
}

#include <stdlib.h>
#include <string.h>

namespace sluice::pg {

constexpr std::size_t kLargestPiece = 1024;
constexpr std::size_t kSmallestPiece = 8;
constexpr std::size_t kStackBytes = 16384;  // more than the deepest of these functions uses

// Takes pieces until the context had to get another block.
static void wipe_pieces(MemoryContext context, std::size_t size) {
  const Size before = MemoryContextMemAllocated(context, false);
  for (std::size_t taken = 0; taken <= kSecretBytes; taken += size) {
    void *piece = MemoryContextAllocExtended(context, size, MCXT_ALLOC_NO_OOM);
    if (piece == nullptr) return;
    explicit_bzero(piece, size);
    if (MemoryContextMemAllocated(context, false) != before) return;
  }
}

// Local variables of functions that have returned.
static __attribute__((noinline)) void wipe_stack() {
  char below[kStackBytes];
  explicit_bzero(below, sizeof(below));
}

extern "C" {

// The context is about to be deleted.  Emptied first: what it has in use is
// unknown, but afterwards all of it can be had.
static void wipe_context(void *argument) {
  auto context = static_cast<MemoryContext>(argument);
  MemoryContextReset(context);
  for (std::size_t size = kLargestPiece; size >= kSmallestPiece; size /= 2) wipe_pieces(context, size);
  wipe_stack();
}

}  // extern "C"

MemoryContext create_secret_context(MemoryContext parent) {
  // A first block that is kept when the context is emptied, and a size that the server keeps no spare contexts of.
  MemoryContext context =
      AllocSetContextCreate(parent, "pg_sluice secrets", kSecretBytes, kSecretBytes, kSecretBytes);
  auto *callback =
      static_cast<MemoryContextCallback *>(MemoryContextAlloc(parent, sizeof(MemoryContextCallback)));
  callback->func = wipe_context;
  callback->arg = context;
  MemoryContextRegisterResetCallback(context, callback);
  return context;
}

void wipe_text(char *text) {
  if (text != nullptr) explicit_bzero(text, strlen(text));
}

void wipe_freed(std::size_t bytes) {
  void *block = malloc(bytes);
  if (block == nullptr) return;
  explicit_bzero(block, bytes);
  free(block);
}

}  // namespace sluice::pg
