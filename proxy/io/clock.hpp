// The only place that reads the monotonic clock for the pure layers. It decides nothing: workers read it once per batch
// of events and hand the value down.
#pragma once

#include <time.h>

#include <chrono>

#include "pool/time.hpp"

namespace pgweir::io {

/// CLOCK_MONOTONIC in microseconds (a vDSO read, no system call). Any thread.
[[nodiscard]] inline pool::TimePoint monotonic_now() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return pool::TimePoint(std::chrono::duration_cast<pool::Duration>(std::chrono::seconds(now.tv_sec) +
                                                                    std::chrono::nanoseconds(now.tv_nsec)));
}

}  // namespace pgweir::io
