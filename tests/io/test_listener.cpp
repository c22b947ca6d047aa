#include "proxy/io/listener.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cerrno>
#include <memory>
#include <stdexcept>
#include <vector>

#include "proxy/io/socket_options.hpp"
#include "tests/io/io_support.hpp"

using namespace pgweir::io;
using namespace pgweir::io::test;

namespace {

/// A blocking connect to a listening socket's own address; the descriptor is the test's.
int connect_to(int listening_fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  REQUIRE(::getsockname(listening_fd, reinterpret_cast<sockaddr*>(&address), &length) == 0);
  const int fd = ::socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  REQUIRE(::connect(fd, reinterpret_cast<sockaddr*>(&address), length) == 0);
  return fd;
}

int tcp_option(int fd, int level, int name) {
  int value = -1;
  socklen_t length = sizeof value;
  REQUIRE(::getsockopt(fd, level, name, &value, &length) == 0);
  return value;
}

ListenSpec tcp_spec(const std::string& addresses) {
  ListenSpec spec;
  spec.listen_addr = addresses;
  spec.port = 0;
  spec.defer_accept = 0;
  spec.unix_socket_dir.clear();
  return spec;
}

ListenSpec unix_spec(const std::string& dir) {
  ListenSpec spec;
  spec.unix_socket_dir = dir;
  return spec;
}

/// Accepts one connection and gives what the callback was told.
struct Accepted {
  int fd = -1;
  sockaddr_storage peer{};
  bool is_unix = false;
  int nodelay = -1, keepalive = -1;
};
Accepted accept_one(ListenSocket socket) {
  EventSet events;
  const int client = connect_to(socket.fd());
  Accepted result;
  Listener listener(events, std::move(socket), [&](int fd, const sockaddr_storage& peer, bool is_unix) {
    result = {fd, peer, is_unix};
  });
  listener.start();
  REQUIRE(run_until(events, [&] { return result.fd >= 0; }));
  if (!result.is_unix) {
    result.nodelay = tcp_option(result.fd, IPPROTO_TCP, TCP_NODELAY);
    result.keepalive = tcp_option(result.fd, SOL_SOCKET, SO_KEEPALIVE);
  }
  CHECK((::fcntl(result.fd, F_GETFL) & O_NONBLOCK) != 0);
  CHECK((::fcntl(result.fd, F_GETFD) & FD_CLOEXEC) != 0);
  ::close(result.fd);
  ::close(client);
  return result;
}

TellProblem into(std::vector<std::string>& problems) {
  return [&problems](const std::string& text) { problems.push_back(text); };
}

ListenSocket one_tcp_socket() {
  std::vector<std::string> problems;
  auto sockets = open_tcp_listeners(tcp_spec("127.0.0.1"), into(problems));
  REQUIRE(sockets.size() == 1);
  return std::move(sockets[0]);
}

}  // namespace

TEST_CASE("TCP listeners on both loopback addresses") {
  std::vector<std::string> problems;
  auto sockets = open_tcp_listeners(tcp_spec(" 127.0.0.1 , ::1,"), into(problems));
  CHECK(problems.empty());
  REQUIRE(sockets.size() == 2);
  CHECK(sockets[0].text() == "127.0.0.1:" + std::to_string(sockets[0].port()));
  CHECK(sockets[1].text() == "[::1]:" + std::to_string(sockets[1].port()));
  for (const auto& socket : sockets) {
    CHECK_FALSE(socket.is_unix());
    CHECK(tcp_option(socket.fd(), SOL_SOCKET, SO_REUSEADDR) == 1);
    CHECK(tcp_option(socket.fd(), SOL_SOCKET, SO_REUSEPORT) == 0);
    CHECK((::fcntl(socket.fd(), F_GETFL) & O_NONBLOCK) != 0);
  }
  CHECK(tcp_option(sockets[1].fd(), IPPROTO_IPV6, IPV6_V6ONLY) == 1);
  const Accepted four = accept_one(std::move(sockets[0]));
  CHECK(address_host(four.peer) == "127.0.0.1");
  CHECK(address_port(four.peer) > 0);
  CHECK_FALSE(four.is_unix);
  CHECK(address_host(accept_one(std::move(sockets[1])).peer) == "::1");
}

TEST_CASE("TCP listeners: accepted sockets inherit their options") {
  std::vector<std::string> problems;
  ListenSpec spec = tcp_spec("127.0.0.1");
  spec.keepalive = GENERATE(false, true);
  for (const bool changed : {false, true}) {
    auto sockets = open_tcp_listeners(spec, into(problems));
    REQUIRE(sockets.size() == 1);
    CHECK(sockets[0].hands_down_options());
    if (changed) CHECK(sockets[0].set_keepalive(!spec.keepalive));
    const Accepted client = accept_one(std::move(sockets[0]));
    CHECK(client.nodelay == 1);
    CHECK(client.keepalive == ((spec.keepalive != changed) ? 1 : 0));
  }
}

TEST_CASE("TCP listeners: the address that accepted sockets have too") {
  std::vector<std::string> problems;
  const auto bound = open_tcp_listeners(tcp_spec("127.0.0.1"), into(problems));
  REQUIRE(bound.size() == 1);
  REQUIRE(bound[0].address() != nullptr);
  CHECK(address_host(*bound[0].address()) == "127.0.0.1");
  CHECK(address_port(*bound[0].address()) == bound[0].port());
  const auto any = open_tcp_listeners(tcp_spec("0.0.0.0"), into(problems));
  REQUIRE(any.size() == 1);
  CHECK(any[0].address() == nullptr);
}

TEST_CASE("TCP listeners: options that are asked for") {
  ListenSpec spec = tcp_spec("127.0.0.1");
  spec.reuse_port = true;
  spec.defer_accept = 1;
  std::vector<std::string> problems;
  const auto first = open_tcp_listeners(spec, into(problems));
  REQUIRE(first.size() == 1);
  CHECK(tcp_option(first[0].fd(), SOL_SOCKET, SO_REUSEPORT) == 1);
  CHECK(tcp_option(first[0].fd(), IPPROTO_TCP, TCP_DEFER_ACCEPT) > 0);
  spec.port = first[0].port();
  CHECK(open_tcp_listeners(spec, into(problems)).size() == 1);
}

TEST_CASE("TCP listeners: a taken port and an unknown name are told; one that works is enough") {
  std::vector<std::string> problems;
  const auto first = open_tcp_listeners(tcp_spec("127.0.0.1"), into(problems));
  REQUIRE(first.size() == 1);
  ListenSpec spec = tcp_spec("127.0.0.1");
  spec.port = first[0].port();
  CHECK_THROWS_WITH(open_listeners(spec, into(problems)), "nowhere to listen on");
  REQUIRE(problems.size() == 1);
  CHECK(problems[0] == "cannot listen on " + first[0].text() + ": Address already in use");
  problems.clear();
  spec.listen_addr = "127.0.0.1,::1";
  CHECK(open_listeners(spec, into(problems)).size() == 1);
  CHECK(problems.size() == 1);
  problems.clear();
  CHECK_THROWS_WITH(open_listeners(tcp_spec("bad name!"), into(problems)), "nowhere to listen on");
  REQUIRE(problems.size() == 1);
  CHECK(problems[0].rfind("could not resolve listen_addr 'bad name!': ", 0) == 0);
  CHECK_THROWS_WITH(open_listeners(tcp_spec(""), into(problems)), "nowhere to listen on");
}

TEST_CASE("Unix listener: file, rights, peer, and removal") {
  const TempDir dir;
  ListenSpec spec = unix_spec(dir.path());
  spec.unix_socket_mode = 0700;
  spec.unix_socket_group = std::to_string(::getegid());
  auto socket = open_unix_listener(spec);
  REQUIRE(socket);
  const std::string path = dir.file(".s.PGSQL.6432");
  CHECK(socket->text() == "unix:" + path);
  struct stat info {};
  REQUIRE(::stat(path.c_str(), &info) == 0);
  CHECK((info.st_mode & 07777) == 0700);
  CHECK(info.st_gid == ::getegid());

  const int client = connect_to(socket->fd());
  const UnixPeer peer = unix_peer(client);
  CHECK(peer.pid == ::getpid());
  CHECK(peer.uid == ::geteuid());
  ::close(client);
  CHECK(accept_one(std::move(*socket)).is_unix);
  CHECK(::access(path.c_str(), F_OK) != 0);
}

TEST_CASE("Unix listener: in use, locked, stale, released") {
  const TempDir dir;
  const ListenSpec spec = unix_spec(dir.path());
  const std::string path = dir.file(".s.PGSQL.6432");
  SECTION("in use") {
    const auto first = open_unix_listener(spec);
    CHECK_THROWS_WITH(check_unix_socket_unused(spec), "unix socket is in use, cannot continue");
    CHECK_THROWS_WITH(open_unix_listener(spec), "unix socket is in use, cannot continue");
    CHECK(::access(path.c_str(), F_OK) == 0);
  }
  SECTION("locked by a PostgreSQL server") {
    write_text(path + ".lock", "1\n");
    CHECK_THROWS_WITH(open_unix_listener(spec), "unix port 6432 is in use");
  }
  SECTION("left behind") {
    ::close(open_unix_listener(spec)->release());
    REQUIRE(::access(path.c_str(), F_OK) == 0);
    check_unix_socket_unused(spec);
    const auto second = open_unix_listener(spec);
    CHECK(second->fd() >= 0);
  }
  SECTION("unusable") {
    ListenSpec bad = spec;
    bad.unix_socket_dir = dir.file("missing");
    CHECK_THROWS_AS(open_unix_listener(bad), std::runtime_error);
    bad.unix_socket_dir = "/" + std::string(200, 'x');
    CHECK_THROWS_WITH(open_unix_listener(bad), Catch::Matchers::Contains("is too long"));
    bad = spec;
    bad.unix_socket_group = "no such group";
    CHECK_THROWS_WITH(open_unix_listener(bad), "could not find unix_socket_group 'no such group'");
    CHECK(::access(path.c_str(), F_OK) != 0);
  }
}

TEST_CASE("Unix listener in the abstract namespace") {
  const ListenSpec spec = unix_spec("@pgweir-io-test-" + std::to_string(::getpid()));
  auto socket = open_unix_listener(spec);
  REQUIRE(socket);
  CHECK(socket->text() == "unix:" + spec.unix_socket_dir + "/.s.PGSQL.6432");
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  REQUIRE(::getsockname(socket->fd(), reinterpret_cast<sockaddr*>(&address), &length) == 0);
  CHECK(address_text(address, length) == socket->text());
  CHECK_THROWS_WITH(open_unix_listener(spec), "unix socket is in use, cannot continue");
  CHECK(accept_one(std::move(*socket)).is_unix);
  CHECK(open_unix_listener(spec)->fd() >= 0);
}

TEST_CASE("listener: pause leaves clients in the queue, start takes them, close ends") {
  EventSet events;
  int accepted = 0;
  Listener listener(events, one_tcp_socket(), [&](int fd, const sockaddr_storage&, bool) {
    ++accepted;
    ::close(fd);
  });
  listener.start();
  listener.pause();
  const int first = connect_to(listener.socket().fd());
  const int second = connect_to(listener.socket().fd());
  run_ready(events);
  CHECK(accepted == 0);
  listener.start();
  listener.start();
  REQUIRE(run_until(events, [&] { return accepted == 2; }));
  listener.pause();
  listener.start();
  const int third = connect_to(listener.socket().fd());
  REQUIRE(run_until(events, [&] { return accepted == 3; }));
  listener.close();
  listener.close();
  run_ready(events);
  CHECK(accepted == 3);
  for (const int fd : {first, second, third}) ::close(fd);
}

TEST_CASE("listener: one that comes alone takes one call, a crowd few batches") {
  EventSet events;
  int accepted = 0;
  Listener listener(events, one_tcp_socket(), [&](int fd, const sockaddr_storage&, bool) {
    ++accepted;
    ::close(fd);
  });
  std::vector<int> clients;
  for (int i = 0; i < 60; ++i) clients.push_back(connect_to(listener.socket().fd()));
  listener.start();
  const std::uint64_t before = events.batch();
  REQUIRE(run_until(events, [&] { return accepted == 60; }));
  CHECK(events.batch() - before <= 8);
  // The first one after the crowd finds that nobody else is there, and the one after that knows.
  for (int i = 0; i < 3; ++i) {
    clients.push_back(connect_to(listener.socket().fd()));
    REQUIRE(run_until(events, [&] { return accepted == 61 + i; }));
    run_ready(events);
  }
  for (const int fd : clients) ::close(fd);
}

TEST_CASE("listener: the callback may close it") {
  const TempDir dir;
  auto socket = open_unix_listener(unix_spec(dir.path()));
  const int first = connect_to(socket->fd());
  const int second = connect_to(socket->fd());
  EventSet events;
  int accepted = 0;
  std::unique_ptr<Listener> listener;
  listener = std::make_unique<Listener>(events, std::move(*socket), [&](int fd, const sockaddr_storage&, bool) {
    ++accepted;
    ::close(fd);
    listener->close();
  });
  listener->start();
  REQUIRE(run_until(events, [&] { return accepted > 0; }));
  run_ready(events);
  CHECK(accepted == 1);
  ::close(first);
  ::close(second);
}

TEST_CASE("listener: without descriptors it pauses and then goes on") {
  EventSet events;
  int accepted = 0;
  std::vector<int> failures;
  Listener listener(events, one_tcp_socket(), [&](int fd, const sockaddr_storage&, bool) {
    ++accepted;
    ::close(fd);
  });
  listener.retry_pause(std::chrono::milliseconds(20));
  const int client = connect_to(listener.socket().fd());

  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  const auto limit = [&](rlim_t soft) {
    const rlimit changed{soft, before.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &changed) == 0);
  };
  listener.on_failure([&](int error) {
    failures.push_back(error);
    if (failures.size() == 2) limit(before.rlim_cur);
  });
  listener.start();
  limit(0);
  const bool done = run_until(events, [&] { return accepted == 1; });
  limit(before.rlim_cur);
  CHECK(done);
  CHECK(failures == std::vector<int>{EMFILE, EMFILE});
  ::close(client);
}

TEST_CASE("socket options on TCP, nothing on Unix sockets") {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  TcpSettings settings{.keepalive = true,
                       .keepcnt = 4,
                       .keepidle_s = 50,
                       .keepintvl_s = 7,
                       .user_timeout_ms = 1500,
                       .socket_buffer_bytes = 65536};
  REQUIRE(apply_socket_options(fd, settings));
  CHECK(tcp_option(fd, IPPROTO_TCP, TCP_NODELAY) == 1);
  CHECK(tcp_option(fd, SOL_SOCKET, SO_KEEPALIVE) == 1);
  CHECK(tcp_option(fd, IPPROTO_TCP, TCP_KEEPCNT) == 4);
  CHECK(tcp_option(fd, IPPROTO_TCP, TCP_KEEPIDLE) == 50);
  CHECK(tcp_option(fd, IPPROTO_TCP, TCP_KEEPINTVL) == 7);
  CHECK(tcp_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT) == 1500);
  CHECK(tcp_option(fd, SOL_SOCKET, SO_RCVBUF) >= 65536);
  settings.keepcnt = 100000;
  CHECK_FALSE(apply_socket_options(fd, settings));
  ::close(fd);

  const int plain = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK(apply_socket_options(plain, TcpSettings{.keepalive = false}));
  CHECK(tcp_option(plain, SOL_SOCKET, SO_KEEPALIVE) == 0);
  ::close(plain);

  const auto [a, b] = socket_pair();
  CHECK(apply_socket_options(a, settings));
  CHECK_FALSE(apply_socket_options(-1, settings));
  ::close(a);
  ::close(b);
}
