// The MD5 formulas.
#include "protocol/auth_md5.hpp"

#include "protocol/auth_secret.hpp"

namespace pgweir::protocol {
namespace {

constexpr std::string_view kPrefix = "md5";

std::string prefixed_md5(const Crypto& crypto, std::string_view first, std::string_view second) {
  return std::string(kPrefix) + crypto.md5_hex(std::string(first).append(second));
}

}  // namespace

std::string md5_secret(const Crypto& crypto, std::string_view user, std::string_view password) {
  return prefixed_md5(crypto, password, user);
}

std::string md5_response(const Crypto& crypto, std::string_view secret, std::string_view salt) {
  if (secret.starts_with(kPrefix)) secret.remove_prefix(kPrefix.size());
  return prefixed_md5(crypto, secret, salt);
}

bool check_md5_response(const Crypto& crypto, std::string_view stored_secret, std::string_view user,
                        std::string_view salt, std::string_view answer) {
  switch (classify_secret(stored_secret)) {
    case SecretKind::Empty:
    case SecretKind::Scram:
      return false;
    case SecretKind::Plain:
      return equal_secrets(answer, md5_response(crypto, md5_secret(crypto, user, stored_secret), salt));
    case SecretKind::Md5:
      return equal_secrets(answer, md5_response(crypto, stored_secret, salt));
  }
  return false;
}

}  // namespace pgweir::protocol
