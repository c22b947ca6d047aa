// What of a file of rules only the other settings can tell: rules that let nobody in.
#include "proxy/core/hba_settings.hpp"

#include <fmt/format.h>

namespace pgweir::core {

namespace {

Problem at(const HbaRule& rule, std::string text) {
  return {rule.file, rule.line, {}, std::move(text)};
}

}  // namespace

void warn_of_unchecked_certificates(HbaRules& rules, const Config& config) {
  const bool tls = config.client_tls_sslmode != SslMode::Disable;
  if (tls && !config.client_tls_ca_file.empty()) return;
  for (const auto& rule : rules.rules) {
    const bool may_use_tls = rule.type == HbaType::Host || rule.type == HbaType::HostSsl;
    if (rule.client_cert == HbaClientCert::None || !may_use_tls) continue;
    rules.warnings.push_back(
        at(rule, fmt::format("lets nobody in: client certificates need {}",
                             tls ? "client_tls_ca_file" : "client_tls_sslmode other than disable")));
  }
  sort_problems(rules.warnings);
}

void warn_of_missing_ldap_options(HbaRules& rules, const Config& config) {
  if (config.auth_ldap_options && !config.auth_ldap_options->empty()) return;
  for (const auto& rule : rules.rules) {
    if (rule.method != HbaMethod::Ldap || !rule.options.empty()) continue;
    rules.warnings.push_back(at(rule, "lets nobody in: the method ldap needs options here or in auth_ldap_options"));
  }
  sort_problems(rules.warnings);
}

}  // namespace pgweir::core
