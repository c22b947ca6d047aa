#include "proxy/io/listener.hpp"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
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

// As many as there were the last time: to ask for one more only to hear that there is none is a system call for each
// client that comes alone. The set being level-triggered, those that are left have their turn with the next batch, and
// then there is room for more.
void Listener::on_event(std::uint32_t) {
  // A bound, so that a flood of connects cannot keep the thread from its other work.
  constexpr int kAcceptsPerTurn = 64;
  if (events_.batch() == full_batch_ + 1) turn_ = std::min(2 * turn_, kAcceptsPerTurn);
  const auto alive = alive_;
  const int turn = turn_;
  for (int i = 0; i < turn && *alive && accepting_; ++i) {
    sockaddr_storage peer{};
    socklen_t length = sizeof peer;
    const int fd = ::accept4(socket_.fd(), reinterpret_cast<sockaddr*>(&peer), &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      on_accept_(fd, peer, socket_.is_unix());
    } else if (errno == EAGAIN) {
      turn_ = std::max(i, 1);
      return;
    } else if (!concerns_one_connection(errno)) {
      wait_and_retry(errno);
      return;
    }
  }
  if (*alive) full_batch_ = events_.batch();
}

void Listener::wait_and_retry(int error) {
  unwatch();
  retry_timer_.start_after(retry_pause_, [this] { watch(); });
  if (on_failure_) on_failure_(error);
}

}  // namespace pgweir::io
