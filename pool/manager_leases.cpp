// Servers that workers hand on by themselves (worker_leases.hpp): what workers are let know, and what they tell.
#include <algorithm>

#include "pool/manager_impl.hpp"

namespace pgweir::pool {

std::shared_ptr<const LeaseBoard> PoolManager::lease_board(PoolId pool) const {
  const PoolState* p = impl_->find_pool(pool);
  return p == nullptr ? nullptr : p->board;
}

// Where a limit is shared with other pools, or the order of use is prescribed, only the manager can say whose turn it
// is. And whether a server may be used again at all, where that is not a matter of how old it is.
bool PoolManager::Impl::may_lease(const PoolState& pool) const {
  const PoolSettings& of = pool.settings;
  const bool each_use_counts =
      of.server_lifetime <= Duration::zero() || (of.server_check && of.server_check_delay <= Duration::zero());
  const bool apart = settings.fifo_slack > Duration::zero() && !of.server_round_robin && !of.held && !each_use_counts;
  bool limited = false;
  pool.each_account([&](const Account& account) { limited = limited || account.limited(); });
  return apart && !limited && !paused(pool);
}

Duration::rep PoolManager::Impl::oldest_waiter(const PoolState& pool) {
  if (!pool.leases || !pool.dedicated.empty()) return LeaseBoard::kClosed;
  return pool.queue.empty() ? LeaseBoard::kNobody : pool.queue.front().since.time_since_epoch().count();
}

void PoolManager::Impl::publish_queue(PoolState& pool) {
  LeaseBoard::set(pool.board->oldest, oldest_waiter(pool));
}

void PoolManager::Impl::publish_size(PoolState& pool) {
  LeaseBoard::set(pool.board->full, pool.uses_reserve());
}

void PoolManager::Impl::publish_idle(PoolState& pool, WorkerId worker) {
  LeaseBoard::set(pool.board->of_worker[worker].idle, static_cast<std::uint32_t>(pool.idle.size_on(worker)));
  LeaseBoard::set(pool.board->idle, static_cast<std::uint32_t>(pool.idle.size()));
}

void PoolManager::Impl::publish_rules(PoolState& pool) {
  pool.leases = may_lease(pool);
  publish_queue(pool);
  publish_size(pool);
}

void PoolManager::Impl::end_leases(PoolState& pool) {
  pool.board->epoch.fetch_add(1, std::memory_order_relaxed);
}

void PoolManager::tell_leases(std::span<const LeasedServer> servers, std::span<const ClientId> served, TimePoint now,
                              Actions& out) {
  Impl& m = *impl_;
  now = m.tick(now);
  // They may stand in the queue yet, or another server may be on its way to them.
  for (const ClientId client : served) {
    if (ClientSlot* c = m.clients.find(client); c != nullptr && c->queue_of != nullptr) m.dequeue(*c);
  }
  for (const ClientId client : served) {
    if (ClientSlot* c = m.clients.find(client)) m.withdraw(*c, now, out);
  }
  // All of them first: they may have gone round among the same clients.
  for (const LeasedServer& told : servers) {
    ServerSlot* s = m.server_slots.find(told.server);
    PROXY_INVARIANT(s != nullptr && s->state == ServerState::Active && !s->dedicated);
    m.unlink(*s, out);
    s->last_active = now;
  }
  for (const LeasedServer& told : servers) {
    if (!told.client) continue;
    ClientSlot* c = m.clients.find(told.client);
    ServerSlot& s = *m.server_slots.find(told.server);
    PROXY_INVARIANT(c != nullptr && c->worker == s.worker);
    m.link(*c, s);
    if (!told.pending) continue;
    c->grant_pending = true;
    c->since = std::min(told.waited_since, now);
    c->seq = ++m.last_seq;
  }
  for (const LeasedServer& told : servers) {
    if (!told.client) m.settle(*m.server_slots.find(told.server), now, out);
  }
  m.check_waits(out);
}

void PoolManager::enqueue(WorkerId worker, PoolId pool, std::span<const LocalWaiter> clients, TimePoint now,
                          Actions& out) {
  Impl& m = *impl_;
  now = m.tick(now);
  PoolState* p = m.find_pool(pool);
  PROXY_INVARIANT(p != nullptr);
  for (const LocalWaiter& waiter : clients) {
    ClientSlot* c = m.clients.find(waiter.client);
    PROXY_INVARIANT(c != nullptr && c->worker == worker && c->queue_of == nullptr && c->server == nullptr);
    c->since = std::min(waiter.since, now);
    c->seq = ++m.last_seq;
    m.enqueue(*c, *p);
  }
  m.serve_from_own(*p, worker, now, out);
  m.open_wanted(*p, now, out);
  m.check_waits(out);
}

}  // namespace pgweir::pool
