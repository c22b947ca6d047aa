// What a worker with much to do decides by itself: its servers go from one of its clients to the next without the
// pools, which hear of it when the worker has something to ask of them, or nothing more to do.
#include <catch2/catch.hpp>

#include "fake_host.hpp"

using namespace pgweir;
using namespace pgweir::core;
using namespace pgweir::core::test;

namespace {

const std::string kDone = complete("SELECT 1") + ready();

/// One server, which has just served somebody, in the middle of a batch of many events: `a` and `b` may have it.
struct Busy : World {
  explicit Busy(const std::string& more = "pool_size = 1\n") : World(config_text("", "db = host=127.0.0.1 " + more)) {
    a = client();
    a_key = welcome;
    b = client();
    b_key = welcome;
    core.begin_batch(100);
    mid_batch = true;
    feed(a, query("warm up"));
    feed(server, kDone);
    a->written.clear();
    server->written.clear();
  }
  [[nodiscard]] pool::PoolSnapshot pool() { return host.pools.pool_snapshots(now).front(); }
  /// As if no event had come for a moment.
  void rest() {
    mid_batch = false;
    core.begin_batch(0);
    settle();
  }
  void reconnect() { host.pools.reconnect("", now, core.actions()); }
  WirePtr a, b;
  std::string a_key, b_key;
};

}  // namespace

TEST_CASE("a busy worker hands a server to the next client without the pools", "[leases]") {
  Busy world;
  CHECK(world.pool().sv_active == 1);  // as far as they know
  world.feed(world.b, query("select 2"));
  CHECK(world.server->take() == query("select 2"));
  world.feed(world.server, kDone);
  CHECK(world.b->take() == kDone);
  CHECK(world.pool().sv_active == 1);
  world.rest();
  CHECK(world.pool().sv_idle == 1);
  world.feed(world.b, query("select 3"));
  CHECK(world.server->take() == query("select 3"));
}

TEST_CASE("a worker without much to do gives servers back at once", "[leases]") {
  Busy world;
  world.rest();
  world.core.begin_batch(1);
  world.feed(world.a, query("select 1"));
  world.feed(world.server, kDone);
  CHECK(world.pool().sv_idle == 1);
}

TEST_CASE("whoever comes while servers come free all the time waits on the worker for a moment", "[leases]") {
  Busy world;
  const WirePtr c = world.client();
  world.feed(world.a, query("select 1"));
  world.feed(world.b, query("select 2"));
  world.feed(c, query("select 3"));
  world.mid_batch = false;
  CHECK(world.server->take() == query("select 1"));
  CHECK(world.host.pools.totals().waiting_clients == 0);
  SECTION("and is served in turn") {
    world.feed(world.server, kDone);
    CHECK(world.server->take() == query("select 2"));
    world.feed(world.server, kDone);
    CHECK(world.b->take() == kDone);
    CHECK(world.server->take() == query("select 3"));
  }
  SECTION("or in the queue of the pools, if it takes longer") {
    CHECK(world.core.batch_deadline() == world.now + milliseconds(1) + pool::Duration(1));
    world.advance(milliseconds(2));
    CHECK(world.host.pools.totals().waiting_clients == 2);
    CHECK(world.core.batch_deadline() == pool::kNever);
    world.feed(world.server, kDone);
    CHECK(world.server->take() == query("select 2"));
    CHECK(world.host.pools.totals().waiting_clients == 1);
    world.feed(world.server, kDone);
    CHECK(world.server->take() == query("select 3"));
  }
  SECTION("unless it leaves") {
    world.hang_up(world.b);
    world.feed(world.server, kDone);
    CHECK(world.server->take() == query("select 3"));
  }
  SECTION("or is cancelled") {
    world.feed(world.connect(), cancel_for(world.b_key));
    CHECK(world.b->take() == server_error("57014", "canceling statement due to user request") + ready());
    world.feed(world.server, kDone);
    CHECK(world.server->take() == query("select 3"));
  }
  SECTION("a server that dies meanwhile is replaced") {
    world.hang_up(world.server);
    world.advance(milliseconds(2));
    CHECK(world.host.pools.totals().waiting_clients == 2);
    const WirePtr other = world.server_up();
    CHECK(other->take() == query("select 2"));
  }
  SECTION("PAUSE holds for it, too") {
    (void)world.host.pools.pause("db", world.now, world.core.actions());
    world.settle();
    CHECK(world.host.pools.totals().waiting_clients == 2);
    world.feed(world.server, kDone);
    CHECK(world.server->take() == terminate());
  }
}

TEST_CASE("a cancel request finds the client that has the server now", "[leases]") {
  Busy world;
  world.feed(world.b, query("select 2"));
  world.server->written.clear();
  SECTION("not the one that had it before") {
    world.feed(world.connect(), cancel_for(world.a_key));
    CHECK(world.host.cancel_connects.empty());
    CHECK(world.host.pools.totals().cancels == 0);
  }
  SECTION("and nobody gets the server while it may still arrive") {
    world.feed(world.a, query("select 1"));
    world.feed(world.connect(), cancel_for(world.b_key));
    const WirePtr cancel = world.cancel_connects();
    world.feed(world.server, kDone);
    CHECK(world.server->take().empty());
    world.hang_up(cancel);
    world.rest();
    CHECK(world.server->take() == query("select 1"));
  }
}

TEST_CASE("a server that is to be closed does not serve another client of a busy worker", "[leases]") {
  SECTION("RECONNECT while it is kept") {
    Busy world;
    world.reconnect();
    world.feed(world.b, query("select 2"));
    world.feed(world.server, kDone);
    CHECK(world.b->take() == kDone);
    CHECK(world.server->take() == query("select 2") + terminate());
  }
  SECTION("RECONNECT while it is in use") {
    Busy world;
    world.feed(world.b, query("select 2"));
    world.reconnect();
    world.feed(world.a, query("select 1"));
    world.server->written.clear();
    world.feed(world.server, kDone);
    CHECK(world.server->take() == terminate());
  }
  SECTION("its time is over") {
    Busy world;
    world.now += std::chrono::hours(2);
    world.core.set_now(world.now);
    world.feed(world.b, query("select 2"));
    world.server->written.clear();
    world.feed(world.server, kDone);
    CHECK(world.server->take() == terminate());
  }
}

TEST_CASE("no server goes round without the pools where they have to see each use", "[leases]") {
  const std::string more = GENERATE("pool_size = 1 max_db_connections = 1\n", "pool_size = 1\n[pgbouncer]\n");
  World world(more.find("max_db") != std::string::npos
                  ? config_text("", "db = host=127.0.0.1 " + more)
                  : config_text("server_round_robin = 1\n", "db = host=127.0.0.1 pool_size = 1\n"));
  const WirePtr a = world.client();
  world.core.begin_batch(100);
  for (int i = 0; i < 3; ++i) {
    world.feed(a, query("select 1"));
    world.feed(world.server, kDone);
    CHECK(world.host.pools.totals().idle_servers == 1);
  }
}

TEST_CASE("nothing goes round without the pools while the process is suspended", "[leases]") {
  Busy world;
  CHECK_FALSE(world.core.at_rest());
  const bool somebody_waits = GENERATE(false, true);
  if (somebody_waits) {
    world.feed(world.a, query("begin"));
    world.feed(world.server, complete("BEGIN") + ready('T'));
    world.feed(world.b, query("select 2"));
  }
  world.mid_batch = false;
  world.core.set_suspending(true);
  world.settle();
  CHECK(world.core.at_rest());
  CHECK(world.host.pools.totals().waiting_clients == (somebody_waits ? 1 : 0));
  CHECK(world.pool().sv_idle == (somebody_waits ? 0 : 1));
}

TEST_CASE("a server that is to be used once, or looked at before each use, does not go round", "[leases]") {
  SECTION("server_lifetime = 0") {
    World world(config_text("server_lifetime = 0\n", "db = host=127.0.0.1 pool_size = 1\n"));
    const WirePtr a = world.client();
    const WirePtr b = world.client();
    world.hang_up(world.server);  // it has been used: by the login
    world.core.begin_batch(100);
    world.mid_batch = true;
    world.feed(a, query("select 1"));
    world.feed(b, query("select 2"));
    const WirePtr server = world.server_up();
    CHECK(server->take() == query("select 1"));
    world.feed(server, kDone);
    CHECK(a->take() == kDone);
    CHECK(server->take() == terminate());
  }
  SECTION("server_check_delay = 0") {
    World world(
        config_text("server_check_delay = 0\nserver_check_query = select 0\n", "db = host=127.0.0.1 pool_size = 1\n"));
    const WirePtr a = world.client();
    const WirePtr b = world.client();
    world.core.begin_batch(100);
    world.mid_batch = true;
    for (const WirePtr& client : {a, b}) {
      world.feed(client, query("select 1"));
      CHECK(world.server->take() == query("select 0"));
      world.feed(world.server, kDone);
      CHECK(world.server->take() == query("select 1"));
      world.feed(world.server, kDone);
      CHECK(client->take() == kDone);
    }
  }
}

TEST_CASE("whoever waits on a worker is turned away by SHUTDOWN WAIT_FOR_SERVERS as all who wait", "[leases]") {
  Busy world;
  world.feed(world.a, query("select 1"));
  world.feed(world.b, query("select 2"));
  CHECK(world.host.pools.totals().waiting_clients == 0);
  world.core.set_shutdown(ShutdownMode::WaitForServers);
  world.settle();
  CHECK(world.b->take() == fatal("08P01", "server shutting down"));
  world.feed(world.server, kDone);
  CHECK(world.a->take() == kDone);
}
