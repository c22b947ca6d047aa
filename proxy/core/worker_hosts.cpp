// What a worker does when the hosts behind a database change their roles: servers of a host that lost its role are let
// go, and clients that wait are sent elsewhere.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "pool/mutation.hpp"
#include "proxy/core/console.hpp"
#include "proxy/core/worker_core.hpp"

namespace pgweir::core {

// ---- groups ----

HostGroup& WorkerCore::host_group(const std::string& name) {
  HostGroup& group = host_groups_[name];
  group.name = name;
  return group;
}

Catalog& WorkerCore::catalog_of(HostGroup& group, const std::string& dbname) {
  std::unique_ptr<Catalog>& catalog = group.catalogs[dbname];
  if (!catalog) catalog = std::make_unique<Catalog>(random());
  return *catalog;
}

std::uint64_t WorkerCore::random() {
  while (random_ == 0) {
    unsigned char bytes[sizeof random_];
    host_.crypto().random_bytes(bytes);
    for (const unsigned char byte : bytes) random_ = (random_ << 8) | byte;
  }
  random_ ^= random_ << 13;
  random_ ^= random_ >> 7;
  random_ ^= random_ << 17;
  return random_;
}

// After resolve(): what the context has to do with other hosts and other contexts.
void WorkerCore::join_group(PoolContext& context) {
  context.group = nullptr;
  context.catalog = nullptr;
  if (context.home == nullptr) context.on_hosts.clear();
  if (context.entry == nullptr || !is_routed(*context.entry)) return;
  HostGroup& group = host_group(host_group_name(*context.entry));
  const std::size_t hosts = context.entry->hosts.size();
  group.outstanding.resize(hosts);
  group.down_since.resize(hosts, pool::kNever);
  context.group = &group;
  if (context.policy.read_write_split) {
    context.catalog = &catalog_of(group, context.dbname);
    take_isolation(context);
  }
  if (context.home == nullptr) {
    context.on_hosts.resize(hosts);
    context.writes = host_.shared_writes(group.name + '/' + context.dbname);
  } else {
    context.home->on_hosts.resize(hosts);
    context.home->on_hosts[static_cast<std::size_t>(*context.host_id)] = &context;
  }
}

PoolContext* WorkerCore::context_on(PoolContext& home, router::HostId host) {
  const auto place = static_cast<std::size_t>(host);
  if (place >= home.on_hosts.size()) return nullptr;
  if (home.on_hosts[place] != nullptr) return home.on_hosts[place];
  auto context = std::make_unique<PoolContext>();
  context->database = home.database;
  context->user = home.user;
  context->host_name = host_name_of(home.entry->hosts[place]);
  context->home = &home;
  return add_context(std::move(context), *home.entry);
}

PoolContext* WorkerCore::context_named(const std::string& database, const std::string& pool_user,
                                       const std::string& host) {
  PoolContext* home = context_for(database, pool_user);
  if (home == nullptr || host.empty()) return home;
  for (std::size_t i = 0; i < home->on_hosts.size(); ++i) {
    if (host_name_of(home->entry->hosts[i]) == host) return context_on(*home, static_cast<router::HostId>(i));
  }
  return nullptr;
}

// ---- roles ----

void WorkerCore::set_host_table(const std::string& name, std::shared_ptr<const router::HostTable> table) {
  HostGroup& group = host_group(name);
  if (frozen_) {  // another process may have been told of every connection here: none may be touched
    group.next_table = std::move(table);
    return;
  }
  const std::size_t hosts = table->hosts.size();
  group.outstanding.resize(hosts);
  group.down_since.resize(hosts, pool::kNever);
  const std::shared_ptr<const router::HostTable> before = std::exchange(group.table, std::move(table));
  const router::HostTable& now = *group.table;
  for (std::size_t i = 0; i < hosts; ++i) {
    const auto host = static_cast<router::HostId>(i);
    const router::HostState& state = now.hosts[i];
    const bool was_primary = before && before->primary == host;
    const bool gone = state.health == router::HostHealth::Down || state.health == router::HostHealth::Fenced;
    if (!gone) {
      group.down_since[i] = pool::kNever;
    } else if (group.down_since[i] == pool::kNever) {
      group.down_since[i] = now_;
    }
    const bool known = before && i < before->hosts.size();
    const bool was_gone = known && (before->hosts[i].health == router::HostHealth::Down ||
                                    before->hosts[i].health == router::HostHealth::Fenced);
    const bool other_role = known && before->hosts[i].role != state.role && before->hosts[i].role != HostRole::Unknown;
    if (PGWEIR_MUTANT(22)) continue;
    if (was_primary != (now.primary == host) || gone != was_gone || other_role) role_changed(group, host);
  }
  drop_lost_servers(group);
  end_login_pauses(group);
  route_again(&group);
  if (group.demand.table_came(now, router_time(now_))) host_.positions_wanted(name);
  std::erase_if(watching_hosts_, [&](pool::ClientId id) {
    ClientSession* client = find_client(id);
    return client == nullptr || client->console() == nullptr || !client->console()->hosts_changed(name, group.table);
  });
}

void WorkerCore::take_up_hosts() {
  for (auto& [name, group] : host_groups_) {
    if (auto table = std::exchange(group.next_table, nullptr)) set_host_table(name, std::move(table));
  }
  route_again(nullptr);
}

// What is idle on the host, and what comes free there, does not serve on: what such a server says of its role was true
// of the past.
void WorkerCore::role_changed(HostGroup& group, router::HostId host) {
  for (const auto& [id, context] : contexts_) {
    if (context->group != &group || context->host_id != host) continue;
    PoolLock pools(host_);
    pools->recycle_pool(id, group.table->version, now_, actions_);
  }
}

// Transactions on a primary that cannot be reached may go on as long as no other host is the primary: it may be busy,
// or the network slow. When there is another one, or the host has been away for as long as anybody waits for one, they
// end, and so does at once what runs on a standby or a fenced host.
void WorkerCore::drop_lost_servers(HostGroup& group) {
  const router::HostTable& table = *group.table;
  const Duration patience = config().failover_wait_timeout;
  std::vector<ServerSession*> lost;
  for (const auto& [id, server] : servers_) {
    const PoolContext& context = server->context();
    if (context.group != &group || !context.host_id) continue;
    const auto place = static_cast<std::size_t>(*context.host_id);
    const TimePoint since = group.down_since[place];
    // Whatever else is known of its host: a transaction that chose it as the primary must not go on beside another one.
    const bool deposed = table.primary && table.primary != context.host_id && server->client() != nullptr &&
                         server->client()->chose_primary();
    if (deposed) lost.push_back(server.get());
    if (deposed || since == pool::kNever) continue;
    const bool may_go_on = table.hosts[place].health == router::HostHealth::Down && !table.primary &&
                           server->role() != HostRole::Standby && now_ - since < patience;
    if (!may_go_on && !PGWEIR_MUTANT(14)) lost.push_back(server.get());
  }
  for (ServerSession* server : lost) {
    if (!server->closed() && !server->ending()) server->lose_host();
  }
}

// A host that can be reached need not wait for the end of the pause that a failed login began.
void WorkerCore::end_login_pauses(const HostGroup& group) {
  for (const auto& [id, context] : contexts_) {
    if (context->group != &group || !context->host_id) continue;
    if (group.table->host(*context->host_id).health != router::HostHealth::Up) continue;
    PoolLock pools(host_);
    pools->end_login_pause(id, now_, actions_);
  }
}

// Clients that wait are decided on anew; null: all of them.
void WorkerCore::route_again(const HostGroup* group) {
  if (frozen_) return;
  std::vector<ClientSession*> waiting;
  std::erase_if(routed_waiters_, [&](pool::ClientId id) {
    ClientSession* client = find_client(id);
    if (client == nullptr) return true;
    if (client->waits_in(group)) {
      waiting.push_back(client);
    } else if (client->waits_in(nullptr)) {
      return false;
    }
    client->set_listed(false);  // it says so again if it still waits then
    return true;
  });
  // The oldest first, so that they stand in the new queue as in the old one.
  std::sort(waiting.begin(), waiting.end(),
            [](const ClientSession* a, const ClientSession* b) { return a->waiting_since() < b->waiting_since(); });
  for (ClientSession* client : waiting) {
    if (client->closed()) continue;
    client->route_again();
    if (client->waiting()) note_routed_waiter(*client);
  }
}

void WorkerCore::note_routed_waiter(ClientSession& client) {
  if (client.listed()) return;
  client.set_listed(true);
  routed_waiters_.push_back(client.id());
}

void WorkerCore::hold_writes(const std::string& name, bool on) {
  HostGroup& group = host_group(name);
  group.writes_held = on;
  route_again(&group);
}

bool WorkerCore::writes_held(const std::string& group) const {
  const auto known = host_groups_.find(group);
  return known != host_groups_.end() && known->second.writes_held;
}

std::shared_ptr<const router::HostTable> WorkerCore::host_table(const std::string& group) const {
  const auto known = host_groups_.find(group);
  return known == host_groups_.end() ? nullptr : known->second.table;
}

KnownClusters WorkerCore::known_clusters() const {
  KnownClusters known;
  for (const auto& [name, group] : host_groups_) {
    const auto& table = group.next_table ? group.next_table : group.table;
    if (table && table->cluster != router::KnownCluster{}) known[name] = table->cluster;
  }
  return known;
}

void WorkerCore::witness(const PoolContext& context, router::Witness witness) {
  if (context.group != nullptr && context.host_id) host_.witness(context.group->name, *context.host_id, witness);
}

void WorkerCore::note_role(const PoolContext& context, HostRole role) {
  if (role == HostRole::Unknown || context.group == nullptr || !context.host_id || !context.group->table) return;
  if (context.group->table->host(*context.host_id).role == role) return;
  witness(context, router::witness_of(role));
}

std::string_view WorkerCore::role_of_host(const DatabaseConfig& database, const HostPort& host) const {
  HostRole role = HostRole::Unknown;
  const auto group = host_groups_.find(host_group_name(database));
  if (group != host_groups_.end() && group->second.table) {
    for (std::size_t i = 0; i < database.hosts.size() && i < group->second.table->hosts.size(); ++i) {
      if (database.hosts[i] == host) role = group->second.table->hosts[i].role;
    }
  }
  return role_name(role);
}

// ---- statements ----

void WorkerCore::set_catalog(const std::string& group, const std::string& dbname,
                             std::shared_ptr<const router::CatalogKnowledge> knowledge) {
  HostGroup& known = host_group(group);
  Catalog& catalog = catalog_of(known, dbname);
  catalog.knowledge = std::move(knowledge);
  ++catalog.epoch;
  for (const auto& [id, context] : contexts_) {
    if (context->catalog == &catalog) take_isolation(*context);
  }
  route_again(&known);
}

void WorkerCore::take_isolation(PoolContext& context) {
  const auto& knowledge = context.catalog->knowledge;
  context.policy.serializable = knowledge && knowledge->serializable_by_default(context.user);
}

// Until the catalogue is read again; each worker finds out for itself.
void WorkerCore::learn_serializable(PoolContext& context) {
  PoolContext& home = context.client_side();
  if (!home.policy.read_write_split || std::exchange(home.policy.serializable, true)) return;
  log(LogLevel::Log,
      fmt::format("{}/{} is serializable by default, which a standby refuses: its reads stay on the primary",
                  home.database, home.user));
}

void WorkerCore::learn_write(const PoolContext& context, const std::string& text) {
  post_to_others([group = context.group->name, dbname = context.dbname, text](WorkerCore& there) {
    there.learned(group, dbname, text);
  });
  // Here at once: the statement is about to be looked at again.
  learned(context.group->name, context.dbname, text);
}

void WorkerCore::learned(const std::string& group, const std::string& dbname, const std::string& text) {
  Catalog& catalog = catalog_of(host_group(group), dbname);
  catalog.statements.learn_write(text);
  ++catalog.epoch;
}

std::optional<std::size_t> WorkerCore::host_for_server(PoolContext& context, std::uint64_t turn) {
  if (context.host_id) return static_cast<std::size_t>(*context.host_id);
  if (!context.routed()) return static_cast<std::size_t>(turn);
  if (!context.group->table) return std::nullopt;
  // A connection of a client's own, which replicates: as target_session_attrs says, else from the primary.
  router::RoutePolicy policy = context.policy;
  if (policy.read_write_split) policy = {.attrs = router::TargetSessionAttrs::Primary};
  const auto decision = router::decide({}, {}, *context.group->table, policy, {}, context.group->outstanding, random());
  if (decision.kind != router::RouteKind::Host) return std::nullopt;
  return static_cast<std::size_t>(decision.host);
}

}  // namespace pgweir::core
