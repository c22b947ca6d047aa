#include "proxy/io/listener.hpp"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace pgweir::io {

namespace {

/// Failures of one connection, which say nothing about the next one (accept(2) passes network errors on).
bool concerns_one_connection(int error) {
  switch (error) {
    case EINTR:
    case ECONNABORTED:
    case EPROTO:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ENETUNREACH:
    case EPERM:
      return true;
    default:
      return false;
  }
}

}  // namespace

Listener::Listener(EventSet& events, ListenSocket socket, AcceptCallback on_accept)
    : events_(events),
      socket_(std::move(socket)),
      retry_timer_(events),
      on_accept_(std::move(on_accept)),
      alive_(std::make_shared<bool>(true)) {}

Listener::~Listener() {
  *alive_ = false;
  close();
}

void Listener::start() {
  if (socket_.fd() < 0) return;
  accepting_ = true;
  retry_timer_.cancel();
  watch();
}

void Listener::pause() {
  accepting_ = false;
  retry_timer_.cancel();
  unwatch();
}

void Listener::close() {
  pause();
  socket_.close();
}

void Listener::give_away() {
  pause();
  if (socket_.fd() >= 0) ::close(socket_.release());
}

void Listener::watch() {
  if (watched_) return;
  watched_ = events_.add(socket_.fd(), EPOLLIN, this);
  if (!watched_) wait_and_retry(errno);
}

void Listener::unwatch() {
  if (std::exchange(watched_, false)) events_.remove(socket_.fd(), this);
}

void Listener::on_event(std::uint32_t) {
  // A bound, so that a flood of connects cannot keep the thread from its other work.
  constexpr int kAcceptsPerTurn = 64;
  const auto alive = alive_;
  for (int i = 0; i < kAcceptsPerTurn && *alive && accepting_; ++i) {
    sockaddr_storage peer{};
    socklen_t length = sizeof peer;
    const int fd = ::accept4(socket_.fd(), reinterpret_cast<sockaddr*>(&peer), &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      on_accept_(fd, peer, socket_.is_unix());
    } else if (errno == EAGAIN) {
      return;
    } else if (!concerns_one_connection(errno)) {
      wait_and_retry(errno);
      return;
    }
  }
}

void Listener::wait_and_retry(int error) {
  unwatch();
  retry_timer_.start_after(retry_pause_, [this] { watch(); });
  if (on_failure_) on_failure_(error);
}

}  // namespace pgweir::io
