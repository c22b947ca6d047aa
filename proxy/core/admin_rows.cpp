// Which values the console's tables of entries show; see admin_rows.hpp.
#include "proxy/core/admin_rows.hpp"

#include <array>
#include <span>

#include "proxy/core/config_settings.hpp"
#include "proxy/core/latency.hpp"

namespace pgweir::core {

namespace {

/// PgBouncer gives its console pool this size; nothing depends on it.
constexpr int kConsolePoolSize = 2;

constexpr std::array<std::string_view, 4> kHealthNames{"unknown", "up", "down", "fenced"};
static_assert(kHealthNames.size() == static_cast<std::size_t>(router::HostHealth::Fenced) + 1);

/// Null for the one default Unix socket, else what the file says.
std::optional<std::string> host_list(std::span<const HostPort> hosts) {
  std::string text;
  for (const HostPort& host : hosts) {
    if (!text.empty()) text += ',';
    text += host.host;
  }
  if (text.empty()) return std::nullopt;
  return text;
}

std::optional<LoadBalanceHosts> shown_balancing(const DatabaseConfig& database) {
  if (database.hosts.size() < 2) return std::nullopt;
  return database.load_balance_hosts;
}

/// The columns that do not depend on whether it is the console.
DatabaseRow common_row(const Config& config, const DatabaseConfig& database) {
  DatabaseRow row;
  row.min_pool_size = effective_min_pool_size(config, database);
  row.reserve_pool_size = effective_reserve_pool_size(config, database, {});
  row.server_lifetime = effective_server_lifetime(config, database);
  row.max_connections = effective_max_db_connections(config, database);
  row.max_client_connections = effective_max_db_client_connections(config, database);
  return row;
}

}  // namespace

DatabaseRow database_row(const Config& config, const DatabaseConfig& database, std::string_view name,
                         const pool::DatabaseSnapshot& counts) {
  DatabaseRow row = common_row(config, database);
  row.name = name;
  row.host = host_list(database.hosts);
  row.port = database.hosts.empty() ? 0 : database.hosts.front().port;
  row.database = effective_dbname(database, name);
  row.force_user = database.user;
  row.pool_size = effective_pool_size(config, database, {});
  row.pool_mode = database.pool_mode;
  row.load_balance_hosts = shown_balancing(database);
  row.current_connections = counts.current_connections;
  row.current_client_connections = counts.current_client_connections;
  row.paused = counts.paused;
  row.disabled = counts.disabled;
  return row;
}

DatabaseRow console_database_row(const Config& config, std::uint32_t console_clients) {
  DatabaseRow row = common_row(config, DatabaseConfig{});
  row.name = kConsoleDatabase;
  row.port = config.listen_port;
  row.database = kConsoleDatabase;
  row.force_user = kConsoleDatabase;
  row.pool_size = kConsolePoolSize;
  row.min_pool_size = 0;
  row.reserve_pool_size = 0;
  row.pool_mode = PoolMode::Statement;
  row.current_client_connections = console_clients;
  return row;
}

PoolRow pool_row(const Config& config, const pool::PoolSnapshot& counts) {
  PoolRow row;
  row.counts = counts;
  if (!counts.host.empty()) row.host = host_of_name(counts.host);
  if (const DatabaseConfig* database = find_database(config, counts.database)) {
    row.pool_mode = effective_pool_mode(config, *database, counts.user);
    row.load_balance_hosts = shown_balancing(*database);
  } else {
    row.pool_mode = config.pool_mode;
  }
  return row;
}

HostRow host_row(const std::string& group, const router::HostTable& table, router::HostId id, router::TimePoint now) {
  const router::HostState& host = table.host(id);
  HostRow row;
  row.hosts = group;
  const HostPort place = host_of_name(host.name);
  row.host = place.host;
  row.port = place.port;
  row.role = role_name(host.role);
  row.state = kHealthNames[static_cast<std::size_t>(host.health)];
  row.timeline = host.timeline;
  if (host.role == HostRole::Standby && host.health == router::HostHealth::Up) {
    row.lag_bytes = host.lag_bytes;
    row.lag_ms = std::chrono::duration_cast<std::chrono::milliseconds>(host.lag).count();
  }
  if (host.replay_lsn.value != 0) row.replay_lsn = router::to_string(host.replay_lsn);
  if (host.last_probe != router::kLongAgo) {
    row.last_probe_ms = std::chrono::duration_cast<std::chrono::milliseconds>(now - host.last_probe).count();
  }
  row.reason = host.reason;
  return row;
}

PoolRow console_pool_row(std::uint32_t console_clients) {
  PoolRow row;
  row.counts.database = kConsoleDatabase;
  row.counts.user = kConsoleDatabase;
  row.counts.cl_active = console_clients;
  row.pool_mode = PoolMode::Statement;
  return row;
}

UserRow user_row(const Config& config, std::string_view name, const pool::UserSnapshot& counts) {
  UserRow row;
  row.name = name;
  if (const auto found = config.users.find(name); found != config.users.end()) {
    row.pool_size = found->second.pool_size;
    row.reserve_pool_size = found->second.reserve_pool_size;
    row.pool_mode = found->second.pool_mode;
  }
  row.max_user_connections = effective_max_user_connections(config, name);
  row.current_connections = counts.current_connections;
  row.max_user_client_connections = effective_max_user_client_connections(config, name);
  row.current_client_connections = counts.current_client_connections;
  return row;
}

PeerRow peer_row(const Config& config, const PeerConfig& peer) {
  PeerRow row;
  row.peer_id = peer.id;
  row.host = host_list(peer.hosts);
  row.port = peer.hosts.empty() ? 0 : peer.hosts.front().port;
  row.pool_size = effective_pool_size(config, peer);
  return row;
}

}  // namespace pgweir::core
