// The ground everything in the simulator stands on: one virtual clock, one seeded source of chance, one queue of events,
// the trace, and the way a checker ends the run. Events at the same time run in an order that the seed decides.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <queue>
#include <string>
#include <vector>

#include "pool/time.hpp"

namespace pgweir::sim {

using pool::Duration;
using pool::TimePoint;

/// splitmix64: small, and the same on every machine.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15ULL + 0x1234567) {}
  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9E3779B97F4A7C15ULL);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
  }
  /// Both ends included.
  std::uint64_t between(std::uint64_t low, std::uint64_t high) { return low + next() % (high - low + 1); }
  bool chance(double probability) { return static_cast<double>(next() >> 11) * 0x1.0p-53 < probability; }
  template <class Container>
  const auto& pick(const Container& from) {
    return from[next() % std::size(from)];
  }
  /// Most are short, some long: what delays look like.
  Duration delay(Duration longest) {
    const auto limit = static_cast<std::uint64_t>(longest.count());
    return Duration(static_cast<std::int64_t>(chance(0.8) ? between(0, limit / 10) : between(0, limit)));
  }

 private:
  std::uint64_t state_;
};

class World {
 public:
  World(std::uint64_t seed, bool trace);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  Random random;

  [[nodiscard]] TimePoint now() const { return now_; }
  [[nodiscard]] std::uint64_t events() const { return events_; }
  /// Runs `what` after `delay`.
  void after(Duration delay, std::function<void()> what) { at(now_ + delay, std::move(what)); }
  void at(TimePoint when, std::function<void()> what);
  /// Runs the next event; false if there is none.
  bool step();
  void trace(std::string line);
  /// A checker found something: prints seed, checker and trace, and ends the process with status 1.
  [[noreturn]] void fail(const std::string& checker, const std::string& text);

 private:
  struct Event {
    TimePoint at;
    std::uint64_t tie, number;
    std::function<void()> what;
  };
  struct Later {
    bool operator()(const Event& a, const Event& b) const {
      if (a.at != b.at) return a.at > b.at;
      return a.tie != b.tie ? a.tie > b.tie : a.number > b.number;
    }
  };

  std::uint64_t seed_;
  bool print_;
  TimePoint now_{std::chrono::seconds(1)};
  std::uint64_t events_ = 0, numbers_ = 0;
  std::vector<Event> heap_;
  std::deque<std::string> lines_;
};

}  // namespace pgweir::sim
