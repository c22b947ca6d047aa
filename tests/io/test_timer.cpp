#include "proxy/io/timer.hpp"

#include <csignal>
#include <memory>
#include <string>
#include <vector>

#include "proxy/io/clock.hpp"
#include "proxy/io/signal_watcher.hpp"
#include "tests/io/io_support.hpp"

using namespace pgweir::io;
using namespace pgweir::io::test;
using namespace std::chrono_literals;

TEST_CASE("timers go off in their order, not before their time, within a batch") {
  EventSet set;
  std::string order;
  set.set_hooks({.before_batch = [&](int) { order += '<'; }, .after_batch = [&] { order += '>'; }, .patience = {}});
  const auto begin = monotonic_now();
  Timer late(set);
  Timer early(set);
  late.start(begin + 20ms, [&] {
    CHECK(monotonic_now() >= begin + 20ms);
    order += 'l';
  });
  early.start(begin + 5ms, [&] {
    CHECK(monotonic_now() >= begin + 5ms);
    order += 'e';
  });
  REQUIRE(run_until(set, [&] { return order.find('l') != std::string::npos; }));
  std::erase(order, '<');
  std::erase(order, '>');
  CHECK(order == "el");
}

TEST_CASE("timer: a time that has passed is due at once, and for ever is never") {
  EventSet set;
  Timer past(set);
  Timer never(set);
  int rang = 0;
  never.start(pgweir::pool::kNever, [&] { rang += 100; });
  past.start(pgweir::pool::TimePoint{}, [&] { ++rang; });
  REQUIRE(run_until(set, [&] { return rang > 0; }));
  past.start(monotonic_now() - 1h, [&] { ++rang; });
  REQUIRE(run_until(set, [&] { return rang == 2; }));
}

TEST_CASE("timer: cancelled, started anew, destroyed") {
  EventSet set;
  const auto token = std::make_shared<int>(0);
  std::vector<std::string> rang;
  Timer first(set);
  Timer second(set);
  auto third = std::make_unique<Timer>(set);
  first.start_after(1ms, [&, token] { rang.push_back("cancelled"); });
  second.start_after(1ms, [&, token] { rang.push_back("replaced"); });
  third->start_after(1ms, [&, token] { rang.push_back("destroyed"); });
  CHECK(token.use_count() == 4);
  first.cancel();
  first.cancel();
  second.start_after(3ms, [&] { rang.push_back("second"); });
  third.reset();
  CHECK(token.use_count() == 1);
  REQUIRE(run_until(set, [&] { return !rang.empty(); }));
  CHECK(rang == std::vector<std::string>{"second"});
}

TEST_CASE("timer: its action may start, cancel and destroy timers, its own too") {
  EventSet set;
  auto self = std::make_unique<Timer>(set);
  auto victim = std::make_unique<Timer>(set);
  Timer other(set);
  int rounds = 0;
  const auto now = monotonic_now();
  std::function<void()> again = [&] {
    if (++rounds < 3) {
      self->start(now, [&] { again(); });
      return;
    }
    other.start_after(1ms, [&] { rounds = 10; });
    victim.reset();
    self.reset();
  };
  self->start(now, [&] { again(); });
  victim->start(now + 1h, [] { FAIL("it was destroyed"); });
  REQUIRE(run_until(set, [&] { return rounds == 10; }));
}

TEST_CASE("timer: one that starts itself in the past leaves the others their turn") {
  EventSet set;
  Timer restless(set);
  Timer other(set);
  bool rang = false;
  std::function<void()> again = [&] { restless.start(pgweir::pool::TimePoint{}, [&] { again(); }); };
  again();
  other.start_after(2ms, [&] { rang = true; });
  REQUIRE(run_until(set, [&] { return rang; }));
}

TEST_CASE("signals are events, each once") {
  const std::vector<int> numbers = {SIGUSR1, SIGUSR2};
  block_signals(numbers);
  {
    EventSet set;
    std::vector<int> got;
    const SignalWatcher watcher(set, numbers, [&](int number) { got.push_back(number); });
    REQUIRE(::kill(::getpid(), SIGUSR1) == 0);
    REQUIRE(run_until(set, [&] { return got.size() == 1; }));
    REQUIRE(::kill(::getpid(), SIGUSR2) == 0);
    REQUIRE(run_until(set, [&] { return got.size() == 2; }));
    run_ready(set);
    CHECK(got == std::vector<int>{SIGUSR1, SIGUSR2});
  }
  sigset_t before;
  sigemptyset(&before);
  for (const int number : numbers) sigaddset(&before, number);
  ::pthread_sigmask(SIG_UNBLOCK, &before, nullptr);
}
