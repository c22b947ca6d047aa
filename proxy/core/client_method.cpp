// Which login method a client must use, and whether somebody else than us says that it is who it claims to be: the
// kernel, its TLS certificate, PAM or a directory server.
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
constexpr const char* kExhausted = "bouncer resources exhaustion";
/// More than any directory or PAM takes, and little enough to fit into a socket's buffer whoever is at the other end.
constexpr std::size_t kJudgedPasswordMax = 4096;
constexpr const char* kPamService = "pgbouncer";

const std::string* option_of(const HbaRule& rule, std::string_view name) {
  const auto found =
      std::find_if(rule.options.begin(), rule.options.end(), [name](const auto& one) { return one.first == name; });
  return found == rule.options.end() ? nullptr : &found->second;
}

CertificatePart part_of(const HbaRule& rule) {
  if (rule.client_name_is_dn) return CertificatePart::Subject;
  return rule.method == HbaMethod::Cert ? CertificatePart::AnyName : CertificatePart::CommonName;
}

}  // namespace

ClientLogin::Choice ClientLogin::choose_method() {
  WorkerCore& core = *client_.core_;
  const auto made = [](bool ok) { return ok ? Choice::Made : Choice::Refused; };
  method_ = core.config().auth_type;
  unknown_user_text_ = kTrustRefusal;
  certificate_part_.reset();
  certificate_map_.clear();
  switch (method_) {
    case AuthType::Cert:
      unknown_user_text_ = kCertRefusal;
      certificate_part_ = CertificatePart::AnyName;
      return made(demand_certificate());
    case AuthType::Hba:
      return choose_method_by_rule();
    case AuthType::Pam:
      return made(refuse_auth_user() && choose_pam(kPamService, false));
    case AuthType::Ldap:
      return made(refuse_auth_user() && choose_ldap(nullptr));
    default:
      return Choice::Made;
  }
}

/// The first rule that fits decides.
ClientLogin::Choice ClientLogin::choose_method_by_rule() {
  WorkerCore& core = *client_.core_;
  const HbaSettings& hba = *core.settings()->hba;
  const PeerAddress& address = client_.address_;
  HbaConnection connection;
  connection.is_unix = address.is_unix;
  connection.is_tls = client_.port().is_tls();
  if (!address.is_unix) connection.peer = IpAddress::parse(address.host);
  connection.database = client_.database_;
  connection.user = client_.user_;
  connection.replication = startup_->request.replication;
  connection.interfaces = hba.interfaces;
  connection.host_name = host_name_;
  const HbaMatch found = match(hba.rules, connection);
  if (found.kind == HbaMatch::Kind::NeedsHostName) return ask_for_host_name();
  if (found.kind != HbaMatch::Kind::Rule) {
    fail("no authentication method is found", "28000");
    return Choice::Refused;
  }
  return take_rule(*found.rule) ? Choice::Made : Choice::Refused;
}

bool ClientLogin::take_rule(const HbaRule& rule) {
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
      WorkerCore& core = *client_.core_;
      const PeerAddress& address = client_.address_;
      method_ = AuthType::Trust;  // the kernel vouches for the client
      unknown_user_text_ = kPeerRefusal;
      const std::string owner = address.is_unix ? core.host().user_name(address.uid) : std::string();
      if (!owner.empty() && map_allows(core.settings()->hba->maps, rule.map, owner, client_.user_)) break;
      if (!owner.empty() && !rule.map.empty()) {
        core.log(LogLevel::Error, client_.log_name() + fmt::format("ident map {} cannot be matched", rule.map));
      }
      fail(kPeerRefusal, "28000");
      return false;
    }
    case HbaMethod::Pam: {
      const std::string* service = option_of(rule, "pamservice");
      const std::string* use_hostname = option_of(rule, "pam_use_hostname");
      if (!choose_pam(service != nullptr ? *service : kPamService, use_hostname != nullptr && *use_hostname == "1")) {
        return false;
      }
      break;
    }
    case HbaMethod::Ldap:
      if (!choose_ldap(rule.ldap)) return false;
      break;
    case HbaMethod::Reject:
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

/// The login goes on in host_name_found().
ClientLogin::Choice ClientLogin::ask_for_host_name() {
  WorkerCore& core = *client_.core_;
  if (core.host().find_host_name(client_.id_, client_.address_.host)) {
    step_ = Step::HostName;
    return Choice::Postponed;
  }
  core.log(LogLevel::Warning, client_.log_name() + "too many names of clients' hosts are being looked up");
  fail(kExhausted, "53300");
  return Choice::Refused;
}

void ClientLogin::host_name_found(const std::string& name) {
  if (step_ != Step::HostName) return;
  step_ = Step::Lookup;
  host_name_ = name;
  if (choose_method() != Choice::Made) return;
  if (secret_known_) {
    secret_found();
  } else {
    find_secret();
  }
}

// ---- passwords that others judge ----

/// Where everybody's password is judged by others, nobody is looked up by auth_query; PgBouncer insists on that.
bool ClientLogin::refuse_auth_user() {
  WorkerCore& core = *client_.core_;
  if (entry() == nullptr || effective_auth_user(core.config(), *entry()).empty()) return true;
  core.log(LogLevel::Error, client_.log_name() + fmt::format("auth_type = {} does not go together with auth_user",
                                                             to_string(core.config().auth_type)));
  fail("bouncer config error", "28000");
  return false;
}

bool ClientLogin::choose_pam(const std::string& service, bool use_hostname) {
  method_ = AuthType::Pam;
  judge_ = PamQuestion{service, use_hostname};
  return true;
}

/// `own`: the options of a rule; without them those of auth_ldap_options.
bool ClientLogin::choose_ldap(const std::shared_ptr<const LdapSettings>& own) {
  method_ = AuthType::Ldap;
  const auto& settings = own ? own : client_.core_->settings()->ldap;
  if (!settings) {
    fail("auth_ldap_options is null", "28000");
    return false;
  }
  judge_ = settings;
  return true;
}

void ClientLogin::ask_about_password(std::string_view password) {
  WorkerCore& core = *client_.core_;
  if (password.size() > kJudgedPasswordMax) return refuse_password("it is too long");
  PasswordQuestion question;
  question.user = client_.user_;
  question.password = std::string(password);
  if (!client_.address_.is_unix) question.client_host = client_.address_.host;
  if (const auto* pam = std::get_if<PamQuestion>(&judge_)) {
    question.by = *pam;
  } else {
    question.by = ldap_question(*std::get<std::shared_ptr<const LdapSettings>>(judge_), client_.user_);
  }
  if (!core.host().check_password(client_.id_, std::move(question))) {
    core.log(LogLevel::Warning, client_.log_name() + "login refused: too many passwords wait to be checked");
    return fail(kExhausted, "53300");
  }
  step_ = Step::Check;
  asked_password_ = std::string(password);
}

void ClientLogin::refuse_password(std::string_view reason) {
  const bool pam = method_ == AuthType::Pam;
  client_.core_->log(LogLevel::Log,
                     client_.log_name() + fmt::format("{} refused the password: {}", pam ? "PAM" : "LDAP", reason));
  fail(pam ? "PAM authentication failed" : "LDAP authentication failed", "28P01");
}

void ClientLogin::password_checked(const PasswordVerdict& verdict) {
  if (step_ != Step::Check) return;
  step_ = Step::Welcome;
  WorkerCore& core = *client_.core_;
  if (!verdict.right) return refuse_password(verdict.reason);
  if (entry() != nullptr) {
    Credentials credentials;
    credentials.password = std::move(asked_password_);
    core.share_credentials(client_.database_, client_.user_, credentials);
  }
  asked_password_.clear();
  authenticated();
}

void ClientLogin::abandon() {
  if (step_ == Step::Check) client_.core_->host().abandon_password(client_.id_);
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
  if (!certificate_map_.empty()) {
    core.log(LogLevel::Error,
             client_.log_name() + fmt::format("ident map: {} does not have a match", certificate_map_));
  }
  core.log(LogLevel::Error,
           client_.log_name() +
               (names.empty() ? std::string("TLS certificate name mismatch: it has no name that counts")
                              : fmt::format("TLS certificate name mismatch: it is for {}", quoted(names.front()))));
  fail(kCertRefusal, "28000");
  return false;
}

}  // namespace pgweir::core
