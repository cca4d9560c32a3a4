// SPDX-License-Identifier: PostgreSQL

#include "wire.hpp"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <pwd.h>
#include <sys/epoll.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <map>

#include "script.hpp"

namespace load {

namespace {

constexpr uint32_t kProtocol = 3u << 16;
constexpr uint32_t kTlsRequest = 80877103;
constexpr size_t kBufferSize = 64 * 1024;
// Fewer than the ports a machine hands out for one pair of addresses (net.ipv4.ip_local_port_range: 28,232).
constexpr size_t kConnectionsOfSource = 20000;

using Words = std::map<std::string, std::string>;

// "name=value name = 'quoted value'": as libpq has it, a backslash takes the next letter as it is.
Words parse_words(const std::string &text) {
  Words words;
  size_t at = 0;
  const auto skip_blanks = [&] { at = std::min(text.find_first_not_of(" \t\n", at), text.size()); };
  for (skip_blanks(); at < text.size(); skip_blanks()) {
    const size_t name_end = text.find_first_of(" \t\n=", at);
    const std::string name = text.substr(at, name_end - at);
    at = std::min(name_end, text.size());
    skip_blanks();
    if (at == text.size() || text[at] != '=') die("no \"=\" after \"" + name + "\" in the connection's description");
    at++;
    skip_blanks();
    const bool quoted = at < text.size() && text[at] == '\'';
    if (quoted) at++;
    std::string value;
    while (at < text.size() && (quoted ? text[at] != '\'' : strchr(" \t\n", text[at]) == nullptr)) {
      if (text[at] == '\\' && at + 1 < text.size()) at++;
      value += text[at++];
    }
    if (quoted && at++ == text.size()) die("a quote is not closed in the connection's description");
    words[name] = value;
  }
  return words;
}

void resolve(Target &target, const std::string &host, const std::string &port) {
  target.name = host + " port " + port;
  target.local = !host.empty() && host[0] == '/';
  if (target.local) {
    sockaddr_un local = {};
    const std::string path = host + "/.s.PGSQL." + port;
    if (path.size() >= sizeof(local.sun_path)) die("the socket directory's name is too long: " + host);
    local.sun_family = AF_UNIX;
    memcpy(local.sun_path, path.c_str(), path.size() + 1);
    memcpy(&target.address, &local, sizeof(local));
    target.address_length = sizeof(local);
    return;
  }
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo *found = nullptr;
  const int status = getaddrinfo(host.c_str(), port.c_str(), &hints, &found);
  if (status != 0) die("could not find " + target.name + ": " + gai_strerror(status));
  memcpy(&target.address, found->ai_addr, found->ai_addrlen);
  target.address_length = found->ai_addrlen;
  freeaddrinfo(found);
  sockaddr_in inet;
  memcpy(&inet, &target.address, sizeof(inet));
  target.loopback = target.address.ss_family == AF_INET && (ntohl(inet.sin_addr.s_addr) >> 24) == 127;
}

std::string startup_message(const Words &words) {
  std::string message;
  const size_t place = begin_message(message, '\0');
  append_int32(message, kProtocol);
  for (const auto &word : words) {
    append_string(message, word.first);
    append_string(message, word.second);
  }
  message += '\0';
  end_message(message, place);
  return message;
}

}  // namespace

Target parse_target(const std::string &conninfo) {
  Words words = parse_words(conninfo);
  const auto take = [&](const char *name, const char *variable, const std::string &otherwise) {
    const auto found = words.find(name);
    const char *environment = variable != nullptr ? getenv(variable) : nullptr;
    std::string value = found != words.end() ? found->second : environment != nullptr ? environment : "";
    if (found != words.end()) words.erase(found);
    return value.empty() ? otherwise : value;
  };
  Target target;
  const std::string host = take("host", "PGHOST", "127.0.0.1");
  resolve(target, host, take("port", "PGPORT", "6432"));
  const passwd *login = getpwuid(geteuid());
  Words startup;
  startup["user"] = take("user", "PGUSER", login != nullptr ? login->pw_name : "postgres");
  startup["database"] = take("dbname", "PGDATABASE", startup["user"]);
  startup["application_name"] = take("application_name", nullptr, "load_generator");
  const std::string options = take("options", nullptr, "");
  if (!options.empty()) startup["options"] = options;
  target.startup = startup_message(startup);

  const std::string mode = take("sslmode", "PGSSLMODE", "disable");
  if (mode != "disable" && mode != "require" && mode != "allow" && mode != "prefer")
    die("sslmode is disable or require, not " + mode);
  if (mode == "require" && !target.local) {
    target.tls = SSL_CTX_new(TLS_client_method());
    if (target.tls == nullptr) die("could not set up TLS");
    SSL_CTX_set_min_proto_version(target.tls, TLS1_2_VERSION);
    SSL_CTX_set_mode(target.tls,
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
  }
  for (const char *harmless : {"gssencmode", "connect_timeout", "client_encoding", "fallback_application_name"})
    words.erase(harmless);
  if (!words.empty()) die("unknown in the connection's description: " + words.begin()->first);
  target.buffer.resize(kBufferSize);
  return target;
}

// ---- failing

Wire::Progress Wire::fail(const std::string &why, const char *sqlstate) {
  // What the server said before it hung up is the better reason.
  if (failure_.empty()) failure_ = why;
  if (failure_sqlstate_.empty()) failure_sqlstate_ = sqlstate;
  return Progress::failed;
}

void Wire::expect_failure(const std::string &message, const std::string &sqlstate) {
  failure_ = "the server answered: " + message;
  failure_sqlstate_ = sqlstate;
}

Wire::Progress Wire::fail_errno(const char *what) { return fail(std::string(what) + ": " + strerror(errno)); }

void Wire::drop() {
  if (tls_ != nullptr) SSL_free(tls_);
  tls_ = nullptr;
  if (fd_ >= 0) ::close(fd_);  // which also takes it out of the epoll set
  fd_ = -1;
  phase_ = Phase::closed;
  watching_output_ = false;
  unsent_.clear();
  reader_.reset();
}

void Wire::leave(Target &target) {
  static const std::string goodbye = simple_message('X', "");
  if (is_open() && unsent_.empty()) write_some(target, goodbye.data(), goodbye.size());
  if (tls_ != nullptr) SSL_shutdown(tls_);
  ERR_clear_error();
  drop();
}

bool Wire::watch(Target &target, bool output) {
  if (output == watching_output_) return true;
  epoll_event event = {};
  event.events = EPOLLIN | (output ? static_cast<uint32_t>(EPOLLOUT) : 0);
  event.data.u64 = tag_;
  if (epoll_ctl(target.epoll, EPOLL_CTL_MOD, fd_, &event) != 0) {
    fail_errno("could not watch a connection");
    return false;
  }
  watching_output_ = output;
  return true;
}

// ---- opening

// Many connections from one address to one port need more ports than there are; all of 127.0.0.0/8 is this machine.
bool Wire::be_source(Target &target, size_t number) {
  const size_t which = number / kConnectionsOfSource;
  if (!target.loopback || which == 0) return true;
  const int on = 1;
  setsockopt(fd_, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
  sockaddr_in source = {};
  source.sin_family = AF_INET;
  source.sin_addr.s_addr = htonl(0x7f000001u + static_cast<uint32_t>(which));
  return bind(fd_, reinterpret_cast<const sockaddr *>(&source), sizeof(source)) == 0;
}

Wire::Progress Wire::open(Target &target, uint64_t tag, size_t number) {
  failure_.clear();
  failure_sqlstate_.clear();
  tag_ = tag;
  fd_ = socket(target.address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd_ < 0) return fail_errno("could not create a socket");
  if (!be_source(target, number)) return fail_errno("could not choose an address to come from");
  const int on = 1;
  if (!target.local) setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  const sockaddr *address = reinterpret_cast<const sockaddr *>(&target.address);
  const bool connected = connect(fd_, address, target.address_length) == 0;
  if (!connected && (errno == EAGAIN || errno == EADDRNOTAVAIL)) {
    drop();
    return Progress::again;
  }
  if (!connected && errno != EINPROGRESS) return fail_errno(("could not connect to " + target.name).c_str());
  phase_ = Phase::connecting;
  // On loopback the connection is there by now, although that is not what the kernel said.
  const Progress progress = greet(target);
  if (progress == Progress::failed) return progress;
  epoll_event event = {};
  watching_output_ = phase_ == Phase::connecting;
  event.events = EPOLLIN | (watching_output_ ? static_cast<uint32_t>(EPOLLOUT) : 0);
  event.data.u64 = tag_;
  if (epoll_ctl(target.epoll, EPOLL_CTL_ADD, fd_, &event) != 0) return fail_errno("could not watch a connection");
  return Progress::under_way;
}

// The first bytes, if the connection is there.
Wire::Progress Wire::greet(Target &target) {
  std::string tls_request;
  if (target.tls != nullptr) {
    const size_t place = begin_message(tls_request, '\0');
    append_int32(tls_request, kTlsRequest);
    end_message(tls_request, place);
  }
  const std::string &greeting = target.tls != nullptr ? tls_request : target.startup;
  const ssize_t sent = write_some(target, greeting.data(), greeting.size());
  if (sent < 0) return fail_errno(("could not connect to " + target.name).c_str());
  if (sent == 0) return Progress::under_way;
  if (static_cast<size_t>(sent) < greeting.size()) return fail("a new connection takes no bytes");
  phase_ = target.tls != nullptr ? Phase::asking_tls : Phase::starting;
  return Progress::under_way;
}

Wire::Progress Wire::finish_connecting(Target &target) {
  int error = 0;
  socklen_t length = sizeof(error);
  if (getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &length) != 0) error = errno;
  if (error != 0) {
    errno = error;
    return fail_errno(("could not connect to " + target.name).c_str());
  }
  const Progress progress = greet(target);
  if (progress == Progress::under_way && phase_ != Phase::connecting && !watch(target, false)) return Progress::failed;
  return progress;
}

Wire::Progress Wire::take_tls_answer(Target &target) {
  char answer;
  const ssize_t got = recv(fd_, &answer, 1, 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return Progress::under_way;
  if (got < 0) return fail_errno("could not receive from the server");
  if (got == 0) return fail("the server closed a connection");
  if (answer != 'S') return fail("the server does not speak TLS");
  tls_ = SSL_new(target.tls);
  if (tls_ == nullptr || SSL_set_fd(tls_, fd_) != 1) die("out of memory");
  SSL_set_connect_state(tls_);
  phase_ = Phase::shaking_hands;
  return shake_hands(target);
}

Wire::Progress Wire::shake_hands(Target &target) {
  ERR_clear_error();
  const int status = SSL_connect(tls_);
  if (status == 1) {
    if (!watch(target, false)) return Progress::failed;
    return start(target);
  }
  const int error = SSL_get_error(tls_, status);
  if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
    return watch(target, error == SSL_ERROR_WANT_WRITE) ? Progress::under_way : Progress::failed;
  const unsigned long reason = ERR_peek_error();
  return fail(std::string("TLS could not be agreed upon: ") +
              (reason != 0 ? ERR_error_string(reason, nullptr) : "the server closed a connection"));
}

Wire::Progress Wire::start(Target &target) {
  phase_ = Phase::starting;
  return send(target, target.startup) ? Progress::under_way : Progress::failed;
}

Wire::Progress Wire::continue_opening(Target &target) {
  if (phase_ == Phase::connecting) return finish_connecting(target);
  if (phase_ == Phase::asking_tls) return take_tls_answer(target);
  if (phase_ == Phase::shaking_hands) return shake_hands(target);
  if (has_unsent() && !flush(target)) return Progress::failed;
  bool ready = false;
  const Progress progress = receive(target, [&](char type, const char *body, size_t length) {
    if (type == 'R' && (length < 4 || read_int32(body) != 0))
      die("the server " + target.name + " asks for a password; this client must be trusted");
    if (type == 'E' && failure_.empty()) expect_failure(error_field(body, length, 'M'), error_field(body, length, 'C'));
    if (type == 'Z') ready = true;
  });
  if (progress == Progress::failed || !failure_.empty()) return Progress::failed;
  if (!ready) return Progress::under_way;
  phase_ = Phase::open;
  return Progress::done;
}

// ---- sending and receiving

// How much was taken, 0 if nothing now, -1 with errno.
ssize_t Wire::write_some(Target &target, const char *bytes, size_t length) {
  ssize_t sent;
  if (tls_ == nullptr) {
    do sent = ::send(fd_, bytes, length, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0 && errno == EAGAIN) return 0;
  } else {
    ERR_clear_error();
    const int status = SSL_write(tls_, bytes, static_cast<int>(std::min<size_t>(length, 1 << 20)));
    const int error = status > 0 ? SSL_ERROR_NONE : SSL_get_error(tls_, status);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return 0;
    if (error != SSL_ERROR_NONE && (error != SSL_ERROR_SYSCALL || errno == 0)) errno = EPROTO;
    sent = error == SSL_ERROR_NONE ? status : -1;
  }
  if (sent > 0) target.bytes_sent += static_cast<uint64_t>(sent);
  return sent;
}

bool Wire::send(Target &target, const char *bytes, size_t length) {
  if (!unsent_.empty()) {
    unsent_.append(bytes, length);
    return true;
  }
  size_t done = 0;
  while (done < length) {
    const ssize_t sent = write_some(target, bytes + done, length - done);
    if (sent < 0) {
      fail_errno("could not send to the server");
      return false;
    }
    done += static_cast<size_t>(sent);
    if (sent > 0 && (tls_ != nullptr || done == length)) continue;
    unsent_.assign(bytes + done, length - done);
    return watch(target, true);
  }
  return true;
}

bool Wire::flush(Target &target) {
  while (!unsent_.empty()) {
    const ssize_t sent = write_some(target, unsent_.data(), unsent_.size());
    if (sent < 0) {
      fail_errno("could not send to the server");
      return false;
    }
    if (sent == 0) return true;
    unsent_.erase(0, static_cast<size_t>(sent));
  }
  return watch(target, false);
}

ssize_t Wire::read_some(Target &target) {
  if (tls_ == nullptr) {
    const ssize_t got = recv(fd_, target.buffer.data(), target.buffer.size(), 0);
    if (got >= 0) return got;
    if (errno == EAGAIN || errno == EINTR) return -1;
    fail_errno("could not receive from the server");
    return -2;
  }
  ERR_clear_error();
  const int got = SSL_read(tls_, target.buffer.data(), static_cast<int>(target.buffer.size()));
  if (got > 0) return got;
  const int error = SSL_get_error(tls_, got);
  if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return -1;
  if (error == SSL_ERROR_ZERO_RETURN || (error == SSL_ERROR_SYSCALL && errno == 0)) return 0;
  fail("TLS broke off");
  return -2;
}

}  // namespace load
