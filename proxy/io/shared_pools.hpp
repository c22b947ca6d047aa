// The one PoolManager of the process behind its mutex. Held for a few list operations at a time, never across I/O.
#pragma once

#include <atomic>
#include <mutex>

#include "pool/pool_manager.hpp"

namespace pgweir::io {

class SharedPools {
 public:
  explicit SharedPools(const pool::ManagerSettings& settings) : manager_(settings) {}

  pool::PoolManager& lock() {
    mutex_.lock();
    return manager_;
  }
  /// True if the manager's earliest deadline is now earlier than the one that was known: the timer must be armed anew.
  [[nodiscard]] bool unlock() {
    const pool::TimePoint deadline = manager_.next_deadline();
    const bool earlier = deadline < known();
    if (earlier) known_.store(deadline.time_since_epoch().count(), std::memory_order_relaxed);
    mutex_.unlock();
    return earlier;
  }
  /// Under the lock: the timer has fired, the next deadline counts anew.
  void disarm() { known_.store(pool::kNever.time_since_epoch().count(), std::memory_order_relaxed); }
  /// The earliest deadline, for the timer. Any thread.
  [[nodiscard]] pool::TimePoint known() const {
    return pool::TimePoint(pool::Duration(known_.load(std::memory_order_relaxed)));
  }

 private:
  std::mutex mutex_;
  pool::PoolManager manager_;
  std::atomic<pool::Duration::rep> known_{pool::kNever.time_since_epoch().count()};
};

}  // namespace pgweir::io
