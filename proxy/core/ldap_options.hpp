// The ldap* options of a line of pg_hba.conf and of auth_ldap_options (PostgreSQL manual, "LDAP Authentication"): what
// they mean together, and what a directory server is asked for a user. Nothing is asked here.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proxy/core/config_values.hpp"
#include "proxy/core/password_check.hpp"

namespace pgweir::core {

/// As written, in the order of the line. Values may be secrets.
using OptionValues = std::vector<std::pair<std::string, std::string>>;

struct LdapSettings {
  std::string scheme = "ldap";
  std::vector<std::string> servers;
  int port = 0;  ///< 0: the scheme's
  bool start_tls = false;
  std::string prefix, suffix;  ///< around the user's name, to make the name to bind with; unless there is a search
  bool search = false;
  std::string base_dn, bind_dn, bind_password;
  std::string search_attribute;  ///< empty: uid
  std::string search_filter;     ///< goes before the attribute; $username is the user
  LdapScope scope = LdapScope::Subtree;
};

/// What the options say, each at most once. Mistakes are added to `reasons`, which repeat no secret; with any, the
/// result must not be used.
[[nodiscard]] LdapSettings read_ldap_settings(const OptionValues& options, std::vector<std::string>& reasons);

/// The value of auth_ldap_options, in the form of the end of a line of pg_hba.conf. The reason repeats no secret.
[[nodiscard]] Parsed<LdapSettings> parse_ldap_options(std::string_view text);

/// The same for those who ask at each login; null if the setting says nothing, or was not checked when it was read.
[[nodiscard]] std::shared_ptr<const LdapSettings> shared_ldap_options(const std::optional<std::string>& text);

[[nodiscard]] LdapQuestion ldap_question(const LdapSettings& settings, std::string_view user);

/// A value in a distinguished name (RFC 4514).
[[nodiscard]] std::string escape_dn_value(std::string_view text);
/// A value in a search filter (RFC 4515).
[[nodiscard]] std::string escape_filter_value(std::string_view text);

}  // namespace pgweir::core
