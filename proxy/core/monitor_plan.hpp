// What the configuration asks to be watched: which hosts, as which user, which catalogues. Pure; proxy/io watches.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "proxy/core/config_unsupported.hpp"
#include "proxy/core/patroni.hpp"
#include "proxy/core/pool_context.hpp"
#include "router/host_tracker.hpp"

namespace pgweir::core {

/// How to log in to a host to ask it something.
struct MonitorLogin {
  std::string user;
  std::optional<std::string> password;  ///< empty: none is known; libpq looks into its own password file
  std::string dbname;
  SslMode sslmode = SslMode::Disable;  ///< of hosts that are reached by TCP
  std::string ca_file, cert_file, key_file;

  friend bool operator==(const MonitorLogin&, const MonitorLogin&) = default;
};

/// Hosts that are watched together, for all databases with this list.
struct MonitoredGroup {
  std::string databases;        ///< their names, for people
  std::vector<HostPort> hosts;  ///< in the order of the list
  MonitorLogin login;           ///< of the first of the databases
  /// By the names on the servers: whose catalogue is to be known.
  std::map<std::string, MonitorLogin, std::less<>> catalogs;
  /// If the entry `*` splits reads from writes: how to read the catalogue of a database that clients came to ask for.
  std::optional<MonitorLogin> other_catalogs;

  friend bool operator==(const MonitoredGroup&, const MonitoredGroup&) = default;
};

struct MonitorPlan {
  std::map<std::string, MonitoredGroup> groups;  ///< by host_group_name()
  Duration interval{};                           ///< role_check_interval
  Duration timeout{};                            ///< role_check_timeout
  router::TrackerPolicy policy;
  std::vector<PatroniUrl> patroni_urls;  ///< empty as well if no database is routed by role
  bool patroni_is_source = false;        ///< a database has host_source = patroni
  std::string patroni_ca_file;           ///< for https, as for servers; empty: the system's
};

/// Empty groups if no database is routed by role.
[[nodiscard]] MonitorPlan make_monitor_plan(const Settings& settings);

/// `config` with `hosts`, those that Patroni knows, in the databases that take theirs from there; the same object if
/// that changes nothing. No hosts: Patroni has not said anything yet.
[[nodiscard]] std::shared_ptr<const Config> with_patroni_hosts(std::shared_ptr<const Config> config,
                                                               const std::vector<HostPort>& hosts);

/// What keeps databases that are routed by role from being watched: nobody to log in as, a host listed twice, hosts to
/// be had from Patroni whose address is not known.
[[nodiscard]] std::vector<Unsupported> monitor_problems(const Config& config);

}  // namespace pgweir::core
