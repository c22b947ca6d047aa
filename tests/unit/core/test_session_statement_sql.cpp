// What SQL does to prepared statements and to start-up values, and which messages of a pipeline a server skips.
#include <catch2/catch.hpp>

#include "fake_host.hpp"

using namespace pgweir;
using namespace pgweir::core;
using namespace pgweir::core::test;

namespace {

const std::string kDeallocated = "PGWEIR_deallocated";

std::string server_name(World& world, std::string_view sql) {
  return server_name_of(world, sql);
}

/// `client` prepares `sql` as `name` on `server`, which has not got it.
void make(World& world, const WirePtr& client, const WirePtr& server, std::string_view name, std::string_view sql) {
  world.feed(client, parse(name, sql) + synced());
  world.feed(server, parsed() + ready());
  client->written.clear();
  server->written.clear();
}

/// `client` prepares `sql` as `name` on a server that then loses all its statements.
void make_and_lose(World& world, const WirePtr& client, const WirePtr& server, std::string_view name,
                   std::string_view sql) {
  make(world, client, server, name, sql);
  const WirePtr other = world.client();
  world.feed(other, query("discard all"));
  world.feed(server, complete("DISCARD ALL") + ready());
  server->written.clear();
}

/// A client with start-up values of its own, on a server that has them now.
WirePtr client_in_tokyo(World& world) {
  (void)world.client();
  const WirePtr client = world.connect();
  world.feed(client, World::startup({{"user", "u"}, {"database", "db"}, {"TimeZone", "Asia/Tokyo"}}));
  world.feed(world.server, status("TimeZone", "Asia/Tokyo") + complete("SET") + ready());
  REQUIRE(client->take().find(status("TimeZone", "Asia/Tokyo")) != std::string::npos);
  world.server->written.clear();
  return client;
}

void set_utc(World& world, const WirePtr& client) {
  world.feed(client, query("set timezone = 'UTC'"));
  world.feed(world.server, status("TimeZone", "UTC") + complete("SET") + ready());
  client->written.clear();
}

}  // namespace

TEST_CASE("a simple query that is skipped drops no unnamed statement", "[session]") {
  World world;
  const WirePtr client = world.client();
  const WirePtr server = world.server;
  world.feed(client, parse("", "select 1") + synced());
  world.feed(server, parsed() + ready());
  const std::string dropping = GENERATE(query("select 2"), close_of(""));
  world.byte_by_byte = GENERATE(false, true);
  world.feed(client, execute("none") + dropping + synced());
  world.feed(server, server_error("34000", "portal \"none\" does not exist") + ready());
  client->written.clear();
  server->written.clear();
  world.feed(client, bind_to("") + synced());
  CHECK(server->take() == parse("", "select 1") + bind_to("") + synced());
  world.feed(server, parsed() + bound() + ready());
  CHECK(client->take() == bound() + ready());
}

TEST_CASE("a simple query in a pipeline that goes well drops the unnamed statement", "[session]") {
  World world;
  const WirePtr client = world.client();
  const WirePtr server = world.server;
  world.feed(client, parse("", "select 1") + bind_to("") + query("select 2"));
  world.feed(server, parsed() + bound() + complete("SELECT 1") + ready());
  client->written.clear();
  server->written.clear();
  world.feed(client, bind_to("") + synced());
  CHECK(types(server->take()) == "DS");
  world.feed(server, server_error("26000", "prepared statement \"PGWEIR_no_such_statement\" does not exist") + ready());
  CHECK(client->take().find("unnamed prepared statement does not exist") != std::string::npos);
}

TEST_CASE("EXECUTE as SQL in a failed pipeline is skipped with it", "[session]") {
  World world;
  const WirePtr client = world.client();
  const WirePtr server = world.server;
  make_and_lose(world, client, server, "s", "select 1");
  world.byte_by_byte = GENERATE(false, true);
  world.feed(client, execute("none") + query("execute s"));
  CHECK(server->take() == execute("none") + flush());
  world.feed(server, server_error("34000", "portal \"none\" does not exist"));
  CHECK(server->take() == query("execute s"));
  world.feed(client, synced());
  CHECK(server->take() == synced());
  world.feed(server, ready());
  CHECK(types(client->take()) == "EZ");
}

TEST_CASE("EXECUTE as SQL in a pipeline belongs to its transaction", "[session]") {
  World world;
  const WirePtr client = world.client();
  const WirePtr server = world.server;
  make_and_lose(world, client, server, "s", "select 1");
  const std::string name = server_name(world, "select 1");
  world.byte_by_byte = GENERATE(false, true);
  world.feed(client, bind_to("") + query("execute s"));
  server->written.clear();
  world.feed(server, server_error("26000", "prepared statement \"PGWEIR_no_such_statement\" does not exist"));
  world.feed(client, synced());
  world.feed(server, ready());
  client->written.clear();
  server->written.clear();

  world.feed(client, parse("", "insert") + query("execute s"));
  CHECK(server->take() == parse("", "insert") + flush());
  world.feed(server, parsed());
  CHECK(server->take() == parse(name, "select 1") + flush());
  SECTION("the statement can be made") {
    world.feed(server, parsed());
    CHECK(server->take() == query("execute \"" + name + "\""));
    world.feed(server, complete("SELECT 1") + ready());
    CHECK(client->take() == parsed() + complete("SELECT 1") + ready());
  }
  SECTION("it cannot") {
    world.feed(server, server_error("42P01", "no table"));
    CHECK(server->take() == synced());
    world.feed(server, ready());
    CHECK(client->take() == parsed() + server_error("42P01", "no table") + ready());
  }
  CHECK(world.host.pools.totals().idle_servers == 1);
}

TEST_CASE("what follows a DISCARD ALL in a pipeline waits for it", "[session]") {
  World world;
  const WirePtr client = world.client();
  const WirePtr server = world.server;
  make(world, client, server, "s", "select 1");
  const std::string name = server_name(world, "select 1");
  world.byte_by_byte = GENERATE(false, true);
  world.feed(client, query("DISCARD ALL") + parse("s", "select 1") + bind_to("s") + synced());
  CHECK(server->take() == query("DISCARD ALL"));
  world.feed(server, complete("DISCARD ALL") + ready());
  CHECK(server->take() == parse(name, "select 1") + bind_to(name) + synced());
  world.feed(server, parsed() + bound() + ready());
  CHECK(client->take() == complete("DISCARD ALL") + ready() + parsed() + bound() + ready());
}

TEST_CASE("what follows a DEALLOCATE ALL in extended protocol waits for it", "[session]") {
  World world;
  const WirePtr client = world.client();
  const WirePtr server = world.server;
  make(world, client, server, "s", "select 1");
  const std::string name = server_name(world, "select 1");
  world.byte_by_byte = GENERATE(false, true);
  const std::string all = parse("", "deallocate all") + bind_to("") + execute();
  world.feed(client, all + parse("s", "select 1") + synced());
  CHECK(server->take() == all + flush());
  world.feed(server, parsed() + bound() + complete("DEALLOCATE ALL"));
  CHECK(server->take() == parse(name, "select 1") + synced());
  world.feed(server, parsed() + ready());
  CHECK(client->take() == parsed() + bound() + complete("DEALLOCATE ALL") + parsed() + ready());
}

TEST_CASE("DEALLOCATE in extended protocol frees the client's name and leaves the others' statement", "[session]") {
  World world;
  const WirePtr client = world.client();
  const WirePtr server = world.server;
  make(world, client, server, "s", "select 1");
  world.byte_by_byte = GENERATE(false, true);
  world.feed(client, parse("", "DEALLOCATE s") + bind_to("") + execute() + bind_to("s") + synced());
  std::string made_up;
  protocol::append_parse(made_up, kDeallocated, "", {});
  CHECK(server->take() == parse("", "DEALLOCATE \"" + kDeallocated + "\"") + close_of(kDeallocated) + made_up +
                              bind_to("") + execute() + describe("PGWEIR_no_such_statement") + synced());
  world.feed(server, parsed() + closed() + parsed() + bound() + complete("DEALLOCATE") +
                         server_error("26000", "prepared statement \"PGWEIR_no_such_statement\" does not exist") +
                         ready());
  const std::string told = client->take();
  CHECK(types(told) == "12CEZ");
  CHECK(told.find("prepared statement \"s\" does not exist") != std::string::npos);
  world.feed(client, parse("again", "select 1") + synced());
  CHECK(server->take() == synced());
}

TEST_CASE("DEALLOCATE among other statements frees the client's name unless they fail", "[session]") {
  World world;
  const WirePtr client = world.client();
  const WirePtr server = world.server;
  make(world, client, server, "s", "select 1");
  const std::string name = server_name(world, "select 1");
  world.byte_by_byte = GENERATE(false, true);
  world.feed(client, query("SAVEPOINT p;DEALLOCATE \"s\";RELEASE p"));
  CHECK(types(server->take()) == "CPSQ");
  const bool fails = GENERATE(false, true);
  world.feed(server, closed() + parsed() + ready());
  world.feed(server, (fails ? server_error("25P01", "no transaction") : complete("DEALLOCATE")) + ready());
  CHECK(types(client->take()) == (fails ? "EZ" : "CZ"));
  world.feed(client, bind_to("s") + synced());
  CHECK(server->take() == (fails ? bind_to(name) : describe("PGWEIR_no_such_statement")) + synced());
}

TEST_CASE("EXECUTE in extended protocol finds the client's statement", "[session]") {
  World world;
  const WirePtr client = world.client();
  const WirePtr server = world.server;
  make_and_lose(world, client, server, "s", "select 1");
  const std::string name = server_name(world, "select 1");
  world.byte_by_byte = GENERATE(false, true);
  world.feed(client, parse("", "EXECUTE s") + bind_to("") + execute() + synced());
  CHECK(server->take() ==
        parse(name, "select 1") + parse("", "EXECUTE \"" + name + "\"") + bind_to("") + execute() + synced());
  world.feed(server, parsed() + parsed() + bound() + complete("SELECT 1") + ready());
  CHECK(client->take() == parsed() + bound() + complete("SELECT 1") + ready());
}

TEST_CASE("errors name a statement as the client does", "[session]") {
  World world;
  const WirePtr client = world.client();
  const WirePtr server = world.server;
  make(world, client, server, "other", "select $1");
  world.feed(client, parse("mine", "select $1") + synced());
  world.feed(server, ready());
  client->written.clear();
  server->written.clear();
  const std::string name = server_name(world, "select $1");
  world.byte_by_byte = GENERATE(false, true);
  world.feed(client, bind_to("mine") + close_of("mine") + synced());
  world.feed(server, server_error("08P01", "prepared statement \"" + name + "\" requires 1") + ready());
  CHECK(client->take() == server_error("08P01", "prepared statement \"mine\" requires 1") + ready());
}

TEST_CASE("a failed transaction takes no new statement", "[session]") {
  World world;
  const WirePtr client = world.client();
  const WirePtr server = world.server;
  make(world, client, server, "s", "select 1");
  world.feed(client, query("begin; select 1/0"));
  world.feed(server, server_error("22012", "division by zero") + ready('E'));
  client->written.clear();
  server->written.clear();
  world.byte_by_byte = GENERATE(false, true);
  world.feed(client, parse("t", "select 1") + synced());
  CHECK(server->take() == parse("", "select 1") + synced());
  world.feed(server, server_error("25P02", "aborted") + ready('E'));
  CHECK(types(client->take()) == "EZ");
  world.feed(client, query("rollback"));
  world.feed(server, complete("ROLLBACK") + ready());
  client->written.clear();
  server->written.clear();
  world.feed(client, parse("t", "select 1") + synced());
  CHECK(server->take() == synced());
}

TEST_CASE("after DISCARD ALL or RESET a client is told its start-up values that differ", "[session]") {
  World world;
  const WirePtr client = client_in_tokyo(world);
  const WirePtr server = world.server;
  world.byte_by_byte = GENERATE(false, true);
  const std::string own = status("TimeZone", "Asia/Tokyo");
  set_utc(world, client);
  // The server's default is UTC too, so that it has nothing to report.
  SECTION("DISCARD ALL") {
    world.feed(client, query("DISCARD ALL"));
    world.feed(server, complete("DISCARD ALL") + ready());
    CHECK(client->take() == complete("DISCARD ALL") + own + ready());
  }
  SECTION("RESET as a simple query") {
    world.feed(client, query(GENERATE("RESET ALL", "reset /* c */ TimeZone", "RESET TIME ZONE")));
    world.feed(server, complete("RESET") + ready());
    CHECK(client->take() == complete("RESET") + own + ready());
  }
  SECTION("RESET in extended protocol") {
    world.feed(client, parse("", "RESET ALL") + bind_to("") + execute() + synced());
    world.feed(server, parsed() + bound() + complete("RESET") + ready());
    CHECK(client->take() == parsed() + bound() + complete("RESET") + own + ready());
  }
  SECTION("SET … TO DEFAULT") {
    world.feed(client,
               query(GENERATE("SET TimeZone TO DEFAULT", "set session timezone = default", "SET TIME ZONE LOCAL")));
    world.feed(server, complete("SET") + ready());
    CHECK(client->take() == complete("SET") + own + ready());
  }
  SECTION("RESET among other statements") {
    world.feed(client, query("SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;"));
    const std::string others = complete("SELECT 1") + complete("CLOSE CURSOR ALL") + complete("UNLISTEN");
    world.feed(server, others + complete("RESET") + ready());
    CHECK(client->take() == others + complete("RESET") + own + ready());
  }
  SECTION("RESET in a transaction, when it is committed") {
    world.feed(client, query("BEGIN"));
    world.feed(server, complete("BEGIN") + ready('T'));
    world.feed(client, query("RESET ALL"));
    world.feed(server, complete("RESET") + ready('T'));
    world.feed(client, query("COMMIT"));
    world.feed(server, complete("COMMIT") + ready());
    CHECK(client->take() ==
          complete("BEGIN") + ready('T') + complete("RESET") + ready('T') + complete("COMMIT") + own + ready());
  }
  server->written.clear();
  world.feed(client, query("show timezone"));
  CHECK(server->take() == query("SET TimeZone='Asia/Tokyo';"));
}

TEST_CASE("RESET of another parameter changes nothing", "[session]") {
  World world;
  const WirePtr client = client_in_tokyo(world);
  const WirePtr server = world.server;
  set_utc(world, client);
  world.feed(client, query("RESET DateStyle"));
  world.feed(server, complete("RESET") + ready());
  CHECK(client->take() == complete("RESET") + ready());
}

TEST_CASE("a RESET that is not the last word changes nothing", "[session]") {
  World world;
  const WirePtr client = client_in_tokyo(world);
  const WirePtr server = world.server;
  set_utc(world, client);
  SECTION("a SET behind it in the same text") {
    world.feed(client, query("RESET ALL; SET timezone = 'UTC'"));
    world.feed(server, complete("RESET") + complete("SET") + ready());
    CHECK(client->take() == complete("RESET") + complete("SET") + ready());
  }
  SECTION("another value behind it in the same text") {
    const std::string replies = complete("RESET") + complete("SET") + status("TimeZone", "Asia/Oral") + ready();
    world.feed(client, query("RESET ALL; SET timezone = 'Asia/Oral'"));
    world.feed(server, replies);
    CHECK(client->take() == replies);
  }
  SECTION("an error behind it in the same text") {
    const std::string replies = complete("RESET") + server_error("22012", "division by zero") + ready();
    world.feed(client, query("RESET ALL; SELECT 1/0"));
    world.feed(server, replies);
    CHECK(client->take() == replies);
  }
  SECTION("a transaction that is rolled back") {
    world.feed(client, query("BEGIN; RESET ALL"));
    world.feed(server, complete("BEGIN") + complete("RESET") + ready('T'));
    world.feed(client, query("ROLLBACK"));
    world.feed(server, complete("ROLLBACK") + ready());
    CHECK(client->take() == complete("BEGIN") + complete("RESET") + ready('T') + complete("ROLLBACK") + ready());
  }
  SECTION("a SET in the same transaction") {
    world.feed(client, query("BEGIN; RESET ALL"));
    world.feed(server, complete("BEGIN") + complete("RESET") + ready('T'));
    world.feed(client, query("SET TimeZone = 'UTC'"));
    world.feed(server, complete("SET") + ready('T'));
    world.feed(client, query("COMMIT"));
    client->written.clear();
    world.feed(server, complete("COMMIT") + ready());
    CHECK(client->take() == complete("COMMIT") + ready());
  }
  server->written.clear();
  world.feed(client, query("show timezone"));
  CHECK(server->take() == query("show timezone"));
}

TEST_CASE("a start-up value that the client has already is not told again", "[session]") {
  World world;
  const WirePtr client = client_in_tokyo(world);
  const WirePtr server = world.server;
  world.feed(client, query("RESET ALL"));
  world.feed(server, complete("RESET") + status("TimeZone", "UTC") + ready());
  CHECK(client->take() == complete("RESET") + ready());
}

TEST_CASE("the end of a server reaches a client whose pipeline has failed", "[session]") {
  World world;
  const WirePtr client = world.client();
  const WirePtr server = world.server;
  world.feed(client, execute("none"));
  world.feed(server, server_error("34000", "portal \"none\" does not exist"));
  client->written.clear();
  world.feed(server, fatal("57P01", "terminating connection due to administrator command"));
  world.hang_up(server);
  CHECK(client->take().find("administrator command") != std::string::npos);
}

TEST_CASE("what a start-up packet names itself prevails over its options", "[session]") {
  World world;
  (void)world.client();
  const WirePtr server = world.server;
  const WirePtr client = world.connect();
  std::vector<std::pair<std::string_view, std::string_view>> hello{{"user", "u"}, {"database", "db"}};
  const auto options = std::pair<std::string_view, std::string_view>("options", "-c TimeZone=Asia/Tokyo");
  const auto own = std::pair<std::string_view, std::string_view>("TimeZone", "EST");
  const bool last = GENERATE(false, true);
  hello.push_back(last ? own : options);
  hello.push_back(last ? options : own);
  world.feed(client, World::startup(hello));
  CHECK(server->take() == query("SET TimeZone='EST';"));
}

TEST_CASE("a simple query does not end the skipping of a failed pipeline", "[session]") {
  World world;
  const WirePtr client = world.client();
  const WirePtr server = world.server;
  make_and_lose(world, client, server, "s", "select 1");
  world.byte_by_byte = GENERATE(false, true);
  world.feed(client, execute("none") + query("select 2") + query("execute s"));
  CHECK(server->take() == execute("none") + query("select 2"));
  world.feed(server, server_error("34000", "portal \"none\" does not exist"));
  CHECK(server->take() == query("execute s"));
  world.feed(client, synced());
  world.feed(server, ready());
  CHECK(types(client->take()) == "EZ");
}

TEST_CASE("what waits behind a DISCARD ALL goes on when only answers of ours are owed", "[session]") {
  World world;
  const WirePtr client = world.client();
  const WirePtr server = world.server;
  make(world, client, server, "s", "select 1");
  world.byte_by_byte = GENERATE(false, true);
  const std::string all = parse("", "deallocate all") + bind_to("");
  world.feed(client, all + flush());
  world.feed(server, parsed() + bound());
  client->written.clear();
  server->written.clear();
  world.feed(client, close_of("s") + parse("t", "select 2") + synced());
  CHECK(server->take() == parse(server_name(world, "select 2"), "select 2") + synced());
  CHECK(client->take() == closed());
}

TEST_CASE("a DEALLOCATE that fails with what was made for it leaves nothing behind", "[session]") {
  World world;
  const WirePtr client = world.client();
  const WirePtr server = world.server;
  make_and_lose(world, client, server, "s", "select 1");
  world.feed(client, query("begin; select 1/0"));
  world.feed(server, server_error("22012", "division by zero") + ready('E'));
  client->written.clear();
  server->written.clear();
  world.feed(client, query("DEALLOCATE s"));
  CHECK(types(server->take()) == "CPSQ");
  world.feed(server, closed() + parsed() + ready('E') + server_error("25P02", "aborted") + ready('E'));
  CHECK(types(client->take()) == "EZ");
  world.feed(client, query("rollback"));
  world.feed(server, complete("ROLLBACK") + ready());
  server->written.clear();
  // Whoever uses the statement next finds that the server has not got it.
  const WirePtr other = world.client();
  world.feed(other, parse("t", "select 1") + synced());
  CHECK(server->take() == parse(server_name(world, "select 1"), "select 1") + synced());
}
