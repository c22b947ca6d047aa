// One connection's bytes: a non-blocking socket, plain or TLS, behind the same two calls. It decides nothing about the
// content. TLS follows the manual's "SSL Session Encryption" part of the protocol chapter; channel binding follows RFC
// 5929. No call here blocks or raises SIGPIPE.
#pragma once

#include <openssl/types.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "pool/time.hpp"
#include "proxy/core/certificate_names.hpp"
#include "proxy/io/socket_calls.hpp"

namespace pgweir::io {

class TlsBuffers;

enum class IoStatus { Ok, WouldBlock, Eof, Error };

/// `bytes` counts only with Ok; `error` is an errno value and counts only with Error (EPROTO: see tls_error()).
struct [[nodiscard]] IoResult {
  IoStatus status;
  std::size_t bytes;
  int error;
};

enum class HandshakeStatus { Done, WantRead, WantWrite, Failed };

/// Owns a connected non-blocking socket. Movable, also to another thread when no call is under way; a moved-from Stream
/// is closed.
class Stream {
 public:
  Stream() noexcept = default;
  /// Takes ownership of `fd`, which must be a non-blocking stream socket.
  explicit Stream(int fd) noexcept;
  Stream(Stream&& other) noexcept;
  Stream& operator=(Stream&& other) noexcept;
  ~Stream();

  [[nodiscard]] bool is_open() const noexcept { return fd_ >= 0; }
  [[nodiscard]] int fd() const noexcept { return fd_; }

  /// Reads up to `n` (> 0) bytes with, on a plain socket, exactly one recv. Ok means at least one byte. With TLS it
  /// fills `p` from as many records as are at hand; if has_buffered_input() holds afterwards, the socket may stay
  /// silent and the caller must come again by itself.
  [[nodiscard]] IoResult try_read(char* p, std::size_t n);
  /// Writes a prefix of the gathered pieces with, on a plain socket, exactly one send or sendmsg. Ok may be a short
  /// write. With TLS, after a short write or WouldBlock the next call must start with the same unwritten bytes
  /// (anywhere in memory, more may follow): OpenSSL has already sealed some of them.
  [[nodiscard]] IoResult try_write(const struct iovec* pieces, int count);
  [[nodiscard]] IoResult try_write(std::string_view bytes);

  /// True when try_read can give bytes, an EOF or an error without the socket becoming readable. Never true right after
  /// WouldBlock, nor on plain sockets.
  [[nodiscard]] bool has_buffered_input() const noexcept { return tls_ != nullptr && tls_buffered(); }
  /// The last try_read gave WouldBlock, but can go on only when the socket is *writable*.
  [[nodiscard]] bool wants_write_for_read() const noexcept;
  /// The last try_write gave WouldBlock (or was short), but can go on only when the socket is *readable*.
  [[nodiscard]] bool wants_read_for_write() const noexcept;

  /// Sends our FIN (TLS: close_notify before it) and keeps reading possible.
  void shutdown_write() noexcept;
  /// TLS: one close_notify if it can be sent at once, then close. Idempotent.
  void close() noexcept;
  /// Gives the plain socket away, dropping TLS state without a close_notify; -1 if closed. A live TLS connection is
  /// handed over by moving the Stream instead.
  [[nodiscard]] int detach_fd() noexcept;

  // --- TLS ---
  /// To be called after try_read or try_write gave Ok, so that a busy TLS connection keeps its buffers; the later calls
  /// with the same `buffers` until release_buffers(). Nothing on plain sockets.
  void note_use(TlsBuffers& buffers, pool::TimePoint now) {
    if (tls_ != nullptr) tls_note_use(buffers, now);
  }
  /// Ends what note_use() began: before the connection goes to another thread, or the TlsBuffers end.
  void release_buffers() noexcept;
  [[nodiscard]] bool is_tls() const noexcept { return tls_ != nullptr; }
  /// Begins TLS as the server. `already_received`: bytes of the handshake which the caller has read from the socket
  /// (direct TLS is only recognised by its first byte); copied. Throws std::runtime_error if OpenSSL has no memory.
  void start_tls_server(SSL_CTX* context, std::string_view already_received = {});
  /// Begins TLS as the client. `hostname` non-empty (verify-full): the certificate must be valid for this name or
  /// literal address, and a name is also sent as SNI.
  void start_tls_client(SSL_CTX* context, const std::string& hostname);
  /// Drives the handshake; call again when the socket is ready in the wanted direction.
  [[nodiscard]] HandshakeStatus handshake();
  /// Why handshake() gave Failed.
  [[nodiscard]] std::string handshake_error() const { return tls_error(); }
  /// Text of the last TLS failure of any call; empty if none.
  [[nodiscard]] std::string tls_error() const;
  /// As PgBouncer logs it: "TLSv1.3/TLS_AES_256_GCM_SHA384/ECDH=prime256v1"; empty before the handshake is done.
  [[nodiscard]] std::string tls_info() const;
  /// RFC 5929 tls-server-end-point: raw hash of the server's certificate (own one on the server side, the peer's on the
  /// client side). Empty where it is undefined: no TLS, or a signature without a single hash (Ed25519, Ed448); SCRAM
  /// with channel binding must then not be offered.
  [[nodiscard]] std::string tls_server_end_point() const;
  /// The names in the peer's certificate, if it showed one that was verified in this connection's own handshake
  /// (sessions are never resumed). Of a client nothing is told unless the context has a CA file: the system's CAs
  /// certify any host on earth, and know nothing of database users.
  [[nodiscard]] std::optional<core::CertificateNames> verified_certificate() const;
  /// The ALPN protocol that was agreed on; empty if none.
  [[nodiscard]] std::string tls_alpn() const;

 private:
  struct Tls;
  struct TlsDeleter {
    void operator()(Tls* tls) const noexcept;
  };

  void start_tls(SSL_CTX* context, std::string_view already_received);
  [[nodiscard]] static IoResult plain_failure(long result) noexcept;
  [[nodiscard]] IoResult plain_gather(const struct iovec* pieces, int count) noexcept;
  [[nodiscard]] IoResult tls_read(char* p, std::size_t n);
  [[nodiscard]] IoResult tls_write(const struct iovec* pieces, int count);
  [[nodiscard]] bool tls_buffered() const noexcept;
  void tls_note_use(TlsBuffers& buffers, pool::TimePoint now);

  int fd_ = -1;
  std::unique_ptr<Tls, TlsDeleter> tls_;
};

inline IoResult Stream::try_read(char* p, std::size_t n) {
  if (tls_ == nullptr) [[likely]] {
    const ssize_t got = receive_bytes(fd_, p, n);
    if (got > 0) [[likely]]
      return {IoStatus::Ok, static_cast<std::size_t>(got), 0};
    return plain_failure(got);
  }
  return tls_read(p, n);
}

inline IoResult Stream::try_write(const struct iovec* pieces, int count) {
  if (tls_ == nullptr) [[likely]] {
    if (count != 1) return plain_gather(pieces, count);
    const ssize_t sent = send_bytes(fd_, pieces->iov_base, pieces->iov_len);
    if (sent >= 0) [[likely]]
      return {IoStatus::Ok, static_cast<std::size_t>(sent), 0};
    return plain_failure(sent);
  }
  return tls_write(pieces, count);
}

inline IoResult Stream::try_write(std::string_view bytes) {
  const iovec piece{const_cast<char*>(bytes.data()), bytes.size()};
  return try_write(&piece, 1);
}

}  // namespace pgweir::io
