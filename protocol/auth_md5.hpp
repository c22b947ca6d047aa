// The two hashes of AuthenticationMD5Password, for both sides of the exchange. Follows "AuthenticationMD5Password" in
// "Message Flow: Start-up" of the PostgreSQL manual. It neither reads nor writes messages and does not choose salts.
#pragma once

#include <string>
#include <string_view>

#include "protocol/crypto.hpp"

namespace pgweir::protocol {

inline constexpr std::size_t kMd5SaltSize = 4;

/// The stored form of a password: "md5" + hex(md5(password + user)).
[[nodiscard]] std::string md5_secret(const Crypto& crypto, std::string_view user, std::string_view password);

/// What goes into PasswordMessage, without the closing zero byte: "md5" + hex(md5(hex of the secret + salt)).
/// `secret` is of kind SecretKind::Md5, prefix included; `salt` are the raw bytes of the request.
[[nodiscard]] std::string md5_response(const Crypto& crypto, std::string_view secret, std::string_view salt);

/// Whether `answer` (PasswordMessage without its zero byte) is right for a plain or MD5 secret. Secrets of another kind
/// never match. The comparison takes the same time wherever the two differ.
[[nodiscard]] bool check_md5_response(const Crypto& crypto, std::string_view stored_secret, std::string_view user,
                                      std::string_view salt, std::string_view answer);

}  // namespace pgweir::protocol
