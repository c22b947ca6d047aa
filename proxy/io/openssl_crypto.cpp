// SHA-256 is computed by its own functions, which OpenSSL 3 deprecates in favour of EVP and keeps: EVP copies and frees
// a context for each of the thousands of hashes of PBKDF2, which then takes two and a half times as long, and for an
// HMAC it allocates a dozen times.
#include "proxy/io/openssl_crypto.hpp"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <openssl/x509.h>

#include <algorithm>
#include <array>
#include <initializer_list>
#include <memory>
#include <stdexcept>

#include "protocol/wire.hpp"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

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
using protocol::Sha256Digest;

void require(bool success, const char* what) {
  if (!success) throw std::runtime_error(std::string("OpenSSL: ") + what + " failed");
}

// An empty view may have no address, which some EVP functions take for "keep the previous value".
const unsigned char* bytes_of(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.empty() ? "" : text.data());
}

Sha256Digest finish_hash(SHA256_CTX& context) {
  Sha256Digest out;
  SHA256_Final(out.data(), &context);
  return out;
}

/// HMAC (RFC 2104) with one key: the state of both hashes behind the block that depends on it. Wiped in the end, as the
/// key could be computed from neither but stands for it.
class Hmac {
 public:
  explicit Hmac(std::string_view key) {
    std::array<unsigned char, SHA256_CBLOCK> block{};
    if (key.size() > block.size()) {
      SHA256_Init(&inner_);
      SHA256_Update(&inner_, key.data(), key.size());
      SHA256_Final(block.data(), &inner_);
    } else {
      std::copy(key.begin(), key.end(), block.begin());
    }
    begin(inner_, block, 0x36);
    begin(outer_, block, 0x36 ^ 0x5c);  // the first has left its own mark on the block
    OPENSSL_cleanse(block.data(), block.size());
  }
  ~Hmac() {
    OPENSSL_cleanse(&inner_, sizeof inner_);
    OPENSSL_cleanse(&outer_, sizeof outer_);
  }
  Hmac(const Hmac&) = delete;
  Hmac& operator=(const Hmac&) = delete;

  /// Of the concatenated texts.
  [[nodiscard]] Sha256Digest of(std::initializer_list<std::string_view> texts) const {
    SHA256_CTX context = inner_;
    for (const std::string_view text : texts) SHA256_Update(&context, text.data(), text.size());
    const Sha256Digest hash = finish_hash(context);
    context = outer_;
    SHA256_Update(&context, hash.data(), hash.size());
    return finish_hash(context);
  }

  /// The same of a single digest, again and again: U2, U3, … of PBKDF2 in `sum`, exclusive-ored. Each hash is of one
  /// block, whose rest is the same every time: the end mark and the length, 64 + 32 bytes.
  void repeat(Sha256Digest last, std::uint32_t times, Sha256Digest& sum) const {
    std::array<unsigned char, SHA256_CBLOCK> block{};
    std::copy(last.begin(), last.end(), block.begin());
    block[SHA256_DIGEST_LENGTH] = 0x80;
    constexpr unsigned kBits = 8 * (SHA256_CBLOCK + SHA256_DIGEST_LENGTH);
    block[SHA256_CBLOCK - 2] = kBits >> 8;
    block[SHA256_CBLOCK - 1] = kBits & 0xFF;
    for (std::uint32_t i = 0; i < times; ++i) {
      transform(inner_, block);
      transform(outer_, block);
      for (std::size_t k = 0; k < sum.size(); ++k) sum[k] = static_cast<unsigned char>(sum[k] ^ block[k]);
    }
  }

 private:
  using Block = std::array<unsigned char, SHA256_CBLOCK>;

  static void begin(SHA256_CTX& context, Block& block, unsigned char mark) {
    for (unsigned char& byte : block) byte = static_cast<unsigned char>(byte ^ mark);
    SHA256_Init(&context);
    SHA256_Update(&context, block.data(), block.size());
  }
  /// The hash goes into the beginning of the block.
  static void transform(SHA256_CTX context, Block& block) {
    SHA256_Transform(&context, block.data());
    for (std::size_t k = 0; k < SHA256_DIGEST_LENGTH / 4; ++k) {
      protocol::store_u32(reinterpret_cast<char*>(block.data()) + 4 * k, context.h[k]);
    }
  }

  SHA256_CTX inner_, outer_;
};

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
  DigestPtr md5{EVP_MD_fetch(nullptr, "MD5", nullptr)};
};

OpensslCrypto::OpensslCrypto() : algorithms_(std::make_unique<Algorithms>()) {}

OpensslCrypto::~OpensslCrypto() = default;

Sha256Digest OpensslCrypto::sha256(std::string_view data) const {
  SHA256_CTX context;
  SHA256_Init(&context);
  SHA256_Update(&context, data.data(), data.size());
  return finish_hash(context);
}

Sha256Digest OpensslCrypto::hmac_sha256(std::string_view key, std::string_view data) const {
  return Hmac(key).of({data});
}

Sha256Digest OpensslCrypto::pbkdf2_sha256(std::string_view password, std::string_view salt,
                                          std::uint32_t iterations) const {
  const Hmac hmac(password);
  const Sha256Digest first = hmac.of({salt, std::string_view("\0\0\0\1", 4)});
  Sha256Digest sum = first;
  if (iterations > 1) hmac.repeat(first, iterations - 1, sum);
  return sum;
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

#pragma GCC diagnostic pop
