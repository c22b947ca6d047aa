// Opening listening sockets (listener.hpp). Start-up code: it may block on name lookups and throw.
#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "proxy/io/listener.hpp"
#include "proxy/io/socket_options.hpp"

namespace pgweir::io {

namespace {

/// Closes on every way out until given away.
class FdGuard {
 public:
  explicit FdGuard(int fd) noexcept : fd_(fd) {}
  FdGuard(const FdGuard&) = delete;
  FdGuard& operator=(const FdGuard&) = delete;
  ~FdGuard() {
    if (fd_ >= 0) ::close(fd_);
  }
  [[nodiscard]] int get() const noexcept { return fd_; }
  [[nodiscard]] int release() noexcept { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

bool set_option(int fd, int level, int name, int value) {
  return ::setsockopt(fd, level, name, &value, sizeof value) == 0;
}

std::string local_text(int fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
  return address_text(address, length);
}

/// Of a TCP socket that is bound to one address.
std::optional<sockaddr_storage> bound_address(int fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) return std::nullopt;
  const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
  const bool bound = (address.ss_family == AF_INET && v4.sin_addr.s_addr != htonl(INADDR_ANY)) ||
                     (address.ss_family == AF_INET6 && !IN6_IS_ADDR_UNSPECIFIED(&v6.sin6_addr));
  return bound ? std::optional(address) : std::nullopt;
}

/// Throws if the path is too long.
socklen_t checked_unix_address(const std::string& path, sockaddr_storage& address) {
  const socklen_t length = unix_address(path, address);
  if (length == 0) throw std::runtime_error(fmt::format("unix socket path '{}' is too long", path));
  return length;
}

gid_t group_id(const std::string& name) {
  gid_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error == std::errc() && end == name.data() + name.size()) return number;
  const group* entry = ::getgrnam(name.c_str());
  if (entry == nullptr) throw std::runtime_error(fmt::format("could not find unix_socket_group '{}'", name));
  return entry->gr_gid;
}

void set_file_rights(const std::string& path, const ListenSpec& spec) {
  if (::chmod(path.c_str(), static_cast<mode_t>(spec.unix_socket_mode)) != 0) {
    throw std::runtime_error(fmt::format("could not set mode of '{}': {}", path, std::strerror(errno)));
  }
  if (spec.unix_socket_group.empty()) return;
  if (::chown(path.c_str(), static_cast<uid_t>(-1), group_id(spec.unix_socket_group)) != 0) {
    throw std::runtime_error(fmt::format("could not set group of '{}': {}", path, std::strerror(errno)));
  }
}

/// Gives -1 with errno set when a step fails.
int open_tcp_socket(const addrinfo& address, const ListenSpec& spec) {
  FdGuard fd(::socket(address.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP));
  if (fd.get() < 0) return -1;
  // An IPv6 socket must leave the IPv4 address of the same port to its own socket, or `*` would fail.
  if (address.ai_family == AF_INET6 && !set_option(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1)) return -1;
  if (!set_option(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1)) return -1;
  if (spec.reuse_port && !set_option(fd.get(), SOL_SOCKET, SO_REUSEPORT, 1)) return -1;
  if (!set_listener_options(fd.get(), spec.keepalive)) return -1;
  if (spec.defer_accept > 0 && !set_option(fd.get(), IPPROTO_TCP, TCP_DEFER_ACCEPT, spec.defer_accept)) return -1;
  if (::bind(fd.get(), address.ai_addr, address.ai_addrlen) != 0) return -1;
  if (::listen(fd.get(), spec.backlog) != 0) return -1;
  return fd.release();
}

void open_tcp_name(const std::string& name, const ListenSpec& spec, std::vector<ListenSocket>& sockets,
                   const TellProblem& tell) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int error =
      ::getaddrinfo(name == "*" ? nullptr : name.c_str(), std::to_string(spec.port).c_str(), &hints, &found);
  if (error != 0) {
    tell(fmt::format("could not resolve listen_addr '{}': {}", name, ::gai_strerror(error)));
    return;
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, &::freeaddrinfo);
  for (const addrinfo* address = found; address != nullptr; address = address->ai_next) {
    const int fd = open_tcp_socket(*address, spec);
    if (fd >= 0) {
      sockets.emplace_back(fd, false, local_text(fd), std::string());
      sockets.back().set_hands_down_options();
      continue;
    }
    const int reason = errno;
    sockaddr_storage storage{};
    std::memcpy(&storage, address->ai_addr, std::min<std::size_t>(address->ai_addrlen, sizeof storage));
    tell(fmt::format("cannot listen on {}: {}", address_text(storage, address->ai_addrlen), std::strerror(reason)));
  }
}

std::vector<std::string> split_list(std::string_view list) {
  constexpr std::string_view kSpace = " \t\r\n";
  std::vector<std::string> items;
  while (!list.empty()) {
    const std::size_t comma = list.find(',');
    std::string_view item = list.substr(0, comma);
    list.remove_prefix(comma == std::string_view::npos ? list.size() : comma + 1);
    const std::size_t first = item.find_first_not_of(kSpace);
    if (first == std::string_view::npos) continue;
    item = item.substr(first, item.find_last_not_of(kSpace) - first + 1);
    items.emplace_back(item);
  }
  return items;
}

}  // namespace

ListenSocket::ListenSocket(int fd, bool is_unix, std::string text, std::string path)
    : fd_(fd), is_unix_(is_unix), text_(std::move(text)), path_(std::move(path)), address_(bound_address(fd)) {}

ListenSocket::ListenSocket(ListenSocket&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      is_unix_(other.is_unix_),
      text_(other.text_),
      path_(std::exchange(other.path_, {})),
      hands_down_options_(other.hands_down_options_),
      address_(other.address_) {}

ListenSocket& ListenSocket::operator=(ListenSocket&& other) noexcept {
  if (this != &other) {
    close();
    fd_ = std::exchange(other.fd_, -1);
    is_unix_ = other.is_unix_;
    text_ = other.text_;
    path_ = std::exchange(other.path_, {});
    hands_down_options_ = other.hands_down_options_;
    address_ = other.address_;
  }
  return *this;
}

ListenSocket::~ListenSocket() {
  close();
}

int ListenSocket::port() const {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &length) != 0) return 0;
  return address_port(address);
}

bool ListenSocket::set_defer_accept(int seconds) const noexcept {
  return is_unix_ || set_option(fd_, IPPROTO_TCP, TCP_DEFER_ACCEPT, seconds);
}

bool ListenSocket::set_keepalive(bool on) const noexcept {
  return is_unix_ || !hands_down_options_ || set_listener_options(fd_, on);
}

int ListenSocket::release() noexcept {
  path_.clear();
  return std::exchange(fd_, -1);
}

void ListenSocket::close() noexcept {
  // The file goes first, so that no client finds it and is refused.
  if (!path_.empty()) ::unlink(path_.c_str());
  path_.clear();
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

std::string unix_socket_path(const std::string& dir, int port) {
  return fmt::format("{}/.s.PGSQL.{}", dir, port);
}

void check_unix_socket_unused(const ListenSpec& spec) {
  if (spec.unix_socket_dir.empty()) return;
  const std::string path = unix_socket_path(spec.unix_socket_dir, spec.port);
  const bool abstract = path[0] == '@';
  if (!abstract && ::access((path + ".lock").c_str(), F_OK) == 0) {
    throw std::runtime_error(fmt::format("unix port {} is in use", spec.port));
  }
  sockaddr_storage address{};
  const socklen_t length = checked_unix_address(path, address);
  const FdGuard fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (fd.get() < 0) throw std::runtime_error(fmt::format("socket: {}", std::strerror(errno)));
  const int result = ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), length);
  // EAGAIN: somebody listens, with a full queue.
  if (result == 0 || errno == EAGAIN) throw std::runtime_error("unix socket is in use, cannot continue");
}

int connect_unix_socket(const ListenSpec& spec) {
  if (spec.unix_socket_dir.empty()) return -1;
  sockaddr_storage address{};
  const socklen_t length = checked_unix_address(unix_socket_path(spec.unix_socket_dir, spec.port), address);
  FdGuard fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (fd.get() < 0 || ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0) return -1;
  return fd.release();
}

std::vector<ListenSocket> open_tcp_listeners(const ListenSpec& spec, const TellProblem& tell) {
  std::vector<ListenSocket> sockets;
  for (const auto& name : split_list(spec.listen_addr)) open_tcp_name(name, spec, sockets, tell);
  return sockets;
}

std::optional<ListenSocket> open_unix_listener(const ListenSpec& spec) {
  if (spec.unix_socket_dir.empty()) return std::nullopt;
  check_unix_socket_unused(spec);
  const std::string path = unix_socket_path(spec.unix_socket_dir, spec.port);
  const bool abstract = path[0] == '@';
  sockaddr_storage address{};
  const socklen_t length = checked_unix_address(path, address);
  FdGuard fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (fd.get() < 0) throw std::runtime_error(fmt::format("socket: {}", std::strerror(errno)));
  // Nobody answered: what lies there was left by a process that died.
  if (!abstract) ::unlink(path.c_str());
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0) {
    throw std::runtime_error(fmt::format("cannot listen on unix:{}: {}", path, std::strerror(errno)));
  }
  ListenSocket socket(fd.release(), true, "unix:" + path, abstract ? std::string() : path);
  // The rights are set before listen: nobody can connect under the umask's.
  if (!abstract) set_file_rights(path, spec);
  if (::listen(socket.fd(), spec.backlog) != 0) {
    throw std::runtime_error(fmt::format("cannot listen on unix:{}: {}", path, std::strerror(errno)));
  }
  return socket;
}

std::vector<ListenSocket> open_listeners(const ListenSpec& spec, const TellProblem& tell) {
  std::vector<ListenSocket> sockets = open_tcp_listeners(spec, tell);
  if (sockets.empty() && !split_list(spec.listen_addr).empty()) throw std::runtime_error("nowhere to listen on");
  if (auto local = open_unix_listener(spec)) sockets.push_back(std::move(*local));
  if (sockets.empty()) throw std::runtime_error("nowhere to listen on");
  return sockets;
}

std::vector<ListenSocket> take_systemd_listeners() {
  std::vector<ListenSocket> sockets;
  const char* pid = std::getenv("LISTEN_PID");
  const char* count = std::getenv("LISTEN_FDS");
  const bool ours = pid != nullptr && count != nullptr && std::string_view(pid) == std::to_string(::getpid());
  const int total = ours ? std::atoi(count) : 0;
  ::unsetenv("LISTEN_PID");
  ::unsetenv("LISTEN_FDS");
  ::unsetenv("LISTEN_FDNAMES");
  constexpr int kFirst = 3;
  for (int fd = kFirst; fd < kFirst + total; ++fd) {
    sockaddr_storage address{};
    socklen_t length = sizeof address;
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) continue;
    ::fcntl(fd, F_SETFD, FD_CLOEXEC);
    ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
    // systemd made the file of a Unix socket and will go on using it.
    sockets.emplace_back(fd, address.ss_family == AF_UNIX, address_text(address, length), std::string());
  }
  return sockets;
}

ListenSocket adopt_listener(int fd, const ListenSpec& spec) {
  FdGuard guard(fd);
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    throw std::runtime_error(fmt::format("cannot take over a listening socket: {}", std::strerror(errno)));
  }
  const bool local = address.ss_family == AF_UNIX;
  const std::string path = unix_socket_path(spec.unix_socket_dir, spec.port);
  const bool file = local && !spec.unix_socket_dir.empty() && path[0] != '@';
  return {guard.release(), local, address_text(address, length), file ? path : std::string()};
}

}  // namespace pgweir::io
