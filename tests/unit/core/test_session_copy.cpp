// COPY between one client and its servers, above all one that fails while its data are still coming.
#include <catch2/catch.hpp>

#include "fake_host.hpp"

using namespace pgweir;
using namespace pgweir::core;
using namespace pgweir::core::test;

namespace {

const std::string kCopyIn("G\0\0\0\7\0\0\0", 8);

/// A COPY of `client` fails when the server has been sent `data`.
void fail_copy(World& world, const WirePtr& client, std::string_view data) {
  world.feed(client, query("copy t from stdin"));
  world.feed(world.server, kCopyIn);
  world.feed(client, data);
  world.feed(world.server, server_error("22P04", "bad data") + ready());
  world.server->written.clear();
}

}  // namespace

TEST_CASE("COPY FROM STDIN", "[session]") {
  World world;
  const WirePtr client = world.client();
  world.byte_by_byte = GENERATE(false, true);
  const std::string data = made(protocol::append_copy_data, "1\n");
  const std::string done = made(protocol::append_copy_done);
  world.feed(client, query("copy t from stdin"));
  world.feed(world.server, kCopyIn);
  CHECK(client->take() == kCopyIn);
  world.feed(client, data + synced() + data + done);
  CHECK(world.server->take() == query("copy t from stdin") + data + synced() + data + done);
  world.feed(world.server, complete("COPY 2") + ready());
  CHECK(client->take() == complete("COPY 2") + ready());
  CHECK(idle(world) == 1);
  // Late data of a COPY that has ended is nobody's.
  world.feed(client, data + done);
  CHECK(world.server->take().empty());
  CHECK(idle(world) == 1);
}

TEST_CASE("a COPY that fails while a Sync is under way costs the server", "[session]") {
  World world;
  const WirePtr client = world.client();
  world.feed(client, query("copy t from stdin"));
  world.feed(world.server, kCopyIn);
  world.feed(client, made(protocol::append_copy_data, "bad\n") + synced());
  client->written.clear();
  world.server->written.clear();
  // The server failed before it read the Sync, which it will answer too.
  world.feed(world.server, server_error("22P04", "bad data") + ready());
  CHECK(client->take() == server_error("22P04", "bad data") + ready());
  CHECK(world.server->take() == terminate());
  CHECK(idle(world) == 0);
  CHECK_FALSE(client->closed);
}

TEST_CASE("a COPY that cannot start leaves no query running", "[session]") {
  World world(config_text("query_timeout = 10\n"));
  const WirePtr client = world.client();
  world.feed(client, query("copy nothing from stdin") + made(protocol::append_copy_done));
  world.feed(world.server, server_error("42P01", "no such table") + ready());
  CHECK(idle(world) == 1);
  world.advance(seconds(11));
  CHECK_FALSE(client->closed);
}

TEST_CASE("the end of a CopyData that comes late gives the server back", "[session]") {
  World world;
  const WirePtr client = world.client();
  const std::string data = made(protocol::append_copy_data, std::string(1000, 'x'));
  fail_copy(world, client, data.substr(0, 500));
  CHECK(idle(world) == 0);
  SECTION("at once") {
    world.feed(client, data.substr(500));
    CHECK(world.server->take() == data.substr(500));
    CHECK(idle(world) == 1);
  }
  SECTION("before anything else is asked of it") {
    world.feed(client, data.substr(500) + made(protocol::append_copy_done) + query("select 1"));
    CHECK(world.server->take() == data.substr(500) + query("select 1"));
    world.feed(world.server, complete("SELECT 1") + ready());
    CHECK(idle(world) == 1);
  }
}

TEST_CASE("a server that answers before it has read everything is given back when it has", "[session]") {
  World world;
  const WirePtr client = world.client();
  const std::string data = made(protocol::append_copy_data, std::string(1000, 'x'));
  world.feed(client, query("copy t from stdin"));
  world.feed(world.server, kCopyIn);
  world.server->written.clear();
  world.server->accept = 100;
  world.feed(client, data);
  world.feed(world.server, server_error("22P04", "bad data") + ready());
  CHECK(idle(world) == 0);
  SECTION("by then") {
    world.drain(world.server);
    CHECK(world.server->take() == data);
    CHECK(idle(world) == 1);
  }
  SECTION("or dies before that, which is nobody's loss") {
    CHECK_FALSE(client->read);
    world.hang_up(world.server);
    CHECK_FALSE(client->closed);
    CHECK(client->read);
  }
}

TEST_CASE("leaving with half a CopyData sent costs the server", "[session]") {
  World world;
  const WirePtr client = world.client();
  fail_copy(world, client, made(protocol::append_copy_data, std::string(1000, 'x')).substr(0, 500));
  world.hang_up(client);
  // What came next would be taken for the rest of it. So would a Terminate.
  CHECK(world.server->written.empty());
  CHECK(idle(world) == 0);
  world.hang_up(world.server);
  CHECK(world.host.pools.totals().servers == 0);
}

TEST_CASE("the end of a CopyData that comes late gives the server nowhere in session mode", "[session]") {
  World world(config_text("pool_mode = session\n"));
  const WirePtr client = world.client();
  const std::string data = made(protocol::append_copy_data, std::string(1000, 'x'));
  fail_copy(world, client, data.substr(0, 500));
  world.feed(client, data.substr(500) + query("select 1"));
  CHECK(world.server->take() == data.substr(500) + query("select 1"));
}
