#include "tests/sim/world.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>

namespace pgweir::sim {

namespace {

constexpr std::size_t kLinesKept = 200;
World* current = nullptr;

// PROXY_INVARIANT aborts; the trace is what one wants to see then.
void on_abort(int) {
  std::signal(SIGABRT, SIG_DFL);
  if (current != nullptr) current->fail("invariant", "the program aborted");
  std::_Exit(1);
}

}  // namespace

World::World(std::uint64_t seed, bool trace) : random(seed), seed_(seed), print_(trace) {
  current = this;
  std::signal(SIGABRT, on_abort);
}

World::~World() {
  current = nullptr;
}

void World::at(TimePoint when, std::function<void()> what) {
  heap_.push_back({std::max(when, now_), random.next(), numbers_++, std::move(what)});
  std::push_heap(heap_.begin(), heap_.end(), Later{});
}

bool World::step() {
  if (heap_.empty()) return false;
  std::pop_heap(heap_.begin(), heap_.end(), Later{});
  Event event = std::move(heap_.back());
  heap_.pop_back();
  now_ = event.at;
  ++events_;
  event.what();
  return true;
}

void World::trace(std::string line) {
  line = fmt::format("{:>12} {}", now_.time_since_epoch().count(), line);
  if (print_) fmt::print("{}\n", line);
  lines_.push_back(std::move(line));
  if (lines_.size() > kLinesKept) lines_.pop_front();
}

void World::fail(const std::string& checker, const std::string& text) {
  if (!print_) {
    for (const std::string& line : lines_) fmt::print("{}\n", line);
  }
  fmt::print("FAILED seed={} event={} time={} checker={}: {}\n", seed_, events_, now_.time_since_epoch().count(), checker,
             text);
  std::fflush(stdout);
  std::_Exit(1);
}

}  // namespace pgweir::sim
