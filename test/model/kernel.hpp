// SPDX-License-Identifier: PostgreSQL
//
// What the model has in the place of the operating system: clients' sockets, the
// pool's epoll set with its bell, signals, the queue of a listening socket.
//
// Each object orders what happens before it is written with what happens after it
// is read, as the kernel's own do, and no more: hence a lock for each.

#ifndef SLUICE_TEST_MODEL_KERNEL_HPP
#define SLUICE_TEST_MODEL_KERNEL_HPP

#include <atomic>
#include <cstdint>
#include <mutex>

#include "core/pool/shared_state.hpp"

namespace model {

struct Command {
  std::uint32_t number;    // of the client's commands, from 1
  bool ends_transaction;
  bool runs_until_cancelled;
};

enum class Reading { command, nothing, end };

// The client's end and the server's.  Both sides' copies are one object here.
class Socket {
 public:
  // The client.
  void send(const Command &command);
  void close();
  std::uint32_t answers();
  bool is_shut();

  // The server.
  Reading read(Command *command);
  bool has_input();  // something to read, or the end
  bool has_ended_early();  // the end, with nothing before it
  bool has_hung_up();      // the end, whatever is before it
  bool has_commands();
  void answer();
  void shut();
  bool take_hangup();  // EPOLLRDHUP, edge triggered
  bool hangup_is_news();
  void watch_input(bool on);  // EPOLLIN beside it, edge triggered; a MOD reports what is there already
  bool take_input();
  bool input_is_news();

 private:
  static constexpr unsigned kRoom = 8;
  std::mutex guard_;
  Command inbox_[kRoom];
  unsigned head_ = 0, tail_ = 0;
  std::uint32_t answers_ = 0;
  bool closed_ = false, shut_ = false, hangup_ = false;
  bool input_watched_ = false, input_ = false;
};

constexpr std::uint32_t kMostSlots = 64;
constexpr std::uint32_t kMostBackends = 8;
constexpr std::uint32_t kMostClients = 400;
constexpr std::uint64_t kBell = ~std::uint64_t{0};

struct Event {
  std::uint64_t data;
  bool hangup;
};

// An epoll set: one-shot entries, and an edge-triggered bell.  An entry belongs to
// a socket, not to a number: arming the copy of a client that has been forgotten
// touches nobody else.
class IdleSet {
 public:
  void arm(sluice::ClientRef client, std::uint32_t number, Socket *socket);
  void forget(std::uint32_t number);
  void ring();
  bool take(Event *event);  // epoll_wait(..., 0)
  bool has_event();

 private:
  struct Entry {
    bool armed;
    std::uint64_t data;
    Socket *socket;
  };
  std::mutex guard_;
  Entry entries_[kMostClients] = {};
  unsigned high_water_ = 0;
  bool rung_ = false;
  unsigned next_ = 0;  // who is looked at first
};

// A process that signals can be sent to.
struct Process {
  std::atomic<int> pid{0};
  std::atomic<bool> pending{false};
};

struct Arrival {
  bool cancels;        // a cancel request for that client, or a new connection
  std::uint32_t client;
};

class Listener {
 public:
  void push(Arrival arrival);
  bool pop(Arrival *arrival);
  bool empty();

 private:
  static constexpr unsigned kRoom = 1024;
  std::mutex guard_;
  Arrival ring_[kRoom];
  unsigned head_ = 0, tail_ = 0;
};

}  // namespace model

#endif
