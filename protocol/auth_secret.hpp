// The shapes a stored secret can have (the second column of auth_file, rolpassword of pg_authid): plain text, MD5 or
// SCRAM. Decides which shape a text has, takes SCRAM secrets apart and makes them; it does not decide which shape an
// authentication method accepts. Follows "pg_authid" and "SCRAM-SHA-256 Authentication" of the PostgreSQL manual.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "protocol/crypto.hpp"
#include "protocol/salted_password_cache.hpp"

namespace pgweir::protocol {

enum class SecretKind {
  Empty,  ///< no check against it can succeed
  Plain,
  Md5,    ///< "md5" and 32 lower-case hexadecimal digits
  Scram,  ///< SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey
};

struct ScramSecret {
  std::uint32_t iterations = 0;
  std::string salt;  ///< raw bytes, not base64
  Sha256Digest stored_key{};
  Sha256Digest server_key{};

  bool operator==(const ScramSecret&) const = default;
};

/// PostgreSQL's default, and PgBouncer's `scram_iterations`.
inline constexpr std::uint32_t kScramDefaultIterations = 4096;
inline constexpr std::size_t kScramSaltSize = 16;

/// By shape alone: whatever is almost an MD5 or SCRAM secret is a plain-text password.
[[nodiscard]] SecretKind classify_secret(std::string_view secret);

/// nullopt unless `secret` has exactly the SCRAM shape: 1 to 2147483647 iterations, a salt, two 32-byte keys.
[[nodiscard]] std::optional<ScramSecret> parse_scram_secret(std::string_view secret);
[[nodiscard]] std::string format_scram_secret(const ScramSecret& secret);

/// The secret of a password as the user typed it; `salt` is raw (use kScramSaltSize random bytes), iterations >= 1.
[[nodiscard]] ScramSecret make_scram_secret(const Crypto& crypto, std::string_view plain_password,
                                            std::uint32_t iterations, std::string_view salt,
                                            SaltedPasswordCache* cache = nullptr);

/// The same when SaltedPassword has been derived already.
[[nodiscard]] ScramSecret scram_secret_of_key(const Crypto& crypto, const Sha256Digest& salted_password,
                                              std::uint32_t iterations, std::string_view salt);

/// The salt of a user whose password is known as text, or who has none: the same for all who know `process_key`, so
/// that asking twice, or another worker, does not tell which of the two it is.
[[nodiscard]] std::string scram_salt_of(const Crypto& crypto, std::string_view user, std::string_view process_key);

/// A stand-in for a user that has no secret. The same user gets the same salt as long as `process_key` (random bytes)
/// stays the same, so asking twice does not tell that the user is unknown. No password matches it.
[[nodiscard]] ScramSecret mock_scram_secret(const Crypto& crypto, std::string_view user, std::string_view process_key,
                                            std::uint32_t iterations = kScramDefaultIterations);

/// Whether SaltedPassword of a password, derived with salt and iterations of `stored`, is that of the stored one.
[[nodiscard]] bool is_key_of(const Crypto& crypto, const ScramSecret& stored, const Sha256Digest& salted_password);

/// Checks a clear-text password against a stored secret of any kind. Empty passwords and empty secrets never match.
/// For a SCRAM secret this costs its number of iterations.
[[nodiscard]] bool check_plain_password(const Crypto& crypto, std::string_view stored_secret, std::string_view user,
                                        std::string_view password);

/// The bytes of a digest, valid as long as the digest.
[[nodiscard]] inline std::string_view digest_view(const Sha256Digest& digest) {
  return {reinterpret_cast<const char*>(digest.data()), digest.size()};
}

}  // namespace pgweir::protocol
