// Logins that need a key derived: who waits, who does not, and what becomes of those who leave.
#include <catch2/catch.hpp>

#include "fake_host.hpp"
#include "protocol/auth_scram.hpp"
#include "protocol/auth_secret.hpp"
#include "protocol/message_view.hpp"

using namespace pgweir;
using namespace pgweir::core;
using namespace pgweir::core::test;

namespace {

const Users kUsers{{"u", "pw"}, {"v", "other"}, {"stats", "pw"}, {"admin", "pw"}};

std::string hello(std::string_view user) {
  return World::startup({{"user", user}, {"database", "db"}});
}

std::string offer() {
  return made([](std::string& out) {
    const std::string_view mechanism = "SCRAM-SHA-256";
    protocol::append_authentication_sasl(out, {&mechanism, 1});
  });
}

std::string password(std::string_view text) {
  return made(protocol::append_password, text);
}

std::string refusal() {
  return fatal("08P01", "password authentication failed");
}

/// A server that asks for the password of `u` by SCRAM, as far as its challenge.
WirePtr challenging_server(World& world, protocol::ScramServer& scram) {
  const WirePtr server = world.server_connects();
  server->written.clear();
  world.feed(server, offer());
  const std::string message = server->take();
  const auto initial = protocol::parse_sasl_initial_response(std::string_view(message).substr(5));
  REQUIRE(initial);
  const auto first = scram.first(initial->mechanism, *initial->data);
  REQUIRE(first);
  world.feed(server, made(protocol::append_authentication_sasl_continue, *first));
  return server;
}

}  // namespace

TEST_CASE("first SCRAM logins wait for one derivation after the other, and nobody else does", "[session]") {
  World world(config_text("auth_type = scram-sha-256\n"), kUsers);
  world.host.derives_at_once = false;
  const WirePtr u = world.connect();
  world.feed(u, hello("u"));
  const WirePtr v = world.connect();
  world.feed(v, hello("v"));
  const WirePtr again = world.connect();
  world.feed(again, hello("u"));
  const WirePtr unknown = world.connect();
  world.feed(unknown, hello("nobody"));
  CHECK(unknown->take() == offer());
  CHECK(u->take().empty());
  CHECK(world.core.key_derivations().size() == 2);

  world.derived();
  CHECK(u->take() == offer());
  CHECK(again->take() == offer());
  CHECK(v->take().empty());
  world.derived();
  CHECK(v->take() == offer());
  CHECK_FALSE(world.host.derivation);

  const WirePtr known = world.connect();
  world.feed(known, hello("v"));
  CHECK(known->take() == offer());
  CHECK_FALSE(world.host.derivation);
}

TEST_CASE("what a client sends while its key is derived is kept for later", "[session]") {
  World world(config_text("auth_type = scram-sha-256\n"), kUsers);
  world.host.derives_at_once = false;
  protocol::ScramClient scram(world.host.crypto_, "pw", "nonce");
  const WirePtr client = world.connect();
  world.feed(client, hello("u") + made(protocol::append_sasl_initial_response, scram.mechanism(), scram.first()));
  CHECK(client->take().empty());
  world.derived();
  CHECK(types(client->take()) == "RR");
}

TEST_CASE("a client that leaves while its key is derived is not missed", "[session]") {
  World world(config_text("auth_type = scram-sha-256\n"), kUsers);
  world.host.derives_at_once = false;
  const WirePtr first = world.connect();
  world.feed(first, hello("u"));
  const WirePtr second = world.connect();
  world.feed(second, hello("v"));
  SECTION("the one whose turn it is") {
    CHECK(first->hangup);
    world.hang_up(first);
    world.derived();
    world.derived();
    CHECK(second->take() == offer());
  }
  SECTION("one who waits") {
    world.hang_up(second);
    world.derived();
    CHECK(first->take() == offer());
    CHECK_FALSE(world.host.derivation);
  }
  SECTION("both") {
    world.hang_up(first);
    world.hang_up(second);
    world.derived();
    CHECK_FALSE(world.host.derivation);
  }
  CHECK(world.core.key_derivations().size() == 0);
}

TEST_CASE("client_login_timeout holds while a key is derived", "[session]") {
  World world(config_text("auth_type = scram-sha-256\nclient_login_timeout = 2\n"), kUsers);
  world.host.derives_at_once = false;
  const WirePtr client = world.connect();
  world.feed(client, hello("u"));
  world.advance(std::chrono::seconds(3));
  CHECK(client->take() == fatal("08P01", "client_login_timeout"));
  world.derived();
  CHECK(client->closed);
}

TEST_CASE("a password that is compared with a SCRAM secret costs a derivation, and a right one no second",
          "[session]") {
  pgweir::test::FakeCrypto crypto;
  const std::string salt = "0123456789abcdef";
  const auto secret = protocol::format_scram_secret(protocol::make_scram_secret(crypto, "pw", 4096, salt));
  World world(config_text("auth_type = plain\n"), {{"u", secret}});
  world.host.derives_at_once = false;
  const WirePtr wrong = world.connect();
  world.feed(wrong, hello("u"));
  CHECK(types(wrong->take()) == "R");
  world.feed(wrong, password("wrong"));
  CHECK(wrong->take().empty());
  world.derived();
  CHECK(wrong->take() == refusal());
  CHECK(wrong->closed);

  const WirePtr right = world.connect();
  world.feed(right, hello("u"));
  (void)right->take();
  world.feed(right, password("pw"));
  CHECK(right->take().empty());
  REQUIRE(world.host.derivation);
  CHECK(world.host.derivation->second == KeyQuestion{"pw", salt, 4096});
  world.derived();
  (void)world.server_up();
  CHECK(types(right->take()) == "RSSSSSSSKZ");

  const WirePtr next = world.connect();
  world.feed(next, hello("u") + password("pw"));
  CHECK_FALSE(world.host.derivation);
  CHECK(types(next->take()) == "RRSSSSSSSKZ");
}

TEST_CASE("a server's SCRAM challenge is answered when the key is there", "[session]") {
  pgweir::test::FakeCrypto crypto;
  const auto secret = protocol::make_scram_secret(crypto, "pw", 4096, "0123456789abcdef");
  World world(config_text());
  world.host.derives_at_once = false;
  const WirePtr client = world.connect();
  world.feed(client, hello("u"));
  protocol::ScramServer scram(crypto, secret, false, "server-nonce");
  const WirePtr server = challenging_server(world, scram);
  CHECK(server->take().empty());
  SECTION("and the login goes on") {
    world.derived();
    const auto result = scram.final(std::string_view(server->take()).substr(5));
    REQUIRE(result.ok);
    world.feed(server,
               made(protocol::append_authentication_sasl_final, result.server_final) + World::server_greeting());
    CHECK(types(client->take()) == "RSSSSSSSKZ");
    // The next one finds the key in the cache.
    world.hang_up(server);
    world.feed(client, query("select 1"));
    protocol::ScramServer next(crypto, secret, false, "another-nonce");
    const WirePtr other = challenging_server(world, next);
    CHECK_FALSE(world.host.derivation);
    CHECK(types(other->take()) == "p");
  }
  SECTION("unless it has gone") {
    world.hang_up(server);
    world.derived();
    CHECK(server->take().empty());
    CHECK(world.core.servers().empty());
  }
  SECTION("unless it is being closed") {
    {
      PoolLock pools(world.host);
      (void)pools->pause_all(world.now, world.core.actions());
    }
    world.settle();
    (void)server->take();
    world.derived();
    CHECK(server->take().empty());
  }
}
