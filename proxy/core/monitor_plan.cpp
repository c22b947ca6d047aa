#include "proxy/core/monitor_plan.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "protocol/auth_secret.hpp"
#include "proxy/core/host_group.hpp"

namespace pgweir::core {
namespace {

/// The database that every cluster has: where the one to ask in cannot be known.
constexpr std::string_view kCommonDatabase = "postgres";
/// So many names of databases are told in the log for one group.
constexpr std::size_t kNamesShown = 3;

std::string_view monitor_user(const Config& config, const DatabaseConfig& database) {
  if (!config.role_check_user.empty()) return config.role_check_user;
  if (database.user) return *database.user;
  return effective_auth_user(config, database);
}

// libpq wants the password itself; a secret that only proves one is of no use to it.
std::optional<std::string> monitor_password(const Settings& settings, const DatabaseConfig& database,
                                            const std::string& user) {
  if (database.user == user && database.password) return database.password;
  if (!settings.users) return std::nullopt;
  const auto found = settings.users->find(user);
  if (found == settings.users->end()) return std::nullopt;
  if (protocol::classify_secret(found->second) != protocol::SecretKind::Plain) return std::nullopt;
  return found->second;
}

MonitorLogin monitor_login(const Settings& settings, const DatabaseConfig& database) {
  const Config& config = *settings.config;
  MonitorLogin login;
  login.user = std::string(monitor_user(config, database));
  login.password = monitor_password(settings, database, login.user);
  login.dbname = database.name == "*" && !database.dbname ? std::string(kCommonDatabase)
                                                          : std::string(effective_dbname(database, database.name));
  login.sslmode = effective_server_tls_sslmode(config, database);
  login.ca_file = std::string(effective_server_tls_ca_file(config, database));
  login.cert_file = std::string(effective_server_tls_cert_file(config, database));
  login.key_file = std::string(effective_server_tls_key_file(config, database));
  return login;
}

void add_database(MonitorPlan& plan, const Settings& settings, const DatabaseConfig& database) {
  if (!is_routed(database)) return;
  const auto [place, is_new] = plan.groups.try_emplace(host_group_name(database));
  MonitoredGroup& group = place->second;
  MonitorLogin login = monitor_login(settings, database);
  if (is_new) {
    group.hosts = database.hosts;
    for (HostPort& host : group.hosts) {
      if (host.host.empty()) host.host = settings.config->unix_socket_dir;
    }
    group.login = login;
  }
  const auto names = std::count(group.databases.begin(), group.databases.end(), ',');
  if (is_new) {
    group.databases = database.name;
  } else if (static_cast<std::size_t>(names) + 1 < kNamesShown) {
    group.databases += "," + database.name;
  } else if (!group.databases.ends_with(",...")) {
    group.databases += ",...";
  }
  if (!database.read_write_split) return;
  if (database.name == "*" && !database.dbname) {
    group.other_catalogs = std::move(login);
  } else {
    group.catalogs.try_emplace(login.dbname, login);
  }
}

void check_database(const Config& config, const DatabaseConfig& database, std::vector<Unsupported>& found) {
  if (database.host_source == HostSource::Patroni && (!is_routed(database) || config.patroni_urls.items.empty())) {
    found.push_back({Section::Databases, database.name,
                     "host_source: patroni expects patroni_urls in [pgweir], and read_write_split or "
                     "target_session_attrs here"});
  }
  if (!is_routed(database)) return;
  const std::string_view key = database.read_write_split ? "read_write_split" : "target_session_attrs";
  const auto add = [&](std::string text) { found.push_back({Section::Databases, database.name, std::move(text)}); };
  if (monitor_user(config, database).empty()) {
    add(
        fmt::format("{}: expected role_check_user in [pgweir], or user= here, or auth_user: the hosts are asked for "
                    "their roles as that user",
                    key));
  }
  for (auto host = database.hosts.begin(); host != database.hosts.end(); ++host) {
    if (std::find(database.hosts.begin(), host, *host) == host) continue;
    add(fmt::format("host: {}:{} is listed twice; {} needs to tell the hosts apart", host->host, host->port, key));
  }
}

}  // namespace

MonitorPlan make_monitor_plan(const Settings& settings) {
  const Config& config = *settings.config;
  MonitorPlan plan;
  plan.interval = config.role_check_interval;
  plan.timeout = config.role_check_timeout;
  plan.policy.lag_bytes_max = static_cast<std::uint64_t>(config.max_replica_lag_bytes);
  plan.policy.lag_max = config.max_replica_lag_ms;
  for (const auto& [name, database] : config.databases) add_database(plan, settings, database);
  if (config.fallback) add_database(plan, settings, *config.fallback);
  if (plan.groups.empty()) return plan;
  for (const std::string& text : config.patroni_urls.items) {
    if (auto url = parse_patroni_url(text)) plan.patroni_urls.push_back(std::move(*url));
  }
  plan.patroni_ca_file = config.server_tls_ca_file;
  const auto from_patroni = [](const DatabaseConfig& database) { return database.host_source == HostSource::Patroni; };
  plan.patroni_is_source = (config.fallback && from_patroni(*config.fallback)) ||
                           std::any_of(config.databases.begin(), config.databases.end(),
                                       [&](const auto& one) { return from_patroni(one.second); });
  return plan;
}

std::shared_ptr<const Config> with_patroni_hosts(std::shared_ptr<const Config> config,
                                                 const std::vector<HostPort>& hosts) {
  if (hosts.empty()) return config;
  auto changed = std::make_shared<Config>(*config);
  bool any = false;
  const auto fill = [&](DatabaseConfig& database) {
    if (database.host_source != HostSource::Patroni || database.hosts == hosts) return;
    database.hosts = hosts;
    any = true;
  };
  for (auto& [name, database] : changed->databases) fill(database);
  if (changed->fallback) fill(*changed->fallback);
  return any ? changed : config;
}

std::vector<Unsupported> monitor_problems(const Config& config) {
  std::vector<Unsupported> found;
  for (const auto& [name, database] : config.databases) check_database(config, database, found);
  if (config.fallback) check_database(config, *config.fallback, found);
  return found;
}

}  // namespace pgweir::core
