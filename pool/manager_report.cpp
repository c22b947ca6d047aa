// Numbers for SHOW and for the simulator's checkers, all read from counters except those that depend on the time.
#include <algorithm>

#include "pool/manager_impl.hpp"

namespace pgweir::pool {

PoolSnapshot PoolManager::Impl::snapshot(const PoolState& pool, TimePoint now) const {
  PoolSnapshot s{.id = pool.id, .database = pool.database.name, .user = pool.user.name};
  if (pool.host != nullptr) s.host = pool.host->name;
  s.cl_active = pool.attached - pool.attached_waiting;
  s.cl_waiting = pool.queue.size() + pool.dedicated.size() + pool.moving_to_client;
  s.cl_active_cancel_req = pool.cancels.sent;
  s.cl_waiting_cancel_req = pool.cancels.connecting + static_cast<std::uint32_t>(pool.cancels.waiting.size());
  s.sv_active = pool.servers.of(ServerState::Active) + pool.moving_to_client;
  s.sv_active_cancel = pool.cancels.sent;
  s.sv_being_canceled = pool.servers.of(ServerState::Canceling);
  for (const ServerSlot& server : pool.idle.all()) ++(pool.needs_check(server, now) ? s.sv_used : s.sv_idle);
  s.sv_idle += pool.servers.of(ServerState::Moving) - pool.moving_to_client;
  s.sv_tested = pool.servers.of(ServerState::Testing);
  s.sv_login = pool.servers.of(ServerState::Login);
  s.closing = pool.servers.of(ServerState::Closing);
  const auto note_wait = [&](const ClientSlot& client) { s.maxwait = std::max(s.maxwait, now - client.since); };
  if (!pool.queue.empty()) note_wait(pool.queue.front());
  if (!pool.dedicated.empty()) note_wait(pool.dedicated.front());
  for (const ServerSlot& server : pool.all_servers) {
    if (server.state != ServerState::Login || server.client == nullptr) continue;
    ++s.cl_waiting;
    note_wait(*server.client);
  }
  return s;
}

std::vector<PoolSnapshot> PoolManager::pool_snapshots(TimePoint now) const {
  std::vector<PoolSnapshot> all;
  all.reserve(impl_->pools.size());
  for (const auto& [name, db] : impl_->databases) {
    for (const auto& [user, pool] : db->pool_of_user) all.push_back(impl_->snapshot(*pool, now));
  }
  return all;
}

std::optional<PoolSnapshot> PoolManager::pool_snapshot(PoolId pool, TimePoint now) const {
  const PoolState* p = impl_->find_pool(pool);
  if (p == nullptr) return std::nullopt;
  return impl_->snapshot(*p, now);
}

std::vector<DatabaseSnapshot> PoolManager::database_snapshots() const {
  std::vector<DatabaseSnapshot> all;
  all.reserve(impl_->databases.size());
  for (const auto& [name, db] : impl_->databases) {
    all.push_back({name, db->servers.total, db->clients, db->paused, db->disabled});
  }
  return all;
}

std::vector<UserSnapshot> PoolManager::user_snapshots() const {
  std::vector<UserSnapshot> all;
  all.reserve(impl_->users.size());
  for (const auto& [name, user] : impl_->users) all.push_back({name, user->servers.total, user->clients});
  return all;
}

Totals PoolManager::totals() const {
  const Impl& m = *impl_;
  return {.clients = m.clients.size(),
          .login_clients = m.counted_clients - m.attached_clients,
          .exempt_clients = m.clients.size() - m.counted_clients,
          .servers = m.servers.total,
          .idle_servers = m.servers.of(ServerState::Idle),
          .waiting_clients = m.waiting_clients,
          .pools = static_cast<std::uint32_t>(m.pools.size()),
          .cancels = m.cancels.size()};
}

}  // namespace pgweir::pool
