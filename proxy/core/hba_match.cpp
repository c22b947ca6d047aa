// The matching half of hba.hpp: which rule is the first to fit a connection.
#include <algorithm>

#include "proxy/core/config_values.hpp"
#include "proxy/core/hba.hpp"

namespace pgweir::core {
namespace {

enum class Fit : std::uint8_t { No, Yes, Unknown };

bool fits_type(HbaType type, const HbaConnection& connection) {
  switch (type) {
    case HbaType::Local:
      return connection.is_unix;
    case HbaType::Host:
      return !connection.is_unix;
    case HbaType::HostSsl:
      return !connection.is_unix && connection.is_tls;
    case HbaType::HostNoSsl:
      return !connection.is_unix && !connection.is_tls;
    case HbaType::HostGssEnc:
      return false;
  }
  return false;
}

bool fits_database(const HbaNames& databases, const HbaConnection& connection) {
  // A copy of the whole cluster is not covered by a rule for some or all of its databases.
  if (connection.replication == Replication::Physical) return databases.replication;
  return (databases.same_user && connection.database == connection.user) || databases.contains(connection.database);
}

Fit fits_host_name(const HbaAddress& address, const std::optional<std::string>& host_name) {
  if (!host_name) return Fit::Unknown;
  const std::string_view name = *host_name;
  if (name.size() < address.host.size()) return Fit::No;
  const auto end = name.substr(name.size() - address.host.size());
  const bool whole = address.kind == HbaAddress::Kind::HostSuffix || end.size() == name.size();
  return whole && equal_ignoring_case(end, address.host) ? Fit::Yes : Fit::No;
}

Fit fits_address(const HbaAddress& address, const HbaConnection& connection) {
  const auto any_interface = [&connection](auto fits) {
    const auto& own = connection.interfaces;
    return std::any_of(own.begin(), own.end(), fits) ? Fit::Yes : Fit::No;
  };
  if (address.kind == HbaAddress::Kind::All) return Fit::Yes;
  if (!connection.peer) return Fit::No;
  const auto& peer = *connection.peer;
  switch (address.kind) {
    case HbaAddress::Kind::All:
      return Fit::Yes;
    case HbaAddress::Kind::SameHost:
      return any_interface([&peer](const IpNetwork& own) { return own.address == peer; });
    case HbaAddress::Kind::SameNet:
      return any_interface([&peer](const IpNetwork& own) { return own.contains(peer); });
    case HbaAddress::Kind::Network:
      return address.network.contains(peer) ? Fit::Yes : Fit::No;
    case HbaAddress::Kind::HostName:
    case HbaAddress::Kind::HostSuffix:
      return fits_host_name(address, connection.host_name);
  }
  return Fit::No;
}

bool any_address(const std::vector<HbaRule>& rules, HbaAddress::Kind a, HbaAddress::Kind b) {
  return std::any_of(rules.begin(), rules.end(), [a, b](const HbaRule& rule) {
    return rule.type != HbaType::Local && (rule.address.kind == a || rule.address.kind == b);
  });
}

}  // namespace

bool HbaNames::contains(std::string_view name) const {
  return all || names.contains(name) ||
         std::any_of(patterns.begin(), patterns.end(), [name](const NamePattern& p) { return p.matches(name); });
}

bool HbaRules::has_host_names() const {
  return any_address(rules, HbaAddress::Kind::HostName, HbaAddress::Kind::HostSuffix);
}

bool HbaRules::has_interfaces() const {
  return any_address(rules, HbaAddress::Kind::SameHost, HbaAddress::Kind::SameNet);
}

HbaMatch match(const HbaRules& rules, const HbaConnection& connection) {
  for (const auto& rule : rules.rules) {
    if (!fits_type(rule.type, connection)) continue;
    // The address comes last, so that a name is looked up only for a rule that hangs on nothing else.
    if (!fits_database(rule.databases, connection) || !rule.users.contains(connection.user)) continue;
    const auto fit = rule.type == HbaType::Local ? Fit::Yes : fits_address(rule.address, connection);
    if (fit == Fit::Yes) return {HbaMatch::Kind::Rule, &rule};
    if (fit == Fit::Unknown) return {HbaMatch::Kind::NeedsHostName, &rule};
  }
  return {};
}

}  // namespace pgweir::core
