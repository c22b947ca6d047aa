// The limits of what hba.hpp can say and a login can carry out.
#include "proxy/core/hba_settings.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace pgweir::core {

namespace {

Problem at(const HbaRule& rule, std::string text) {
  return {rule.file, rule.line, {}, std::move(text)};
}

}  // namespace

std::vector<Problem> restrict_to_supported(HbaRules& rules) {
  std::vector<Problem> refused;
  std::erase_if(rules.rules, [&](const HbaRule& rule) {
    const bool by_name = rule.type != HbaType::Local && (rule.address.kind == HbaAddress::Kind::HostName ||
                                                         rule.address.kind == HbaAddress::Kind::HostSuffix);
    if (by_name) {
      rules.problems.push_back(at(rule, "host names are not supported yet; expected an address with its mask"));
      return true;
    }
    if (rule.method == HbaMethod::Pam) {
      rules.problems.push_back(at(rule, "the method pam is not supported in this file"));
      return true;
    }
    if (rule.method == HbaMethod::Ldap) {
      refused.push_back(at(rule, fmt::format("the method {} is not supported yet", to_string(rule.method))));
    }
    return false;
  });
  sort_problems(rules.problems);
  return refused;
}

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

}  // namespace pgweir::core
