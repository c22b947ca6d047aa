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
    if (rule.method == HbaMethod::Cert || rule.method == HbaMethod::Ldap) {
      refused.push_back(at(rule, fmt::format("the method {} is not supported yet", to_string(rule.method))));
    } else if (rule.client_cert != HbaClientCert::None) {
      refused.push_back(at(rule, "clientcert is not supported yet"));
    }
    return false;
  });
  sort_problems(rules.problems);
  return refused;
}

}  // namespace pgweir::core
