#include "proxy/core/pool_context.hpp"

#include <algorithm>

namespace pgweir::core {

void resolve(PoolContext& context, std::shared_ptr<const Settings> settings) {
  context.settings = std::move(settings);
  const Config& config = *context.settings->config;
  context.entry = find_database(config, context.database);
  context.host_id.reset();
  if (context.entry == nullptr) return;
  const DatabaseConfig& entry = *context.entry;
  if (!context.host_name.empty()) {
    for (std::size_t i = 0; i < entry.hosts.size() && is_routed(entry); ++i) {
      if (host_name_of(entry.hosts[i]) == context.host_name) context.host_id = static_cast<router::HostId>(i);
    }
    if (!context.host_id) {  // the list has lost it, or roles do not matter any more
      context.entry = nullptr;
      return;
    }
  }
  context.policy = route_policy(config, entry);
  context.dbname = std::string(effective_dbname(entry, context.database));
  context.forced_user = entry.user.has_value();
  context.mode = effective_pool_mode(config, entry, context.user);
  context.max_prepared_statements = static_cast<std::size_t>(std::max(0, config.max_prepared_statements));
  context.query_timeout = effective_query_timeout(config, context.user);
  context.transaction_timeout = effective_transaction_timeout(config, context.user);
  context.idle_transaction_timeout = effective_idle_transaction_timeout(config, context.user);
}

pool::PoolSettings pool_settings(const Config& config, const DatabaseConfig& entry, const std::string& pool_user,
                                 std::string_view host) {
  pool::PoolSettings result;
  result.pool_size = static_cast<std::uint32_t>(effective_pool_size(config, entry, pool_user));
  result.min_pool_size = static_cast<std::uint32_t>(effective_min_pool_size(config, entry));
  result.reserve_pool_size = static_cast<std::uint32_t>(effective_reserve_pool_size(config, entry, pool_user));
  result.max_pool_logins = static_cast<std::uint32_t>(std::max(1, config.max_pool_logins));
  result.reserve_pool_timeout = config.reserve_pool_timeout;
  result.server_idle_timeout = config.server_idle_timeout;
  result.server_lifetime = effective_server_lifetime(config, entry);
  result.server_login_retry = config.server_login_retry;
  result.server_check_delay = config.server_check_delay;
  result.server_check = !config.server_check_query.empty();
  result.server_round_robin = config.server_round_robin;
  result.forced_user = entry.user.has_value();
  result.pool_idle_timeout = config.pool_idle_timeout;
  result.server_fast_close = config.server_fast_close;
  result.one_address = entry.load_balance_hosts == LoadBalanceHosts::Disable;
  result.held = host.empty() && is_routed(entry);
  result.patient = !host.empty();
  return result;
}

ServerTarget server_target(const PoolContext& context, std::size_t index) {
  const Config& config = *context.settings->config;
  const DatabaseConfig& entry = *context.entry;
  ServerTarget target;
  target.host = entry.hosts[index % entry.hosts.size()];
  if (target.host.host.empty()) target.host.host = config.unix_socket_dir;
  target.sslmode = target.host.is_unix() ? SslMode::Disable : effective_server_tls_sslmode(config, entry);
  target.ca_file = std::string(effective_server_tls_ca_file(config, entry));
  target.cert_file = std::string(effective_server_tls_cert_file(config, entry));
  target.key_file = std::string(effective_server_tls_key_file(config, entry));
  return target;
}

ServerTarget peer_target(const Config& config, const PeerConfig& peer, std::size_t index) {
  ServerTarget target;
  target.host = peer.hosts[index % peer.hosts.size()];
  if (target.host.host.empty()) target.host.host = config.unix_socket_dir;
  return target;
}

std::vector<std::string> apply_to_pools(pool::PoolManager& pools, const Config& before, const Config& settings,
                                        TimePoint now, pool::Actions& actions) {
  const ConfigDiff changes = diff(before, settings);
  std::vector<std::string> recycled;
  pools.set_limits(static_cast<std::uint32_t>(settings.max_client_conn));
  pools.set_peers(static_cast<std::uint16_t>(settings.peer_id), peer_limits(settings), actions);
  for (const auto& [name, entry] : settings.databases) pools.add_database(name);
  for (const auto& row : pools.database_snapshots()) {
    const DatabaseConfig* entry = find_database(settings, row.name);
    if (entry == nullptr) {
      pools.kill(row.name, "database removed", now, actions);
      (void)pools.resume(row.name, now, actions);
      continue;
    }
    pools.set_database_limits(row.name, database_limits(settings, *entry));
    pools.set_autodb_idle_timeout(row.name, autodb_idle_timeout(settings, *entry), now);
    const bool automatic = !settings.databases.contains(row.name);
    const auto& changed = changes.changed_databases;
    const std::string key = automatic ? "*" : row.name;
    if (changes.server_tls_changed || std::find(changed.begin(), changed.end(), key) != changed.end()) {
      pools.reconnect(row.name, now, actions);
      recycled.push_back(row.name);
    }
  }
  for (const pool::PoolId id : pools.pools()) {
    const auto [database, user] = pools.pool_name(id);
    const DatabaseConfig* entry = find_database(settings, database);
    if (entry == nullptr) continue;
    const std::string host = pools.pool_host(id);
    (void)pools.set_pool(database, user, pool_settings(settings, *entry, user, host), now, actions, host);
  }
  for (const auto& row : pools.user_snapshots()) pools.set_user_limits(row.name, user_limits(settings, row.name));
  return recycled;
}

std::vector<pool::PeerLimits> peer_limits(const Config& config) {
  std::vector<pool::PeerLimits> all;
  all.reserve(config.peers.size());
  for (const auto& [id, peer] : config.peers) {
    all.push_back({static_cast<std::uint16_t>(id), static_cast<std::uint32_t>(effective_pool_size(config, peer))});
  }
  return all;
}

pool::DatabaseLimits database_limits(const Config& config, const DatabaseConfig& entry) {
  return {static_cast<std::uint32_t>(effective_max_db_connections(config, entry)),
          static_cast<std::uint32_t>(effective_max_db_client_connections(config, entry))};
}

Duration autodb_idle_timeout(const Config& config, const DatabaseConfig& entry) {
  return is_fallback(config, entry) ? config.autodb_idle_timeout : Duration::zero();
}

pool::UserLimits user_limits(const Config& config, std::string_view user) {
  return {static_cast<std::uint32_t>(effective_max_user_connections(config, user)),
          static_cast<std::uint32_t>(effective_max_user_client_connections(config, user))};
}

}  // namespace pgweir::core
