// Recognising, parsing, printing and making secrets.
#include "protocol/auth_secret.hpp"

#include <algorithm>
#include <charconv>
#include <limits>

#include "protocol/auth_md5.hpp"
#include "protocol/base64.hpp"

namespace pgweir::protocol {
namespace {

constexpr std::string_view kScramPrefix = "SCRAM-SHA-256$";
constexpr std::string_view kMd5Prefix = "md5";
constexpr std::size_t kMd5SecretSize = 35;

bool is_md5_secret(std::string_view secret) {
  const auto is_lower_hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  return secret.size() == kMd5SecretSize && secret.starts_with(kMd5Prefix) &&
         std::all_of(secret.begin() + kMd5Prefix.size(), secret.end(), is_lower_hex);
}

/// What stands before `separator`, which is removed from `rest` together with it; nullopt if it does not occur.
std::optional<std::string_view> take_until(std::string_view& rest, char separator) {
  const auto at = rest.find(separator);
  if (at == std::string_view::npos) return std::nullopt;
  const std::string_view taken = rest.substr(0, at);
  rest.remove_prefix(at + 1);
  return taken;
}

std::optional<Sha256Digest> decode_key(std::string_view text) {
  const auto raw = base64_decode(text);
  Sha256Digest key;
  if (!raw || raw->size() != key.size()) return std::nullopt;
  std::copy(raw->begin(), raw->end(), key.begin());
  return key;
}

std::optional<std::uint32_t> parse_iterations(std::string_view text) {
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  if (value == 0 || value > static_cast<std::uint32_t>(std::numeric_limits<std::int32_t>::max())) return std::nullopt;
  return value;
}

}  // namespace

SecretKind classify_secret(std::string_view secret) {
  if (secret.empty()) return SecretKind::Empty;
  if (is_md5_secret(secret)) return SecretKind::Md5;
  return parse_scram_secret(secret) ? SecretKind::Scram : SecretKind::Plain;
}

std::optional<ScramSecret> parse_scram_secret(std::string_view secret) {
  if (!secret.starts_with(kScramPrefix)) return std::nullopt;
  std::string_view rest = secret.substr(kScramPrefix.size());
  const auto iterations_text = take_until(rest, ':');
  const auto salt_text = take_until(rest, '$');
  const auto stored_key_text = take_until(rest, ':');
  if (!iterations_text || !salt_text || !stored_key_text) return std::nullopt;

  const auto iterations = parse_iterations(*iterations_text);
  auto salt = base64_decode(*salt_text);
  const auto stored_key = decode_key(*stored_key_text);
  const auto server_key = decode_key(rest);
  if (!iterations || !salt || salt->empty() || !stored_key || !server_key) return std::nullopt;
  return ScramSecret{*iterations, std::move(*salt), *stored_key, *server_key};
}

std::string format_scram_secret(const ScramSecret& secret) {
  std::string out(kScramPrefix);
  out += std::to_string(secret.iterations) + ':' + base64_encode(secret.salt);
  out += '$' + base64_encode(digest_view(secret.stored_key)) + ':' + base64_encode(digest_view(secret.server_key));
  return out;
}

ScramSecret make_scram_secret(const Crypto& crypto, std::string_view plain_password, std::uint32_t iterations,
                              std::string_view salt, SaltedPasswordCache* cache) {
  return scram_secret_of_key(crypto, salted_password(crypto, plain_password, salt, iterations, cache), iterations,
                             salt);
}

ScramSecret scram_secret_of_key(const Crypto& crypto, const Sha256Digest& salted_password, std::uint32_t iterations,
                                std::string_view salt) {
  const Sha256Digest client_key = crypto.hmac_sha256(digest_view(salted_password), "Client Key");
  return {iterations, std::string(salt), crypto.sha256(digest_view(client_key)),
          crypto.hmac_sha256(digest_view(salted_password), "Server Key")};
}

std::string scram_salt_of(const Crypto& crypto, std::string_view user, std::string_view process_key) {
  const Sha256Digest salt = crypto.hmac_sha256(process_key, std::string("salt:").append(user));
  return std::string(digest_view(salt).substr(0, kScramSaltSize));
}

ScramSecret mock_scram_secret(const Crypto& crypto, std::string_view user, std::string_view process_key,
                              std::uint32_t iterations) {
  const auto derive = [&](std::string_view purpose) {
    return crypto.hmac_sha256(process_key, std::string(purpose).append(user));
  };
  return {iterations, scram_salt_of(crypto, user, process_key), derive("stored:"), derive("server:")};
}

bool is_key_of(const Crypto& crypto, const ScramSecret& stored, const Sha256Digest& salted_password) {
  return equal_secrets(digest_view(stored.server_key),
                       digest_view(crypto.hmac_sha256(digest_view(salted_password), "Server Key")));
}

bool check_plain_password(const Crypto& crypto, std::string_view stored_secret, std::string_view user,
                          std::string_view password) {
  if (password.empty()) return false;
  switch (classify_secret(stored_secret)) {
    case SecretKind::Empty:
      return false;
    case SecretKind::Plain:
      return equal_secrets(stored_secret, password);
    case SecretKind::Md5:
      return equal_secrets(stored_secret, md5_secret(crypto, user, password));
    case SecretKind::Scram:
      break;
  }
  const auto stored = parse_scram_secret(stored_secret);
  if (!stored) return false;
  return is_key_of(crypto, *stored, salted_password(crypto, password, stored->salt, stored->iterations));
}

}  // namespace pgweir::protocol
