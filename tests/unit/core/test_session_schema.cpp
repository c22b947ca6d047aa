// Named prepared statements of clients that know what the result is, and a schema that changes.
#include <catch2/catch.hpp>

#include "fake_host.hpp"

using namespace pgweir;
using namespace pgweir::core;
using namespace pgweir::core::test;

namespace {

const std::string kNoParameters("t\0\0\0\x0a\0\1\0\0\0\x17", 11);
const std::string kTypes = kNoParameters.substr(5);
constexpr std::string_view kSql = "select * from t";

std::string columns(std::initializer_list<std::string_view> names) {
  std::vector<protocol::Column> all;
  for (const std::string_view name : names) all.push_back({.name = name});
  std::string message;
  protocol::append_row_description(message, all);
  return message;
}

std::string parse_with(std::string_view name, std::string_view sql, std::string_view types) {
  std::string message;
  protocol::append_parse(message, name, sql, types);
  return message;
}

/// A client that has been told what its statement "s" returns, and a server with it that is gone since.
struct Known {
  World world;
  WirePtr client = world.client();
  std::string name;

  explicit Known(const std::string& description) {
    const WirePtr first = world.server;
    world.feed(client, parse("s", kSql) + describe("s") + synced());
    name = server_name_of(world, kSql);
    world.feed(first, parsed() + kNoParameters + description + ready());
    CHECK(client->take() == parsed() + kNoParameters + description + ready());
  }

  /// What a server is asked that does not have the statement, or is not to have it any more.
  [[nodiscard]] std::string question(bool there = false) const {
    return (there ? close_of(name) : "") + parse_with(name, kSql, kTypes) + describe(name) + flush();
  }

  /// Somebody changes the schema, and the server is another one that has been asked for something.
  WirePtr change(const std::string& request) {
    const WirePtr other = world.client();
    world.feed(other, query("alter table t add c int"));
    world.feed(world.server, complete("ALTER TABLE") + ready());
    world.hang_up(world.server);
    world.feed(client, request);
    return world.server_up();
  }
};

std::string changed_result() {
  std::string message;
  protocol::append_error(message, {.severity = "ERROR",
                                   .sqlstate = "0A000",
                                   .message = "cached plan must not change result type",
                                   .add_v = true,
                                   .routine = "RevalidateCachedQuery"});
  return message;
}

}  // namespace

TEST_CASE("a server is asked first whether the result is what its client knows", "[session]") {
  Known known(columns({"a", "b"}));
  World& world = known.world;
  const WirePtr server = known.change(bind_to("s") + execute() + synced());
  CHECK(server->take() == known.question());
  world.byte_by_byte = GENERATE(false, true);
  SECTION("it is") {
    world.feed(server, parsed() + kNoParameters + columns({"a", "b"}));
    CHECK(server->take() == bind_to(known.name) + execute() + synced());
    world.feed(server, bound() + complete("SELECT 0") + ready());
    CHECK(known.client->take() == bound() + complete("SELECT 0") + ready());
    world.feed(known.client, bind_to("s") + synced());
    CHECK(server->take() == bind_to(known.name) + synced());
    world.feed(server, bound() + ready());
    const bool settled = GENERATE(false, true);
    if (settled) world.advance(std::chrono::seconds(61));
    world.hang_up(server);
    world.feed(known.client, bind_to("s") + synced());
    const std::string later = parse_with(known.name, kSql, kTypes) + bind_to(known.name) + synced();
    CHECK(world.server_up()->take() == (settled ? later : known.question()));
  }
  SECTION("it is not") {
    world.feed(server, parsed() + kNoParameters + columns({"a", "b", "c"}));
    CHECK(types(server->take()) == "DES");  // in place of the Bind, which has to fail
    CHECK(known.client->take().empty());
    world.feed(server, server_error("26000", "no such statement") + ready());
    CHECK(known.client->take() == changed_result() + ready());
    world.feed(known.client, bind_to("s") + synced());
    CHECK(types(server->take()) == "DS");  // without a question
    world.feed(server, server_error("26000", "no such statement") + ready());
    CHECK(known.client->take() == changed_result() + ready());
    SECTION("until it prepares it again") {
      world.feed(known.client, close_of("s") + parse("s", kSql) + bind_to("s") + synced());
      const std::string sent = server->take();
      CHECK(types(sent) == "PBS");
      CHECK(sent.find(known.name) == std::string::npos);
    }
  }
  SECTION("there is none any more") {
    world.feed(server, server_error("42P01", "no t"));
    CHECK(known.client->take() == server_error("42P01", "no t"));
    CHECK(types(server->take()) == "PBES");  // all of which it passes over
    world.feed(server, ready());
    CHECK(known.client->take() == ready());
    world.feed(known.client, bind_to("s") + synced());
    CHECK(server->take() == known.question());
  }
}

TEST_CASE("what was sent before the question is answered first", "[session]") {
  Known known(columns({"a"}));
  World& world = known.world;
  const WirePtr server = known.change(parse("", "insert") + bind_to("") + execute() + bind_to("s") + synced());
  CHECK(server->take() == parse("", "insert") + bind_to("") + execute() + flush());
  world.feed(server, parsed() + bound());
  CHECK(server->take().empty());
  SECTION("and has gone well") {
    world.feed(server, complete("INSERT 0 1"));
    CHECK(server->take() == known.question());
  }
  SECTION("or not, and then there is none") {
    world.feed(server, server_error("23505", "twice"));
    CHECK(types(server->take()) == "PBS");
    world.feed(server, ready());
    CHECK(types(known.client->take()) == "12EZ");
  }
}

TEST_CASE("a server that is lost while it is asked had nothing of the request", "[session]") {
  Known known(columns({"a"}));
  World& world = known.world;
  const WirePtr server = known.change(bind_to("s") + execute() + synced());
  CHECK(server->take() == known.question());
  SECTION("which goes to another one") {
    world.feed(server, parsed());
    world.hang_up(server);
    CHECK(known.client->take().empty());
    const WirePtr other = world.server_up();
    CHECK(other->take() == known.question());
    world.feed(other, parsed() + kNoParameters + columns({"a"}));
    CHECK(other->take() == bind_to(known.name) + execute() + synced());
  }
  SECTION("unless the client was told why it cannot be carried out") {
    world.byte_by_byte = true;
    world.feed(server, server_error("42P01", "no t"));
    world.hang_up(server);
    CHECK(types(known.client->take()) == "EE");
    CHECK(known.client->closed);
  }
}

TEST_CASE("in a transaction block it is lost with the server that is asked", "[session]") {
  Known known(columns({"a"}));
  World& world = known.world;
  const WirePtr server = known.change(query("begin"));
  world.feed(server, complete("BEGIN") + ready('T'));
  server->written.clear();
  known.client->take();
  world.feed(known.client, bind_to("s") + execute() + synced());
  CHECK(server->take() == known.question());
  world.hang_up(server);
  CHECK(types(known.client->take()) == "E");
  CHECK(known.client->closed);
}

TEST_CASE("what others were told of a server's statement is not what this client was told", "[session]") {
  Known known(columns({"a"}));
  World& world = known.world;
  const WirePtr server = known.change(parse("", "select 1") + bind_to("") + execute() + synced());
  world.feed(server, parsed() + bound() + complete("SELECT 1") + ready());
  known.client->take();
  server->written.clear();
  // Somebody who never asked what the result is.
  const WirePtr other = world.client();
  const std::string made = parse_with(known.name, kSql, kTypes);
  world.feed(known.client, query("execute s"));
  CHECK(server->take() == made + synced() + query("execute \"" + known.name + "\""));
  world.feed(server, parsed() + ready() + complete("SELECT 0") + ready());
  known.client->take();
  // The server has it now, nobody knows with which result: it is asked, and has to parse it again.
  world.feed(known.client, bind_to("s") + synced());
  CHECK(server->take() == known.question(true));
  world.feed(server, closed() + parsed() + kNoParameters + columns({"a"}));
  CHECK(server->take() == bind_to(known.name) + synced());
}

TEST_CASE("Describe of a statement asks as well", "[session]") {
  Known known(columns({"a"}));
  const WirePtr server = known.change(describe("s") + synced());
  CHECK(server->take() == known.question());
}

TEST_CASE("drivers may know of the result from the portal", "[session]") {
  World world;
  const WirePtr client = world.client();
  const std::string portal = GENERATE(as<std::string>(), "", "p");
  const bool same = GENERATE(true, false);
  world.feed(client, parse("s", kSql) + bind_to("s", portal) + describe(same ? portal : "q", 'P') + synced());
  world.feed(world.server, parsed() + bound() + columns({"a"}) + ready());
  CHECK(types(client->take()) == "12TZ");
  world.feed(client, query("alter table t add c int"));
  world.feed(world.server, complete("ALTER TABLE") + ready());
  world.hang_up(world.server);
  world.feed(client, bind_to("s") + synced());
  const WirePtr server = world.server_up();
  CHECK(types(server->take()) == (same ? "PDH" : "PBS"));
}

TEST_CASE("a result of no columns and none at all are not the same", "[session]") {
  std::string none;
  protocol::append_no_data(none);
  const bool had = GENERATE(true, false);
  Known known(had ? columns({}) : none);
  World& world = known.world;
  const WirePtr server = known.change(bind_to("s") + synced());
  CHECK(server->take() == known.question());
  world.feed(server, parsed() + kNoParameters + (had ? none : columns({})));
  CHECK(types(server->take()) == "DS");
}

TEST_CASE("what a transaction has done to the schema is for nobody else", "[session]") {
  Known known(columns({"a"}));
  World& world = known.world;
  const WirePtr other = world.client();
  const WirePtr first = world.server;
  first->written.clear();
  world.feed(other, query("begin"));
  world.feed(first, complete("BEGIN") + ready('T'));
  world.feed(other, query("alter table t add c int"));
  world.feed(first, complete("ALTER TABLE") + ready('T'));
  first->written.clear();
  world.feed(other, parse("mine", kSql) + synced());
  const std::string sent = first->take();
  CHECK(types(sent) == "PS");
  CHECK(sent.find(known.name) == std::string::npos);
  world.feed(first, parsed() + ready('T'));
  world.feed(known.client, parse("mine", kSql) + synced());
  const WirePtr second = world.server_up();
  const std::string theirs = second->take();
  CHECK(types(theirs) == "PS");
  CHECK(theirs != sent);
}
