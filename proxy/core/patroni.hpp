// Patroni's REST API as far as it concerns us: the addresses in patroni_urls, and what GET /cluster says of the
// members. Pure. What Patroni says makes us look at once; what a host is PostgreSQL alone decides.
#pragma once

#include <boost/system/result.hpp>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/core/config.hpp"

namespace pgweir::core {

/// One item of patroni_urls.
struct PatroniUrl {
  bool tls = false;
  std::string host;  ///< IPv6 without brackets
  int port = 8008;
  std::string path;  ///< that of the API, without a slash at the end; mostly empty

  friend bool operator==(const PatroniUrl&, const PatroniUrl&) = default;
};

/// "http://host[:port][/path]" or https; else what would be right.
[[nodiscard]] boost::system::result<PatroniUrl, std::string> parse_patroni_url(std::string_view text);

/// A member of the cluster.
struct PatroniMember {
  std::string name;
  HostPort host;
  std::string role;   ///< leader, replica, sync_standby, standby_leader, ...
  std::string state;  ///< running, streaming, starting, stopped, ...

  [[nodiscard]] bool leads() const { return (role == "leader" || role == "master") && state == "running"; }
  friend bool operator==(const PatroniMember&, const PatroniMember&) = default;
};

/// The hosts that Patroni has told, for databases with host_source = patroni: those of members that are gone stay until
/// forget(), because a member leaves the cluster's list whenever it is down for long.
class PatroniHosts {
 public:
  /// True if hosts() has changed.
  bool update(const std::vector<PatroniMember>& members);
  /// From now on only those of the last update count.
  void forget();
  /// By the names of the members.
  [[nodiscard]] std::vector<HostPort> hosts() const;

 private:
  std::map<std::string, HostPort> known_, latest_;
};

}  // namespace pgweir::core
