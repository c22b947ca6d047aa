#include "proxy/io/socket_options.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace pgweir::io {

namespace {

bool set_option(int fd, int level, int name, int value) {
  return ::setsockopt(fd, level, name, &value, sizeof value) == 0;
}

// inet_ntop goes through printf, which would be a tenth of what a login costs.
std::string ipv4_text(std::uint32_t address) {
  std::array<char, INET_ADDRSTRLEN> text;
  char* end = text.data();
  for (int shift = 24; shift >= 0; shift -= 8) {
    const unsigned byte = address >> shift & 0xFFU;
    if (byte >= 100) *end++ = static_cast<char>('0' + byte / 100);
    if (byte >= 10) *end++ = static_cast<char>('0' + byte / 10 % 10);
    *end++ = static_cast<char>('0' + byte % 10);
    *end++ = '.';
  }
  return {text.data(), end - 1};
}

}  // namespace

bool set_listener_options(int fd, bool keepalive) {
  return set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1) && set_option(fd, SOL_SOCKET, SO_KEEPALIVE, keepalive ? 1 : 0);
}

bool apply_socket_options(int fd, const TcpSettings& settings) {
  int domain = 0;
  socklen_t length = sizeof domain;
  if (::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) != 0) return false;
  if (domain != AF_INET && domain != AF_INET6) return true;

  bool ok = set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  if (settings.keepalive) ok &= set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  return apply_inherited_options(fd, settings) && ok;
}

bool apply_inherited_options(int fd, const TcpSettings& settings) {
  bool ok = true;
  if (settings.keepalive) {
    if (settings.keepcnt > 0) ok &= set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, settings.keepcnt);
    if (settings.keepidle_s > 0) ok &= set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, settings.keepidle_s);
    if (settings.keepintvl_s > 0) ok &= set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, settings.keepintvl_s);
  }
  if (settings.user_timeout_ms > 0) ok &= set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, settings.user_timeout_ms);
  if (settings.socket_buffer_bytes > 0) {
    ok &= set_option(fd, SOL_SOCKET, SO_SNDBUF, settings.socket_buffer_bytes);
    ok &= set_option(fd, SOL_SOCKET, SO_RCVBUF, settings.socket_buffer_bytes);
  }
  return ok;
}

socklen_t unix_address(const std::string& path, sockaddr_storage& address) {
  auto& local = reinterpret_cast<sockaddr_un&>(address);
  // An abstract name is not terminated: its length is part of the address, and a zero byte stands in place of the `@`.
  const bool abstract = path[0] == '@';
  const std::size_t terminator = abstract ? 0 : 1;
  if (path.size() + terminator > sizeof local.sun_path) return 0;
  address = {};
  local.sun_family = AF_UNIX;
  std::memcpy(local.sun_path, path.data(), path.size());
  if (abstract) local.sun_path[0] = '\0';
  return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + terminator);
}

bool is_numeric_address(const std::string& host) {
  in6_addr ignored{};
  return ::inet_pton(AF_INET, host.c_str(), &ignored) == 1 || ::inet_pton(AF_INET6, host.c_str(), &ignored) == 1;
}

std::string address_host(const sockaddr_storage& address) {
  if (address.ss_family == AF_INET) {
    return ipv4_text(ntohl(reinterpret_cast<const sockaddr_in&>(address).sin_addr.s_addr));
  }
  char text[INET6_ADDRSTRLEN] = "";
  if (address.ss_family == AF_INET6) {
    ::inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6&>(address).sin6_addr, text, sizeof text);
    return text;
  }
  return "unix";
}

int address_port(const sockaddr_storage& address) {
  if (address.ss_family == AF_INET) return ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port);
  if (address.ss_family == AF_INET6) return ntohs(reinterpret_cast<const sockaddr_in6&>(address).sin6_port);
  return 0;
}

std::string address_text(const sockaddr_storage& address, socklen_t length) {
  if (address.ss_family == AF_INET) return fmt::format("{}:{}", address_host(address), address_port(address));
  if (address.ss_family == AF_INET6) return fmt::format("[{}]:{}", address_host(address), address_port(address));

  const auto& local = reinterpret_cast<const sockaddr_un&>(address);
  constexpr std::size_t kHead = offsetof(sockaddr_un, sun_path);
  if (length <= kHead) return "unix:";
  const std::size_t path_length = std::min<std::size_t>(length - kHead, sizeof local.sun_path);
  if (local.sun_path[0] == '\0') return "unix:@" + std::string(local.sun_path + 1, path_length - 1);
  return "unix:" + std::string(local.sun_path, ::strnlen(local.sun_path, path_length));
}

UnixPeer unix_peer(int fd) {
  ucred peer{};
  socklen_t length = sizeof peer;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return {};
  return {peer.pid, peer.uid};
}

}  // namespace pgweir::io
