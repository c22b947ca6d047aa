// The OpenSSL implementation of the hashes (vectors of RFC 1321, FIPS 180, RFC 4231 and Python's hashlib) and the
// certificate hash of channel binding.
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <catch2/catch.hpp>

#include <memory>
#include <thread>
#include <vector>

#include "protocol/auth_secret.hpp"
#include "protocol/base64.hpp"
#include "proxy/io/openssl_crypto.hpp"

using namespace pgweir::protocol;
using pgweir::io::OpensslCrypto;
using pgweir::io::tls_server_end_point_hash;

namespace {

std::string text_of(const Sha256Digest& digest) {
  return base64_encode(digest_view(digest));
}

using KeyPtr = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
using CertificatePtr = std::unique_ptr<X509, decltype(&X509_free)>;

CertificatePtr self_signed(EVP_PKEY* key, const EVP_MD* digest) {
  CertificatePtr certificate(X509_new(), &X509_free);
  X509_set_version(certificate.get(), 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate.get()), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), 0);
  X509_gmtime_adj(X509_getm_notAfter(certificate.get()), 3600);
  X509_set_pubkey(certificate.get(), key);
  REQUIRE(X509_sign(certificate.get(), key, digest) > 0);
  return certificate;
}

std::string hash_of_der(X509* certificate, const EVP_MD* digest) {
  unsigned char* der = nullptr;
  const int size = i2d_X509(certificate, &der);
  REQUIRE(size > 0);
  unsigned char out[EVP_MAX_MD_SIZE];
  unsigned out_size = 0;
  REQUIRE(EVP_Digest(der, static_cast<std::size_t>(size), out, &out_size, digest, nullptr) == 1);
  OPENSSL_free(der);
  return {reinterpret_cast<const char*>(out), out_size};
}

}  // namespace

TEST_CASE("OpenSSL hashes", "[auth][openssl]") {
  const OpensslCrypto crypto;
  CHECK(crypto.md5_hex("") == "d41d8cd98f00b204e9800998ecf8427e");
  CHECK(crypto.md5_hex("message digest") == "f96b697d7cb7938d525a2f31aaf161d0");
  CHECK(text_of(crypto.sha256("")) == "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
  CHECK(text_of(crypto.sha256("abc")) == "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
  CHECK(text_of(crypto.hmac_sha256({}, {})) == "thNnmggU2ex3L5XXeMNfxf8Wl8STcVZTxscSFEKSxa0=");
  CHECK(text_of(crypto.hmac_sha256(std::string(200, 'k'), "data")) == "AWNljUeexz8rgB3wcUHbFCaqrixrXo5tnmeJ+S9eK08=");
  CHECK(text_of(crypto.hmac_sha256("Jefe", "what do ya want for nothing?")) ==
        "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM=");
  CHECK(text_of(crypto.pbkdf2_sha256("pencil", *base64_decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096)) ==
        "xKSVEDI6tPlSysH6mUQZOeeOp01r6B3fcJbodRPcYV0=");
}

TEST_CASE("random bytes fill the whole range and differ", "[auth][openssl]") {
  OpensslCrypto crypto;
  std::vector<unsigned char> a(64);
  std::vector<unsigned char> b(64);
  crypto.random_bytes(a);
  crypto.random_bytes(b);
  CHECK(a != b);
  CHECK(std::vector<unsigned char>(a.end() - 16, a.end()) != std::vector<unsigned char>(16));
  crypto.random_bytes({});
}

TEST_CASE("one OpensslCrypto serves several threads", "[auth][openssl]") {
  const OpensslCrypto crypto;
  const auto hmac = crypto.hmac_sha256("key", "data");
  const auto hash = crypto.sha256("data");
  std::vector<int> mismatches(4);
  std::vector<std::thread> threads;
  for (int& count : mismatches) {
    threads.emplace_back([&crypto, &count, hmac, hash] {
      for (int i = 0; i < 500; ++i) {
        if (crypto.hmac_sha256("key", "data") != hmac) ++count;
        if (crypto.sha256("data") != hash) ++count;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(mismatches == std::vector<int>(4));
}

TEST_CASE("tls-server-end-point takes the certificate's own hash, but nothing weaker than SHA-256", "[auth][openssl]") {
  const KeyPtr rsa(EVP_RSA_gen(2048), &EVP_PKEY_free);
  const KeyPtr ec(EVP_EC_gen("P-256"), &EVP_PKEY_free);
  REQUIRE(rsa);
  REQUIRE(ec);
  struct Row {
    EVP_PKEY* key;
    const EVP_MD* signature;
    const EVP_MD* expected;
  };
  const Row rows[] = {{rsa.get(), EVP_sha256(), EVP_sha256()}, {rsa.get(), EVP_sha512(), EVP_sha512()},
                      {rsa.get(), EVP_sha1(), EVP_sha256()},   {rsa.get(), EVP_md5(), EVP_sha256()},
                      {ec.get(), EVP_sha384(), EVP_sha384()},  {ec.get(), EVP_sha256(), EVP_sha256()}};
  for (const Row& row : rows) {
    const CertificatePtr certificate = self_signed(row.key, row.signature);
    CHECK(tls_server_end_point_hash(certificate.get()) == hash_of_der(certificate.get(), row.expected));
  }
}

TEST_CASE("tls-server-end-point is undefined for Ed25519", "[auth][openssl]") {
  const KeyPtr key(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"), &EVP_PKEY_free);
  REQUIRE(key);
  const CertificatePtr certificate = self_signed(key.get(), nullptr);
  CHECK(tls_server_end_point_hash(certificate.get()).empty());
}
