// SPDX-License-Identifier: PostgreSQL
//
// Applications that block themselves: every backend is held by clients whose
// application waits for another one.
//
// A thread that asks for a second connection while it holds a first can wait for
// itself: if all backends are held by such threads, none of them gets a second
// one, and none gives its first one back.  A pool cannot prove it, because it does
// not see which connections belong to one thread; but it sees that every backend
// is inside a transaction in which it is the client's turn, and has been for longer
// than its clients usually think, and that each application that holds n backends
// has at least n clients waiting.  That is reported as probable.
//
// Clients that think for long are the other explanation.  They take turns: there
// is always one that has begun to think only lately.  Therefore all of them must
// have been thinking for twice as long as 95 in 100 pauses take.
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

// How long every holder must have been waiting for its client: twice the time that
// clients usually think (95th percentile, 0 = unknown), and this at least.
constexpr std::int64_t kLeastNestedPatienceUs = 1'000'000;
constexpr std::int64_t kNestedPatienceFactor = 2;
std::int64_t nested_patience_us(std::int64_t usual_thinking_us) noexcept;

// A case that comes back within this time is the same one.
constexpr std::int64_t kNestedCalmUs = 5'000'000;

// Is the wait queue served in another order than that of arrival (is_served_before())?
// While the case lasts (`nested`) and for kNestedCalmUs after it was last seen (until_us;
// 0 = never seen): the first reserve that starts ends the case for a moment, and would be
// held by the next one who waits for itself.  Afterwards only for as long as not too many
// wait: all of them are looked at for each lease.
constexpr int kMostLookedAt = 256;
constexpr bool serves_by_preference(bool nested, std::int64_t until_us, int queued, std::int64_t now_us) noexcept {
  return until_us != 0 && now_us < until_us && (nested || queued <= kMostLookedAt);
}

// What is known of how long a client holds its backend: it has thought for so long within
// one of its latest transactions (or was pinned), it has not, or it has made none yet.
// A thought lasts until the backend reads the next message: with too few processors some of
// it is their queue, and a client may be taken for a thinker that is none.
constexpr std::int64_t kLongThoughtUs = 10'000;
constexpr std::uint32_t kThoughtMemory = 8;
enum class Holding : std::uint8_t { brief, unknown, thinks };

// For how many more transactions a client is taken for one that thinks, after one of them.
constexpr std::uint32_t remember_thought(std::uint32_t memory, bool thought_long) noexcept {
  return thought_long ? kThoughtMemory : memory - (memory > 0 ? 1 : 0);
}

constexpr Holding judge_holding(std::uint32_t thoughts, bool was_pinned, std::uint64_t transactions) noexcept {
  if (thoughts > 0 || was_pinned) return Holding::thinks;
  return transactions > 0 ? Holding::brief : Holding::unknown;
}

// Nobody is passed over for longer than this, but while the case lasts.
constexpr std::int64_t kLongestPassedOverUs = 10'000'000;
constexpr std::int64_t passed_over_limit_us(std::int64_t acquire_timeout_us) noexcept {
  return acquire_timeout_us > 0 && acquire_timeout_us / 2 < kLongestPassedOverUs ? acquire_timeout_us / 2
                                                                                 : kLongestPassedOverUs;
}

struct WaitingClient {
  std::int64_t ready_since_us;
  Holding holding;
  bool overdue;  // has waited for longer than that, and the case is over for the moment
};

// Who is to be served first of two that wait, while an application waits for itself.  One
// that has never thought within a transaction will hardly make the case worse, and second
// connections usually are like that; a new one may be.  Of equals the younger one: who came
// first wants its first connection, and would hold that too.
constexpr bool is_served_before(const WaitingClient &one, const WaitingClient &other) noexcept {
  if (one.overdue != other.overdue) return one.overdue;
  if (one.overdue) return one.ready_since_us < other.ready_since_us;
  if (one.holding != other.holding) return one.holding < other.holding;
  return one.ready_since_us > other.ready_since_us;
}

// Who a client is, as far as it can be seen: its address, its process where it
// came through a Unix socket (peer_pid, 0 = unknown), and the name of its
// application.  Never 0.
std::uint64_t identify_client(const ClientAddress &address, std::int32_t peer_pid, const char *application) noexcept;

struct NestedAcquire {
  bool probable = false;
  int threads = 0;              // Tn
  int minimum = 0;              // Tn * (Cm - 1) + 1
  std::int64_t for_us = 0;      // how long the latest of the holders has been waiting for its client
  std::uint32_t client = 0;     // one of the application that holds most: whatever its adder called it
};

// Collects what is seen at one time, holders first, then decides.  As many different applications
// as fit are looked at; with more of them the answer is no.
class NestedAcquireSearch {
 public:
  static constexpr std::size_t kIdentities = 64;

  // A backend that waits for this client, inside a transaction, since so long.
  void add_holder(std::uint64_t identity, std::uint32_t client, std::int64_t for_us) noexcept;
  // A backend that does something, or could do something for others.
  void add_busy() noexcept { busy_ = true; }
  // A client that is ready and has no backend.
  // True if its application holds backends: it may be waiting for itself.
  bool add_waiter(std::uint64_t identity) noexcept;

  NestedAcquire decide(std::int64_t patience_us) const noexcept;

 private:
  struct Group {
    std::uint64_t identity;
    std::uint32_t client;
    int holders;
    int waiters;
  };

  Group *find(std::uint64_t identity) noexcept;

  Group groups_[kIdentities] = {};
  std::size_t count_ = 0;
  std::int64_t least_for_us_ = INT64_MAX;
  bool busy_ = false;
  bool too_many_ = false;
};

}  // namespace sluice

#endif
