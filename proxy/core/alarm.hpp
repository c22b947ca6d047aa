// When a session, or a connect under way, wants to be called: one place in its worker's queue of deadlines, which it
// leaves when it ends. So the queue is never longer than there are sessions, however many come and go within a timeout.
#pragma once

#include "pool/deadline_heap.hpp"
#include "pool/ids.hpp"

namespace pgweir::core {

class Connection;

/// Worker only, and while it is set on the worker where it was set.
class Alarm final : public pool::DeadlineEntry {
 public:
  explicit Alarm(Connection& owner) : connection(&owner) {}
  explicit Alarm(pool::ServerId server) : connecting(server) {}
  Alarm(const Alarm&) = delete;
  Alarm& operator=(const Alarm&) = delete;
  ~Alarm() { cancel(); }

  /// Goes off at `at` or earlier: cheap if it is set for an earlier time already. Whoever hears it looks for itself
  /// whether anything is due.
  void set(pool::DeadlineHeap& queue, pool::TimePoint at) {
    queue_ = &queue;
    queue.not_later_than(*this, at);
  }
  void cancel() {
    if (is_set()) queue_->remove(*this);
  }
  [[nodiscard]] bool is_set() const { return heap_at != kNowhere; }

  Connection* const connection = nullptr;  ///< null: it is for a connect
  const pool::ServerId connecting{};

 private:
  pool::DeadlineHeap* queue_ = nullptr;
};

}  // namespace pgweir::core
