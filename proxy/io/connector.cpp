#include "proxy/io/connector.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "proxy/io/listener.hpp"

namespace pgweir::io {

/// One connect() call until its callback.
struct Connector::Attempt final : EventHandler {
  Attempt(Connector& owner, std::uint64_t number) : connector(owner), token(number) {}
  Attempt(const Attempt&) = delete;
  Attempt& operator=(const Attempt&) = delete;
  ~Attempt() override {
    if (const int fd = release(); fd >= 0) ::close(fd);
    if (result.fd >= 0) ::close(result.fd);
  }
  /// The connecting socket, no longer watched.
  int release() {
    if (connecting >= 0) connector.events_.remove(connecting, this);
    return std::exchange(connecting, -1);
  }
  void on_event(std::uint32_t) override { connector.on_writable(token); }  // Which destroys it.

  Connector& connector;
  std::uint64_t token;
  int port = 0;
  TcpSettings tcp;
  Callback callback;
  int connecting = -1;   // A socket whose connect is under way.
  ConnectResult result;  // Address, and the outcome once it is known; owns its descriptor.
};

namespace {

bool literal_address(const std::string& host, sockaddr_storage& address) {
  auto& v4 = reinterpret_cast<sockaddr_in&>(address);
  if (::inet_pton(AF_INET, host.c_str(), &v4.sin_addr) == 1) {
    address.ss_family = AF_INET;
    return true;
  }
  auto& v6 = reinterpret_cast<sockaddr_in6&>(address);
  if (::inet_pton(AF_INET6, host.c_str(), &v6.sin6_addr) == 1) {
    address.ss_family = AF_INET6;
    return true;
  }
  return false;
}

socklen_t set_port(sockaddr_storage& address, int port) {
  const auto number = htons(static_cast<std::uint16_t>(port));
  if (address.ss_family == AF_INET) {
    reinterpret_cast<sockaddr_in&>(address).sin_port = number;
    return sizeof(sockaddr_in);
  }
  reinterpret_cast<sockaddr_in6&>(address).sin6_port = number;
  return sizeof(sockaddr_in6);
}

ConnectResult connect_failed(int error) {
  ConnectResult result;
  result.error = "connect failed";
  result.detail = std::strerror(error);
  return result;
}

ConnectResult lookup_failed(std::string detail) {
  ConnectResult result;
  result.error = "server DNS lookup failed";
  result.detail = std::move(detail);
  return result;
}

}  // namespace

Connector::Connector(EventSet& events, NameLookup lookup)
    : events_(events), lookup_(std::move(lookup)), alive_(std::make_shared<bool>(true)) {}

Connector::~Connector() {
  *alive_ = false;
}

std::uint64_t Connector::connect(const std::string& host, int port, const TcpSettings& tcp, Callback callback) {
  const std::uint64_t token = ++last_token_;
  auto attempt = std::make_unique<Attempt>(*this, token);
  attempt->port = port;
  attempt->tcp = tcp;
  attempt->callback = std::move(callback);
  attempts_.emplace(token, std::move(attempt));

  sockaddr_storage address{};
  if (!host.empty() && (host[0] == '/' || host[0] == '@')) {
    const socklen_t length = unix_address(unix_socket_path(host, port), address);
    if (length == 0) {
      finish_later(token, connect_failed(ENAMETOOLONG));
    } else {
      start_connect(token, address, length);
    }
  } else if (literal_address(host, address)) {
    const socklen_t length = set_port(address, port);
    start_connect(token, address, length);
  } else {
    lookup_(host, [this, alive = alive_, token](const ResolvedName& name) {
      if (*alive) on_resolved(token, name);
    });
  }
  return token;
}

void Connector::cancel(std::uint64_t token) {
  attempts_.erase(token);  // Closes its socket.
}

void Connector::on_resolved(std::uint64_t token, const ResolvedName& name) {
  const auto found = attempts_.find(token);
  if (found == attempts_.end()) return;  // Cancelled while the lookup was under way.
  if (!name.address) {
    finish(token, lookup_failed(name.failure));
    return;
  }
  sockaddr_storage address = *name.address;
  const socklen_t length = set_port(address, found->second->port);
  start_connect(token, address, length);
}

void Connector::start_connect(std::uint64_t token, const sockaddr_storage& address, socklen_t length) {
  Attempt& attempt = *attempts_.at(token);
  attempt.result.address = address;
  attempt.result.address_length = length;
  const int fd = ::socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    finish_later(token, connect_failed(errno));
    return;
  }
  apply_socket_options(fd, attempt.tcp);
  const int result = ::connect(fd, reinterpret_cast<const sockaddr*>(&address), length);
  if (result == 0) {
    ConnectResult connected;
    connected.fd = fd;
    finish_later(token, std::move(connected));
    return;
  }
  // EAGAIN on a Unix socket is a full queue, not progress: there would be nothing to wait for.
  if (errno != EINPROGRESS && errno != EINTR) {
    const int error = errno;
    ::close(fd);
    finish_later(token, connect_failed(error));
    return;
  }
  if (!events_.add(fd, EPOLLOUT, &attempt)) {
    const int error = errno;
    ::close(fd);
    finish_later(token, connect_failed(error));
    return;
  }
  attempt.connecting = fd;
}

void Connector::on_writable(std::uint64_t token) {
  const int fd = attempts_.at(token)->release();
  int reason = 0;
  socklen_t length = sizeof reason;
  if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &reason, &length) != 0) reason = errno;
  if (reason != 0) {
    ::close(fd);
    finish(token, connect_failed(reason));
    return;
  }
  ConnectResult connected;
  connected.fd = fd;
  finish(token, std::move(connected));
}

void Connector::finish_later(std::uint64_t token, ConnectResult result) {
  Attempt& attempt = *attempts_.at(token);
  result.address = attempt.result.address;
  result.address_length = attempt.result.address_length;
  attempt.result = std::move(result);
  events_.defer([this, alive = alive_, token] {
    if (!*alive) return;
    const auto found = attempts_.find(token);
    if (found == attempts_.end()) return;
    ConnectResult outcome = std::move(found->second->result);
    found->second->result = ConnectResult();
    finish(token, std::move(outcome));
  });
}

void Connector::finish(std::uint64_t token, ConnectResult result) {
  const auto found = attempts_.find(token);
  const std::unique_ptr<Attempt> attempt = std::move(found->second);
  attempts_.erase(found);
  if (result.address_length == 0) {
    result.address = attempt->result.address;
    result.address_length = attempt->result.address_length;
  }
  attempt->callback(std::move(result));
}

}  // namespace pgweir::io
