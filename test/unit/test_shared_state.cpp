// SPDX-License-Identifier: PostgreSQL
//
// What lies in shared memory: words that survive packing, parts that do not
// overlap, and a wait queue that loses nothing, all in plain memory.

#include <atomic>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <csetjmp>
#include <memory>
#include <random>
#include <thread>
#include <vector>

extern "C" {
#include <cmocka.h>
}

#include "core/pool/shared_state.hpp"

namespace {

using sluice::ClientRef;
using sluice::ClientState;
using sluice::ClientWord;
using sluice::kNoIndex;

// Zeroed memory with the alignment of the segment, as a fresh segment has it.
class Memory {
 public:
  explicit Memory(std::size_t bytes)
      : bytes_((bytes + sluice::kCacheLine - 1) / sluice::kCacheLine * sluice::kCacheLine),
        memory_(std::aligned_alloc(sluice::kCacheLine, bytes_)) {
    std::memset(memory_, 0, bytes_);
  }
  ~Memory() { std::free(memory_); }
  Memory(const Memory &) = delete;
  Memory &operator=(const Memory &) = delete;
  void *get() const { return memory_; }

 private:
  std::size_t bytes_;
  void *memory_;
};

void client_words_survive_packing(void **) {
  for (const std::uint32_t generation : {0u, 1u, 0x7fffffffu, 0x80000000u, 0xffffffffu}) {
    for (const std::uint32_t backend : {0u, 1u, 0xffffu, 0xfffffeu, kNoIndex}) {
      for (const ClientState state : {ClientState::free, ClientState::authenticating, ClientState::ready,
                                      ClientState::leased, ClientState::idle, ClientState::closing}) {
        const ClientWord word = ClientWord::unpack(ClientWord{generation, backend, state}.pack());
        assert_int_equal(word.generation, generation);
        assert_int_equal(word.backend, backend);
        assert_true(word.state == state);
      }
    }
  }
}

void any_word_survives_unpacking(void **) {
  std::mt19937_64 random(31337);
  for (int round = 0; round < 100000; round++) {
    const std::uint64_t word = random();
    assert_true(ClientWord::unpack(word).pack() == word);
    assert_true(ClientRef::unpack(word).pack() == word);
  }
}

void a_default_word_is_a_free_slot_without_a_backend(void **) {
  const ClientWord word;
  assert_true(word.state == ClientState::free);
  assert_int_equal(word.backend, kNoIndex);
  assert_int_equal(word.generation, 0);
}

void an_index_too_wide_does_not_spill_into_the_generation(void **) {
  const ClientWord word = ClientWord::unpack(ClientWord{5, 0xff000001u, ClientState::leased}.pack());
  assert_int_equal(word.generation, 5);
  assert_int_equal(word.backend, 1);
}

void client_references_survive_packing(void **) {
  for (const std::uint32_t slot : {0u, 1u, 9999u, 0xffffffffu}) {
    for (const std::uint32_t generation : {0u, 1u, 0xffffffffu}) {
      const ClientRef client = ClientRef::unpack(ClientRef{slot, generation}.pack());
      assert_int_equal(client.slot, slot);
      assert_int_equal(client.generation, generation);
    }
  }
}

void parts_follow_each_other_aligned_and_inside(void **) {
  constexpr std::size_t kClients = 7;
  constexpr std::size_t kBackends = 3;
  constexpr std::size_t kPools = 2;
  sluice::SharedSizes sizes;
  sizes.clients = kClients;
  sizes.backends = kBackends;
  sizes.pools = kPools;
  sizes.events = 5;
  sizes.applications = 3;
  sizes.history_seconds = 7;
  const std::size_t bytes = sluice::shared_state_bytes(sizes);
  const Memory memory(bytes);
  const sluice::SharedState state = sluice::lay_out(memory.get(), sizes);
  state.header->history_seconds = 7;
  const auto *begin = static_cast<const std::byte *>(memory.get());
  const auto at = [begin](const void *part) {
    return static_cast<std::size_t>(static_cast<const std::byte *>(part) - begin);
  };
  assert_int_equal(at(state.header), 0);
  assert_true(at(state.clients) >= sizeof(sluice::SharedHeader));
  assert_true(at(state.backends) >= at(state.clients + kClients));
  assert_true(at(state.pools) >= at(state.backends + kBackends));
  assert_true(at(state.statistics) >= at(state.pools + kPools));
  assert_true(at(state.applications) >= at(state.statistics + kBackends));
  assert_true(at(state.errors) >= at(state.applications + sizes.applications));
  assert_true(at(state.events) >= at(state.errors + 1));
  assert_true(at(state.history) >= at(state.events) + sluice::event_log_bytes(sizes.events));
  assert_true(at(state.history_ring(kPools)) <= bytes);
  for (const std::size_t offset :
       {at(state.clients), at(state.backends), at(state.pools), at(state.statistics), at(state.applications),
        at(state.errors), at(state.events), at(state.history), at(state.history_ring(1))}) {
    assert_int_equal(offset % sluice::kCacheLine, 0);
  }
}

void an_idle_client_costs_a_few_cache_lines(void **) {
  assert_true(sizeof(sluice::ClientSlot) <= 256);
  assert_int_equal(sizeof(sluice::ClientSlot) % sluice::kCacheLine, 0);
  assert_int_equal(sizeof(sluice::BackendSlot) % sluice::kCacheLine, 0);
  assert_int_equal(sizeof(sluice::PoolSlot) % sluice::kCacheLine, 0);
}

// ---------------------------------------------------------------- wait queue

// A queue where a pool slot would have it.
struct QueueInMemory {
  Memory memory{sizeof(sluice::PoolSlot)};
  sluice::PoolSlot *slot = static_cast<sluice::PoolSlot *>(memory.get());
  QueueInMemory() { slot->wait_queue.construct(); }
  sluice::WaitQueue &get() { return slot->wait_queue.get(); }
};

void the_queue_needs_no_lock_and_begins_empty(void **) {
  QueueInMemory queue;
  std::uint64_t entry = 0;
  assert_true(queue.get().is_lock_free());
  assert_true(queue.get().empty());
  assert_false(queue.get().pop(entry));
}

void first_come_is_first_served(void **) {
  QueueInMemory queue;
  for (std::uint32_t slot = 0; slot < 100; slot++) {
    assert_true(queue.get().bounded_push(ClientRef{slot, 7}.pack()));
  }
  std::uint64_t entry = 0;
  for (std::uint32_t slot = 0; slot < 100; slot++) {
    assert_true(queue.get().pop(entry));
    assert_int_equal(ClientRef::unpack(entry).slot, slot);
    assert_int_equal(ClientRef::unpack(entry).generation, 7);
  }
  assert_false(queue.get().pop(entry));
}

void a_full_queue_refuses_and_recovers(void **) {
  QueueInMemory queue;
  std::size_t taken = 0;
  while (taken <= 2 * sluice::kWaitQueueCapacity && queue.get().bounded_push(taken)) {
    taken++;
  }
  assert_int_equal(taken, sluice::kWaitQueueCapacity);
  std::uint64_t entry = 0;
  assert_true(queue.get().pop(entry));
  assert_true(queue.get().bounded_push(1));
  assert_false(queue.get().bounded_push(1));
  while (queue.get().pop(entry)) {
    taken--;
  }
  assert_int_equal(taken, 0);
}

void the_queue_holds_no_addresses(void **) {
  // Moved as bytes, as if mapped elsewhere, it goes on where it stood.
  QueueInMemory queue;
  for (std::uint64_t i = 0; i < 10; i++) {
    assert_true(queue.get().bounded_push(i));
  }
  const Memory elsewhere(sizeof(sluice::PoolSlot));
  std::memcpy(elsewhere.get(), queue.memory.get(), sizeof(sluice::PoolSlot));
  std::memset(queue.memory.get(), 0xff, sizeof(sluice::PoolSlot));
  sluice::WaitQueue &moved = static_cast<sluice::PoolSlot *>(elsewhere.get())->wait_queue.get();
  std::uint64_t entry = 0;
  for (std::uint64_t i = 0; i < 10; i++) {
    assert_true(moved.pop(entry));
    assert_int_equal(entry, i);
  }
  assert_true(moved.empty());
}

void nothing_is_lost_or_doubled_between_many_threads(void **) {
  constexpr std::uint64_t kProducers = 3;
  constexpr std::uint64_t kConsumers = 3;
  constexpr std::uint64_t kEach = 30000;  // together more than the queue holds
  QueueInMemory queue;
  const auto seen = std::make_unique<std::atomic<std::uint32_t>[]>(kProducers * kEach);
  for (std::uint64_t i = 0; i < kProducers * kEach; i++) {
    seen[i].store(0);
  }
  std::atomic<std::uint64_t> popped{0};
  std::atomic<std::uint64_t> pushing{kProducers};
  std::atomic<bool> out_of_order{false};
  std::vector<std::thread> threads;
  for (std::uint64_t number = 0; number < kProducers; number++) {
    threads.emplace_back([&queue, &pushing, number] {
      for (std::uint64_t i = 0; i < kEach; i++) {
        while (!queue.get().bounded_push(number * kEach + i)) {
          std::this_thread::yield();
        }
      }
      pushing--;
    });
  }
  for (std::uint64_t number = 0; number < kConsumers; number++) {
    threads.emplace_back([&] {
      std::uint64_t last[kProducers] = {};
      std::uint64_t entry = 0;
      for (;;) {
        const bool all_pushed = pushing.load() == 0;  // before the look, or a last entry could slip through
        if (!queue.get().pop(entry)) {
          if (all_pushed) {
            break;
          }
          std::this_thread::yield();
          continue;
        }
        popped++;
        if (entry >= kProducers * kEach) {
          out_of_order = true;
          continue;
        }
        seen[entry]++;
        // What one producer pushed, one consumer sees in that order.
        const std::uint64_t place = entry % kEach + 1;
        if (place <= last[entry / kEach]) {
          out_of_order = true;
        }
        last[entry / kEach] = place;
      }
    });
  }
  for (std::thread &thread : threads) {
    thread.join();
  }
  assert_false(out_of_order.load());
  assert_int_equal(popped.load(), kProducers * kEach);
  for (std::uint64_t i = 0; i < kProducers * kEach; i++) {
    assert_int_equal(seen[i].load(), 1);
  }
  assert_true(queue.get().empty());
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(client_words_survive_packing),
      cmocka_unit_test(any_word_survives_unpacking),
      cmocka_unit_test(a_default_word_is_a_free_slot_without_a_backend),
      cmocka_unit_test(an_index_too_wide_does_not_spill_into_the_generation),
      cmocka_unit_test(client_references_survive_packing),
      cmocka_unit_test(parts_follow_each_other_aligned_and_inside),
      cmocka_unit_test(an_idle_client_costs_a_few_cache_lines),
      cmocka_unit_test(the_queue_needs_no_lock_and_begins_empty),
      cmocka_unit_test(first_come_is_first_served),
      cmocka_unit_test(a_full_queue_refuses_and_recovers),
      cmocka_unit_test(the_queue_holds_no_addresses),
      cmocka_unit_test(nothing_is_lost_or_doubled_between_many_threads),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
