// The certificates that clients show: which of them the listener takes by sslmode, and what is told of their names.
#include <openssl/ssl.h>

#include <array>
#include <string>

#include "proxy/io/stream.hpp"
#include "proxy/io/tls_context.hpp"
#include "tests/io/io_support.hpp"

using namespace pgweir::io;
using namespace pgweir::io::test;
using namespace std::string_literals;
using pgweir::core::CertificateNames;

namespace {

using Names = std::vector<std::string>;

/// A CA that signs whatever it is asked to.
class Authority {
 public:
  explicit Authority(const std::string& name) : name_(name) { write_certificate(file(), certificate_.get()); }
  [[nodiscard]] std::string file() const { return dir_.file(name_ + ".pem"); }
  /// A client's settings with a new certificate.
  [[nodiscard]] TlsSettings client(const CertSpec& spec) const {
    const KeyPtr key = make_ec_key();
    return settings_with(make_certificate(spec, key.get(), certificate_.get(), key_.get()), key);
  }
  [[nodiscard]] TlsSettings self_signed(const CertSpec& spec) const {
    const KeyPtr key = make_ec_key();
    return settings_with(make_certificate(spec, key.get(), nullptr, key.get()), key);
  }

 private:
  [[nodiscard]] TlsSettings settings_with(const CertPtr& certificate, const KeyPtr& key) const {
    TlsSettings settings;
    settings.sslmode = "require";
    settings.cert_file = dir_.file("client.pem");
    settings.key_file = dir_.file("client.key");
    write_certificate(settings.cert_file, certificate.get());
    write_key(settings.key_file, key.get());
    return settings;
  }

  TempDir dir_;
  std::string name_;
  KeyPtr key_ = make_ec_key();
  CertPtr certificate_ =
      make_certificate({.cn = name_, .digest = EVP_sha256(), .ca = true}, key_.get(), nullptr, key_.get());
};

const Authority& authority() {
  static const Authority instance("Users CA");
  return instance;
}

TlsSettings listener(const std::string& mode, const std::string& ca_file = authority().file()) {
  TlsSettings settings;
  settings.sslmode = mode;
  settings.cert_file = pki().cert("server");
  settings.key_file = pki().key("server");
  settings.ca_file = ca_file;
  return settings;
}

TlsSettings without_certificate() {
  TlsSettings settings;
  settings.sslmode = "require";
  return settings;
}

/// What the listener made of a client: the error of its handshake, or the certificate.
struct Seen {
  HandshakeStatus status = HandshakeStatus::WantRead;
  std::string error;
  std::optional<CertificateNames> certificate;
};

Seen handshake(const TlsSettings& server_settings, const TlsSettings& client_settings) {
  const TlsContext server_context = make_listener_context(server_settings);
  const TlsContext client_context = make_connector_context(client_settings);
  const auto [a, b] = socket_pair();
  Stream server(a), client(b);
  server.start_tls_server(server_context.get());
  client.start_tls_client(client_context.get(), "");
  Seen seen;
  const auto running = [](HandshakeStatus status) {
    return status == HandshakeStatus::WantRead || status == HandshakeStatus::WantWrite;
  };
  for (int turn = 0; turn < 20 && running(seen.status); ++turn) {
    CHECK_FALSE(server.verified_certificate());  // nothing counts before the end of the handshake
    static_cast<void>(client.handshake());
    seen.status = server.handshake();
  }
  if (seen.status == HandshakeStatus::Failed) seen.error = server.handshake_error();
  seen.certificate = server.verified_certificate();
  return seen;
}

CertificateNames names_in(const CertSpec& spec) {
  const Seen seen = handshake(listener("verify-full"), authority().client(spec));
  REQUIRE(seen.status == HandshakeStatus::Done);
  REQUIRE(seen.certificate);
  return *seen.certificate;
}

}  // namespace

TEST_CASE("client certificates: the verify modes demand one, the others take one") {
  const TlsSettings alice = authority().client({.cn = "alice", .digest = EVP_sha256()});
  for (const char* mode : {"allow", "prefer", "require", "verify-ca", "verify-full"}) {
    CAPTURE(mode);
    const bool demanded = std::string(mode).starts_with("verify");
    const Seen with = handshake(listener(mode), alice);
    CHECK(with.status == HandshakeStatus::Done);
    REQUIRE(with.certificate);
    CHECK(with.certificate->common_names == Names{"alice"});
    const Seen without = handshake(listener(mode), without_certificate());
    CHECK(without.status == (demanded ? HandshakeStatus::Failed : HandshakeStatus::Done));
    CHECK(without.error == (demanded ? "peer did not return a certificate" : ""));
    CHECK_FALSE(without.certificate);
  }
}

TEST_CASE("client certificates: not asked for where nothing could check them") {
  for (const char* mode : {"allow", "prefer", "require"}) {
    const Seen seen = handshake(listener(mode, ""), authority().client({.cn = "alice", .digest = EVP_sha256()}));
    CHECK(seen.status == HandshakeStatus::Done);
    CHECK_FALSE(seen.certificate);
  }
}

TEST_CASE("client certificates: those that only the system's CAs vouch for are not told") {
  const TlsSettings alice = authority().client({.cn = "alice", .digest = EVP_sha256()});
  REQUIRE(::setenv("SSL_CERT_FILE", authority().file().c_str(), 1) == 0);
  const Seen seen = handshake(listener("verify-ca", ""), alice);
  REQUIRE(::unsetenv("SSL_CERT_FILE") == 0);
  CHECK(seen.status == HandshakeStatus::Done);
  CHECK_FALSE(seen.certificate);
}

TEST_CASE("client certificates: one that is not valid ends the handshake, demanded or not") {
  const char* mode = GENERATE("prefer", "require", "verify-ca", "verify-full");
  const CertSpec alice{.cn = "alice", .digest = EVP_sha256()};
  const auto error = [&](const TlsSettings& client) {
    const Seen seen = handshake(listener(mode), client);
    CHECK(seen.status == HandshakeStatus::Failed);
    CHECK_FALSE(seen.certificate);
    return seen.error;
  };
  CertSpec old = alice;
  old.valid_seconds = -60;
  CHECK(error(authority().client(old)) == "certificate verify failed: certificate has expired");
  CHECK(error(Authority("Another CA").client(alice)) ==
        "certificate verify failed: unable to get local issuer certificate");
  // Of the same name, but another key.
  CHECK_FALSE(error(Authority("Users CA").client(alice)).empty());
  CHECK(error(authority().self_signed(alice)) == "certificate verify failed: self-signed certificate");
  CertSpec of_server = alice;
  of_server.extended_key_usage = "serverAuth";
  CHECK(error(authority().client(of_server)) == "certificate verify failed: unsuitable certificate purpose");
}

TEST_CASE("client certificates: their names are told as they stand there") {
  CHECK(names_in({.cn = "alice", .alt_names = "DNS:a.example,IP:127.0.0.1,email:a@b,DNS:*.x", .digest = EVP_sha256()})
            .dns_names == Names{"a.example", "*.x"});
  const CertificateNames several =
      names_in({.cn = "alice", .digest = EVP_sha256(), .more_common_names = {"bob", "j\xc3\xbcrgen"}});
  CHECK(several.common_names == Names{"alice", "bob", "j\xc3\xbcrgen"});
  CHECK(several.subject == "CN=j\\C3\\BCrgen,CN=bob,CN=alice");
  CHECK(several.dns_names.empty());
  const CertificateNames zero =
      names_in({.cn = "alice\0.evil"s, .digest = EVP_sha256(), .dns_names = {"bob\0.evil"s, ""}});
  CHECK(zero.common_names == Names{"alice\0.evil"s});
  CHECK(zero.dns_names == Names{"bob\0.evil"s, ""});
  CHECK(zero.subject == "CN=alice\\00.evil");
  const CertificateNames comma = names_in({.cn = "alice,O=Org", .digest = EVP_sha256()});
  CHECK(comma.subject == "CN=alice\\,O=Org");  // no other part can be made up
  const std::string long_name(5000, 'a');
  CHECK(names_in({.cn = "alice", .digest = EVP_sha256(), .more_common_names = {long_name}}).common_names ==
        Names{"alice", long_name});
}

TEST_CASE("client certificates: nothing is told before the client has proved that the key is its own") {
  TlsSettings settings = listener("verify-full");
  settings.protocols = GENERATE("tlsv1.2", "tlsv1.3");
  const TlsContext server_context = make_listener_context(settings);
  const TlsContext client_context = make_connector_context(authority().client({.cn = "alice", .digest = EVP_sha256()}));
  // The client's bytes reach the server one by one.
  const auto [a, server_end] = socket_pair();
  const auto [b, client_end] = socket_pair();
  Stream server(a), client(b);
  server.start_tls_server(server_context.get());
  client.start_tls_client(client_context.get(), "");
  auto status = HandshakeStatus::WantRead;
  std::array<char, 4096> buffer;
  for (int turn = 0; turn < 20 && status != HandshakeStatus::Done; ++turn) {
    static_cast<void>(client.handshake());
    char byte = 0;
    while (status != HandshakeStatus::Done && ::recv(client_end, &byte, 1, 0) == 1) {
      REQUIRE(::send(server_end, &byte, 1, 0) == 1);
      status = server.handshake();
      REQUIRE(status != HandshakeStatus::Failed);
      REQUIRE(server.verified_certificate().has_value() == (status == HandshakeStatus::Done));
    }
    for (ssize_t got = 0; (got = ::recv(server_end, buffer.data(), buffer.size(), 0)) > 0;) {
      REQUIRE(::send(client_end, buffer.data(), static_cast<std::size_t>(got), 0) == got);
    }
  }
  CHECK(status == HandshakeStatus::Done);
  ::close(server_end);
  ::close(client_end);
}

TEST_CASE("a certificate that was seen but not asked to be valid is not told") {
  TlsSettings settings = without_certificate();
  settings.sslmode = "verify-ca";
  settings.ca_file = pki().ca_file();
  const TlsContext client_context = make_connector_context(settings);
  const int mode = GENERATE(SSL_VERIFY_NONE, SSL_VERIFY_PEER);
  SSL_CTX_set_verify(client_context.get(), mode, nullptr);
  const TlsContext server_context = make_listener_context(listener("require"));
  const auto [a, b] = socket_pair();
  Stream server(a), client(b);
  server.start_tls_server(server_context.get());
  client.start_tls_client(client_context.get(), "");
  auto status = HandshakeStatus::WantRead;
  for (int turn = 0; turn < 20 && status != HandshakeStatus::Done; ++turn) {
    status = client.handshake();
    static_cast<void>(server.handshake());
  }
  REQUIRE(status == HandshakeStatus::Done);
  CHECK(client.verified_certificate().has_value() == (mode == SSL_VERIFY_PEER));
}

TEST_CASE("client certificates: a session is never resumed, so each connection shows its own") {
  TlsSettings settings = listener("verify-full");
  settings.protocols = GENERATE("tlsv1.2", "tlsv1.3");
  const TlsContext server_context = make_listener_context(settings);
  const TlsContext client_context = make_connector_context(authority().client({.cn = "alice", .digest = EVP_sha256()}));
  SSL_CTX_set_session_cache_mode(client_context.get(), SSL_SESS_CACHE_CLIENT);
  SSL_CTX_clear_options(client_context.get(), SSL_OP_NO_TICKET);
  SSL_SESSION* session = nullptr;
  for (int turn = 0; turn < 2; ++turn) {
    const auto [a, b] = socket_pair();
    Stream server(a);
    server.start_tls_server(server_context.get());
    SSL* client = SSL_new(client_context.get());
    SSL_set_fd(client, b);
    if (session != nullptr) SSL_set_session(client, session);
    int shaken = 0;
    auto status = HandshakeStatus::WantRead;
    for (int step = 0; step < 20 && (shaken != 1 || status != HandshakeStatus::Done); ++step) {
      if (shaken != 1) shaken = SSL_connect(client);
      if (status != HandshakeStatus::Done) status = server.handshake();
    }
    REQUIRE(shaken == 1);
    REQUIRE(status == HandshakeStatus::Done);
    REQUIRE(server.try_write("x").status == IoStatus::Ok);
    char byte = 0;
    CHECK(SSL_read(client, &byte, 1) == 1);  // a ticket would have come by now
    CHECK(SSL_session_reused(client) == 0);
    CHECK(server.verified_certificate().has_value());
    SSL_SESSION_free(session);
    session = SSL_get1_session(client);
    SSL_free(client);
    ::close(b);
  }
  SSL_SESSION_free(session);
}
