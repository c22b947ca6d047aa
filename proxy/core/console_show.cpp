// What the SHOW commands print: rows collected from the pools, the configuration and the workers.
#include <algorithm>
#include <map>

#include "protocol/message_builder.hpp"
#include "proxy/core/admin_format.hpp"
#include "proxy/core/admin_rows.hpp"
#include "proxy/core/client_session.hpp"
#include "proxy/core/console.hpp"
#include "proxy/core/worker_core.hpp"

namespace pgweir::core {

namespace {

/// A database that has left the configuration is listed only while it still has connections.
bool listed(const Config& config, const pool::PoolSnapshot& pool) {
  if (find_database(config, pool.database) != nullptr) return true;
  return pool.cl_active + pool.cl_waiting + pool.sv_active + pool.sv_idle + pool.sv_used + pool.sv_tested +
             pool.sv_login >
         0;
}

/// What a SHOW over all workers needs of them beside their counters.
ReportExtra extra_for(ShowWhat what) {
  switch (what) {
    case ShowWhat::Clients:
    case ShowWhat::Servers:
    case ShowWhat::Sockets:
    case ShowWhat::ActiveSockets:
      return ReportExtra::Sockets;
    case ShowWhat::Lists:
    case ShowWhat::DnsHosts:
    case ShowWhat::DnsZones:
      return ReportExtra::Names;
    case ShowWhat::Latency:
      return ReportExtra::Latencies;
    case ShowWhat::Mem:
      return ReportExtra::Memory;
    default:
      return ReportExtra::None;
  }
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
      append_show_state(out, {core.frozen()         ? PauseMode::Suspended
                              : pools->all_paused() ? PauseMode::Paused
                                                    : PauseMode::Active});
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
    case ShowWhat::Peers:
      show_peers(out);
      break;
    case ShowWhat::PeerPools:
      show_peer_pools(out);
      break;
    case ShowWhat::Hosts:
      show_hosts(out);
      break;
    case ShowWhat::Config:
      append_show_config(out, show_config(core.config()));
      break;
    case ShowWhat::Lists:
    case ShowWhat::DnsHosts:
    case ShowWhat::DnsZones:
    case ShowWhat::Clients:
    case ShowWhat::Servers:
    case ShowWhat::Sockets:
    case ShowWhat::ActiveSockets:
    case ShowWhat::Stats:
    case ShowWhat::StatsTotals:
    case ShowWhat::StatsAverages:
    case ShowWhat::Latency:
    case ShowWhat::Routes:
    case ShowWhat::Mem:
    case ShowWhat::Totals: {
      busy_ = true;
      collect_reports(
          core, extra_for(command.what),
          [id = client_.id(), request = ++request_, what = command.what](WorkerCore& here, WorkerReport all) {
            ClientSession* client = here.find_client(id);
            Console* console = client != nullptr ? client->console() : nullptr;
            if (console != nullptr && console->request_ == request) console->show_collected(what, all);
          });
      return;
    }
    case ShowWhat::Fds:
      return show_fds(false);
    case ShowWhat::Handover:
      // What clients have sent and servers have answered is in it.
      if (!is_own_user()) return error("SHOW HANDOVER is for user pgbouncer on the Unix socket");
      if (!core.frozen()) return error("SHOW HANDOVER needs SUSPEND first");
      return show_fds(true);
    case ShowWhat::None:
      break;
  }
  protocol::append_ready_for_query(out, 'I');
  answer(out);
}

void Console::show_collected(ShowWhat what, const WorkerReport& report) {
  std::vector<StatsRow> stats;
  for (const auto& [database, row] : report.stats) {
    if (database == kConsoleDatabase || find_database(client_.core().config(), database) != nullptr) {
      stats.push_back(row);
    }
  }
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
    case ShowWhat::Lists:
      show_lists(out, report.dns);
      break;
    case ShowWhat::DnsHosts:
      append_show_dns_hosts(out, report.dns.hosts);
      break;
    case ShowWhat::DnsZones:
      append_show_dns_zones(out, report.dns.zones);
      break;
    case ShowWhat::Stats:
      append_show_stats(out, stats);
      break;
    case ShowWhat::Latency:
      append_show_latency(out, report.latencies);
      break;
    case ShowWhat::Routes: {
      std::vector<RouteRow> rows;
      for (const auto& [database, counts] : report.routes) rows.push_back({database, counts});
      append_show_routes(out, rows);
      break;
    }
    case ShowWhat::Mem:
      show_mem(out, report.memory);
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
  std::map<std::string, pool::DatabaseSnapshot> counts;
  for (const auto& [name, entry] : config.databases) counts[name] = {.name = name};
  pool::Totals totals;
  {
    PoolLock pools(core.host());
    for (pool::DatabaseSnapshot& snapshot : pools->database_snapshots()) counts[snapshot.name] = std::move(snapshot);
    totals = pools->totals();
  }
  std::vector<DatabaseRow> rows;
  for (const auto& [name, snapshot] : counts) {
    const DatabaseConfig* entry = find_database(config, name);
    if (entry != nullptr) rows.push_back(database_row(config, *entry, name, snapshot));
  }
  rows.push_back(console_database_row(config, totals.exempt_clients));
  append_show_databases(out, rows);
}

void Console::show_pools(std::string& out) {
  WorkerCore& core = client_.core();
  const Config& config = core.config();
  std::vector<pool::PoolSnapshot> snapshots;
  pool::Totals totals;
  {
    PoolLock pools(core.host());
    snapshots = pools->pool_snapshots(core.now());
    totals = pools->totals();
  }
  std::vector<PoolRow> rows;
  for (const pool::PoolSnapshot& snapshot : snapshots) {
    if (!listed(config, snapshot)) continue;
    rows.push_back(pool_row(config, snapshot));
    const DatabaseConfig* entry = find_database(config, snapshot.database);
    if (entry != nullptr && rows.back().host) rows.back().role = core.role_of_host(*entry, *rows.back().host);
  }
  rows.push_back(console_pool_row(totals.exempt_clients));
  append_show_pools(out, rows);
}

void Console::show_hosts(std::string& out) {
  const WorkerCore& core = client_.core();
  std::vector<HostRow> rows;
  for (const auto& [name, group] : core.host_groups()) {
    if (!group.table) continue;
    for (std::size_t i = 0; i < group.table->hosts.size(); ++i) {
      rows.push_back(host_row(name, *group.table, static_cast<router::HostId>(i), router_time(core.now())));
    }
  }
  append_show_hosts(out, rows);
}

void Console::show_users(std::string& out) {
  WorkerCore& core = client_.core();
  const Config& config = core.config();
  std::map<std::string, pool::UserSnapshot> counts;
  for (const auto& [name, secret] : *core.settings()->users) counts[name] = {.name = name};
  for (const auto& [name, user] : config.users) counts[name] = {.name = name};
  counts[std::string(kConsoleDatabase)] = {.name = std::string(kConsoleDatabase)};
  {
    PoolLock pools(core.host());
    for (pool::UserSnapshot& snapshot : pools->user_snapshots()) counts[snapshot.name] = std::move(snapshot);
  }
  std::vector<UserRow> rows;
  for (const auto& [name, snapshot] : counts) rows.push_back(user_row(config, name, snapshot));
  append_show_users(out, rows);
}

void Console::show_lists(std::string& out, const DnsReport& dns) {
  WorkerCore& core = client_.core();
  const Config& config = core.config();
  pool::Totals totals;
  std::size_t peer_pools;
  std::vector<pool::DatabaseSnapshot> databases;
  std::vector<pool::PoolSnapshot> snapshots;
  {
    PoolLock pools(core.host());
    totals = pools->totals();
    peer_pools = pools->peer_snapshots().size();
    databases = pools->database_snapshots();
    snapshots = pools->pool_snapshots(core.now());
  }
  ListsData lists;
  lists.databases = lists.pools = 1;  // the console
  for (const pool::DatabaseSnapshot& database : databases) {
    if (find_database(config, database.name) != nullptr) ++lists.databases;
  }
  for (const pool::PoolSnapshot& snapshot : snapshots) {
    if (listed(config, snapshot)) ++lists.pools;
  }
  lists.users = core.settings()->users->size() + 1;
  lists.peers = config.peers.size();
  lists.peer_pools = peer_pools;
  lists.used_clients = totals.clients;
  lists.login_clients = totals.login_clients;
  lists.used_servers = totals.servers;
  lists.dns_names = dns.hosts.size();
  lists.dns_zones = dns.zones.size();
  lists.dns_queries = dns.queries;
  lists.dns_pending = dns.waiting;
  append_show_lists(out, lists);
}

/// The rows are PgBouncer's. There each is an allocator of its own; here the counts are real, sizes those of the
/// objects without what they point to, and nothing is kept free.
void Console::show_mem(std::string& out, const MemoryUse& use) {
  WorkerCore& core = client_.core();
  const Config& config = core.config();
  pool::Totals totals;
  std::size_t databases, peer_pools;
  {
    PoolLock pools(core.host());
    totals = pools->totals();
    databases = pools->database_snapshots().size();
    peer_pools = pools->peer_snapshots().size();
  }
  const auto row = [](const char* name, std::uint64_t size, std::uint64_t used) {
    MemRow result;
    result.name = name;
    result.size = size;
    result.used = used;
    result.memtotal = size * used;
    return result;
  };
  MemRow buffers = row("iobuf_cache", use.buffers == 0 ? 0 : use.buffer_bytes / use.buffers, use.buffers);
  buffers.memtotal = use.buffer_bytes;
  using Secrets = std::map<std::string, std::string, std::less<>>;
  const std::vector<MemRow> rows{
      row("user_cache", sizeof(Secrets::value_type), core.settings()->users->size() + 1),
      row("credentials_cache", sizeof(Credentials), use.credentials),
      row("db_cache", sizeof(DatabaseConfig), databases + 1),
      row("peer_cache", sizeof(PeerConfig), config.peers.size()),
      row("peer_pool_cache", sizeof(pool::PeerSnapshot), peer_pools),
      row("pool_cache", sizeof(PoolContext), totals.pools),
      row("outstanding_request_cache", sizeof(protocol::ReplyEntry), use.requests),
      row("server_cache", sizeof(ServerSession), totals.servers),
      row("client_cache", sizeof(ClientSession), totals.clients),
      buffers,
      row("var_list_cache", sizeof(protocol::SessionParameters), totals.clients + totals.servers),
      row("server_prepared_statement_cache", sizeof(protocol::Hash128), use.statements)};
  append_show_mem(out, rows);
}

void Console::show_peers(std::string& out) {
  const Config& config = client_.core().config();
  std::vector<PeerRow> rows;
  for (const auto& [id, peer] : config.peers) {
    rows.push_back(peer_row(config, peer));
  }
  append_show_peers(out, rows);
}

void Console::show_peer_pools(std::string& out) {
  std::vector<PeerPoolRow> rows;
  PoolLock pools(client_.core().host());
  for (const pool::PeerSnapshot& peer : pools->peer_snapshots()) {
    rows.push_back(
        {peer.id, peer.cl_active_cancel_req, peer.cl_waiting_cancel_req, peer.sv_active_cancel, peer.sv_login});
  }
  append_show_peer_pools(out, rows);
}

}  // namespace pgweir::core
