// SPDX-License-Identifier: PostgreSQL
//
// A proxy that makes connections to a server as slow to come by as a measurement wants them, and keeps the books: what
// a pooler says about the connections it has opened may differ from what has arrived here.
//
//   spike_proxy --delay-ms 150 --host DIRECTORY|ADDRESS --port N --log FILE [--seconds 300]
//
// It prints its port on the loopback address.  For the delay it does nothing with a new connection, then it opens its
// own to the server, and passes bytes on from then on.  FILE gets a line "at_us,connection,event" for each of: opened
// (accepted), ready (the server's first ReadyForQuery has come) and closed; microseconds since 1970.  It ends after so
// many seconds, or when its parent does.
//
// One thread; what it costs a query to pass through is measured by the scenario, and told.

#include <signal.h>
#include <sys/prctl.h>

#include <deque>

#include "spike_sockets.hpp"

using namespace spike;

namespace {

constexpr uint32_t kSslRequest = 80877103;
constexpr uint32_t kGssRequest = 80877104;

// Finds the first ReadyForQuery in what a server sends.
class ReadyFinder {
 public:
  // The server answers a request for encryption with one byte that is no message.
  void expect_single_byte() { single_bytes_++; }

  // True once, for the bytes that begin that message.
  bool take(const char *bytes, size_t size) {
    while (size > 0 && !found_) {
      if (single_bytes_ > 0) {
        single_bytes_--, bytes++, size--;
      } else if (skip_ > 0) {
        const size_t some = skip_ < size ? skip_ : size;
        skip_ -= some, bytes += some, size -= some;
      } else {
        head_ += *bytes++, size--;
        if (head_.size() < 5) continue;
        found_ = head_[0] == 'Z';
        const uint32_t length = read_int32(head_.data() + 1);
        skip_ = length > 4 ? length - 4 : 0;
        head_.clear();
        if (found_) return true;
      }
    }
    return false;
  }

 private:
  int single_bytes_ = 0;
  size_t skip_ = 0;
  bool found_ = false;
  std::string head_;
};

class Proxy {
 public:
  Proxy(Address server, int64_t delay_us, const std::string &log_name)
      : server_(std::move(server)), delay_us_(delay_us), log_(fopen(log_name.c_str(), "w")) {
    if (!log_) die_errno("could not create \"" + log_name + "\"");
    fprintf(log_, "at_us,connection,event\n");
    fflush(log_);
  }

  void run(int64_t until_us) {
    listen_and_tell();
    while (now_us() < until_us) {
      loop_.step(waiting_.empty() ? until_us : waiting_.front().first);
      while (!waiting_.empty() && waiting_.front().first <= now_us()) {
        const std::shared_ptr<Link> link = waiting_.front().second;
        waiting_.pop_front();
        join(link);
      }
    }
  }

 private:
  // A client's connection, the one to the server that belongs to it, and what the one has said and the other not taken.
  struct Link {
    int number = 0;
    int fds[2] = {-1, -1};   // client, server
    std::string pending[2];  // for fds[i]
    ReadyFinder finder;
  };

  void listen_and_tell() {
    sockaddr_in any = {};
    socklen_t length = sizeof(any);
    any.sin_family = AF_INET;
    any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, reinterpret_cast<sockaddr *>(&any), sizeof(any)) != 0 || listen(fd, 1024) != 0 ||
        getsockname(fd, reinterpret_cast<sockaddr *>(&any), &length) != 0)
      die_errno("could not listen");
    loop_.add(fd, EPOLLIN, [this, fd](uint32_t) { accept_one(fd); });
    printf("%d\n", ntohs(any.sin_port));
    fflush(stdout);
  }

  void accept_one(int listener) {
    const int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) return;
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    auto link = std::make_shared<Link>();
    link->number = ++accepted_;
    link->fds[0] = fd;
    note(*link, "opened");
    waiting_.emplace_back(now_us() + delay_us_, link);
  }

  void join(const std::shared_ptr<Link> &link) {
    link->fds[1] = open_socket(server_);
    if (link->fds[1] < 0) {
      fprintf(stderr, "%s: could not connect to the server: %s\n", program_invocation_short_name, strerror(errno));
      close(link->fds[0]);
      note(*link, "closed");
      return;
    }
    for (int side = 0; side < 2; side++)
      loop_.add(link->fds[side], EPOLLIN, [this, link, side](uint32_t events) { serve(*link, side, events); });
  }

  void serve(Link &link, int side, uint32_t events) {
    if ((events & EPOLLOUT) && !flush(link, side)) return hang_up(link);
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && !pass_on(link, side)) return hang_up(link);
  }

  bool pass_on(Link &link, int side) {
    char buffer[kReadBytes];
    const ssize_t got = recv(link.fds[side], buffer, sizeof(buffer), 0);
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    if (got == 0) return false;
    const size_t size = static_cast<size_t>(got);
    if (side == 0 && size == 8 && (read_int32(buffer + 4) == kSslRequest || read_int32(buffer + 4) == kGssRequest))
      link.finder.expect_single_byte();
    link.pending[1 - side].append(buffer, size);
    const bool good = flush(link, 1 - side);
    if (side == 1 && link.finder.take(buffer, size)) note(link, "ready");
    return good;
  }

  // Sends what is pending for a side.  While there is more than it takes, nothing is read from the other.
  bool flush(Link &link, int side) {
    std::string &pending = link.pending[side];
    const bool waited = blocked(link, side);
    while (!pending.empty()) {
      const ssize_t sent = send(link.fds[side], pending.data(), pending.size(), MSG_NOSIGNAL);
      if (sent < 0 && errno == EAGAIN) break;
      if (sent < 0 && errno != EINTR) return false;
      if (sent > 0) pending.erase(0, static_cast<size_t>(sent));
    }
    if (pending.empty() != waited) return true;
    blocked_[link.fds[side]] = !pending.empty();
    for (int i = 0; i < 2; i++)
      loop_.change(link.fds[i], (blocked(link, 1 - i) ? 0u : EPOLLIN) | (blocked(link, i) ? EPOLLOUT : 0u));
    return true;
  }

  bool blocked(const Link &link, int side) const {
    const auto found = blocked_.find(link.fds[side]);
    return found != blocked_.end() && found->second;
  }

  void hang_up(Link &link) {
    for (int fd : link.fds) {
      blocked_.erase(fd);
      loop_.remove(fd);
    }
    note(link, "closed");
  }

  void note(const Link &link, const char *event) {
    fprintf(log_, "%lld,%d,%s\n", static_cast<long long>(now_us()), link.number, event);
    fflush(log_);
  }

  const Address server_;
  const int64_t delay_us_;
  FILE *const log_;
  Loop loop_;
  int accepted_ = 0;
  std::map<int, bool> blocked_;
  // In the order of their times, for all wait equally long.
  std::deque<std::pair<int64_t, std::shared_ptr<Link>>> waiting_;
};

int run(const Options &options) {
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  const Address server = {need(options, "host"), static_cast<int>(number(options, "port", 5432))};
  Proxy proxy(server, number(options, "delay-ms", 0) * 1000, need(options, "log"));
  proxy.run(now_us() + number(options, "seconds", 300) * 1'000'000);
  return 0;
}

}  // namespace

int main(int argc, char **argv) {
  signal(SIGPIPE, SIG_IGN);
  return run(read_options(argc, argv, {"delay-ms", "host", "port", "log", "seconds"}));
}
