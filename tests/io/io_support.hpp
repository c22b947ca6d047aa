// Helpers of the I/O tests: socket pairs, waiting with a deadline, temporary folders, certificates made on the spot.
#pragma once

#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "proxy/io/event_set.hpp"

namespace pgweir::io::test {

inline constexpr std::chrono::seconds kDeadline{20};

/// Two connected non-blocking Unix sockets.
inline std::pair<int, int> socket_pair() {
  int fds[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
  return {fds[0], fds[1]};
}

/// Serves the set until `done` holds; false after the deadline.
inline bool run_until(EventSet& events, const std::function<bool()>& done) {
  const auto end = std::chrono::steady_clock::now() + kDeadline;
  while (!done()) {
    if (std::chrono::steady_clock::now() >= end) return false;
    (void)events.run_once(std::chrono::milliseconds(100));
  }
  return true;
}

/// Serves what is ready now, without waiting.
inline void run_ready(EventSet& events) {
  while (events.run_once(std::chrono::milliseconds(0))) {
  }
}

/// Runs the context until `done` holds; false after the deadline.
inline bool run_until(boost::asio::io_context& context, const std::function<bool()>& done) {
  const auto end = std::chrono::steady_clock::now() + kDeadline;
  while (!done()) {
    if (std::chrono::steady_clock::now() >= end) return false;
    context.restart();
    context.run_one_for(std::chrono::milliseconds(100));
  }
  return true;
}

/// Runs what is ready now, without waiting.
inline void run_ready(boost::asio::io_context& context) {
  context.restart();
  context.poll();
}

class TempDir {
 public:
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "io_test_XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] std::string path() const { return path_; }
  [[nodiscard]] std::string file(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

inline std::string read_text(const std::string& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

inline void write_text(const std::string& path, const std::string& text) {
  std::ofstream(path) << text;
}

template <auto Free>
struct Freer {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};
using KeyPtr = std::unique_ptr<EVP_PKEY, Freer<EVP_PKEY_free>>;
using CertPtr = std::unique_ptr<X509, Freer<X509_free>>;

inline KeyPtr make_ec_key() {
  return KeyPtr(EVP_EC_gen("P-256"));
}

struct CertSpec {
  std::string cn = {};
  std::string alt_names = {};      // As in "DNS:db.example,IP:127.0.0.1"; empty: none.
  const EVP_MD* digest = nullptr;  // Null for Ed25519.
  bool pss = false;                // RSA-PSS with `digest`.
  bool ca = false;
  std::vector<std::string> more_common_names = {};  // Of any length.
  std::vector<std::string> dns_names = {};          // As alt_names, for names that have no such text.
  std::string extended_key_usage = {};
  long valid_seconds = 86400;  // From now on; it began an hour ago.
};

/// MBSTRING_UTF8 as type keeps to what is allowed, V_ASN1_UTF8STRING does not.
inline void add_common_name(X509_NAME* subject, int type, const std::string& name) {
  X509_NAME_add_entry_by_txt(subject, "CN", type, reinterpret_cast<const unsigned char*>(name.data()),
                             static_cast<int>(name.size()), -1, 0);
}

inline void add_dns_names(X509* certificate, const std::vector<std::string>& dns_names) {
  GENERAL_NAMES* names = sk_GENERAL_NAME_new_null();
  for (const std::string& text : dns_names) {
    ASN1_IA5STRING* value = ASN1_IA5STRING_new();
    ASN1_STRING_set(value, text.data(), static_cast<int>(text.size()));
    GENERAL_NAME* name = GENERAL_NAME_new();
    GENERAL_NAME_set0_value(name, GEN_DNS, value);
    sk_GENERAL_NAME_push(names, name);
  }
  REQUIRE(X509_add1_ext_i2d(certificate, NID_subject_alt_name, names, 0, X509V3_ADD_DEFAULT) == 1);
  GENERAL_NAMES_free(names);
}

inline void add_extension(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
  REQUIRE(extension != nullptr);
  X509_add_ext(certificate, extension, -1);
  X509_EXTENSION_free(extension);
}

/// Signed by `issuer_key`; self-signed if `issuer` is null.
inline CertPtr make_certificate(const CertSpec& spec, EVP_PKEY* key, X509* issuer, EVP_PKEY* issuer_key) {
  CertPtr certificate(X509_new());
  static long serial = 0;
  X509_set_version(certificate.get(), 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate.get()), ++serial);
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), -3600);
  X509_gmtime_adj(X509_getm_notAfter(certificate.get()), spec.valid_seconds);
  X509_set_pubkey(certificate.get(), key);
  X509_NAME* name = X509_get_subject_name(certificate.get());
  add_common_name(name, MBSTRING_UTF8, spec.cn);
  for (const std::string& more : spec.more_common_names) add_common_name(name, V_ASN1_UTF8STRING, more);
  X509* parent = issuer != nullptr ? issuer : certificate.get();
  X509_set_issuer_name(certificate.get(), X509_get_subject_name(parent));
  if (spec.ca) add_extension(certificate.get(), parent, NID_basic_constraints, "critical,CA:TRUE");
  if (!spec.dns_names.empty()) add_dns_names(certificate.get(), spec.dns_names);
  if (!spec.extended_key_usage.empty()) {
    add_extension(certificate.get(), parent, NID_ext_key_usage, spec.extended_key_usage);
  }
  if (!spec.alt_names.empty()) add_extension(certificate.get(), parent, NID_subject_alt_name, spec.alt_names);
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  EVP_PKEY_CTX* key_context = nullptr;
  REQUIRE(EVP_DigestSignInit(context, &key_context, spec.digest, nullptr, issuer_key) == 1);
  if (spec.pss) REQUIRE(EVP_PKEY_CTX_set_rsa_padding(key_context, RSA_PKCS1_PSS_PADDING) == 1);
  REQUIRE(X509_sign_ctx(certificate.get(), context) > 0);
  EVP_MD_CTX_free(context);
  return certificate;
}

inline void write_certificate(const std::string& path, X509* certificate) {
  FILE* file = std::fopen(path.c_str(), "w");
  REQUIRE(file != nullptr);
  PEM_write_X509(file, certificate);
  std::fclose(file);
}

inline void write_key(const std::string& path, EVP_PKEY* key) {
  FILE* file = std::fopen(path.c_str(), "w");
  REQUIRE(file != nullptr);
  PEM_write_PrivateKey(file, key, nullptr, nullptr, 0, nullptr, nullptr);
  std::fclose(file);
}

/// A CA, a server's and a client's certificate in files of their own.
class TestPki {
 public:
  TestPki() {
    const KeyPtr ca_key = make_ec_key();
    const CertPtr ca =
        make_certificate({.cn = "Test CA", .digest = EVP_sha256(), .ca = true}, ca_key.get(), nullptr, ca_key.get());
    write_certificate(ca_file(), ca.get());
    issue("server", {.cn = "db.example", .alt_names = "DNS:db.example,IP:127.0.0.1", .digest = EVP_sha256()}, ca.get(),
          ca_key.get());
    issue("client", {.cn = "alice", .digest = EVP_sha256()}, ca.get(), ca_key.get());
    const KeyPtr other_key = make_ec_key();
    const CertPtr other = make_certificate({.cn = "Other CA", .digest = EVP_sha256(), .ca = true}, other_key.get(),
                                           nullptr, other_key.get());
    write_certificate(other_ca_file(), other.get());
  }
  [[nodiscard]] std::string ca_file() const { return dir_.file("ca.pem"); }
  [[nodiscard]] std::string other_ca_file() const { return dir_.file("other_ca.pem"); }
  [[nodiscard]] std::string cert(const std::string& name) const { return dir_.file(name + ".pem"); }
  [[nodiscard]] std::string key(const std::string& name) const { return dir_.file(name + ".key"); }
  [[nodiscard]] std::string file(const std::string& name) const { return dir_.file(name); }

 private:
  void issue(const std::string& name, const CertSpec& spec, X509* ca, EVP_PKEY* ca_key) {
    const KeyPtr own_key = make_ec_key();
    const CertPtr certificate = make_certificate(spec, own_key.get(), ca, ca_key);
    write_certificate(cert(name), certificate.get());
    write_key(key(name), own_key.get());
  }
  TempDir dir_;
};

/// Made once: keys take time, and no test changes the files.
inline const TestPki& pki() {
  static const TestPki instance;
  return instance;
}

}  // namespace pgweir::io::test
