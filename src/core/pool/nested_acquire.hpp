// SPDX-License-Identifier: PostgreSQL
//
// Applications that block themselves: every backend is held by clients whose
// application waits for another one.
//
// A thread that asks for a second connection while it holds a first can wait for
// itself: if all backends are held by such threads, none of them gets a second
// one, and none gives its first one back.  A pool cannot prove it, because it does
// not see which connections belong to one thread; but it sees that no backend
// executes, that all have been waiting for their clients for a while, and that
// each application that holds n of them has at least n clients waiting.  That is
// reported as probable.
//
// How large a pool would have to be is Tn * (Cm - 1) + 1, from HikariCP's page
// "About Pool Sizing": Tn threads that hold Cm connections each.  Cm is taken to
// be two, the least that blocks.  Tn is taken to be the number of waiting clients:
// each thread has one that waits, its second connection or still its first.

#ifndef SLUICE_CORE_POOL_NESTED_ACQUIRE_HPP
#define SLUICE_CORE_POOL_NESTED_ACQUIRE_HPP

#include <cstddef>
#include <cstdint>

namespace sluice {

struct ClientAddress;

// How long every holder must have been waiting for its client.
constexpr std::int64_t kNestedPatienceUs = 250'000;

// Who a client is, as far as it can be seen: its address, its process where it
// came through a Unix socket (peer_pid, 0 = unknown), and the name of its
// application.  Never 0.
std::uint64_t identify_client(const ClientAddress &address, std::int32_t peer_pid, const char *application) noexcept;

struct NestedAcquire {
  bool probable = false;
  int threads = 0;              // Tn
  int minimum = 0;              // Tn * (Cm - 1) + 1
  std::uint64_t identity = 0;   // that holds most
};

// Collects what is seen at one time, then decides.  As many different applications
// as fit are looked at; with more of them the answer is no.
class NestedAcquireSearch {
 public:
  static constexpr std::size_t kIdentities = 64;

  // A backend that waits for its client, since so long.
  void add_holder(std::uint64_t identity, std::int64_t for_us) noexcept;
  // A backend that does something, or could do something for others.
  void add_busy() noexcept { busy_ = true; }
  // A client that is ready and has no backend.
  void add_waiter(std::uint64_t identity) noexcept;

  NestedAcquire decide() const noexcept;

 private:
  struct Group {
    std::uint64_t identity;
    int holders;
    int waiters;
  };

  Group *find(std::uint64_t identity) noexcept;

  Group groups_[kIdentities] = {};
  std::size_t count_ = 0;
  bool busy_ = false;
  bool too_many_ = false;
};

}  // namespace sluice

#endif
