// Cancel requests, time limits and the admin console.
#include <catch2/catch.hpp>

#include "fake_host.hpp"

using namespace pgweir;
using namespace pgweir::core;
using namespace pgweir::core::test;

namespace {

WirePtr console(World& world, const std::string& user = "admin") {
  const WirePtr wire = world.connect();
  world.feed(wire, World::startup({{"user", user}, {"database", "pgbouncer"}}));
  REQUIRE(types(wire->written).back() == 'Z');
  world.welcome = wire->take();
  return wire;
}

std::string console_error(std::string_view text) {
  std::string out;
  protocol::append_error(out, "ERROR", "08P01", text);
  return out + ready();
}

const std::string kOurCancel = made(protocol::append_cancel_request, 4711U, "KEY!");

}  // namespace

TEST_CASE("a cancel request reaches the server of its client", "[session]") {
  World world;
  const WirePtr client = world.client();
  world.byte_by_byte = GENERATE(false, true);
  world.feed(client, query("select pg_sleep(10)"));
  const WirePtr asking = world.connect();
  world.feed(asking, cancel_for(world.welcome));
  CHECK_FALSE(asking->closed);
  const WirePtr cancel = world.cancel_connects();
  CHECK(cancel->take() == kOurCancel);
  // The query ends, but nobody else gets the server before the request has.
  world.feed(world.server, server_error("57014", "canceling statement due to user request") + ready());
  CHECK(types(client->take()) == "EZ");
  CHECK(world.host.pools.totals().idle_servers == 0);
  world.hang_up(cancel);
  CHECK(world.host.pools.totals().idle_servers == 1);
  CHECK(asking->closed);
  CHECK(asking->written.empty());
  CHECK(world.host.pools.totals().cancels == 0);
}

TEST_CASE("a cancel request while parameters are being set hits the query behind that", "[session]") {
  World world(config_text("default_pool_size = 1\n"));
  const WirePtr other = world.client();
  const WirePtr server = world.server;
  const WirePtr client = world.connect();
  world.feed(client, World::startup({{"user", "u"}, {"database", "db"}, {"application_name", "app"}}));
  const std::string welcome = client->take();
  world.byte_by_byte = GENERATE(false, true);
  const bool pipeline = GENERATE(false, true);
  world.feed(client, pipeline ? parse("", "select pg_sleep(10)") + bind_to("") + execute() + synced()
                              : query("select pg_sleep(10)"));
  CHECK(server->take() == query("SET application_name='app';"));
  const WirePtr asking = world.connect();
  world.feed(asking, cancel_for(welcome));
  CHECK(asking->closed);
  CHECK(world.host.cancel_connects.empty());
  world.feed(server, status("application_name", "app") + complete("SET") + ready());
  CHECK(server->take().empty());
  CHECK(types(client->take()) == "EZ");
  CHECK(world.host.pools.totals().idle_servers == 1);
  // The next request is not concerned.
  world.feed(client, query("select 1"));
  CHECK(server->take() == query("select 1"));
  world.feed(server, complete("SELECT 1") + ready());
  CHECK(client->take() == complete("SELECT 1") + ready());
}

TEST_CASE("a cancel request that comes too late is not sent", "[session]") {
  World world;
  const WirePtr client = world.client();
  world.feed(client, query("select 1"));
  const WirePtr asking = world.connect();
  world.feed(asking, cancel_for(world.welcome));
  world.feed(world.server, complete("SELECT 1") + ready());
  CHECK(world.host.pools.totals().idle_servers == 1);
  if (!world.host.cancel_connects.empty() && world.host.abandoned_cancels.empty()) {
    CHECK(world.cancel_connects()->take().empty());
  }
  CHECK(asking->closed);
  CHECK(world.host.pools.totals().cancels == 0);
}

TEST_CASE("a cancel request whose connect fails or takes too long ends", "[session]") {
  World world;
  const WirePtr client = world.client();
  world.feed(client, query("select 1"));
  const WirePtr asking = world.connect();
  world.feed(asking, cancel_for(world.welcome));
  REQUIRE(world.host.cancel_connects.size() == 1);
  SECTION("fails") {
    world.core.cancel_connect_failed(world.host.cancel_connects.front(), "connect failed", "");
    world.settle();
  }
  SECTION("too long") {
    world.advance(seconds(10));
    CHECK(world.host.abandoned_cancels.size() == 1);
  }
  CHECK(asking->closed);
  CHECK_FALSE(client->closed);
  CHECK(world.host.pools.totals().cancels == 0);
}

TEST_CASE("an unknown or malformed cancel request is dropped without a word", "[session]") {
  World world;
  world.byte_by_byte = GENERATE(false, true);
  const WirePtr asking = world.connect();
  const std::size_t secret = GENERATE(4U, 8U);
  world.feed(asking, made(protocol::append_cancel_request, 1U, std::string(secret, 'x')));
  CHECK(asking->closed);
  CHECK(asking->written.empty());
  CHECK(world.core.clients().empty());
}

TEST_CASE("a request is cancelled while it waits for a server", "[session]") {
  World world(config_text("default_pool_size = 1\n"));
  const WirePtr holder = world.client();
  const WirePtr client = world.client();
  const std::string cancel = cancel_for(world.welcome);
  const std::string error = server_error("57014", "canceling statement due to user request");
  world.byte_by_byte = GENERATE(false, true);
  world.feed(holder, query("begin"));
  world.feed(world.server, complete("BEGIN") + ready('T'));
  world.server->written.clear();
  SECTION("a simple query") {
    world.feed(client, query("select 1"));
    world.feed(world.connect(), cancel);
    CHECK(client->take() == error + ready());
  }
  SECTION("a pipeline up to its Sync") {
    world.feed(client, parse("s", "select 1") + bind_to("s") + execute());
    world.feed(world.connect(), cancel);
    CHECK(client->take() == error);
    world.feed(client, synced());
    CHECK(client->take() == ready());
  }
  CHECK(world.server->take().empty());
  CHECK(world.host.pools.totals().waiting_clients == 0);
  // The next request is served as usual.
  world.feed(holder, query("commit"));
  world.feed(world.server, complete("COMMIT") + ready());
  world.server->written.clear();
  world.feed(client, query("select 2"));
  CHECK(world.server->take() == query("select 2"));
}

TEST_CASE("a client that waits too long is told first and then closed", "[session]") {
  World world(config_text("default_pool_size = 1\nquery_wait_timeout = 20\n"));
  const WirePtr holder = world.client();
  const WirePtr client = world.client();
  world.feed(holder, query("begin"));
  world.feed(world.server, complete("BEGIN") + ready('T'));
  world.feed(client, query("select 1"));
  world.advance(seconds(5));
  CHECK(types(client->take()) == "N");
  world.advance(seconds(14));
  CHECK(client->take().empty());
  world.advance(seconds(1));
  CHECK(client->take() == fatal("08P01", "query_wait_timeout"));
  CHECK(client->closed);
  CHECK_FALSE(holder->closed);
}

TEST_CASE("limits of queries and transactions", "[session]") {
  const std::string setting = GENERATE("query_timeout", "transaction_timeout", "idle_transaction_timeout");
  World world(config_text(setting + " = 10\n"));
  const WirePtr client = world.client();
  world.feed(client, query("begin"));
  std::string text;
  if (setting == "query_timeout") {
    text = "query timeout";
  } else {
    world.feed(world.server, complete("BEGIN") + ready('T'));
    text = setting == "transaction_timeout" ? "transaction timeout" : "idle transaction timeout";
  }
  client->written.clear();
  world.advance(seconds(9));
  CHECK_FALSE(client->closed);
  world.advance(seconds(1));
  CHECK(client->take() == fatal("08P01", text));
  CHECK(client->closed);
  CHECK(types(world.server->take()).back() == 'X');
  CHECK(world.host.pools.totals().idle_servers == 0);
}

TEST_CASE("an idle client is closed after client_idle_timeout", "[session]") {
  World world(config_text("client_idle_timeout = 10\n"));
  const WirePtr client = world.client();
  world.advance(seconds(6));
  world.feed(client, query("x"));
  world.feed(world.server, complete("X") + ready());
  client->written.clear();
  world.advance(seconds(6));
  CHECK_FALSE(client->closed);
  world.advance(seconds(4));
  CHECK(client->take() == fatal("08P01", "client_idle_timeout"));
}

TEST_CASE("a last message that does not leave is given up", "[session]") {
  World world(config_text("client_idle_timeout = 10\n"));
  const WirePtr client = world.client();
  client->accept = 3;
  world.advance(seconds(10));
  CHECK_FALSE(client->closed);
  world.advance(seconds(5));
  CHECK(client->closed);
  CHECK(world.core.clients().empty());
}

TEST_CASE("the console answers SHOW VERSION", "[session]") {
  World world;
  world.byte_by_byte = GENERATE(false, true);
  const WirePtr wire = console(world, "stats");
  world.feed(wire, query("show version;"));
  const std::string answer = wire->take();
  CHECK(types(answer) == "TDCZ");
  CHECK(answer.find("PgWeir ") != std::string::npos);
}

TEST_CASE("console commands that fail", "[session]") {
  World world;
  world.byte_by_byte = GENERATE(false, true);
  const WirePtr stats = console(world, "stats");
  world.feed(stats, query("pause"));
  CHECK(stats->take() == console_error("admin access needed"));
  const WirePtr wire = console(world);
  world.feed(wire, query("resume"));
  CHECK(wire->take() == console_error("pooler is not paused/suspended"));
  world.feed(wire, query("pause nodb"));
  CHECK(wire->take() == console_error("no such database: nodb"));
  world.feed(wire, query("frobnicate"));
  CHECK(types(wire->take()) == "EZ");
  world.feed(wire, query("show version") + query("show version"));
  CHECK(types(wire->take()) == "TDCZTDCZ");
  world.feed(wire, std::string("F\0\0\0\4", 5));
  CHECK(types(wire->take()) == "EZE");
  CHECK(wire->closed);
}

TEST_CASE("what is no command of the console", "[session]") {
  World world;
  world.byte_by_byte = GENERATE(false, true);
  const WirePtr wire = console(world);
  SECTION("text behind a zero byte is ignored") {
    world.feed(wire, std::string("Q\0\0\0\x0dSHOW\0MEM\0", 14));
    CHECK(wire->take() == console_error("invalid command 'SHOW', use SHOW HELP;"));
  }
  SECTION("a query without end") {
    world.feed(wire, std::string("Q\0\0\0\x08SHOW", 9));
    CHECK(wire->take() == fatal("08P01", "incomplete query"));
  }
  SECTION("a length that cannot be") {
    world.feed(wire, std::string("Q\0\0\0\x03", 5));
    CHECK(wire->take() == fatal("08P01", "bad packet header: '5100000003'"));
  }
  SECTION("more than a command may be") {
    world.feed(wire, std::string("Q\0\x01\0\0", 5));
    CHECK(wire->take() == fatal("08P01", "incomplete pkt"));
  }
  SECTION("a type that no client sends") {
    world.feed(wire, std::string("y\0\0\0\4", 5));
    CHECK(wire->take() == fatal("08P01", "unknown pkt"));
  }
}

TEST_CASE("PAUSE, KILL, RESUME and ENABLE of one database", "[session]") {
  World world;
  const WirePtr wire = console(world);
  const auto ask = [&](const std::string& command) {
    world.feed(wire, query(command));
    return wire->take();
  };
  CHECK(ask("resume pgbouncer") == console_error("database pgbouncer is not paused"));
  CHECK(ask("enable pgbouncer") == console_error("cannot enable admin db: pgbouncer"));
  CHECK(ask("enable nodb") == console_error("no such database: nodb"));
  CHECK(ask("resume nodb") == console_error("no such database: nodb"));
  CHECK(ask("enable db") == complete("ENABLE") + ready());
  // A database that is paused by itself may be killed, unless everything is paused.
  CHECK(ask("pause db") == complete("PAUSE") + ready());
  CHECK(ask("kill db") == complete("KILL") + ready());
  CHECK(ask("resume db") == complete("RESUME") + ready());
  CHECK(ask("pause") == complete("PAUSE") + ready());
  CHECK(ask("kill db") == console_error("already suspended/paused"));
}

TEST_CASE("the console in extended query protocol", "[session]") {
  World world;
  world.byte_by_byte = GENERATE(false, true);
  const WirePtr wire = console(world);
  const WirePtr client = world.client();
  world.feed(wire, parse("p", "show pools") + describe("p") + bind_to("p") + describe("", 'P') + execute() + synced());
  CHECK(types(wire->take()) == "1tT2TDDCZ");
  // SHOW over all workers and commands whose answer takes time hold back what comes behind them.
  world.feed(wire, parse("", "show clients") + bind_to("") + execute() + parse("c", "pause") + bind_to("c") +
                       describe("", 'P') + execute() + synced() + query("resume"));
  CHECK(types(wire->take()) == "12DDC12nCZCZ");
  world.feed(wire,
             parse("", "show version") + bind_to("nosuch", "nosuch") + execute() + query("show version") + synced());
  CHECK(types(wire->take()) == "1EZ");
  world.feed(wire, parse("", "resume") + bind_to("") + execute() + execute() + synced() + query("show version"));
  CHECK(types(wire->take()) == "12EZTDCZ");
  CHECK_FALSE(wire->closed);
  world.feed(wire, std::string("E\0\0\0\5x", 6));
  CHECK(types(wire->take()) == "E");
  CHECK(wire->closed);
}

TEST_CASE("strangers do not get into the console", "[session]") {
  World world;
  const WirePtr wire = world.connect();
  world.feed(wire, World::startup({{"user", "u"}, {"database", "pgbouncer"}}));
  CHECK(wire->take() == fatal("08P01", "not allowed"));
  CHECK(wire->closed);
  const WirePtr local = world.connect(true, 1000);
  world.feed(local, World::startup({{"user", "pgbouncer"}, {"database", "pgbouncer"}}));
  CHECK(types(local->take()).back() == 'Z');
  const WirePtr foreign = world.connect(true, 1001);
  world.feed(foreign, World::startup({{"user", "pgbouncer"}, {"database", "pgbouncer"}}));
  CHECK(foreign->closed);
}

TEST_CASE("PAUSE waits for the servers, RESUME lets the waiting go on", "[session]") {
  World world;
  const WirePtr client = world.client();
  const WirePtr other = world.client();
  world.byte_by_byte = GENERATE(false, true);
  const std::string argument = GENERATE("", " db");
  const WirePtr admin = console(world);
  world.feed(client, query("begin"));
  world.feed(world.server, complete("BEGIN") + ready('T'));
  world.server->written.clear();
  world.feed(admin, query("pause" + argument) + query("show version"));
  CHECK(admin->take().empty());
  world.feed(other, query("select 1"));
  CHECK(world.host.connects.empty());
  world.feed(client, query("commit"));
  CHECK(world.server->take() == query("commit"));
  world.feed(world.server, complete("COMMIT") + ready());
  CHECK(admin->take().substr(0, complete("PAUSE").size() + ready().size()) == complete("PAUSE") + ready());
  CHECK(world.server->take() == terminate());
  world.hang_up(world.server);
  CHECK(world.host.connects.empty());
  CHECK(other->written.empty());
  world.feed(admin, query("pause" + argument));
  // One database may be paused again.
  CHECK(admin->take() == (argument.empty() ? console_error("already suspended/paused") : complete("PAUSE") + ready()));
  world.feed(admin, query("resume" + argument));
  CHECK(admin->take() == complete("RESUME") + ready());
  CHECK(world.server_up()->take() == query("select 1"));
}

TEST_CASE("a pending PAUSE is cancelled by a cancel request", "[session]") {
  World world;
  const WirePtr client = world.client();
  world.feed(client, query("begin"));
  world.feed(world.server, complete("BEGIN") + ready('T'));
  const WirePtr admin = console(world);
  world.feed(admin, query("pause"));
  world.feed(world.connect(), cancel_for(world.welcome));
  CHECK(types(admin->take()) == "EZ");
  CHECK_FALSE(world.host.pools.all_paused());
}

TEST_CASE("a console that leaves during PAUSE", "[session]") {
  World world;
  const WirePtr client = world.client();
  world.feed(client, query("begin"));
  world.feed(world.server, complete("BEGIN") + ready('T'));
  const WirePtr admin = console(world);
  world.feed(admin, query("pause"));
  world.hang_up(admin);
  CHECK(world.core.clients().size() == 1);
  world.feed(client, query("commit"));
  world.feed(world.server, complete("COMMIT") + ready());
  CHECK(types(client->take()) == "CZCZ");
}

TEST_CASE("RELOAD and SET are carried out by the process", "[session]") {
  World world;
  const WirePtr admin = console(world);
  world.feed(admin, query("reload") + query("show version"));
  REQUIRE(world.host.commands.size() == 1);
  CHECK(world.host.commands[0].kind == ProcessCommand::Kind::Reload);
  CHECK(admin->take().empty());
  world.core.process_command_done(world.host.commands[0].client, "");
  world.settle();
  CHECK(types(admin->take()) == "CZTDCZ");
}

TEST_CASE("SHOW of sockets and KILL_CLIENT", "[session]") {
  World world;
  const WirePtr client = world.client();
  const WirePtr admin = console(world);
  for (const char* what :
       {"show clients", "show servers", "show sockets", "show pools", "show stats", "show databases", "show lists",
        "show dns_hosts", "show dns_zones", "show users", "show config", "show totals"}) {
    world.feed(admin, query(what));
    const std::string answer = types(admin->take());
    CHECK(answer.front() == 'T');
    CHECK(answer.substr(answer.size() - 2) == "CZ");
  }
  const auto number = world.core.clients().size() == 2 ? static_cast<ClientSession*>(client->session)->number() : 0;
  world.feed(admin, query("kill_client " + std::to_string(number)));
  CHECK(client->take() == fatal("08P01", "admin forced disconnect"));
  CHECK(client->closed);
  CHECK(types(admin->take()) == "CZ");
}

TEST_CASE("a server at an address that its name has left serves nobody after its client", "[session]") {
  World world(config_text("", "db = host=db.example\n"));
  const WirePtr client = world.client();
  const auto changed = [&](const std::string& name, const std::vector<std::string>& addresses) {
    world.core.addresses_changed(name, addresses);
    world.settle();
  };
  changed("db.example", {"127.0.0.2", "127.0.0.1"});
  changed("other.example", {"127.0.0.2"});
  CHECK_FALSE(world.server->closed);
  SECTION("at once if it is idle") {
    changed("db.example", {"127.0.0.2"});
    CHECK(world.server->take() == terminate());
  }
  SECTION("when the transaction ends") {
    world.feed(client, query("begin"));
    world.feed(world.server, complete("BEGIN") + ready('T'));
    changed("db.example", {});
    CHECK_FALSE(world.server->closed);
    world.server->take();
    world.feed(client, query("commit"));
    CHECK(world.server->take() == query("commit"));
    world.feed(world.server, complete("COMMIT") + ready());
    CHECK(world.server->take() == terminate());
  }
}

TEST_CASE("a server whose reset query was canceled is not given to the next client", "[session]") {
  World world(config_text("pool_mode = session\n"));
  const WirePtr client = world.client();
  world.feed(client, query("set search_path = mine"));
  world.feed(world.server, complete("SET") + ready());
  world.server->take();
  world.feed(client, terminate());
  REQUIRE(world.server->take() == query("DISCARD ALL"));
  SECTION("canceled") {
    world.feed(world.server, server_error("57014", "canceling statement due to user request") + ready());
    CHECK(world.server->take() == terminate());
    CHECK(world.host.pools.totals().idle_servers == 0);
  }
  SECTION("failed otherwise, which PgBouncer ignores") {
    world.feed(world.server, server_error("42601", "syntax error") + ready());
    CHECK(world.server->take().empty());
    CHECK(world.host.pools.totals().idle_servers == 1);
  }
}

TEST_CASE("a server that is closed during its login keeps its permit until it has ended", "[session]") {
  World world;
  const WirePtr client = world.connect();
  world.feed(client, World::startup({{"user", "u"}, {"database", "db"}}));
  const WirePtr server = world.server_connects();
  world.feed(server, made(protocol::append_authentication_ok));
  world.host.pools.reconnect("db", world.now, world.core.actions());
  world.settle();
  CHECK_FALSE(server->closed);
  CHECK(world.host.pools.totals().servers >= 1);
  world.hang_up(server);
  CHECK(server->closed);
}

TEST_CASE("server_connect_timeout covers the connect itself", "[session]") {
  World world(config_text("server_connect_timeout = 2\n"));
  const WirePtr client = world.connect();
  world.feed(client, World::startup({{"user", "u"}, {"database", "db"}}));
  REQUIRE(world.host.connects.size() == 1);
  SECTION("nobody answers") {
    world.advance(std::chrono::milliseconds(1900));
    CHECK(world.host.abandoned.empty());
    world.advance(std::chrono::milliseconds(200));
    CHECK(world.host.abandoned.size() == 1);
    CHECK(world.host.pools.totals().servers == 0);
  }
  SECTION("the connect and the login together") {
    world.advance(std::chrono::milliseconds(1500));
    const WirePtr server = world.server_connects();
    world.advance(std::chrono::milliseconds(600));
    CHECK(server->closed);
  }
}
