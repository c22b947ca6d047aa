// Streams over TLS with OpenSSL itself at the other end: suites, key updates, padding, tickets, alerts, small records,
// and what arrives together with the end of the handshake.
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "proxy/io/stream.hpp"
#include "proxy/io/tls_context.hpp"
#include "tests/io/io_support.hpp"

using namespace pgweir::io;
using namespace pgweir::io::test;

namespace {

using SslPtr = std::unique_ptr<SSL, Freer<SSL_free>>;
using SslContextPtr = std::unique_ptr<SSL_CTX, Freer<SSL_CTX_free>>;

/// A Stream at one end of a socket pair, OpenSSL at the other.
struct Ends {
  enum class Peer { Client, Server };

  explicit Ends(Peer peer, const TlsSettings& settings = {})
      : context(SSL_CTX_new(peer == Peer::Client ? TLS_client_method() : TLS_server_method())) {
    const auto [a, b] = socket_pair();
    stream = Stream(a);
    raw = b;
    if (peer == Peer::Client) {
      TlsSettings own = settings;
      own.sslmode = "require";
      own.cert_file = pki().cert("server");
      own.key_file = pki().key("server");
      const TlsContext listener = make_listener_context(own);
      stream.start_tls_server(listener.get());
    } else {
      REQUIRE(SSL_CTX_use_certificate_chain_file(context.get(), pki().cert("server").c_str()) == 1);
      REQUIRE(SSL_CTX_use_PrivateKey_file(context.get(), pki().key("server").c_str(), SSL_FILETYPE_PEM) == 1);
      TlsSettings own = settings;
      own.sslmode = "require";
      const TlsContext connector = make_connector_context(own);
      stream.start_tls_client(connector.get(), "");
    }
    is_client = peer == Peer::Client;
  }
  ~Ends() {
    ssl.reset();
    ::close(raw);
    ERR_clear_error();
  }

  void begin() {
    ssl.reset(SSL_new(context.get()));
    REQUIRE(SSL_set_fd(ssl.get(), raw) == 1);
    is_client ? SSL_set_connect_state(ssl.get()) : SSL_set_accept_state(ssl.get());
  }
  void shake() {
    if (ssl == nullptr) begin();
    HandshakeStatus own = HandshakeStatus::WantRead;
    int peer = 0;
    for (int turn = 0; turn < 20 && (own != HandshakeStatus::Done || peer != 1); ++turn) {
      if (peer != 1) peer = SSL_do_handshake(ssl.get());
      if (own != HandshakeStatus::Done) own = stream.handshake();
      REQUIRE(own != HandshakeStatus::Failed);
    }
    REQUIRE(own == HandshakeStatus::Done);
    REQUIRE(peer == 1);
  }
  /// From the stream to OpenSSL, by turns.
  void check_out(const std::string& data) {
    std::string got;
    std::size_t written = 0;
    std::array<char, 20000> buffer;
    while (got.size() < data.size()) {
      if (written < data.size()) {
        const IoResult result = stream.try_write(std::string_view(data).substr(written));
        REQUIRE((result.status == IoStatus::Ok || result.status == IoStatus::WouldBlock));
        written += result.status == IoStatus::Ok ? result.bytes : 0;
      }
      const int n = SSL_read(ssl.get(), buffer.data(), static_cast<int>(buffer.size()));
      if (n > 0) got.append(buffer.data(), static_cast<std::size_t>(n));
      if (n <= 0) REQUIRE(SSL_get_error(ssl.get(), n) == SSL_ERROR_WANT_READ);
    }
    CHECK(got == data);
  }
  /// From OpenSSL to the stream; `chunk` at a time.
  void check_in(const std::string& data, std::size_t chunk = 20000) {
    std::string got;
    std::size_t written = 0;
    std::vector<char> buffer(chunk);
    while (got.size() < data.size()) {
      if (written < data.size()) {
        const int n = SSL_write(ssl.get(), data.data() + written, static_cast<int>(data.size() - written));
        if (n > 0) written += static_cast<std::size_t>(n);
        if (n <= 0) REQUIRE(SSL_get_error(ssl.get(), n) == SSL_ERROR_WANT_WRITE);
      }
      const IoResult result = stream.try_read(buffer.data(), buffer.size());
      REQUIRE((result.status == IoStatus::Ok || result.status == IoStatus::WouldBlock));
      if (result.status == IoStatus::Ok) got.append(buffer.data(), result.bytes);
    }
    CHECK(got == data);
    CHECK_FALSE(stream.has_buffered_input());
  }
  void check_both(const std::string& data) {
    check_out(data);
    check_in(data);
  }
  IoResult read_one() {
    char byte = 0;
    return stream.try_read(&byte, 1);
  }

  SslContextPtr context;
  SslPtr ssl;
  Stream stream;
  int raw = -1;
  bool is_client = false;
};

std::string text_of(std::size_t n) {
  std::string text(n, '\0');
  for (std::size_t i = 0; i < n; ++i) text[i] = static_cast<char>('a' + i * 11 % 26 + i / 777 % 4);
  return text;
}

}  // namespace

TEST_CASE("TLS with OpenSSL: every suite, both sides, all sizes") {
  const std::string suite = GENERATE("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256",
                                     "TLS_AES_128_CCM_SHA256");
  const auto side = GENERATE(Ends::Peer::Client, Ends::Peer::Server);
  TlsSettings settings;
  settings.tls13_ciphers = suite;
  Ends ends(side, settings);
  REQUIRE(SSL_CTX_set_ciphersuites(ends.context.get(), suite.c_str()) == 1);
  SSL_CTX_set_mode(ends.context.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  ends.shake();
  CHECK(ends.stream.tls_info() == "TLSv1.3/" + suite + "/ECDH=X25519");
  for (const std::size_t size : {1u, 100u, 2048u, 2049u, 16384u, 16385u, 300000u}) ends.check_both(text_of(size));
  ends.check_in(text_of(5000), 7);
  // The end comes as OpenSSL sends it, and ours as OpenSSL expects it.
  CHECK(SSL_shutdown(ends.ssl.get()) == 0);
  CHECK(ends.read_one().status == IoStatus::Eof);
  ends.check_out("half closed");
  ends.stream.shutdown_write();
  CHECK(SSL_shutdown(ends.ssl.get()) == 1);
}

TEST_CASE("TLS with OpenSSL: key updates") {
  const auto side = GENERATE(Ends::Peer::Client, Ends::Peer::Server);
  const int kind = GENERATE(SSL_KEY_UPDATE_NOT_REQUESTED, SSL_KEY_UPDATE_REQUESTED);
  Ends ends(side);
  ends.shake();
  ends.check_both("before");
  for (int i = 0; i < 40; ++i) {
    REQUIRE(SSL_key_update(ends.ssl.get(), kind) == 1);
    REQUIRE(SSL_do_handshake(ends.ssl.get()) == 1);
    if (i % 10 == 0) CHECK(ends.read_one().status == IoStatus::WouldBlock);
    ends.check_in(text_of(static_cast<std::size_t>(1 + i * 1000)));
    if (i % 3 == 0) ends.check_out(text_of(static_cast<std::size_t>(1 + i * 1000)));
  }
}

TEST_CASE("TLS with OpenSSL: padded records") {
  Ends ends(Ends::Peer::Client);
  REQUIRE(SSL_CTX_set_block_padding(ends.context.get(), 512) == 1);
  ends.shake();
  ends.check_both(text_of(10));
  ends.check_both(text_of(40000));
}

TEST_CASE("TLS with OpenSSL: tickets of a server are no data") {
  Ends ends(Ends::Peer::Server);
  REQUIRE(SSL_CTX_set_num_tickets(ends.context.get(), 3) == 1);
  ends.shake();
  CHECK(ends.read_one().status == IoStatus::WouldBlock);
  CHECK_FALSE(ends.stream.has_buffered_input());
  ends.check_both(text_of(30000));
}

TEST_CASE("TLS with OpenSSL: a client that asks for short records gets them") {
  Ends ends(Ends::Peer::Client);
  REQUIRE(SSL_CTX_set_tlsext_max_fragment_length(ends.context.get(), TLSEXT_max_fragment_length_512) == 1);
  ends.shake();
  REQUIRE(ends.stream.try_write(text_of(2000)).bytes == 2000);
  std::array<unsigned char, 5> header;
  REQUIRE(::recv(ends.raw, header.data(), header.size(), MSG_PEEK) == 5);
  CHECK(header[3] * 256 + header[4] == 512 + 17);
  std::array<char, 600> buffer;
  CHECK(SSL_read(ends.ssl.get(), buffer.data(), static_cast<int>(buffer.size())) == 512);
}

TEST_CASE("TLS with OpenSSL: TLS 1.2 goes on as before") {
  const auto side = GENERATE(Ends::Peer::Client, Ends::Peer::Server);
  Ends ends(side);
  REQUIRE(SSL_CTX_set_max_proto_version(ends.context.get(), TLS1_2_VERSION) == 1);
  SSL_CTX_set_mode(ends.context.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  ends.shake();
  CHECK(ends.stream.tls_info().substr(0, 8) == "TLSv1.2/");
  CHECK_FALSE(ends.stream.tls_server_end_point().empty());
  for (const std::size_t size : {1u, 16385u, 300000u}) ends.check_both(text_of(size));
  ends.check_in(text_of(5000), 7);
}

TEST_CASE("TLS with OpenSSL: the first data come with the end of the handshake") {
  const std::size_t size = GENERATE(5, 40000);
  const std::string data = text_of(size);
  Ends ends(Ends::Peer::Client);
  ends.begin();
  // OpenSSL writes to memory, and the test to the socket: all at once, or cut within the data.
  BIO* out = BIO_new(BIO_s_mem());
  SSL_set0_wbio(ends.ssl.get(), out);
  const auto pass_on = [&](std::size_t keep_back) {
    char* bytes = nullptr;
    const auto all = static_cast<std::size_t>(BIO_get_mem_data(out, &bytes));
    const std::size_t now = all - keep_back;
    REQUIRE(::send(ends.raw, bytes, now, 0) == static_cast<ssize_t>(now));
    std::string rest(bytes + now, keep_back);
    REQUIRE(BIO_reset(out) == 1);
    return rest;
  };
  CHECK(SSL_do_handshake(ends.ssl.get()) == -1);
  CHECK(pass_on(0).empty());
  CHECK(ends.stream.handshake() == HandshakeStatus::WantRead);
  REQUIRE(SSL_do_handshake(ends.ssl.get()) == 1);
  for (std::size_t at = 0; at < data.size(); at += 16384) {
    const std::size_t n = std::min<std::size_t>(16384, data.size() - at);
    REQUIRE(SSL_write(ends.ssl.get(), data.data() + at, static_cast<int>(n)) == static_cast<int>(n));
  }
  const std::size_t keep_back = GENERATE(0, 1, 10);
  const std::string rest = pass_on(keep_back);
  CHECK(ends.stream.handshake() == HandshakeStatus::Done);
  if (size > 5 || keep_back == 0) CHECK(ends.stream.has_buffered_input());
  std::string got;
  std::vector<char> buffer(70000);
  for (IoResult result = ends.stream.try_read(buffer.data(), buffer.size()); result.status == IoStatus::Ok;
       result = ends.stream.try_read(buffer.data(), buffer.size())) {
    got.append(buffer.data(), result.bytes);
  }
  REQUIRE(::send(ends.raw, rest.data(), rest.size(), 0) == static_cast<ssize_t>(rest.size()));
  while (got.size() < size) {
    const IoResult result = ends.stream.try_read(buffer.data(), buffer.size());
    REQUIRE(result.status == IoStatus::Ok);
    got.append(buffer.data(), result.bytes);
  }
  CHECK(got == data);
  CHECK_FALSE(ends.stream.has_buffered_input());
  SSL_set0_wbio(ends.ssl.get(), BIO_new_socket(ends.raw, BIO_NOCLOSE));
  ends.check_both("and on");
}

TEST_CASE("TLS with OpenSSL: a record that comes byte by byte") {
  Ends ends(Ends::Peer::Client);
  ends.shake();
  BIO* out = BIO_new(BIO_s_mem());
  SSL_set0_wbio(ends.ssl.get(), out);
  const std::string data = text_of(3000);
  REQUIRE(SSL_write(ends.ssl.get(), data.data(), static_cast<int>(data.size())) == static_cast<int>(data.size()));
  REQUIRE(SSL_write(ends.ssl.get(), "next", 4) == 4);
  char* bytes = nullptr;
  const auto size = static_cast<std::size_t>(BIO_get_mem_data(out, &bytes));
  std::string got;
  std::vector<char> buffer(70000);
  for (std::size_t i = 0; i < size; ++i) {
    REQUIRE(::send(ends.raw, bytes + i, 1, 0) == 1);
    const IoResult result = ends.stream.try_read(buffer.data(), buffer.size());
    REQUIRE((result.status == IoStatus::Ok || result.status == IoStatus::WouldBlock));
    CHECK_FALSE(ends.stream.has_buffered_input());
    if (result.status == IoStatus::Ok) got.append(buffer.data(), result.bytes);
  }
  CHECK(got == data + "next");
}

TEST_CASE("TLS with OpenSSL: a broken record is told to the peer, which reads the reason") {
  Ends ends(Ends::Peer::Client);
  ends.shake();
  const std::string forged = std::string("\x17\x03\x03\x00\x20", 5) + std::string(32, 'x');
  REQUIRE(::send(ends.raw, forged.data(), forged.size(), 0) == static_cast<ssize_t>(forged.size()));
  const IoResult result = ends.read_one();
  CHECK(result.status == IoStatus::Error);
  CHECK(result.error == EPROTO);
  CHECK(ends.stream.tls_error() == "decryption failed or bad record mac");
  CHECK(ends.stream.try_write("x").status == IoStatus::Error);
  const IoStatus again = ends.read_one().status;
  CHECK((again == IoStatus::Error || again == IoStatus::Eof));
  char byte = 0;
  CHECK(SSL_read(ends.ssl.get(), &byte, 1) <= 0);
  CHECK(ERR_GET_REASON(ERR_peek_error()) == SSL_R_SSLV3_ALERT_BAD_RECORD_MAC);
}

TEST_CASE("TLS with OpenSSL: a server's refusal after the client's handshake is read with its reason") {
  Ends ends(Ends::Peer::Server);
  SSL_CTX_set_verify(ends.context.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  ends.begin();
  // In TLS 1.3 the client is done before the server has looked at its certificate.
  HandshakeStatus own = ends.stream.handshake();
  CHECK(SSL_do_handshake(ends.ssl.get()) == -1);
  own = ends.stream.handshake();
  REQUIRE(own == HandshakeStatus::Done);
  CHECK(SSL_do_handshake(ends.ssl.get()) == -1);
  ERR_clear_error();  // The peer's, which shares the thread and so the queue of errors.
  CHECK(ends.read_one().status == IoStatus::Error);
  CHECK(ends.stream.tls_error() == "tlsv13 alert certificate required");
}

TEST_CASE("TLS with OpenSSL: an offer that takes back what is sealed is refused") {
  Ends ends(Ends::Peer::Client);
  ends.shake();
  const std::string data = text_of(16384);
  IoResult result = ends.stream.try_write(data);
  while (result.status == IoStatus::Ok) result = ends.stream.try_write(data);
  REQUIRE(result.status == IoStatus::WouldBlock);
  CHECK(ends.stream.try_write(std::string_view(data).substr(0, 10)).status == IoStatus::Error);
}

TEST_CASE("TLS with OpenSSL: what others left in the thread's queue of errors is not taken for a failure") {
  const auto side = GENERATE(Ends::Peer::Client, Ends::Peer::Server);
  Ends ends(side);
  ends.shake();
  ERR_raise(ERR_LIB_SSL, SSL_R_BAD_LENGTH);
  CHECK(ends.read_one().status == IoStatus::WouldBlock);
  const std::string data = text_of(16384);
  IoResult result = ends.stream.try_write(data);
  while (result.status == IoStatus::Ok) result = ends.stream.try_write(data);
  CHECK(result.status == IoStatus::WouldBlock);
  CHECK_FALSE(ends.stream.wants_read_for_write());
  CHECK(ends.stream.tls_error().empty());
  ERR_clear_error();
}
