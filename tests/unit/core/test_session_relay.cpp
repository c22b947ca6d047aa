// Requests and replies between one client and its servers: linking per transaction, parameters, back-pressure, leaving.
#include <catch2/catch.hpp>

#include "fake_host.hpp"

using namespace pgweir;
using namespace pgweir::core;
using namespace pgweir::core::test;

namespace {
const std::string kRows = row_description() + row("1") + complete("SELECT 1");
}  // namespace

TEST_CASE("a simple query and its answer", "[session]") {
  World world;
  const WirePtr client = world.client();
  const WirePtr server = world.server;
  world.byte_by_byte = GENERATE(false, true);
  for (int i = 0; i < 3; ++i) {
    world.feed(client, query("select 1"));
    CHECK(server->take() == query("select 1"));
    CHECK(idle(world) == 0);
    world.feed(server, kRows + ready());
    CHECK(client->take() == kRows + ready());
    CHECK(idle(world) == 1);
  }
}

TEST_CASE("a transaction keeps its server, the end of it gives it back", "[session]") {
  World world(config_text("default_pool_size = 1\n"));
  const WirePtr a = world.client();
  const WirePtr b = world.client();
  const WirePtr server = world.server;
  world.byte_by_byte = GENERATE(false, true);
  world.feed(a, query("begin"));
  world.feed(b, query("select 2"));
  CHECK(server->take() == query("begin"));
  world.feed(server, complete("BEGIN") + ready('T'));
  CHECK(a->take() == complete("BEGIN") + ready('T'));
  CHECK(b->hangup);
  CHECK(server->take().empty());
  world.feed(a, query("commit"));
  world.feed(server, complete("COMMIT") + ready());
  CHECK(a->take() == complete("COMMIT") + ready());
  CHECK(server->take() == query("commit") + query("select 2"));
  world.feed(server, kRows + ready());
  CHECK(b->take() == kRows + ready());
  CHECK(a->take().empty());
}

TEST_CASE("queries in a row are answered in a row", "[session]") {
  World world;
  const WirePtr client = world.client();
  const WirePtr server = world.server;
  world.byte_by_byte = GENERATE(false, true);
  world.feed(client, query("1") + query("2") + query("3"));
  CHECK(server->take() == query("1") + query("2") + query("3"));
  world.feed(server, complete("A") + ready());
  CHECK(idle(world) == 0);
  world.feed(server, complete("B") + ready() + complete("C") + ready());
  CHECK(client->take() == complete("A") + ready() + complete("B") + ready() + complete("C") + ready());
  CHECK(idle(world) == 1);
}

TEST_CASE("a message arrives whole before a server is asked for", "[session]") {
  World world;
  const WirePtr client = world.client();
  const std::string message = query("select 1");
  world.feed(client, message.substr(0, message.size() - 1));
  CHECK(idle(world) == 1);
  world.feed(client, message.substr(message.size() - 1));
  CHECK(world.server->take() == message);
}

TEST_CASE("a large message is passed on as it comes", "[session]") {
  World world;
  const WirePtr client = world.client();
  const std::string message = query(std::string(100'000, 'x'));
  world.feed(client, message.substr(0, 30'000));
  CHECK(world.server->take() == message.substr(0, 30'000));
  world.feed(client, message.substr(30'000) + query("next"));
  CHECK(world.server->take() == message.substr(30'000) + query("next"));
  world.feed(world.server, row(std::string(200'000, 'y')) + complete("SELECT 1") + ready());
  CHECK(client->take() == row(std::string(200'000, 'y')) + complete("SELECT 1") + ready());
}

TEST_CASE("an extended query without names passes unchanged", "[session]") {
  World world;
  const WirePtr client = world.client();
  const WirePtr server = world.server;
  world.byte_by_byte = GENERATE(false, true);
  const std::string batch = parse("", "select 1") + bind_to("") + describe("", 'P') + execute() + synced();
  world.feed(client, batch);
  CHECK(server->take() == batch);
  world.feed(server, parsed() + bound() + kRows);
  CHECK(idle(world) == 0);
  world.feed(server, ready());
  CHECK(client->take() == parsed() + bound() + kRows + ready());
  CHECK(idle(world) == 1);
}

TEST_CASE("a server is not given back before the Sync", "[session]") {
  World world;
  const WirePtr client = world.client();
  world.byte_by_byte = GENERATE(false, true);
  world.feed(client, parse("", "select 1") + flush());
  CHECK(world.server->take() == parse("", "select 1") + flush());
  world.feed(world.server, parsed());
  CHECK(client->take() == parsed());
  CHECK(idle(world) == 0);
  world.feed(client, synced());
  world.feed(world.server, ready());
  CHECK(client->take() == ready());
  CHECK(idle(world) == 1);
}

TEST_CASE("a failed pipeline goes on after its Sync", "[session]") {
  World world;
  const WirePtr client = world.client();
  world.byte_by_byte = GENERATE(false, true);
  const std::string first = parse("", "bad") + bind_to("") + execute() + synced();
  const std::string second = parse("", "good") + bind_to("") + execute() + synced();
  world.feed(client, first + second);
  CHECK(world.server->take() == first + second);
  world.feed(world.server, server_error("42601", "syntax error") + ready());
  CHECK(idle(world) == 0);
  world.feed(world.server, parsed() + bound() + complete("SELECT 0") + ready());
  CHECK(client->take() ==
        server_error("42601", "syntax error") + ready() + parsed() + bound() + complete("SELECT 0") + ready());
  CHECK(idle(world) == 1);
}

TEST_CASE("parameters follow the client without being seen", "[session]") {
  World world(config_text("default_pool_size = 1\n"));
  const WirePtr a = world.client();
  const WirePtr b = world.client();
  const WirePtr server = world.server;
  world.byte_by_byte = GENERATE(false, true);
  world.feed(a, query("set timezone = 'CET'"));
  server->written.clear();
  world.feed(server, status("TimeZone", "CET") + complete("SET") + ready());
  CHECK(a->take() == status("TimeZone", "CET") + complete("SET") + ready());

  world.feed(b, query("select now()"));
  CHECK(server->take() == query("SET TimeZone='UTC';"));
  world.feed(server, status("TimeZone", "UTC") + complete("SET") + ready());
  CHECK(b->take().empty());
  CHECK(server->take() == query("select now()"));
  world.feed(server, kRows + ready());
  CHECK(b->take() == kRows + ready());

  world.feed(b, query("again"));
  CHECK(server->take() == query("again"));  // agrees already
  world.feed(server, kRows + ready());

  world.feed(a, query("select now()"));
  CHECK(server->take() == query("SET TimeZone='CET';"));
  world.feed(server, status("TimeZone", "CET") + complete("SET") + ready());
  CHECK(a->take().empty());
  CHECK(server->take() == query("select now()"));
}

TEST_CASE("parameters that the server refuses end the client, not the server", "[session]") {
  World world(config_text("default_pool_size = 1\n"));
  const WirePtr a = world.client();
  const WirePtr b = world.client();
  world.feed(a, query("set timezone = 'CET'"));
  world.feed(world.server, status("TimeZone", "CET") + complete("SET") + ready());
  world.feed(b, query("select now()"));
  world.feed(world.server, server_error("22023", "no") + ready());
  CHECK(b->take() == fatal("08P01", "invalid server parameter"));
  CHECK(b->closed);
  CHECK(idle(world) == 1);
}

TEST_CASE("RESET ALL goes back to the client's own start-up values", "[session]") {
  World world(config_text("default_pool_size = 1\n"));
  (void)world.client();
  const WirePtr server = world.server;
  const WirePtr client = world.connect();
  world.feed(client, World::startup({{"user", "u"}, {"database", "db"}, {"application_name", "app"}}));
  // What application_name becomes is known without a server.
  CHECK(types(client->take()) == "RSSSSSSSKZ");
  CHECK(server->take().empty());
  world.feed(client, query("discard all"));
  CHECK(server->take() == query("SET application_name='app';"));
  world.feed(server, status("application_name", "app") + complete("SET") + ready());
  CHECK(server->take() == query("discard all"));
  world.feed(server, complete("DISCARD ALL") + status("application_name", "") + ready());
  // It has never been told another value.
  CHECK(client->take() == complete("DISCARD ALL") + ready());
  world.feed(client, query("x"));
  CHECK(server->take() == query("SET application_name='app';"));
}

TEST_CASE("leaving in mid-transaction rolls back", "[session]") {
  World world;
  const WirePtr client = world.client();
  world.byte_by_byte = GENERATE(false, true);
  const bool politely = GENERATE(false, true);
  world.feed(client, query("begin"));
  world.feed(world.server, complete("BEGIN") + ready('T'));
  world.server->written.clear();
  if (politely) {
    world.feed(client, terminate());
  } else {
    world.hang_up(client);
  }
  CHECK(client->closed);
  CHECK(world.server->take() == query("ROLLBACK"));
  CHECK(idle(world) == 0);
  world.feed(world.server, complete("ROLLBACK") + ready());
  CHECK(idle(world) == 1);
  CHECK_FALSE(world.server->closed);
}

TEST_CASE("a rollback that does not help closes the server", "[session]") {
  World world;
  const WirePtr client = world.client();
  world.feed(client, query("begin"));
  world.feed(world.server, complete("BEGIN") + ready('T'));
  world.server->written.clear();
  world.hang_up(client);
  SECTION("still in a transaction") {
    world.feed(world.server, complete("ROLLBACK") + ready('T'));
    CHECK(world.server->take() == query("ROLLBACK") + terminate());
  }
  SECTION("no answer") {
    world.advance(seconds(15));
    CHECK(types(world.server->take()).substr(0, 2) == "QX");
  }
  CHECK(idle(world) == 0);
}

TEST_CASE("leaving in mid-query stops the query", "[session]") {
  World world;
  const WirePtr client = world.client();
  world.feed(client, query("select pg_sleep(100)"));
  world.server->written.clear();
  SECTION("a client that died: the query is cancelled") {
    world.hang_up(client);
    CHECK(world.server->take() == terminate());
    const WirePtr cancel = world.cancel_connects();
    CHECK(cancel->take() == made(protocol::append_cancel_request, 4711U, "KEY!"));
  }
  SECTION("a client that said goodbye: it may finish") {
    world.feed(client, terminate());
    CHECK(world.server->take() == terminate());
    CHECK(world.host.cancel_connects.empty());
  }
  // The permit is kept until the server has gone.
  CHECK(world.host.pools.totals().servers == 1);
  world.hang_up(world.server);
  CHECK(world.host.pools.totals().servers == 0);
}

TEST_CASE("a server that dies before anything was sent is replaced", "[session]") {
  World world(config_text("default_pool_size = 1\nserver_check_delay = 0\nserver_check_query = select 1\n"));
  const WirePtr client = world.client();
  const WirePtr first = world.server;
  world.byte_by_byte = GENERATE(false, true);
  world.advance(seconds(1));
  world.feed(client, query("mine"));
  CHECK(first->take() == query("select 1"));  // the check
  world.hang_up(first);
  CHECK_FALSE(client->closed);
  const WirePtr second = world.server_up();
  CHECK(second->take() == query("mine"));
  world.feed(second, kRows + ready());
  CHECK(client->take() == kRows + ready());
}

TEST_CASE("a check that succeeds lets the query through unseen", "[session]") {
  World world(config_text("server_check_delay = 0\nserver_check_query = select 1\n"));
  const WirePtr client = world.client();
  world.byte_by_byte = GENERATE(false, true);
  world.advance(seconds(1));
  world.feed(client, query("mine"));
  CHECK(world.server->take() == query("select 1"));
  world.feed(world.server, kRows + ready());
  CHECK(client->take().empty());
  CHECK(world.server->take() == query("mine"));
}

TEST_CASE("a server that dies in mid-query takes its client along", "[session]") {
  World world;
  const WirePtr client = world.client();
  world.feed(client, query("select 1"));
  world.feed(world.server, row_description());
  world.hang_up(world.server);
  CHECK(client->take() == row_description() + fatal("08P01", "server conn crashed?"));
  CHECK(client->closed);
  CHECK(world.host.pools.totals().servers == 0);
}

TEST_CASE("a server that dies while idle is nobody's loss", "[session]") {
  World world;
  const WirePtr client = world.client();
  SECTION("silently") {
    world.hang_up(world.server);
  }
  SECTION("with a word") {
    world.feed(world.server, made([](std::string& out) {
                 protocol::append_error(out, "FATAL", "57P01", "terminating connection due to administrator command");
               }));
    world.hang_up(world.server);
  }
  world.feed(client, query("mine"));
  CHECK(world.server_up()->take() == query("mine"));
}

TEST_CASE("what is no protocol ends the connection", "[session]") {
  World world;
  const WirePtr client = world.client();
  world.byte_by_byte = GENERATE(false, true);
  SECTION("unknown message of the client") {
    world.feed(client, std::string("?\0\0\0\4", 5));
    CHECK(client->take() == fatal("08P01", "unknown pkt"));
    CHECK(idle(world) == 1);
  }
  SECTION("bad length of the client") {
    world.feed(client, std::string("Q\0\0\0\3", 5));
    CHECK(client->take() == fatal("08P01", "bad packet header: '5100000003'"));
    CHECK(idle(world) == 1);
  }
  SECTION("unknown message of the server") {
    world.feed(client, query("x"));
    world.feed(world.server, std::string("?\0\0\0\4", 5));
    CHECK(client->take() == fatal("08P01", "unknown pkt"));
    CHECK(world.server->closed);
  }
  SECTION("unknown message among the rows of a result") {
    world.feed(client, query("x"));
    world.feed(world.server, kRows + row("2") + std::string("?\0\0\0\4", 5));
    CHECK(client->take() == kRows + row("2") + fatal("08P01", "unknown pkt"));
    CHECK(world.server->closed);
  }
  SECTION("bad length among the rows of a result") {
    world.feed(client, query("x"));
    world.feed(world.server, kRows + row("2") + std::string("D\0\0\0\3", 5) + row("3"));
    CHECK(client->take() == kRows + row("2") + fatal("08P01", "bad pkt header"));
    CHECK(world.server->closed);
  }
  SECTION("a row that nobody asked for") {
    world.feed(client, query("x"));
    world.feed(world.server, kRows + ready() + row("2") + kRows);
    CHECK(idle(world) == 0);
    return;
  }
  SECTION("a reply that nobody asked for") {
    world.feed(client, query("x"));
    world.feed(world.server, parsed() + complete("X") + ready());
    CHECK(client->take() == parsed() + complete("X") + ready());
    CHECK(idle(world) == 0);  // no further client meets it
    return;
  }
  CHECK(client->closed);
}

TEST_CASE("rows end where another kind of message begins", "[session]") {
  World world;
  const WirePtr client = world.client();
  world.byte_by_byte = GENERATE(false, true);
  const std::string notice = [] {
    std::string text;
    protocol::append_notice(text, "NOTICE", "00000", "between");
    return text;
  }();
  const std::string replies = row_description() + row("1") + notice + row("2") + row("") + complete("SELECT 3") +
                              row_description() + complete("SELECT 0") + ready();
  world.feed(client, query("select; select"));
  world.feed(world.server, replies);
  CHECK(client->take() == replies);
  CHECK(idle(world) == 1);
  // A description is the answer to Describe, and settles it.
  world.feed(client, parse("", "select 1") + describe("") + synced());
  world.feed(world.server, parsed() + std::string("t\0\0\0\6\0\0", 7) + row_description() + ready());
  CHECK(client->take() == parsed() + std::string("t\0\0\0\6\0\0", 7) + row_description() + ready());
  CHECK(idle(world) == 1);
}

TEST_CASE("a slow client stops its server", "[session]") {
  World world;
  const WirePtr client = world.client();
  const WirePtr server = world.server;
  world.feed(client, query("select many"));
  server->written.clear();
  client->accept = 10;
  const std::string rows = row_description() + row("a") + row("b");
  world.feed(server, rows);
  CHECK(client->written == rows.substr(0, 10));
  CHECK(client->write);
  CHECK_FALSE(server->read);
  world.feed(server, row("c"));  // was on its way already
  CHECK(client->written == rows.substr(0, 10));
  world.drain(client, 10);
  CHECK(client->written == rows.substr(0, 20));
  CHECK_FALSE(server->read);
  world.drain(client);
  CHECK(client->take() == rows + row("c"));
  CHECK(server->read);
  CHECK_FALSE(client->write);
  world.feed(server, complete("SELECT 3") + ready());
  CHECK(client->take() == complete("SELECT 3") + ready());
  CHECK(idle(world) == 1);
}

TEST_CASE("a server is free though its client has not read everything", "[session]") {
  World world;
  const WirePtr client = world.client();
  world.feed(client, query("select 1"));
  client->accept = 3;
  world.feed(world.server, kRows + ready());
  CHECK(idle(world) == 1);
  CHECK_FALSE(client->read);  // no further requests while it does not read
  world.drain(client);
  CHECK(client->take() == kRows + ready());
  CHECK(client->read);
}

TEST_CASE("a slow server stops its client", "[session]") {
  World world;
  const WirePtr client = world.client();
  const WirePtr server = world.server;
  server->accept = 4;
  world.feed(client, query("select 1"));
  CHECK(server->written == query("select 1").substr(0, 4));
  CHECK_FALSE(client->read);
  world.feed(client, query("select 2"));
  CHECK(server->written == query("select 1").substr(0, 4));
  world.drain(server);
  CHECK(server->take() == query("select 1") + query("select 2"));
  CHECK(client->read);
  world.feed(server, complete("A") + ready());
  CHECK(idle(world) == 0);
  world.feed(server, complete("B") + ready());
  CHECK(idle(world) == 1);
}

TEST_CASE("any split of writes gives the same bytes", "[session]") {
  for (std::size_t step = 1; step < 12; ++step) {
    World world;
    const WirePtr client = world.client();
    client->accept = world.server->accept = 0;
    const std::string batch = parse("s", "select 1") + bind_to("s") + execute() + synced() + query("q");
    std::string sent;
    world.feed(client, batch);
    for (int i = 0; i < 200; ++i) {
      world.drain(world.server, step);
      world.drain(client, step);
    }
    REQUIRE(types(world.server->written) == "PBESQ");
    const std::string replies = parsed() + bound() + kRows + ready() + complete("Q") + ready();
    world.feed(world.server, replies);
    for (int i = 0; i < 200; ++i) world.drain(client, step);
    CHECK(client->take() == replies);
    CHECK(idle(world) == 1);
  }
}

TEST_CASE("session mode keeps the server and resets it at the end", "[session]") {
  World world(config_text("pool_mode = session\n"));
  const WirePtr client = world.client();
  world.byte_by_byte = GENERATE(false, true);
  world.feed(client, query("select 1"));
  world.server->written.clear();
  world.feed(world.server, kRows + ready());
  CHECK(client->take() == kRows + ready());
  CHECK(idle(world) == 0);
  world.feed(client, terminate());
  CHECK(world.server->take() == query("DISCARD ALL"));
  CHECK(idle(world) == 0);
  world.feed(world.server, complete("DISCARD ALL") + ready());
  CHECK(idle(world) == 1);
}

TEST_CASE("statement mode refuses transactions", "[session]") {
  World world(config_text("pool_mode = statement\n"));
  const WirePtr client = world.client();
  world.feed(client, query("begin"));
  world.feed(world.server, complete("BEGIN") + ready('T'));
  CHECK(client->take() ==
        complete("BEGIN") + fatal("08P01", "transaction blocks not allowed in statement pooling mode"));
  CHECK(client->closed);
  CHECK(idle(world) == 0);
}

TEST_CASE("notices and notifications pass in between", "[session]") {
  World world;
  const WirePtr client = world.client();
  world.byte_by_byte = GENERATE(false, true);
  const std::string notice = made([](std::string& out) { protocol::append_notice(out, "NOTICE", "00000", "hm"); });
  world.feed(world.server, notice);  // while idle: for nobody
  CHECK(client->take().empty());
  world.feed(client, query("x"));
  world.feed(world.server, notice + complete("X") + ready());
  CHECK(client->take() == notice + complete("X") + ready());
}

TEST_CASE("streaming both ways, as replication does", "[session]") {
  World world(config_text(GENERATE("", "pool_mode = session\n")));
  const WirePtr client = world.client();
  world.byte_by_byte = GENERATE(false, true);
  const std::string both("W\0\0\0\7\0\0\0", 8);
  const std::string wal = made(protocol::append_copy_data, "w wal");
  const std::string status = made(protocol::append_copy_data, "r status");
  const std::string done = made(protocol::append_copy_done);
  world.feed(client, query("START_REPLICATION"));
  CHECK(world.server->take() == query("START_REPLICATION"));
  world.feed(world.server, both + wal);
  CHECK(client->take() == both + wal);
  world.feed(client, status);
  CHECK(world.server->take() == status);
  world.feed(world.server, wal);
  CHECK(client->take() == wal);
  // The server may end its direction first (end of a timeline), the client then ends its own.
  const bool server_first = GENERATE(false, true);
  if (server_first) {
    world.feed(world.server, done);
    CHECK(client->take() == done);
  }
  world.feed(client, done);
  CHECK(world.server->take() == done);
  if (!server_first) {
    world.feed(world.server, wal + done);  // what was under way
    CHECK(client->take() == wal + done);
  }
  world.feed(world.server, complete("START_REPLICATION") + ready());
  CHECK(client->take() == complete("START_REPLICATION") + ready());
  world.feed(client, query("select 1"));
  CHECK(world.server->take() == query("select 1"));
  world.feed(world.server, complete("SELECT 1") + ready());
  CHECK(client->take() == complete("SELECT 1") + ready());
}
