#include "proxy/io/event_set.hpp"

#include <algorithm>
#include <memory>
#include <tuple>
#include <vector>

#include "tests/io/io_support.hpp"

using namespace pgweir::io;
using namespace pgweir::io::test;

namespace {

struct Recorder : EventHandler {
  std::function<void(std::uint32_t)> action;
  int calls = 0;
  std::uint32_t last = 0;

  void on_event(std::uint32_t events) override {
    ++calls;
    last = events;
    if (action) action(events);
  }
};

/// A watched socket whose other end the test writes to.
struct Watched {
  explicit Watched(EventSet& events) : set(events) {
    std::tie(own, other) = socket_pair();
    handler = std::make_unique<Recorder>();
    REQUIRE(set.add(own, EPOLLIN, handler.get()));
  }
  Watched(const Watched&) = delete;
  Watched& operator=(const Watched&) = delete;
  ~Watched() {
    drop();
    ::close(own);
    ::close(other);
  }
  void drop() {
    if (handler != nullptr) set.remove(own, handler.get());
    handler.reset();
  }
  void send() const { REQUIRE(::write(other, "x", 1) == 1); }
  void consume() const {
    char byte = 0;
    REQUIRE(::read(own, &byte, 1) == 1);
  }

  EventSet& set;
  int own = -1;
  int other = -1;
  std::unique_ptr<Recorder> handler;
};

}  // namespace

TEST_CASE("event set delivers readable sockets and the batch hooks around them") {
  EventSet set;
  Watched a(set);
  Watched b(set);
  std::string order;
  a.handler->action = [&](auto) {
    order += 'h';
    a.consume();
  };
  b.handler->action = [&](auto) {
    order += 'h';
    b.consume();
  };
  set.set_hooks({.before_batch = [&](int) { order += '<'; }, .after_batch = [&] { order += '>'; }, .patience = {}});
  a.send();
  b.send();
  REQUIRE(run_until(set, [&] { return a.handler->calls + b.handler->calls == 2; }));
  CHECK(order == "<hh>");
  CHECK((a.handler->last & EPOLLIN) != 0);

  // A later event comes too.
  a.send();
  REQUIRE(run_until(set, [&] { return a.handler->calls == 2; }));
  CHECK(order == "<hh><h>");
}

TEST_CASE("event set is level-triggered") {
  EventSet set;
  Watched a(set);
  a.handler->action = [&](auto) {
    if (a.handler->calls == 3) a.consume();
  };
  a.send();
  REQUIRE(run_until(set, [&] { return a.handler->calls == 3; }));
  run_ready(set);
  CHECK(a.handler->calls == 3);
}

TEST_CASE("event set: a handler removed and deleted by another one of the batch gets nothing") {
  EventSet set;
  Watched a(set);
  Watched b(set);
  int survivors = 0;
  const auto kill = [&](Watched& self, Watched& victim) {
    ++survivors;
    self.consume();
    victim.drop();  // Deletes the handler; delivering to it would be a use after free.
  };
  a.handler->action = [&](auto) { kill(a, b); };
  b.handler->action = [&](auto) { kill(b, a); };
  a.send();
  b.send();
  REQUIRE(run_until(set, [&] { return survivors > 0; }));
  run_ready(set);
  CHECK(survivors == 1);
}

TEST_CASE("event set: a handler may delete itself, and its other descriptor is not lost by removing one") {
  EventSet set;
  Watched a(set);
  const auto [own, other] = socket_pair();
  // One handler, two descriptors; the event of the second is voided with the first, and comes again.
  REQUIRE(set.add(own, EPOLLIN, a.handler.get()));
  bool removed = false;
  a.handler->action = [&](auto) {
    if (!removed) {
      removed = true;
      set.remove(own, a.handler.get());
      return;
    }
    a.consume();
    a.drop();
  };
  a.send();
  REQUIRE(::write(other, "x", 1) == 1);
  REQUIRE(run_until(set, [&] { return a.handler == nullptr; }));
  ::close(own);
  ::close(other);
}

TEST_CASE("event set: modify switches to EPOLLOUT and back") {
  EventSet set;
  Watched a(set);
  run_ready(set);
  CHECK(a.handler->calls == 0);
  a.handler->action = [&](std::uint32_t events) {
    if ((events & EPOLLOUT) != 0) REQUIRE(set.modify(a.own, EPOLLIN, a.handler.get()));
  };
  REQUIRE(set.modify(a.own, EPOLLIN | EPOLLOUT, a.handler.get()));
  REQUIRE(run_until(set, [&] { return a.handler->calls == 1; }));
  run_ready(set);
  CHECK(a.handler->calls == 1);
}

TEST_CASE("event set: stop within a handler drops the rest of the batch and ends run") {
  EventSet set;
  Watched a(set);
  Watched b(set);
  a.handler->action = b.handler->action = [&](auto) { set.stop(); };
  a.send();
  b.send();
  set.run();
  CHECK(a.handler->calls + b.handler->calls == 1);
  set.run();
  CHECK(a.handler->calls + b.handler->calls == 2);
}

TEST_CASE("event set: more sockets than one batch are all served") {
  EventSet set;
  std::vector<std::unique_ptr<Watched>> many;
  int batches = 0;
  for (int i = 0; i < 300; ++i) {
    many.push_back(std::make_unique<Watched>(set));
    Watched& last = *many.back();
    last.handler->action = [&last](auto) { last.consume(); };
    last.send();
  }
  set.set_hooks({.before_batch = [&](int) { ++batches; }, .after_batch = {}, .patience = {}});
  REQUIRE(run_until(set, [&] {
    return std::all_of(many.begin(), many.end(), [](const auto& w) { return w->handler->calls == 1; });
  }));
  CHECK(batches == 2);
}

TEST_CASE("event set: adding an unknown descriptor fails, removing one does no harm") {
  EventSet set;
  Recorder handler;
  CHECK_FALSE(set.add(-1, EPOLLIN, &handler));
  CHECK_FALSE(set.modify(-1, EPOLLIN, &handler));
  set.remove(-1, &handler);
}

TEST_CASE("event set: what is deferred runs after the handlers, and what that defers in the next batch") {
  EventSet set;
  Watched a(set);
  std::string order;
  a.handler->action = [&](auto) {
    a.consume();
    set.defer([&] {
      order += 'd';
      set.defer([&] { order += 'e'; });
    });
    order += 'h';
  };
  set.set_hooks({.before_batch = [&](int) { order += '<'; }, .after_batch = [&] { order += '>'; }, .patience = {}});
  a.send();
  REQUIRE(run_until(set, [&] { return order.size() == 7; }));
  CHECK(order == "<hd><e>");
  run_ready(set);
  CHECK(order == "<hd><e>");
  auto token = std::make_shared<int>(0);
  {
    EventSet other;
    other.defer([token] { FAIL("nobody runs it"); });
    CHECK(token.use_count() == 2);
  }
  CHECK(token.use_count() == 1);
}

TEST_CASE("event set: two senders that never rest leave room for what else is ready") {
  EventSet set;
  Watched busy(set);
  Watched other(set);
  busy.send();  // Never consumed: ready in every batch.
  other.handler->action = [&](auto) { other.consume(); };
  REQUIRE(run_until(set, [&] { return busy.handler->calls > 3; }));
  other.send();
  REQUIRE(run_until(set, [&] { return other.handler->calls == 1; }));
}
