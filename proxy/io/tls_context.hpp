// Turns the *_tls_* settings into OpenSSL contexts, in PgBouncer's words. It decides which protocols, ciphers and
// verification a setting stands for; it makes no connection (stream.*). Facts: PgBouncer's config page, the manual's
// chapters on sslmode and on direct TLS (ALPN).
#pragma once

#include <openssl/types.h>

#include <memory>
#include <string>
#include <string_view>

namespace pgweir::io {

/// Shared by all connections that were begun under one configuration; null means TLS is off.
using TlsContext = std::shared_ptr<SSL_CTX>;

enum class SslMode { Disable, Allow, Prefer, Require, VerifyCa, VerifyFull };

/// Throws std::runtime_error for a word that is no sslmode.
[[nodiscard]] SslMode parse_sslmode(std::string_view word);

/// One side's *_tls_* settings, as written in the configuration file; empty file names mean "not set".
struct TlsSettings {
  std::string sslmode = "disable";
  std::string ca_file;
  std::string cert_file;
  std::string key_file;
  std::string protocols = "secure";
  std::string ciphers = "default";
  std::string tls13_ciphers;
  std::string dheparams = "auto";
  std::string ecdhcurve = "auto";

  bool operator==(const TlsSettings&) const = default;
};

/// Context for connections of clients (client_tls_*). Null for sslmode disable. Files are read now. Throws
/// std::runtime_error naming the file or setting and OpenSSL's reason.
[[nodiscard]] TlsContext make_listener_context(const TlsSettings& settings);
/// Context for connections to servers (server_tls_*). Null for sslmode disable. verify-ca and verify-full check the
/// chain; the host name is checked by Stream::start_tls_client, to be called with the name exactly for verify-full.
[[nodiscard]] TlsContext make_connector_context(const TlsSettings& settings);

}  // namespace pgweir::io
