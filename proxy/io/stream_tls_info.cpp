// What a Stream can tell about its TLS connection and certificates, for logs, authentication and channel binding.
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/objects.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <array>
#include <vector>

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

std::vector<std::string> common_names_of(const X509_NAME* subject) {
  std::vector<std::string> names;
  for (int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1); at >= 0;
       at = X509_NAME_get_index_by_NID(subject, NID_commonName, at)) {
    unsigned char* text = nullptr;
    const int length = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
    names.emplace_back();  // also for one without a text: it must not make another the only one
    if (length < 0) continue;
    names.back().assign(reinterpret_cast<const char*>(text), static_cast<std::size_t>(length));
    OPENSSL_free(text);
  }
  return names;
}

std::vector<std::string> dns_names_of(X509* certificate) {
  std::vector<std::string> names;
  auto* all = static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr));
  for (int at = 0; at < sk_GENERAL_NAME_num(all); ++at) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(all, at);
    if (name->type != GEN_DNS) continue;
    names.emplace_back(reinterpret_cast<const char*>(ASN1_STRING_get0_data(name->d.dNSName)),
                       static_cast<std::size_t>(ASN1_STRING_length(name->d.dNSName)));
  }
  GENERAL_NAMES_free(all);
  return names;
}

/// In the form that PostgreSQL compares with clientname=DN; control characters and zero bytes are escaped in it.
std::string subject_of(const X509_NAME* subject) {
  BIO* memory = BIO_new(BIO_s_mem());
  if (memory == nullptr) return {};
  std::string text;
  char* data = nullptr;
  if (X509_NAME_print_ex(memory, subject, 0, XN_FLAG_RFC2253) >= 0) {
    const long length = BIO_get_mem_data(memory, &data);
    if (length > 0) text.assign(data, static_cast<std::size_t>(length));
  }
  BIO_free(memory);
  return text;
}

core::CertificateNames names_of(X509* certificate) {
  const X509_NAME* subject = X509_get_subject_name(certificate);
  return {common_names_of(subject), dns_names_of(certificate), subject_of(subject)};
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

std::optional<core::CertificateNames> Stream::verified_certificate() const {
  if (tls_ == nullptr || !tls_->handshake_done) return std::nullopt;
  // Without SSL_VERIFY_PEER the result is also X509_V_OK.
  if ((SSL_get_verify_mode(tls_->ssl) & SSL_VERIFY_PEER) == 0) return std::nullopt;
  // The listener's list is made from the CA file.
  if (SSL_is_server(tls_->ssl) != 0 && sk_X509_NAME_num(SSL_get_client_CA_list(tls_->ssl)) <= 0) return std::nullopt;
  X509* certificate = SSL_get0_peer_certificate(tls_->ssl);
  if (certificate == nullptr || SSL_get_verify_result(tls_->ssl) != X509_V_OK) return std::nullopt;
  core::CertificateNames names = names_of(certificate);
  ERR_clear_error();
  return names;
}

std::string Stream::tls_alpn() const {
  if (tls_ == nullptr) return {};
  const unsigned char* name = nullptr;
  unsigned length = 0;
  SSL_get0_alpn_selected(tls_->ssl, &name, &length);
  return {reinterpret_cast<const char*>(name), length};
}

}  // namespace pgweir::io
