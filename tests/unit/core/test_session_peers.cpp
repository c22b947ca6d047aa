// Cancel requests that are passed on to another process, and how long a request may take.
#include <catch2/catch.hpp>

#include "fake_host.hpp"
#include "pool/cancel_key.hpp"

using namespace pgweir;
using namespace pgweir::core;
using namespace pgweir::core::test;
namespace cancel_key = pgweir::pool::cancel_key;

namespace {

/// We are 1; 2 takes one request at a time.
std::string peered(const std::string& more = "", const std::string& peers = "2 = host=/p2 port=7000 pool_size=1\n") {
  return config_text("peer_id = 1\n" + more + "[peers]\n1 = host=/p1\n" + peers);
}

std::uint64_t key_of(std::uint16_t peer, std::uint64_t hops = 3) {
  return cancel_key::make(0x0A0B0C0D0E0F1011, peer) - (3 - hops);
}

/// A connection that has sent a cancel request.
WirePtr asks(World& world, std::uint64_t key) {
  const WirePtr wire = world.connect();
  world.feed(wire, cancel_request(key));
  return wire;
}

}  // namespace

TEST_CASE("the key of a client names its process", "[peers]") {
  World world(config_text("peer_id = 0x1234\n"));
  world.client();
  const std::uint64_t key = key_in(world.welcome);
  CHECK(cancel_key::peer(key) == 0x1234);
  CHECK(cancel_key::hops(key) == 3);
  const WirePtr admin = world.connect();
  world.feed(admin, World::startup({{"user", "admin"}, {"database", "pgbouncer"}}));
  CHECK(cancel_key::peer(key_in(admin->take())) == 0x1234);
}

TEST_CASE("a cancel request for another process is passed on", "[peers]") {
  World world(peered());
  world.byte_by_byte = GENERATE(false, true);
  const auto hops = GENERATE(1U, 3U);
  const WirePtr asking = asks(world, key_of(2, hops));
  REQUIRE(world.host.cancel_targets.size() == 1);
  CHECK(world.host.cancel_targets[0].host == HostPort{"/p2", 7000});
  CHECK(world.host.cancel_targets[0].sslmode == SslMode::Disable);
  const WirePtr peer = world.cancel_connects();
  CHECK(peer->take() == cancel_request(key_of(2, hops - 1)));
  CHECK_FALSE(asking->closed);  // clients take the end of the connection for the end of the request
  world.hang_up(peer);
  CHECK(asking->closed);
  CHECK(asking->written.empty());
  CHECK(world.host.pools.totals().cancels == 0);
}

TEST_CASE("a cancel request that nobody is to have is dropped", "[peers]") {
  World world(peered());
  const std::uint64_t key = GENERATE(key_of(2, 0), key_of(3), key_of(1));
  const WirePtr asking = asks(world, key);
  CHECK(asking->closed);
  CHECK(asking->written.empty());
  CHECK(world.host.cancel_connects.empty());
}

TEST_CASE("a cancel request that was passed on hits its query", "[peers]") {
  World world(peered());
  const WirePtr client = world.client();
  world.feed(client, query("select pg_sleep(10)"));
  const auto hops = GENERATE(0U, 1U, 2U, 3U);
  const WirePtr asking = asks(world, key_in(world.welcome) - (3 - hops));
  CHECK(world.cancel_connects()->take() == made(protocol::append_cancel_request, 4711U, "KEY!"));
  CHECK_FALSE(asking->closed);
}

TEST_CASE("requests beyond the pool_size of a peer wait", "[peers]") {
  World world(peered());
  const WirePtr first = asks(world, key_of(2)), second = asks(world, key_of(2, 2)), third = asks(world, key_of(2, 1));
  REQUIRE(world.host.cancel_connects.size() == 1);
  const WirePtr peer = world.cancel_connects();
  SECTION("for their turn") {
    world.hang_up(peer);
    CHECK(first->closed);
    CHECK_FALSE(second->closed);
    CHECK(world.cancel_connects()->take() == cancel_request(key_of(2, 1)));
    CHECK(world.host.cancel_connects.empty());
  }
  SECTION("even if their client has left: some do not wait for the end") {
    world.hang_up(second);
    world.hang_up(peer);
    CHECK(world.cancel_connects()->take() == cancel_request(key_of(2, 1)));
  }
  SECTION("not for ever") {
    world.advance(seconds(10));
    for (const WirePtr& asking : {first, second, third}) {
      CHECK(asking->closed);
      CHECK(asking->written.empty());
    }
    CHECK(peer->closed);
    CHECK(world.host.logged("peer-2@/p2:7000 closing because: cancel_wait_timeout"));
    CHECK(world.host.abandoned_cancels.size() == world.host.cancel_connects.size());
  }
  SECTION("until their peer has left [peers]") {
    world.host.pools.set_peers(1, {}, world.core.actions());
    world.settle();
    CHECK_FALSE(first->closed);
    CHECK(second->closed);
    CHECK(third->closed);
    world.hang_up(peer);
    CHECK(first->closed);
  }
  SECTION("and are dropped if their worker knows the peer no more") {
    world.core.set_settings(make_settings(peered("", ""), {}));
    world.hang_up(peer);
    CHECK(second->closed);
    CHECK(third->closed);
  }
}

TEST_CASE("a peer that cannot be reached", "[peers]") {
  World world(peered());
  const WirePtr asking = asks(world, key_of(2)), next = asks(world, key_of(2));
  world.core.cancel_connect_failed(world.host.cancel_connects.front(), "connect failed", "Connection refused");
  world.host.cancel_connects.pop_front();
  world.settle();
  CHECK(asking->closed);
  CHECK(world.host.logged("peer-2@/p2:7000 closing because: connect failed: Connection refused"));
  CHECK_FALSE(next->closed);
  CHECK(world.host.cancel_connects.size() == 1);
}

TEST_CASE("the hosts of a peer are taken in turn", "[peers]") {
  World world(peered("", "2 = host=a,b port=7000,7001\n"));
  for (int i = 0; i < 3; ++i) asks(world, key_of(2));
  REQUIRE(world.host.cancel_targets.size() == 3);
  CHECK(world.host.cancel_targets[0].host == HostPort{"a", 7000});
  CHECK(world.host.cancel_targets[1].host == HostPort{"b", 7001});
  CHECK(world.host.cancel_targets[2].host == HostPort{"a", 7000});
}

TEST_CASE("without cancel_wait_timeout", "[peers]") {
  const std::string connect_timeout = GENERATE("5", "0");
  World world(
      peered("cancel_wait_timeout = 0\nclient_login_timeout = 20\nserver_connect_timeout = " + connect_timeout + "\n"));
  const WirePtr asking = asks(world, key_of(2)), waiting = asks(world, key_of(2));
  world.advance(seconds(5));
  if (connect_timeout == "0") {
    world.advance(seconds(100));  // it is no login that takes too long
    CHECK_FALSE(asking->closed);
    CHECK_FALSE(waiting->closed);
    CHECK(asking->written.empty());
    return;
  }
  // A connection may take no longer than one to a server; who waits for it waits without limit.
  CHECK(asking->closed);
  CHECK_FALSE(waiting->closed);
  world.advance(seconds(4));
  CHECK_FALSE(waiting->closed);
  world.advance(seconds(1));
  CHECK(waiting->closed);
  CHECK(waiting->written.empty());
}

TEST_CASE("requests for a pool beyond twice its size wait for their turn", "[peers]") {
  World world(config_text("default_pool_size = 1\n"));
  const WirePtr client = world.client();
  world.feed(client, query("select pg_sleep(10)"));
  const std::uint64_t key = key_in(world.welcome);
  std::vector<WirePtr> all;
  for (int i = 0; i < 3; ++i) all.push_back(asks(world, key));
  CHECK(world.host.cancel_connects.size() == 2);
  SECTION("and are served then") {
    const WirePtr server = world.cancel_connects();
    CHECK_FALSE(server->take().empty());
    world.hang_up(server);
    CHECK(world.host.cancel_connects.size() == 2);
  }
  SECTION("which ends with the query") {
    world.feed(world.server, complete("SELECT 1") + ready());
    for (const WirePtr& asking : all) CHECK(asking->closed);
    CHECK(world.host.abandoned_cancels.size() == 2);
  }
  SECTION("or after cancel_wait_timeout") {
    world.advance(seconds(10));
    for (const WirePtr& asking : all) CHECK(asking->closed);
  }
  CHECK_FALSE(client->closed);
}

TEST_CASE("the console shows peers and their pools", "[peers]") {
  World world(peered());
  const WirePtr admin = world.connect();
  world.feed(admin, World::startup({{"user", "admin"}, {"database", "pgbouncer"}}));
  admin->take();
  world.feed(admin, query("show peer_pools"));
  CHECK(types(admin->take()) == "TCZ");
  asks(world, key_of(2));
  world.feed(admin, query("show peer_pools"));
  CHECK(types(admin->take()) == "TDCZ");
  world.feed(admin, query("show peers"));
  CHECK(types(admin->take()) == "TDDCZ");
}
