// What the SHOW commands print: rows collected from the pools, the configuration and the workers.
#include <algorithm>
#include <set>

#include "protocol/message_builder.hpp"
#include "proxy/core/admin_format.hpp"
#include "proxy/core/client_session.hpp"
#include "proxy/core/console.hpp"
#include "proxy/core/worker_core.hpp"

namespace pgweir::core {

namespace {
constexpr std::string_view kConsole = "pgbouncer";

/// load_balance_hosts is shown where there is a choice.
std::optional<LoadBalanceHosts> shown_balance(const DatabaseConfig* entry) {
  if (entry == nullptr || entry->hosts.size() < 2) return std::nullopt;
  return entry->load_balance_hosts;
}
}  // namespace

// ---- SHOW ----

void Console::show(const AdminCommand& command) {
  WorkerCore& core = client_.core();
  std::string out;
  switch (command.what) {
    case ShowWhat::Help:
      append_show_help(out);
      break;
    case ShowWhat::Version:
      append_show_version(out);
      break;
    case ShowWhat::State: {
      PoolLock pools(core.host());
      append_show_state(out, {pools->all_paused() ? PauseMode::Paused : PauseMode::Active});
      break;
    }
    case ShowWhat::Databases:
      show_databases(out);
      break;
    case ShowWhat::Pools:
      show_pools(out);
      break;
    case ShowWhat::Users:
      show_users(out);
      break;
    case ShowWhat::Lists:
      show_lists(out);
      break;
    case ShowWhat::Peers:
      show_peers(out);
      break;
    case ShowWhat::PeerPools:
      append_show_peer_pools(out, {});
      break;
    case ShowWhat::Config:
      append_show_config(out, show_config(core.config()));
      break;
    case ShowWhat::Clients:
    case ShowWhat::Servers:
    case ShowWhat::Sockets:
    case ShowWhat::ActiveSockets:
    case ShowWhat::Stats:
    case ShowWhat::StatsTotals:
    case ShowWhat::StatsAverages:
    case ShowWhat::Latency:
    case ShowWhat::Totals: {
      busy_ = true;
      const bool sockets = command.what == ShowWhat::Clients || command.what == ShowWhat::Servers ||
                           command.what == ShowWhat::Sockets || command.what == ShowWhat::ActiveSockets;
      collect_reports(
          core,
          sockets                             ? ReportExtra::Sockets
          : command.what == ShowWhat::Latency ? ReportExtra::Latencies
                                              : ReportExtra::None,
          [id = client_.id(), request = ++request_, what = command.what](WorkerCore& here, WorkerReport all) {
            ClientSession* client = here.find_client(id);
            Console* console = client != nullptr ? client->console() : nullptr;
            if (console != nullptr && console->request_ == request) console->show_collected(what, all);
          });
      return;
    }
    case ShowWhat::Mem:
      show_mem(out);
      break;
    default:
      return error("this command is not supported by this version of pgweir");
  }
  protocol::append_ready_for_query(out, 'I');
  answer(out);
}

void Console::show_collected(ShowWhat what, const WorkerReport& report) {
  std::vector<StatsRow> stats;
  for (const auto& [database, row] : report.stats) stats.push_back(row);
  StatsRow console;
  console.database = std::string(kConsole);
  stats.push_back(console);
  std::sort(stats.begin(), stats.end(), [](const StatsRow& a, const StatsRow& b) { return a.database < b.database; });
  std::vector<SocketRow> sockets = report.sockets;
  std::sort(sockets.begin(), sockets.end(), [](const SocketRow& a, const SocketRow& b) { return a.id < b.id; });
  Host& host = client_.core().host();
  const FormatTime time = [&host](std::int64_t us) { return host.format_time(us); };
  std::string out;
  switch (what) {
    case ShowWhat::Clients:
      append_show_clients(out, sockets, time);
      break;
    case ShowWhat::Servers:
      append_show_servers(out, sockets, time);
      break;
    case ShowWhat::Sockets:
      append_show_sockets(out, sockets, time);
      break;
    case ShowWhat::ActiveSockets:
      append_show_active_sockets(out, sockets, time);
      break;
    case ShowWhat::Stats:
      append_show_stats(out, stats);
      break;
    case ShowWhat::Latency:
      append_show_latency(out, report.latencies);
      break;
    case ShowWhat::StatsTotals:
      append_show_stats_totals(out, stats);
      break;
    case ShowWhat::StatsAverages:
      append_show_stats_averages(out, stats);
      break;
    default:
      append_show_totals(out, stats);
      break;
  }
  protocol::append_ready_for_query(out, 'I');
  busy_ = false;
  answer(out);
  client_.core().wake(client_);
}

void Console::show_databases(std::string& out) {
  WorkerCore& core = client_.core();
  const Config& config = core.config();
  std::vector<pool::DatabaseSnapshot> snapshots;
  {
    PoolLock pools(core.host());
    snapshots = pools->database_snapshots();
  }
  std::set<std::string> names;
  for (const auto& [name, entry] : config.databases) names.insert(name);
  for (const auto& snapshot : snapshots) names.insert(snapshot.name);
  std::vector<DatabaseRow> rows;
  for (const std::string& name : names) {
    const DatabaseConfig* entry = find_database(config, name);
    if (entry == nullptr) continue;
    DatabaseRow row;
    row.name = name;
    if (!entry->hosts.empty() && !entry->hosts.front().host.empty()) {
      std::string hosts;
      for (const HostPort& host : entry->hosts) hosts += (hosts.empty() ? "" : ",") + host.host;
      row.host = hosts;
    }
    row.port = entry->hosts.empty() ? 0 : entry->hosts.front().port;
    row.database = std::string(effective_dbname(*entry, name));
    row.force_user = entry->user;
    row.pool_size = effective_pool_size(config, *entry, entry->user.value_or(""));
    row.min_pool_size = effective_min_pool_size(config, *entry);
    row.reserve_pool_size = effective_reserve_pool_size(config, *entry, entry->user.value_or(""));
    row.server_lifetime = effective_server_lifetime(config, *entry);
    row.pool_mode = entry->pool_mode;
    row.load_balance_hosts = shown_balance(entry);
    row.max_connections = effective_max_db_connections(config, *entry);
    row.max_client_connections = effective_max_db_client_connections(config, *entry);
    for (const auto& snapshot : snapshots) {
      if (snapshot.name != name) continue;
      row.current_connections = snapshot.current_connections;
      row.current_client_connections = snapshot.current_client_connections;
      row.paused = snapshot.paused;
      row.disabled = snapshot.disabled;
    }
    rows.push_back(std::move(row));
  }
  DatabaseRow console;
  console.name = console.database = std::string(kConsole);
  console.port = config.listen_port;
  console.force_user = std::string(kConsole);
  console.pool_size = 2;
  console.server_lifetime = config.server_lifetime;
  console.pool_mode = PoolMode::Statement;
  rows.push_back(std::move(console));
  append_show_databases(out, rows);
}

void Console::show_pools(std::string& out) {
  WorkerCore& core = client_.core();
  std::vector<pool::PoolSnapshot> snapshots;
  {
    PoolLock pools(core.host());
    snapshots = pools->pool_snapshots(core.now());
  }
  std::vector<PoolRow> rows;
  for (pool::PoolSnapshot& snapshot : snapshots) {
    const DatabaseConfig* entry = find_database(core.config(), snapshot.database);
    PoolRow row;
    if (entry != nullptr) row.pool_mode = effective_pool_mode(core.config(), *entry, snapshot.user);
    row.load_balance_hosts = shown_balance(entry);
    row.counts = std::move(snapshot);
    rows.push_back(std::move(row));
  }
  PoolRow console;
  console.counts.database = console.counts.user = std::string(kConsole);
  console.counts.cl_active = 1;
  console.pool_mode = PoolMode::Statement;
  rows.push_back(std::move(console));
  append_show_pools(out, rows);
}

void Console::show_users(std::string& out) {
  WorkerCore& core = client_.core();
  const Config& config = core.config();
  std::vector<pool::UserSnapshot> snapshots;
  {
    PoolLock pools(core.host());
    snapshots = pools->user_snapshots();
  }
  std::set<std::string> names;
  for (const auto& [name, secret] : *core.settings()->users) names.insert(name);
  for (const auto& [name, user] : config.users) names.insert(name);
  for (const auto& snapshot : snapshots) names.insert(snapshot.name);
  names.insert(std::string(kConsole));
  std::vector<UserRow> rows;
  for (const std::string& name : names) {
    UserRow row;
    row.name = name;
    if (const auto it = config.users.find(name); it != config.users.end()) {
      row.pool_size = it->second.pool_size;
      row.reserve_pool_size = it->second.reserve_pool_size;
      row.pool_mode = it->second.pool_mode;
    }
    row.max_user_connections = effective_max_user_connections(config, name);
    row.max_user_client_connections = effective_max_user_client_connections(config, name);
    for (const auto& snapshot : snapshots) {
      if (snapshot.name != name) continue;
      row.current_connections = snapshot.current_connections;
      row.current_client_connections = snapshot.current_client_connections;
    }
    rows.push_back(std::move(row));
  }
  append_show_users(out, rows);
}

void Console::show_lists(std::string& out) {
  WorkerCore& core = client_.core();
  pool::Totals totals;
  std::size_t users = core.settings()->users->size() + 1;
  {
    PoolLock pools(core.host());
    totals = pools->totals();
  }
  ListsData lists;
  lists.databases = core.config().databases.size() + 1;
  lists.users = users;
  lists.peers = core.config().peers.size();
  lists.pools = totals.pools + 1;
  lists.used_clients = totals.clients - totals.login_clients;
  lists.login_clients = totals.login_clients;
  lists.free_servers = totals.idle_servers;
  lists.used_servers = totals.servers - totals.idle_servers;
  append_show_lists(out, lists);
}

void Console::show_mem(std::string& out) {
  WorkerCore& core = client_.core();
  pool::Totals totals;
  {
    PoolLock pools(core.host());
    totals = pools->totals();
  }
  const auto row = [](const char* name, std::uint64_t size, std::uint64_t used) {
    MemRow result;
    result.name = name;
    result.size = size;
    result.used = used;
    result.memtotal = size * used;
    return result;
  };
  const std::vector<MemRow> rows{row("pool_cache", sizeof(PoolContext), totals.pools),
                                 row("server_cache", sizeof(ServerSession), totals.servers),
                                 row("client_cache", sizeof(ClientSession), totals.clients)};
  append_show_mem(out, rows);
}

void Console::show_peers(std::string& out) {
  const Config& config = client_.core().config();
  std::vector<PeerRow> rows;
  for (const auto& [id, peer] : config.peers) {
    PeerRow row;
    row.peer_id = id;
    if (!peer.hosts.empty()) {
      row.host = peer.hosts.front().host;
      row.port = peer.hosts.front().port;
    }
    row.pool_size = effective_pool_size(config, peer);
    rows.push_back(std::move(row));
  }
  append_show_peers(out, rows);
}

}  // namespace pgweir::core
