// Patroni's REST API as far as it concerns us: the addresses in patroni_urls, and what GET /cluster says of the
// members. Pure. What Patroni says makes us look at once; what a host is PostgreSQL alone decides.
#pragma once

#include <boost/system/result.hpp>
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

}  // namespace pgweir::core
