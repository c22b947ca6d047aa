#include "proxy/io/mailbox.hpp"

#include <array>
#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <memory>
#include <thread>
#include <vector>

#include "tests/io/io_support.hpp"

using namespace pgweir::io;
using namespace pgweir::io::test;

TEST_CASE("unique function: small and large callables, moves, move-only captures") {
  int calls = 0;
  UniqueFunction small([&calls] { ++calls; });
  UniqueFunction moved(std::move(small));
  moved();
  CHECK(calls == 1);

  std::array<char, 200> big{};
  big[199] = 7;
  auto token = std::make_shared<int>(0);
  UniqueFunction large([&calls, big, owned = std::make_unique<int>(5), token] { calls += *owned + big[199]; });
  UniqueFunction target;
  CHECK_FALSE(static_cast<bool>(target));
  target = std::move(large);
  target();
  CHECK(calls == 13);
  CHECK(token.use_count() == 2);
  target = UniqueFunction([token] {});
  CHECK(token.use_count() == 2);
  target = UniqueFunction();
  CHECK(token.use_count() == 1);
}

TEST_CASE("mailbox runs messages in order on the owner") {
  EventSet set;
  Mailbox box(set);
  std::string order;
  box.post([&] {
    order += 'a';
    box.post([&] { order += 'c'; });  // From within: next batch.
  });
  box.post([&, owned = std::make_unique<char>('b')] { order += *owned; });
  CHECK(order.empty());
  REQUIRE(run_until(set, [&] { return order.size() == 3; }));
  CHECK(order == "abc");
}

TEST_CASE("mailbox: many senders, nothing lost, order of each sender kept") {
  constexpr int kSenders = 4;
  constexpr int kMessages = 5000;
  EventSet set;
  Mailbox box(set);
  std::array<int, kSenders> next{};  // Touched by the owner only: TSan proves it.
  int total = 0;
  bool ordered = true;

  std::vector<std::thread> senders;
  for (int s = 0; s < kSenders; ++s) {
    senders.emplace_back([&, s] {
      for (int i = 0; i < kMessages; ++i) {
        box.post([&, s, i] {
          ordered &= next[static_cast<std::size_t>(s)]++ == i;
          ++total;
        });
      }
    });
  }
  CHECK(run_until(set, [&] { return total == kSenders * kMessages; }));
  for (auto& sender : senders) sender.join();
  CHECK(ordered);
}

TEST_CASE("mailbox: messages between two owners") {
  EventSet set_a;
  EventSet set_b;
  Mailbox box_a(set_a);
  Mailbox box_b(set_b);
  int round_trips = 0;
  std::atomic<bool> over = false;
  std::function<void()> serve = [&] {
    box_b.post([&] {
      box_a.post([&] {
        if (++round_trips < 1000) serve();
      });
    });
  };
  std::thread other([&] { run_until(set_b, [&] { return over.load(); }); });
  serve();
  CHECK(run_until(set_a, [&] { return round_trips == 1000; }));
  over = true;
  box_b.post([] {});
  other.join();
}

TEST_CASE("mailbox drops and destroys messages after stop") {
  EventSet set;
  auto token = std::make_shared<int>(0);
  bool ran = false;
  {
    Mailbox box(set);
    box.post([&, token] { ran = true; });
    box.stop();
    CHECK(token.use_count() == 1);
    box.post([&, token] { ran = true; });
    CHECK(token.use_count() == 1);
    run_ready(set);
    box.stop();
  }
  CHECK_FALSE(ran);
}

TEST_CASE("mailbox: a message that stops the box is the last one") {
  EventSet set;
  Mailbox box(set);
  auto token = std::make_shared<int>(0);
  int ran = 0;
  box.post([&] {
    ++ran;
    box.stop();
  });
  box.post([&, token] { ++ran; });
  REQUIRE(run_until(set, [&] { return ran > 0; }));
  run_ready(set);
  CHECK(ran == 1);
  CHECK(token.use_count() == 1);
}

TEST_CASE("mailbox: stop races with senders") {
  EventSet set;
  Mailbox box(set);
  auto token = std::make_shared<int>(0);
  std::atomic<int> ran = 0;
  std::vector<std::thread> senders;
  for (int s = 0; s < 3; ++s) {
    senders.emplace_back([&box, &ran, token] {
      for (int i = 0; i < 2000; ++i) box.post([&ran, token] { ++ran; });
    });
  }
  CHECK(run_until(set, [&] { return ran > 10; }));
  box.stop();
  const int ran_at_stop = ran;
  for (auto& sender : senders) sender.join();
  senders.clear();
  run_ready(set);
  CHECK(ran == ran_at_stop);
  CHECK(token.use_count() == 1);
}
