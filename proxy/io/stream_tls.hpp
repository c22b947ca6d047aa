// The TLS half of Stream, private to stream.cpp and stream_tls.cpp: one OpenSSL connection over a socket, with what
// must be remembered between calls.
#pragma once

#include <openssl/types.h>

#include <cstddef>
#include <string>
#include <string_view>

#include "proxy/io/stream.hpp"

namespace pgweir::io {

/// Where OpenSSL's bytes come from: those read before TLS began, then the socket.
struct TlsSocket {
  int fd = -1;
  std::string received_before;
  std::size_t received_before_used = 0;

  [[nodiscard]] bool has_received_before() const noexcept { return received_before_used < received_before.size(); }
};

struct Stream::Tls {
  /// Throws std::runtime_error if OpenSSL has no memory.
  Tls(SSL_CTX* context, int fd, std::string_view already_received);
  Tls(const Tls&) = delete;
  Tls& operator=(const Tls&) = delete;
  ~Tls();

  /// One close_notify, if the connection is in a state that allows it and the socket takes it at once.
  void send_close_notify() noexcept;
  /// Turns the failure of an SSL_* call into a result and remembers its text. `saved_errno`: errno right after the
  /// call.
  [[nodiscard]] IoResult failure(int ssl_result, int saved_errno);
  /// Remembers the text of OpenSSL's newest error, or of the errno value if there is none.
  void remember_error(int error_number);

  SSL* ssl = nullptr;
  TlsSocket socket;  // OpenSSL holds a pointer to it: a Tls never moves.
  std::string error;
  int want = 0;  // SSL_ERROR_WANT_* of the last failure() that gave WouldBlock.
  bool handshake_done = false;
  bool broken = false;  // A fatal error happened: OpenSSL forbids SSL_shutdown.
  bool close_notify_sent = false;
  bool read_wants_write = false;
  bool write_wants_read = false;
  bool drained = true;  // The last read gave WouldBlock: only the socket can bring more.
  bool ended = false;   // An EOF or error is to be told by the next read, though the socket may be silent.
};

}  // namespace pgweir::io
