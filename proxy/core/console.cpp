#include "proxy/core/console.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "protocol/frame_header.hpp"
#include "protocol/message_builder.hpp"
#include "protocol/message_type.hpp"
#include "protocol/message_view.hpp"
#include "proxy/core/admin_format.hpp"
#include "proxy/core/client_session.hpp"
#include "proxy/core/worker_core.hpp"

namespace pgweir::core {

namespace frontend = protocol::frontend;

namespace {
constexpr std::string_view kConsole = "pgbouncer";
constexpr std::size_t kCommandMax = 65536;

/// load_balance_hosts is shown where there is a choice.
std::optional<LoadBalanceHosts> shown_balance(const DatabaseConfig* entry) {
  if (entry == nullptr || entry->hosts.size() < 2) return std::nullopt;
  return entry->load_balance_hosts;
}
}  // namespace

Console::Console(ClientSession& client, bool admin) : client_(client), admin_(admin) {}

Console::~Console() {
  if (token_ == 0) return;
  PoolLock pools(client_.core().host());
  pools->stop_wait(token_);
}

void Console::welcome(std::uint64_t cancel_key) {
  std::string out;
  protocol::append_authentication_ok(out);
  std::vector<std::pair<std::string, std::string>> own;
  const auto& names = *client_.core().settings()->tracked;
  const auto& values = client_.parameters().tracked->values;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (values[i]) own.emplace_back(names.name(i), *values[i]);
  }
  append_console_welcome(out, own);
  char secret[4];
  protocol::store_u32(secret, static_cast<std::uint32_t>(cancel_key));
  protocol::append_backend_key_data(out, static_cast<std::uint32_t>(cancel_key >> 32), {secret, sizeof secret});
  protocol::append_ready_for_query(out, 'I');
  answer(out);
}

void Console::answer(std::string& out) {
  const ByteView view = out;
  client_.deliver(std::span<const ByteView>(&view, 1));
}

void Console::done(std::string_view tag) {
  std::string out;
  append_console_done(out, tag);
  busy_ = pausing_ = false;
  token_ = 0;
  answer(out);
  client_.core().wake(client_);
}

void Console::error(std::string_view text, std::string_view sqlstate) {
  std::string out;
  append_console_error(out, text, sqlstate);
  client_.core().log(LogLevel::Error, client_.log_name() + std::string(text));
  busy_ = pausing_ = false;
  token_ = 0;
  answer(out);
  client_.core().wake(client_);
}

std::size_t Console::consume(ByteView in) {
  std::size_t pos = 0;
  while (pos < in.size() && !busy_) {
    protocol::FrameHeader header;
    const auto status = read_frame_header(in.substr(pos), kCommandMax, header);
    if (status == protocol::FrameStatus::NeedMore) break;
    if (status == protocol::FrameStatus::BadLength) {
      client_.fatal("bad packet");
      return in.size();
    }
    if (in.size() - pos < header.total()) break;
    const ByteView body = in.substr(pos + protocol::kHeaderSize, header.body());
    pos += header.total();
    switch (header.type) {
      case frontend::Query: {
        const auto query = protocol::parse_query(body);
        if (!query) {
          client_.fatal("incomplete query");
          return in.size();
        }
        if (client_.core().config().disable_pqexec) {
          client_.fatal("PQexec disallowed");
          return in.size();
        }
        run(query->sql);
        break;
      }
      case frontend::Terminate:
        client_.disconnect("client close request");
        return in.size();
      case frontend::Parse:
      case frontend::Bind:
      case frontend::Execute:
        error("extended query protocol not supported by admin console");
        client_.fatal("bad packet");
        return in.size();
      default:
        error(fmt::format("unsupported packet type for admin console: {}", static_cast<int>(header.type)));
        client_.fatal("bad packet");
        return in.size();
    }
    // Some commands end this very connection, and with it this object.
    if (client_.state() != ClientSession::State::Console) return in.size();
  }
  return pos;
}

void Console::run(std::string_view sql) {
  const AdminCommand command = parse_admin_command(sql);
  if (needs_admin(command) && !admin_) return error("admin access needed");
  if (!command.error.empty()) return error(command.error);
  std::string out;
  switch (command.verb) {
    case AdminVerb::Show:
      return show(command);
    case AdminVerb::FakeShow:
      append_fake_show(out, command.argument);
      break;
    case AdminVerb::SetIgnored:
      append_set_ignored(out);
      break;
    default:
      return act(command);
  }
  protocol::append_ready_for_query(out, 'I');
  answer(out);
}

void Console::act(const AdminCommand& command) {
  switch (command.verb) {
    case AdminVerb::Pause:
      return pause(command);
    case AdminVerb::Resume:
      return resume(command);
    case AdminVerb::Kill:
      return kill(command);
    case AdminVerb::KillClient:
      return kill_client(command);
    case AdminVerb::Reconnect:
      return reconnect(command);
    case AdminVerb::Disable:
      return set_disabled(command, true);
    case AdminVerb::Enable:
      return set_disabled(command, false);
    case AdminVerb::WaitClose:
      return wait_close(command);
    case AdminVerb::Shutdown:
      return shut_down(command);
    case AdminVerb::Reload:
    case AdminVerb::Set: {
      hold(command);
      WorkerCore& core = client_.core();
      const auto kind = command.verb == AdminVerb::Set ? ProcessCommand::Kind::Set : ProcessCommand::Kind::Reload;
      core.host().process_command({kind, command.key, command.value, core.id(), client_.id()});
      return;
    }
    default:
      return error("this command is not supported by this version of pgweir");
  }
}

void Console::hold(const AdminCommand& command) {
  busy_ = true;
  held_tag_ = command_tag(command);
}

void Console::process_command_done(const std::string& text) {
  if (!busy_) return;
  if (text.empty()) return done(held_tag_);
  error(text, held_tag_ == "RELOAD" ? "F0000" : "08P01");
}

bool Console::wait_over(std::uint64_t token) {
  if (token_ == 0 || token != token_) return false;
  done(held_tag_);
  return true;
}

void Console::interrupt() {
  if (!busy_ || token_ == 0) return;
  WorkerCore& core = client_.core();
  {
    PoolLock pools(core.host());
    pools->stop_wait(token_);
    if (pausing_) (void)pools->resume_all(core.now(), core.actions());
  }
  protocol::ErrorText text{.severity = "ERROR", .sqlstate = "57014", .message = "canceled"};
  std::string out;
  protocol::append_error(out, text);
  protocol::append_ready_for_query(out, 'I');
  busy_ = pausing_ = false;
  token_ = 0;
  answer(out);
  core.wake(client_);
}

bool Console::check_database(const AdminCommand& command, const char* verb) {
  WorkerCore& core = client_.core();
  if (command.argument == kConsole) {
    error(fmt::format("cannot {} admin db: {}", verb, command.argument));
    return false;
  }
  if (find_database(core.config(), command.argument) == nullptr) {
    error(fmt::format("no such database: {}", command.argument));
    return false;
  }
  PoolLock pools(core.host());
  pools->add_database(command.argument);
  return true;
}

void Console::pause(const AdminCommand& command) {
  WorkerCore& core = client_.core();
  if (!command.argument.empty() && !check_database(command, "pause")) return;
  pool::PoolManager::DatabaseResult result;
  {
    PoolLock pools(core.host());
    if (!command.argument.empty() && pools->all_paused()) {
      result = pool::PoolManager::DatabaseResult::Already;
    } else {
      result = command.argument.empty() ? pools->pause_all(core.now(), core.actions())
                                        : pools->pause(command.argument, core.now(), core.actions());
    }
  }
  if (result == pool::PoolManager::DatabaseResult::Already) return error("already suspended/paused");
  hold(command);
  pausing_ = command.argument.empty();
  token_ = core.next_number();
  PoolLock pools(core.host());
  pools->wait_for(pool::PoolManager::WaitFor::NoActiveServers, command.argument, core.id(), token_, core.now(),
                  core.actions());
}

void Console::resume(const AdminCommand& command) {
  WorkerCore& core = client_.core();
  if (!command.argument.empty()) {
    if (command.argument == kConsole || find_database(core.config(), command.argument) == nullptr) {
      return error(fmt::format("no such database: {}", command.argument));
    }
    pool::PoolManager::DatabaseResult result;
    {
      PoolLock pools(core.host());
      result = pools->resume(command.argument, core.now(), core.actions());
    }
    if (result != pool::PoolManager::DatabaseResult::Ok) {
      return error(fmt::format("database {} is not paused", command.argument));
    }
    return done("RESUME");
  }
  if (core.shutdown() != ShutdownMode::None) return error("pooler is shutting down");
  pool::PoolManager::DatabaseResult result;
  {
    PoolLock pools(core.host());
    result = pools->resume_all(core.now(), core.actions());
  }
  if (result != pool::PoolManager::DatabaseResult::Ok) return error("pooler is not paused/suspended");
  done("RESUME");
}

void Console::kill(const AdminCommand& command) {
  WorkerCore& core = client_.core();
  std::vector<std::string> databases;
  if (command.argument.empty()) {
    PoolLock pools(core.host());
    if (pools->all_paused()) databases.emplace_back();  // told below
    for (const auto& [name, entry] : core.config().databases) databases.push_back(name);
    for (const auto& row : pools->database_snapshots()) databases.push_back(row.name);
  } else {
    if (!check_database(command, "kill")) return;
    databases.push_back(command.argument);
  }
  if (!databases.empty() && databases.front().empty()) return error("already suspended/paused");
  std::sort(databases.begin(), databases.end());
  databases.erase(std::unique(databases.begin(), databases.end()), databases.end());
  bool paused = false;
  {
    PoolLock pools(core.host());
    if (!command.argument.empty()) paused = pools->is_paused(command.argument);
    if (!paused) {
      for (const std::string& name : databases) {
        pools->add_database(name);
        pools->kill(name, "database removed", core.now(), core.actions());
      }
    }
  }
  if (paused) return error("already suspended/paused");
  done("KILL");
}

void Console::kill_client(const AdminCommand& command) {
  WorkerCore& core = client_.core();
  hold(command);
  const auto worker = static_cast<pool::WorkerId>(command.client_id % core.host().worker_count());
  core.host().post(worker, [number = command.client_id, origin = core.id(), asker = client_.id()](WorkerCore& there) {
    const bool found = there.kill_client(number);
    there.host().post(origin, [found, asker](WorkerCore& here) {
      here.process_command_done(asker, found ? "" : "client not found");
    });
  });
}

void Console::reconnect(const AdminCommand& command) {
  WorkerCore& core = client_.core();
  if (!command.argument.empty() && !check_database(command, "reconnect")) return;
  {
    PoolLock pools(core.host());
    pools->reconnect(command.argument, core.now(), core.actions());
  }
  for (pool::WorkerId worker = 0; worker < core.host().worker_count(); ++worker) {
    core.host().post(worker, [database = command.argument](WorkerCore& there) { there.forget_reports(database); });
  }
  done("RECONNECT");
}

void Console::set_disabled(const AdminCommand& command, bool disabled) {
  WorkerCore& core = client_.core();
  if (command.argument.empty()) return error("a database is required");
  if (!check_database(command, disabled ? "disable" : "enable")) return;
  {
    PoolLock pools(core.host());
    (void)pools->set_disabled(command.argument, disabled);
  }
  done(disabled ? "DISABLE" : "ENABLE");
}

void Console::wait_close(const AdminCommand& command) {
  WorkerCore& core = client_.core();
  if (!command.argument.empty() && command.argument == kConsole) {
    return error(fmt::format("cannot wait in admin db: {}", command.argument));
  }
  if (!command.argument.empty() && !check_database(command, "wait in")) return;
  hold(command);
  token_ = core.next_number();
  PoolLock pools(core.host());
  pools->wait_for(pool::PoolManager::WaitFor::NoCloseNeeded, command.argument, core.id(), token_, core.now(),
                  core.actions());
}

void Console::shut_down(const AdminCommand& command) {
  WorkerCore& core = client_.core();
  auto kind = ProcessCommand::Kind::ShutdownNow;
  if (command.shutdown == AdminShutdown::WaitForServers) kind = ProcessCommand::Kind::ShutdownWaitForServers;
  if (command.shutdown == AdminShutdown::WaitForClients) kind = ProcessCommand::Kind::ShutdownWaitForClients;
  if (kind != ProcessCommand::Kind::ShutdownNow) done("SHUTDOWN");
  core.host().process_command({kind, {}, {}, core.id(), client_.id()});
}

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
    case ShowWhat::Totals: {
      busy_ = true;
      const bool sockets = command.what == ShowWhat::Clients || command.what == ShowWhat::Servers ||
                           command.what == ShowWhat::Sockets || command.what == ShowWhat::ActiveSockets;
      collect_reports(core, sockets,
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
