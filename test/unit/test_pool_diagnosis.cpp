// SPDX-License-Identifier: PostgreSQL
//
// What fills a pool: each cause as a sentence, then which of two goes first.

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <csetjmp>

extern "C" {
#include <cmocka.h>
}

#include "core/stats/pool_diagnosis.hpp"

namespace {

using namespace sluice;

constexpr std::int64_t kSecondUs = 1'000'000;
constexpr std::uint32_t kMine = 3;
constexpr std::uint32_t kOther = 5;
constexpr std::size_t kMostHeld = 64;

// A pool of ten on a server with room for a hundred, on four cores.
struct Scene {
  HeldBackend held[kMostHeld];
  PoolObservation seen;

  Scene() {
    seen.pool = kMine;
    seen.held = held;
    seen.max_size = 10;
    seen.waiting = 3;
    seen.max_backends = 100;
    seen.cores = 4.0;
  }

  HeldBackend &add(HolderState state, WaitClass wait = WaitClass::none, std::uint32_t pool = kMine) {
    HeldBackend &backend = held[seen.held_count];
    backend.pool = pool;
    backend.pid = 1000 + static_cast<std::int32_t>(seen.held_count);
    backend.state = state;
    backend.wait = wait;
    backend.age_us = kSecondUs;
    seen.held_count++;
    seen.server_backends++;
    return backend;
  }
  void add(int count, HolderState state, WaitClass wait = WaitClass::none, std::uint32_t pool = kMine) {
    for (int i = 0; i < count; i++) add(state, wait, pool);
  }
  void add_blocked(int count, std::int32_t pid, BlockerActivity activity) {
    for (int i = 0; i < count; i++) {
      HeldBackend &backend = add(HolderState::executing, WaitClass::lock);
      backend.blocker.known = true;
      backend.blocker.pid = pid;
      backend.blocker.activity = activity;
      backend.blocker.age_us = 41 * kSecondUs;
    }
  }
  void fill_server() { seen.max_backends = seen.server_backends; }
  PoolDiagnosis judge() const { return diagnose_pool(seen); }
};

int count_of(const PoolDiagnosis &diagnosis, PoolCause cause) {
  return diagnosis.counts[static_cast<std::size_t>(cause)];
}

void assert_verdict(const PoolDiagnosis &diagnosis, PoolCause cause, MoreBackends more, PoolAdvice advice) {
  assert_string_equal(describe(diagnosis.cause), describe(cause));
  assert_int_equal(static_cast<int>(diagnosis.more_backends_help), static_cast<int>(more));
  assert_int_equal(static_cast<int>(diagnosis.advice), static_cast<int>(advice));
}

// ------------------------------------------------------------------ which limit binds

void pool_with_room_is_not_full(void **) {
  Scene scene;
  scene.add(9, HolderState::executing);
  assert_verdict(scene.judge(), PoolCause::not_full, MoreBackends::no, PoolAdvice::none);
  assert_int_equal(scene.judge().in_use, 9);
  assert_int_equal(scene.judge().max_size, 10);
  assert_int_equal(static_cast<int>(scene.judge().scope), static_cast<int>(DiagnosisScope::none));
}

void pool_with_an_idle_backend_is_not_full(void **) {
  Scene scene;
  scene.add(10, HolderState::executing);
  scene.seen.idle = 1;
  scene.fill_server();
  assert_verdict(scene.judge(), PoolCause::not_full, MoreBackends::no, PoolAdvice::none);
}

void pool_without_anything_is_not_full(void **) {
  Scene scene;
  assert_verdict(scene.judge(), PoolCause::not_full, MoreBackends::no, PoolAdvice::none);
}

void resting_backends_do_not_fill_a_pool(void **) {
  Scene scene;
  scene.add(8, HolderState::thinking);
  scene.add(8, HolderState::pinned);
  scene.add(9, HolderState::executing);
  assert_verdict(scene.judge(), PoolCause::not_full, MoreBackends::no, PoolAdvice::none);
  scene.add(HolderState::executing);
  const PoolDiagnosis full = scene.judge();
  assert_int_equal(static_cast<int>(full.scope), static_cast<int>(DiagnosisScope::pool));
  assert_int_equal(full.counted, 10);
  assert_int_equal(full.affected, 10);
  assert_int_equal(full.in_use, 26);
}

void resting_backends_fill_the_server(void **) {
  Scene scene;
  scene.add(8, HolderState::thinking);
  scene.add(2, HolderState::executing);
  scene.fill_server();
  const PoolDiagnosis full = scene.judge();
  assert_int_equal(static_cast<int>(full.scope), static_cast<int>(DiagnosisScope::server));
  assert_int_equal(full.counted, 10);
  assert_verdict(full, PoolCause::idle_in_transaction, MoreBackends::no, PoolAdvice::end_idle_transactions);
}

void limit_of_the_pool_goes_before_that_of_the_server(void **) {
  Scene scene;
  scene.seen.max_size = 2;
  scene.add(2, HolderState::executing, WaitClass::timeout);
  scene.add(8, HolderState::thinking);
  scene.fill_server();
  const PoolDiagnosis full = scene.judge();
  assert_int_equal(static_cast<int>(full.scope), static_cast<int>(DiagnosisScope::pool));
  assert_int_equal(full.counted, 2);
  assert_verdict(full, PoolCause::waiting_elsewhere, MoreBackends::perhaps, PoolAdvice::raise_both);
}

void backends_of_other_pools_are_in_the_way_on_a_full_server_only(void **) {
  Scene scene;
  scene.seen.max_size = 1;
  scene.add(HolderState::executing, WaitClass::io);
  scene.add(6, HolderState::executing, WaitClass::timeout, kOther);
  assert_int_equal(scene.judge().counted, 1);
  assert_string_equal(describe(scene.judge().cause), describe(PoolCause::io_bound));
  scene.seen.max_size = 2;
  scene.fill_server();
  const PoolDiagnosis full = scene.judge();
  assert_int_equal(full.counted, 7);
  assert_verdict(full, PoolCause::waiting_elsewhere, MoreBackends::perhaps, PoolAdvice::raise_max_backends);
  assert_int_equal(full.worst_pool, kOther);
  assert_int_equal(full.in_worst_pool, 6);
}

void server_full_of_idle_backends_of_other_pools_is_told(void **) {
  Scene scene;
  scene.seen.server_backends = 100;
  scene.seen.idle_elsewhere = 100;
  assert_verdict(scene.judge(), PoolCause::server_full, MoreBackends::perhaps, PoolAdvice::raise_max_backends);
  scene.seen.idle_elsewhere = 0;  // all of them are starting or leaving
  assert_verdict(scene.judge(), PoolCause::server_full, MoreBackends::perhaps, PoolAdvice::raise_max_backends);
  scene.seen.idle_elsewhere = 100;
  scene.seen.waiting = 0;
  assert_verdict(scene.judge(), PoolCause::not_full, MoreBackends::no, PoolAdvice::none);
}

void idle_backends_of_other_pools_do_not_fill_the_server(void **) {
  Scene scene;
  scene.seen.max_size = 2;
  scene.add(2, HolderState::executing, WaitClass::timeout);
  scene.seen.server_backends += 2;
  scene.fill_server();
  assert_verdict(scene.judge(), PoolCause::waiting_elsewhere, MoreBackends::perhaps, PoolAdvice::raise_both);
  scene.seen.idle_elsewhere = 2;
  assert_verdict(scene.judge(), PoolCause::waiting_elsewhere, MoreBackends::perhaps, PoolAdvice::raise_max_pool_size);
}

// ------------------------------------------------------------------ locks

void convoy_names_the_head_and_what_it_does(void **) {
  Scene scene;
  scene.add_blocked(9, 4711, BlockerActivity::idle_in_transaction);
  scene.add(HolderState::executing);
  const PoolDiagnosis diagnosis = scene.judge();
  assert_verdict(diagnosis, PoolCause::lock_convoy, MoreBackends::no, PoolAdvice::end_blocking_transaction);
  assert_int_equal(diagnosis.affected, 9);
  assert_int_equal(diagnosis.counted, 10);
  assert_int_equal(diagnosis.pid, 4711);
  assert_int_equal(diagnosis.blocked, 9);
  assert_int_equal(diagnosis.chains, 9);
  assert_int_equal(diagnosis.age_us, 41 * kSecondUs);
}

void blocker_that_executes_is_to_be_stopped(void **) {
  Scene scene;
  scene.add_blocked(10, 4711, BlockerActivity::executing);
  assert_verdict(scene.judge(), PoolCause::lock_convoy, MoreBackends::no, PoolAdvice::stop_blocker);
}

void blocker_that_holds_a_session_lock_is_to_be_stopped(void **) {
  Scene scene;
  scene.add_blocked(10, 4711, BlockerActivity::idle);
  assert_verdict(scene.judge(), PoolCause::lock_convoy, MoreBackends::no, PoolAdvice::stop_blocker);
}

void prepared_transaction_is_to_be_finished(void **) {
  Scene scene;
  scene.add_blocked(10, 0, BlockerActivity::prepared);
  assert_verdict(scene.judge(), PoolCause::lock_convoy, MoreBackends::no, PoolAdvice::finish_prepared);
  assert_int_equal(scene.judge().pid, 0);
}

void of_two_blockers_the_one_with_more_behind_it_matters(void **) {
  Scene scene;
  scene.add_blocked(3, 1, BlockerActivity::executing);
  scene.add_blocked(4, 2, BlockerActivity::idle_in_transaction);
  scene.add_blocked(3, 3, BlockerActivity::executing);
  const PoolDiagnosis diagnosis = scene.judge();
  assert_int_equal(diagnosis.pid, 2);
  assert_int_equal(diagnosis.blocked, 4);
  assert_int_equal(diagnosis.chains, 10);
  assert_int_equal(static_cast<int>(diagnosis.advice), static_cast<int>(PoolAdvice::end_blocking_transaction));
}

void lock_waits_without_a_known_blocker_are_a_convoy_as_well(void **) {
  Scene scene;
  scene.add(10, HolderState::executing, WaitClass::lock);
  const PoolDiagnosis diagnosis = scene.judge();
  assert_verdict(diagnosis, PoolCause::lock_convoy, MoreBackends::no, PoolAdvice::stop_blocker);
  assert_int_equal(diagnosis.chains, 0);
  assert_int_equal(diagnosis.pid, 0);
}

void blockers_that_were_not_looked_for_do_not_outvote(void **) {
  Scene scene;
  scene.add(6, HolderState::executing, WaitClass::lock);
  scene.add_blocked(4, 4711, BlockerActivity::executing);
  const PoolDiagnosis diagnosis = scene.judge();
  assert_int_equal(diagnosis.affected, 10);
  assert_int_equal(diagnosis.chains, 4);
  assert_int_equal(diagnosis.blocked, 4);
  assert_int_equal(diagnosis.pid, 4711);
}

void blockers_of_backends_that_are_not_in_the_way_do_not_count(void **) {
  Scene scene;
  scene.seen.max_size = 2;
  scene.add_blocked(2, 7, BlockerActivity::executing);
  scene.add_blocked(5, 8, BlockerActivity::executing);
  for (std::size_t i = 2; i < scene.seen.held_count; i++) scene.held[i].pool = kOther;
  assert_int_equal(scene.judge().pid, 7);
  assert_int_equal(scene.judge().affected, 2);
}

// ------------------------------------------------------------------ clients

void longest_idle_transaction_matters(void **) {
  Scene scene;
  scene.add(3, HolderState::thinking);
  scene.held[1].age_us = 41 * kSecondUs;
  scene.fill_server();
  const PoolDiagnosis diagnosis = scene.judge();
  assert_int_equal(diagnosis.pid, 1001);
  assert_int_equal(diagnosis.age_us, 41 * kSecondUs);
  assert_int_equal(diagnosis.in_worst_pool, 3);
}

void pool_with_most_idle_transactions_is_named(void **) {
  Scene scene;
  scene.add(2, HolderState::thinking);
  scene.add(3, HolderState::thinking, WaitClass::none, kOther);
  scene.fill_server();
  assert_int_equal(scene.judge().worst_pool, kOther);
  assert_int_equal(scene.judge().in_worst_pool, 3);
}

void pinned_server_is_told_by_its_longest_pin(void **) {
  Scene scene;
  scene.add(4, HolderState::pinned);
  scene.held[2].age_us = 7 * kSecondUs;
  scene.held[2].pins = 2;
  scene.held[0].pins = 1;
  scene.fill_server();
  const PoolDiagnosis diagnosis = scene.judge();
  assert_verdict(diagnosis, PoolCause::pinned, MoreBackends::no, PoolAdvice::limit_pins);
  assert_int_equal(diagnosis.pid, 1002);
  assert_int_equal(diagnosis.pins, 2);
}

void sessions_fill_a_pool_in_session_mode(void **) {
  Scene scene;
  scene.add(10, HolderState::held);
  assert_verdict(scene.judge(), PoolCause::held_by_sessions, MoreBackends::perhaps, PoolAdvice::use_transaction_mode);
}

void slow_clients_are_told(void **) {
  Scene scene;
  scene.add(10, HolderState::executing, WaitClass::client);
  assert_verdict(scene.judge(), PoolCause::slow_clients, MoreBackends::perhaps, PoolAdvice::look_at_clients);
}

// ------------------------------------------------------------------ the machine

void as_many_on_processors_as_cores_are_cpu_bound(void **) {
  Scene scene;
  scene.seen.max_size = 4;
  scene.add(4, HolderState::executing);
  const PoolDiagnosis diagnosis = scene.judge();
  assert_verdict(diagnosis, PoolCause::cpu_bound, MoreBackends::no, PoolAdvice::look_at_statements);
  assert_int_equal(diagnosis.on_processors, 4);
}

void fewer_on_processors_than_cores_leave_room(void **) {
  Scene scene;
  scene.seen.max_size = 3;
  scene.add(3, HolderState::executing);
  assert_verdict(scene.judge(), PoolCause::executing, MoreBackends::yes, PoolAdvice::raise_max_pool_size);
}

void other_pools_use_the_same_processors(void **) {
  Scene scene;
  scene.seen.max_size = 3;
  scene.add(3, HolderState::executing);
  scene.add(HolderState::executing, WaitClass::none, kOther);
  const PoolDiagnosis diagnosis = scene.judge();
  assert_verdict(diagnosis, PoolCause::cpu_bound, MoreBackends::no, PoolAdvice::look_at_statements);
  assert_int_equal(diagnosis.affected, 3);
  assert_int_equal(diagnosis.on_processors, 4);
}

void unknown_number_of_cores_makes_no_promise(void **) {
  Scene scene;
  scene.seen.cores = 0.0;
  scene.add(10, HolderState::executing);
  assert_verdict(scene.judge(), PoolCause::executing, MoreBackends::perhaps, PoolAdvice::raise_max_pool_size);
}

void fraction_of_a_core_counts(void **) {
  Scene scene;
  scene.seen.max_size = 2;
  scene.seen.cores = 2.5;
  scene.add(2, HolderState::executing);
  assert_string_equal(describe(scene.judge().cause), describe(PoolCause::executing));
  scene.seen.cores = 1.5;
  assert_string_equal(describe(scene.judge().cause), describe(PoolCause::cpu_bound));
}

void waits_for_io_may_be_more(void **) {
  Scene scene;
  scene.add(10, HolderState::executing, WaitClass::io);
  assert_verdict(scene.judge(), PoolCause::io_bound, MoreBackends::perhaps, PoolAdvice::raise_max_pool_size);
}

void waits_for_io_on_busy_processors_may_not(void **) {
  Scene scene;
  scene.seen.cores = 2.0;
  scene.add(8, HolderState::executing, WaitClass::io);
  scene.add(2, HolderState::executing);
  assert_verdict(scene.judge(), PoolCause::io_bound, MoreBackends::no, PoolAdvice::look_at_statements);
}

void lightweight_locks_are_made_worse_by_more(void **) {
  Scene scene;
  scene.add(10, HolderState::executing, WaitClass::lwlock);
  assert_verdict(scene.judge(), PoolCause::internal_contention, MoreBackends::no, PoolAdvice::look_at_statements);
}

void sleepers_extensions_and_other_processes_are_elsewhere(void **) {
  Scene scene;
  scene.add(4, HolderState::executing, WaitClass::timeout);
  scene.add(3, HolderState::executing, WaitClass::extension);
  scene.add(3, HolderState::executing, WaitClass::ipc);
  const PoolDiagnosis diagnosis = scene.judge();
  assert_verdict(diagnosis, PoolCause::waiting_elsewhere, MoreBackends::perhaps, PoolAdvice::raise_max_pool_size);
  assert_int_equal(diagnosis.affected, 10);
}

// ------------------------------------------------------------------ starts and nesting

void start_under_way_is_told(void **) {
  Scene scene;
  scene.seen.coming_and_going = 1;
  assert_verdict(scene.judge(), PoolCause::starting, MoreBackends::no, PoolAdvice::none);
  assert_int_equal(scene.judge().affected, 1);
}

void start_for_nobody_is_not_a_full_pool(void **) {
  Scene scene;
  scene.seen.coming_and_going = 1;
  scene.seen.waiting = 0;
  assert_string_equal(describe(scene.judge().cause), describe(PoolCause::not_full));
}

void pool_full_of_starts_is_starting(void **) {
  Scene scene;
  scene.seen.max_size = 1;
  scene.seen.coming_and_going = 1;
  scene.fill_server();
  assert_verdict(scene.judge(), PoolCause::starting, MoreBackends::no, PoolAdvice::none);
}

void nested_acquires_go_before_everything(void **) {
  Scene scene;
  scene.add(10, HolderState::thinking);
  scene.seen.nested = true;
  scene.seen.nested_minimum = 11;
  scene.fill_server();
  assert_verdict(scene.judge(), PoolCause::nested_acquire, MoreBackends::perhaps, PoolAdvice::avoid_nesting);
  assert_int_equal(scene.judge().nested_minimum, 11);
  scene.held[4].age_us = 9 * kSecondUs;
  assert_int_equal(scene.judge().pid, 1004);
  assert_int_equal(scene.judge().in_use, 10);
}

// ------------------------------------------------------------------ precedence

void each_half_goes_to_the_surer_cause(void **) {
  struct Half {
    HolderState state;
    WaitClass wait;
    PoolCause cause;
  };
  // In the order of PoolCause, on a full server.
  const Half halves[] = {
      {HolderState::executing, WaitClass::lock, PoolCause::lock_convoy},
      {HolderState::thinking, WaitClass::none, PoolCause::idle_in_transaction},
      {HolderState::pinned, WaitClass::none, PoolCause::pinned},
      {HolderState::held, WaitClass::none, PoolCause::held_by_sessions},
      {HolderState::executing, WaitClass::lwlock, PoolCause::internal_contention},
      {HolderState::executing, WaitClass::client, PoolCause::slow_clients},
      {HolderState::executing, WaitClass::io, PoolCause::io_bound},
      {HolderState::executing, WaitClass::timeout, PoolCause::waiting_elsewhere},
      {HolderState::executing, WaitClass::none, PoolCause::executing},
  };
  for (const Half &first : halves) {
    for (const Half &second : halves) {
      if (first.cause >= second.cause) continue;
      Scene scene;
      scene.seen.cores = 64.0;
      scene.add(2, second.state, second.wait);
      scene.add(2, first.state, first.wait);
      scene.fill_server();
      assert_string_equal(describe(scene.judge().cause), describe(first.cause));
      assert_int_equal(scene.judge().affected, 2);
      // One more of the other, and it is that one's.
      scene.add(second.state, second.wait);
      scene.fill_server();
      assert_string_equal(describe(scene.judge().cause), describe(second.cause));
    }
  }
}

void busy_processors_go_before_waits_for_io(void **) {
  Scene scene;
  scene.add(5, HolderState::executing);
  scene.add(5, HolderState::executing, WaitClass::io);
  assert_string_equal(describe(scene.judge().cause), describe(PoolCause::cpu_bound));
}

void no_half_is_a_mixture(void **) {
  Scene scene;
  scene.add(4, HolderState::executing, WaitClass::lock);
  scene.add(3, HolderState::executing, WaitClass::io);
  scene.add(3, HolderState::executing);
  const PoolDiagnosis diagnosis = scene.judge();
  assert_verdict(diagnosis, PoolCause::mixed, MoreBackends::perhaps, PoolAdvice::raise_max_pool_size);
  assert_int_equal(count_of(diagnosis, PoolCause::lock_convoy), 4);
  assert_int_equal(count_of(diagnosis, PoolCause::io_bound), 3);
  assert_int_equal(count_of(diagnosis, PoolCause::executing), 3);
}

void mixture_on_busy_processors_needs_no_more(void **) {
  Scene scene;
  scene.add(4, HolderState::executing);
  scene.add(3, HolderState::executing, WaitClass::lock);
  scene.add(3, HolderState::executing, WaitClass::io);
  assert_verdict(scene.judge(), PoolCause::mixed, MoreBackends::no, PoolAdvice::look_at_statements);
}

void counts_make_up_the_whole(void **) {
  Scene scene;
  scene.add(3, HolderState::executing, WaitClass::lock);
  scene.add(2, HolderState::thinking);
  scene.add(2, HolderState::pinned);
  scene.add(2, HolderState::executing, WaitClass::io, kOther);
  scene.seen.coming_and_going = 2;
  scene.fill_server();
  const PoolDiagnosis diagnosis = scene.judge();
  int sum = 0;
  for (int count : diagnosis.counts) sum += count;
  assert_int_equal(sum, diagnosis.counted);
  assert_int_equal(diagnosis.counted, 11);
}

void what_nobody_looked_at_is_unknown(void **) {
  const PoolDiagnosis diagnosis;
  assert_true(diagnosis.cause == PoolCause::unknown);
  assert_true(diagnosis.more_backends_help == MoreBackends::perhaps);
}

void hidden_blocker_keeps_its_number_only(void **) {
  Scene scene;
  scene.add_blocked(10, 4711, BlockerActivity::idle_in_transaction);
  PoolDiagnosis diagnosis = scene.judge();
  assert_true(diagnosis.advice == PoolAdvice::end_blocking_transaction);
  hide_blocker(diagnosis);
  assert_int_equal(diagnosis.blocker.pid, 4711);
  assert_int_equal(diagnosis.blocked, 10);
  assert_true(diagnosis.blocker.activity == BlockerActivity::unknown);
  assert_int_equal(diagnosis.blocker.age_us, 0);
  assert_int_equal(diagnosis.age_us, 0);
  assert_verdict(diagnosis, PoolCause::lock_convoy, MoreBackends::no, PoolAdvice::stop_blocker);
}

void hidden_blocker_of_another_cause_changes_nothing(void **) {
  Scene scene;
  scene.add(10, HolderState::held);
  PoolDiagnosis diagnosis = scene.judge();
  hide_blocker(diagnosis);
  assert_int_equal(diagnosis.age_us, kSecondUs);
  assert_verdict(diagnosis, PoolCause::held_by_sessions, MoreBackends::perhaps, PoolAdvice::use_transaction_mode);
}

void hidden_prepared_transaction_is_still_one(void **) {
  Scene scene;
  scene.add_blocked(10, 0, BlockerActivity::prepared);
  PoolDiagnosis diagnosis = scene.judge();
  hide_blocker(diagnosis);
  assert_true(diagnosis.blocker.activity == BlockerActivity::prepared);
  assert_true(diagnosis.advice == PoolAdvice::finish_prepared);
}

void every_cause_has_its_own_phrase(void **) {
  for (std::size_t i = 0; i < kPoolCauseCount; i++) {
    const char *phrase = describe(static_cast<PoolCause>(i));
    assert_string_not_equal(phrase, "unknown");
    for (std::size_t j = 0; j < i; j++) assert_string_not_equal(phrase, describe(static_cast<PoolCause>(j)));
  }
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(pool_with_room_is_not_full),
      cmocka_unit_test(pool_with_an_idle_backend_is_not_full),
      cmocka_unit_test(pool_without_anything_is_not_full),
      cmocka_unit_test(resting_backends_do_not_fill_a_pool),
      cmocka_unit_test(resting_backends_fill_the_server),
      cmocka_unit_test(limit_of_the_pool_goes_before_that_of_the_server),
      cmocka_unit_test(backends_of_other_pools_are_in_the_way_on_a_full_server_only),
      cmocka_unit_test(server_full_of_idle_backends_of_other_pools_is_told),
      cmocka_unit_test(idle_backends_of_other_pools_do_not_fill_the_server),
      cmocka_unit_test(convoy_names_the_head_and_what_it_does),
      cmocka_unit_test(blocker_that_executes_is_to_be_stopped),
      cmocka_unit_test(blocker_that_holds_a_session_lock_is_to_be_stopped),
      cmocka_unit_test(prepared_transaction_is_to_be_finished),
      cmocka_unit_test(of_two_blockers_the_one_with_more_behind_it_matters),
      cmocka_unit_test(lock_waits_without_a_known_blocker_are_a_convoy_as_well),
      cmocka_unit_test(blockers_that_were_not_looked_for_do_not_outvote),
      cmocka_unit_test(blockers_of_backends_that_are_not_in_the_way_do_not_count),
      cmocka_unit_test(longest_idle_transaction_matters),
      cmocka_unit_test(pool_with_most_idle_transactions_is_named),
      cmocka_unit_test(pinned_server_is_told_by_its_longest_pin),
      cmocka_unit_test(sessions_fill_a_pool_in_session_mode),
      cmocka_unit_test(slow_clients_are_told),
      cmocka_unit_test(as_many_on_processors_as_cores_are_cpu_bound),
      cmocka_unit_test(fewer_on_processors_than_cores_leave_room),
      cmocka_unit_test(other_pools_use_the_same_processors),
      cmocka_unit_test(unknown_number_of_cores_makes_no_promise),
      cmocka_unit_test(fraction_of_a_core_counts),
      cmocka_unit_test(waits_for_io_may_be_more),
      cmocka_unit_test(waits_for_io_on_busy_processors_may_not),
      cmocka_unit_test(lightweight_locks_are_made_worse_by_more),
      cmocka_unit_test(sleepers_extensions_and_other_processes_are_elsewhere),
      cmocka_unit_test(start_under_way_is_told),
      cmocka_unit_test(start_for_nobody_is_not_a_full_pool),
      cmocka_unit_test(pool_full_of_starts_is_starting),
      cmocka_unit_test(nested_acquires_go_before_everything),
      cmocka_unit_test(each_half_goes_to_the_surer_cause),
      cmocka_unit_test(busy_processors_go_before_waits_for_io),
      cmocka_unit_test(no_half_is_a_mixture),
      cmocka_unit_test(mixture_on_busy_processors_needs_no_more),
      cmocka_unit_test(counts_make_up_the_whole),
      cmocka_unit_test(what_nobody_looked_at_is_unknown),
      cmocka_unit_test(hidden_blocker_keeps_its_number_only),
      cmocka_unit_test(hidden_blocker_of_another_cause_changes_nothing),
      cmocka_unit_test(hidden_prepared_transaction_is_still_one),
      cmocka_unit_test(every_cause_has_its_own_phrase),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
