#include "pool/worker_leases.hpp"

#include <algorithm>

#include "pool/invariant.hpp"

namespace pgweir::pool {

// ---- WaitingLine ----

void WaitingLine::push(LocalWaiter waiter) {
  if (all_.size() == all_.capacity() && first_ > 0) {
    all_.erase(all_.begin(), all_.begin() + static_cast<std::ptrdiff_t>(first_));
    known_end_ -= first_;
    first_ = 0;
  }
  all_.push_back(waiter);
}

void WaitingLine::insert_known(LocalWaiter waiter) {
  PROXY_INVARIANT(unknown().empty());
  push(waiter);
  ++known_end_;
  const auto begin = all_.begin() + static_cast<std::ptrdiff_t>(first_), last = all_.end() - 1;
  const auto behind =
      std::upper_bound(begin, last, waiter, [](const auto& a, const auto& b) { return a.since < b.since; });
  std::rotate(behind, last, all_.end());
}

LocalWaiter WaitingLine::pop() {
  const LocalWaiter waiter = all_[first_++];
  tidy();
  return waiter;
}

bool WaitingLine::remove(ClientId client) {
  if (empty()) return false;
  if (front().client == client) {
    (void)pop();
    return true;
  }
  const auto begin = all_.begin() + static_cast<std::ptrdiff_t>(first_);
  const auto it = std::find_if(begin, all_.end(), [&](const LocalWaiter& w) { return w.client == client; });
  if (it == all_.end()) return false;
  if (it - all_.begin() < static_cast<std::ptrdiff_t>(known_end_)) --known_end_;
  all_.erase(it);
  return true;
}

void WaitingLine::tidy() {
  known_end_ = std::max(known_end_, first_);
  if (!empty()) return;
  all_.clear();
  first_ = known_end_ = 0;
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
  if (!enabled_ || !pool.board->open()) return Acquired::Ask;
  if (!pool.kept.empty() && pool.waiting.empty() && pool.board->lets_pass(now)) {
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
  if (lease.epoch_ != board.epoch.load(std::memory_order_relaxed)) return false;
  if (now - lease.granted_at_ > kLeaseTime) return false;
  if (!pool.waiting.empty()) {
    if (!board.lets_pass(pool.waiting.front().since)) return false;
    if (pool.waiting.front_known()) {
      served_known_.push_back(pool.waiting.front().client);
      tell_by_ = told_at_ + board.slack / kTellShare;
    }
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

void WorkerLeases::queued(LocalPool& pool, ClientId client, TimePoint since) {
  pool.waiting.insert_known({client, since});
  list(pool);
}

void WorkerLeases::withdraw(ClientId client) {
  for (LocalPool* pool : active_) {
    if (pool->waiting.remove(client)) return;
  }
}

// ---- telling the manager ----

void WorkerLeases::tell(PoolManager& manager, TimePoint now, Actions& out) {
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
  manager.tell_leases(told_, served_known_, now, out);
  served_known_.clear();
}

bool WorkerLeases::settled() const {
  return untold_.empty() && grants_.empty() &&
         std::all_of(active_.begin(), active_.end(), [](const LocalPool* p) { return p->waiting.unknown().empty(); });
}

bool WorkerLeases::should_tell(TimePoint now) const {
  if (untold_.empty()) return false;
  if (!enabled_ || keeps()) return true;
  return !served_known_.empty() && (!busy_ || now > tell_by_);
}

bool WorkerLeases::keeps() const {
  return std::any_of(active_.begin(), active_.end(), [](const LocalPool* pool) { return !pool->kept.empty(); });
}

WorkerLeases::Overdue WorkerLeases::overdue(TimePoint now) {
  for (LocalPool* pool : active_) {
    const LeaseBoard& board = *pool->board;
    const std::span<const LocalWaiter> waiting = pool->waiting.unknown();
    if (waiting.empty()) continue;
    // A server may have come free here in another way than by release(): after its login, a test or a cancel request.
    // Or there are enough elsewhere, and too few here.
    const bool free =
        share(*pool).idle.load(std::memory_order_relaxed) > 0 ||
        (board.idle.load(std::memory_order_relaxed) > 0 && now - waiting.front().since > board.slack / kTellShare);
    if (free || !enabled_ || !board.open()) return all_waiting(*pool);
    std::size_t count = 0;
    while (count < waiting.size() && now - waiting[count].since > board.slack) ++count;
    if (count == 0) continue;
    pool->waiting.make_known(count);
    return {pool->id, waiting.first(count)};
  }
  return {};
}

WorkerLeases::Overdue WorkerLeases::all_waiting(LocalPool& pool) {
  const std::span<const LocalWaiter> waiting = pool.waiting.unknown();
  pool.waiting.make_known(waiting.size());
  return {pool.id, waiting};
}

TimePoint WorkerLeases::next_deadline() const {
  if (!served_known_.empty()) return kLongAgo;
  TimePoint due = kNever;
  for (const LocalPool* pool : active_) {
    const std::span<const LocalWaiter> waiting = pool->waiting.unknown();
    if (!waiting.empty()) due = std::min(due, waiting.front().since + pool->board->slack + Duration(1));
  }
  return due;
}

}  // namespace pgweir::pool
