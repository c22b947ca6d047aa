// The TLS half of Stream, private to stream.cpp and stream_tls.cpp: one OpenSSL connection over a socket, with what
// must be remembered between calls.
#pragma once

#include <openssl/types.h>

#include <cstddef>
#include <string>
#include <string_view>

#include "proxy/io/stream.hpp"
#include "proxy/io/tls_buffers.hpp"

namespace pgweir::io {

/// Where OpenSSL's bytes come from: those read before, then the socket. OpenSSL asks for the five bytes of a record's
/// header and then for its body; one recv brings both, and what else there is.
struct TlsSocket {
  /// Encloses every SSL_* call that may read. What was read ahead and not asked for is kept for the next.
  class Reading {
   public:
    explicit Reading(TlsSocket& socket) noexcept : socket_(socket) {
      socket_.dry = false;
      socket_.blocked = 0;
    }
    Reading(const Reading&) = delete;
    Reading& operator=(const Reading&) = delete;
    ~Reading();

   private:
    TlsSocket& socket_;
  };

  int fd = -1;
  std::string received_before;  // Before TLS began, or ahead.
  std::size_t received_before_used = 0;
  std::string_view ahead;  // In a buffer of the thread, while a Reading lives.
  bool dry = false;        // The last recv took all there was: the event set tells of more.
  int blocked = 0;         // SSL_ERROR_WANT_READ or _WRITE: this SSL_* call waits for the socket.

  [[nodiscard]] bool has_received_before() const noexcept {
    return !ahead.empty() || received_before_used < received_before.size();
  }
  /// Copies up to `size` of the bytes that are here already.
  std::size_t take(char* out, std::size_t size);
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
  /// Finds out whether the next read can give something though the socket is silent.
  void look_for_input() noexcept;
  /// Remembers the text of OpenSSL's newest error, or of the errno value if there is none.
  void remember_error(int error_number);

  SSL* ssl;
  TlsBuffers::User buffers;
  TlsSocket socket;  // OpenSSL holds a pointer to it: a Tls never moves.
  std::string error;
  int want = 0;  // SSL_ERROR_WANT_* of the last failure() that gave WouldBlock.
  bool handshake_done = false;
  bool broken = false;  // A fatal error happened: OpenSSL forbids SSL_shutdown.
  bool close_notify_sent = false;
  bool read_wants_write = false;
  bool write_wants_read = false;
  bool drained = true;  // The last read gave WouldBlock: only the socket can bring more.
  bool buffered = false;
  bool ended = false;  // An EOF or error is to be told by the next read, though the socket may be silent.
};

}  // namespace pgweir::io
