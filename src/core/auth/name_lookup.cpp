// SPDX-License-Identifier: PostgreSQL
#include "core/auth/name_lookup.hpp"

#include <cstring>

namespace sluice {

namespace {

char lower(char letter) noexcept {
  return letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter - 'A' + 'a') : letter;
}

bool same_letters(const char *left, const char *right) noexcept {
  while (*left != '\0' && lower(*left) == lower(*right)) {
    left++;
    right++;
  }
  return lower(*left) == lower(*right);
}

bool same_question(const NameQuestion &left, const NameQuestion &right) noexcept {
  return left.kind == right.kind && left.address_bytes == right.address_bytes &&
         std::memcmp(left.address, right.address, sizeof(left.address)) == 0 &&
         std::strncmp(left.name, right.name, sizeof(left.name)) == 0;
}

bool same_source(const NameQuestion &left, const NameQuestion &right) noexcept {
  return left.source.kind == right.source.kind && left.source.value == right.source.value;
}

// What is in hand, as it was a moment ago.  Only the dispatcher adds to it.
struct Hands {
  NameSlotState states[kNameSlots];
  std::uint32_t used = 0;

  explicit Hands(const NameBoard &board) noexcept {
    for (std::uint32_t i = 0; i < kNameSlots; i++) {
      states[i] = board.slots[i].state.load();
      if (has(i)) used++;
    }
  }
  bool has(std::uint32_t slot) const noexcept {
    return states[slot] == NameSlotState::asked || states[slot] == NameSlotState::taken;
  }
  std::uint32_t count_like(const NameBoard &board, const NameQuestion &question) const noexcept {
    std::uint32_t count = 0;
    for (std::uint32_t i = 0; i < kNameSlots; i++)
      if (has(i) && same_source(board.slots[i].question, question)) count++;
    return count;
  }
};

// The queued question whose turn it is; kNoNameSlot if none may be handed out.
std::uint32_t find_next(const NameBoard &board, const Hands &hands) noexcept {
  std::uint32_t best = kNoNameSlot;
  std::uint32_t fewest = kResolversOfAddress;
  for (std::uint32_t i = 0; i < kNameSlots; i++) {
    if (hands.states[i] != NameSlotState::queued) continue;
    const NameSlot &slot = board.slots[i];
    const std::uint32_t count = hands.count_like(board, slot.question);
    const bool is_earlier = best != kNoNameSlot && count == fewest && slot.turn < board.slots[best].turn;
    if (count >= fewest && !is_earlier) continue;
    best = i;
    fewest = count;
  }
  return best;
}

}  // namespace

bool host_name_matches(const char *rule, const char *name) noexcept {
  if (rule[0] != '.') return same_letters(rule, name);
  const std::size_t suffix_length = std::strlen(rule);
  const std::size_t length = std::strlen(name);
  return length >= suffix_length && same_letters(rule, name + (length - suffix_length));
}

HostNameVerdict judge_host_name(const char *rule, const HostNameFacts &facts) noexcept {
  if (facts.forward == ForwardLookup::failed || facts.forward == ForwardLookup::differs) return HostNameVerdict::no;
  if (facts.name == nullptr) return HostNameVerdict::needs_reverse;
  if (!host_name_matches(rule, facts.name)) return HostNameVerdict::no;
  return facts.forward == ForwardLookup::matches ? HostNameVerdict::yes : HostNameVerdict::needs_forward;
}

std::uint32_t find_question(const NameBoard &board, const NameQuestion &question) noexcept {
  for (std::uint32_t i = 0; i < kNameSlots; i++) {
    const NameSlotState state = board.slots[i].state.load();
    // Only the dispatcher writes questions, and only the dispatcher comes here.
    if (state == NameSlotState::free || state == NameSlotState::answered) continue;
    if (same_question(board.slots[i].question, question)) return i;
  }
  return kNoNameSlot;
}

std::uint32_t ask(NameBoard &board, const NameQuestion &question) noexcept {
  std::uint32_t place = kNoNameSlot;
  std::uint32_t vacant = 0;
  std::uint32_t own = 0;
  for (std::uint32_t i = 0; i < kNameSlots; i++) {
    const NameSlot &slot = board.slots[i];
    if (slot.state.load() == NameSlotState::free) {
      if (vacant++ == 0) place = i;
    } else if (same_source(slot.question, question)) {
      own++;
    }
  }
  if (own >= vacant || own >= kSlotsOfAddress) return kNoNameSlot;
  NameSlot &slot = board.slots[place];
  slot.question = question;
  slot.turn = board.turns++;
  slot.state.store(NameSlotState::queued);
  return place;
}

void hand_out_questions(NameBoard &board) noexcept {
  Hands hands(board);
  for (; hands.used < kResolvers; hands.used++) {
    const std::uint32_t next = find_next(board, hands);
    if (next == kNoNameSlot) return;
    board.slots[next].state.store(NameSlotState::asked);
    hands.states[next] = NameSlotState::asked;
  }
}

bool withdraw(NameSlot &slot) noexcept {
  // Nobody else leaves this state.
  if (slot.state.load() == NameSlotState::queued) {
    slot.state.store(NameSlotState::free);
    return true;
  }
  NameSlotState state = NameSlotState::asked;
  if (slot.state.compare_exchange_strong(state, NameSlotState::free)) return true;
  if (state != NameSlotState::answered) return state == NameSlotState::free;
  slot.state.store(NameSlotState::free);
  return true;
}

ResolverNeed count_need(const NameBoard &board) noexcept {
  ResolverNeed need{0, 0, 0, 0};
  std::uint32_t idle = 0;
  std::uint32_t starting = 0;
  std::uint32_t busy = 0;

  for (const NameSlot &slot : board.slots)
    if (slot.state.load() == NameSlotState::asked) need.asked++;
  for (const ResolverSeat &seat : board.resolvers) {
    switch (seat.state.load()) {
      case ResolverState::free:
        break;
      case ResolverState::starting:
        starting++;
        break;
      case ResolverState::idle:
        idle++;
        break;
      case ResolverState::busy:
        busy++;
        break;
    }
  }
  need.present = starting + idle + busy;
  need.wake = need.asked < idle ? need.asked : idle;
  const std::uint32_t served = idle + starting;
  const std::uint32_t unserved = need.asked > served ? need.asked - served : 0;
  const std::uint32_t vacant = kResolvers - need.present;
  need.start = unserved < vacant ? unserved : vacant;
  return need;
}

void reopen_board(NameBoard &board) noexcept {
  for (NameSlot &slot : board.slots) (void)withdraw(slot);
  for (ResolverSeat &seat : board.resolvers) {
    ResolverState state = ResolverState::starting;
    (void)seat.state.compare_exchange_strong(state, ResolverState::free);
  }
}

bool take_seat(ResolverSeat &seat) noexcept {
  ResolverState state = ResolverState::starting;
  return seat.state.compare_exchange_strong(state, ResolverState::idle);
}

std::uint32_t take_question(NameBoard &board, std::uint32_t last) noexcept {
  for (std::uint32_t i = 1; i <= kNameSlots; i++) {
    const std::uint32_t index = (last + i) % kNameSlots;
    NameSlotState state = NameSlotState::asked;
    if (board.slots[index].state.compare_exchange_strong(state, NameSlotState::taken)) return index;
  }
  return kNoNameSlot;
}

bool has_questions(const NameBoard &board) noexcept {
  for (const NameSlot &slot : board.slots)
    if (slot.state.load() == NameSlotState::asked) return true;
  return false;
}

void publish_answer(NameBoard &board, std::uint32_t slot) noexcept {
  board.slots[slot].state.store(NameSlotState::answered);
  board.answers.fetch_add(1);
}

void leave_seat(NameBoard &board, ResolverSeat &seat, std::uint32_t slot) noexcept {
  if (slot != kNoNameSlot) board.slots[slot].state.store(NameSlotState::asked);
  seat.process.store(0);
  seat.state.store(ResolverState::free);
  board.answers.fetch_add(1);
}

}  // namespace sluice
