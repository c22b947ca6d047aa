// Deadlines: each pool (and each database) is in its heap at most once, at a time that is never later than its next due
// work. Events only move it earlier, so that in steady state no transaction touches the heap; when it fires, the pool
// does what is due and works out its next time afresh.
#include <algorithm>

#include "pool/manager_impl.hpp"

namespace pgweir::pool {

namespace {

TimePoint lifetime_deadline(const PoolState& pool, const ServerSlot& server) {
  if (pool.settings.server_lifetime <= Duration::zero()) return kNever;  // closed at release instead
  const TimePoint old = server.created + pool.settings.server_lifetime;
  return pool.closed_for_lifetime ? std::max(old, pool.last_lifetime_close + pool.lifetime_gap()) : old;
}

bool above_min_pool(const PoolState& pool) {
  return pool.servers.usable() > pool.min_servers();
}

}  // namespace

void PoolManager::Impl::arm_waiting(PoolState& pool, TimePoint now) {
  if (pool.nobody_waits()) return;
  if (pool.login_paused(now)) {
    arm(pool, pool.retry_at);
    return;
  }
  const TimePoint reserve = pool.reserve_from();
  if (reserve > now) arm(pool, reserve);
}

void PoolManager::Impl::arm_idle(PoolState& pool, const ServerSlot& server) {
  arm(pool, lifetime_deadline(pool, server));
  const Duration timeout = pool.settings.server_idle_timeout;
  if (timeout > Duration::zero() && above_min_pool(pool)) arm(pool, pool.idle.longest_idle().idle_since + timeout);
}

TimePoint PoolManager::Impl::idle_deadline(PoolState& pool) const {
  TimePoint due = kNever;
  for (const ServerSlot& server : pool.idle.all()) due = std::min(due, lifetime_deadline(pool, server));
  const Duration timeout = pool.settings.server_idle_timeout;
  if (timeout > Duration::zero() && !pool.idle.empty() && above_min_pool(pool)) {
    due = std::min(due, pool.idle.longest_idle().idle_since + timeout);
  }
  return due;
}

void PoolManager::Impl::close_expired(PoolState& pool, TimePoint now, Actions& out) {
  while (!pool.idle.empty() && pool.excess()) close(pool.idle.longest_idle(), close_reason::kTooMany, now, out);
  for (auto it = pool.idle.all().begin(); it != pool.idle.all().end();) {
    ServerSlot& server = *it++;
    if (pool.lifetime_over(server, now)) close(server, close_reason::kLifetime, now, out);
  }
  const Duration timeout = pool.settings.server_idle_timeout;
  if (timeout <= Duration::zero()) return;
  while (!pool.idle.empty() && above_min_pool(pool) && now - pool.idle.longest_idle().idle_since >= timeout) {
    close(pool.idle.longest_idle(), close_reason::kIdleTimeout, now, out);
  }
}

void PoolManager::Impl::run_pool(PoolState& pool, TimePoint now, Actions& out) {
  close_expired(pool, now, out);
  feed(pool, now, out);
  keep_min_pool(pool, now, out);
  arm(pool, idle_deadline(pool));
}

TimePoint PoolManager::next_deadline() const {
  return std::min(impl_->deadlines.next(), impl_->database_deadlines.next());
}

void PoolManager::on_time(TimePoint now, Actions& out) {
  Impl& m = *impl_;
  now = m.tick(now);
  while (m.deadlines.next() <= now) {
    PoolState& pool = static_cast<PoolState&>(m.deadlines.pop());
    m.run_pool(pool, now, out);
    m.expire(pool, now, out);
  }
  while (m.database_deadlines.next() <= now) {
    m.expire(static_cast<DatabaseState&>(m.database_deadlines.pop()), now, out);
  }
  m.check_waits(out);
}

}  // namespace pgweir::pool
