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

/// Takes out of `rules` what a login cannot be decided by here. Lines that PgBouncer does not know either (host names,
/// pam) become problems of the rules, which are skipped as there. Returns the others: a file with one must not be used,
/// since a later rule would decide in its place.
[[nodiscard]] std::vector<Problem> restrict_to_supported(HbaRules& rules);

/// Adds a warning for each rule that asks for a client's certificate where the TLS settings let none be checked: such a
/// rule refuses everyone who meets it.
void warn_of_unchecked_certificates(HbaRules& rules, const Config& config);

}  // namespace pgweir::core
