#include "proxy/io/tls_context.hpp"

#include <openssl/ssl.h>

#include <stdexcept>
#include <string>

#include "tests/io/io_support.hpp"

using namespace pgweir::io;
using namespace pgweir::io::test;
using Catch::Matchers::Contains;

namespace {

TlsSettings listener_settings() {
  TlsSettings settings;
  settings.sslmode = "require";
  settings.cert_file = pki().cert("server");
  settings.key_file = pki().key("server");
  return settings;
}

/// The protocol versions a context would speak, e.g. "1.2 1.3".
std::string versions(const std::string& protocols) {
  TlsSettings settings = listener_settings();
  settings.protocols = protocols;
  const TlsContext context = make_listener_context(settings);
  const auto options = SSL_CTX_get_options(context.get());
  std::string text;
  if ((options & SSL_OP_NO_TLSv1) == 0) text += "1.0 ";
  if ((options & SSL_OP_NO_TLSv1_1) == 0) text += "1.1 ";
  if ((options & SSL_OP_NO_TLSv1_2) == 0) text += "1.2 ";
  if ((options & SSL_OP_NO_TLSv1_3) == 0) text += "1.3 ";
  return text;
}

std::string listener_error(const TlsSettings& settings) {
  try {
    static_cast<void>(make_listener_context(settings));
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("sslmode words") {
  CHECK(parse_sslmode("disable") == SslMode::Disable);
  CHECK(parse_sslmode("Prefer") == SslMode::Prefer);
  CHECK(parse_sslmode("verify-full") == SslMode::VerifyFull);
  CHECK_THROWS_WITH(parse_sslmode("maybe"), "invalid sslmode 'maybe'");
  TlsSettings off;
  CHECK(make_listener_context(off) == nullptr);
  CHECK(make_connector_context(off) == nullptr);
}

TEST_CASE("protocol lists") {
  CHECK(versions("secure") == "1.2 1.3 ");
  CHECK(versions("default") == "1.2 1.3 ");
  CHECK(versions("all") == "1.0 1.1 1.2 1.3 ");
  CHECK(versions("tlsv1") == "1.0 1.1 1.2 1.3 ");
  CHECK(versions("tlsv1.2") == "1.2 ");
  CHECK(versions("tlsv1.1, TLSv1.3") == "1.1 1.3 ");
  CHECK(versions("tlsv1.1:tlsv1.2") == "1.1 1.2 ");
  CHECK(versions("all,!tlsv1.0,!tlsv1.1") == "1.2 1.3 ");
  CHECK(versions("!tlsv1.3") == "1.0 1.1 1.2 ");
  CHECK(versions("secure:!tlsv1.2") == "1.3 ");
  CHECK_THROWS_WITH(versions("legacy"), "invalid TLS protocols 'legacy'");
  CHECK_THROWS_WITH(versions("secure,!secure"), "invalid TLS protocols 'secure,!secure'");
  CHECK_THROWS_WITH(versions(""), "invalid TLS protocols ''");
}

TEST_CASE("listener contexts keep little per client") {
  const TlsContext context = make_listener_context(listener_settings());
  CHECK((SSL_CTX_get_mode(context.get()) & SSL_MODE_RELEASE_BUFFERS) != 0);
  CHECK(SSL_CTX_get_session_cache_mode(context.get()) == SSL_SESS_CACHE_OFF);
  CHECK(SSL_CTX_get_num_tickets(context.get()) == 0);
  CHECK((SSL_CTX_get_options(context.get()) & SSL_OP_NO_RENEGOTIATION) != 0);
}

TEST_CASE("listener settings that cannot work are told") {
  TlsSettings settings = listener_settings();
  SECTION("no key") {
    settings.key_file.clear();
    CHECK_THAT(listener_error(settings), Contains("client_tls_key_file"));
  }
  SECTION("missing certificate file") {
    settings.cert_file = "/nonexistent/server.pem";
    CHECK(listener_error(settings) ==
          "failed to load certificate file '/nonexistent/server.pem': No such file or directory");
  }
  SECTION("key of another certificate") {
    settings.key_file = pki().key("client");
    CHECK_THAT(listener_error(settings), Contains("key values mismatch"));
  }
  SECTION("key file that is no key") {
    settings.key_file = pki().cert("server");
    CHECK_THAT(listener_error(settings), Contains("failed to load key file '" + settings.key_file + "'"));
  }
  SECTION("verify-full without a CA") {
    settings.sslmode = "verify-full";
    CHECK_THAT(listener_error(settings), Contains("client_tls_ca_file"));
  }
  SECTION("missing CA file") {
    settings.ca_file = "/nonexistent/ca.pem";
    CHECK_THAT(listener_error(settings), Contains("failed to load CA file '/nonexistent/ca.pem'"));
  }
  SECTION("unknown words") {
    TlsSettings bad = settings;
    bad.ciphers = "no-such-cipher";
    CHECK_THAT(listener_error(bad), Contains("failed to set TLS ciphers 'no-such-cipher'"));
    bad = settings;
    bad.tls13_ciphers = "no-such-suite";
    CHECK_THAT(listener_error(bad), Contains("failed to set TLS 1.3 ciphers 'no-such-suite'"));
    bad = settings;
    bad.dheparams = "huge";
    CHECK(listener_error(bad) == "invalid TLS dheparams 'huge'");
    bad = settings;
    bad.ecdhcurve = "no-such-curve";
    CHECK_THAT(listener_error(bad), Contains("invalid TLS ecdhcurve 'no-such-curve'"));
  }
}

TEST_CASE("cipher and parameter words are accepted") {
  for (const char* word : {"default", "secure", "fast", "normal", "all", "HIGH:!aNULL"}) {
    TlsSettings settings = listener_settings();
    settings.ciphers = word;
    CHECK(listener_error(settings) == "no error");
  }
  for (const char* word : {"none", "auto", "legacy"}) {
    TlsSettings settings = listener_settings();
    settings.dheparams = word;
    CHECK(listener_error(settings) == "no error");
  }
  for (const char* word : {"none", "auto", "prime256v1", "secp384r1"}) {
    TlsSettings settings = listener_settings();
    settings.ecdhcurve = word;
    settings.tls13_ciphers = "TLS_AES_128_GCM_SHA256";
    CHECK(listener_error(settings) == "no error");
  }
}

TEST_CASE("connector contexts: certificate and key come together; verification by mode") {
  TlsSettings settings;
  settings.sslmode = "prefer";
  CHECK(SSL_CTX_get_verify_mode(make_connector_context(settings).get()) == SSL_VERIFY_NONE);
  settings.sslmode = "verify-ca";
  settings.ca_file = pki().ca_file();
  CHECK(SSL_CTX_get_verify_mode(make_connector_context(settings).get()) == SSL_VERIFY_PEER);
  settings.cert_file = pki().cert("client");
  CHECK_THROWS_AS(make_connector_context(settings), std::runtime_error);
  settings.key_file = pki().key("client");
  CHECK(make_connector_context(settings) != nullptr);
}
