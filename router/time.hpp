// The time type of the router. Its clock has no now(): every decision gets the time as an argument. Counts microseconds
// on the same monotonic line as the rest of the process; converting is the business of the layer above.
#pragma once

#include <chrono>

namespace pgweir::router {

struct RouterClock {
  using duration = std::chrono::microseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<RouterClock>;
  static constexpr bool is_steady = true;
};

using TimePoint = RouterClock::time_point;
using Duration = RouterClock::duration;

/// Before everything: what was never seen.
inline constexpr TimePoint kLongAgo = TimePoint::min();

}  // namespace pgweir::router
