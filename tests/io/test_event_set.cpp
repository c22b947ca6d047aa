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
  boost::asio::io_context context;
  EventSet set(context);
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
  set.start([&] { order += '<'; }, [&] { order += '>'; });
  a.send();
  b.send();
  REQUIRE(run_until(context, [&] { return a.handler->calls + b.handler->calls == 2; }));
  CHECK(order == "<hh>");
  CHECK((a.handler->last & EPOLLIN) != 0);

  // Re-armed: a later event comes too.
  a.send();
  REQUIRE(run_until(context, [&] { return a.handler->calls == 2; }));
  CHECK(order == "<hh><h>");
  set.stop();
}

TEST_CASE("event set is level-triggered") {
  boost::asio::io_context context;
  EventSet set(context);
  Watched a(set);
  a.handler->action = [&](auto) {
    if (a.handler->calls == 3) a.consume();
  };
  set.start({}, {});
  a.send();
  REQUIRE(run_until(context, [&] { return a.handler->calls == 3; }));
  run_ready(context);
  CHECK(a.handler->calls == 3);
}

TEST_CASE("event set: a handler removed and deleted by another one of the batch gets nothing") {
  boost::asio::io_context context;
  EventSet set(context);
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
  set.start({}, {});
  a.send();
  b.send();
  REQUIRE(run_until(context, [&] { return survivors > 0; }));
  run_ready(context);
  CHECK(survivors == 1);
}

TEST_CASE("event set: a handler may delete itself, and its other descriptor is not lost by removing one") {
  boost::asio::io_context context;
  EventSet set(context);
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
  set.start({}, {});
  a.send();
  REQUIRE(::write(other, "x", 1) == 1);
  REQUIRE(run_until(context, [&] { return a.handler == nullptr; }));
  ::close(own);
  ::close(other);
}

TEST_CASE("event set: modify switches to EPOLLOUT and back") {
  boost::asio::io_context context;
  EventSet set(context);
  Watched a(set);
  set.start({}, {});
  run_ready(context);
  CHECK(a.handler->calls == 0);
  a.handler->action = [&](std::uint32_t events) {
    if ((events & EPOLLOUT) != 0) REQUIRE(set.modify(a.own, EPOLLIN, a.handler.get()));
  };
  REQUIRE(set.modify(a.own, EPOLLIN | EPOLLOUT, a.handler.get()));
  REQUIRE(run_until(context, [&] { return a.handler->calls == 1; }));
  run_ready(context);
  CHECK(a.handler->calls == 1);
}

TEST_CASE("event set: stop within a handler drops the rest of the batch, and the context runs dry") {
  boost::asio::io_context context;
  EventSet set(context);
  Watched a(set);
  Watched b(set);
  a.handler->action = b.handler->action = [&](auto) { set.stop(); };
  set.start({}, {});
  a.send();
  b.send();
  REQUIRE(run_until(context, [&] { return a.handler->calls + b.handler->calls > 0; }));
  context.restart();
  context.run_for(kDeadline);
  CHECK(context.stopped());
  CHECK(a.handler->calls + b.handler->calls == 1);
}

TEST_CASE("event set: more sockets than one batch are all served") {
  boost::asio::io_context context;
  EventSet set(context);
  std::vector<std::unique_ptr<Watched>> many;
  int batches = 0;
  for (int i = 0; i < 300; ++i) {
    many.push_back(std::make_unique<Watched>(set));
    Watched& last = *many.back();
    last.handler->action = [&last](auto) { last.consume(); };
    last.send();
  }
  set.start([&] { ++batches; }, {});
  REQUIRE(run_until(context, [&] {
    return std::all_of(many.begin(), many.end(), [](const auto& w) { return w->handler->calls == 1; });
  }));
  CHECK(batches == 2);
}

TEST_CASE("event set: adding an unknown descriptor fails, removing one does no harm") {
  boost::asio::io_context context;
  EventSet set(context);
  Recorder handler;
  CHECK_FALSE(set.add(-1, EPOLLIN, &handler));
  CHECK_FALSE(set.modify(-1, EPOLLIN, &handler));
  set.remove(-1, &handler);
}

TEST_CASE("event set may be destroyed with a completion still queued") {
  boost::asio::io_context context;
  auto set = std::make_unique<EventSet>(context);
  set->start({}, {});
  set.reset();
  run_ready(context);
}
