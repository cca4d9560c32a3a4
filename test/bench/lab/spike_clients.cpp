// SPDX-License-Identifier: PostgreSQL
//
// The clients of a spike: many that are quiet and then all ask at the same moment.
//
//   spike_clients --host DIRECTORY|ADDRESS --port N --database D --user U --clients 50 --query SQL --requests FILE
//                 [--warm-query SQL --warm-clients 5 --warm-rounds 3] [--connect]
//                 [--before COMMAND] [--after COMMAND] [--watch-ms 1000]
//
// All clients connect and stay, and the command runs that waits until the pool is at rest.  A few clients ask the
// warm-up query, staggered by 10 ms so that none waits for another; the command runs once more; then all send the query
// in a row, and each answer is noted.  With --connect a client connects for each query and says goodbye after it, and
// the command runs after the warm-up only.  The clients stay for the time to watch, counted from the spike on, and
// until the command after it has ended.
//
// FILE gets a line for each client: when it sent the query (or began to connect), when the query began and ended in the
// server, when the answer was complete, and which backend it was.  The server tells its part in columns of the answer
// named began and ended (seconds since 1970; it has to have the clock of this machine) and backend.  That is all that
// is needed to say for any moment how many clients were queued and how many were served, without a sampler that takes a
// processor from what it samples.
//
// One thread, so that the clients cost the machine little besides what the server spends on them.  Exit status 2: a
// request has failed.

#include <signal.h>
#include <sys/wait.h>

#include "spike_sockets.hpp"

using namespace spike;

namespace {

constexpr int64_t kAnswerTimeoutUs = 30'000'000;
constexpr int64_t kStaggerUs = 10'000;
constexpr uint32_t kProtocol3 = 3u << 16;

struct Answer {
  int64_t sent_us = 0;
  int64_t answered_us = 0;
  std::string began, ended, backend;  // as the server tells
  std::string error;                  // SQLSTATE
};

std::string startup_message(const std::string &database, const std::string &user) {
  std::string body;
  append_int32(body, kProtocol3);
  for (const std::string &word : {std::string("user"), user, std::string("database"), database}) {
    body += word;
    body += '\0';
  }
  body += '\0';
  std::string message;
  append_int32(message, static_cast<uint32_t>(body.size() + 4));
  return message + body;
}

std::string query_message(const std::string &query) {
  std::string message = "Q";
  append_int32(message, static_cast<uint32_t>(query.size() + 5));
  return message + query + '\0';
}

// The field of an ErrorResponse.
std::string error_field(const std::string &body, char field) {
  for (size_t at = 0; at < body.size() && body[at] != '\0';) {
    const std::string value = body.c_str() + at + 1;
    if (body[at] == field) return value;
    at += value.size() + 2;
  }
  return "";
}

// One client, and what it has asked last.
class Client {
 public:
  struct Server {
    Address address;
    std::string startup;  // message
  };

  Client(Loop &loop, const Server &server) : loop_(loop), server_(server) {}

  // Connects, and asks at once if there is a query.
  void open(const std::string &query, bool leave) {
    answer_ = Answer();
    answer_.sent_us = now_us();
    leave_ = leave;
    query_ = query;
    started_ = false;
    done_ = false;
    input_.clear();
    fd_ = open_socket(server_.address);
    if (fd_ < 0) return fail("08001");
    loop_.add(fd_, EPOLLOUT, [this](uint32_t events) { handle(events); });
  }

  // On the connection that is there.
  void ask(const std::string &query) {
    if (fd_ < 0) return;  // the error stays
    answer_ = Answer();
    done_ = false;
    answer_.sent_us = now_us();
    say(query_message(query));
  }

  void leave() {
    if (fd_ < 0) return;
    say(std::string("X\0\0\0\4", 5));
    if (fd_ < 0) return;
    loop_.remove(fd_);
    fd_ = -1;
  }

  void require_connection(const char *when) const {
    if (fd_ < 0) die(std::string("a client has no connection ") + when + ": " + text_);
  }

  bool done() const { return done_; }
  const Answer &answer() const { return answer_; }
  void give_up() {
    if (!done_) fail("57014");
  }

 private:
  void handle(uint32_t) {
    if (!started_) {
      started_ = true;
      loop_.change(fd_, EPOLLIN);
      return say(server_.startup);
    }
    char buffer[kReadBytes];
    const ssize_t got = recv(fd_, buffer, sizeof(buffer), 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) return fail("08006");
    input_.append(buffer, static_cast<size_t>(got));
    while (fd_ >= 0 && input_.size() >= 5 && input_.size() > read_int32(input_.data() + 1)) {
      const char type = input_[0];
      const uint32_t length = read_int32(input_.data() + 1);
      if (length < 4) die("the server sent a message with an impossible length");
      const std::string body = input_.substr(5, length - 4);
      input_.erase(0, length + 1);
      take_message(type, body);
    }
  }

  void take_message(char type, const std::string &body) {
    if (type == 'E') {
      answer_.error = error_field(body, 'C');
      text_ = error_field(body, 'M');
    }
    if (type == 'R' && read_int32(body.data()) != 0) die("the server asks for a password; trust is expected here");
    if (type == 'T') take_columns(body);
    if (type == 'D') take_row(body);
    if (type != 'Z') return;
    if (!query_.empty()) {
      const std::string query = query_message(query_);
      query_.clear();
      return say(query);
    }
    answer_.answered_us = now_us();
    done_ = true;
    if (leave_) leave();
  }

  void take_columns(const std::string &body) {
    columns_.clear();
    const char *at = body.data() + 2;
    for (uint32_t i = 0; i < read_int16(body.data()); i++) {
      columns_.emplace_back(at);
      at += columns_.back().size() + 1 + 18;
    }
  }

  void take_row(const std::string &body) {
    const char *at = body.data() + 2;
    for (const std::string &column : columns_) {
      const uint32_t length = read_int32(at);
      at += 4;
      if (length == 0xffffffff) continue;
      const std::string value(at, length);
      at += length;
      if (column == "began") answer_.began = value;
      if (column == "ended") answer_.ended = value;
      if (column == "backend") answer_.backend = value;
    }
  }

  // Messages are small: the socket takes them whole.
  void say(const std::string &message) {
    const ssize_t sent = send(fd_, message.data(), message.size(), MSG_NOSIGNAL);
    if (sent != static_cast<ssize_t>(message.size())) fail("08006");
  }

  void fail(const char *sqlstate) {
    if (answer_.error.empty()) answer_.error = sqlstate;
    answer_.answered_us = now_us();
    done_ = true;
    if (fd_ >= 0) loop_.remove(fd_);
    fd_ = -1;
  }

  Loop &loop_;
  const Server &server_;
  int fd_ = -1;
  bool started_ = false;
  bool done_ = true;
  bool leave_ = false;
  std::string query_;  // to be asked when connected
  std::string input_;
  std::string text_;  // of the latest error
  std::vector<std::string> columns_;
  Answer answer_;
};

struct Plan {
  Client::Server server;
  int clients = 50;
  std::string query, requests;
  std::string warm_query;
  int warm_clients = 0, warm_rounds = 0;
  bool connect = false;  // for each query
  std::string before, after;
  int64_t watch_us = 1'000'000;
};

void run_command(const std::string &command) {
  if (command.empty()) return;
  fflush(stdout);
  const int status = system(command.c_str());
  if (status == -1 || !WIFEXITED(status) || WEXITSTATUS(status) != 0) die("the command failed: " + command);
}

class Spike {
 public:
  explicit Spike(const Plan &plan) : plan_(plan) {
    for (int i = 0; i < plan.clients; i++) clients_.emplace_back(new Client(loop_, plan.server));
  }

  // The number of requests that failed.
  int run() {
    if (!plan_.connect) {
      for (auto &client : clients_) {
        client->open("", false);
        wait_for_all();
        client->require_connection("at first");
      }
      run_command(plan_.before);
    }
    warm_up();
    run_command(plan_.before);
    loop_.step(now_us());
    if (!plan_.connect) {
      for (auto &client : clients_) client->require_connection("after the quiet time");
    }
    const int64_t began_us = now_us();
    for (auto &client : clients_) ask(*client, plan_.query);
    wait_for_all();
    write_requests();
    while (now_us() < began_us + plan_.watch_us) loop_.step(began_us + plan_.watch_us);
    run_command(plan_.after);
    int failed = 0;
    for (auto &client : clients_) {
      failed += !client->answer().error.empty();
      client->leave();
    }
    return failed;
  }

 private:
  void ask(Client &client, const std::string &query) {
    if (plan_.connect)
      client.open(query, true);
    else
      client.ask(query);
  }

  void warm_up() {
    for (int round = 0; round < plan_.warm_rounds; round++) {
      for (int i = 0; i < plan_.warm_clients && i < plan_.clients; i++) {
        ask(*clients_[i], plan_.warm_query);
        const int64_t next_us = now_us() + kStaggerUs;
        while (now_us() < next_us) loop_.step(next_us);
      }
      wait_for_all();
      for (auto &client : clients_) {
        if (!client->answer().error.empty()) die("a query failed in the warm-up: SQLSTATE " + client->answer().error);
      }
    }
  }

  void wait_for_all() {
    const int64_t until_us = now_us() + kAnswerTimeoutUs;
    for (auto &client : clients_) {
      while (!client->done() && now_us() < until_us) loop_.step(until_us);
      client->give_up();
    }
  }

  void write_requests() {
    FILE *file = fopen(plan_.requests.c_str(), "w");
    if (!file) die_errno("could not create \"" + plan_.requests + "\"");
    fprintf(file, "client,sent_us,began,ended,answered_us,backend,error\n");
    for (size_t i = 0; i < clients_.size(); i++) {
      const Answer &answer = clients_[i]->answer();
      fprintf(file, "%zu,%lld,%s,%s,%lld,%s,%s\n", i + 1, static_cast<long long>(answer.sent_us), answer.began.c_str(),
              answer.ended.c_str(), static_cast<long long>(answer.answered_us), answer.backend.c_str(),
              answer.error.c_str());
    }
    if (fclose(file) != 0) die_errno("could not write \"" + plan_.requests + "\"");
  }

  const Plan &plan_;
  Loop loop_;
  std::vector<std::unique_ptr<Client>> clients_;
};

int run(const Options &options) {
  Plan plan;
  plan.server.address = {need(options, "host"), static_cast<int>(number(options, "port", 5432))};
  plan.server.startup = startup_message(need(options, "database"), need(options, "user"));
  plan.clients = static_cast<int>(number(options, "clients", plan.clients));
  plan.query = need(options, "query");
  plan.requests = need(options, "requests");
  plan.warm_query = text(options, "warm-query");
  if (!plan.warm_query.empty()) {
    plan.warm_clients = static_cast<int>(number(options, "warm-clients", 5));
    plan.warm_rounds = static_cast<int>(number(options, "warm-rounds", 3));
  }
  plan.connect = options.count("connect") > 0;
  plan.before = text(options, "before");
  plan.after = text(options, "after");
  plan.watch_us = number(options, "watch-ms", 1000) * 1000;
  const int failed = Spike(plan).run();
  if (failed > 0) fprintf(stderr, "%s: %d requests failed\n", program_invocation_short_name, failed);
  return failed > 0 ? 2 : 0;
}

}  // namespace

int main(int argc, char **argv) {
  signal(SIGPIPE, SIG_IGN);
  return run(read_options(argc, argv,
                          {"host", "port", "database", "user", "clients", "query", "requests", "warm-query",
                           "warm-clients", "warm-rounds", "before", "after", "watch-ms"}));
}
