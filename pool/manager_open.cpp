// When a new server connection is opened and for whom, and when an idle one of another pool is evicted to make room.
// Every permit is taken in open(), which insists on all limits.
#include <algorithm>
#include <array>

#include "pool/manager_impl.hpp"

namespace pgweir::pool {

namespace {

/// Whether a permit that `around` gave back may be what `pool` waits for.
bool shares_limit(const PoolState& pool, const PoolState& around) {
  return &pool == &around || (around.connections.limited() && &pool.connections == &around.connections) ||
         (around.user.limited() && &pool.user == &around.user);
}

}  // namespace

std::uint32_t PoolManager::Impl::openable(const PoolState& pool, TimePoint now) const {
  return paused(pool) || !opening ? 0 : pool.openable(now);
}

ServerSlot& PoolManager::Impl::add_server(PoolState& pool, WorkerId worker, TimePoint created) {
  ServerSlot& server = server_slots.add();
  server.pool = &pool;
  server.worker = worker;
  server.created = created;
  pool.all_servers.push_back(server);
  pool.servers.enter(ServerState::Login);
  pool.each_account([](Account& account) { account.servers.enter(ServerState::Login); });
  servers.enter(ServerState::Login);
  publish_size(pool);
  ++pool.logins;
  return server;
}

void PoolManager::Impl::open(PoolState& pool, WorkerId worker, ClientSlot* own, TimePoint now, Actions& out) {
  const PoolSettings& limits = pool.settings;
  PROXY_INVARIANT(permits_free(pool));
  PROXY_INVARIANT(limits.pool_size == 0 || pool.servers.total < limits.pool_size ||
                  pool.servers.total - limits.pool_size < limits.reserve_pool_size);
  const std::string_view notice = pool.uses_reserve() ? kReserveNotice : std::string_view{};
  ServerSlot& server = add_server(pool, worker, now);
  server.address_turn = pool.settings.one_address ? pool.address_turn : pool.address_turn++;
  if (own != nullptr) {
    server.dedicated = true;
    --pool.logins;
    ++pool.dedicated_logins;
    link(*own, server);
    set_waiting(*own, true);
  }
  out.push_back({.kind = ActionKind::OpenServer,
                 .worker = worker,
                 .server = server.id,
                 .client = own != nullptr ? own->id : ClientId{},
                 .pool = pool.id,
                 .token = server.address_turn,
                 .reason = std::string(notice)});
}

void PoolManager::Impl::open_for_first(PoolState& pool, TimePoint now, Actions& out) {
  const ClientSlot& first = *pool.first_uncovered();
  if (!first.dedicated) return open(pool, first.worker, nullptr, now, out);
  ClientSlot& own = pool.dedicated.front();
  dequeue(own);
  open(pool, own.worker, &own, now, out);
}

void PoolManager::Impl::make_room(PoolState& pool, TimePoint now, Actions& out) {
  if (!pool.lacks_room()) [[likely]]
    return;
  if (paused(pool) || pool.login_paused(now)) return;
  while (pool.lacks_room() && pool.idle.size() > pool.queue.size()) {
    close(pool.idle.longest_idle(), close_reason::kEvicted, now, out);
  }
}

void PoolManager::Impl::open_wanted(PoolState& pool, TimePoint now, Actions& out) {
  make_room(pool, now, out);
  while (openable(pool, now) > 0) {
    if (!permits_free(pool)) {
      evict_for(pool, now, out);
      break;
    }
    open_for_first(pool, now, out);
  }
  ask_for_idle(pool, out);
  arm_waiting(pool, now);
}

void PoolManager::Impl::open_wanted_around(const PoolState& around, TimePoint now, Actions& out) {
  for (auto it = hungry.begin(); it != hungry.end();) {
    PoolState& pool = *it++;  // it may leave the list with its last waiter, who got a connection of his own
    if (shares_limit(pool, around)) open_wanted(pool, now, out);
  }
}

PoolState* PoolManager::Impl::oldest_openable(const PoolState& around, TimePoint now) {
  PoolState* best = nullptr;
  for (PoolState& pool : hungry) {
    if (!shares_limit(pool, around) || !permits_free(pool) || openable(pool, now) == 0) continue;
    if (best == nullptr || queued_before(*pool.first_uncovered(), *best->first_uncovered())) best = &pool;
  }
  return best;
}

void PoolManager::Impl::feed(PoolState& pool, TimePoint now, Actions& out) {
  if (!pool.connections.limited() && !pool.user.limited()) {
    open_wanted(pool, now, out);
    return;
  }
  while (PoolState* next = oldest_openable(pool, now)) open_for_first(*next, now, out);
  // Whoever got nothing may have to evict, or to wait for a moment of its own.
  open_wanted_around(pool, now, out);
}

std::uint32_t PoolManager::Impl::demand(const Account& account, TimePoint now) const {
  std::uint32_t sum = 0;
  for (const PoolState& pool : hungry) {
    const bool holds_it = &pool.connections == &account || &pool.user == &account;
    if (holds_it) sum += openable(pool, now);
  }
  return sum;
}

bool PoolManager::Impl::evict_longest_idle(Account& account, TimePoint now, Actions& out) {
  ServerSlot* victim = nullptr;
  for (PoolState* pool : account.pools) {
    if (pool->idle.empty() || !pool->queue.empty()) continue;
    ServerSlot& candidate = pool->idle.longest_idle();
    if (victim == nullptr || candidate.idle_since < victim->idle_since) victim = &candidate;
  }
  if (victim == nullptr) return false;
  close(*victim, close_reason::kEvicted, now, out);
  return true;
}

void PoolManager::Impl::evict_for(PoolState& pool, TimePoint now, Actions& out) {
  const std::array<Account*, 2> accounts{&pool.connections, &pool.user};
  const auto hopeless = [](const Account* a) {
    return a->full() && a->servers.of(ServerState::Idle) + a->servers.of(ServerState::Closing) == 0;
  };
  // With two full limits an eviction under one of them is in vain while the other can give nothing.
  if (std::any_of(accounts.begin(), accounts.end(), hopeless)) return;
  for (Account* account : accounts) {
    if (!account->full()) continue;
    // Connections that are closing already will free permits too.
    while (account->servers.of(ServerState::Idle) > 0 &&
           account->servers.of(ServerState::Closing) < demand(*account, now)) {
      if (!evict_longest_idle(*account, now, out)) break;
    }
  }
}

void PoolManager::Impl::offer_to_other_pools(PoolState& pool, TimePoint now, Actions& out) {
  const auto contended = [](const Account& a) { return a.full() && a.hungry_pools > 0; };
  if (!contended(pool.connections) && !contended(pool.user)) [[likely]]
    return;
  open_wanted_around(pool, now, out);
}

void PoolManager::Impl::keep_min_pool(PoolState& pool, TimePoint now, Actions& out) {
  const std::uint32_t wanted = pool.min_servers();
  if (pool.servers.alive() >= wanted || pool.all_logins() > 0 || paused(pool) || !opening || !permits_free(pool))
    return;
  if (pool.settings.pool_size != 0 && pool.servers.total >= pool.settings.pool_size) return;
  if (pool.login_paused(now)) {
    arm(pool, pool.retry_at);
  } else if (now < pool.min_pool_from) {
    arm(pool, pool.min_pool_from);
  } else {
    open(pool, pool.next_worker, nullptr, now, out);
    pool.next_worker = static_cast<WorkerId>((pool.next_worker + 1) % settings.workers);
  }
}

void PoolManager::Impl::keep_min_pools_around(PoolState& pool, TimePoint now, Actions& out) {
  keep_min_pool(pool, now, out);
  for (Account* account : {&pool.connections, static_cast<Account*>(&pool.user)}) {
    if (!account->limited() || account->warm_pools == 0) continue;
    for (PoolState* other : account->pools) {
      if (account->full()) break;
      keep_min_pool(*other, now, out);
    }
  }
}

}  // namespace pgweir::pool
