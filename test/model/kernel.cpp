// SPDX-License-Identifier: PostgreSQL
#include "model/kernel.hpp"

#include <cstdlib>

namespace model {

using Guard = std::lock_guard<std::mutex>;

void Socket::send(const Command &command) {
  Guard guard(guard_);
  if (shut_) return;
  if (tail_ - head_ == kRoom) abort();
  inbox_[tail_++ % kRoom] = command;
  input_ = input_watched_;
}

void Socket::close() {
  Guard guard(guard_);
  closed_ = hangup_ = true;
}

std::uint32_t Socket::answers() {
  Guard guard(guard_);
  return answers_;
}

bool Socket::is_shut() {
  Guard guard(guard_);
  return shut_;
}

Reading Socket::read(Command *command) {
  Guard guard(guard_);
  if (shut_) return Reading::end;
  if (head_ != tail_) {
    *command = inbox_[head_++ % kRoom];
    return Reading::command;
  }
  return closed_ ? Reading::end : Reading::nothing;
}

bool Socket::has_input() {
  Guard guard(guard_);
  return head_ != tail_ || closed_ || shut_;
}

bool Socket::has_commands() {
  Guard guard(guard_);
  return head_ != tail_;
}

bool Socket::has_ended_early() {
  Guard guard(guard_);
  return shut_ || (closed_ && head_ == tail_);
}

bool Socket::has_hung_up() {
  Guard guard(guard_);
  return shut_ || closed_;
}

void Socket::answer() {
  Guard guard(guard_);
  answers_++;
}

void Socket::shut() {
  Guard guard(guard_);
  shut_ = hangup_ = true;
}

bool Socket::take_hangup() {
  Guard guard(guard_);
  const bool was = hangup_;
  hangup_ = false;
  return was;
}

bool Socket::hangup_is_news() {
  Guard guard(guard_);
  return hangup_;
}

void Socket::watch_input(bool on) {
  Guard guard(guard_);
  input_watched_ = on;
  input_ = on && head_ != tail_;
  hangup_ = hangup_ || closed_ || shut_;
}

bool Socket::take_input() {
  Guard guard(guard_);
  const bool was = input_;
  input_ = false;
  return was;
}

bool Socket::input_is_news() {
  Guard guard(guard_);
  return input_;
}

void IdleSet::arm(sluice::ClientRef client, std::uint32_t number, Socket *socket) {
  Guard guard(guard_);
  if (number >= high_water_) high_water_ = number + 1;
  entries_[number] = Entry{true, client.pack(), socket};
}

void IdleSet::forget(std::uint32_t number) {
  Guard guard(guard_);
  entries_[number] = Entry{};
}

void IdleSet::ring() {
  Guard guard(guard_);
  rung_ = true;
}

bool IdleSet::take(Event *event) {
  Guard guard(guard_);
  if (rung_) {
    rung_ = false;
    *event = Event{kBell, false};
    return true;
  }
  for (unsigned i = 0; i < high_water_; i++) {
    const unsigned index = (next_ + i) % high_water_;
    Entry &entry = entries_[index];
    if (!entry.armed || !entry.socket->has_input()) continue;
    entry.armed = false;
    next_ = index + 1;
    // A stream that has ended is a hang-up for epoll, whatever is left to be read.
    *event = Event{entry.data, entry.socket->has_hung_up()};
    return true;
  }
  return false;
}

bool IdleSet::has_event() {
  Guard guard(guard_);
  if (rung_) return true;
  for (unsigned i = 0; i < high_water_; i++)
    if (entries_[i].armed && entries_[i].socket->has_input()) return true;
  return false;
}

void Listener::push(Arrival arrival) {
  Guard guard(guard_);
  if (tail_ - head_ == kRoom) abort();
  ring_[tail_++ % kRoom] = arrival;
}

bool Listener::pop(Arrival *arrival) {
  Guard guard(guard_);
  if (head_ == tail_) return false;
  *arrival = ring_[head_++ % kRoom];
  return true;
}

bool Listener::empty() {
  Guard guard(guard_);
  return head_ == tail_;
}

}  // namespace model
