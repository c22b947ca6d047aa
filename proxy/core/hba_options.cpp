// Implements hba_options.hpp.
#include "proxy/core/hba_options.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

#include "proxy/core/config_values.hpp"
#include "proxy/core/ldap_options.hpp"

namespace pgweir::core {
namespace {

constexpr std::size_t kMaxLdapOptions = 1024;  // PgBouncer keeps them in a buffer of this size

constexpr std::array<std::string_view, 17> kNames{"map",
                                                  "clientcert",
                                                  "clientname",
                                                  "pamservice",
                                                  "pam_use_hostname",
                                                  "ldapserver",
                                                  "ldapport",
                                                  "ldapscheme",
                                                  "ldaptls",
                                                  "ldapprefix",
                                                  "ldapsuffix",
                                                  "ldapbasedn",
                                                  "ldapbinddn",
                                                  "ldapbindpasswd",
                                                  "ldapsearchattribute",
                                                  "ldapsearchfilter",
                                                  "ldapurl"};

using Reasons = std::vector<std::string>;

void read_client_cert(HbaRule& rule, std::string_view value, Reasons& reasons) {
  if (rule.type != HbaType::HostSsl) return reasons.push_back("clientcert is for hostssl lines only");
  if (value == "verify-full") {
    rule.client_cert = HbaClientCert::VerifyFull;
  } else if (value != "verify-ca") {
    reasons.push_back(fmt::format("clientcert: expected verify-ca or verify-full, got {}", quoted(value)));
  } else if (rule.method == HbaMethod::Cert) {
    reasons.push_back("clientcert: expected verify-full, which the method cert always means");
  } else {
    rule.client_cert = HbaClientCert::VerifyCa;
  }
}

void read_client_name(HbaRule& rule, std::string_view value, Reasons& reasons) {
  if (rule.type != HbaType::HostSsl && rule.method != HbaMethod::Cert) {
    return reasons.push_back("clientname is for hostssl lines only");
  }
  if (value != "CN" && value != "DN") {
    return reasons.push_back(fmt::format("clientname: expected CN or DN, got {}", quoted(value)));
  }
  rule.client_name_is_dn = value == "DN";
}

// What is wrong with the value of an option that is kept as text.
std::optional<std::string> value_problem(std::string_view name, std::string_view value) {
  if (name == "ldapport") {
    const auto port = parse_decimal(value, 1, 65535);
    if (port.has_error()) return port.error();
  } else if (name == "ldapscheme" && value != "ldap" && value != "ldaps") {
    return fmt::format("expected ldap or ldaps, got {}", quoted(value));
  } else if ((name == "ldaptls" || name == "pam_use_hostname") && value != "0" && value != "1") {
    return fmt::format("expected 0 or 1, got {}", quoted(value));
  } else if ((name == "ldapserver" || name == "pamservice") && value.empty()) {
    return "expected a name";
  }
  return std::nullopt;
}

void read_option(HbaRule& rule, std::string_view name, std::string_view value, Reasons& reasons) {
  const auto wrong_method = [&](std::string_view methods) {
    reasons.push_back(fmt::format("{} is for the method {} only", name, methods));
  };
  if (name == "map") {
    if (rule.method != HbaMethod::Cert && rule.method != HbaMethod::Peer) return wrong_method("cert or peer");
    if (value.empty()) return reasons.push_back("map: expected the name of a map");
    rule.map = value;
    return;
  }
  if (name == "clientcert") return read_client_cert(rule, value, reasons);
  if (name == "clientname") return read_client_name(rule, value, reasons);
  if (name.starts_with("pam") && rule.method != HbaMethod::Pam) return wrong_method("pam");
  if (name.starts_with("ldap") && rule.method != HbaMethod::Ldap) return wrong_method("ldap");
  if (const auto problem = value_problem(name, value)) {
    return reasons.push_back(fmt::format("{}: {}", name, *problem));
  }
  rule.options.emplace_back(name, value);
}

// Without any option, auth_ldap_options applies.
void check_ldap(HbaRule& rule, Reasons& reasons) {
  if (rule.method != HbaMethod::Ldap || rule.options.empty()) return;
  std::size_t length = 0;
  for (const auto& [name, value] : rule.options) length += name.size() + value.size() + 2;
  if (length >= kMaxLdapOptions) {
    reasons.push_back(fmt::format("expected less than {} bytes of ldap options", kMaxLdapOptions));
  }
  const std::size_t before = reasons.size();
  auto settings = read_ldap_settings(rule.options, reasons);
  if (reasons.size() == before) rule.ldap = std::make_shared<const LdapSettings>(std::move(settings));
}

}  // namespace

void read_hba_options(const std::vector<AuthToken>& tokens, HbaRule& rule, Reasons& reasons) {
  // The method says it all already; PostgreSQL sets it too.
  if (rule.method == HbaMethod::Cert) rule.client_cert = HbaClientCert::VerifyFull;
  std::set<std::string, std::less<>> given;
  const auto earlier = reasons.size();
  for (const auto& token : tokens) {
    const std::string_view text = token.text;
    const auto equals = text.find('=');
    const auto name = text.substr(0, equals);
    if (equals == std::string_view::npos) {
      // It may be a part of a password that lacks its quotes.
      reasons.push_back("expected name=value options after the method (a value with blanks or commas needs quotes)");
    } else if (std::find(kNames.begin(), kNames.end(), name) == kNames.end()) {
      reasons.push_back(fmt::format("unknown or unsupported option {}{}", quoted(name), did_you_mean(name, kNames)));
    } else if (!given.emplace(name).second) {
      reasons.push_back(fmt::format("{} is given twice", name));
    } else {
      read_option(rule, name, text.substr(equals + 1), reasons);
    }
  }
  if (reasons.size() == earlier) check_ldap(rule, reasons);
}

}  // namespace pgweir::core
