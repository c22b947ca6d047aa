#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>

#include <array>
#include <csignal>
#include <string>
#include <vector>

#include "proxy/io/stream.hpp"
#include "proxy/io/tls_context.hpp"
#include "tests/io/io_support.hpp"

using namespace pgweir::io;
using namespace pgweir::io::test;

namespace {

TlsSettings server_settings() {
  TlsSettings settings;
  settings.sslmode = "require";
  settings.cert_file = pki().cert("server");
  settings.key_file = pki().key("server");
  return settings;
}

TlsSettings client_settings(const std::string& mode = "require") {
  TlsSettings settings;
  settings.sslmode = mode;
  if (mode != "require") settings.ca_file = pki().ca_file();
  return settings;
}

struct Outcome {
  HandshakeStatus server = HandshakeStatus::WantRead;
  HandshakeStatus client = HandshakeStatus::WantRead;
};

bool running(HandshakeStatus status) {
  return status == HandshakeStatus::WantRead || status == HandshakeStatus::WantWrite;
}

/// A server's and a client's stream over one socket pair.
struct Pair {
  Pair(const TlsContext& server_context, const TlsContext& client_context, const std::string& hostname = "") {
    const auto [a, b] = socket_pair();
    server = Stream(a);
    client = Stream(b);
    server.start_tls_server(server_context.get());
    client.start_tls_client(client_context.get(), hostname);
  }
  /// Drives both sides by turns; a side that failed closes, so that the other learns of it.
  Outcome shake() {
    Outcome outcome;
    for (int turn = 0; turn < 20 && (running(outcome.server) || running(outcome.client)); ++turn) {
      if (running(outcome.client)) outcome.client = client.handshake();
      if (running(outcome.server)) outcome.server = server.handshake();
    }
    return outcome;
  }
  Stream server;
  Stream client;
};

Pair connected_pair() {
  Pair pair(make_listener_context(server_settings()), make_connector_context(client_settings()));
  const Outcome outcome = pair.shake();
  REQUIRE(outcome.server == HandshakeStatus::Done);
  REQUIRE(outcome.client == HandshakeStatus::Done);
  return pair;
}

/// Reads until `wanted` bytes came; `chunk` at a time.
std::string read_exactly(Stream& stream, std::size_t wanted, std::size_t chunk) {
  std::string all;
  std::vector<char> buffer(chunk);
  while (all.size() < wanted) {
    const IoResult result = stream.try_read(buffer.data(), buffer.size());
    REQUIRE(result.status == IoStatus::Ok);
    all.append(buffer.data(), result.bytes);
  }
  return all;
}

IoResult read_one(Stream& stream) {
  char byte = 0;
  return stream.try_read(&byte, 1);
}

std::string pattern(std::size_t n) {
  std::string text(n, '\0');
  for (std::size_t i = 0; i < n; ++i) text[i] = static_cast<char>('a' + i * 7 % 26 + i / 1000 % 3);
  return text;
}

}  // namespace

TEST_CASE("TLS: handshake, info text, data both ways") {
  Pair pair = connected_pair();
  CHECK(pair.server.tls_info() == pair.client.tls_info());
  CHECK(pair.server.tls_info() == "TLSv1.3/TLS_AES_256_GCM_SHA384/ECDH=X25519");
  REQUIRE(pair.client.try_write("ping").bytes == 4);
  CHECK(read_exactly(pair.server, 4, 100) == "ping");
  CHECK(read_one(pair.server).status == IoStatus::WouldBlock);
  REQUIRE(pair.server.try_write("pong").bytes == 4);
  CHECK(read_exactly(pair.client, 4, 1) == "pong");
  CHECK_FALSE(pair.server.verified_certificate());
  CHECK_FALSE(pair.client.verified_certificate());  // it saw one, but checked nothing
}

TEST_CASE("TLS: a chosen curve, TLS 1.2, finite-field groups in the info text") {
  TlsSettings settings = server_settings();
  settings.ecdhcurve = "prime256v1";
  SECTION("TLS 1.3 curve") {
    Pair pair(make_listener_context(settings), make_connector_context(client_settings()));
    REQUIRE(pair.shake().server == HandshakeStatus::Done);
    CHECK(pair.server.tls_info() == "TLSv1.3/TLS_AES_256_GCM_SHA384/ECDH=prime256v1");
    CHECK(pair.client.tls_info() == "TLSv1.3/TLS_AES_256_GCM_SHA384/ECDH=prime256v1");
  }
  SECTION("TLS 1.2") {
    settings.protocols = "tlsv1.2";
    settings.ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256";
    Pair pair(make_listener_context(settings), make_connector_context(client_settings()));
    REQUIRE(pair.shake().client == HandshakeStatus::Done);
    CHECK(pair.server.tls_info() == "TLSv1.2/ECDHE-ECDSA-AES128-GCM-SHA256/ECDH=prime256v1");
  }
  SECTION("no curve") {
    settings.ecdhcurve = "none";
    Pair pair(make_listener_context(settings), make_connector_context(client_settings()));
    REQUIRE(pair.shake().client == HandshakeStatus::Done);
    CHECK(pair.server.tls_info() == "TLSv1.3/TLS_AES_256_GCM_SHA384/DH=2048");
    CHECK(pair.client.tls_info() == "TLSv1.3/TLS_AES_256_GCM_SHA384/DH=2048");
  }
}

TEST_CASE("TLS: small pieces go out as one record, big ones keep their bytes") {
  Pair pair = connected_pair();
  const std::string big = pattern(70000);
  std::array<iovec, 4> pieces{iovec{const_cast<char*>("head"), 4}, iovec{nullptr, 0},
                              iovec{const_cast<char*>(big.data()), big.size()}, iovec{const_cast<char*>("tail"), 4}};
  const std::string all = "head" + big + "tail";
  SECTION("one record") {
    REQUIRE(pair.client.try_write(pieces.data(), 2).bytes == 4);
    iovec small[3] = {{const_cast<char*>("a"), 1}, {const_cast<char*>("bc"), 2}, {const_cast<char*>("d"), 1}};
    REQUIRE(pair.client.try_write(small, 3).bytes == 4);
    // Two writes, two records: 5 bytes of header, 16 of tag and 1 of content type beside each one's 4 bytes.
    std::array<char, 200> raw;
    CHECK(::recv(pair.server.fd(), raw.data(), raw.size(), MSG_PEEK) == 2 * (4 + 22));
    CHECK(read_exactly(pair.server, 8, 100) == "headabcd");
  }
  SECTION("every byte in order, short writes included") {
    std::string got;
    std::size_t offset = 0;
    while (offset < all.size()) {
      // The unwritten rest moves to another place each time.
      const std::string rest = all.substr(offset);
      const iovec split[2] = {{const_cast<char*>(rest.data()), rest.size() / 3},
                              {const_cast<char*>(rest.data()) + rest.size() / 3, rest.size() - rest.size() / 3}};
      const IoResult result = pair.client.try_write(split, 2);
      if (result.status == IoStatus::Ok) offset += result.bytes;
      std::array<char, 5000> buffer;
      const IoResult read = pair.server.try_read(buffer.data(), buffer.size());
      if (read.status == IoStatus::Ok) got.append(buffer.data(), read.bytes);
    }
    got += read_exactly(pair.server, all.size() - got.size(), 5000);
    CHECK(got == all);
  }
}

TEST_CASE("TLS: a blocked write goes on with the same bytes at another address, and more of them") {
  Pair pair = connected_pair();
  const std::string data = pattern(20000);
  std::string sent;
  IoResult result = pair.client.try_write(data);
  while (result.status == IoStatus::Ok) {
    sent += data.substr(0, result.bytes);
    result = pair.client.try_write(data);
  }
  REQUIRE(result.status == IoStatus::WouldBlock);
  CHECK_FALSE(pair.client.wants_read_for_write());
  std::string got;
  std::array<char, 16384> buffer;
  const std::string again = data + "more";
  for (bool written = false; got.size() < sent.size() + 1;) {
    const IoResult read = pair.server.try_read(buffer.data(), buffer.size());
    REQUIRE(read.status != IoStatus::Error);
    if (read.status == IoStatus::Ok) got.append(buffer.data(), read.bytes);
    if (written) continue;
    const IoResult retry = pair.client.try_write(again);
    REQUIRE(retry.status != IoStatus::Error);
    written = retry.status == IoStatus::Ok;
    if (!written) continue;
    sent += again.substr(0, retry.bytes - 1);
  }
  got += read_exactly(pair.server, sent.size() + 1 - got.size(), buffer.size());
  CHECK(got.substr(0, sent.size()) == sent);
}

TEST_CASE("TLS: input buffered inside OpenSSL is told, and ends with would-block") {
  Pair pair = connected_pair();
  REQUIRE(pair.client.try_write("first").status == IoStatus::Ok);
  REQUIRE(pair.client.try_write("second").status == IoStatus::Ok);
  CHECK(read_exactly(pair.server, 3, 3) == "fir");
  // Everything has left the socket: epoll would stay silent.
  pollfd poll_fd{pair.server.fd(), POLLIN, 0};
  CHECK(::poll(&poll_fd, 1, 0) == 0);
  CHECK(pair.server.has_buffered_input());
  CHECK(read_exactly(pair.server, 8, 100) == "stsecond");
  CHECK_FALSE(pair.server.has_buffered_input());
  CHECK(read_one(pair.server).status == IoStatus::WouldBlock);
}

TEST_CASE("TLS: part of a record is no buffered input") {
  Pair pair = connected_pair();
  REQUIRE(pair.client.try_write("hello").status == IoStatus::Ok);
  std::array<char, 200> raw;
  const ssize_t size = ::recv(pair.server.fd(), raw.data(), raw.size(), 0);
  REQUIRE(size == 27);
  // A second pair of sockets would not do: the record only opens under these keys. So it is sent back by halves.
  const int raw_client = pair.client.fd();
  REQUIRE(::send(raw_client, raw.data(), 10, 0) == 10);
  CHECK(read_one(pair.server).status == IoStatus::WouldBlock);
  CHECK_FALSE(pair.server.has_buffered_input());
  for (ssize_t i = 10; i < size; ++i) {
    CHECK(read_one(pair.server).status == IoStatus::WouldBlock);
    REQUIRE(::send(raw_client, raw.data() + i, 1, 0) == 1);
  }
  CHECK(read_exactly(pair.server, 5, 2) == "hello");
}

TEST_CASE("TLS: data and close_notify in one go: first the data, then the end") {
  Pair pair = connected_pair();
  REQUIRE(pair.client.try_write("bye").status == IoStatus::Ok);
  pair.client.shutdown_write();
  CHECK(read_exactly(pair.server, 3, 100) == "bye");
  CHECK(pair.server.has_buffered_input());
  CHECK(read_one(pair.server).status == IoStatus::Eof);
  // Half-closed: the other direction still works.
  REQUIRE(pair.server.try_write("see you").status == IoStatus::Ok);
  CHECK(read_exactly(pair.client, 7, 100) == "see you");
}

TEST_CASE("TLS: close sends close_notify; a bare close is an EOF too; no SIGPIPE") {
  std::signal(SIGPIPE, SIG_DFL);
  Pair pair = connected_pair();
  SECTION("graceful") {
    pair.client.close();
    CHECK_FALSE(pair.client.is_open());
    CHECK(read_one(pair.server).status == IoStatus::Eof);
    CHECK(pair.server.tls_error().empty());
  }
  SECTION("bare") {
    ::close(pair.client.detach_fd());
    CHECK(read_one(pair.server).status == IoStatus::Eof);
    CHECK(read_one(pair.server).status != IoStatus::Ok);
  }
  const IoResult written = pair.server.try_write("x");
  CHECK(written.status == IoStatus::Error);
  pair.server.close();
}

TEST_CASE("TLS: garbage after the handshake is an error with a text") {
  Pair pair = connected_pair();
  const std::string garbage(64, 'G');
  REQUIRE(::send(pair.client.fd(), garbage.data(), garbage.size(), 0) == 64);
  const IoResult result = read_one(pair.server);
  CHECK(result.status == IoStatus::Error);
  CHECK(result.error == EPROTO);
  CHECK_FALSE(pair.server.tls_error().empty());
}

TEST_CASE("TLS: failed handshakes") {
  SECTION("peer speaks no TLS") {
    const auto [a, b] = socket_pair();
    Stream server(a);
    Stream other(b);
    const TlsContext context = make_listener_context(server_settings());
    server.start_tls_server(context.get());
    REQUIRE(other.try_write("GET / HTTP/1.0\r\n\r\n").status == IoStatus::Ok);
    CHECK(server.handshake() == HandshakeStatus::Failed);
    CHECK(server.handshake_error() == "http request");
  }
  SECTION("peer goes away") {
    const auto [a, b] = socket_pair();
    Stream server(a);
    const TlsContext context = make_listener_context(server_settings());
    server.start_tls_server(context.get());
    CHECK(server.handshake() == HandshakeStatus::WantRead);
    ::close(b);
    CHECK(server.handshake() == HandshakeStatus::Failed);
    CHECK_FALSE(server.handshake_error().empty());
  }
  SECTION("no common protocol") {
    TlsSettings old = client_settings();
    old.protocols = "tlsv1.2";
    TlsSettings strict = server_settings();
    strict.protocols = "tlsv1.3";
    Pair pair(make_listener_context(strict), make_connector_context(old));
    const Outcome outcome = pair.shake();
    CHECK(outcome.server == HandshakeStatus::Failed);
    CHECK(outcome.client == HandshakeStatus::Failed);
    CHECK(pair.server.handshake_error() == "unsupported protocol");
  }
}

TEST_CASE("TLS: direct TLS goes on from bytes already read") {
  Pair pair(make_listener_context(server_settings()), make_connector_context(client_settings()));
  CHECK(pair.client.handshake() == HandshakeStatus::WantRead);
  std::array<char, 4096> first;
  const ssize_t size = ::recv(pair.server.fd(), first.data(), first.size(), 0);
  REQUIRE(size > 0);
  CHECK(first[0] == 0x16);
  const TlsContext context = make_listener_context(server_settings());
  const auto taken = static_cast<std::size_t>(GENERATE(0, 1));
  // Either all that came, or a part with the rest still "in the socket" of the scripted peer.
  const std::size_t before = taken == 0 ? static_cast<std::size_t>(size) : 1;
  pair.server.start_tls_server(context.get(), {first.data(), before});
  if (before < static_cast<std::size_t>(size)) {
    CHECK(pair.server.handshake() == HandshakeStatus::WantRead);
    const auto rest = static_cast<std::size_t>(size) - before;
    REQUIRE(::send(pair.client.fd(), first.data() + before, rest, 0) == static_cast<ssize_t>(rest));
  }
  const Outcome outcome = pair.shake();
  CHECK(outcome.server == HandshakeStatus::Done);
  CHECK(outcome.client == HandshakeStatus::Done);
}

TEST_CASE("TLS: ALPN of the listener") {
  const TlsContext client = make_connector_context(client_settings());
  const auto offer = [&](const std::string& list) {
    // 0 is success here, unlike elsewhere in OpenSSL.
    REQUIRE(SSL_CTX_set_alpn_protos(client.get(), reinterpret_cast<const unsigned char*>(list.data()),
                                    static_cast<unsigned>(list.size())) == 0);
  };
  const std::string postgres = "\x0apostgresql";
  SECTION("postgresql") {
    offer(postgres);
  }
  SECTION("postgresql among others") {
    offer("\x02h2" + postgres);
  }
  SECTION("others only") {
    offer("\x02h2\x08http/1.1");
    Pair pair(make_listener_context(server_settings()), client);
    const Outcome outcome = pair.shake();
    CHECK(outcome.server == HandshakeStatus::Failed);
    CHECK(outcome.client == HandshakeStatus::Failed);
    CHECK(pair.client.handshake_error() == "tlsv1 alert no application protocol");
    return;
  }
  SECTION("none") {
    Pair pair(make_listener_context(server_settings()), client);
    CHECK(pair.shake().server == HandshakeStatus::Done);
    CHECK(pair.server.tls_alpn().empty());
    return;
  }
  Pair pair(make_listener_context(server_settings()), client);
  CHECK(pair.shake().server == HandshakeStatus::Done);
  CHECK(pair.server.tls_alpn() == "postgresql");
  CHECK(pair.client.tls_alpn() == "postgresql");
}

TEST_CASE("TLS: server certificates under verify-ca and verify-full") {
  const TlsContext server = make_listener_context(server_settings());
  const auto try_as = [&](const TlsSettings& settings, const std::string& hostname) {
    Pair pair(server, make_connector_context(settings), hostname);
    const HandshakeStatus status = pair.shake().client;
    CHECK(pair.client.verified_certificate().has_value() == (status == HandshakeStatus::Done));
    return status == HandshakeStatus::Done ? std::string("ok") : pair.client.handshake_error();
  };
  const TlsSettings full = client_settings("verify-full");
  CHECK(try_as(client_settings("verify-ca"), "") == "ok");
  CHECK(try_as(full, "db.example") == "ok");
  CHECK(try_as(full, "127.0.0.1") == "ok");
  CHECK(try_as(full, "other.example") == "certificate verify failed: hostname mismatch");
  CHECK(try_as(full, "127.0.0.2") == "certificate verify failed: IP address mismatch");
  TlsSettings wrong = client_settings("verify-ca");
  wrong.ca_file = pki().other_ca_file();
  CHECK(try_as(wrong, "") == "certificate verify failed: unable to get local issuer certificate");
}

TEST_CASE("TLS: tls-server-end-point by kind of signature") {
  struct Case {
    const char* name;
    const char* algorithm;
    const EVP_MD* digest;
    bool pss;
    const EVP_MD* expected;  // Null: undefined.
  };
  const auto item = GENERATE(Case{"ecdsa-sha256", "EC", EVP_sha256(), false, EVP_sha256()},
                             Case{"ecdsa-sha384", "EC", EVP_sha384(), false, EVP_sha384()},
                             Case{"rsa-sha1", "RSA", EVP_sha1(), false, EVP_sha256()},
                             Case{"rsa-sha512", "RSA", EVP_sha512(), false, EVP_sha512()},
                             Case{"rsa-pss-sha384", "RSA", EVP_sha384(), true, EVP_sha384()},
                             Case{"ed25519", "ED25519", nullptr, false, nullptr});
  INFO(item.name);
  const std::string algorithm = item.algorithm;
  const KeyPtr key(algorithm == "EC"    ? EVP_EC_gen("P-256")
                   : algorithm == "RSA" ? EVP_RSA_gen(2048)
                                        : EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
  // A SHA-1 signature is below OpenSSL's default level for one's own certificate only when it is checked; a self-signed
  // root is not.
  const CertPtr certificate =
      make_certificate({.cn = "x", .digest = item.digest, .pss = item.pss}, key.get(), nullptr, key.get());
  TlsSettings settings = server_settings();
  settings.cert_file = pki().file("endpoint.pem");
  settings.key_file = pki().file("endpoint.key");
  write_certificate(settings.cert_file, certificate.get());
  write_key(settings.key_file, key.get());
  Pair pair(make_listener_context(settings), make_connector_context(client_settings()));
  const Outcome outcome = pair.shake();
  REQUIRE(outcome.client == HandshakeStatus::Done);
  REQUIRE(outcome.server == HandshakeStatus::Done);

  std::string expected;
  if (item.expected != nullptr) {
    unsigned char* der = nullptr;
    const int der_size = i2d_X509(certificate.get(), &der);
    std::array<unsigned char, EVP_MAX_MD_SIZE> hash;
    unsigned size = 0;
    EVP_Digest(der, static_cast<std::size_t>(der_size), hash.data(), &size, item.expected, nullptr);
    OPENSSL_free(der);
    expected.assign(reinterpret_cast<const char*>(hash.data()), size);
  }
  CHECK(pair.server.tls_server_end_point() == expected);
  CHECK(pair.client.tls_server_end_point() == expected);
}

TEST_CASE("TLS: a live connection is handed over by moving the stream") {
  Pair pair = connected_pair();
  REQUIRE(pair.client.try_write("abc").status == IoStatus::Ok);
  CHECK(read_exactly(pair.server, 1, 1) == "a");
  Stream moved(std::move(pair.server));
  CHECK_FALSE(pair.server.is_open());
  CHECK_FALSE(pair.server.is_tls());
  CHECK(moved.has_buffered_input());
  CHECK(read_exactly(moved, 2, 10) == "bc");
  REQUIRE(moved.try_write("d").status == IoStatus::Ok);
  CHECK(read_exactly(pair.client, 1, 10) == "d");
}

TEST_CASE("TLS: the context may go while streams made under it live on") {
  TlsContext server = make_listener_context(server_settings());
  TlsContext client = make_connector_context(client_settings());
  Pair pair(server, client);
  server.reset();
  client.reset();
  CHECK(pair.shake().server == HandshakeStatus::Done);
}
