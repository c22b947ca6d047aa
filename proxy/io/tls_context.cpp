#include "proxy/io/tls_context.hpp"

#include <fmt/format.h>
#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>

#include <cctype>
#include <cstring>
#include <stdexcept>

namespace pgweir::io {

namespace {

constexpr std::string_view kAlpnProtocol = "postgresql";

/// Throws with the oldest error of OpenSSL's queue, the most exact one (later ones tell who noticed), and empties it.
[[noreturn]] void fail(const std::string& what) {
  const unsigned long code = ERR_peek_error();
  ERR_clear_error();
  if (code == 0) throw std::runtime_error(what);
  if (ERR_SYSTEM_ERROR(code))
    throw std::runtime_error(fmt::format("{}: {}", what, std::strerror(ERR_GET_REASON(code))));
  const char* reason = ERR_reason_error_string(code);
  throw std::runtime_error(fmt::format("{}: {}", what, reason != nullptr ? reason : "unknown error"));
}

std::string lower(std::string_view text) {
  std::string result(text);
  for (auto& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

enum Protocol : unsigned { kTls10 = 1, kTls11 = 2, kTls12 = 4, kTls13 = 8 };

unsigned protocol_bits(const std::string& word, const std::string& setting) {
  if (word == "tlsv1.0") return kTls10;
  if (word == "tlsv1.1") return kTls11;
  if (word == "tlsv1.2") return kTls12;
  if (word == "tlsv1.3") return kTls13;
  if (word == "all" || word == "tlsv1") return kTls10 | kTls11 | kTls12 | kTls13;
  if (word == "secure" || word == "default") return kTls12 | kTls13;
  throw std::runtime_error(fmt::format("invalid TLS protocols '{}'", setting));
}

/// The set a protocols list stands for: items add, `!items` take away; a list that begins with `!` starts from all.
unsigned parse_protocols(const std::string& setting) {
  unsigned result = 0;
  bool first = true;
  std::string_view rest = setting;
  while (!rest.empty()) {
    const std::size_t end = rest.find_first_of(",:");
    std::string item = lower(rest.substr(0, end));
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    item.erase(0, item.find_first_not_of(" \t"));
    item.erase(item.find_last_not_of(" \t") + 1);
    if (item.empty()) continue;
    const bool negative = item.front() == '!';
    if (negative && first) result = kTls10 | kTls11 | kTls12 | kTls13;
    first = false;
    const unsigned bits = protocol_bits(negative ? item.substr(1) : item, setting);
    result = negative ? result & ~bits : result | bits;
  }
  if (result == 0) throw std::runtime_error(fmt::format("invalid TLS protocols '{}'", setting));
  return result;
}

void set_protocols(SSL_CTX* context, const std::string& setting) {
  const unsigned wanted = parse_protocols(setting);
  std::uint64_t off = 0;
  if ((wanted & kTls10) == 0) off |= SSL_OP_NO_TLSv1;
  if ((wanted & kTls11) == 0) off |= SSL_OP_NO_TLSv1_1;
  if ((wanted & kTls12) == 0) off |= SSL_OP_NO_TLSv1_2;
  if ((wanted & kTls13) == 0) off |= SSL_OP_NO_TLSv1_3;
  SSL_CTX_set_options(context, SSL_OP_NO_SSLv3 | off);
  // A minimum from the system's openssl.cnf would silently win over the setting.
  SSL_CTX_set_min_proto_version(context, 0);
  SSL_CTX_set_max_proto_version(context, 0);
}

void set_ciphers(SSL_CTX* context, const TlsSettings& settings) {
  const std::string word = lower(settings.ciphers);
  const bool is_default = word.empty() || word == "default" || word == "secure" || word == "fast" || word == "normal";
  if (!is_default) {
    const std::string list = word == "all" ? "ALL:!aNULL:!eNULL" : settings.ciphers;
    if (SSL_CTX_set_cipher_list(context, list.c_str()) != 1) {
      fail(fmt::format("failed to set TLS ciphers '{}'", settings.ciphers));
    }
  }
  if (!settings.tls13_ciphers.empty() && SSL_CTX_set_ciphersuites(context, settings.tls13_ciphers.c_str()) != 1) {
    fail(fmt::format("failed to set TLS 1.3 ciphers '{}'", settings.tls13_ciphers));
  }
}

void set_dhe_parameters(SSL_CTX* context, const std::string& setting) {
  const std::string word = lower(setting);
  if (word == "none") return;
  if (word != "auto" && word != "legacy" && !word.empty()) {
    throw std::runtime_error(fmt::format("invalid TLS dheparams '{}'", setting));
  }
  // The well-known groups that OpenSSL picks by key size; `legacy` additionally needs its lower security level for
  // 1024.
  SSL_CTX_set_dh_auto(context, word == "legacy" ? 2 : 1);
}

void set_curve(SSL_CTX* context, const std::string& setting) {
  const std::string word = lower(setting);
  if (word == "auto" || word.empty()) return;
  const char* list = setting.c_str();
  if (word == "none") {
    // No elliptic curve at all leaves TLS 1.2 the finite-field groups, which are also TLS 1.3's only others.
    list = "ffdhe2048:ffdhe3072:ffdhe4096";
  }
  if (SSL_CTX_set1_groups_list(context, list) != 1) fail(fmt::format("invalid TLS ecdhcurve '{}'", setting));
}

void load_key_pair(SSL_CTX* context, const TlsSettings& settings) {
  if (SSL_CTX_use_certificate_chain_file(context, settings.cert_file.c_str()) != 1) {
    fail(fmt::format("failed to load certificate file '{}'", settings.cert_file));
  }
  if (SSL_CTX_use_PrivateKey_file(context, settings.key_file.c_str(), SSL_FILETYPE_PEM) != 1) {
    fail(fmt::format("failed to load key file '{}'", settings.key_file));
  }
  if (SSL_CTX_check_private_key(context) != 1) {
    fail(fmt::format("key file '{}' does not belong to certificate file '{}'", settings.key_file, settings.cert_file));
  }
}

void load_ca(SSL_CTX* context, const TlsSettings& settings) {
  if (settings.ca_file.empty()) {
    if (SSL_CTX_set_default_verify_paths(context) != 1) fail("failed to use the system's CA certificates");
    return;
  }
  if (SSL_CTX_load_verify_locations(context, settings.ca_file.c_str(), nullptr) != 1) {
    fail(fmt::format("failed to load CA file '{}'", settings.ca_file));
  }
}

TlsContext make_context(const TlsSettings& settings, const SSL_METHOD* method) {
  ERR_clear_error();
  TlsContext context(SSL_CTX_new(method), &SSL_CTX_free);
  if (context == nullptr) fail("failed to create a TLS context");
  SSL_CTX* raw = context.get();
  set_protocols(raw, settings.protocols);
  set_ciphers(raw, settings);
  set_curve(raw, settings.ecdhcurve);
  SSL_CTX_set_mode(raw, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
  // Sessions would cost memory per client, and clients of a pooler stay connected; renegotiation lets a peer burn CPU.
  SSL_CTX_set_session_cache_mode(raw, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_options(
      raw, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  // One recv then serves many records, instead of two per record.
  SSL_CTX_set_read_ahead(raw, 1);
  return context;
}

// No ALPN extension means no call, and is accepted.
int select_alpn(SSL*, const unsigned char** out, unsigned char* out_length, const unsigned char* in, unsigned in_length,
                void*) {
  for (unsigned at = 0; at < in_length;) {
    const unsigned length = in[at];
    if (length > in_length - at - 1) break;
    const std::string_view offered(reinterpret_cast<const char*>(in + at + 1), length);
    if (offered == kAlpnProtocol) {
      *out = in + at + 1;
      *out_length = static_cast<unsigned char>(length);
      return SSL_TLSEXT_ERR_OK;
    }
    at += 1 + length;
  }
  return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/// Clients are asked for a certificate. One that is shown must be valid, or the handshake fails; with `demanded` one
/// must be shown.
void ask_for_client_certificates(SSL_CTX* context, const TlsSettings& settings, bool demanded) {
  load_ca(context, settings);
  if (!settings.ca_file.empty()) {
    STACK_OF(X509_NAME)* names = SSL_load_client_CA_file(settings.ca_file.c_str());
    if (names == nullptr) fail(fmt::format("failed to load CA file '{}'", settings.ca_file));
    SSL_CTX_set_client_CA_list(context, names);
  }
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | (demanded ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), nullptr);
}

}  // namespace

SslMode parse_sslmode(std::string_view word) {
  const std::string lowered = lower(word);
  if (lowered == "disable") return SslMode::Disable;
  if (lowered == "allow") return SslMode::Allow;
  if (lowered == "prefer") return SslMode::Prefer;
  if (lowered == "require") return SslMode::Require;
  if (lowered == "verify-ca") return SslMode::VerifyCa;
  if (lowered == "verify-full") return SslMode::VerifyFull;
  throw std::runtime_error(fmt::format("invalid sslmode '{}'", word));
}

TlsContext make_listener_context(const TlsSettings& settings) {
  const SslMode mode = parse_sslmode(settings.sslmode);
  if (mode == SslMode::Disable) return nullptr;
  if (settings.key_file.empty() || settings.cert_file.empty()) {
    throw std::runtime_error("to allow TLS connections, both client_tls_key_file and client_tls_cert_file must be set");
  }
  if (mode == SslMode::VerifyFull && settings.ca_file.empty()) {
    throw std::runtime_error("client_tls_sslmode=verify-full needs client_tls_ca_file");
  }
  TlsContext context = make_context(settings, TLS_server_method());
  load_key_pair(context.get(), settings);
  set_dhe_parameters(context.get(), settings.dheparams);
  SSL_CTX_set_num_tickets(context.get(), 0);
  SSL_CTX_set_alpn_select_cb(context.get(), select_alpn, nullptr);
  // Below verify-ca nobody needs a certificate, but a rule of auth_hba_file may ask for one. Without a CA there is
  // nothing to check one with.
  const bool demanded = mode == SslMode::VerifyCa || mode == SslMode::VerifyFull;
  if (demanded || !settings.ca_file.empty()) ask_for_client_certificates(context.get(), settings, demanded);
  return context;
}

TlsContext make_connector_context(const TlsSettings& settings) {
  const SslMode mode = parse_sslmode(settings.sslmode);
  if (mode == SslMode::Disable) return nullptr;
  if (settings.cert_file.empty() != settings.key_file.empty()) {
    throw std::runtime_error("server_tls_cert_file and server_tls_key_file must be set together");
  }
  TlsContext context = make_context(settings, TLS_client_method());
  if (!settings.cert_file.empty()) load_key_pair(context.get(), settings);
  if (mode == SslMode::VerifyCa || mode == SslMode::VerifyFull) {
    load_ca(context.get(), settings);
    SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
  } else {
    SSL_CTX_set_verify(context.get(), SSL_VERIFY_NONE, nullptr);
  }
  return context;
}

}  // namespace pgweir::io
