// The tcp_* settings as socket options, for both sides of the proxy, and the text form of socket addresses.
#pragma once

#include <sys/socket.h>

#include <string>

namespace pgweir::io {

/// tcp_* settings; 0 leaves the system's value.
struct TcpSettings {
  bool keepalive = true;
  int keepcnt = 0;
  int keepidle_s = 0;
  int keepintvl_s = 0;
  int user_timeout_ms = 0;
  int socket_buffer_bytes = 0;

  bool operator==(const TcpSettings&) const = default;
};

/// Sets TCP_NODELAY and the settings on a TCP socket; nothing on a Unix socket. False if the system refused one
/// (errno); the connection works all the same.
bool apply_socket_options(int fd, const TcpSettings& settings);

/// What sockets inherit from the listening socket they are accepted on: TCP_NODELAY and SO_KEEPALIVE. False, with
/// errno, if the system refuses.
bool set_listener_options(int fd, bool keepalive);
/// The rest of apply_socket_options, for a socket that has inherited those; with the defaults there is none. A TCP
/// socket.
bool apply_inherited_options(int fd, const TcpSettings& settings);

/// Fills in the address of the Unix socket `path` (non-empty; a leading `@` is an abstract name). Gives its length, 0
/// if the path is too long.
[[nodiscard]] socklen_t unix_address(const std::string& path, sockaddr_storage& address);

/// "127.0.0.1:5432", "[::1]:5432", "unix:/dir/.s.PGSQL.5432", "unix:@name" or "unix:" for an unnamed peer.
[[nodiscard]] std::string address_text(const sockaddr_storage& address, socklen_t length);
/// Whether the text is an IPv4 or IPv6 address and no name that would have to be looked up.
[[nodiscard]] bool is_numeric_address(const std::string& host);
/// The numeric host alone: "127.0.0.1", "::1", or "unix".
[[nodiscard]] std::string address_host(const sockaddr_storage& address);
/// Port in host order; 0 for Unix sockets.
[[nodiscard]] int address_port(const sockaddr_storage& address);

/// Process id and user id of the other end of a Unix socket (SO_PEERCRED); pid 0 and uid -1 if not to be had.
struct UnixPeer {
  int pid = 0;
  unsigned uid = static_cast<unsigned>(-1);
};
[[nodiscard]] UnixPeer unix_peer(int fd);

}  // namespace pgweir::io
