// Online restart: connections that change from one process to the next, and when none of them is in between two states.
#include "pool/manager_impl.hpp"

namespace pgweir::pool {

ServerId PoolManager::adopt_server(PoolId pool, AdoptedServer server, ClientId client, TimePoint now, Actions& out) {
  Impl& m = *impl_;
  now = m.tick(now);
  PoolState* p = m.find_pool(pool);
  PROXY_INVARIANT(p != nullptr);
  ServerSlot& s = m.add_server(*p, server.worker, server.created);
  m.end_login(s);
  p->ever_logged_in = true;
  s.key = std::move(server.key);
  s.last_active = server.last_active;
  s.used = true;
  if (server.close_needed) m.mark_close_needed(s, out);
  const ServerId id = s.id;
  if (ClientSlot* c = m.clients.find(client)) {
    PROXY_INVARIANT(c->worker == server.worker && !c->waiting);
    m.set_state(s, ServerState::Active);
    m.link(*c, s);
  } else {
    m.settle(s, now, out);
  }
  return id;
}

void PoolManager::note_earlier_logins(PoolId pool) {
  PoolState* p = impl_->find_pool(pool);
  PROXY_INVARIANT(p != nullptr);
  p->ever_logged_in = true;
}

void PoolManager::set_opening(bool on, TimePoint now, Actions& out) {
  Impl& m = *impl_;
  now = m.tick(now);
  m.opening = on;
  if (!on) return;
  for (const auto& pool : m.pools) m.run_pool(*pool, now, out);
}

AdoptedServer PoolManager::state_of(ServerId server) const {
  const ServerSlot* s = impl_->server_slots.find(server);
  if (s == nullptr) return {};
  return {s->worker, s->key, s->created, s->last_active, s->close_needed};
}

bool PoolManager::at_rest() const {
  const StateCounts& servers = impl_->servers;
  if (servers.of(ServerState::Idle) + servers.of(ServerState::Active) != servers.total) return false;
  bool granting = false;
  impl_->clients.for_each([&](const ClientSlot& client) { granting = granting || client.grant_pending; });
  return !granting && impl_->cancels.size() == 0;
}

}  // namespace pgweir::pool
