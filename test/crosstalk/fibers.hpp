// SPDX-License-Identifier: PostgreSQL
//
// Fibers: several lines of straight code that take turns in one thread.
//
// A test of sessions reads best as "say this, expect that, now say this".  With hundreds of connections in one process
// that would need a thread each, whose order nobody can repeat, or a state machine.  A fiber is neither: it runs until
// it waits, for a socket or for others to have done something, and only then another one goes on.

#ifndef CROSSTALK_FIBERS_HPP
#define CROSSTALK_FIBERS_HPP

#include <ucontext.h>

#include <functional>
#include <memory>
#include <vector>

namespace crosstalk {

class Fibers {
 public:
  // serial: a fiber that waits for a socket keeps its turn, so that each run with one seed goes the same way.
  explicit Fibers(bool serial) : serial_(serial) {}

  void start(std::function<void()> body);
  // Returns when all fibers have ended.
  void run();

  // To be called by the fiber that has its turn.  `events` as for poll(); false if nothing came within the limit.
  bool wait_for_socket(int fd, short events, int timeout_ms);
  // Until others have taken so many turns, or until nobody else has anything to do.
  void think(unsigned turns);

 private:
  struct Fiber {
    ucontext_t context = {};
    std::unique_ptr<char[]> stack;
    std::function<void()> body;
    bool ended = false;
    bool timed_out = false;
    int fd = -1;  // -1: it thinks
    short events = 0;
    long long deadline_ms = 0;
    unsigned long resume_turn = 0;
  };

  static void enter(unsigned high, unsigned low);
  void leave();
  void resume(Fiber *fiber);
  // Which of them may go on; waits for at least one.
  std::vector<Fiber *> runnable();

  const bool serial_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  Fiber *current_ = nullptr;
  ucontext_t scheduler_ = {};
  unsigned long turn_ = 0;
};

long long now_ms();

}  // namespace crosstalk

#endif
