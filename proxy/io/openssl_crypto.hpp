// The Crypto interface on top of OpenSSL 3, and the certificate hash of SCRAM channel binding. Carries out; which hash
// is taken of what is decided in protocol/.
#pragma once

#include <openssl/types.h>

#include <memory>
#include <string>

#include "protocol/crypto.hpp"

namespace pgweir::io {

/// Thread-safe: one object may serve all workers. The algorithms are looked up once, in the constructor.
class OpensslCrypto final : public protocol::Crypto {
 public:
  /// Throws std::runtime_error if the library offers no SHA-256 or HMAC. MD5 may be missing (FIPS): then only md5_hex
  /// throws.
  OpensslCrypto();
  ~OpensslCrypto() override;
  OpensslCrypto(const OpensslCrypto&) = delete;
  OpensslCrypto& operator=(const OpensslCrypto&) = delete;

  [[nodiscard]] protocol::Sha256Digest sha256(std::string_view data) const override;
  [[nodiscard]] protocol::Sha256Digest hmac_sha256(std::string_view key, std::string_view data) const override;
  [[nodiscard]] protocol::Sha256Digest pbkdf2_sha256(std::string_view password, std::string_view salt,
                                                     std::uint32_t iterations) const override;
  [[nodiscard]] std::string md5_hex(std::string_view data) const override;
  void random_bytes(std::span<unsigned char> out) override;

 private:
  struct Algorithms;
  std::unique_ptr<Algorithms> algorithms_;
};

/// Channel binding data of type tls-server-end-point (RFC 5929 section 4): the certificate hashed with the algorithm of
/// its own signature, SHA-256 in place of MD5 and SHA-1. Empty where the RFC leaves it undefined (such as Ed25519).
/// Raw bytes. `certificate` stays the caller's.
[[nodiscard]] std::string tls_server_end_point_hash(X509* certificate);

}  // namespace pgweir::io
