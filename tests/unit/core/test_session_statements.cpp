// Named prepared statements in transaction pooling, as client and server see them.
#include <catch2/catch.hpp>

#include "fake_host.hpp"

using namespace pgweir;
using namespace pgweir::core;
using namespace pgweir::core::test;

namespace {

const std::string kNoTypes("\0\0", 2);

/// What a statement is called on the servers.
std::string name_of(World& world, std::string_view sql) {
  return world.core.statement_table().intern(sql, kNoTypes)->server_name();
}

/// `client` prepares `sql` as `name` on `server`, which has not got it.
void prepare(World& world, const WirePtr& client, const WirePtr& server, std::string_view name, std::string_view sql) {
  world.feed(client, parse(name, sql) + synced());
  const std::string sent = server->take();
  REQUIRE(sent.size() > synced().size());
  world.feed(server, parsed() + ready());
  REQUIRE(client->take() == parsed() + ready());
}

}  // namespace

TEST_CASE("a second Parse of the same text is answered here", "[session]") {
  World world;
  const WirePtr a = world.client();
  const WirePtr b = world.client();
  const WirePtr server = world.server;
  world.byte_by_byte = GENERATE(false, true);
  world.feed(a, parse("mine", "select 1") + bind_to("mine") + execute() + synced());
  const std::string name = name_of(world, "select 1");
  CHECK(server->take() == parse(name, "select 1") + bind_to(name) + execute() + synced());
  world.feed(server, parsed() + bound() + complete("SELECT 1") + ready());
  CHECK(a->take() == parsed() + bound() + complete("SELECT 1") + ready());

  world.feed(b, parse("other", "select 1") + describe("other") + bind_to("other") + synced());
  CHECK(server->take() == describe(name) + bind_to(name) + synced());
  world.feed(server, row_description() + bound() + ready());
  CHECK(b->take() == parsed() + row_description() + bound() + ready());
  CHECK(idle(world) == 1);
}

TEST_CASE("answers of ours come when their turn is", "[session]") {
  World world;
  const WirePtr client = world.client();
  const WirePtr server = world.server;
  prepare(world, client, server, "one", "select 1");
  world.byte_by_byte = GENERATE(false, true);
  world.feed(client,
             parse("two", "select 2") + parse("again", "select 1") + close_of("one") + bind_to("two") + synced());
  const std::string two = name_of(world, "select 2");
  CHECK(server->take() == parse(two, "select 2") + bind_to(two) + synced());
  CHECK(client->take().empty());
  world.feed(server, parsed());
  CHECK(client->take() == parsed() + parsed() + closed());
  world.feed(server, bound() + ready());
  CHECK(client->take() == bound() + ready());
}

TEST_CASE("a statement is made unseen where it is missing", "[session]") {
  World world;
  const WirePtr a = world.client();
  const WirePtr b = world.client();
  const WirePtr first = world.server;
  prepare(world, a, first, "s", "select 1");
  world.byte_by_byte = GENERATE(false, true);
  world.feed(b, query("begin"));
  world.feed(first, complete("BEGIN") + ready('T'));
  world.feed(a, bind_to("s") + execute() + synced());
  const WirePtr second = world.server_up();
  const std::string name = name_of(world, "select 1");
  CHECK(second->take() == parse(name, "select 1") + bind_to(name) + execute() + synced());
  world.feed(second, parsed() + bound() + complete("SELECT 1") + ready());
  CHECK(a->take() == bound() + complete("SELECT 1") + ready());
}

TEST_CASE("a hidden Parse that fails tells its error", "[session]") {
  World world;
  const WirePtr a = world.client();
  const WirePtr b = world.client();
  prepare(world, a, world.server, "s", "select * from t");
  world.feed(b, query("begin"));
  world.feed(world.server, complete("BEGIN") + ready('T'));
  world.feed(a, bind_to("s") + execute() + synced());
  const WirePtr second = world.server_up();
  second->written.clear();
  world.feed(second, server_error("42P01", "no t") + ready());
  CHECK(a->take() == server_error("42P01", "no t") + ready());
  world.feed(a, bind_to("s") + synced());
  CHECK(types(second->take()) == "PBS");  // it is not thought to be there
}

TEST_CASE("Close stays here", "[session]") {
  World world;
  const WirePtr client = world.client();
  const WirePtr server = world.server;
  prepare(world, client, server, "s", "select 1");
  world.byte_by_byte = GENERATE(false, true);
  world.feed(client, close_of("s") + close_of("unknown") + synced());
  CHECK(server->take() == synced());
  world.feed(server, ready());
  CHECK(client->take() == closed() + closed() + ready());
  CHECK(idle(world) == 1);
  world.feed(client, parse("s", "select 2") + synced());
  CHECK(server->take() == parse(name_of(world, "select 2"), "select 2") + synced());
}

TEST_CASE("an unknown name fails as on a server", "[session]") {
  World world;
  const WirePtr client = world.client();
  const WirePtr server = world.server;
  world.byte_by_byte = GENERATE(false, true);
  const bool use_bind = GENERATE(false, true);
  world.feed(client, (use_bind ? bind_to("nix") : describe("nix")) + execute() + synced());
  CHECK(types(server->take()) == "DES");
  world.feed(server, server_error("26000", "prepared statement \"PGWEIR_...\" does not exist") + ready());
  CHECK(client->take() == server_error("26000", "prepared statement \"nix\" does not exist") + ready());
  CHECK(idle(world) == 1);
}

TEST_CASE("a name twice fails as on a server", "[session]") {
  World world;
  const WirePtr client = world.client();
  const WirePtr server = world.server;
  prepare(world, client, server, "s", "select 1");
  world.byte_by_byte = GENERATE(false, true);
  world.feed(client, parse("s", "select 2") + bind_to("s") + synced());
  CHECK(types(server->take()) == "PBS");
  world.feed(server, server_error("42P05", "the name on the server exists") + ready());
  CHECK(client->take() == server_error("42P05", "prepared statement \"s\" already exists") + ready());
  world.feed(client, bind_to("s") + synced());
  CHECK(server->take() == bind_to(name_of(world, "select 1")) + synced());
}

TEST_CASE("a Parse that fails leaves its name free", "[session]") {
  World world;
  const WirePtr client = world.client();
  const WirePtr server = world.server;
  world.byte_by_byte = GENERATE(false, true);
  world.feed(client, parse("s", "selct") + parse("t", "select 2") + synced());
  server->written.clear();
  world.feed(server, server_error("42601", "syntax error") + ready());
  CHECK(client->take() == server_error("42601", "syntax error") + ready());
  world.feed(client, parse("s", "select 1") + parse("t", "select 2") + synced());
  CHECK(types(server->take()) == "PPS");
  world.feed(server, parsed() + parsed() + ready());
  CHECK(client->take() == parsed() + parsed() + ready());
}

TEST_CASE("the least recently used statement makes room", "[session]") {
  World world(config_text("max_prepared_statements = 2\n"));
  const WirePtr client = world.client();
  const WirePtr server = world.server;
  prepare(world, client, server, "one", "select 1");
  prepare(world, client, server, "two", "select 2");
  world.byte_by_byte = GENERATE(false, true);
  world.feed(client, bind_to("one") + synced());
  world.feed(server, bound() + ready());
  client->written.clear();
  server->written.clear();
  world.feed(client, parse("three", "select 3") + synced());
  CHECK(server->take() ==
        close_of(name_of(world, "select 2")) + parse(name_of(world, "select 3"), "select 3") + synced());
  world.feed(server, closed() + parsed() + ready());
  CHECK(client->take() == parsed() + ready());
  world.feed(client, bind_to("two") + synced());
  CHECK(types(server->take()) == "CPBS");
  world.feed(server, closed() + parsed() + bound() + ready());
  CHECK(client->take() == bound() + ready());
}

TEST_CASE("making room while the server skips to Sync comes to an end", "[session]") {
  World world(config_text("max_prepared_statements = 1\n"));
  const WirePtr client = world.client();
  const WirePtr server = world.server;
  prepare(world, client, server, "one", "select 1");
  world.feed(client, bind_to("one") + execute() + flush());
  world.feed(server, bound() + server_error("22012", "division by zero"));
  client->written.clear();
  server->written.clear();
  world.feed(client, parse("two", "select 2") + bind_to("one"));
  CHECK(server->take().size() < 1000);
  world.feed(client, synced());
  world.feed(server, ready());
  CHECK(client->take() == ready());
  server->written.clear();
  // Nothing of what was skipped is remembered.
  world.feed(client, bind_to("one") + synced());
  CHECK(server->take() == bind_to(name_of(world, "select 1")) + synced());
  world.feed(server, bound() + ready());
  world.feed(client, parse("two", "select 2") + synced());
  CHECK(types(server->take()) == "CPS");
}

TEST_CASE("an unnamed statement follows its client", "[session]") {
  World world;
  const WirePtr a = world.client();
  const WirePtr b = world.client();
  const WirePtr server = world.server;
  world.byte_by_byte = GENERATE(false, true);
  world.feed(a, parse("", "select 1") + synced());
  world.feed(server, parsed() + ready());
  CHECK(a->take() == parsed() + ready());
  world.feed(b, parse("", "select 2") + synced());
  world.feed(server, parsed() + ready());
  b->written.clear();
  server->written.clear();
  world.feed(a, bind_to("") + execute() + synced());
  CHECK(server->take() == parse("", "select 1") + bind_to("") + execute() + synced());
  world.feed(server, parsed() + bound() + complete("SELECT 1") + ready());
  CHECK(a->take() == bound() + complete("SELECT 1") + ready());
}

TEST_CASE("one client never executes another one's unnamed statement", "[session]") {
  World world;
  const WirePtr a = world.client();
  const WirePtr b = world.client();
  const WirePtr server = world.server;
  world.feed(a, parse("", "select secret") + synced());
  world.feed(server, parsed() + ready());
  server->written.clear();
  world.feed(b, bind_to("") + execute() + synced());
  CHECK(types(server->take()) == "DES");
  world.feed(server, server_error("26000", "hm") + ready());
  CHECK(b->take() == server_error("26000", "unnamed prepared statement does not exist") + ready());
}

TEST_CASE("DISCARD ALL forgets what was prepared", "[session]") {
  World world;
  const WirePtr client = world.client();
  const WirePtr server = world.server;
  prepare(world, client, server, "s", "select 1");
  world.byte_by_byte = GENERATE(false, true);
  world.feed(client, query("discard all"));
  world.feed(server, complete("DISCARD ALL") + ready());
  client->written.clear();
  server->written.clear();
  world.feed(client, parse("s", "select 1") + synced());
  CHECK(server->take() == parse(name_of(world, "select 1"), "select 1") + synced());
}

TEST_CASE("EXECUTE and DEALLOCATE as SQL find a statement prepared by protocol", "[session]") {
  World world;
  const WirePtr client = world.client();
  const WirePtr server = world.server;
  prepare(world, client, server, "s", "select 1");
  const std::string name = name_of(world, "select 1");
  world.byte_by_byte = GENERATE(false, true);
  world.feed(client, query("execute s"));
  CHECK(server->take() == query("execute \"" + name + "\""));
  world.feed(server, complete("SELECT 1") + ready());
  CHECK(client->take() == complete("SELECT 1") + ready());
  world.feed(client, query("deallocate s"));
  CHECK(server->take() == query("deallocate \"" + name + "\""));
  world.feed(server, complete("DEALLOCATE") + ready());
  client->written.clear();
  world.feed(client, bind_to("s") + synced());
  CHECK(types(server->take()) == "DS");
}

TEST_CASE("names pass through where none are tracked", "[session]") {
  const char* setting = GENERATE("max_prepared_statements = 0\n", "pool_mode = session\n");
  World world(config_text(setting));
  const WirePtr client = world.client();
  const std::string batch = parse("s", "select 1") + bind_to("s") + close_of("s") + synced();
  world.feed(client, batch);
  CHECK(world.server->take() == batch);
  world.feed(world.server, parsed() + bound() + closed() + ready());
  CHECK(client->take() == parsed() + bound() + closed() + ready());
}
