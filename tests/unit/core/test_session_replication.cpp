// Clients that replicate: what their server is opened with, that the two belong together, and how both end.
#include <catch2/catch.hpp>

#include "fake_host.hpp"
#include "protocol/message_view.hpp"
#include "protocol/startup.hpp"
#include "proxy/core/replication.hpp"

using namespace pgweir;
using namespace pgweir::core;
using namespace pgweir::core::test;

namespace {

using Parameters = std::vector<std::pair<std::string_view, std::string_view>>;
using Pairs = std::vector<std::pair<std::string, std::string>>;

/// The parameters of a start-up packet.
Pairs parameters_of(const std::string& packet) {
  const protocol::FirstPacket first = protocol::parse_first_packet(packet, 65535);
  REQUIRE(first.kind == protocol::FirstPacketKind::Startup);
  std::vector<protocol::StartupParameter> parameters;
  REQUIRE(protocol::parse_startup_parameters(first.body, parameters) == protocol::StartupStatus::Ok);
  Pairs result;
  for (const auto& p : parameters) result.emplace_back(p.name, p.value);
  return result;
}

/// A client that asks for replication; nothing is answered yet.
WirePtr asking(World& world, const std::string& kind, Parameters more = {}) {
  const WirePtr client = world.connect();
  Parameters all{{"user", "u"}, {"database", "db"}, {"replication", kind}};
  all.insert(all.end(), more.begin(), more.end());
  world.feed(client, World::startup(all));
  return client;
}

struct Pair {
  WirePtr client, server;
};
Pair linked(World& world, const std::string& kind, Parameters more = {}) {
  Pair pair{asking(world, kind, std::move(more)), nullptr};
  pair.server = world.server_up();
  REQUIRE(types(pair.client->take()) == "RSSSSSSSKZ");
  pair.server->take();
  return pair;
}

const std::string kBoth("W\0\0\0\7\0\0\0", 8);

}  // namespace

TEST_CASE("the start-up parameter replication", "[replication]") {
  for (const char* yes : {"true", "t", "TRUE", "tru", "yes", "y", "on", "ON", "1"}) {
    CHECK(parse_replication(yes) == Replication::Physical);
  }
  for (const char* none : {"false", "off", "no", "0", "", "o", "garbage", "truer", "Database", "11"}) {
    CHECK(parse_replication(none) == Replication::None);
  }
  CHECK(parse_replication("database") == Replication::Logical);
  CHECK(replication_word(Replication::None) == "no");
  CHECK(replication_word(Replication::Logical) == "database");
  CHECK(replication_word(Replication::Physical) == "yes");
}

TEST_CASE("the server is opened with what the client asked for", "[replication]") {
  World world(config_text(GENERATE("", "pool_mode = statement\n"),
                          "db = host=127.0.0.1 dbname=real timezone=Rome client_encoding=LATIN1\n"));
  world.byte_by_byte = GENERATE(false, true);
  const WirePtr client = asking(
      world, "database", {{"options", "-c geqo=off --what=ever -x"}, {"TimeZone", "Berlin"}, {"Search_Path", "a"}});
  const WirePtr server = world.server_connects();
  CHECK(parameters_of(server->take()) == Pairs{{"database", "real"},
                                               {"client_encoding", "LATIN1"},
                                               {"TimeZone", "Berlin"},
                                               {"search_path", "a"},
                                               {"replication", "database"},
                                               {"options", "-c geqo=off --what=ever -x"},
                                               {"user", "u"}});
  CHECK(client->take().empty());
  std::string greeting = World::server_greeting();
  world.feed(server, greeting);
  const std::string welcome = client->take();
  CHECK(types(welcome) == "RSSSSSSSKZ");
  CHECK(welcome.find("KEY!") == std::string::npos);  // the cancel key is ours
  CHECK(server->take().empty());                     // nothing is set, nothing is checked
  world.feed(client, query("IDENTIFY_SYSTEM"));
  CHECK(server->take() == query("IDENTIFY_SYSTEM"));
  world.feed(server, row_description() + row("x") + complete("IDENTIFY_SYSTEM") + ready());
  CHECK(types(client->take()) == "TDCZ");
}

TEST_CASE("what is not a setting does not become a word of ours to the server", "[replication]") {
  World world;
  for (const char* name : {"User", "DATABASE", "Options", "Replication", "_PQ_.x"}) {
    const WirePtr client = asking(world, "database", {{name, "postgres"}});
    CHECK(client->take() == fatal("08P01", "unsupported startup parameter: " + std::string(name)));
  }
  CHECK(world.host.connects.empty());
}

TEST_CASE("each gets a server of its own, and nobody else gets that", "[replication]") {
  World world;
  const WirePtr normal = world.client();  // leaves an idle server in the pool
  const Pair first = linked(world, "true");
  const Pair second = linked(world, "database");
  CHECK(world.core.servers().size() == 3);
  world.feed(normal, query("select 1"));
  CHECK(world.server->take() == query("select 1"));
  CHECK(first.server->take().empty());
  CHECK(second.server->take().empty());
  world.feed(first.client, query("a"));
  world.feed(second.client, query("b"));
  CHECK(first.server->take() == query("a"));
  CHECK(second.server->take() == query("b"));
  CHECK(world.host.logged("replication=no"));
  CHECK(world.host.logged("replication=yes"));
  CHECK(world.host.logged("replication=database"));
  world.feed(first.server, complete("A") + ready());
  world.feed(second.server, complete("B") + ready());
  CHECK(first.client->take() == complete("A") + ready());
  CHECK(second.client->take() == complete("B") + ready());
  // ReadyForQuery ends the transaction, but not the pair.
  world.feed(first.client, query("c"));
  CHECK(first.server->take() == query("c"));
}

TEST_CASE("the two end together", "[replication]") {
  World world(config_text(GENERATE("", "pool_mode = session\n")));
  const Pair pair = linked(world, GENERATE("true", "database"));
  SECTION("the client says goodbye") {
    world.feed(pair.client, terminate());
    CHECK(pair.server->take() == terminate());  // and no reset query
    CHECK(world.host.cancel_connects.empty());
    CHECK(world.core.servers().size() == 1);  // the backend holds its permit until it has ended
    world.hang_up(pair.server);
    CHECK(world.core.servers().empty());
  }
  SECTION("the client dies in the middle of a stream") {
    world.feed(pair.client, query("START_REPLICATION"));
    world.feed(pair.server, kBoth + made(protocol::append_copy_data, "wal"));
    pair.server->take();
    world.hang_up(pair.client);
    CHECK(pair.server->take() == terminate());
    CHECK(world.host.cancel_connects.size() == 1);
    world.hang_up(pair.server);
    CHECK(world.core.servers().empty());
    CHECK(world.host.logged("closing because: replication client was closed"));
  }
  SECTION("the server dies before anything was asked") {
    world.hang_up(pair.server);
    CHECK(pair.client->take() == fatal("08P01", "server conn crashed?"));
    CHECK(pair.client->closed);
    CHECK(world.host.connects.empty());  // no other takes its place
  }
  SECTION("the server is terminated in the middle of a stream") {
    world.feed(pair.client, query("START_REPLICATION"));
    world.feed(pair.server, kBoth);
    CHECK(pair.client->take() == kBoth);
    const std::string last = fatal("57P01", "terminating connection due to administrator command");
    world.feed(pair.server, last);
    world.hang_up(pair.server);
    CHECK(pair.client->take() == last + fatal("08P01", "server conn crashed?"));
    CHECK(pair.client->closed);
  }
  SECTION("RECONNECT") {
    world.host.pools.reconnect("db", world.now, world.core.actions());
    world.settle();
    CHECK(pair.client->take() == fatal("08P01", "database configuration changed"));
    CHECK(pair.server->take() == terminate());
    world.hang_up(pair.server);
    CHECK(world.core.servers().empty());
  }
  SECTION("KILL_CLIENT") {
    REQUIRE(world.core.kill_client(world.core.clients().begin()->second->number()));
    world.settle();
    CHECK(pair.client->take() == fatal("08P01", "admin forced disconnect"));
    CHECK(pair.server->take() == terminate());
  }
  CHECK(world.core.clients().empty());
}

TEST_CASE("SQL of a client that said goodbye may finish, a stream may not", "[replication]") {
  World world;
  const std::string kind = GENERATE("true", "database");
  const bool streams = GENERATE(false, true);
  const Pair pair = linked(world, kind);
  world.feed(pair.client, query("x"));
  if (streams) world.feed(pair.server, kBoth);
  pair.server->take();
  world.feed(pair.client, terminate());
  CHECK(pair.server->take() == terminate());
  CHECK(world.host.cancel_connects.size() == (kind == "database" && !streams ? 0 : 1));
}

TEST_CASE("a login that fails is told in two words", "[replication]") {
  World world;
  const WirePtr normal = world.client();
  const WirePtr client = asking(world, "true");
  SECTION("refused") {
    const WirePtr server = world.server_connects();
    world.feed(server, fatal("28000", "no pg_hba.conf entry for replication connection"));
  }
  SECTION("no connection") {
    world.server_fails("connect failed");
  }
  SECTION("it takes too long") {
    world.advance(seconds(16));
  }
  SECTION("the server hangs up") {
    world.hang_up(world.server_connects());
  }
  CHECK(client->take() == fatal("08P01", "login failed"));
  CHECK(client->closed);
  // Nobody else notices: new clients are welcomed, those there are served, and the next attempt is made at once.
  world.feed(normal, query("select 1"));
  CHECK(world.server->take() == query("select 1"));
  world.host.connects.clear();
  (void)asking(world, "true");
  CHECK(world.host.connects.size() == 1);
}

TEST_CASE("with native_sqlstate a failed login has a code of its own", "[replication]") {
  World world(config_text("", "db = host=127.0.0.1\n") + "[pgweir]\nnative_sqlstate = 1\n");
  const WirePtr client = asking(world, "true");
  world.server_fails("connect failed");
  CHECK(client->take() == fatal("08006", "login failed"));
}

TEST_CASE("a client that leaves while its server logs in", "[replication]") {
  World world;
  const WirePtr client = asking(world, "database");
  SECTION("while it connects") {
    world.hang_up(client);
    CHECK(world.host.abandoned.size() == 1);
    CHECK(world.host.pools.totals().servers == 0);
  }
  SECTION("while it logs in") {
    const WirePtr server = world.server_connects();
    world.hang_up(client);
    CHECK(world.host.pools.totals().servers == 1);
    world.hang_up(server);
    CHECK(world.host.pools.totals().servers == 0);
  }
  CHECK(world.core.servers().empty());
}

TEST_CASE("other clients do not wait for what a replication client's server reports", "[replication]") {
  World world;
  const WirePtr normal = world.connect();
  world.feed(normal, World::startup({{"user", "u"}, {"database", "db"}}));
  const WirePtr client = asking(world, "database", {{"application_name", "standby"}});
  REQUIRE(world.host.connects.size() == 2);
  std::swap(world.host.connects[0], world.host.connects[1]);
  (void)world.server_up();
  CHECK(types(client->take()) == "RSSSSSSSKZ");
  CHECK(normal->take().empty());  // its values are no example
  (void)world.server_up();
  CHECK(types(normal->take()) == "RSSSSSSSKZ");
}

TEST_CASE("streaming through a client that does not read", "[replication]") {
  World world;
  const Pair pair = linked(world, "true");
  world.byte_by_byte = GENERATE(false, true);
  const std::string wal = made(protocol::append_copy_data, "w some wal");
  const std::string status = made(protocol::append_copy_data, "r status");
  const std::string done = made(protocol::append_copy_done);
  world.feed(pair.client, query("START_REPLICATION 0/0"));
  pair.client->accept = 3;
  world.feed(pair.server, kBoth);
  CHECK_FALSE(pair.server->read);  // its window is full
  CHECK(pair.client->read);        // but the server hears that the client lives
  pair.server->take();
  world.feed(pair.client, status);
  CHECK(pair.server->take() == status);
  world.drain(pair.client);
  CHECK(pair.client->take() == kBoth);
  CHECK(pair.server->read);
  pair.server->take();
  pair.server->accept = 2;
  world.feed(pair.client, status);
  world.feed(pair.server, wal);
  CHECK(pair.client->take() == wal);
  world.drain(pair.server);
  CHECK(pair.server->take() == status);
  world.feed(pair.client, done);
  world.feed(pair.server,
             wal + done + row_description() + row("2") + complete("SELECT") + complete("START_STREAMING") + ready());
  CHECK(types(pair.client->take()) == "dcTDCCZ");
  world.feed(pair.client, query("IDENTIFY_SYSTEM"));
  pair.server->take();
  world.feed(pair.server, complete("IDENTIFY_SYSTEM") + ready());
  CHECK(types(pair.client->take()) == "CZ");
}

TEST_CASE("a base backup is one reply of many parts", "[replication]") {
  World world;
  const Pair pair = linked(world, "true");
  world.byte_by_byte = GENERATE(false, true);
  world.feed(pair.client, query("BASE_BACKUP (LABEL 'x')"));
  const std::string out("H\0\0\0\7\0\0\0", 8);
  const std::string reply = row_description() + row("0/0") + complete("SELECT") + row_description() + row("16384") +
                            complete("SELECT") + out + made(protocol::append_copy_data, "n base.tar") +
                            made(protocol::append_copy_data, std::string(70'000, 'x')) +
                            made(protocol::append_copy_done) + row_description() + row("0/1") + complete("SELECT") +
                            complete("BASE_BACKUP");
  world.feed(pair.server, reply);
  CHECK(pair.client->take() == reply);
  world.feed(pair.server, ready());
  CHECK(pair.client->take() == ready());
}

TEST_CASE("statements, transactions and parameters are the server's own business", "[replication]") {
  World world(config_text("pool_mode = statement\n"));
  const Pair pair = linked(world, "database");
  world.feed(pair.client, parse("s", "select 1") + synced());
  CHECK(pair.server->take() == parse("s", "select 1") + synced());
  world.feed(pair.server, server_error("08P01", "extended query protocol not supported") + ready());
  CHECK(types(pair.client->take()) == "EZ");
  world.feed(pair.client, query("begin"));
  world.feed(pair.server, complete("BEGIN") + ready('T'));
  CHECK(pair.client->take() == complete("BEGIN") + ready('T'));
  pair.server->take();
  world.feed(pair.client, query("discard all"));
  world.feed(pair.server, status("TimeZone", "Rome") + complete("DISCARD ALL") + ready());
  CHECK(pair.client->take() == status("TimeZone", "Rome") + complete("DISCARD ALL") + ready());
  pair.server->take();
  world.feed(pair.client, query("select 2"));
  CHECK(pair.server->take() == query("select 2"));
}

TEST_CASE("time limits let a stream live as long as both ends do", "[replication]") {
  World world(config_text("query_timeout = 10\ntransaction_timeout = 20\nclient_idle_timeout = 3\n"));
  const Pair pair = linked(world, "true");
  world.advance(seconds(60));  // linked, so not idle
  world.feed(pair.client, query("START_REPLICATION 0/0"));
  world.feed(pair.server, kBoth);
  for (int i = 0; i < 10; ++i) {
    world.advance(seconds(9));
    world.feed(pair.client, made(protocol::append_copy_data, "r status"));
  }
  CHECK(pair.client->take() == kBoth);
  world.advance(seconds(10));
  CHECK(pair.client->take() == fatal("08P01", "query timeout"));
  CHECK(pair.server->take().ends_with(terminate()));
}

TEST_CASE("clients wait for a permit and give up in time", "[replication]") {
  World world(config_text("default_pool_size = 1\nquery_wait_timeout = 7\n"));
  const Pair pair = linked(world, "true");
  const WirePtr second = asking(world, "true");
  CHECK(world.host.connects.empty());
  SECTION("it is served when the first leaves") {
    world.feed(pair.client, terminate());
    CHECK(world.host.connects.empty());
    world.hang_up(pair.server);
    (void)world.server_up();
    CHECK(types(second->take()) == "RSSSSSSSKZ");
  }
  SECTION("it runs out of time") {
    world.advance(seconds(8));
    CHECK(second->take() == fatal("08P01", "query_wait_timeout"));
  }
  SECTION("the pooler shuts down") {
    (void)world.host.pools.pause_all(world.now, world.core.actions());
    world.host.pools.reject_waiting("server shutting down", world.now, world.core.actions());
    world.settle();
    CHECK(second->take() == fatal("08P01", "server shutting down"));
    CHECK_FALSE(pair.client->closed);
  }
}

TEST_CASE("connect_query runs where SQL is understood", "[replication]") {
  World world(config_text("", "db = host=127.0.0.1 connect_query='select 7'\n"));
  const bool logical = GENERATE(false, true);
  const WirePtr client = asking(world, logical ? "database" : "true");
  const WirePtr server = world.server_up();
  if (logical) {
    CHECK(server->take() == query("select 7"));
    CHECK(client->take().empty());
    world.feed(server, complete("SELECT 1") + ready());
  }
  CHECK(server->take().empty());
  CHECK(types(client->take()) == "RSSSSSSSKZ");
}

TEST_CASE("cancel requests of a client that replicates", "[replication]") {
  World world;
  const WirePtr client = asking(world, "database");
  const WirePtr server = world.server_up();
  const std::string welcome = client->take();
  const std::string key = welcome.substr(welcome.size() - 6 - 8, 8);
  world.feed(client, query("select pg_sleep(9)"));
  const WirePtr canceler = world.connect();
  world.feed(canceler, made(protocol::append_cancel_request, protocol::load_u32(key.data()), key.substr(4)));
  const WirePtr out = world.cancel_connects();
  CHECK(out->take() == made(protocol::append_cancel_request, 4711U, "KEY!"));
  world.hang_up(out);
  CHECK(canceler->closed);
  world.feed(server, server_error("57014", "canceled") + ready());
  CHECK(types(client->take()) == "EZ");
}

TEST_CASE("HBA rules for replication", "[replication]") {
  std::string text = config_text();
  const std::string trust = "auth_type = trust\n";
  text.replace(text.find(trust), trust.size(), "auth_type = hba\nauth_hba_file = hba\n");
  World world(text, {{"u", "pw"}}, GENERATE("host all all all trust\n", "host replication all all trust\n"));
  const bool rule_for_physical = [&] {
    const WirePtr probe = asking(world, "true");
    return probe->take().empty();
  }();
  const WirePtr logical = asking(world, "database");
  if (rule_for_physical) {
    CHECK(logical->take() == fatal("08P01", "no authentication method is found"));
  } else {
    CHECK(logical->take().empty());
  }
}
