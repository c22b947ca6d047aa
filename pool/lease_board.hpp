// What the manager lets every worker know of one pool without taking the lock: enough to decide whether the worker may
// hand a server from one of its clients to the next by itself (worker_leases.hpp). Written under the lock, read by any
// worker at any time; what is read may be a moment old, and every rule that follows from it allows for that.
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>
#include <vector>

#include "pool/ids.hpp"
#include "pool/time.hpp"

namespace pgweir::pool {

struct LeaseBoard {
  /// Values of `oldest` that are no time.
  static constexpr Duration::rep kClosed = std::numeric_limits<Duration::rep>::min();  ///< ask the manager, always
  static constexpr Duration::rep kNobody = std::numeric_limits<Duration::rep>::max();

  /// Of one worker, on a cache line of its own: it is mostly that worker who causes the changes.
  struct alignas(64) Share {
    std::atomic<std::uint32_t> idle{0};  ///< servers that the manager holds idle there
  };

  LeaseBoard(WorkerId workers, Duration fifo_slack) : slack(fifo_slack), of_worker(workers) {}

  const Duration slack;  ///< ManagerSettings::fifo_slack
  /// Since when the first in the manager's queue has been waiting, in microseconds as TimePoint counts them.
  std::atomic<Duration::rep> oldest{kClosed};
  /// Servers that the manager holds idle, on all workers.
  std::atomic<std::uint32_t> idle{0};
  /// No server can be opened for those who wait: pool_size is reached.
  std::atomic<bool> full{false};
  /// Changes when servers must pass the manager before they serve again: some are to be closed, or the settings
  /// changed.
  std::atomic<std::uint64_t> epoch{0};
  std::vector<Share> of_worker;

  /// For the manager. Writing what is there already would take the cache line from those who read it.
  template <class T>
  static void set(std::atomic<T>& where, T value) {
    if (where.load(std::memory_order_relaxed) != value) where.store(value, std::memory_order_relaxed);
  }

  [[nodiscard]] bool open() const { return oldest.load(std::memory_order_relaxed) != kClosed; }
  /// Whether somebody who has waited since `since` may be served by a worker itself: the board is open, and nobody in
  /// the manager's queue has waited longer by more than the slack.
  [[nodiscard]] bool lets_pass(TimePoint since) const {
    const Duration::rep first = oldest.load(std::memory_order_relaxed);
    return first == kNobody || (first != kClosed && since.time_since_epoch().count() - first <= slack.count());
  }
};

}  // namespace pgweir::pool
