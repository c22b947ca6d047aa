// What a Stream can tell about its TLS connection and certificates, for logs, authentication and channel binding.
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/objects.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <array>

#include "proxy/io/stream.hpp"
#include "proxy/io/stream_tls.hpp"

namespace pgweir::io {

namespace {

/// "/ECDH=curve" or "/DH=bits"; empty for key exchanges without a group (plain RSA).
std::string key_exchange_text(SSL* ssl) {
  const int group = static_cast<int>(SSL_get_negotiated_group(ssl));
  const bool finite_field = group == NID_ffdhe2048 || group == NID_ffdhe3072 || group == NID_ffdhe4096 ||
                            group == NID_ffdhe6144 || group == NID_ffdhe8192;
  if (group != NID_undef && !finite_field) {
    // Groups without a number of their own carry the id of the TLS registry above this flag.
    constexpr int kRegistryIdFlag = 0x1000000;
    const char* name = (group & kRegistryIdFlag) != 0 ? SSL_group_to_name(ssl, group) : OBJ_nid2sn(group);
    return std::string("/ECDH=") + (name != nullptr ? name : "unknown");
  }
  EVP_PKEY* key = nullptr;
  const bool have_key =
      SSL_is_server(ssl) != 0 ? SSL_get_tmp_key(ssl, &key) == 1 : SSL_get_peer_tmp_key(ssl, &key) == 1;
  std::string text;
  if (have_key && EVP_PKEY_get_base_id(key) == EVP_PKEY_DH) text = "/DH=" + std::to_string(EVP_PKEY_get_bits(key));
  EVP_PKEY_free(key);
  ERR_clear_error();
  return text;
}

/// RFC 5929, section 4.1. Null where the signature has no single hash.
const EVP_MD* end_point_digest(X509* certificate) {
  int digest = NID_undef;
  // Looks into the parameters of RSA-PSS too, where the hash is not part of the algorithm's name.
  if (X509_get_signature_info(certificate, &digest, nullptr, nullptr, nullptr) != 1) return nullptr;
  if (digest == NID_undef) return nullptr;
  if (digest == NID_md5 || digest == NID_sha1 || digest == NID_md5_sha1) return EVP_sha256();
  return EVP_get_digestbynid(digest);
}

}  // namespace

std::string Stream::tls_info() const {
  if (tls_ == nullptr || !tls_->handshake_done) return {};
  std::string text = SSL_get_version(tls_->ssl);
  text += '/';
  text += SSL_get_cipher_name(tls_->ssl);
  return text + key_exchange_text(tls_->ssl);
}

std::string Stream::tls_server_end_point() const {
  if (tls_ == nullptr) return {};
  X509* certificate =
      SSL_is_server(tls_->ssl) != 0 ? SSL_get_certificate(tls_->ssl) : SSL_get0_peer_certificate(tls_->ssl);
  const EVP_MD* digest = certificate != nullptr ? end_point_digest(certificate) : nullptr;
  std::array<unsigned char, EVP_MAX_MD_SIZE> hash;
  unsigned length = 0;
  const bool ok = digest != nullptr && X509_digest(certificate, digest, hash.data(), &length) == 1;
  ERR_clear_error();
  return ok ? std::string(reinterpret_cast<const char*>(hash.data()), length) : std::string();
}

std::string Stream::peer_certificate_cn() const {
  X509* certificate = tls_ != nullptr ? SSL_get0_peer_certificate(tls_->ssl) : nullptr;
  if (certificate == nullptr) return {};
  const X509_NAME* subject = X509_get_subject_name(certificate);
  const int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
  if (at < 0) return {};
  unsigned char* text = nullptr;
  const int length = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
  ERR_clear_error();
  if (length < 0) return {};
  std::string name(reinterpret_cast<const char*>(text), static_cast<std::size_t>(length));
  OPENSSL_free(text);
  // "admin\0.evil.org" must not be taken for "admin" by anything that reads C strings.
  return name.find('\0') == std::string::npos ? name : std::string();
}

bool Stream::has_verified_peer_certificate() const {
  return tls_ != nullptr && tls_->handshake_done && SSL_get0_peer_certificate(tls_->ssl) != nullptr &&
         (SSL_get_verify_mode(tls_->ssl) & SSL_VERIFY_PEER) != 0 && SSL_get_verify_result(tls_->ssl) == X509_V_OK;
}

std::string Stream::tls_alpn() const {
  if (tls_ == nullptr) return {};
  const unsigned char* name = nullptr;
  unsigned length = 0;
  SSL_get0_alpn_selected(tls_->ssl, &name, &length);
  return {reinterpret_cast<const char*>(name), length};
}

}  // namespace pgweir::io
