// TLS of Stream: the record traffic and the handshake. OpenSSL reaches the socket through a BIO of our own, because its
// socket BIO uses write(2), which raises SIGPIPE, and cannot be given bytes that were read before TLS began.
#include "proxy/io/stream_tls.hpp"

#include <arpa/inet.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "proxy/io/socket_calls.hpp"
#include "proxy/io/stream.hpp"

namespace pgweir::io {

namespace {

/// The largest plaintext of one TLS record.
constexpr std::size_t kRecordMax = 16384;
/// Two of the largest records.
constexpr std::size_t kAheadMax = 2 * (kRecordMax + 256 + 5);

TlsSocket& socket_of(BIO* bio) {
  return *static_cast<TlsSocket*>(BIO_get_data(bio));
}

int bio_read(BIO* bio, char* out, std::size_t size, std::size_t* got) {
  TlsSocket& socket = socket_of(bio);
  BIO_clear_retry_flags(bio);
  *got = socket.take(out, size);
  if (*got > 0) return 1;
  if (socket.dry) {
    socket.blocked = SSL_ERROR_WANT_READ;
    BIO_set_retry_read(bio);
    return 0;
  }
  thread_local std::array<char, kAheadMax> buffer;
  const ssize_t received = receive_bytes(socket.fd, buffer.data(), buffer.size());
  if (received > 0) {
    socket.ahead = {buffer.data(), static_cast<std::size_t>(received)};
    socket.dry = socket.ahead.size() < buffer.size();
    *got = socket.take(out, size);
    return 1;
  }
  if (received == 0) {
    BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
    errno = 0;
  } else if (errno == EAGAIN || errno == EINTR) {
    socket.blocked = SSL_ERROR_WANT_READ;
    BIO_set_retry_read(bio);
  }
  return 0;
}

int bio_write(BIO* bio, const char* bytes, std::size_t size, std::size_t* written) {
  TlsSocket& socket = socket_of(bio);
  BIO_clear_retry_flags(bio);
  const ssize_t sent = send_bytes(socket.fd, bytes, size);
  if (sent >= 0) {
    *written = static_cast<std::size_t>(sent);
    return 1;
  }
  *written = 0;
  if (errno == EAGAIN || errno == EINTR) {
    socket.blocked = SSL_ERROR_WANT_WRITE;
    BIO_set_retry_write(bio);
  }
  return 0;
}

long bio_control(BIO* bio, int command, long, void*) {
  switch (command) {
    case BIO_CTRL_FLUSH:
    case BIO_CTRL_DUP:
      return 1;
    case BIO_CTRL_EOF:
      return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0 ? 1 : 0;
    default:
      return 0;
  }
}

BIO_METHOD* make_bio_method() {
  BIO_METHOD* method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "pgweir socket");
  if (method == nullptr) throw std::runtime_error("OpenSSL is out of memory");
  BIO_meth_set_read_ex(method, bio_read);
  BIO_meth_set_write_ex(method, bio_write);
  BIO_meth_set_ctrl(method, bio_control);
  return method;
}

const BIO_METHOD* bio_method() {
  static const BIO_METHOD* method = make_bio_method();
  return method;
}

bool is_literal_address(const std::string& host) {
  std::array<unsigned char, sizeof(in6_addr)> unused;
  return ::inet_pton(AF_INET, host.c_str(), unused.data()) == 1 ||
         ::inet_pton(AF_INET6, host.c_str(), unused.data()) == 1;
}

/// What of the gathered pieces goes into the next record: the first min(total, kRecordMax) bytes after `skip`, in place
/// if one piece holds them all, else copied together. Depends only on the unwritten bytes, so a repeated write offers
/// OpenSSL the same length again or a greater one.
class RecordGather {
 public:
  RecordGather(const struct iovec* pieces, int count) : pieces_(pieces), count_(count) {}

  [[nodiscard]] bool empty() {
    while (piece_ < count_ && offset_ == pieces_[piece_].iov_len) {
      ++piece_;
      offset_ = 0;
    }
    return piece_ >= count_;
  }

  /// Valid until the next call on this thread. Precondition: !empty().
  [[nodiscard]] std::string_view next() {
    const std::string_view first = rest_of(piece_, offset_);
    if (first.size() >= kRecordMax) return first.substr(0, kRecordMax);
    if (piece_ + 1 >= count_) return first;
    thread_local std::array<char, kRecordMax> scratch;
    std::size_t filled = 0;
    std::size_t offset = offset_;
    for (int i = piece_; i < count_ && filled < kRecordMax; ++i, offset = 0) {
      const std::string_view part = rest_of(i, offset).substr(0, kRecordMax - filled);
      if (part.empty()) continue;
      std::memcpy(scratch.data() + filled, part.data(), part.size());
      filled += part.size();
    }
    return {scratch.data(), filled};
  }

  void consume(std::size_t n) {
    while (n > 0) {
      const std::size_t here = std::min(n, pieces_[piece_].iov_len - offset_);
      offset_ += here;
      n -= here;
      if (offset_ == pieces_[piece_].iov_len) {
        ++piece_;
        offset_ = 0;
      }
    }
  }

 private:
  [[nodiscard]] std::string_view rest_of(int piece, std::size_t offset) const {
    return {static_cast<const char*>(pieces_[piece].iov_base) + offset, pieces_[piece].iov_len - offset};
  }

  const struct iovec* pieces_;
  int count_;
  int piece_ = 0;
  std::size_t offset_ = 0;
};

}  // namespace

std::size_t TlsSocket::take(char* out, std::size_t size) {
  if (received_before_used < received_before.size()) {
    const std::size_t n = received_before.copy(out, size, received_before_used);
    received_before_used += n;
    if (received_before_used == received_before.size()) {
      std::string().swap(received_before);
      received_before_used = 0;
    }
    return n;
  }
  const std::size_t n = ahead.copy(out, size);
  ahead.remove_prefix(n);
  return n;
}

TlsSocket::Reading::~Reading() {
  if (socket_.ahead.empty()) return;
  // There is nothing before it: the socket is read only when that has been used up.
  socket_.received_before.assign(socket_.ahead);
  socket_.received_before_used = 0;
  socket_.ahead = {};
}

Stream::Tls::Tls(SSL_CTX* context, int fd, std::string_view already_received) : ssl(SSL_new(context)), buffers(ssl) {
  socket.fd = fd;
  socket.received_before = already_received;
  BIO* bio = ssl != nullptr ? BIO_new(bio_method()) : nullptr;
  if (bio == nullptr) {
    SSL_free(ssl);
    ERR_clear_error();
    throw std::runtime_error("OpenSSL is out of memory");
  }
  BIO_set_data(bio, &socket);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl, bio, bio);
}

Stream::Tls::~Tls() {
  SSL_free(ssl);
}

void Stream::Tls::send_close_notify() noexcept {
  if (!handshake_done || broken || close_notify_sent) return;
  close_notify_sent = true;
  const TlsSocket::Reading reading(socket);
  ERR_clear_error();
  if (SSL_shutdown(ssl) < 0) ERR_clear_error();
}

void Stream::Tls::remember_error(int error_number) {
  const unsigned long code = ERR_peek_error();
  ERR_clear_error();
  const char* reason = code != 0 ? ERR_reason_error_string(code) : nullptr;
  if (reason != nullptr) {
    error = reason;
  } else {
    error = error_number != 0 ? std::strerror(error_number) : "connection closed by the other side";
  }
  const long verified = SSL_get_verify_result(ssl);
  if (verified != X509_V_OK && ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED) {
    error += ": ";
    error += X509_verify_cert_error_string(verified);
  }
}

IoResult Stream::Tls::failure(int ssl_result, int saved_errno) {
  // SSL_get_error() would take an error that others left in the thread's queue for ours, and to look there before every
  // call costs 230 instructions. Whether the socket blocked is known without it; an alert about a fatal error may have
  // blocked too.
  if (socket.blocked != 0 && std::strcmp(SSL_state_string(ssl), "SSLERR") != 0) {
    want = socket.blocked;
    return {IoStatus::WouldBlock, 0, 0};
  }
  want = SSL_get_error(ssl, ssl_result);
  if (want == SSL_ERROR_ZERO_RETURN) return {IoStatus::Eof, 0, 0};
  // A close without close_notify is how most PostgreSQL clients end; the Terminate message tells a truncation apart.
  const unsigned long code = ERR_peek_error();
  const bool bare_eof = ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING;
  broken = true;
  if (bare_eof || (want == SSL_ERROR_SYSCALL && code == 0 && saved_errno == 0)) {
    remember_error(0);
    return {IoStatus::Eof, 0, 0};
  }
  const int error_number = want == SSL_ERROR_SYSCALL && saved_errno != 0 ? saved_errno : EPROTO;
  remember_error(error_number);
  return {IoStatus::Error, 0, error_number};
}

void Stream::start_tls(SSL_CTX* context, std::string_view already_received) {
  tls_.reset(new Tls(context, fd_, already_received));
}

void Stream::start_tls_server(SSL_CTX* context, std::string_view already_received) {
  start_tls(context, already_received);
  SSL_set_accept_state(tls_->ssl);
}

void Stream::start_tls_client(SSL_CTX* context, const std::string& hostname) {
  start_tls(context, {});
  SSL* ssl = tls_->ssl;
  SSL_set_connect_state(ssl);
  if (hostname.empty()) return;
  bool ok = true;
  if (is_literal_address(hostname)) {
    ok = X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), hostname.c_str()) == 1;
  } else {
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    ok = SSL_set1_host(ssl, hostname.c_str()) == 1 && SSL_set_tlsext_host_name(ssl, hostname.c_str()) == 1;
  }
  if (!ok) {
    tls_.reset();
    ERR_clear_error();
    throw std::runtime_error("host name '" + hostname + "' cannot be verified");
  }
}

HandshakeStatus Stream::handshake() {
  if (tls_->handshake_done) return HandshakeStatus::Done;
  const TlsSocket::Reading reading(tls_->socket);
  ERR_clear_error();
  const int result = SSL_do_handshake(tls_->ssl);
  const int saved_errno = errno;
  if (result == 1) {
    tls_->handshake_done = true;
    tls_->drained = false;  // The client's first data may have come together with its last handshake message.
    tls_->look_for_input();
    return HandshakeStatus::Done;
  }
  const IoResult outcome = tls_->failure(result, saved_errno);
  if (outcome.status == IoStatus::WouldBlock) {
    return tls_->want == SSL_ERROR_WANT_WRITE ? HandshakeStatus::WantWrite : HandshakeStatus::WantRead;
  }
  tls_->broken = true;
  if (tls_->error.empty()) tls_->error = "connection closed by the other side";
  return HandshakeStatus::Failed;
}

IoResult Stream::tls_read(char* p, std::size_t n) {
  Tls& tls = *tls_;
  const TlsSocket::Reading reading(tls.socket);
  tls.read_wants_write = false;
  tls.ended = false;
  tls.buffered = false;
  std::size_t total = 0;
  while (total < n) {
    std::size_t got = 0;
    errno = 0;
    const int result = SSL_read_ex(tls.ssl, p + total, n - total, &got);
    const int saved_errno = errno;
    if (result == 1) {
      total += got;
      tls.drained = false;
      if (SSL_has_pending(tls.ssl) == 0 && !tls.socket.has_received_before()) return {IoStatus::Ok, total, 0};
      continue;
    }
    const IoResult outcome = tls.failure(result, saved_errno);
    tls.drained = outcome.status == IoStatus::WouldBlock;
    tls.read_wants_write = tls.drained && tls.want == SSL_ERROR_WANT_WRITE;
    if (total == 0) return outcome;
    tls.ended = !tls.drained;
    break;
  }
  tls.look_for_input();
  return {IoStatus::Ok, total, 0};
}

void Stream::Tls::look_for_input() noexcept {
  // A record of which only a part has come counts as pending too, hence the look at how the last read ended.
  buffered = ended || SSL_pending(ssl) > 0 || (!drained && (SSL_has_pending(ssl) != 0 || socket.has_received_before()));
}

bool Stream::tls_buffered() const noexcept {
  return tls_->handshake_done ? tls_->buffered : tls_->socket.has_received_before();
}

IoResult Stream::tls_write(const struct iovec* pieces, int count) {
  Tls& tls = *tls_;
  const TlsSocket::Reading reading(tls.socket);
  tls.write_wants_read = false;
  RecordGather gather(pieces, count);
  std::size_t total = 0;
  while (!gather.empty()) {
    const std::string_view record = gather.next();
    std::size_t written = 0;
    errno = 0;
    const int result = SSL_write_ex(tls.ssl, record.data(), record.size(), &written);
    const int saved_errno = errno;
    if (result == 1) {
      total += written;
      gather.consume(written);
      continue;
    }
    const IoResult outcome = tls.failure(result, saved_errno);
    if (outcome.status == IoStatus::WouldBlock) tls.write_wants_read = tls.want == SSL_ERROR_WANT_READ;
    tls.look_for_input();
    // After an error the next call, or the next read, fails again and tells it.
    if (total > 0) break;
    if (outcome.status == IoStatus::Eof) return {IoStatus::Error, 0, EPIPE};
    return outcome;
  }
  return {IoStatus::Ok, total, 0};
}

std::string Stream::tls_error() const {
  return tls_ != nullptr ? tls_->error : std::string();
}

}  // namespace pgweir::io
