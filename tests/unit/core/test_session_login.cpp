// A client's way to ReadyForQuery: first packets, authentication, refusals, and what a login needs a server for.
#include <catch2/catch.hpp>

#include "fake_host.hpp"
#include "protocol/auth_md5.hpp"
#include "protocol/auth_scram.hpp"
#include "protocol/message_view.hpp"

using namespace pgweir;
using namespace pgweir::core;
using namespace pgweir::core::test;
using namespace std::string_literals;

namespace {

const auto kHello = World::startup({{"user", "u"}, {"database", "db"}});

std::string number(std::uint32_t value) {
  char bytes[4];
  protocol::store_u32(bytes, value);
  return {bytes, 4};
}
std::string request(std::uint32_t code) {
  return number(8) + number(code);
}

std::string password(std::string_view text) {
  return made(protocol::append_password, text);
}

/// Body of the only message in `bytes`.
std::string body(std::string_view bytes, char type) {
  REQUIRE(types(bytes) == std::string(1, type));
  return std::string(bytes.substr(5));
}

void expect_refused(World& world, const WirePtr& wire, std::string_view sqlstate, std::string_view text) {
  CHECK(wire->take() == fatal(sqlstate, text));
  CHECK(wire->closed);
  CHECK(world.core.clients().empty());
}

const std::string kWelcomeStart = made(protocol::append_authentication_ok) + status("server_version", "15.5") +
                                  status("DateStyle", "ISO, MDY") + status("client_encoding", "UTF8");

}  // namespace

TEST_CASE("the first login of a pool waits for a server, the next one does not", "[session]") {
  World world;
  world.byte_by_byte = GENERATE(false, true);
  const WirePtr client = world.connect();
  world.feed(client, kHello);
  CHECK(client->written.empty());
  const WirePtr server = world.server_connects();
  CHECK(server->take() == World::startup({{"database", "db"}, {"user", "u"}}));
  world.feed(server, World::server_greeting());
  const std::string welcome = client->take();
  CHECK(types(welcome) == "RSSSSSSSKZ");
  CHECK(welcome.substr(0, welcome.find('K') - 0).find("TimeZone") != std::string::npos);
  CHECK(welcome.substr(0, kWelcomeStart.size()) == kWelcomeStart);
  CHECK(server->take().empty());
  CHECK(world.host.pools.totals().idle_servers == 1);

  const WirePtr second = world.connect();
  world.feed(second, kHello);
  CHECK(types(second->take()) == "RSSSSSSSKZ");
  CHECK(world.host.connects.empty());
}

TEST_CASE("new start-up parameters are tried on a server", "[session]") {
  World world;
  world.byte_by_byte = GENERATE(false, true);
  (void)world.client();
  const WirePtr server = world.server;
  const WirePtr client = world.connect();
  const auto hello = World::startup(
      {{"user", "u"}, {"database", "db"}, {"timezone", "cet"}, {"application_name", "app"}, {"work_mem", "1MB"}});
  world.feed(client, hello);
  CHECK(client->written.empty());
  CHECK(server->take() == query("SET TimeZone='cet';SET application_name='app';"
                                "SELECT pg_catalog.set_config('work_mem','1MB',false);"));
  world.feed(server, status("TimeZone", "CET") + complete("SET") + status("application_name", "app") + complete("SET") +
                         row_description() + row("1MB") + complete("SELECT 1") + ready());
  const std::string welcome = client->take();
  CHECK(types(welcome) == "RSSSSSSSKZ");
  CHECK(welcome.find(status("TimeZone", "CET")) != std::string::npos);
  CHECK(welcome.find(status("application_name", "app")) != std::string::npos);
  CHECK(world.host.pools.totals().idle_servers == 1);

  // The same again is known.
  const WirePtr again = world.connect();
  world.feed(again, hello);
  CHECK(again->take().find(status("TimeZone", "CET")) != std::string::npos);
  CHECK(server->take().empty());
}

TEST_CASE("a start-up parameter that the server refuses ends the login with its words", "[session]") {
  World world;
  world.byte_by_byte = GENERATE(false, true);
  (void)world.client();
  const WirePtr client = world.connect();
  world.feed(client, World::startup({{"user", "u"}, {"database", "db"}, {"TimeZone", "Mars"}}));
  CHECK(world.server->take() == query("SET TimeZone='Mars';"));
  world.feed(world.server, server_error("22023", "invalid value for parameter \"TimeZone\": \"Mars\"") + ready());
  CHECK(client->take() == fatal("22023", "invalid value for parameter \"TimeZone\": \"Mars\""));
  CHECK(client->closed);
  CHECK_FALSE(world.server->closed);
  CHECK(world.host.pools.totals().idle_servers == 1);
}

TEST_CASE("md5 authentication", "[session]") {
  World world(config_text("auth_type = md5\n"));
  world.byte_by_byte = GENERATE(false, true);
  const WirePtr client = world.connect();
  world.feed(client, kHello);
  const std::string challenge = body(client->take(), 'R');
  REQUIRE(challenge.size() == 8);
  CHECK(challenge.substr(0, 4) == number(5));
  const std::string salt = challenge.substr(4);
  SECTION("right password") {
    const auto secret = protocol::md5_secret(world.host.crypto_, "u", "pw");
    world.feed(client, password(protocol::md5_response(world.host.crypto_, secret, salt)));
    (void)world.server_up();
    CHECK(types(client->take()) == "RSSSSSSSKZ");
  }
  SECTION("wrong password") {
    world.feed(client, password("md500000000000000000000000000000000"));
    expect_refused(world, client, "08P01", "password authentication failed");
    CHECK(world.host.connects.empty());
  }
  SECTION("empty password") {
    world.feed(client, password(""));
    expect_refused(world, client, "08P01", "empty password returned by client");
  }
  SECTION("another message") {
    world.feed(client, query("select 1"));
    CHECK(client->take().empty());
    CHECK(client->closed);
  }
  SECTION("a password without end") {
    world.feed(client, "p"s + number(70000));
    CHECK(types(client->take()) == "E");
    CHECK(client->closed);
  }
}

TEST_CASE("messages that have no place in a login", "[session]") {
  World world(config_text("auth_type = scram-sha-256\n"), {{"u", "pw"}});
  world.byte_by_byte = GENERATE(false, true);
  const WirePtr client = world.connect();
  SECTION("a second startup packet") {
    world.feed(client, kHello);
    client->take();
    world.feed(client, kHello);
    expect_refused(world, client, "08P01", "client re-sent startup pkt");
  }
  SECTION("another first packet") {
    world.feed(client, kHello);
    client->take();
    world.feed(client, number(8) + number(protocol::kSslRequestCode));
    CHECK(client->take().empty());
    CHECK(client->closed);
  }
  SECTION("channel binding that was not offered") {
    world.feed(client, kHello);
    client->take();
    world.feed(client, made(protocol::append_sasl_initial_response, "SCRAM-SHA-256-PLUS", "p=x,,n=,r=abc"));
    expect_refused(world, client, "08P01", "client selected an invalid SASL authentication mechanism");
  }
  SECTION("a mechanism without data") {
    world.feed(client, kHello);
    client->take();
    world.feed(client, password(""));
    expect_refused(world, client, "08P01", "client selected an invalid SASL authentication mechanism");
  }
}

TEST_CASE("a message with a type before any startup packet", "[session]") {
  World world;
  const WirePtr client = world.connect();
  SECTION("a password") {
    world.feed(client, password("x"));
    expect_refused(world, client, "08P01", "client password pkt before startup packet");
  }
  SECTION("anything else") {
    world.feed(client, query("select 1"));
    CHECK(client->take().empty());
    CHECK(client->closed);
  }
  SECTION("half a message") {
    world.feed(client, "GET / HTTP/1.0\r\n\r\n"s);
    expect_refused(world, client, "08P01", "bad packet header: '474554202f204854'");
  }
}

TEST_CASE("an unknown user is challenged like any other", "[session]") {
  World world(config_text("auth_type = md5\n"));
  const WirePtr client = world.connect();
  world.feed(client, World::startup({{"user", "nobody"}, {"database", "db"}}));
  CHECK(types(client->take()) == "R");
  world.feed(client, password("md500000000000000000000000000000000"));
  expect_refused(world, client, "08P01", "password authentication failed");
}

TEST_CASE("SCRAM authentication, whose keys then open the server", "[session]") {
  pgweir::test::FakeCrypto crypto;
  const auto secret = protocol::make_scram_secret(crypto, "pw", 4096, "0123456789abcdef");
  const bool plain = GENERATE(false, true);
  World world(config_text("auth_type = scram-sha-256\n"),
              {{"u", plain ? "pw" : protocol::format_scram_secret(secret)}});
  world.byte_by_byte = GENERATE(false, true);
  const bool right = GENERATE(false, true);
  const WirePtr client = world.connect();
  world.feed(client, kHello);
  CHECK(client->take() == made([](std::string& out) {
          const std::string_view mechanism = "SCRAM-SHA-256";
          protocol::append_authentication_sasl(out, {&mechanism, 1});
        }));
  protocol::ScramClient scram(crypto, right ? "pw" : "wrong", "nonce");
  world.feed(client, made(protocol::append_sasl_initial_response, scram.mechanism(), scram.first()));
  const std::string challenge = body(client->take(), 'R');
  const auto answer = scram.answer(challenge.substr(4));
  REQUIRE(answer);
  world.feed(client, made(protocol::append_sasl_response, *answer));
  if (!right) {
    expect_refused(world, client, "08P01", "SASL authentication failed");
    return;
  }
  const std::string final = body(client->take(), 'R');
  CHECK(scram.verify(final.substr(4)));

  const WirePtr server = world.server_connects();
  server->written.clear();
  protocol::ScramServer back_end(crypto, secret, false, "server-nonce");
  world.feed(server, made([](std::string& out) {
               const std::string_view mechanism = "SCRAM-SHA-256";
               protocol::append_authentication_sasl(out, {&mechanism, 1});
             }));
  const std::string initial_message = body(server->take(), 'p');
  const auto initial = protocol::parse_sasl_initial_response(initial_message);
  REQUIRE(initial);
  const auto first = back_end.first(initial->mechanism, *initial->data);
  REQUIRE(first);
  world.feed(server, made(protocol::append_authentication_sasl_continue, *first));
  const auto result = back_end.final(body(server->take(), 'p'));
  REQUIRE(result.ok);
  world.feed(server, made(protocol::append_authentication_sasl_final, result.server_final) + World::server_greeting());
  CHECK(types(client->take()) == "RSSSSSSSKZ");
}

TEST_CASE("which databases exist is told after authentication only", "[session]") {
  World world(config_text("auth_type = plain\n"));
  world.byte_by_byte = GENERATE(false, true);
  const WirePtr client = world.connect();
  world.feed(client, World::startup({{"user", "u"}, {"database", "nodb"}}));
  CHECK(types(client->take()) == "R");
  world.feed(client, password("pw"));
  expect_refused(world, client, "08P01", "no such database: nodb");
}

TEST_CASE("refusals carry proper codes with native_sqlstate", "[session]") {
  World world(config_text("[pgweir]\nnative_sqlstate = 1\n"));
  const WirePtr client = world.connect();
  world.feed(client, World::startup({{"user", "u"}, {"database", "nodb"}}));
  expect_refused(world, client, "3D000", "no such database: nodb");
}

TEST_CASE("encryption requests are declined", "[session]") {
  World world;
  world.byte_by_byte = GENERATE(false, true);
  const WirePtr client = world.connect();
  world.feed(client, request(protocol::kSslRequestCode));
  CHECK(client->take() == "N");
  world.feed(client, request(protocol::kGssEncRequestCode));
  CHECK(client->take() == "N");
  world.feed(client, kHello);
  (void)world.server_up();
  CHECK(types(client->take()) == "RSSSSSSSKZ");
}

TEST_CASE("nothing may follow an encryption request before its answer", "[session]") {
  for (const auto code : {protocol::kSslRequestCode, protocol::kGssEncRequestCode}) {
    World world;
    const WirePtr client = world.connect();
    world.feed(client, request(code) + kHello);
    CHECK(types(client->take()) == "E");
    CHECK(client->closed);
  }
}

TEST_CASE("TLS is taken up where it is offered", "[session]") {
  World world;
  world.host.tls = true;
  const WirePtr client = world.connect();
  world.feed(client, request(protocol::kSslRequestCode));
  CHECK(client->take() == "S");
  REQUIRE(client->tls_started);
  client->tls = true;
  client->session->on_tls_ready();
  world.settle();
  world.feed(client, kHello);
  (void)world.server_up();
  CHECK(types(client->take()) == "RSSSSSSSKZ");
}

TEST_CASE("bad first packets", "[session]") {
  World world;
  world.byte_by_byte = GENERATE(false, true);
  const WirePtr client = world.connect();
  SECTION("length too small") {
    world.feed(client, number(7) + number(196608));
    CHECK(types(client->take()) == "E");
  }
  SECTION("length too large") {
    world.feed(client, number(0x7fffffff) + number(196608));
    CHECK(types(client->take()) == "E");
  }
  SECTION("unknown protocol") {
    world.feed(client, number(12) + number(0x00040000) + "abcd");
    CHECK(types(client->take()) == "E");
  }
  SECTION("protocol 2") {
    world.feed(client, number(12) + number(0x00020000) + "abcd");
    CHECK(client->take() == fatal("08P01", "old V2 protocol not supported"));
  }
  SECTION("no terminator") {
    world.feed(client, number(14) + number(196608) + "user\0u"s);
    CHECK(types(client->take()) == "E");
  }
  SECTION("no user") {
    world.feed(client, World::startup({{"database", "db"}}));
    CHECK(client->take() == fatal("08P01", "no username supplied"));
  }
  SECTION("a parameter that cannot be one") {
    world.feed(client, World::startup({{"user", "u"}, {"a;b", "x"}}));
    CHECK(client->take() == fatal("08P01", "unsupported startup parameter: a;b"));
  }
  SECTION("a word of the packet itself, spelt as a parameter") {
    world.feed(client, World::startup({{"user", "u"}, {"Database", "x"}}));
    CHECK(client->take() == fatal("08P01", "unsupported startup parameter: Database"));
  }
  CHECK(client->closed);
  CHECK(world.core.clients().empty());
}

TEST_CASE("a newer minor version and protocol options are negotiated down", "[session]") {
  World world;
  const WirePtr client = world.connect();
  world.feed(client, World::startup({{"user", "u"}, {"database", "db"}, {"_pq_.x", "1"}}, 196610));
  const std::string answer = body(client->take(), 'v');
  const auto view = protocol::parse_negotiate_protocol_version(answer);
  REQUIRE(view);
  CHECK(view->minor == 196608);
  CHECK(view->options == std::vector<protocol::ByteView>{"_pq_.x"});
  (void)world.server_up();
  CHECK(types(client->take()) == "RSSSSSSSKZ");
}

TEST_CASE("login failures of the server reach the client", "[session]") {
  World world;
  world.byte_by_byte = GENERATE(false, true);
  const WirePtr client = world.connect();
  world.feed(client, kHello);
  const WirePtr server = world.server_connects();
  world.feed(server, made([](std::string& out) {
               protocol::append_error(out, "FATAL", "3D000", "database \"db\" does not exist");
             }));
  CHECK(server->closed);
  const std::string error = client->take();
  CHECK(types(error) == "E");
  CHECK(error.find("database \"db\" does not exist") != std::string::npos);
  CHECK(client->closed);
}

TEST_CASE("while logins to the server fail requests fail at once", "[session]") {
  World world;
  const WirePtr client = world.client();
  const WirePtr other = world.client();
  world.hang_up(world.server);
  world.feed(client, query("x"));
  world.feed(world.server_connects(), made([](std::string& out) {
               protocol::append_error(out, "FATAL", "3D000", "database \"db\" does not exist");
             }));
  CHECK(client->take().find("database \"db\" does not exist") != std::string::npos);
  CHECK(client->closed);
  world.feed(other, query("x"));
  CHECK(other->take().find("server login has been failing, cached error: database \"db\" does not exist "
                           "(server_login_retry)") != std::string::npos);
  CHECK(other->closed);
}

TEST_CASE("a client that waits for a server that cannot be reached runs out of time", "[session]") {
  World world(config_text("client_login_timeout = 20\n"));
  const WirePtr client = world.connect();
  world.feed(client, kHello);
  world.server_fails("connection refused");
  CHECK_FALSE(client->closed);
  world.advance(seconds(19));
  CHECK_FALSE(client->closed);
  world.advance(seconds(1));
  CHECK(client->take() == fatal("08P01", "client_login_timeout (server down)"));
  CHECK(client->closed);
}

TEST_CASE("query_wait_timeout holds for a login that waits for a server, the login user's own value first",
          "[session]") {
  const bool own = GENERATE(false, true);
  const std::string user = own ? "[users]\nu = query_wait_timeout=5\n" : "";
  World world(config_text("client_login_timeout = 60\nquery_wait_timeout = 10\n" + user));
  const WirePtr client = world.connect();
  world.advance(seconds(2));
  world.feed(client, kHello);
  world.advance(seconds(own ? 4 : 9));
  CHECK_FALSE(client->closed);
  world.advance(seconds(1));
  CHECK(client->take() == fatal("08P01", "query_wait_timeout"));
  CHECK(client->closed);
  CHECK(world.core.clients().empty());
}

TEST_CASE("a silent client is closed after client_login_timeout", "[session]") {
  World world;
  const WirePtr client = world.connect();
  CHECK(world.core.next_deadline() == world.now + seconds(60));
  world.advance(seconds(60));
  CHECK(client->take() == fatal("08P01", "client_login_timeout"));
  CHECK(world.core.clients().empty());
}

TEST_CASE("a server that does not answer is given up after server_connect_timeout", "[session]") {
  World world;
  const WirePtr client = world.connect();
  world.feed(client, kHello);
  const WirePtr server = world.server_connects();
  world.advance(seconds(15));
  CHECK(server->closed);
  CHECK_FALSE(client->closed);
  world.advance(seconds(15));  // server_login_retry
  (void)world.server_up();
  CHECK(types(client->take()) == "RSSSSSSSKZ");
}

TEST_CASE("max_client_conn refuses by name and lets the console in", "[session]") {
  World world;
  (void)world.client();
  world.host.pools.set_limits(1);
  const WirePtr client = world.connect();
  world.feed(client, kHello);
  CHECK(client->take() == fatal("08P01", "no more connections allowed (max_client_conn)"));
  CHECK(client->closed);
  const WirePtr console = world.connect();
  world.feed(console, World::startup({{"user", "admin"}, {"database", "pgbouncer"}}));
  CHECK(types(console->take()).back() == 'Z');
}

TEST_CASE("auth_query asks a server for the secret", "[session]") {
  const bool trust = GENERATE(false, true);
  World world(config_text(trust ? "auth_user = authu\n" : "auth_type = plain\nauth_user = authu\n"),
              {{"authu", "secret"}});
  world.byte_by_byte = GENERATE(false, true);
  const WirePtr client = world.connect();
  world.feed(client, World::startup({{"user", "looked"}, {"database", "db"}}));
  const WirePtr server = world.server_connects();
  CHECK(server->take() == World::startup({{"database", "db"}, {"user", "authu"}}));
  world.feed(server, World::server_greeting());
  const std::string lookup = server->take();
  CHECK(types(lookup) == "PBDES");
  CHECK(lookup.find("looked") != std::string::npos);
  const std::optional<std::string_view> columns[] = {"looked", "pw2"};
  const protocol::Column names[] = {{"n"}, {"p"}};
  const std::string head = parsed() + bound() + made(protocol::append_row_description, std::span(names));
  const std::string found = head + made(protocol::append_data_row, std::span(columns)) + complete("SELECT 1") + ready();
  SECTION("found") {
    world.feed(server, found);
    if (!trust) {
      CHECK(types(client->take()) == "R");
      CHECK(world.host.pools.totals().idle_servers == 1);
      world.feed(client, password("pw2"));
    }
    CHECK_FALSE(client->closed);
    const WirePtr own = world.server_connects();
    CHECK(own->take() == World::startup({{"database", "db"}, {"user", "looked"}}));
    world.feed(own, World::server_greeting());
    CHECK(types(client->take()) == "RSSSSSSSKZ");
    CHECK(world.host.pools.totals().idle_servers == 2);
  }
  SECTION("not found") {
    world.feed(server, head + complete("SELECT 0") + ready());
    expect_refused(world, client, "08P01", "no such user");
    CHECK(world.host.pools.totals().idle_servers == 1);
  }
  SECTION("failed") {
    world.feed(server, server_error("42501", "permission denied") + ready());
    expect_refused(world, client, "08P01", "bouncer config error");
    CHECK(world.host.pools.totals().idle_servers == 1);
  }
  SECTION("the client leaves meanwhile") {
    world.hang_up(client);
    CHECK(world.host.pools.totals().idle_servers == 0);
    world.feed(server, found);
    CHECK(world.host.pools.totals().idle_servers == 1);
    CHECK_FALSE(server->closed);
  }
}

TEST_CASE("auth_query runs with the server's own parameters", "[session]") {
  World world(config_text("auth_user = u\ndefault_pool_size = 1\n"), {{"u", "pw"}});
  const WirePtr own = world.client();
  const WirePtr server = world.server;
  world.feed(own, query("set timezone = 'CET'"));
  world.feed(server, status("TimeZone", "CET") + complete("SET") + ready());
  server->written.clear();
  const WirePtr client = world.connect();
  world.feed(client, World::startup({{"user", "looked"}, {"database", "db"}, {"TimeZone", "EST"}}));
  CHECK(server->take() == query("SET TimeZone='UTC';"));
  SECTION("then the query") {
    world.feed(server, status("TimeZone", "UTC") + complete("SET") + ready());
    CHECK(types(server->take()) == "PBDES");
    CHECK_FALSE(client->closed);
  }
  SECTION("the server refuses them") {
    world.feed(server, server_error("22023", "no") + ready());
    CHECK(client->take() == fatal("08P01", "bouncer config error"));
    CHECK(client->closed);
    CHECK(world.host.pools.totals().idle_servers == 1);
  }
  SECTION("the client leaves meanwhile") {
    world.hang_up(client);
    world.feed(server, status("TimeZone", "UTC") + complete("SET") + ready());
    CHECK(world.host.pools.totals().idle_servers == 1);
    CHECK(server->take().empty());
  }
}

TEST_CASE("messages sent along with the start-up packet wait for the welcome", "[session]") {
  World world;
  world.byte_by_byte = GENERATE(false, true);
  const WirePtr client = world.connect();
  world.feed(client, kHello + query("select 1"));
  const WirePtr server = world.server_up();
  CHECK(types(client->take()) == "RSSSSSSSKZ");
  CHECK(server->take() == query("select 1"));
}

TEST_CASE("connect_query runs before the server is used and its failure is logged only", "[session]") {
  World world(config_text("", "db = host=127.0.0.1 connect_query='SELECT init()'\n"));
  world.byte_by_byte = GENERATE(false, true);
  const WirePtr client = world.connect();
  world.feed(client, kHello);
  const WirePtr server = world.server_up();
  CHECK(server->take() == query("SELECT init()"));
  CHECK(types(client->take()) == "RSSSSSSSKZ");  // what the server reports is known already
  world.feed(client, query("x"));
  CHECK(server->take().empty());
  world.feed(server, server_error("42883", "no init") + ready());
  CHECK(server->take() == query("x"));
  CHECK(client->take().empty());
  CHECK(world.host.logged("connect_query failed: no init"));
}
