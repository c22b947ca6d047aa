// check_invariants: recounts everything from the slots and compares. It knows no rule of its own; a difference means
// that some operation forgot one.
#include <algorithm>
#include <array>

#include "pool/manager_impl.hpp"

namespace pgweir::pool {

void PoolManager::Impl::check_client(const ClientSlot& c) const {
  PROXY_INVARIANT(c.worker < settings.workers);
  PROXY_INVARIANT((c.database == nullptr) == (c.user == nullptr));
  PROXY_INVARIANT(c.queue_of == nullptr || c.server == nullptr);
  PROXY_INVARIANT((c.queue_of != nullptr) == c.queue_hook.is_linked());
  PROXY_INVARIANT((c.queue_of != nullptr) == c.worker_hook.is_linked());
  const bool moving_here = c.server != nullptr && c.server->state == ServerState::Moving;
  const bool opened_for = c.server != nullptr && c.server->state == ServerState::Login;
  PROXY_INVARIANT(c.waiting == (c.queue_of != nullptr || moving_here || opened_for));
  if (c.server != nullptr) {
    PROXY_INVARIANT(c.server->client == &c);
    PROXY_INVARIANT(c.server->dedicated == c.dedicated);
    PROXY_INVARIANT(moving_here ? c.server->move_to == c.worker : c.server->worker == c.worker);
  }
  PROXY_INVARIANT(!c.grant_pending || (c.server != nullptr && c.server->state == ServerState::Active));
  PROXY_INVARIANT(!c.has_key || cancels.client_of(c.key) == &c);
}

void PoolManager::Impl::check_server(const ServerSlot& s) const {
  PROXY_INVARIANT(s.worker < settings.workers && s.pool != nullptr && s.pool_hook.is_linked());
  PROXY_INVARIANT(s.client == nullptr || s.client->server == &s);
  if (s.state == ServerState::Active) PROXY_INVARIANT(s.client != nullptr);
  if (s.client != nullptr) {
    PROXY_INVARIANT(s.state == ServerState::Active ||
                    s.state == (s.dedicated ? ServerState::Login : ServerState::Moving));
  }
  if (s.dedicated) {
    PROXY_INVARIANT(s.state == ServerState::Login || s.state == ServerState::Active || s.state == ServerState::Closing);
    PROXY_INVARIANT((s.client == nullptr) == (s.state == ServerState::Closing));
  }
  PROXY_INVARIANT((s.state == ServerState::Idle) == s.idle_hook.is_linked());
  PROXY_INVARIANT((s.state == ServerState::Idle) == s.idle_worker_hook.is_linked());
  if (s.state == ServerState::Login) PROXY_INVARIANT(s.login_open);
  if (s.login_open) PROXY_INVARIANT(s.state == ServerState::Login || s.state == ServerState::Closing);
  std::uint32_t sent = 0;
  for (const CancelSlot& cancel : s.cancels) {
    PROXY_INVARIANT(cancel.server == &s && cancel.pool == s.pool && cancel.lane == &s.pool->cancels);
    if (cancel.sent) ++sent;
    if (!cancel.sent) PROXY_INVARIANT(s.state == ServerState::Active);
  }
  PROXY_INVARIANT(sent == s.cancels_sent);
  if (s.state == ServerState::Canceling) PROXY_INVARIANT(sent > 0);
  if (sent > 0) {
    PROXY_INVARIANT(s.state == ServerState::Active || s.state == ServerState::Testing ||
                    s.state == ServerState::Canceling || s.state == ServerState::Closing);
  }
}

void PoolManager::Impl::check_pool(const PoolState& pool, TimePoint now) const {
  StateCounts counts;
  std::uint32_t logins = 0, dedicated_logins = 0, moving = 0;
  for (const ServerSlot& s : pool.all_servers) {
    PROXY_INVARIANT(s.pool == &pool);
    counts.enter(s.state);
    if (s.login_open) ++(s.dedicated ? dedicated_logins : logins);
    if (s.state == ServerState::Moving && s.client != nullptr) ++moving;
  }
  PROXY_INVARIANT(counts == pool.servers && logins == pool.logins && moving == pool.moving_to_client);
  PROXY_INVARIANT(dedicated_logins == pool.dedicated_logins);
  PROXY_INVARIANT(pool.idle.size() == counts.of(ServerState::Idle));
  std::size_t on_workers = 0;
  for (WorkerId w = 0; w < settings.workers; ++w) on_workers += pool.idle.size_on(w);
  PROXY_INVARIANT(on_workers == pool.idle.size());
  PROXY_INVARIANT(pool.leases == may_lease(pool));
  PROXY_INVARIANT(pool.board->oldest == oldest_waiter(pool) && pool.board->full == pool.uses_reserve());
  for (WorkerId w = 0; w < settings.workers; ++w) {
    PROXY_INVARIANT(pool.board->of_worker[w].idle == pool.idle.size_on(w));
  }
  PROXY_INVARIANT(std::is_sorted(pool.idle.all().begin(), pool.idle.all().end(),
                                 [](const auto& a, const auto& b) { return a.idle_since < b.idle_since; }));
  pool.queue.check(pool);
  pool.dedicated.check(pool);
  PROXY_INVARIANT(pool.nobody_waits() != pool.hungry_hook.is_linked());
  PROXY_INVARIANT((pool.host != nullptr) == (pool.home != nullptr));
  // Nobody waits beside an idle server that no worker was asked for, nor for a connection that could be opened.
  PROXY_INVARIANT(pool.idle.offered() >= std::min<std::size_t>(pool.queue.size(), pool.idle.size()));
  if (paused(pool)) {
    PROXY_INVARIANT(pool.idle.empty() && counts.of(ServerState::Login) == 0);
  } else if (permits_free(pool) && deadlines.next() > now) {
    PROXY_INVARIANT(openable(pool, now) == 0);
  }
  // Nor does a server that nobody else was promised keep anybody from a connection of his own.
  if (!paused(pool) && !pool.login_paused(now) && pool.lacks_room() && deadlines.next() > now) {
    PROXY_INVARIANT(pool.idle.size() <= pool.queue.size() || pool.idle.offered() > 0);
  }
}

namespace {

void check_account(const Account& account, std::uint32_t clients) {
  StateCounts counts;
  std::uint32_t hungry = 0, warm = 0;
  for (const PoolState* pool : account.pools) {
    bool mine = false;
    pool->each_account([&](const Account& one) { mine = mine || &one == &account; });
    PROXY_INVARIANT(mine);
    for (std::size_t i = 0; i < kServerStates; ++i) counts.by_state[i] += pool->servers.by_state[i];
    counts.total += pool->servers.total;
    if (!pool->nobody_waits()) ++hungry;
    if (pool->settings.min_pool_size > 0) ++warm;
  }
  PROXY_INVARIANT(counts == account.servers && hungry == account.hungry_pools && warm == account.warm_pools);
  PROXY_INVARIANT(clients == account.clients);
}

}  // namespace

void PoolManager::Impl::check_accounts() const {
  std::map<const Account*, std::uint32_t> bound;
  clients.for_each([&](const ClientSlot& c) {
    if (c.database == nullptr) return;
    ++bound[c.database];
    ++bound[c.user];
  });
  std::map<const DatabaseState*, std::uint32_t> marked;
  server_slots.for_each([&](const ServerSlot& s) {
    if (s.close_needed) ++marked[&s.pool->database];
  });
  std::uint32_t all_marked = 0;
  for (const auto& [name, db] : databases) {
    check_account(*db, bound[db.get()]);
    for (const auto& [host_name, host] : db->hosts) check_account(*host, 0);
    PROXY_INVARIANT(db->close_needed == marked[db.get()]);
    all_marked += db->close_needed;
  }
  for (const auto& [name, user] : users) check_account(*user, bound[user.get()]);
  PROXY_INVARIANT(all_marked == close_needed);
}

void PoolManager::Impl::check_cancels() const {
  std::map<const CancelLane*, std::array<std::uint32_t, 3>> seen;
  cancels.slots().for_each([&](const CancelSlot& c) {
    ++seen[c.lane][c.waiting() ? 0 : c.sent ? 2 : 1];
    PROXY_INVARIANT((c.server != nullptr) == c.hook.is_linked());
    PROXY_INVARIANT(!c.waiting() || !c.sent);
    if (c.pool == nullptr) return;
    PROXY_INVARIANT(c.lane == &c.pool->cancels && (c.server != nullptr || c.sent));
  });
  const auto check = [&](const CancelLane& lane) {
    const auto& counts = seen[&lane];
    PROXY_INVARIANT(counts[0] == lane.waiting.size() && counts[1] == lane.connecting && counts[2] == lane.sent);
    PROXY_INVARIANT(lane.waiting.empty() || !lane.has_room());
  };
  for (const auto& pool : pools) check(pool->cancels);
  for (const auto& [id, peer] : peers) {
    PROXY_INVARIANT(id == peer->id && (peer->configured || !peer->cancels.empty()));
    PROXY_INVARIANT(!peer->configured || (peer_id != 0 && id != peer_id));
    check(peer->cancels);
  }
  PROXY_INVARIANT(seen.size() == pools.size() + peers.size());
}

void PoolManager::Impl::check_totals() const {
  std::uint32_t attached = 0, waiting = 0, counted = 0;
  std::size_t keys = 0;
  std::map<const PoolState*, std::array<std::uint32_t, 2>> of_pool;
  clients.for_each([&](const ClientSlot& c) {
    if (c.waiting) ++waiting;
    if (!c.exempt) ++counted;
    if (c.has_key) ++keys;
    if (c.attached == nullptr) return;
    ++attached;
    ++of_pool[c.attached][0];
    if (c.waiting) ++of_pool[c.attached][1];
  });
  PROXY_INVARIANT(attached == attached_clients && waiting == waiting_clients && counted == counted_clients);
  PROXY_INVARIANT(keys == cancels.keys());
  StateCounts counts;
  std::size_t in_pools = 0;
  for (const auto& pool : pools) {
    const auto& seen = of_pool[pool.get()];
    PROXY_INVARIANT(seen[0] == pool->attached && seen[1] == pool->attached_waiting);
    for (std::size_t i = 0; i < kServerStates; ++i) counts.by_state[i] += pool->servers.by_state[i];
    counts.total += pool->servers.total;
    in_pools += pool->all_servers.size();
  }
  PROXY_INVARIANT(counts == servers && in_pools == server_slots.size() && servers.total == in_pools);
  PROXY_INVARIANT(pools.size() + free_pool_ids.size() == pool_index.size());
  PROXY_INVARIANT(deadlines.consistent() && database_deadlines.consistent());
}

void PoolManager::check_invariants(TimePoint now) const {
  const Impl& m = *impl_;
  now = std::max(now, m.last_now);
  m.clients.for_each([&](const ClientSlot& c) { m.check_client(c); });
  m.server_slots.for_each([&](const ServerSlot& s) { m.check_server(s); });
  for (const auto& pool : m.pools) m.check_pool(*pool, now);
  m.check_accounts();
  m.check_cancels();
  m.check_totals();
}

}  // namespace pgweir::pool
