// Order of the waiting clients; see the header.
#include "pool/waiter_queue.hpp"

#include <algorithm>

#include "pool/invariant.hpp"

namespace pgweir::pool {

namespace {

template <class List>
void insert_in_order(List& list, ClientSlot& client) {
  if (list.empty() || !queued_before(client, list.back())) {
    list.push_back(client);
    return;
  }
  if (client.seq != 0) {
    auto before =
        std::find_if(list.rbegin(), list.rend(), [&](const ClientSlot& c) { return queued_before(c, client); });
    list.insert(before.base(), client);
    return;
  }
  auto behind = std::find_if(list.begin(), list.end(), [&](const ClientSlot& c) { return queued_before(client, c); });
  list.insert(behind, client);
}

}  // namespace

void WaiterQueue::insert(ClientSlot& client) {
  insert_in_order(all_, client);
  insert_in_order(by_worker_[client.worker], client);
}

void WaiterQueue::remove(ClientSlot& client) {
  all_.erase(all_.iterator_to(client));
  WorkerList& own = by_worker_[client.worker];
  own.erase(own.iterator_to(client));
}

const ClientSlot* WaiterQueue::at(std::uint32_t skip) const {
  if (skip >= size()) return nullptr;
  return &*std::next(all_.begin(), skip);
}

ClientSlot& WaiterQueue::choose(WorkerId worker, Duration slack) {
  ClientSlot& oldest = all_.front();
  WorkerList& own = by_worker_[worker];
  return !own.empty() && yields_to(own.front(), slack) ? own.front() : oldest;
}

void WaiterQueue::check(const PoolState& pool) const {
  std::size_t in_sublists = 0;
  for (WorkerId w = 0; w < by_worker_.size(); ++w) {
    const ClientSlot* previous = nullptr;
    for (const ClientSlot& c : by_worker_[w]) {
      PROXY_INVARIANT(c.worker == w && c.queue_of == &pool);
      PROXY_INVARIANT(previous == nullptr || !queued_before(c, *previous));
      previous = &c;
      ++in_sublists;
    }
  }
  const ClientSlot* previous = nullptr;
  for (const ClientSlot& c : all_) {
    PROXY_INVARIANT(c.queue_of == &pool && c.waiting && c.server == nullptr && !c.grant_pending);
    PROXY_INVARIANT(c.worker_hook.is_linked());
    PROXY_INVARIANT(previous == nullptr || !queued_before(c, *previous));
    previous = &c;
  }
  PROXY_INVARIANT(in_sublists == all_.size());
}

}  // namespace pgweir::pool
