#include "proxy/io/tls_buffers.hpp"

#include <openssl/ssl.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "proxy/io/clock.hpp"
#include "proxy/io/stream.hpp"
#include "proxy/io/tls_context.hpp"
#include "tests/io/io_support.hpp"

using namespace pgweir::io;
using namespace pgweir::io::test;
using namespace std::chrono_literals;

namespace {

using SslPtr = std::unique_ptr<SSL, Freer<SSL_free>>;

TlsContext listener_for_buffers() {
  TlsSettings settings;
  settings.sslmode = "require";
  settings.cert_file = pki().cert("server");
  settings.key_file = pki().key("server");
  return make_listener_context(settings);
}

TlsContext connector_for_buffers() {
  TlsSettings settings;
  settings.sslmode = "require";
  return make_connector_context(settings);
}

struct BuffersUser {
  explicit BuffersUser(const TlsContext& context) : ssl(SSL_new(context.get())), user(ssl.get()) {}
  [[nodiscard]] bool releases() const { return (SSL_get_mode(ssl.get()) & SSL_MODE_RELEASE_BUFFERS) != 0; }
  void use(TlsBuffers& buffers, pgweir::pool::TimePoint now, int times) {
    for (int i = 0; i < times; ++i) buffers.used(user, now);
  }
  SslPtr ssl;
  TlsBuffers::User user;
};

}  // namespace

TEST_CASE("TLS buffers: kept by who uses them often, until idle for a while") {
  EventSet set;
  TlsBuffers buffers(set, 10ms);
  const TlsContext context = listener_for_buffers();
  BuffersUser rare(context);
  BuffersUser busy(context);
  CHECK(rare.releases());
  const auto begin = monotonic_now();
  for (int second = 10; second > 0; --second) rare.use(buffers, begin - std::chrono::seconds(second), 10);
  CHECK_FALSE(rare.user.keeps_buffers());
  busy.use(buffers, begin, 20);
  CHECK(busy.user.keeps_buffers());
  CHECK_FALSE(busy.releases());
  REQUIRE(run_until(set, [&] { return !busy.user.keeps_buffers(); }));
  CHECK(monotonic_now() >= begin + 10ms);
  CHECK(busy.releases());
  CHECK(rare.releases());
  // And again, from the beginning.
  busy.use(buffers, monotonic_now(), 2);
  CHECK_FALSE(busy.user.keeps_buffers());
  busy.use(buffers, monotonic_now(), 20);
  CHECK(busy.user.keeps_buffers());
}

TEST_CASE("TLS buffers: those in use stay while a crowd that has gone idle is released") {
  EventSet set;
  TlsBuffers buffers(set, 0ms);
  const TlsContext context = listener_for_buffers();
  const auto past = monotonic_now() - 10s;
  BuffersUser busy(context);
  busy.use(buffers, past, 20);
  std::deque<BuffersUser> crowd;
  for (int i = 0; i < 600; ++i) crowd.emplace_back(context).use(buffers, past, 20);
  crowd[1].user.release();
  crowd.pop_back();
  crowd.pop_front();
  busy.use(buffers, monotonic_now() + 1h, 1);
  REQUIRE(run_until(set, [&] {
    return std::none_of(crowd.begin(), crowd.end(), [](const BuffersUser& one) { return one.user.keeps_buffers(); });
  }));
  CHECK(busy.user.keeps_buffers());
}

TEST_CASE("TLS buffers: released at any moment of a connection's life, nothing is lost") {
  EventSet set;
  TlsBuffers buffers(set);
  const TlsContext listener = listener_for_buffers();
  const TlsContext connector = connector_for_buffers();
  const auto [a, b] = socket_pair();
  const auto [relay_in, relay_out] = socket_pair();
  // What the client writes passes the test, which cuts it.
  Stream server(a);
  Stream client(relay_in);
  server.start_tls_server(listener.get());
  client.start_tls_client(connector.get(), "");
  const auto pass = [](int from, int to) {
    char bytes[4096];
    for (ssize_t n = ::recv(from, bytes, sizeof bytes, 0); n > 0; n = ::recv(from, bytes, sizeof bytes, 0)) {
      REQUIRE(::send(to, bytes, static_cast<std::size_t>(n), 0) == n);
    }
  };
  HandshakeStatus own = HandshakeStatus::WantRead;
  HandshakeStatus peer = HandshakeStatus::WantRead;
  for (int turn = 0; turn < 20 && (own != HandshakeStatus::Done || peer != HandshakeStatus::Done); ++turn) {
    if (peer != HandshakeStatus::Done) peer = client.handshake();
    pass(relay_out, b);
    if (own != HandshakeStatus::Done) own = server.handshake();
    pass(b, relay_out);
  }
  REQUIRE(own == HandshakeStatus::Done);
  REQUIRE(peer == HandshakeStatus::Done);
  const auto keep = [&] {
    for (int i = 0; i < 40; ++i) server.note_use(buffers, monotonic_now());
  };
  char got[64];
  const std::size_t at = GENERATE(1, 4, 5, 6, 20, 30);
  keep();
  for (int round = 0; round < 3; ++round) {
    REQUIRE(client.try_write("hello").bytes == 5);
    char record[256];
    const ssize_t size = ::recv(relay_out, record, sizeof record, 0);
    REQUIRE(size == 5 + 5 + 17);
    const auto first = std::min(at, static_cast<std::size_t>(size));
    REQUIRE(::send(b, record, first, 0) == static_cast<ssize_t>(first));
    if (first < static_cast<std::size_t>(size)) {
      CHECK(server.try_read(got, sizeof got).status == IoStatus::WouldBlock);
    }
    server.release_buffers();
    const auto rest = static_cast<std::size_t>(size) - first;
    REQUIRE(::send(b, record + first, rest, 0) == static_cast<ssize_t>(rest));
    if (round > 0) keep();
    // A part of what the record holds is read, the rest after the buffers have been asked for again.
    REQUIRE(server.try_read(got, 2).bytes == 2);
    CHECK(server.has_buffered_input());
    server.release_buffers();
    CHECK(server.has_buffered_input());
    REQUIRE(server.try_read(got + 2, sizeof got - 2).bytes == 3);
    CHECK(std::string(got, 5) == "hello");
    CHECK_FALSE(server.has_buffered_input());
    keep();
    REQUIRE(server.try_write("answer").bytes == 6);
    server.release_buffers();
    pass(b, relay_out);
    REQUIRE(client.try_read(got, sizeof got).bytes == 6);
    keep();
  }
  // A record that the socket has taken in part only.
  const std::string big(100000, 'x');
  std::size_t written = 0;
  for (IoResult result = server.try_write(big); result.status == IoStatus::Ok; result = server.try_write(big)) {
    written += result.bytes;
    REQUIRE(written < 100 * big.size());
  }
  server.release_buffers();
  std::size_t read = 0;
  const std::size_t target = written + big.size();
  std::vector<char> room(70000);
  while (read < target) {
    char bytes[4096];
    const ssize_t n = ::recv(b, bytes, sizeof bytes, 0);
    if (n > 0) REQUIRE(::send(relay_out, bytes, static_cast<std::size_t>(n), 0) == n);
    const IoResult result = client.try_read(room.data(), room.size());
    REQUIRE((result.status == IoStatus::Ok || result.status == IoStatus::WouldBlock));
    if (result.status == IoStatus::Ok) read += result.bytes;
    const IoResult more = written < target ? server.try_write(big) : IoResult{IoStatus::WouldBlock, 0, 0};
    if (more.status == IoStatus::Ok) written += more.bytes;
    keep();
    server.release_buffers();
  }
  CHECK(std::string(room.data(), 10) == std::string(10, 'x'));
  ::close(b);
  ::close(relay_out);
}
