// Which login method a client must use, as `auth_hba_file` says (PostgreSQL manual, "The pg_hba.conf File"): the text
// of the file becomes a list of rules, and the first rule that fits a connection decides. Pure: other files come
// through callbacks, and what needs DNS or the list of interfaces is an argument. It does not carry out any login
// method. Threads: the rules are never changed once they are built, so any number of threads may match with them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proxy/core/auth_file.hpp"
#include "proxy/core/ip_address.hpp"
#include "proxy/core/name_pattern.hpp"
#include "proxy/core/replication.hpp"

namespace pgweir::core {

struct LdapSettings;  // ldap_options.hpp

enum class HbaType : std::uint8_t {
  Local,
  Host,  ///< also what hostnogssenc means here, since no connection is encrypted by GSSAPI
  HostSsl,
  HostNoSsl,
  HostGssEnc,  ///< never matches
};
enum class HbaMethod : std::uint8_t { Trust, Reject, Md5, Password, ScramSha256, Cert, Peer, Pam, Ldap };
/// How far a client's TLS certificate must be checked in addition to the method.
enum class HbaClientCert : std::uint8_t { None, VerifyCa, VerifyFull };

/// The word of the file.
[[nodiscard]] std::string_view to_string(HbaType value);
[[nodiscard]] std::string_view to_string(HbaMethod value);

/// The database or user column.
struct HbaNames {
  bool all = false;
  bool same_user = false;    ///< databases only
  bool replication = false;  ///< databases only: physical replication, which nothing else here covers
  std::set<std::string, std::less<>> names;
  std::vector<NamePattern> patterns;

  [[nodiscard]] bool contains(std::string_view name) const;
};

struct HbaAddress {
  enum class Kind : std::uint8_t { All, SameHost, SameNet, Network, HostName, HostSuffix };
  Kind kind = Kind::All;
  IpNetwork network;
  std::string host;  ///< a suffix starts with a dot
};

/// One line. Which methods are possible on a connection is not decided here: a rule with `cert` also matches a client
/// without TLS or a certificate, and one with `peer` a client over TCP; the login must then be refused, as in
/// PgBouncer.
struct HbaRule {
  std::string file;
  int line = 0;
  HbaType type = HbaType::Local;
  HbaNames databases;
  HbaNames users;
  HbaAddress address;  ///< not for Local
  HbaMethod method = HbaMethod::Reject;
  HbaClientCert client_cert = HbaClientCert::None;
  bool client_name_is_dn = false;  ///< clientname=DN: the certificate's whole subject is the system user, not its CN
  std::string map;                 ///< for map_allows(); empty: the names must be equal
  /// ldap* and pam* as written, each at most once. Values may be secrets.
  std::vector<std::pair<std::string, std::string>> options;
  std::shared_ptr<const LdapSettings> ldap;  ///< what the ldap* options mean; null if there are none
};

struct HbaRules {
  std::vector<HbaRule> rules;
  std::vector<Problem> problems;  ///< lines that are not among the rules, and why; PgBouncer logs them and goes on
  std::vector<Problem> warnings;  ///< lines that are, but hardly mean what they say

  /// Whether any rule names a host, so that a lookup may be asked for.
  [[nodiscard]] bool has_host_names() const;
  /// Whether any rule says samehost or samenet, so that HbaConnection::interfaces is needed.
  [[nodiscard]] bool has_interfaces() const;
};

/// `file` is used in problems, and as the place beside which relative names are looked for. Problems repeat no secret.
[[nodiscard]] HbaRules parse_hba(std::string_view text, const std::string& file, const AuthFiles& files);

struct HbaConnection {
  bool is_unix = false;
  bool is_tls = false;
  std::optional<IpAddress> peer;  ///< none for a Unix socket; over TCP, none is matched by `all` only
  std::string_view database;      ///< the name the client asked for, which is that of the entry in [databases]
  std::string_view user;
  Replication replication = Replication::None;  ///< physical: matches the keyword `replication` and nothing else
  /// This machine's own addresses with the masks of their networks, for samehost and samenet.
  std::span<const IpNetwork> interfaces;
  /// The name of the peer's address, confirmed by looking up that name's addresses. Not set: nobody has looked yet;
  /// empty: there is none or it was not confirmed, and rules with host names do not match.
  std::optional<std::string> host_name;
};

struct HbaMatch {
  enum class Kind : std::uint8_t {
    Rule,           ///< `rule` decides
    NoRule,         ///< refuse: "no authentication method is found"
    NeedsHostName,  ///< `rule` depends on HbaConnection::host_name: look it up and match again
  };
  Kind kind = Kind::NoRule;
  const HbaRule* rule = nullptr;  ///< lives as long as the rules
};

/// The first rule that fits.
[[nodiscard]] HbaMatch match(const HbaRules& rules, const HbaConnection& connection);

}  // namespace pgweir::core
