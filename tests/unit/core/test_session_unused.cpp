// What becomes of pools and databases that nobody uses, and server_fast_close.
#include <catch2/catch.hpp>

#include "fake_host.hpp"

using namespace pgweir;
using namespace pgweir::core;
using namespace pgweir::core::test;

namespace {

constexpr const char* kChanged = "database configuration changed";

void leave(World& world, const WirePtr& client) {
  world.feed(client, terminate());
  REQUIRE(client->closed);
}

/// The pool's server reaches server_idle_timeout and ends.
void end_server(World& world) {
  world.advance(seconds(1));
  REQUIRE(types(world.server->take()) == "X");
  world.hang_up(world.server);
  REQUIRE(world.host.pools.totals().servers == 0);
}

bool has_database(World& world, const std::string& name) {
  for (const auto& row : world.host.pools.database_snapshots()) {
    if (row.name == name) return true;
  }
  return false;
}

std::size_t times_logged(const World& world, const std::string& text) {
  std::size_t n = 0;
  for (const std::string& line : world.host.lines) n += line.find(text) != std::string::npos ? 1 : 0;
  return n;
}

}  // namespace

TEST_CASE("a pool that nobody uses is forgotten with its statistics", "[unused]") {
  World world(config_text("pool_idle_timeout = 10\nserver_idle_timeout = 1\n"));
  const WirePtr client = world.client();
  leave(world, client);
  end_server(world);
  world.advance(seconds(9));
  CHECK(world.core.contexts().size() == 1);
  world.advance(seconds(1));
  CHECK(world.core.contexts().empty());
  CHECK(world.host.pools.totals().pools == 0);
  // The next login is as the first was.
  const WirePtr next = world.client();
  world.feed(next, query("x"));
  CHECK(world.server->take() == query("x"));
  CHECK(world.core.contexts().begin()->second->stats.client_login_count == 1);
}

TEST_CASE("a pool is not forgotten while a connection that ends still has it", "[unused]") {
  World world(config_text("pool_idle_timeout = 1\nserver_idle_timeout = 1\nclient_idle_timeout = 3\n"));
  const WirePtr client = world.client();
  end_server(world);
  client->accept = 3;
  world.advance(seconds(2));  // its last message does not leave, which is given 5 s
  REQUIRE_FALSE(client->closed);
  for (int second = 0; second < 4; ++second) {
    world.advance(seconds(1));
    CHECK(world.core.contexts().size() == 1);
  }
  world.advance(seconds(1));
  CHECK(client->closed);
  world.advance(seconds(1));
  world.advance(seconds(1));
  CHECK(world.core.contexts().empty());
}

TEST_CASE("a database that comes by * is told of once and forgotten after autodb_idle_timeout", "[unused]") {
  World world(
      config_text("autodb_idle_timeout = 10\nserver_idle_timeout = 1\n", "db = host=127.0.0.1\n* = host=127.0.0.1\n"));
  const std::string line = "registered new auto-database: other";
  leave(world, world.client("u", "db"));
  world.hang_up(world.server);
  CHECK(times_logged(world, "auto-database") == 0);
  const WirePtr client = world.client("u", "other");
  CHECK(times_logged(world, line) == 1);
  leave(world, world.client("u", "other"));
  CHECK(times_logged(world, line) == 1);
  end_server(world);
  world.advance(seconds(100));
  CHECK(has_database(world, "other"));
  leave(world, client);
  world.advance(seconds(9));
  CHECK(has_database(world, "other"));
  world.advance(seconds(1));
  CHECK_FALSE(has_database(world, "other"));
  CHECK(has_database(world, "db"));
  CHECK(world.core.contexts().size() == 1);
  world.client("u", "other");
  CHECK(times_logged(world, line) == 2);
}

TEST_CASE("the console makes a database that comes by * known, too", "[unused]") {
  World world(config_text("autodb_idle_timeout = 10\n", "* = host=127.0.0.1\n"));
  const WirePtr admin = world.connect();
  world.feed(admin, World::startup({{"user", "admin"}, {"database", "pgbouncer"}}));
  world.feed(admin, query("disable other"));
  CHECK(times_logged(world, "registered new auto-database: other") == 1);
  world.advance(seconds(100));
  CHECK(world.host.pools.is_disabled("other"));
  world.feed(admin, query("enable other"));
  world.advance(seconds(10));
  CHECK_FALSE(has_database(world, "other"));
}

// ---- server_fast_close ----

namespace {

struct FastClose : World {
  explicit FastClose(const std::string& more = "") : World(config_text("server_fast_close = 1\n" + more)) {}
  void reconnect() {
    host.pools.reconnect("db", now, core.actions());
    settle();
  }
};

}  // namespace

TEST_CASE("server_fast_close ends a session between two transactions", "[unused]") {
  FastClose world("pool_mode = session\n");
  const WirePtr client = world.client();
  world.byte_by_byte = GENERATE(false, true);
  world.feed(client, query("begin"));
  SECTION("a query runs") {
    world.reconnect();
    CHECK_FALSE(client->closed);
    world.feed(world.server, complete("X") + ready());
    CHECK(client->take() == complete("X") + ready() + fatal("08P01", kChanged));
  }
  SECTION("a transaction is open") {
    world.feed(world.server, complete("BEGIN") + ready('T'));
    world.reconnect();
    CHECK_FALSE(client->closed);
    world.feed(client, query("commit"));
    world.feed(world.server, complete("COMMIT") + ready());
    CHECK(client->take() == complete("BEGIN") + ready('T') + complete("COMMIT") + ready() + fatal("08P01", kChanged));
  }
  SECTION("nothing runs") {
    world.feed(world.server, complete("X") + ready());
    client->take();
    world.reconnect();
    CHECK(client->take() == fatal("08P01", kChanged));
  }
  SECTION("the client has sent half a message") {
    world.feed(world.server, complete("X") + ready());
    client->take();
    const std::string large = query(std::string(100'000, 'x'));
    world.feed(client, large.substr(0, 50'000));
    world.reconnect();
    CHECK_FALSE(client->closed);
    world.feed(client, large.substr(50'000));
    world.feed(world.server, complete("X") + ready());
    CHECK(client->take() == complete("X") + ready() + fatal("08P01", kChanged));
  }
  CHECK(client->closed);
  CHECK(types(world.server->take()).back() == 'X');
}

TEST_CASE("server_fast_close changes nothing", "[unused]") {
  SECTION("in transaction mode, where a server is given back anyway") {
    FastClose world;
    const WirePtr client = world.client();
    world.feed(client, query("x"));
    world.reconnect();
    world.feed(world.server, complete("X") + ready());
    CHECK(client->take() == complete("X") + ready());
    CHECK_FALSE(client->closed);
    CHECK(types(world.server->take()) == "QX");
  }
  SECTION("for a server that is not to be closed") {
    FastClose world("pool_mode = session\n");
    const WirePtr client = world.client();
    world.feed(client, query("x"));
    world.feed(world.server, complete("X") + ready());
    CHECK_FALSE(client->closed);
  }
  SECTION("once it is off again") {
    FastClose world("pool_mode = session\n");
    const WirePtr client = world.client();
    world.feed(client, query("x"));
    world.reconnect();
    world.core.set_settings(make_settings(config_text("pool_mode = session\n"), {{"u", "pw"}}));
    world.feed(world.server, complete("X") + ready());
    CHECK_FALSE(client->closed);
  }
}

TEST_CASE("a client whose request has not reached the server gets another", "[unused]") {
  FastClose world("pool_mode = session\n");
  const WirePtr client = world.client();
  world.feed(world.connect(), "");
  const WirePtr other = world.connect();
  world.feed(other, World::startup({{"user", "u"}, {"database", "db"}, {"DateStyle", "German"}}));
  world.server->take();
  // The server is being given the client's parameters when the configuration changes.
  world.reconnect();
  world.feed(world.server, complete("SET") + status("DateStyle", "German, DMY") + ready());
  world.hang_up(world.server);
  if (types(other->written).back() != 'Z') world.server = world.server_up();
  if (types(other->written).back() != 'Z') {
    world.feed(world.server, complete("SET") + status("DateStyle", "German, DMY") + ready());
  }
  CHECK_FALSE(other->closed);
  CHECK_FALSE(client->closed);
  CHECK(types(other->take()).back() == 'Z');
}
