// The waiting clients of one pool: one queue over all workers in the order of their waiting time, and a sub-queue per
// worker. Decides which waiter a free server goes to; granting it is the manager's work.
#pragma once

#include <cstdint>
#include <vector>

#include "pool/slots.hpp"

namespace pgweir::pool {

class WaiterQueue {
  using AllList =
      boost::intrusive::list<ClientSlot, boost::intrusive::member_hook<ClientSlot, Hook, &ClientSlot::queue_hook>>;
  using WorkerList =
      boost::intrusive::list<ClientSlot, boost::intrusive::member_hook<ClientSlot, Hook, &ClientSlot::worker_hook>>;

 public:
  explicit WaiterQueue(WorkerId workers) : by_worker_(workers) {}

  /// Places `client` by its `since` and `seq`. O(1) for a newcomer. One that comes back with an old time (`seq` 0) is
  /// sought from the front, where it belongs; another, which has waited elsewhere for a moment, from the end.
  void insert(ClientSlot& client);
  void remove(ClientSlot& client);

  [[nodiscard]] bool empty() const { return all_.empty(); }
  [[nodiscard]] std::uint32_t size() const { return static_cast<std::uint32_t>(all_.size()); }
  [[nodiscard]] ClientSlot& front() { return all_.front(); }
  [[nodiscard]] const ClientSlot& front() const { return all_.front(); }
  /// Calls `f` with each waiter in turn; the queue stays as it is meanwhile.
  template <class Function>
  void each(Function f) {
    for (ClientSlot& client : all_) f(client);
  }
  /// The waiter behind `skip` others; nullptr if there are not so many. O(skip).
  [[nodiscard]] const ClientSlot* at(std::uint32_t skip) const;
  /// Who gets a server that is free on `worker`: the oldest waiter of all, or the oldest one on that worker if it
  /// queued at most `slack` later. The queue must not be empty.
  [[nodiscard]] ClientSlot& choose(WorkerId worker, Duration slack);

  /// Whether `client` may be served before the oldest waiter: it came at most `slack` later, or nobody waits. With no
  /// slack at all even equal times are served strictly in the order of arrival.
  [[nodiscard]] bool yields_to(const ClientSlot& client, Duration slack) const {
    return all_.empty() || (slack > Duration::zero() && client.since - all_.front().since <= slack);
  }

  /// For check_invariants: order, sub-queues and membership.
  void check(const PoolState& pool) const;

 private:
  AllList all_;
  std::vector<WorkerList> by_worker_;
};

}  // namespace pgweir::pool
