// EVP calls. Objects are fetched once, since fetching by name takes locks and builds queries on every call.
#include "proxy/io/openssl_crypto.hpp"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <openssl/x509.h>

#include <algorithm>
#include <array>
#include <limits>
#include <memory>
#include <stdexcept>

namespace pgweir::io {
namespace {

template <auto free_function>
struct Free {
  template <typename T>
  void operator()(T* object) const {
    free_function(object);
  }
};
using DigestPtr = std::unique_ptr<EVP_MD, Free<EVP_MD_free>>;
using DigestContextPtr = std::unique_ptr<EVP_MD_CTX, Free<EVP_MD_CTX_free>>;
using MacPtr = std::unique_ptr<EVP_MAC, Free<EVP_MAC_free>>;
using MacContextPtr = std::unique_ptr<EVP_MAC_CTX, Free<EVP_MAC_CTX_free>>;

void require(bool success, const char* what) {
  if (!success) throw std::runtime_error(std::string("OpenSSL: ") + what + " failed");
}

// An empty view may have no address, which some EVP functions take for "keep the previous value".
const unsigned char* bytes_of(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.empty() ? "" : text.data());
}

// HMAC-SHA-256 without a key.
MacContextPtr make_hmac_context() {
  const MacPtr mac(EVP_MAC_fetch(nullptr, "HMAC", nullptr));
  require(mac != nullptr, "fetching HMAC");
  MacContextPtr context(EVP_MAC_CTX_new(mac.get()));
  char digest_name[] = "SHA256";
  const OSSL_PARAM parameters[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest_name, 0),
                                   OSSL_PARAM_construct_end()};
  require(context && EVP_MAC_CTX_set_params(context.get(), parameters) == 1, "preparing HMAC");
  return context;
}

// One of each for every thread, begun anew each time: making one takes a dozen allocations. A key stays in it until the
// next one comes; they are all in the user list, too.
EVP_MAC_CTX* hmac_context() {
  static thread_local const MacContextPtr context = make_hmac_context();
  return context.get();
}
EVP_MD_CTX* digest_context() {
  static thread_local const DigestContextPtr context(EVP_MD_CTX_new());
  require(context != nullptr, "making a digest context");
  return context.get();
}

/// Drawn ahead, since each call of RAND_bytes costs more than a login's other work with random numbers, and a system
/// call. What was given is wiped.
class RandomSupply {
 public:
  void take(std::span<unsigned char> out) {
    if (out.size() > supply_.size() / 4) return draw(out);
    if (left_ < out.size()) {
      draw(supply_);
      left_ = supply_.size();
    }
    unsigned char* from = supply_.data() + supply_.size() - left_;
    std::copy_n(from, out.size(), out.begin());
    OPENSSL_cleanse(from, out.size());
    left_ -= out.size();
  }

 private:
  static void draw(std::span<unsigned char> out) {
    require(out.empty() || RAND_bytes_ex(nullptr, out.data(), out.size(), 0) == 1, "drawing random bytes");
  }

  std::array<unsigned char, 1024> supply_{};
  std::size_t left_ = 0;
};

}  // namespace

struct OpensslCrypto::Algorithms {
  DigestPtr sha256{EVP_MD_fetch(nullptr, "SHA256", nullptr)};
  DigestPtr md5{EVP_MD_fetch(nullptr, "MD5", nullptr)};
};

OpensslCrypto::OpensslCrypto() : algorithms_(std::make_unique<Algorithms>()) {
  require(algorithms_->sha256 != nullptr, "fetching SHA256");
  (void)hmac_context();
}

OpensslCrypto::~OpensslCrypto() = default;

protocol::Sha256Digest OpensslCrypto::sha256(std::string_view data) const {
  protocol::Sha256Digest out;
  EVP_MD_CTX* context = digest_context();
  require(EVP_DigestInit_ex2(context, algorithms_->sha256.get(), nullptr) == 1 &&
              EVP_DigestUpdate(context, bytes_of(data), data.size()) == 1 &&
              EVP_DigestFinal_ex(context, out.data(), nullptr) == 1,
          "SHA256");
  return out;
}

protocol::Sha256Digest OpensslCrypto::hmac_sha256(std::string_view key, std::string_view data) const {
  protocol::Sha256Digest out;
  EVP_MAC_CTX* context = hmac_context();
  std::size_t size = 0;
  const bool done = EVP_MAC_init(context, bytes_of(key), key.size(), nullptr) == 1 &&
                    EVP_MAC_update(context, bytes_of(data), data.size()) == 1 &&
                    EVP_MAC_final(context, out.data(), &size, out.size()) == 1;
  require(done && size == out.size(), "HMAC");
  return out;
}

protocol::Sha256Digest OpensslCrypto::pbkdf2_sha256(std::string_view password, std::string_view salt,
                                                    std::uint32_t iterations) const {
  constexpr auto int_max = static_cast<std::size_t>(std::numeric_limits<int>::max());
  require(password.size() <= int_max && salt.size() <= int_max && iterations <= int_max, "PBKDF2 size check");
  protocol::Sha256Digest out;
  const int done =
      PKCS5_PBKDF2_HMAC(reinterpret_cast<const char*>(bytes_of(password)), static_cast<int>(password.size()),
                        bytes_of(salt), static_cast<int>(salt.size()), static_cast<int>(iterations),
                        algorithms_->sha256.get(), static_cast<int>(out.size()), out.data());
  require(done == 1, "PBKDF2");
  return out;
}

std::string OpensslCrypto::md5_hex(std::string_view data) const {
  constexpr std::size_t kMd5Size = 16;
  unsigned char digest[kMd5Size];
  const bool done = algorithms_->md5 &&
                    EVP_Digest(bytes_of(data), data.size(), digest, nullptr, algorithms_->md5.get(), nullptr) == 1;
  require(done, "MD5");
  constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  out.reserve(2 * kMd5Size);
  for (const unsigned char byte : digest) {
    out += kDigits[byte >> 4];
    out += kDigits[byte & 0xF];
  }
  return out;
}

void OpensslCrypto::random_bytes(std::span<unsigned char> out) {
  static thread_local RandomSupply supply;
  supply.take(out);
}

std::string tls_server_end_point_hash(X509* certificate) {
  int digest_nid = NID_undef;
  if (X509_get_signature_info(certificate, &digest_nid, nullptr, nullptr, nullptr) != 1) return {};
  if (digest_nid == NID_undef) return {};
  if (digest_nid == NID_md5 || digest_nid == NID_sha1) digest_nid = NID_sha256;
  const EVP_MD* algorithm = EVP_get_digestbynid(digest_nid);
  if (algorithm == nullptr) return {};
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  if (X509_digest(certificate, algorithm, digest, &size) != 1) return {};
  return {reinterpret_cast<const char*>(digest), size};
}

}  // namespace pgweir::io
