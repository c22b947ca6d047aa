#include "proxy/io/stream.hpp"

#include <openssl/ssl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>

#include "proxy/io/stream_tls.hpp"

namespace pgweir::io {

void Stream::TlsDeleter::operator()(Tls* tls) const noexcept {
  delete tls;
}

Stream::Stream(int fd) noexcept : fd_(fd) {}

Stream::Stream(Stream&& other) noexcept : fd_(std::exchange(other.fd_, -1)), tls_(std::move(other.tls_)) {}

Stream& Stream::operator=(Stream&& other) noexcept {
  if (this != &other) {
    close();
    fd_ = std::exchange(other.fd_, -1);
    tls_ = std::move(other.tls_);
  }
  return *this;
}

Stream::~Stream() {
  close();
}

IoResult Stream::plain_failure(long result) noexcept {
  if (result == 0) return {IoStatus::Eof, 0, 0};
  // After EINTR the level-triggered set reports the socket again.
  if (errno == EAGAIN || errno == EINTR) return {IoStatus::WouldBlock, 0, 0};
  return {IoStatus::Error, 0, errno};
}

IoResult Stream::plain_gather(const struct iovec* pieces, int count) noexcept {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(pieces);
  message.msg_iovlen = static_cast<std::size_t>(std::min(count, IOV_MAX));
  const ssize_t sent = ::sendmsg(fd_, &message, MSG_NOSIGNAL);
  if (sent >= 0) return {IoStatus::Ok, static_cast<std::size_t>(sent), 0};
  return plain_failure(sent);
}

bool Stream::wants_write_for_read() const noexcept {
  return tls_ != nullptr && tls_->read_wants_write;
}

bool Stream::wants_read_for_write() const noexcept {
  return tls_ != nullptr && tls_->write_wants_read;
}

void Stream::tls_note_use(TlsBuffers& buffers, pool::TimePoint now) {
  buffers.used(tls_->buffers, now);
}

void Stream::release_buffers() noexcept {
  if (tls_ != nullptr) tls_->buffers.release();
}

void Stream::shutdown_write() noexcept {
  if (tls_ != nullptr) tls_->send_close_notify();
  if (fd_ >= 0) ::shutdown(fd_, SHUT_WR);
}

void Stream::close() noexcept {
  if (tls_ != nullptr) {
    tls_->send_close_notify();
    tls_.reset();
  }
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

int Stream::detach_fd() noexcept {
  tls_.reset();
  return std::exchange(fd_, -1);
}

}  // namespace pgweir::io
