// Forgetting what nobody uses: pools after pool_idle_timeout, databases that came by `*` after autodb_idle_timeout.
// Workers keep things of their own about a pool (its statistics, what its servers report), so that a pool is forgotten
// in two steps: those that hold it are asked to let go, and when the last one has, it ends. A worker where a session
// still refers to the pool says nothing and is asked again later; so no worker ever has the id of a pool that is gone.
#include <algorithm>

#include "pool/manager_impl.hpp"

namespace pgweir::pool {

// Cheap enough for every place where a use ends: most pools have no such timeout.
void PoolManager::Impl::note_use(PoolState& pool, TimePoint now) {
  pool.last_used = now;
  if (const Duration timeout = pool.settings.pool_idle_timeout; timeout > Duration::zero()) arm(pool, now + timeout);
  note_use(pool.database, now);
}

void PoolManager::Impl::note_use(DatabaseState& db, TimePoint now) {
  db.last_used = now;
  plan_end(db);
}

void PoolManager::Impl::plan_end(DatabaseState& db) {
  if (db.idle_timeout > Duration::zero()) database_deadlines.not_later_than(db, db.last_used + db.idle_timeout);
}

bool PoolManager::Impl::unused(const DatabaseState& db) const {
  // What an operator said of it (PAUSE, DISABLE) must not be forgotten by itself.
  if (db.clients > 0 || db.paused || db.disabled || all_paused) return false;
  const auto waited_for = [&](const Wait& wait) { return wait.database == &db; };
  return std::all_of(db.pools.begin(), db.pools.end(), [](const PoolState* pool) { return pool->unused(); }) &&
         std::none_of(waits.begin(), waits.end(), waited_for);
}

void PoolManager::Impl::expire(PoolState& pool, TimePoint now, Actions& out) {
  const Duration timeout = pool.settings.pool_idle_timeout;
  // The end of its next use, or of the last of its parts, looks again.
  if (timeout <= Duration::zero() || !pool.unused() || !pool.branches.empty()) return;
  if (now - pool.last_used < timeout) {
    arm(pool, pool.last_used + timeout);
  } else {
    ask_to_forget(pool, now, out);
  }
}

void PoolManager::Impl::expire(DatabaseState& db, TimePoint now, Actions& out) {
  if (db.idle_timeout <= Duration::zero() || !unused(db)) return;
  if (now - db.last_used < db.idle_timeout) {
    plan_end(db);
    return;
  }
  std::vector<PoolState*> all = db.pools;
  std::stable_partition(all.begin(), all.end(), [](const PoolState* pool) { return pool->home != nullptr; });
  for (PoolState* pool : all) ask_to_forget(*pool, now, out);
  if (db.pools.empty()) {
    erase_database(db);
  } else {
    database_deadlines.not_later_than(db, now + kForgetRetry);
  }
}

void PoolManager::Impl::ask_to_forget(PoolState& pool, TimePoint now, Actions& out) {
  if (!pool.branches.empty()) return;  // later, after them
  if (pool.holders == 0) {
    erase_pool(pool);
    return;
  }
  for (WorkerId worker = 0; worker < settings.workers; ++worker) {
    if (((pool.holders >> worker) & 1U) == 0) continue;
    out.push_back({.kind = ActionKind::ForgetPool, .worker = worker, .pool = pool.id});
  }
  if (pool.settings.pool_idle_timeout > Duration::zero()) arm(pool, now + kForgetRetry);
}

void PoolManager::Impl::erase_pool(PoolState& pool) {
  PROXY_INVARIANT(pool.unused() && pool.branches.empty() && pool.holders == 0);
  pool.each_account([&](Account& account) {
    if (pool.settings.min_pool_size > 0) --account.warm_pools;
    std::erase(account.pools, &pool);
  });
  pool.database.pool_of_user.erase(pool.key());
  if (pool.home != nullptr) {
    std::erase(pool.home->branches, &pool);
    note_use(*pool.home, last_now);
  }
  if (pool.host != nullptr && pool.host->pools.empty()) {
    const bool waited_for =
        std::any_of(waits.begin(), waits.end(), [&](const Wait& wait) { return wait.host == pool.host; });
    if (!waited_for) pool.database.hosts.erase(pool.database.hosts.find(pool.host->name));
  }
  deadlines.remove(pool);
  PoolIndex& index = pool_index[pool.id.index];
  index.pool = nullptr;
  if (++index.generation == 0) index.generation = 1;
  free_pool_ids.push_back(pool.id.index);
  std::erase_if(pools, [&](const auto& one) { return one.get() == &pool; });
}

void PoolManager::Impl::erase_database(DatabaseState& db) {
  database_deadlines.remove(db);
  databases.erase(databases.find(db.name));
}

void PoolManager::hold_pool(PoolId pool, WorkerId worker) {
  PoolState* p = impl_->find_pool(pool);
  if (p != nullptr) p->holders |= std::uint64_t{1} << worker;
}

bool PoolManager::pool_forgotten(PoolId pool, WorkerId worker, TimePoint now, Actions& out) {
  Impl& m = *impl_;
  now = m.tick(now);
  PoolState* p = m.find_pool(pool);
  if (p == nullptr) return true;
  if (!p->unused() || !p->branches.empty()) return false;
  p->holders &= ~(std::uint64_t{1} << worker);
  if (p->holders != 0) return true;
  DatabaseState& db = p->database;
  m.erase_pool(*p);
  m.expire(db, now, out);
  return true;
}

}  // namespace pgweir::pool
