#include "proxy/io/socket_port.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "proxy/io/descriptors.hpp"
#include "proxy/io/worker.hpp"

namespace pgweir::io {

namespace {
/// Pieces of what nobody will read that are taken off a closing socket, and their size.
constexpr int kDrainRounds = 16;
constexpr std::size_t kDrainSize = 16384;
constexpr std::size_t kPiecesMax = 64;

std::size_t size_of(std::span<const core::ByteView> pieces) {
  std::size_t total = 0;
  for (const core::ByteView piece : pieces) total += piece.size();
  return total;
}
}  // namespace

SocketPort::SocketPort(Worker& worker, int fd) : worker_(&worker), stream_(fd) {
  if (!worker_->events().add(fd, EPOLLIN, this)) broken_ = true;
  if (broken_) worker_->look_again(*this);
}

SocketPort::~SocketPort() {
  if (stream_.is_open()) close();
}

void SocketPort::close() {
  if (!stream_.is_open()) return;
  if (worker_ != nullptr) {
    worker_->forget(*this);
    worker_->events().remove(stream_.fd(), this);
  }
  if (!stream_.is_tls() && !broken_ && !all_read_ && worker_ != nullptr) {
    // Unread input would turn the close into a reset, which may overtake our last message. A client that has said
    // good-bye was read to the end just now, and has been told nothing since. Not into the worker's buffer: what
    // another connection has read may be there, and be looked at while this one is closed because of it.
    std::array<char, kDrainSize> unread;
    for (int i = 0; i < kDrainRounds; ++i) {
      if (stream_.try_read(unread.data(), unread.size()).status != IoStatus::Ok) break;
    }
  }
  stream_.close();
}

std::size_t SocketPort::write(std::span<const core::ByteView> pieces) {
  if (broken_ || !stream_.is_open()) return size_of(pieces);
  if (handshaking_) return 0;
  all_read_ = false;
  if (pieces.size() != 1) return gather(pieces);
  const IoResult result = stream_.try_write(pieces.front());
  if (result.status == IoStatus::Ok) [[likely]] {
    note_use();
    return result.bytes;
  }
  return result.status == IoStatus::WouldBlock ? 0 : swallow(result, pieces);
}

// The connection is broken, and takes whatever is written to it.
std::size_t SocketPort::swallow(const IoResult& failure, std::span<const core::ByteView> pieces) {
  broken_ = true;
  failure_ = stream_.is_tls() ? stream_.tls_error() : std::strerror(failure.error);
  if (worker_ != nullptr) worker_->look_again(*this);  // otherwise enter_worker does
  return size_of(pieces);
}

std::size_t SocketPort::gather(std::span<const core::ByteView> pieces) {
  std::size_t accepted = 0;
  std::size_t index = 0;
  while (index < pieces.size()) {
    std::array<iovec, kPiecesMax> vectors;
    std::size_t count = 0;
    std::size_t wanted = 0;
    for (; index + count < pieces.size() && count < kPiecesMax; ++count) {
      const core::ByteView piece = pieces[index + count];
      vectors[count] = {const_cast<char*>(piece.data()), piece.size()};
      wanted += piece.size();
    }
    const IoResult result = stream_.try_write(vectors.data(), static_cast<int>(count));
    if (result.status == IoStatus::WouldBlock) return accepted;
    if (result.status != IoStatus::Ok) return swallow(result, pieces);
    note_use();
    accepted += result.bytes;
    if (result.bytes < wanted) return accepted;
    index += count;
  }
  return accepted;
}

void SocketPort::note_use() {
  if (stream_.is_tls() && worker_ != nullptr) stream_.note_use(worker_->tls_buffers(), worker_->core().now());
}

void SocketPort::set_interest(bool read, bool write, bool hangup) {
  want_read_ = read;
  want_write_ = write;
  want_hangup_ = hangup;
  update_events();
  // Decrypted bytes may wait inside OpenSSL while the socket itself is silent.
  if (read && stream_.has_buffered_input() && worker_ != nullptr) worker_->look_again(*this);
}

void SocketPort::update_events() {
  if (!stream_.is_open()) return;
  std::uint32_t events = 0;
  if (want_read_ || handshaking_ || stream_.wants_read_for_write()) events |= EPOLLIN;
  if (want_write_ || stream_.wants_write_for_read()) events |= EPOLLOUT;
  if (want_hangup_ && !want_read_) events |= EPOLLRDHUP;
  if (events == events_) return;
  events_ = events;
  if (worker_ == nullptr) return;
  if (!worker_->events().modify(stream_.fd(), events, this)) broken_ = true;
}

void SocketPort::start_tls_server(core::ByteView already_received) {
  handshaking_ = true;
  try {
    stream_.start_tls_server(worker_->client_tls().get(), already_received);
  } catch (const std::exception& e) {
    broken_ = true;
    failure_ = e.what();
  }
  worker_->look_again(*this);
}

void SocketPort::start_tls_client(const core::ServerTarget& target) {
  handshaking_ = true;
  try {
    const TlsContext context = worker_->server_tls(target);
    stream_.start_tls_client(context.get(), target.sslmode == core::SslMode::VerifyFull ? target.host.host : "");
  } catch (const std::exception& e) {
    broken_ = true;
    failure_ = e.what();
  }
  worker_->look_again(*this);
}

void SocketPort::handshake() {
  switch (stream_.handshake()) {
    case HandshakeStatus::Done:
      handshaking_ = false;
      want_write_ = false;
      update_events();
      session_->on_tls_ready();
      if (!session_->closed()) read();
      return;
    case HandshakeStatus::WantRead:
      want_write_ = false;
      update_events();
      return;
    case HandshakeStatus::WantWrite:
      want_write_ = true;
      update_events();
      return;
    case HandshakeStatus::Failed:
      handshaking_ = false;
      hang_up("TLS handshake failed: " + stream_.handshake_error());
      return;
  }
}

void SocketPort::hang_up(const std::string& reason) {
  broken_ = true;
  session_->on_hangup(reason);
}

// What the event means for other sessions; mostly nothing.
void SocketPort::run_pending() {
  core::WorkerCore& core = worker_->core();
  if (core.has_pending()) core.run_pending();
}

void SocketPort::on_event(std::uint32_t events) {
  if (session_ == nullptr || session_->closed()) return;
  if (handshaking_) {
    handshake();
  } else {
    if ((events & EPOLLOUT) != 0) session_->writable();
    if (!session_->closed() && (events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP)) != 0) {
      if (want_read_) {
        read();
      } else if ((events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP)) != 0) {
        hang_up("client unexpected eof");
      }
    }
  }
  run_pending();
}

void SocketPort::again() {
  if (session_ == nullptr || session_->closed()) return;
  if (broken_) {
    hang_up(failure_.empty() ? "connection failed" : failure_);
  } else if (handshaking_) {
    handshake();
  } else if (want_read_) {
    read();
  }
  run_pending();
}

void SocketPort::read() {
  char* buffer = worker_->buffer();
  const std::size_t size = worker_->buffer_size();
  // So that one COPY cannot starve the others.
  const int rounds = worker_->reads_per_event();
  for (int round = 0; round < rounds; ++round) {
    const IoResult result = stream_.try_read(buffer, size);
    switch (result.status) {
      case IoStatus::Ok:
        note_use();
        all_read_ = result.bytes < size;
        session_->receive({buffer, result.bytes});
        if (result.bytes < size && !stream_.has_buffered_input()) [[likely]]
          return;
        if (session_->closed() || !want_read_ || handshaking_) return;
        break;
      case IoStatus::WouldBlock:
        if (stream_.is_tls()) update_events();
        return;
      case IoStatus::Eof:
        all_read_ = true;
        return hang_up("client unexpected eof");
      case IoStatus::Error:
        return hang_up(stream_.is_tls() && !stream_.tls_error().empty() ? stream_.tls_error()
                                                                        : std::strerror(result.error));
    }
  }
  // The level-triggered set reports a plain socket again; OpenSSL's buffer it does not know.
  if (stream_.has_buffered_input()) worker_->look_again(*this);
}

void SocketPort::leave_worker() {
  if (worker_ == nullptr) return;
  stream_.release_buffers();
  worker_->forget(*this);
  worker_->events().remove(stream_.fd(), this);
  worker_ = nullptr;
}

void SocketPort::enter_worker(Worker& worker) {
  if (worker_ != nullptr) return;
  worker_ = &worker;
  if (!worker_->events().add(stream_.fd(), events_, this)) broken_ = true;
  if (broken_ || stream_.has_buffered_input()) worker_->look_again(*this);
}

// ---- online restart ----

std::shared_ptr<const int> SocketPort::duplicate() const {
  const int copy = ::fcntl(stream_.fd(), F_DUPFD_CLOEXEC, 0);
  return copy < 0 ? nullptr : share_descriptor(copy);
}

bool SocketPort::send_descriptors(const std::vector<std::pair<std::string, std::shared_ptr<const int>>>& messages) {
  return std::all_of(messages.begin(), messages.end(), [&](const auto& message) {
    return send_with_descriptor(stream_.fd(), message.first, message.second ? *message.second : -1);
  });
}

void SocketPort::give_away() {
  if (!stream_.is_open()) return;
  if (worker_ != nullptr) leave_worker();
  ::close(stream_.detach_fd());
}

}  // namespace pgweir::io
