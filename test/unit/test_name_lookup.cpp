// SPDX-License-Identifier: PostgreSQL
//
// Host names in rules, and the board where the dispatcher asks for them.

#include <atomic>
#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

extern "C" {
#include <cmocka.h>
}

#include "core/auth/name_lookup.hpp"

namespace {

using namespace sluice;

NameQuestion reverse_of(std::uint8_t number) {
  NameQuestion question;
  std::memset(&question, 0, sizeof(question));
  question.kind = NameQuestionKind::reverse;
  question.address[7] = number;
  question.address_bytes = 16;
  question.source = {AddressKind::ipv4, number};
  return question;
}

// Of one of the many addresses of a network.
NameQuestion reverse_in_network(std::uint8_t network, std::uint8_t number) {
  NameQuestion question = reverse_of(number);
  question.address[6] = network;
  question.source = {AddressKind::ipv6_network, network};
  return question;
}

NameQuestion forward_of(std::uint8_t number, const char *name) {
  NameQuestion question = reverse_of(number);
  question.kind = NameQuestionKind::forward;
  std::strcpy(question.name, name);
  return question;
}

std::uint32_t ask_at_once(NameBoard &board, const NameQuestion &question) {
  const std::uint32_t slot = ask(board, question);
  hand_out_questions(board);
  return slot;
}

std::uint32_t count_slots(const NameBoard &board, NameSlotState state) {
  std::uint32_t count = 0;
  for (const NameSlot &slot : board.slots)
    if (slot.state.load() == state) count++;
  return count;
}

void sit_down(NameBoard &board, std::uint32_t seat) {
  board.resolvers[seat].state.store(ResolverState::starting);
  assert_true(take_seat(board.resolvers[seat]));
}

int verdict(const char *rule, const char *name, ForwardLookup forward) {
  return static_cast<int>(judge_host_name(rule, HostNameFacts{name, forward}));
}

void names_are_compared_whole_and_without_regard_to_case(void **) {
  assert_true(host_name_matches("db.example", "db.example"));
  assert_true(host_name_matches("DB.example", "db.EXAMPLE"));
  assert_false(host_name_matches("db.example", "db.example.org"));
  assert_false(host_name_matches("db.example", "xdb.example"));
  assert_false(host_name_matches("db.example", "db.exampl"));
  assert_false(host_name_matches("db[example", "db{example"));
  assert_false(host_name_matches("", "a"));
}

void a_dot_in_front_stands_for_all_names_with_that_end(void **) {
  assert_true(host_name_matches(".example.org", "a.example.org"));
  assert_true(host_name_matches(".Example.org", "a.b.eXample.ORG"));
  assert_true(host_name_matches(".example.org", ".example.org"));
  assert_false(host_name_matches(".example.org", "example.org"));
  assert_false(host_name_matches(".example.org", "badexample.org"));
  assert_false(host_name_matches(".example.org", "a.example.org.evil"));
  assert_false(host_name_matches(".example.org", ""));
}

void no_more_is_asked_than_a_rule_needs(void **) {
  const auto no = static_cast<int>(HostNameVerdict::no);
  assert_int_equal(verdict("a", nullptr, ForwardLookup::not_made), static_cast<int>(HostNameVerdict::needs_reverse));
  assert_int_equal(verdict("a", "a", ForwardLookup::not_made), static_cast<int>(HostNameVerdict::needs_forward));
  assert_int_equal(verdict("a", "b", ForwardLookup::not_made), no);
  assert_int_equal(verdict("a", "a", ForwardLookup::matches), static_cast<int>(HostNameVerdict::yes));
  assert_int_equal(verdict(".b", "a.b", ForwardLookup::matches), static_cast<int>(HostNameVerdict::yes));
  assert_int_equal(verdict("b", "a", ForwardLookup::matches), no);
}

void a_failed_or_false_name_matches_nothing(void **) {
  const auto no = static_cast<int>(HostNameVerdict::no);
  assert_int_equal(verdict("a", nullptr, ForwardLookup::failed), no);
  assert_int_equal(verdict("a", "a", ForwardLookup::failed), no);
  assert_int_equal(verdict("a", "a", ForwardLookup::differs), no);
}

void a_zeroed_board_is_empty(void **) {
  const auto board = std::make_unique<NameBoard>();
  assert_int_equal(take_question(*board, 0), kNoNameSlot);
  assert_false(has_questions(*board));
  const ResolverNeed need = count_need(*board);
  assert_int_equal(need.asked + need.wake + need.start + need.present, 0);
}

void a_question_goes_to_one_resolver_and_its_answer_comes_back(void **) {
  const auto board = std::make_unique<NameBoard>();
  const std::uint32_t slot = ask_at_once(*board, reverse_of(1));
  assert_int_not_equal(slot, kNoNameSlot);
  assert_int_equal(take_question(*board, 0), slot);
  assert_int_equal(take_question(*board, 0), kNoNameSlot);
  assert_int_equal(board->slots[slot].question.address[7], 1);
  const std::uint32_t answers = board->answers.load();
  publish_answer(*board, slot);
  assert_int_equal(board->answers.load(), answers + 1);
  assert_true(board->slots[slot].state.load() == NameSlotState::answered);
  assert_true(withdraw(board->slots[slot]));
  assert_true(board->slots[slot].state.load() == NameSlotState::free);
}

void the_same_question_is_found_until_it_is_answered(void **) {
  const auto board = std::make_unique<NameBoard>();
  const std::uint32_t slot = ask(*board, forward_of(1, "a"));
  assert_int_equal(find_question(*board, forward_of(1, "a")), slot);
  assert_int_equal(find_question(*board, forward_of(1, "b")), kNoNameSlot);
  assert_int_equal(find_question(*board, forward_of(2, "a")), kNoNameSlot);
  assert_int_equal(find_question(*board, reverse_of(1)), kNoNameSlot);
  hand_out_questions(*board);
  assert_int_equal(find_question(*board, forward_of(1, "a")), slot);
  (void)take_question(*board, 0);
  assert_int_equal(find_question(*board, forward_of(1, "a")), slot);
  publish_answer(*board, slot);
  assert_int_equal(find_question(*board, forward_of(1, "a")), kNoNameSlot);
}

void a_question_is_withdrawn_only_while_nobody_has_it(void **) {
  const auto board = std::make_unique<NameBoard>();
  const std::uint32_t slot = ask_at_once(*board, reverse_of(1));
  assert_true(withdraw(board->slots[slot]));
  assert_int_equal(take_question(*board, 0), kNoNameSlot);
  assert_int_equal(ask_at_once(*board, reverse_of(2)), slot);
  assert_int_equal(take_question(*board, 0), slot);
  assert_false(withdraw(board->slots[slot]));
  publish_answer(*board, slot);
  assert_true(withdraw(board->slots[slot]));
}

void a_full_board_takes_no_more(void **) {
  const auto board = std::make_unique<NameBoard>();
  for (std::uint32_t i = 0; i < kNameSlots; i++)
    assert_int_not_equal(ask(*board, reverse_of(static_cast<std::uint8_t>(i))), kNoNameSlot);
  assert_int_equal(ask(*board, reverse_of(200)), kNoNameSlot);
  assert_true(withdraw(board->slots[7]));
  assert_int_equal(ask(*board, reverse_of(200)), 7);
}

void what_was_handed_out_is_taken_in_turn(void **) {
  const auto board = std::make_unique<NameBoard>();
  const std::uint32_t first = ask_at_once(*board, reverse_of(1));
  const std::uint32_t second = ask_at_once(*board, reverse_of(2));
  assert_int_equal(take_question(*board, first), second);
  assert_int_equal(take_question(*board, second), first);
}

void resolvers_are_started_for_questions_that_find_none(void **) {
  const auto board = std::make_unique<NameBoard>();
  (void)ask_at_once(*board, reverse_of(1));
  ResolverNeed need = count_need(*board);
  assert_int_equal(need.start, 1);
  assert_int_equal(need.present, 0);
  // One is on its way: that is enough.
  board->resolvers[0].state.store(ResolverState::starting);
  need = count_need(*board);
  assert_int_equal(need.start, 0);
  assert_int_equal(need.present, 1);
  // It is there: it only has to be woken.
  assert_true(take_seat(board->resolvers[0]));
  need = count_need(*board);
  assert_int_equal(need.start, 0);
  assert_int_equal(need.wake, 1);
  // It has got another question.
  board->resolvers[0].state.store(ResolverState::busy);
  need = count_need(*board);
  assert_int_equal(need.start, 1);
  assert_int_equal(need.wake, 0);
}

void no_more_resolvers_are_started_than_there_are_seats(void **) {
  const auto board = std::make_unique<NameBoard>();
  for (std::uint32_t i = 0; i < kNameSlots; i++) (void)ask_at_once(*board, reverse_of(static_cast<std::uint8_t>(i)));
  assert_int_equal(count_need(*board).start, kResolvers);
  for (ResolverSeat &seat : board->resolvers) seat.state.store(ResolverState::busy);
  assert_int_equal(count_need(*board).start, 0);
  assert_int_equal(count_need(*board).asked, kResolvers);
}

void a_seat_is_taken_once_and_only_if_it_was_kept(void **) {
  const auto board = std::make_unique<NameBoard>();
  assert_false(take_seat(board->resolvers[0]));
  board->resolvers[0].state.store(ResolverState::starting);
  assert_true(take_seat(board->resolvers[0]));
  assert_false(take_seat(board->resolvers[0]));
}

void a_resolver_that_ends_gives_its_question_back(void **) {
  const auto board = std::make_unique<NameBoard>();
  const std::uint32_t slot = ask_at_once(*board, reverse_of(1));
  sit_down(*board, 0);
  board->resolvers[0].process.store(5);
  assert_int_equal(take_question(*board, 0), slot);
  const std::uint32_t answers = board->answers.load();
  leave_seat(*board, board->resolvers[0], slot);
  assert_int_equal(board->answers.load(), answers + 1);
  assert_int_equal(board->resolvers[0].process.load(), 0);
  assert_true(has_questions(*board));
  assert_int_equal(count_need(*board).start, 1);
  assert_int_equal(take_question(*board, 0), slot);
}

void a_new_dispatcher_clears_what_its_predecessor_left(void **) {
  const auto board = std::make_unique<NameBoard>();
  const std::uint32_t taken = ask_at_once(*board, reverse_of(1));
  assert_int_equal(take_question(*board, 0), taken);
  const std::uint32_t answered = ask_at_once(*board, reverse_of(2));
  assert_int_equal(take_question(*board, 0), answered);
  publish_answer(*board, answered);
  const std::uint32_t asked = ask_at_once(*board, reverse_of(3));
  const std::uint32_t queued = ask(*board, reverse_of(4));
  board->resolvers[0].state.store(ResolverState::starting);
  board->resolvers[1].state.store(ResolverState::busy);

  reopen_board(*board);
  assert_true(board->slots[queued].state.load() == NameSlotState::free);
  assert_true(board->slots[asked].state.load() == NameSlotState::free);
  assert_true(board->slots[answered].state.load() == NameSlotState::free);
  assert_true(board->slots[taken].state.load() == NameSlotState::taken);
  assert_true(board->resolvers[0].state.load() == ResolverState::free);
  assert_true(board->resolvers[1].state.load() == ResolverState::busy);
}

void a_question_is_taken_only_after_it_was_handed_out(void **) {
  const auto board = std::make_unique<NameBoard>();
  const std::uint32_t slot = ask(*board, reverse_of(1));
  assert_int_equal(take_question(*board, 0), kNoNameSlot);
  assert_false(has_questions(*board));
  assert_true(withdraw(board->slots[slot]));
  assert_int_equal(ask_at_once(*board, reverse_of(1)), slot);
  assert_true(has_questions(*board));
  assert_int_equal(take_question(*board, 0), slot);
}

void no_more_is_handed_out_than_resolvers_can_take(void **) {
  const auto board = std::make_unique<NameBoard>();
  for (std::uint32_t i = 0; i <= kResolvers; i++) (void)ask_at_once(*board, reverse_of(static_cast<std::uint8_t>(i)));
  assert_int_equal(count_need(*board).asked, kResolvers);
  const std::uint32_t taken = take_question(*board, 0);
  hand_out_questions(*board);
  assert_int_equal(count_need(*board).asked, kResolvers - 1);
  publish_answer(*board, taken);
  hand_out_questions(*board);
  assert_int_equal(count_need(*board).asked, kResolvers);
}

void one_network_has_half_of_the_resolvers_at_most(void **) {
  const auto board = std::make_unique<NameBoard>();
  for (std::uint32_t i = 0; i < kSlotsOfAddress; i++)
    assert_int_not_equal(ask_at_once(*board, reverse_in_network(1, static_cast<std::uint8_t>(i))), kNoNameSlot);
  assert_int_equal(count_need(*board).asked, kResolvers / 2);
  assert_int_equal(count_need(*board).start, kResolvers / 2);
  std::uint32_t taken = kNoNameSlot;
  for (std::uint32_t i = 0; i < kResolvers / 2; i++) taken = take_question(*board, 0);
  hand_out_questions(*board);
  assert_int_equal(take_question(*board, 0), kNoNameSlot);
  // Another address is not concerned.
  const std::uint32_t other = ask_at_once(*board, reverse_of(1));
  assert_int_equal(take_question(*board, 0), other);
  hand_out_questions(*board);
  assert_int_equal(take_question(*board, 0), kNoNameSlot);
  // One answer, one more question.
  publish_answer(*board, taken);
  hand_out_questions(*board);
  assert_int_not_equal(take_question(*board, 0), kNoNameSlot);
  assert_int_equal(take_question(*board, 0), kNoNameSlot);
}

void one_network_has_a_quarter_of_the_slots_at_most(void **) {
  const auto board = std::make_unique<NameBoard>();
  std::uint32_t last = kNoNameSlot;
  for (std::uint32_t i = 0; i < kNameSlots / 4; i++) {
    last = ask(*board, reverse_in_network(1, static_cast<std::uint8_t>(i)));
    assert_int_not_equal(last, kNoNameSlot);
  }
  assert_int_equal(ask(*board, reverse_in_network(1, 200)), kNoNameSlot);
  assert_int_not_equal(ask(*board, reverse_in_network(2, 200)), kNoNameSlot);
  assert_int_not_equal(ask(*board, reverse_of(1)), kNoNameSlot);
  assert_true(withdraw(board->slots[last]));
  assert_int_equal(ask(*board, reverse_in_network(1, 200)), last);
}

void what_nobody_waits_for_counts_until_it_is_cleared(void **) {
  const auto board = std::make_unique<NameBoard>();
  for (std::uint32_t i = 0; i < kSlotsOfAddress; i++)
    (void)ask_at_once(*board, reverse_in_network(1, static_cast<std::uint8_t>(i)));
  const std::uint32_t taken = take_question(*board, 0);
  assert_false(withdraw(board->slots[taken]));
  assert_int_equal(ask(*board, reverse_in_network(1, 200)), kNoNameSlot);
  publish_answer(*board, taken);
  assert_int_equal(ask(*board, reverse_in_network(1, 200)), kNoNameSlot);
  assert_true(withdraw(board->slots[taken]));
  assert_int_equal(ask(*board, reverse_in_network(1, 200)), taken);
}

void many_networks_leave_slots_to_others(void **) {
  const auto board = std::make_unique<NameBoard>();
  for (std::uint8_t i = 0; i < kNameSlots; i++)
    for (std::uint8_t network = 1; network <= 10; network++) (void)ask(*board, reverse_in_network(network, i));
  const std::uint32_t vacant = count_slots(*board, NameSlotState::free);
  assert_true(vacant >= 1);
  for (std::uint8_t i = 0; i < vacant; i++) assert_int_not_equal(ask(*board, reverse_of(i)), kNoNameSlot);
  assert_int_equal(ask(*board, reverse_of(200)), kNoNameSlot);
}

void who_has_fewest_in_hand_comes_first(void **) {
  const auto board = std::make_unique<NameBoard>();
  // Two networks have all resolvers, and more on the board.
  for (std::uint8_t i = 0; i < 4; i++) {
    (void)ask(*board, reverse_in_network(1, i));
    (void)ask(*board, reverse_in_network(2, i));
  }
  hand_out_questions(*board);
  std::uint32_t taken[kResolvers];
  for (std::uint32_t &slot : taken) {
    slot = take_question(*board, 0);
    assert_int_not_equal(slot, kNoNameSlot);
  }
  const std::uint32_t late = ask_at_once(*board, reverse_of(9));
  const std::uint32_t later = ask_at_once(*board, reverse_of(8));
  assert_int_equal(take_question(*board, 0), kNoNameSlot);
  publish_answer(*board, taken[0]);
  hand_out_questions(*board);
  assert_int_equal(take_question(*board, 0), late);
  publish_answer(*board, taken[1]);
  hand_out_questions(*board);
  assert_int_equal(take_question(*board, 0), later);
}

void who_came_first_comes_first_among_equals(void **) {
  const auto board = std::make_unique<NameBoard>();
  std::uint32_t former[kResolvers];
  for (std::uint32_t i = 0; i < kResolvers; i++) former[i] = ask(*board, reverse_of(static_cast<std::uint8_t>(i)));
  hand_out_questions(*board);
  for (std::uint32_t i = 0; i < kResolvers; i++) (void)take_question(*board, 0);
  const std::uint32_t first = ask_at_once(*board, reverse_of(100));
  publish_answer(*board, former[0]);
  assert_true(withdraw(board->slots[former[0]]));
  // It has a slot before the other's.
  const std::uint32_t second = ask(*board, reverse_of(101));
  assert_true(second < first);
  hand_out_questions(*board);
  assert_int_equal(take_question(*board, 0), first);
  assert_int_equal(take_question(*board, 0), kNoNameSlot);
}

void what_a_resolver_gave_back_is_still_in_hand(void **) {
  const auto board = std::make_unique<NameBoard>();
  for (std::uint8_t i = 0; i < 4; i++) (void)ask_at_once(*board, reverse_in_network(1, i));
  const std::uint32_t slot = take_question(*board, 0);
  sit_down(*board, 0);
  leave_seat(*board, board->resolvers[0], slot);
  hand_out_questions(*board);
  assert_int_equal(count_need(*board).asked, kResolversOfAddress);
}

// As much as may be is asked for by a network whose name service answers now and then.
void limits_hold_while_resolvers_come_and_go(void **) {
  constexpr std::uint32_t kAnswers = 20000;
  const auto board = std::make_unique<NameBoard>();
  std::atomic<std::uint32_t> in_hand{0};
  std::atomic<std::uint32_t> exceeded{0};
  std::atomic<bool> done{false};
  std::vector<std::thread> resolvers;

  for (std::uint32_t i = 0; i < kResolvers; i++)
    resolvers.emplace_back([&board, &in_hand, &exceeded, &done] {
      std::uint32_t last = 0;
      while (!done.load()) {
        const std::uint32_t slot = take_question(*board, last);
        if (slot == kNoNameSlot) {
          std::this_thread::yield();
          continue;
        }
        if (in_hand.fetch_add(1) >= kResolversOfAddress) exceeded.fetch_add(1);
        std::this_thread::yield();
        in_hand.fetch_sub(1);
        last = slot;
        publish_answer(*board, slot);
      }
    });

  std::uint8_t number = 0;
  while (board->answers.load() < kAnswers) {
    for (NameSlot &slot : board->slots)
      if (slot.state.load() == NameSlotState::answered) (void)withdraw(slot);
    while (ask(*board, reverse_in_network(1, number)) != kNoNameSlot) number++;
    hand_out_questions(*board);
    if (kNameSlots - count_slots(*board, NameSlotState::free) > kSlotsOfAddress) exceeded.fetch_add(1);
    std::this_thread::yield();
  }
  done.store(true);
  for (std::thread &resolver : resolvers) resolver.join();
  assert_int_equal(exceeded.load(), 0);
}

// Threads stand in for resolvers.  Every answer belongs to the question that was asked,
// although the dispatcher withdraws and asks anew all the time.
void answers_belong_to_their_questions(void **) {
  constexpr std::uint32_t kRounds = 20000;
  const auto board = std::make_unique<NameBoard>();
  std::atomic<bool> done{false};
  std::vector<std::thread> resolvers;

  for (std::uint32_t i = 0; i < kResolvers; i++)
    resolvers.emplace_back([&board, &done] {
      std::uint32_t last = 0;
      while (!done.load()) {
        const std::uint32_t slot = take_question(*board, last);
        if (slot == kNoNameSlot) {
          std::this_thread::yield();
          continue;
        }
        board->slots[slot].answer.error = board->slots[slot].question.address[7];
        last = slot;
        publish_answer(*board, slot);
      }
    });

  std::uint32_t wrong = 0;
  std::uint32_t answered = 0;
  for (std::uint32_t round = 0; round < kRounds || answered == 0; round++) {
    const auto number = static_cast<std::uint8_t>(round % 251);
    const std::uint32_t slot = ask_at_once(*board, reverse_of(number));
    if (slot != kNoNameSlot) {
      if (round % 3 == 0 && withdraw(board->slots[slot])) continue;
      while (board->slots[slot].state.load() != NameSlotState::answered) std::this_thread::yield();
      if (board->slots[slot].answer.error != number) wrong++;
      answered++;
      (void)withdraw(board->slots[slot]);
    }
  }
  done.store(true);
  for (std::thread &resolver : resolvers) resolver.join();
  assert_int_equal(wrong, 0);
  for (const NameSlot &slot : board->slots) assert_true(slot.state.load() == NameSlotState::free);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(names_are_compared_whole_and_without_regard_to_case),
      cmocka_unit_test(a_dot_in_front_stands_for_all_names_with_that_end),
      cmocka_unit_test(no_more_is_asked_than_a_rule_needs),
      cmocka_unit_test(a_failed_or_false_name_matches_nothing),
      cmocka_unit_test(a_zeroed_board_is_empty),
      cmocka_unit_test(a_question_goes_to_one_resolver_and_its_answer_comes_back),
      cmocka_unit_test(the_same_question_is_found_until_it_is_answered),
      cmocka_unit_test(a_question_is_withdrawn_only_while_nobody_has_it),
      cmocka_unit_test(a_full_board_takes_no_more),
      cmocka_unit_test(what_was_handed_out_is_taken_in_turn),
      cmocka_unit_test(resolvers_are_started_for_questions_that_find_none),
      cmocka_unit_test(no_more_resolvers_are_started_than_there_are_seats),
      cmocka_unit_test(a_seat_is_taken_once_and_only_if_it_was_kept),
      cmocka_unit_test(a_resolver_that_ends_gives_its_question_back),
      cmocka_unit_test(a_new_dispatcher_clears_what_its_predecessor_left),
      cmocka_unit_test(a_question_is_taken_only_after_it_was_handed_out),
      cmocka_unit_test(no_more_is_handed_out_than_resolvers_can_take),
      cmocka_unit_test(one_network_has_half_of_the_resolvers_at_most),
      cmocka_unit_test(one_network_has_a_quarter_of_the_slots_at_most),
      cmocka_unit_test(what_nobody_waits_for_counts_until_it_is_cleared),
      cmocka_unit_test(many_networks_leave_slots_to_others),
      cmocka_unit_test(who_has_fewest_in_hand_comes_first),
      cmocka_unit_test(who_came_first_comes_first_among_equals),
      cmocka_unit_test(what_a_resolver_gave_back_is_still_in_hand),
      cmocka_unit_test(limits_hold_while_resolvers_come_and_go),
      cmocka_unit_test(answers_belong_to_their_questions),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
