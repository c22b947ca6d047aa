// Timers of an EventSet: one timerfd for the earliest of them, so that they are precise to the microsecond and cost a
// system call only when the earliest moves forward. They decide nothing.
#pragma once

#include <cstdint>
#include <map>

#include "pool/time.hpp"
#include "proxy/io/event_set.hpp"
#include "proxy/io/unique_function.hpp"

namespace pgweir::io {

class Timer;

/// On the thread of its EventSet, which owns it.
class TimerQueue final : private EventHandler {
 public:
  /// Throws std::system_error if the kernel gives no descriptor.
  explicit TimerQueue(EventSet& events);
  TimerQueue(const TimerQueue&) = delete;
  TimerQueue& operator=(const TimerQueue&) = delete;
  ~TimerQueue() override;

 private:
  friend class Timer;
  using Queue = std::multimap<pool::TimePoint, Timer*>;

  Queue::iterator insert(pool::TimePoint when, Timer* timer);
  void on_event(std::uint32_t epoll_events) override;
  void arm();

  EventSet& events_;
  int fd_;
  Queue queue_;
  pool::TimePoint armed_ = pool::kNever;  ///< what the timerfd is set to
  bool ringing_ = false;                  ///< on_event arms at its end
  pool::TimePoint ringing_since_{};
};

/// One alarm at a time. Goes off within a batch of the EventSet, which must outlive it.
class Timer {
 public:
  explicit Timer(EventSet& events) : queue_(events.timers()) {}
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  ~Timer() { cancel(); }

  /// Calls `action` at `when` (CLOCK_MONOTONIC) or soon after, unless cancelled or started anew before. The action may
  /// start, cancel or destroy the timer.
  void start(pool::TimePoint when, UniqueFunction action);
  void start_after(pool::Duration delay, UniqueFunction action);
  void cancel();

 private:
  friend class TimerQueue;

  TimerQueue& queue_;
  TimerQueue::Queue::iterator place_{};
  bool started_ = false;
  UniqueFunction action_;
};

}  // namespace pgweir::io
