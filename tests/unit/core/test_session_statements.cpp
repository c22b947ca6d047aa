// Named prepared statements in transaction pooling, as client and server see them.
#include <catch2/catch.hpp>

#include "fake_host.hpp"

using namespace pgweir;
using namespace pgweir::core;
using namespace pgweir::core::test;

namespace {

std::string name_of(World& world, std::string_view sql) {
  return server_name_of(world, sql);
}

/// `client` prepares `sql` as `name` on `server`, which has not got it.
void prepare(World& world, const WirePtr& client, const WirePtr& server, std::string_view name, std::string_view sql) {
  world.feed(client, parse(name, sql) + synced());
  const std::string sent = server->take();
  REQUIRE(sent.size() > synced().size());
  world.feed(server, parsed() + ready());
  REQUIRE(client->take() == parsed() + ready());
}

/// The server is this client's until its transaction ends.
void begin(World& world, const WirePtr& client, const WirePtr& server) {
  world.feed(client, query("begin"));
  world.feed(server, complete("BEGIN") + ready('T'));
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
  begin(world, b, first);
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
  begin(world, b, world.server);
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
  if (world.byte_by_byte) {  // whether anything else follows was not known when a server was asked for
    CHECK(server->take() == synced());
    world.feed(server, ready());
  }
  CHECK(server->take().empty());
  CHECK(client->take() == closed() + closed() + ready());
  CHECK(idle(world) == 1);
  world.feed(client, parse("s", "select 2") + synced());
  CHECK(server->take() == parse(name_of(world, "select 2"), "select 2") + synced());
}

TEST_CASE("Close with its Sync needs no server", "[session]") {
  World world;
  const WirePtr client = world.client();
  const WirePtr busy = world.client();
  prepare(world, client, world.server, "s", "select 1");
  begin(world, busy, world.server);
  world.server->written.clear();
  world.feed(client, close_of("s") + synced() + close_of("t") + synced() + bind_to("s") + synced());
  CHECK(client->take() == closed() + ready() + closed() + ready());
  CHECK(world.server->written.empty());
  const WirePtr second = world.server_up();
  CHECK(types(second->take()) == "DS");  // in place of the Bind, which has to fail
  world.feed(second, server_error("26000", "no such statement") + ready());
  CHECK(types(client->take()) == "EZ");
}

TEST_CASE("Close that waits for a server keeps its place when its Sync comes", "[session]") {
  World world;
  const WirePtr client = world.client();
  const WirePtr busy = world.client();
  const WirePtr server = world.server;
  prepare(world, client, server, "s", "select 1");
  begin(world, busy, server);
  world.feed(client, close_of("s"));
  world.feed(client, synced());
  CHECK(client->take().empty());
  world.feed(busy, query("commit"));
  server->written.clear();
  world.feed(server, complete("COMMIT") + ready());
  CHECK(server->take() == synced());
  world.feed(server, ready());
  CHECK(client->take() == closed() + ready());
  CHECK(idle(world) == 1);
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

TEST_CASE("the unnamed statement of a client in session mode is nobody else's", "[session]") {
  World world(config_text("server_reset_query =\n"));
  const WirePtr before = world.client();
  const WirePtr server = world.server;
  world.feed(before, parse("", "select 1") + synced());
  world.feed(server, parsed() + ready());
  const std::string session = config_text("server_reset_query =\npool_mode = session\n");
  world.core.set_settings(make_settings(session, {{"u", "pw"}}));
  const WirePtr after = world.client();
  world.feed(after, parse("", "select 2") + synced());
  world.feed(server, parsed() + ready());
  world.feed(after, terminate());
  CHECK(idle(world) == 1);
  server->written.clear();
  world.feed(before, bind_to("") + execute() + synced());
  CHECK(server->take() == parse("", "select 1") + bind_to("") + execute() + synced());
}

TEST_CASE("statements are found again after max_prepared_statements has been 0", "[session]") {
  World world;
  const WirePtr a = world.client();
  const WirePtr server = world.server;
  const std::string name = name_of(world, "select 1");
  prepare(world, a, server, "s", "select 1");
  world.core.set_settings(make_settings(config_text("max_prepared_statements = 0\n"), {{"u", "pw"}}));
  world.feed(a, parse("t", "select 2") + synced());
  world.feed(server, closed() + parsed() + ready());
  CHECK(a->take() == parsed() + ready());
  world.core.set_settings(make_settings(config_text("max_prepared_statements = 10\n"), {{"u", "pw"}}));
  server->written.clear();
  const WirePtr c = world.client();
  world.feed(c, parse("u", "select 2") + synced());
  CHECK(server->take() == synced());
}

TEST_CASE("a text that was prepared under other settings is another statement", "[session]") {
  World world;
  const WirePtr a = world.client();
  const WirePtr server = world.server;
  const std::string_view sql = "select '1/2/2020'::date";
  prepare(world, a, server, "s", sql);
  const std::string usual = name_of(world, sql);
  const std::string turn = query("SET DateStyle='ISO, DMY';");
  const std::string turned = status("DateStyle", "ISO, DMY") + complete("SET") + ready();
  const std::string own_set = query("set datestyle to dmy");
  SECTION("of another client") {
    const WirePtr b = world.client();
    world.feed(b, own_set);
    world.feed(server, turned);
    server->written.clear();
    world.feed(b, parse("s", sql) + synced());
    const std::string sent = server->take();
    CHECK(sent.find(usual) == std::string::npos);
    CHECK(types(sent) == "PS");
    world.feed(server, parsed() + ready());
    world.feed(a, bind_to("s") + synced());
    CHECK(server->take() == query("SET DateStyle='ISO, MDY';"));
    world.feed(server, status("DateStyle", "ISO, MDY") + complete("SET") + ready());
    CHECK(server->take() == bind_to(usual) + synced());
  }
  SECTION("of the same client, which keeps what it has prepared where it is") {
    world.feed(a, own_set);
    world.feed(server, turned);
    server->written.clear();
    world.feed(a, bind_to("s") + synced());
    CHECK(server->take() == bind_to(usual) + synced());
  }
  SECTION("where it has to be made again, it is not made under the old name") {
    world.feed(a, own_set);
    world.feed(server, turned);
    world.hang_up(server);
    world.feed(a, bind_to("s") + synced());
    const WirePtr other = world.server_up();
    CHECK(other->take() == turn);
    world.feed(other, turned);
    const std::string sent = other->take();
    CHECK(types(sent) == "PBS");
    CHECK(sent.find(usual) == std::string::npos);
  }
  SECTION("what is prepared behind a command that changes them is for nobody else") {
    const WirePtr b = world.client();
    server->written.clear();
    const bool simple = GENERATE(true, false);
    const std::string extended = parse("", "set datestyle to dmy") + bind_to("") + execute();
    world.feed(b, (simple ? own_set : extended) + parse("s", sql) + synced());
    CHECK(server->take().find(usual) == std::string::npos);
  }
}
