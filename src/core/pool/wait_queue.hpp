// SPDX-License-Identifier: PostgreSQL
//
// First come, first served: the clients of one pool that wait for a backend.  Only
// while an application waits for itself do backends choose among them
// (pg/pool/wait_queue.hpp).
//
// A bounded multi-producer, multi-consumer queue in shared memory
// (Boost.Lockfree with a compile-time capacity keeps its nodes in place and
// links them by index, so every process may map it at its own address).  An
// entry is a hint: the taker still has to win the client's state word, and an
// entry whose client has left or timed out is dropped by whoever finds it.  A
// full queue is no error either: the dispatcher leaves the rest in the epoll set
// and comes back.

#ifndef SLUICE_CORE_POOL_WAIT_QUEUE_HPP
#define SLUICE_CORE_POOL_WAIT_QUEUE_HPP

#include <boost/lockfree/queue.hpp>
#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>

namespace sluice {

constexpr std::size_t kWaitQueueCapacity = 4096;

using WaitQueue = boost::lockfree::queue<std::uint64_t, boost::lockfree::capacity<kWaitQueueCapacity>>;

// The queue as bytes: constructed once when its pool slot is first used, never
// destroyed (the segment goes away with the server).
struct alignas(64) WaitQueueStorage {
  std::byte bytes[sizeof(WaitQueue)];

  void construct() noexcept { new (bytes) WaitQueue(); }
  WaitQueue &get() noexcept { return *std::launder(reinterpret_cast<WaitQueue *>(bytes)); }
};
static_assert(alignof(WaitQueueStorage) >= alignof(WaitQueue));
static_assert(std::is_trivially_destructible_v<WaitQueueStorage> && std::is_standard_layout_v<WaitQueueStorage>);

}  // namespace sluice

#endif
