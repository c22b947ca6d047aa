// What auth_type = hba decides with: the rules, the maps for `peer` and `cert`, and this machine's networks. Built once
// per configuration and never changed, so any thread may ask. Decides which login method a client must use; the login
// itself is ClientLogin's.
#pragma once

#include <string>
#include <vector>

#include "proxy/core/config.hpp"
#include "proxy/core/hba.hpp"
#include "proxy/core/ident_map.hpp"

namespace pgweir::core {

struct HbaSettings {
  HbaRules rules;
  IdentMaps maps;
  std::vector<IpNetwork> interfaces;  ///< for samehost and samenet
};

/// Adds a warning for each rule that asks for a client's certificate where the TLS settings let none be checked: such a
/// rule refuses everyone who meets it.
void warn_of_unchecked_certificates(HbaRules& rules, const Config& config);

/// The same for each rule with the method ldap that has no options, where auth_ldap_options says nothing either.
void warn_of_missing_ldap_options(HbaRules& rules, const Config& config);

}  // namespace pgweir::core
