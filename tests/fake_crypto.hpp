// Hashes for unit tests and fuzz targets: keyed SipHash stretched to the right length. Consistent and fast, which is
// all that the exchanges ask for; a real PBKDF2 would leave no time for anything else. It remembers the dearest request
// it got.
#pragma once

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>

#include "protocol/crypto.hpp"
#include "protocol/siphash.hpp"

namespace pgweir::test {

class FakeCrypto final : public protocol::Crypto {
 public:
  [[nodiscard]] protocol::Sha256Digest sha256(std::string_view data) const override { return digest("sha", {}, data); }
  [[nodiscard]] protocol::Sha256Digest hmac_sha256(std::string_view key, std::string_view data) const override {
    return digest("mac", key, data);
  }
  [[nodiscard]] protocol::Sha256Digest pbkdf2_sha256(std::string_view password, std::string_view salt,
                                                     std::uint32_t iterations) const override {
    iterations_seen_ = std::max(iterations_seen_, iterations);
    return digest("pbk" + std::to_string(iterations), salt, password);
  }
  [[nodiscard]] std::string md5_hex(std::string_view data) const override {
    static constexpr char digits[] = "0123456789abcdef";
    const protocol::Sha256Digest bytes = digest("md5", {}, data);
    std::string text;
    for (std::size_t i = 0; i < 16; ++i) text += {digits[bytes[i] >> 4], digits[bytes[i] & 15]};
    return text;
  }
  void random_bytes(std::span<unsigned char> out) override {
    for (unsigned char& byte : out) byte = static_cast<unsigned char>((next_ = next_ * 1103515245 + 12345) >> 16);
  }

  /// The largest iteration count asked for so far.
  [[nodiscard]] std::uint32_t iterations_seen() const { return iterations_seen_; }

 private:
  static protocol::Sha256Digest digest(std::string_view kind, std::string_view key, std::string_view data) {
    protocol::Sha256Digest result{};
    for (std::uint64_t part = 0; part < 2; ++part) {
      protocol::SipHash128 hash({part, 77});
      hash.add_number(kind.size());
      hash.add(kind);
      hash.add_number(key.size());
      hash.add(key);
      hash.add(data);
      const protocol::Hash128 value = hash.finish();
      std::memcpy(result.data() + 16 * part, &value.low, 8);
      std::memcpy(result.data() + 16 * part + 8, &value.high, 8);
    }
    return result;
  }

  mutable std::uint32_t iterations_seen_ = 0;
  std::uint32_t next_ = 1;
};

}  // namespace pgweir::test
