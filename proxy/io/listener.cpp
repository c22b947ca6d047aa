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

Listener::Listener(boost::asio::io_context& context, ListenSocket socket, AcceptCallback on_accept)
    : socket_(std::move(socket)),
      descriptor_(context, socket_.fd()),
      retry_timer_(context),
      on_accept_(std::move(on_accept)),
      alive_(std::make_shared<bool>(true)) {}

Listener::~Listener() {
  *alive_ = false;
  close();
}

void Listener::start() {
  if (!descriptor_.is_open()) return;
  accepting_ = true;
  retrying_ = false;
  retry_timer_.cancel();
  arm();
}

void Listener::pause() {
  accepting_ = false;
  retrying_ = false;
  retry_timer_.cancel();
  if (!descriptor_.is_open()) return;
  boost::system::error_code ignored;
  descriptor_.cancel(ignored);
}

void Listener::close() {
  pause();
  // The ListenSocket owns the number; Asio only forgets it.
  if (descriptor_.is_open()) descriptor_.release();
  socket_.close();
}

void Listener::give_away() {
  pause();
  if (!descriptor_.is_open()) return;
  descriptor_.release();
  ::close(socket_.release());
}

void Listener::arm() {
  if (armed_ || retrying_ || !accepting_) return;
  armed_ = true;
  descriptor_.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                         [this, alive = alive_](const boost::system::error_code& error) {
                           if (!*alive) return;
                           armed_ = false;
                           if (!error && accepting_) accept_ready();
                           // Also after a cancelled wait: pause() and start() may both have come meanwhile.
                           if (*alive) arm();
                         });
}

void Listener::accept_ready() {
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
  retrying_ = true;
  retry_timer_.expires_after(retry_pause_);
  retry_timer_.async_wait([this, alive = alive_](const boost::system::error_code& cancelled) {
    if (cancelled || !*alive || !std::exchange(retrying_, false)) return;
    arm();
  });
  if (on_failure_) on_failure_(error);
}

}  // namespace pgweir::io
