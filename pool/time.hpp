// The time type of all pure code. Its clock has no now(): reading the time does not compile, so every decision gets
// the time as an argument and runs the same under a simulator's virtual clock.
#pragma once

#include <chrono>

namespace pgweir::pool {

struct EventClock {
  using duration = std::chrono::microseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<EventClock>;
  static constexpr bool is_steady = true;
};

/// A moment on the process's monotonic time line, in microseconds.
using TimePoint = EventClock::time_point;
using Duration = EventClock::duration;

/// Later than every event; the answer of next_deadline() when nothing is due.
inline constexpr TimePoint kNever = TimePoint::max();

}  // namespace pgweir::pool
