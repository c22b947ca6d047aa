// Construction, configuration and look-ups of the pool manager.
#include "pool/pool_manager.hpp"

#include <algorithm>

#include "pool/manager_impl.hpp"

namespace pgweir::pool {

PoolManager::PoolManager(ManagerSettings settings) : impl_(std::make_unique<Impl>(settings)) {
  PROXY_INVARIANT(settings.workers > 0);
}

PoolManager::~PoolManager() = default;

DatabaseState& PoolManager::Impl::database(std::string_view name) {
  DatabaseState& state = named(databases, name);
  state.transient = false;
  return state;
}

UserState& PoolManager::Impl::user(std::string_view name) {
  UserState& state = named(users, name);
  state.transient = false;
  return state;
}

DatabaseState* PoolManager::Impl::find_database(std::string_view name) const {
  const auto entry = databases.find(name);
  return entry == databases.end() ? nullptr : entry->second.get();
}

PoolState& PoolManager::Impl::add_pool(DatabaseState& db, UserState& owner, std::string_view host_name) {
  HostAccount* host = nullptr;
  if (!host_name.empty()) {
    std::unique_ptr<HostAccount>& account = db.hosts[std::string(host_name)];
    if (!account) {
      account = std::make_unique<HostAccount>();
      account->name = host_name;
      account->max_servers = db.max_servers;
    }
    host = account.get();
  }
  if (free_pool_ids.empty()) {
    free_pool_ids.push_back(static_cast<std::uint32_t>(pool_index.size()));
    pool_index.emplace_back();
  }
  const std::uint32_t index = free_pool_ids.back();
  free_pool_ids.pop_back();
  const PoolId id{index, pool_index[index].generation};
  PoolState& pool =
      *pools.emplace_back(std::make_unique<PoolState>(id, db, host, owner, settings.workers, settings.fifo_slack));
  pool_index[index].pool = &pool;
  db.pool_of_user.emplace(pool.key(), &pool);
  pool.each_account([&](Account& account) { account.pools.push_back(&pool); });
  if (host != nullptr) {
    pool.home = db.pool_of_user.find(owner.name)->second;
    pool.home->branches.push_back(&pool);
  }
  return pool;
}

void PoolManager::set_limits(std::uint32_t max_client_conn) {
  impl_->settings.max_client_conn = max_client_conn;
}

// New limits are acted on by the next on_time, which is due at once.
void PoolManager::Impl::limits_changed(const Account& account) {
  for (PoolState* pool : account.pools) {
    arm(*pool, last_now);
    publish_rules(*pool);
  }
}

void PoolManager::set_database_limits(std::string_view database, DatabaseLimits limits) {
  DatabaseState& db = impl_->database(database);
  const bool changed = db.max_servers != limits.max_db_connections;
  db.max_servers = limits.max_db_connections;
  for (const auto& [name, host] : db.hosts) host->max_servers = limits.max_db_connections;
  db.max_clients = limits.max_db_client_connections;
  if (!changed) return;
  impl_->limits_changed(db);
}

void PoolManager::set_autodb_idle_timeout(std::string_view database, Duration timeout, TimePoint now) {
  DatabaseState& db = impl_->database(database);
  if (db.idle_timeout == timeout) return;
  db.idle_timeout = timeout;
  impl_->note_use(db, impl_->tick(now));
}

void PoolManager::set_user_limits(std::string_view user, UserLimits limits) {
  UserState& u = impl_->user(user);
  const bool changed = u.max_servers != limits.max_user_connections;
  u.max_servers = limits.max_user_connections;
  u.max_clients = limits.max_user_client_connections;
  if (!changed) return;
  impl_->limits_changed(u);
}

PoolId PoolManager::set_pool(std::string_view database, std::string_view user, const PoolSettings& settings,
                             TimePoint now, Actions& out, std::string_view host) {
  Impl& m = *impl_;
  now = m.tick(now);
  DatabaseState& db = m.database(database);
  PoolState* pool = nullptr;
  if (const auto known = db.pool_of_user.find(PoolState::key_of(user, host)); known != db.pool_of_user.end()) {
    pool = known->second;
  } else {
    PROXY_INVARIANT(host.empty() || db.pool_of_user.contains(user));
    pool = &m.add_pool(db, m.user(user), host);
    m.note_use(*pool, now);
  }
  const bool was_warm = pool->settings.min_pool_size > 0;
  const bool warm = settings.min_pool_size > 0;
  const bool fast_close = settings.server_fast_close && !pool->settings.server_fast_close;
  const bool idle_timeout_changed = settings.pool_idle_timeout != pool->settings.pool_idle_timeout;
  pool->settings = settings;
  m.publish_rules(*pool);
  m.end_leases(*pool);
  pool->cancels.max = pool->cancels_max();
  CancelRegistry::start_waiting(pool->cancels, out);
  pool->each_account([&](Account& account) {
    account.warm_pools += static_cast<std::uint32_t>(warm) - static_cast<std::uint32_t>(was_warm);
  });
  if (idle_timeout_changed) m.note_use(*pool, now);
  if (fast_close) {
    for (const ServerSlot& server : pool->all_servers) m.ask_fast_close(server, out);
  }
  m.run_pool(*pool, now, out);
  m.check_waits(out);
  return pool->id;
}

PoolId PoolManager::find_pool(std::string_view database, std::string_view user, std::string_view host) const {
  const DatabaseState* db = impl_->find_database(database);
  if (db == nullptr) return {};
  const auto entry = db->pool_of_user.find(PoolState::key_of(user, host));
  return entry == db->pool_of_user.end() ? PoolId{} : entry->second->id;
}

std::vector<PoolId> PoolManager::pools() const {
  std::vector<PoolId> ids;
  ids.reserve(impl_->pools.size());
  for (const auto& pool : impl_->pools) ids.push_back(pool->id);
  return ids;
}

std::pair<std::string, std::string> PoolManager::pool_name(PoolId pool) const {
  const PoolState* p = impl_->find_pool(pool);
  if (p == nullptr) return {};
  return {p->database.name, p->user.name};
}

std::string PoolManager::pool_host(PoolId pool) const {
  const PoolState* p = impl_->find_pool(pool);
  return p == nullptr || p->host == nullptr ? std::string() : p->host->name;
}

std::string PoolManager::last_login_error(PoolId pool) const {
  const PoolState* p = impl_->find_pool(pool);
  return p == nullptr ? std::string() : p->last_error;
}

bool PoolManager::last_login_ok(PoolId pool) const {
  const PoolState* p = impl_->find_pool(pool);
  return p != nullptr && p->ever_logged_in && !p->last_login_failed;
}

bool PoolManager::close_needed(ServerId server) const {
  const ServerSlot* s = impl_->server_slots.find(server);
  return s != nullptr && s->close_needed;
}

bool PoolManager::being_canceled(ServerId server) const {
  const ServerSlot* s = impl_->server_slots.find(server);
  return s != nullptr && s->state == ServerState::Canceling;
}

WorkerId PoolManager::server_worker(ServerId server) const {
  const ServerSlot* s = impl_->server_slots.find(server);
  return s == nullptr ? WorkerId{0} : s->worker;
}

}  // namespace pgweir::pool
