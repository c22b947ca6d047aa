#include "pool/worker_leases.hpp"

#include <algorithm>

#include "pool/invariant.hpp"
#include "pool/mutation.hpp"

namespace pgweir::pool {

// ---- WaitingLine ----

void WaitingLine::push(LocalWaiter waiter) {
  if (all_.size() == all_.capacity() && first_ > 0) {
    all_.erase(all_.begin(), all_.begin() + static_cast<std::ptrdiff_t>(first_));
    first_ = 0;
  }
  all_.push_back(waiter);
}

LocalWaiter WaitingLine::pop() {
  const LocalWaiter waiter = all_[first_++];
  if (empty()) {
    all_.clear();
    first_ = 0;
  }
  return waiter;
}

void WaitingLine::remove(ClientId client) {
  const auto begin = all_.begin() + static_cast<std::ptrdiff_t>(first_);
  all_.erase(std::remove_if(begin, all_.end(), [&](const LocalWaiter& w) { return w.client == client; }), all_.end());
}

// ---- WorkerLeases ----

void WorkerLeases::list(LocalPool& pool) {
  if (pool.listed) return;
  pool.listed = true;
  active_.push_back(&pool);
}

void WorkerLeases::tidy() {
  std::erase_if(active_, [](LocalPool* pool) {
    if (!pool->kept.empty() || !pool->waiting.empty()) return false;
    pool->listed = false;
    return true;
  });
}

void WorkerLeases::forget(LocalPool& pool) {
  PROXY_INVARIANT(pool.kept.empty() && pool.waiting.empty());
  tidy();
}

void WorkerLeases::hold(ServerLease& lease, ClientId client) {
  lease.holder_ = client;
  if (lease.untold_) return;
  lease.untold_ = true;
  untold_.push_back(&lease);
}

bool WorkerLeases::may_wait(const LocalPool& pool, TimePoint now) const {
  const LeaseBoard& board = *pool.board;
  return board.full.load(std::memory_order_relaxed) && share(pool).idle.load(std::memory_order_relaxed) == 0 &&
         now - pool.last_release <= board.slack;
}

WorkerLeases::Acquired WorkerLeases::acquire(LocalPool& pool, ClientId client, TimePoint now, ServerId& server) {
  if (!enabled_ || !pool.board->lets_pass(now)) return Acquired::Ask;
  const bool nobody_before = pool.waiting.empty() && share(pool).waiting.load(std::memory_order_relaxed) == 0;
  if (nobody_before && !pool.kept.empty()) {
    ServerLease& lease = *pool.kept.back();
    pool.kept.pop_back();
    hold(lease, client);
    server = lease.server_;
    return Acquired::Granted;
  }
  if (!may_wait(pool, now)) return Acquired::Ask;
  pool.waiting.push({client, now});
  list(pool);
  return Acquired::Waits;
}

bool WorkerLeases::release(LocalPool& pool, ServerLease& lease, TimePoint now) {
  const LeaseBoard& board = *pool.board;
  if (!enabled_ || !lease.leased_ || !board.open()) return false;
  pool.last_release = now;
  if (lease.epoch_ != board.epoch.load(std::memory_order_relaxed) && !PGWEIR_MUTANT(34)) return false;
  if (now - lease.granted_at_ > kLeaseTime) return false;
  // Those of this worker who stand in the manager's queue came before those who wait here.
  if (share(pool).waiting.load(std::memory_order_relaxed) > 0) return false;
  if (!pool.waiting.empty()) {
    if (!board.lets_pass(pool.waiting.front().since)) return false;
    const LocalWaiter next = pool.waiting.pop();
    hold(lease, next.client);
    lease.pending_ = true;
    lease.holder_since_ = next.since;
    grants_.push_back({next.client, lease.server_});
    return true;
  }
  if (!busy_) return false;
  hold(lease, {});
  pool.kept.push_back(&lease);
  list(pool);
  return true;
}

void WorkerLeases::granted(ServerLease& lease, ClientId client, std::uint64_t epoch, TimePoint now) {
  lease.holder_ = client;
  lease.pending_ = false;
  lease.leased_ = true;
  lease.epoch_ = epoch;
  lease.granted_at_ = now;
}

WorkerLeases::Taken WorkerLeases::take(ServerLease& lease, ClientId client) {
  if (!lease.pending_ || lease.holder_ != client) return Taken::Stale;
  if (!lease.untold_) return Taken::Ask;
  lease.pending_ = false;
  return Taken::Yes;
}

void WorkerLeases::withdraw(ClientId client) {
  for (LocalPool* pool : active_) pool->waiting.remove(client);
}

// ---- telling the manager ----

const std::vector<LeasedServer>& WorkerLeases::tell(TimePoint now) {
  told_.clear();
  for (ServerLease* lease : untold_) {
    told_.push_back({lease->server_, lease->holder_, lease->pending_, lease->holder_since_});
    lease->untold_ = false;
    if (!lease->holder_) lease->leased_ = false;
  }
  untold_.clear();
  for (LocalPool* pool : active_) pool->kept.clear();
  tidy();
  told_at_ = now;
  return told_;
}

bool WorkerLeases::should_tell(TimePoint now) const {
  if (!enabled_ && !untold_.empty()) return true;
  return std::any_of(active_.begin(), active_.end(), [&](const LocalPool* pool) {
    if (pool->kept.empty()) return false;
    const LeaseBoard& board = *pool->board;
    return !busy_ || !enabled_ || !board.open() || board.somebody_waits() || now - told_at_ > board.slack;
  });
}

const WorkerLeases::Overdue* WorkerLeases::overdue(TimePoint now) {
  for (LocalPool* pool : active_) {
    const LeaseBoard& board = *pool->board;
    const auto late = [&] { return !pool->waiting.empty() && now - pool->waiting.front().since > board.slack; };
    if (pool->waiting.empty()) continue;
    // A server may have come free here in another way than by release(): after its login, a test or a cancel request.
    const bool free = share(*pool).idle.load(std::memory_order_relaxed) > 0;
    if (free || !enabled_ || !board.open()) return all_waiting(*pool);
    if (!late()) continue;
    overdue_.pool = pool->id;
    overdue_.clients.clear();
    while (late()) overdue_.clients.push_back(pool->waiting.pop());
    return &overdue_;
  }
  return nullptr;
}

const WorkerLeases::Overdue* WorkerLeases::all_waiting(LocalPool& pool) {
  if (pool.waiting.empty()) return nullptr;
  overdue_.pool = pool.id;
  overdue_.clients.clear();
  while (!pool.waiting.empty()) overdue_.clients.push_back(pool.waiting.pop());
  return &overdue_;
}

TimePoint WorkerLeases::deadline() const {
  TimePoint due = kNever;
  for (const LocalPool* pool : active_) {
    if (!pool->kept.empty()) return kLongAgo;
    if (!pool->waiting.empty()) due = std::min(due, pool->waiting.front().since + pool->board->slack + Duration(1));
  }
  return due;
}

}  // namespace pgweir::pool
