#include "proxy/io/connector.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "proxy/io/clock.hpp"
#include "proxy/io/listener.hpp"
#include "tests/io/io_support.hpp"

using namespace pgweir::io;
using namespace pgweir::io::test;

namespace {

ListenSocket tcp_listener(const std::string& address) {
  ListenSpec spec;
  spec.listen_addr = address;
  spec.port = 0;
  spec.defer_accept = 0;
  spec.unix_socket_dir.clear();
  auto sockets = open_tcp_listeners(spec, [](const std::string& problem) { FAIL(problem); });
  REQUIRE(sockets.size() == 1);
  return std::move(sockets[0]);
}

struct Fixture {
  EventSet events;
  Resolver resolver{events, {}, ""};
  Connector connector{
      events, [this](const std::string& name, Resolver::Callback reply) { resolver.lookup(name, std::move(reply)); }};
  std::vector<ConnectResult> results;

  Connector::Callback keep() {
    return [this](ConnectResult result) { results.push_back(std::move(result)); };
  }
  /// Connects, waits, and gives the result; the descriptor is closed here.
  ConnectResult connect(const std::string& host, int port) {
    results.clear();
    CHECK(connector.connect(host, port, {}, keep()) != 0);
    CHECK(results.empty());
    REQUIRE(run_until(events, [&] { return results.size() == 1; }));
    if (results[0].fd >= 0) ::close(results[0].fd);
    return results[0];
  }
};

}  // namespace

TEST_CASE("connector: literal addresses") {
  Fixture fixture;
  for (const std::string address : {"127.0.0.1", "::1"}) {
    const ListenSocket server = tcp_listener(address);
    fixture.results.clear();
    fixture.connector.connect(address, server.port(), TcpSettings{.keepcnt = 3}, fixture.keep());
    CHECK(fixture.connector.pending() == 1);
    REQUIRE(run_until(fixture.events, [&] { return fixture.results.size() == 1; }));
    const ConnectResult& result = fixture.results[0];
    CHECK(result.error.empty());
    REQUIRE(result.fd >= 0);
    CHECK(address_text(result.address, result.address_length) == server.text());
    int count = 0;
    socklen_t length = sizeof count;
    REQUIRE(::getsockopt(result.fd, IPPROTO_TCP, TCP_KEEPCNT, &count, &length) == 0);
    CHECK(count == 3);
    CHECK((::fcntl(result.fd, F_GETFL) & O_NONBLOCK) != 0);
    CHECK((::fcntl(result.fd, F_GETFD) & FD_CLOEXEC) != 0);
    ::close(result.fd);
  }
  CHECK(fixture.connector.pending() == 0);
  CHECK(fixture.resolver.hosts().empty());
}

TEST_CASE("connector: Unix sockets, in a folder and abstract") {
  Fixture fixture;
  const TempDir dir;
  ListenSpec spec;
  for (const std::string& where : {dir.path(), "@pgweir-connect-test-" + std::to_string(::getpid())}) {
    spec.unix_socket_dir = where;
    spec.port = 5432;
    const auto server = open_unix_listener(spec);
    const ConnectResult result = fixture.connect(where, 5432);
    CHECK(result.error.empty());
    CHECK(address_text(result.address, result.address_length) == server->text());
  }
  const ConnectResult missing = fixture.connect(dir.file("missing"), 5432);
  CHECK(missing.fd == -1);
  CHECK(missing.error == "connect failed");
  CHECK(missing.detail == "No such file or directory");
  CHECK(fixture.connect("/" + std::string(200, 'x'), 5432).error == "connect failed");
}

TEST_CASE("connector: closed port") {
  Fixture fixture;
  int port = 0;
  {
    const ListenSocket server = tcp_listener("127.0.0.1");
    port = server.port();
  }
  const ConnectResult result = fixture.connect("127.0.0.1", port);
  CHECK(result.fd == -1);
  CHECK(result.error == "connect failed");
  CHECK(result.detail == "Connection refused");
  CHECK(address_port(result.address) == port);
}

TEST_CASE("connector: names") {
  Fixture fixture;
  const ListenSocket server = tcp_listener("127.0.0.1");
  for (int i = 0; i < 3; ++i) fixture.connector.connect("localhost", server.port(), {}, fixture.keep());
  CHECK(fixture.connector.pending() == 3);
  REQUIRE(run_until(fixture.events, [&] { return fixture.results.size() == 3; }));
  int connected = 0;
  for (const auto& result : fixture.results) {
    // A machine whose localhost is also ::1 gets its turns too, and refuses them.
    if (address_host(result.address) == "::1") continue;
    CHECK(result.error.empty());
    ++connected;
    ::close(result.fd);
  }
  CHECK(connected > 0);
  CHECK(fixture.resolver.hosts().size() == 1);
}

TEST_CASE("connector: a name that does not exist") {
  Fixture fixture;
  const ConnectResult result = fixture.connect("no such host!", 5432);
  CHECK(result.fd == -1);
  CHECK(result.error == "server DNS lookup failed");
  CHECK_FALSE(result.detail.empty());
}

TEST_CASE("connector: cancelled connects stay silent") {
  Fixture fixture;
  const ListenSocket server = tcp_listener("127.0.0.1");
  const TempDir dir;
  ListenSpec spec;
  spec.unix_socket_dir = dir.path();
  const auto local = open_unix_listener(spec);
  SECTION("while connecting, while looking up, when already connected") {
    for (const std::string& host : {std::string("127.0.0.1"), std::string("localhost")}) {
      fixture.connector.cancel(fixture.connector.connect(host, server.port(), {}, fixture.keep()));
    }
    fixture.connector.cancel(fixture.connector.connect(dir.path(), 6432, {}, fixture.keep()));
    CHECK(fixture.connector.pending() == 0);
    fixture.connector.cancel(12345);
    CHECK(fixture.connect("localhost", server.port()).error.empty());
    CHECK(fixture.results.size() == 1);
  }
  SECTION("from within another one's callback") {
    std::uint64_t second = 0;
    bool first_done = false;
    fixture.connector.connect(dir.path(), 6432, {}, [&](ConnectResult result) {
      ::close(result.fd);
      fixture.connector.cancel(second);
      first_done = true;
    });
    second = fixture.connector.connect(dir.path(), 6432, {}, fixture.keep());
    REQUIRE(run_until(fixture.events, [&] { return first_done; }));
    run_ready(fixture.events);
    CHECK(fixture.results.empty());
  }
  SECTION("with the connector itself") {
    EventSet& events = fixture.events;
    auto connector = std::make_unique<Connector>(events, [&](const std::string& name, Resolver::Callback reply) {
      fixture.resolver.lookup(name, std::move(reply));
    });
    bool called = false;
    const auto callback = [&](ConnectResult) { called = true; };
    connector->connect("127.0.0.1", server.port(), {}, callback);
    connector->connect("localhost", server.port(), {}, callback);
    connector->connect(dir.path(), 6432, {}, callback);
    connector.reset();
    run_ready(events);
    CHECK_FALSE(called);
  }
}
