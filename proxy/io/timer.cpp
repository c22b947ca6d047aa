#include "proxy/io/timer.hpp"

#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "proxy/io/clock.hpp"

namespace pgweir::io {

TimerQueue::TimerQueue(EventSet& events)
    : events_(events), fd_(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)) {
  events_.add_new(fd_, "timerfd_create", this);
}

TimerQueue::~TimerQueue() {
  events_.remove(fd_, this);
  ::close(fd_);
}

TimerQueue::Queue::iterator TimerQueue::insert(pool::TimePoint when, Timer* timer) {
  // One that starts itself anew in the past must not keep the others from their turn.
  if (ringing_) return queue_.emplace(std::max(when, ringing_since_ + pool::Duration(1)), timer);
  const auto place = queue_.emplace(when, timer);
  if (when < armed_) arm();
  return place;
}

// A timer that is cancelled leaves the timerfd as it is: ringing for nobody once costs less than setting it each time.
void TimerQueue::arm() {
  armed_ = queue_.empty() ? pool::kNever : queue_.begin()->first;
  if (armed_ == pool::kNever) return;
  // Zero would switch it off; whatever lies in the past rings at once.
  const auto since = std::max(armed_.time_since_epoch(), pool::Duration(1));
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(since);
  itimerspec when{};
  when.it_value.tv_sec = seconds.count();
  when.it_value.tv_nsec = std::chrono::nanoseconds(since - seconds).count();
  if (::timerfd_settime(fd_, TFD_TIMER_ABSTIME, &when, nullptr) != 0) {
    throw std::system_error(errno, std::generic_category(), "timerfd_settime");
  }
}

void TimerQueue::on_event(std::uint32_t) {
  std::uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = ::read(fd_, &count, sizeof count);
  armed_ = pool::kNever;
  ringing_ = true;
  ringing_since_ = monotonic_now();
  while (!queue_.empty() && queue_.begin()->first <= ringing_since_) {
    Timer& timer = *queue_.begin()->second;
    queue_.erase(queue_.begin());
    timer.started_ = false;
    UniqueFunction action = std::move(timer.action_);
    action();
  }
  ringing_ = false;
  arm();
}

void Timer::start(pool::TimePoint when, UniqueFunction action) {
  cancel();
  action_ = std::move(action);
  place_ = queue_.insert(when, this);
  started_ = true;
}

void Timer::start_after(pool::Duration delay, UniqueFunction action) {
  start(monotonic_now() + delay, std::move(action));
}

void Timer::cancel() {
  if (!std::exchange(started_, false)) return;
  queue_.queue_.erase(place_);
  action_ = UniqueFunction();
}

}  // namespace pgweir::io
