// SPDX-License-Identifier: PostgreSQL

#include "fibers.hpp"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <time.h>

#include <algorithm>
#include <utility>

namespace crosstalk {

namespace {
constexpr std::size_t kStackBytes = 1 << 20;
}

long long now_ms() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

// makecontext() passes on integers only.
void Fibers::enter(unsigned high, unsigned low) {
  auto *self = reinterpret_cast<Fibers *>((static_cast<uintptr_t>(high) << 32) | low);
  Fiber *fiber = self->current_;
  fiber->body();
  fiber->ended = true;
  self->leave();
}

void Fibers::start(std::function<void()> body) {
  auto fiber = std::make_unique<Fiber>();
  fiber->body = std::move(body);
  fiber->stack = std::make_unique<char[]>(kStackBytes);
  getcontext(&fiber->context);
  fiber->context.uc_stack.ss_sp = fiber->stack.get();
  fiber->context.uc_stack.ss_size = kStackBytes;
  fiber->context.uc_link = nullptr;
  const auto address = reinterpret_cast<uintptr_t>(this);
  makecontext(&fiber->context, reinterpret_cast<void (*)()>(&Fibers::enter), 2,
              static_cast<unsigned>(address >> 32), static_cast<unsigned>(address & 0xFFFFFFFFu));
  fibers_.push_back(std::move(fiber));
}

void Fibers::leave() {
  Fiber *fiber = current_;
  swapcontext(&fiber->context, &scheduler_);
}

void Fibers::resume(Fiber *fiber) {
  ++turn_;
  current_ = fiber;
  swapcontext(&scheduler_, &fiber->context);
  current_ = nullptr;
}

bool Fibers::wait_for_socket(int fd, short events, int timeout_ms) {
  if (serial_) {
    pollfd entry = {fd, events, 0};
    int ready;
    do {
      ready = poll(&entry, 1, timeout_ms);
    } while (ready < 0 && errno == EINTR);
    return ready > 0;
  }
  current_->fd = fd;
  current_->events = events;
  current_->deadline_ms = now_ms() + timeout_ms;
  current_->timed_out = false;
  leave();
  current_->fd = -1;
  return !current_->timed_out;
}

void Fibers::think(unsigned turns) {
  current_->fd = -1;
  current_->resume_turn = turn_ + turns;
  leave();
}

std::vector<Fibers::Fiber *> Fibers::runnable() {
  std::vector<Fiber *> ready, waiting;
  std::vector<pollfd> entries;
  Fiber *first_thinker = nullptr;
  long long deadline_ms = 0;
  for (const auto &fiber : fibers_) {
    if (fiber->fd >= 0) {
      deadline_ms = waiting.empty() ? fiber->deadline_ms : std::min(deadline_ms, fiber->deadline_ms);
      waiting.push_back(fiber.get());
      entries.push_back({fiber->fd, fiber->events, 0});
    } else if (fiber->resume_turn <= turn_) {
      ready.push_back(fiber.get());
    } else if (first_thinker == nullptr || fiber->resume_turn < first_thinker->resume_turn) {
      first_thinker = fiber.get();
    }
  }
  if (ready.empty() && waiting.empty() && first_thinker != nullptr) ready.push_back(first_thinker);
  if (waiting.empty()) return ready;

  const long long patience_ms = ready.empty() ? std::max(0LL, deadline_ms - now_ms()) : 0;
  const int count = poll(entries.data(), entries.size(), static_cast<int>(patience_ms));
  const long long now = now_ms();
  for (std::size_t i = 0; i < waiting.size(); i++) {
    if (count > 0 && entries[i].revents != 0) {
      ready.push_back(waiting[i]);
    } else if (waiting[i]->deadline_ms <= now) {
      waiting[i]->timed_out = true;
      ready.push_back(waiting[i]);
    }
  }
  return ready;
}

void Fibers::run() {
  while (!fibers_.empty()) {
    for (Fiber *fiber : runnable()) resume(fiber);
    fibers_.erase(std::remove_if(fibers_.begin(), fibers_.end(), [](const auto &fiber) { return fiber->ended; }),
                  fibers_.end());
  }
}

}  // namespace crosstalk
