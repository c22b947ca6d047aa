// The idle servers of one pool, longest idle first, over all workers and per worker. Decides which of them serves an
// acquire.
#pragma once

#include <vector>

#include "pool/slots.hpp"

namespace pgweir::pool {

class IdleServers {
  using AllList =
      boost::intrusive::list<ServerSlot, boost::intrusive::member_hook<ServerSlot, Hook, &ServerSlot::idle_hook>>;
  using WorkerList =
      boost::intrusive::list<ServerSlot,
                             boost::intrusive::member_hook<ServerSlot, Hook, &ServerSlot::idle_worker_hook>>;

 public:
  explicit IdleServers(WorkerId workers) : by_worker_(workers), offering_(workers, false) {}

  /// `server.idle_since` must not be before that of any server in the list.
  void add(ServerSlot& server) {
    all_.push_back(server);
    by_worker_[server.worker].push_back(server);
  }
  void remove(ServerSlot& server) {
    all_.erase(all_.iterator_to(server));
    WorkerList& own = by_worker_[server.worker];
    own.erase(own.iterator_to(server));
  }

  [[nodiscard]] bool empty() const { return all_.empty(); }
  [[nodiscard]] std::size_t size() const { return all_.size(); }
  [[nodiscard]] ServerSlot& longest_idle() { return all_.front(); }
  [[nodiscard]] const AllList& all() const { return all_; }
  [[nodiscard]] AllList& all() { return all_; }

  /// The server for a client on `worker`: the newest of that worker, or else the newest of all (`round_robin`: the
  /// longest idle). The list must not be empty.
  [[nodiscard]] ServerSlot& pick(WorkerId worker, bool round_robin) {
    WorkerList& own = by_worker_[worker];
    if (!own.empty()) return round_robin ? own.front() : own.back();
    return round_robin ? all_.front() : all_.back();
  }

  [[nodiscard]] bool empty_on(WorkerId worker) const { return by_worker_[worker].empty(); }
  [[nodiscard]] std::size_t size_on(WorkerId worker) const { return by_worker_[worker].size(); }

  // ---- offers: workers that were asked for what stays idle there (OfferIdle) ----

  void set_offering(WorkerId worker, bool offering) { offering_[worker] = offering; }
  /// Servers on workers that were asked already. O(workers).
  [[nodiscard]] std::size_t offered() const {
    std::size_t sum = 0;
    for (std::size_t w = 0; w < by_worker_.size(); ++w) sum += offering_[w] ? by_worker_[w].size() : 0;
    return sum;
  }
  /// The worker with most servers that was not asked yet; there must be one with any. O(workers).
  [[nodiscard]] WorkerId richest_unasked() const {
    std::size_t best = 0;
    for (std::size_t w = 1; w < by_worker_.size(); ++w) {
      const std::size_t size = offering_[w] ? 0 : by_worker_[w].size();
      if (offering_[best] || size > by_worker_[best].size()) best = w;
    }
    return static_cast<WorkerId>(best);
  }

 private:
  AllList all_;
  std::vector<WorkerList> by_worker_;
  std::vector<bool> offering_;
};

}  // namespace pgweir::pool
