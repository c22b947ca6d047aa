// The name=value options at the end of a line of pg_hba.conf: which there are, what values they take, and which of them
// go together. For parse_hba() and for auth_ldap_options.
#pragma once

#include <string>
#include <vector>

#include "proxy/core/hba.hpp"

namespace pgweir::core {

/// Reads `tokens` into `rule`, whose type and method are known. Mistakes are added to `reasons`, which repeat no value
/// that could be a secret; a rule with reasons must not be used.
void read_hba_options(const std::vector<AuthToken>& tokens, HbaRule& rule, std::vector<std::string>& reasons);

}  // namespace pgweir::core
