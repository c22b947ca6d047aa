// What the authentication machines need of a cryptography library; proxy/io implements it with OpenSSL.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace pgweir::protocol {

using Sha256Digest = std::array<unsigned char, 32>;

/// Hashes and randomness. All functions are thread-safe and throw std::runtime_error only if the library itself fails
/// (out of memory, no entropy).
class Crypto {
 public:
  virtual ~Crypto() = default;
  [[nodiscard]] virtual Sha256Digest sha256(std::string_view data) const = 0;
  [[nodiscard]] virtual Sha256Digest hmac_sha256(std::string_view key, std::string_view data) const = 0;
  /// Hi() of RFC 5802: PBKDF2-HMAC-SHA-256 of one block. `password` is already SASLprep-normalised.
  [[nodiscard]] virtual Sha256Digest pbkdf2_sha256(std::string_view password, std::string_view salt,
                                                   std::uint32_t iterations) const = 0;
  /// 32 lower-case hexadecimal digits.
  [[nodiscard]] virtual std::string md5_hex(std::string_view data) const = 0;
  virtual void random_bytes(std::span<unsigned char> out) = 0;
};

/// Comparison whose time does not depend on where two secrets differ; false for different lengths.
[[nodiscard]] inline bool equal_secrets(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned char difference = 0;
  for (std::size_t i = 0; i < a.size(); ++i) difference = static_cast<unsigned char>(difference | (a[i] ^ b[i]));
  return difference == 0;
}

}  // namespace pgweir::protocol
