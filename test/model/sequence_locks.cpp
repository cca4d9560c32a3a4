// SPDX-License-Identifier: PostgreSQL
//
// The sequence locks of core/stats: Published and HistoryRing, and the SharedRecord
// below them.  One writer, readers beside it.
//
// What ThreadSanitizer can say here: that no plain memory is read while it is
// written, because each word of a record is an atomic.  What it cannot: whether the
// fences between version and words suffice, since it does not understand fences.
// So every copy is looked at: all its words must be of one value, and newer ones
// must not come before older ones.

#include <atomic>
#include <thread>

#include "model/world.hpp"

namespace model {

using namespace sluice;

namespace {

constexpr int kRounds = 20000;
constexpr int kReaders = 2;
constexpr std::size_t kSeconds = 4;

struct Fact {
  std::uint64_t words[32];
};

struct Shared {
  Published<Fact> fact;
  alignas(64) std::byte ring[history_ring_bytes(kSeconds)];
  std::atomic<int> readers;

  HistoryRing &history() { return *reinterpret_cast<HistoryRing *>(ring); }
};

HistoryOwner owner_number(std::uint32_t number) {
  HistoryOwner owner;
  owner.database_oid = number;
  owner.role_oid = number;
  for (char &letter : owner.database) letter = static_cast<char>('a' + number % 26);
  return owner;
}

void write_all(Shared &shared) {
  for (std::uint32_t round = 1; shared.readers.load() > 0; round++) {
    Fact fact;
    for (std::uint64_t &word : fact.words) word = round;
    shared.fact.publish(fact);
    HistorySample sample;
    sample.at = round;
    sample.transactions = sample.leases = sample.statements = round;
    if (round % 64 == 1) give_ring_away(shared.history(), owner_number(round));
    append_sample(shared.history(), kSeconds, sample);
  }
}

void judge_samples(const HistorySample *samples, std::size_t count) {
  for (std::size_t i = 0; i < count; i++) {
    const auto number = static_cast<std::uint32_t>(samples[i].at);
    if (samples[i].transactions != number || samples[i].leases != number || samples[i].statements != number)
      violated("a sample of the history is a mixture of two");
    if (i > 0 && samples[i].at <= samples[i - 1].at) violated("samples of the history are not in their order");
  }
}

void read_all(Shared &shared) {
  std::uint64_t latest = 0;
  for (int round = 0; round < kRounds; round++) {
    Fact fact;
    if (shared.fact.read(fact)) {
      for (const std::uint64_t word : fact.words)
        if (word != fact.words[0]) violated("a published value is a mixture of two");
      if (fact.words[0] < latest) violated("a published value is older than the one before");
      latest = fact.words[0];
    }
    HistoryOwner owner;
    HistorySample samples[kSeconds];
    const std::size_t count = copy_ring(shared.history(), kSeconds, owner, samples, kSeconds);
    judge_samples(samples, count);
    if (count == 0) continue;
    if (owner.database_oid != owner.role_oid || owner.database[0] != owner.database[kHistoryNameLength - 1] ||
        owner.database[0] != static_cast<char>('a' + owner.database_oid % 26))
      violated("the owner of a history is a mixture of two");
    for (std::size_t i = 0; i < count; i++)
      if ((samples[i].at - 1) / 64 != (owner.database_oid - 1) / 64)
        violated("a sample of the history is another owner's");
  }
  shared.readers.fetch_sub(1);
}

}  // namespace

void check_sequence_locks() {
  static Shared shared;
  std::thread readers[kReaders];
  shared.readers.store(kReaders);
  std::thread writer([] { write_all(shared); });
  for (std::thread &reader : readers) reader = std::thread([] { read_all(shared); });
  for (std::thread &reader : readers) reader.join();
  writer.join();
}

}  // namespace model
