// SPDX-License-Identifier: PostgreSQL
//
// Host names of clients: what a rule of pg_hba.conf that names a host wants to
// know, and the board through which the dispatcher has it found out.
//
// Why a board.  Whether such a rule fits depends on two questions to a name
// service: which name has the client's address (reverse), and has that name this
// address (forward)?  Either can take seconds, and the dispatcher serves everybody.
// So it writes the question into a slot of the board, in shared memory, and goes
// on; a resolver, a process that is started for that purpose, takes it from there,
// waits for the name service, and writes the answer into the same slot.  A slot
// has a fixed size and is reached by index; a question is the same for all clients
// of one address, so that one slot serves all of them that wait.
//
// Why turns.  Who owns a range of addresses owns the name service for it as well, and
// can let it never answer.  If resolvers took whatever is on the board, the addresses
// of one such network would soon have all resolvers, and all slots, and every login
// that needs a name would wait with them until authentication_timeout.  So questions
// are counted by what core/accept/address_key.hpp takes for one address (a /64 of IPv6),
// and the dispatcher hands out to resolvers no more than they can work on:
//   - those of one address to at most half of the resolvers;
//   - first those of the address that has fewest in hand, then those that came first.
// And one address has at most a quarter of the slots, and no more of them than are free
// besides, so that several such addresses leave slots to others.  What has no slot is
// asked again when one has become free.
//
// States of a slot, and who changes them
//
//             ask              hand out           take              answer
//     free ─────────► queued ──────────► asked ─────────► taken ─────────────► answered
//      ▲  dispatcher    │   dispatcher     │ ▲  resolver    │     resolver        │
//      │                │                  │ └──────────────┘                     │
//      │    withdraw    │     withdraw     │     give_back (a resolver ends)      │     clear
//      └────────────────┴──────────────────┴──────────────────────────────────────┘  dispatcher
//
//   The question is written by the dispatcher while the slot is free, the answer by
//   the resolver that has taken it.  `asked` is the only state that two may want to
//   leave: a compare-and-set decides.  A taken slot is left alone by the dispatcher,
//   even if nobody waits for the answer any more: it clears it later, and until it is
//   answered it counts as in hand.  In hand are `asked` and `taken`.
//
// States of a resolver's seat
//
//     free ─────────► starting ─────────► idle ◄───────► busy
//      ▲  dispatcher     │    resolver      │  resolver    │
//      └─────────────────┴──────────────────┴──────────────┘
//        dispatcher: it could not start;  resolver: it ends
//
// Races, and their answers
//   two resolvers, one question       compare-and-set from `asked`
//   two resolvers, two questions of one address
//                                     resolvers do not count: only the dispatcher puts a
//                                     question in hand, so that no two do it at a time
//   a resolver answers while the dispatcher counts what is in hand
//                                     it counts one too many, and hands out too little; the
//                                     resolver wakes it after the answer, and it counts again
//   a slot is withdrawn and asked anew between a resolver's look and its take:
//                                     it reads the question only after it has won, so it
//                                     has the new one
//   a question is asked while a resolver goes to sleep
//                                     the dispatcher hands out, then looks who is idle;
//                                     the resolver makes itself idle, then looks for questions:
//                                     one sees the other
//   a question is asked, and left to an idle resolver that just takes another one
//                                     the resolver makes itself busy, then looks whether there
//                                     are questions left; if so it wakes the dispatcher
//   a question is asked while an idle resolver ends
//                                     a resolver that leaves its seat wakes the dispatcher,
//                                     which compares questions with resolvers again
//   a resolver ends with a question   it gives it back before it leaves its seat
//   the dispatcher is started again   it withdraws and clears what its predecessor has left;
//                                     what is still taken counts as in hand, and is cleared when
//                                     it is answered.  A seat
//                                     left `starting` becomes free: a process that comes for it
//                                     all the same finds it not `starting`, and ends, or sits down
//                                     in the place of the new one, which then ends
//   All accesses are sequentially consistent, as the third answer needs.  Nothing here
//   is done often.
//
// Not promised: that nobody is kept waiting.  As many addresses as there are resolvers,
// each with a name service that never answers, have them all until the system's
// resolver gives up (resolv.conf(5)); then those come first that have fewest in hand.
// Nor the order in which resolvers take what has been handed out: as they find it, from
// the slot where they found the last one.

#ifndef SLUICE_CORE_AUTH_NAME_LOOKUP_HPP
#define SLUICE_CORE_AUTH_NAME_LOOKUP_HPP

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "core/accept/address_key.hpp"

namespace sluice {

// ---------------------------------------------------------------- what is known about a client's name

// As the server keeps it in Port::remote_hostname_resolv.
enum class ForwardLookup : std::int8_t {
  failed = -2,        // this one, or the reverse look-up if there is no name
  differs = -1,       // the name has other addresses than the client's
  not_made = 0,
  matches = 1,
};

struct HostNameFacts {
  const char *name;  // of the client's address; null: not looked up, or without success
  ForwardLookup forward;
};

enum class HostNameVerdict : std::uint8_t { no, yes, needs_reverse, needs_forward };

// Does the host name of a rule stand for `name`?  One that begins with a dot stands
// for all names that end in it.  Upper and lower case of ASCII letters are the same.
bool host_name_matches(const char *rule, const char *name) noexcept;

// Does the rule's host name stand for the client, or what has to be asked first?  The
// forward look-up is made only for a name that a rule has.  A failed or false name
// matches no rule.
HostNameVerdict judge_host_name(const char *rule, const HostNameFacts &facts) noexcept;

// ---------------------------------------------------------------- the board

constexpr std::uint32_t kNameSlots = 32;
constexpr std::uint32_t kResolvers = 4;           // that may run at a time
constexpr std::size_t kHostNameBytes = 1025;      // NI_MAXHOST, asserted in pg/auth/name_board.cpp
constexpr std::size_t kSocketAddressBytes = 128;  // sockaddr_storage, asserted there
constexpr std::uint32_t kNoNameSlot = kNameSlots;
constexpr std::uint32_t kSlotsOfAddress = kNameSlots / 4;     // that questions of one AddressKey may have
constexpr std::uint32_t kResolversOfAddress = kResolvers / 2;  // that may work for one AddressKey
static_assert(kSlotsOfAddress > 0 && kResolversOfAddress > 0, "or its questions would never be answered");

enum class NameQuestionKind : std::uint32_t { reverse, forward };

// Begin with a zeroed one: addresses are compared as bytes.
struct NameQuestion {
  alignas(8) unsigned char address[kSocketAddressBytes];  // the client's, as the system has it, port 0
  std::uint32_t address_bytes;
  NameQuestionKind kind;
  AddressKey source;          // of the address: as what the question is counted
  char name[kHostNameBytes];  // forward only
};

struct NameAnswer {
  std::int32_t error;  // of getnameinfo(), getaddrinfo(); 0 = none
  bool matches;        // forward: one of the name's addresses is the client's
  char name[kHostNameBytes];  // reverse
};

enum class NameSlotState : std::uint32_t { free = 0, queued, asked, taken, answered };

struct NameSlot {
  std::atomic<NameSlotState> state;
  std::uint64_t turn;  // the dispatcher's: which of two came first
  NameQuestion question;
  NameAnswer answer;
};

enum class ResolverState : std::uint32_t { free = 0, starting, idle, busy };

struct ResolverSeat {
  std::atomic<ResolverState> state;
  std::atomic<std::uint32_t> process;  // number in the server's array of processes, plus 1; 0 = none
};

// All zero is an empty board.
struct NameBoard {
  std::atomic<std::uint32_t> answers;  // grows with each answer, and with each resolver that leaves
  std::uint64_t turns;                 // the dispatcher's: questions so far
  ResolverSeat resolvers[kResolvers];
  NameSlot slots[kNameSlots];
};
static_assert(std::is_standard_layout_v<NameBoard> && std::is_trivially_destructible_v<NameBoard>);
static_assert(std::is_trivially_copyable_v<NameQuestion> && std::is_trivially_copyable_v<NameAnswer>);
static_assert(std::atomic<NameSlotState>::is_always_lock_free && std::atomic<ResolverState>::is_always_lock_free);
static_assert(std::atomic<std::uint32_t>::is_always_lock_free);

// --- the dispatcher's part

// The slot where the same is already being asked, else kNoNameSlot.  What has been
// answered is not found: nobody gets the answer of a look-up that ended before he asked.
// One under way may be older than all who wait for it: what a resolver has taken is
// found even if those who asked have gone.
std::uint32_t find_question(const NameBoard &board, const NameQuestion &question) noexcept;

// Writes the question into a free slot, to be handed out; kNoNameSlot if there is none
// for a question of that source.
std::uint32_t ask(NameBoard &board, const NameQuestion &question) noexcept;

// For a question nobody waits for any more: true when the slot has become free, false
// while a resolver has it.
bool withdraw(NameSlot &slot) noexcept;

// Lets resolvers have the questions whose turn it is.  To be called before count_need()
// whenever something was asked, answered or withdrawn.
void hand_out_questions(NameBoard &board) noexcept;

// What to do about resolvers now.
struct ResolverNeed {
  std::uint32_t asked;    // questions handed out that nobody has taken
  std::uint32_t wake;     // idle resolvers to be woken: as many of them as there are questions
  std::uint32_t start;    // seats to be filled; there are that many free ones
  std::uint32_t present;  // starting, idle or busy
};
ResolverNeed count_need(const NameBoard &board) noexcept;

// A dispatcher begins: see the races.
void reopen_board(NameBoard &board) noexcept;

// --- a resolver's part

// True if the seat was kept for a process that starts; it is then idle.
bool take_seat(ResolverSeat &seat) noexcept;

// A question that has been handed out, from the slot after `last` on; kNoNameSlot if
// there is none.
std::uint32_t take_question(NameBoard &board, std::uint32_t last) noexcept;

// Has somebody to be found for more of those handed out?  To be called after the seat became busy.
bool has_questions(const NameBoard &board) noexcept;

void publish_answer(NameBoard &board, std::uint32_t slot) noexcept;

// The resolver of `seat` ends; `slot` is what it has taken and not answered, or kNoNameSlot.
void leave_seat(NameBoard &board, ResolverSeat &seat, std::uint32_t slot) noexcept;

}  // namespace sluice

#endif
