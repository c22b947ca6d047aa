// auth_type = hba: which method a login gets, and what cannot be carried out.
#include <catch2/catch.hpp>

#include "fake_host.hpp"
#include "protocol/message_view.hpp"

using namespace pgweir;
using namespace pgweir::core;
using namespace pgweir::core::test;
using namespace std::string_literals;

namespace {

std::string hba_config(const std::string& more = "") {
  std::string text = config_text(more, "db = host=127.0.0.1\nother = host=127.0.0.1\n");
  const std::string trust = "auth_type = trust\n";
  text.replace(text.find(trust), trust.size(), "auth_type = hba\nauth_hba_file = hba\n");
  return text;
}

/// What the client is told first: an authentication request's code, an error, or nothing while it waits for a server.
std::string first_answer(World& world, const WirePtr& client, std::string_view user, std::string_view database = "db") {
  world.feed(client, World::startup({{"user", user}, {"database", database}}));
  return client->take();
}

std::string asks(char code) {
  return "R\0\0\0"s + static_cast<char>(code == 5 ? 12 : 8) + "\0\0\0"s + code;
}

}  // namespace

TEST_CASE("the first rule that fits decides the method", "[hba]") {
  World world(hba_config(), {{"u", "pw"}, {"v", "pw"}, {"w", "pw"}, {"x", "pw"}},
              "host db u 127.0.0.1/32 password\n"
              "host db v 127.0.0.1/32 md5\n"
              "host db w all scram-sha-256\n"
              "hostssl db x all trust\n"
              "host other all all reject\n"
              "host db u all trust\n");
  CHECK(first_answer(world, world.connect(), "u") == asks(3));
  CHECK(first_answer(world, world.connect(), "v").substr(0, 9) == asks(5));
  CHECK(first_answer(world, world.connect(), "w").substr(5, 4) == "\0\0\0\x0a"s);
  CHECK(first_answer(world, world.connect(), "x") == fatal("08P01", "no authentication method is found"));
  CHECK(first_answer(world, world.connect(), "u", "other") == fatal("08P01", "login rejected"));
  CHECK(first_answer(world, world.connect(true, 1000), "u") == fatal("08P01", "no authentication method is found"));
}

TEST_CASE("trust needs a known user, as everywhere", "[hba]") {
  World world(hba_config(), {{"u", ""}}, "host all all all trust\n");
  CHECK(first_answer(world, world.connect(), "u").empty());  // waits for a server
  CHECK(first_answer(world, world.connect(), "nobody") == fatal("08P01", "\"trust\" authentication failed"));
}

TEST_CASE("a password is checked by the method of the rule", "[hba]") {
  World world(hba_config(), {{"u", "pw"}}, "host db u all password\n");
  const WirePtr good = world.connect(), bad = world.connect();
  CHECK(first_answer(world, good, "u") == asks(3));
  world.feed(good, made(protocol::append_password, "pw"));
  CHECK(good->take().empty());
  CHECK_FALSE(good->closed);
  CHECK(first_answer(world, bad, "u") == asks(3));
  world.feed(bad, made(protocol::append_password, "wrong"));
  CHECK(bad->take() == fatal("08P01", "password authentication failed"));
}

TEST_CASE("peer asks whose process it is", "[hba]") {
  World world(hba_config(), {{"carol", ""}, {"u", ""}, {"v", ""}},
              "local db v peer map=friends\nlocal all all peer\nhost all all all peer\n", "friends carol v\n");
  CHECK(first_answer(world, world.connect(true, 1001), "carol").empty());
  CHECK(first_answer(world, world.connect(true, 1001), "v").empty());
  const std::string rejected = fatal("08P01", "unix socket login rejected");
  CHECK(first_answer(world, world.connect(true, 1001), "u") == rejected);
  CHECK(first_answer(world, world.connect(true, 4242), "carol") == rejected);  // a uid without a name
  CHECK(first_answer(world, world.connect(true, 4242), "") != "");
  CHECK(first_answer(world, world.connect(), "carol") == rejected);  // over TCP nobody vouches for it
}

TEST_CASE("peer needs a known user as well", "[hba]") {
  World world(hba_config(), {}, "local all all peer\n");
  CHECK(first_answer(world, world.connect(true, 1001), "carol") == fatal("08P01", "unix socket login rejected"));
}

TEST_CASE("native codes of refusals by rule", "[hba]") {
  World world(hba_config("[pgweir]\nnative_sqlstate = 1\n"), {{"u", ""}}, "host db all all reject\n");
  CHECK(first_answer(world, world.connect(), "u") == fatal("28000", "login rejected"));
}

TEST_CASE("rules that let nobody in are told", "[hba]") {
  HbaRules rules =
      parse_hba("host db u all ldap\nhost db v all ldap ldapserver=h ldapprefix=x\nhost db w all pam\n", "hba", {});
  REQUIRE(rules.problems.empty());
  Config config;
  warn_of_missing_ldap_options(rules, config);
  REQUIRE(rules.warnings.size() == 1);
  CHECK(to_string(rules.warnings[0]) ==
        "hba:1: lets nobody in: the method ldap needs options here or in auth_ldap_options");
  rules.warnings.clear();
  config.auth_ldap_options = "ldapserver=h ldapprefix=x";
  warn_of_missing_ldap_options(rules, config);
  CHECK(rules.warnings.empty());
}
