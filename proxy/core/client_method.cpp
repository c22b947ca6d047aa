// Which login method a client must use, and whether the kernel or its TLS certificate says that it is who it claims to
// be.
#include <fmt/format.h>

#include <algorithm>

#include "proxy/core/client_login.hpp"
#include "proxy/core/client_session.hpp"
#include "proxy/core/config_values.hpp"
#include "proxy/core/worker_core.hpp"

namespace pgweir::core {

namespace {

constexpr const char* kTrustRefusal = "\"trust\" authentication failed";
constexpr const char* kCertRefusal = "certificate authentication failed";
constexpr const char* kPeerRefusal = "unix socket login rejected";

CertificatePart part_of(const HbaRule& rule) {
  if (rule.client_name_is_dn) return CertificatePart::Subject;
  return rule.method == HbaMethod::Cert ? CertificatePart::AnyName : CertificatePart::CommonName;
}

}  // namespace

bool ClientLogin::choose_method() {
  WorkerCore& core = *client_.core_;
  method_ = core.config().auth_type;
  unknown_user_text_ = kTrustRefusal;
  certificate_part_.reset();
  certificate_map_.clear();
  if (method_ == AuthType::Cert) {
    unknown_user_text_ = kCertRefusal;
    certificate_part_ = CertificatePart::AnyName;
    return demand_certificate();
  }
  return method_ != AuthType::Hba || choose_method_by_rule();
}

/// The first rule that fits decides.
bool ClientLogin::choose_method_by_rule() {
  WorkerCore& core = *client_.core_;
  const HbaSettings& hba = *core.settings()->hba;
  const PeerAddress& address = client_.address_;
  HbaConnection connection;
  connection.is_unix = address.is_unix;
  connection.is_tls = client_.port().is_tls();
  if (!address.is_unix) connection.peer = IpAddress::parse(address.host);
  connection.database = client_.database_;
  connection.user = client_.user_;
  connection.replication = replication_;
  connection.interfaces = hba.interfaces;
  const HbaMatch found = match(hba.rules, connection);
  if (found.kind != HbaMatch::Kind::Rule) {
    fail("no authentication method is found", "28000");
    return false;
  }
  const HbaRule& rule = *found.rule;
  switch (rule.method) {
    case HbaMethod::Trust:
      method_ = AuthType::Trust;
      break;
    case HbaMethod::Md5:
      method_ = AuthType::Md5;
      break;
    case HbaMethod::Password:
      method_ = AuthType::Plain;
      break;
    case HbaMethod::ScramSha256:
      method_ = AuthType::ScramSha256;
      break;
    case HbaMethod::Cert:
      method_ = AuthType::Cert;
      unknown_user_text_ = kCertRefusal;
      break;
    case HbaMethod::Peer: {
      method_ = AuthType::Trust;  // the kernel vouches for the client
      unknown_user_text_ = kPeerRefusal;
      const std::string owner = address.is_unix ? core.host().user_name(address.uid) : std::string();
      if (!owner.empty() && map_allows(hba.maps, rule.map, owner, client_.user_)) break;
      fail(kPeerRefusal, "28000");
      return false;
    }
    case HbaMethod::Reject:
    case HbaMethod::Pam:
    case HbaMethod::Ldap:
      fail("login rejected", "28000");
      return false;
  }
  if (rule.client_cert == HbaClientCert::None) return true;
  if (rule.client_cert == HbaClientCert::VerifyFull) {
    certificate_part_ = part_of(rule);
    certificate_map_ = rule.map;
  }
  return demand_certificate();
}

/// Before the user is looked up: without a certificate the login is lost whoever it is for.
bool ClientLogin::demand_certificate() {
  WorkerCore& core = *client_.core_;
  const char* missing = nullptr;
  if (!client_.port().is_tls()) {
    missing = "TLS connection required";
  } else if (!client_.port().verified_certificate()) {
    missing = "TLS client certificate required";
  }
  if (missing == nullptr) return true;
  core.log(LogLevel::Error, client_.log_name() + missing);
  fail(kCertRefusal, "28000");
  return false;
}

/// When the user is known, since auth_query may have changed the name.
bool ClientLogin::check_certificate_name() {
  if (!certificate_part_) return true;
  WorkerCore& core = *client_.core_;
  const CertificateNames certificate = client_.port().verified_certificate().value_or(CertificateNames{});
  const std::vector<std::string_view> names = usable_names(certificate, *certificate_part_);
  static const IdentMaps no_maps;
  const IdentMaps& maps = core.settings()->hba ? core.settings()->hba->maps : no_maps;
  const bool allowed = std::any_of(names.begin(), names.end(), [&](std::string_view name) {
    return map_allows(maps, certificate_map_, name, client_.user_);
  });
  if (allowed) return true;
  core.log(LogLevel::Error,
           client_.log_name() +
               (names.empty() ? std::string("TLS certificate name mismatch: it has no name that counts")
                              : fmt::format("TLS certificate name mismatch: it is for {}", quoted(names.front()))));
  fail(kCertRefusal, "28000");
  return false;
}

}  // namespace pgweir::core
