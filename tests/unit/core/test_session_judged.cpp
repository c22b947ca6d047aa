// Logins whose password PAM or a directory server judges, and those that wait for the name of their host: what is
// asked, and what becomes of answers that say yes, say no, come late or never.
#include <catch2/catch.hpp>

#include "fake_host.hpp"
#include "protocol/auth_md5.hpp"
#include "protocol/message_view.hpp"

using namespace pgweir;
using namespace pgweir::core;
using namespace pgweir::core::test;
using namespace std::string_literals;

namespace {

std::string config_of(const std::string& type, const std::string& more = "",
                      const std::string& databases = "db = host=127.0.0.1\n") {
  std::string text = config_text(more, databases);
  const std::string trust = "auth_type = trust\n";
  return text.replace(text.find(trust), trust.size(), "auth_type = " + type + "\n");
}

const std::string kHba = "hba\nauth_hba_file = hba";
const std::string kLdapOptions = "auth_ldap_options = ldapserver=h ldapprefix=\"uid=\" ldapsuffix=\",dc=a\"\n";
const std::string kClearText = "R\0\0\0\x08\0\0\0\x03"s;
const std::string kPamRefusal = fatal("08P01", "PAM authentication failed");

std::string hello(std::string_view user = "u", std::string_view database = "db") {
  return World::startup({{"user", user}, {"database", database}});
}

std::string password(std::string_view text) {
  return made(protocol::append_password, text);
}

/// A client whose password is being judged.
WirePtr asking(World& world, std::string_view user = "u", std::string_view database = "db",
               std::string_view secret = "pw") {
  const WirePtr client = world.connect();
  world.feed(client, hello(user, database));
  REQUIRE(client->take() == kClearText);
  world.feed(client, password(secret));
  REQUIRE(client->written.empty());
  REQUIRE_FALSE(client->closed);
  return client;
}

std::string authentication_request(char code, const std::string& data = "") {
  return "R\0\0\0"s + static_cast<char>(8 + data.size()) + "\0\0\0"s + code + data;
}

}  // namespace

TEST_CASE("pam: what is asked, and a yes", "[judged]") {
  World world(config_of("pam"), {});
  const WirePtr client = asking(world, "u", "db", "s3cret");
  REQUIRE(world.host.questions.size() == 1);
  const PasswordQuestion& question = world.host.questions.front().second;
  CHECK(std::get<PamQuestion>(question.by).service == "pgbouncer");
  CHECK_FALSE(std::get<PamQuestion>(question.by).use_hostname);
  CHECK(question.user == "u");
  CHECK(question.password == "s3cret");
  CHECK(question.client_host == "127.0.0.1");
  CHECK(world.host.connects.empty());
  world.judged(true);
  (void)world.server_up();
  CHECK(types(client->take()) == "RSSSSSSSKZ");
  CHECK(world.host.abandoned_questions.empty());
}

TEST_CASE("pam: a no", "[judged]") {
  World world(config_of("pam"), {{"u", "pw"}});
  const WirePtr client = asking(world);
  world.judged(false, "the reason");
  CHECK(client->take() == kPamRefusal);
  CHECK(client->closed);
  CHECK(world.core.clients().empty());
  CHECK(world.host.connects.empty());
  CHECK(world.host.logged("PAM refused the password: the reason"));
}

TEST_CASE("pam: an answer that is late or never comes", "[judged]") {
  World world(config_of("pam", "client_login_timeout = 3\n"), {});
  const WirePtr client = asking(world);
  world.advance(seconds(4));
  CHECK(client->take() == fatal("08P01", "client_login_timeout"));
  CHECK(client->closed);
  CHECK(world.host.abandoned_questions.size() == 1);
  // Somebody else may have the place of the client by now.
  const WirePtr other = world.connect();
  world.judged(true);
  CHECK(other->written.empty());
  CHECK(world.host.connects.empty());
}

TEST_CASE("pam: a client that leaves takes its question along", "[judged]") {
  World world(config_of("pam"), {});
  const WirePtr client = asking(world);
  const auto id = world.host.questions.front().first;
  CHECK(client->read);
  world.hang_up(client);
  CHECK(world.host.abandoned_questions == std::vector<pool::ClientId>{id});
  CHECK(world.core.clients().empty());
  world.judged(true);
  CHECK(world.host.connects.empty());
}

TEST_CASE("pam: a full queue refuses at once", "[judged]") {
  World world(config_of("pam"), {});
  world.host.refuses_questions = true;
  const WirePtr client = world.connect();
  world.feed(client, hello());
  client->take();
  world.feed(client, password("pw"));
  CHECK(client->take() == fatal("08P01", "bouncer resources exhaustion"));
  CHECK(client->closed);
  CHECK(world.host.logged("login refused: too many passwords wait to be checked"));
}

TEST_CASE("pam: passwords that nobody is asked about", "[judged]") {
  World world(config_of("pam"), {});
  for (const std::size_t length : {std::size_t{0}, std::size_t{4097}}) {
    const WirePtr client = world.connect();
    world.feed(client, hello());
    client->take();
    world.feed(client, password(std::string(length, 'x')));
    CHECK(client->take() == (length == 0 ? fatal("08P01", "empty password returned by client") : kPamRefusal));
  }
  CHECK(world.host.questions.empty());
  (void)asking(world, "u", "db", std::string(4096, 'x'));
  CHECK(world.host.questions.size() == 1);
}

TEST_CASE("pam: messages sent ahead wait for the answer, a second password is none", "[judged]") {
  World world(config_of("pam"), {});
  world.byte_by_byte = GENERATE(false, true);
  const WirePtr client = world.connect();
  world.feed(client, hello());
  client->take();
  world.feed(client, password("pw") + query("SELECT 1"));
  CHECK(client->written.empty());
  world.judged(true);
  const WirePtr server = world.server_up();
  CHECK(types(client->take()) == "RSSSSSSSKZ");
  CHECK(server->take() == query("SELECT 1"));
  const WirePtr twice = world.connect();
  world.feed(twice, hello());
  twice->take();
  world.feed(twice, password("no") + password("pw"));
  CHECK(world.host.questions.size() == 1);
  world.judged(false);
  CHECK(twice->take() == kPamRefusal);
}

TEST_CASE("pam: the password that was right is told to servers, and no other", "[judged]") {
  World world(config_of("pam"), {});
  world.feed(world.connect(), hello());  // shows that what follows needs no earlier login
  (void)asking(world, "u", "db", "wrong");
  world.judged(false);
  (void)asking(world, "u", "db", "right");
  world.judged(true);
  const WirePtr server = world.server_connects();
  server->take();
  world.feed(server, authentication_request(3));
  CHECK(server->take() == password("right"));
}

TEST_CASE("pam: a forced user has its own password", "[judged]") {
  World world(config_of("pam", "", "db = host=127.0.0.1 user=u password=forced\n"), {});
  (void)asking(world, "u", "db", "the client's");
  world.judged(true);
  const WirePtr server = world.server_connects();
  server->take();
  world.feed(server, authentication_request(3));
  CHECK(server->take() == password("forced"));
}

TEST_CASE("ldap: the password that was right goes before the one in auth_file", "[judged]") {
  World world(config_of("ldap", kLdapOptions), {{"u", "old"}});
  (void)asking(world, "u", "db", "new");
  world.judged(true);
  const WirePtr server = world.server_connects();
  server->take();
  world.feed(server, authentication_request(5, "salt"));
  CHECK(server->take() == password(protocol::md5_response(
                              world.host.crypto_, protocol::md5_secret(world.host.crypto_, "u", "new"), "salt")));
}

TEST_CASE("ldap: what is asked, and a no", "[judged]") {
  World world(config_of("ldap", kLdapOptions), {});
  const WirePtr client = asking(world, "x,ou=y");
  CHECK(std::get<LdapQuestion>(world.host.questions.front().second.by).bind_dn == "uid=x\\,ou\\=y,dc=a");
  world.judged(false);
  CHECK(client->take() == fatal("08P01", "LDAP authentication failed"));
}

TEST_CASE("ldap: without options nobody gets in", "[judged]") {
  World world(config_of("ldap"), {{"u", "pw"}});
  const WirePtr client = world.connect();
  world.feed(client, hello());
  CHECK(client->take() == fatal("08P01", "auth_ldap_options is null"));
  World rules(config_of(kHba), {{"u", "pw"}}, "host all all all ldap\n");
  const WirePtr by_rule = rules.connect();
  rules.feed(by_rule, hello());
  CHECK(by_rule->take() == fatal("08P01", "auth_ldap_options is null"));
}

TEST_CASE("pam and ldap do not go together with auth_user", "[judged]") {
  const std::string type = GENERATE("pam"s, "ldap"s);
  World world(config_of(type, kLdapOptions + "auth_user = finder\n"), {{"u", "pw"}, {"finder", "pw"}});
  const WirePtr client = world.connect();
  world.feed(client, hello());
  CHECK(client->take() == fatal("08P01", "bouncer config error"));
}

TEST_CASE("pam: whether a database exists is told after the password only", "[judged]") {
  World world(config_of("pam"), {});
  const WirePtr client = asking(world, "u", "missing");
  world.judged(false);
  CHECK(client->take() == kPamRefusal);
  const WirePtr known = asking(world, "u", "missing");
  world.judged(true);
  CHECK(known->take() == fatal("08P01", "no such database: missing"));
}

TEST_CASE("pam: the console", "[judged]") {
  World world(config_of("pam"), {});
  const WirePtr stranger = world.connect();
  world.feed(stranger, hello("u", "pgbouncer"));
  CHECK(stranger->take() == fatal("08P01", "not allowed"));
  const WirePtr admin = asking(world, "admin", "pgbouncer");
  world.judged(true);
  CHECK(types(admin->take()).substr(0, 1) == "R");
  CHECK_FALSE(admin->closed);
}

TEST_CASE("rules with pam and ldap", "[judged]") {
  World world(config_of(kHba, kLdapOptions), {{"u", "pw"}},
              "host db u all pam pamservice=other pam_use_hostname=1\n"
              "host db v all ldap ldapserver=i ldapbasedn=b\n"
              "host db w all ldap\n"
              "hostssl db x all pam clientcert=verify-full\n"
              "host all all all pam\n");
  (void)asking(world, "u");
  const PamQuestion pam = std::get<PamQuestion>(world.host.questions.back().second.by);
  CHECK(pam.service == "other");
  CHECK(pam.use_hostname);
  (void)asking(world, "v");
  CHECK(std::get<LdapQuestion>(world.host.questions.back().second.by).search->filter == "(uid=v)");
  (void)asking(world, "w");
  CHECK(std::get<LdapQuestion>(world.host.questions.back().second.by).bind_dn == "uid=w,dc=a");
  (void)asking(world, "y");
  CHECK(std::get<PamQuestion>(world.host.questions.back().second.by).service == "pgbouncer");
  const WirePtr tls = world.connect();
  tls->tls = true;
  world.feed(tls, hello("x"));
  CHECK(tls->take() == fatal("08P01", "certificate authentication failed"));
}

TEST_CASE("a rule with pam asks no auth_query", "[judged]") {
  World world(config_of(kHba, "auth_user = finder\n"), {{"finder", "pw"}}, "host db u all pam\nhost all all all md5\n");
  (void)asking(world, "u");
  CHECK(world.host.connects.empty());
}

TEST_CASE("new settings while a password is being judged", "[judged]") {
  World world(config_of("pam"), {});
  const WirePtr client = asking(world);
  world.core.set_settings(make_settings(config_of("pam", "", "other = host=127.0.0.1\n"), {}));
  world.judged(true);
  CHECK(client->take() == fatal("08P01", "no such database: db"));
}

TEST_CASE("host names: the login waits for the name, once", "[judged]") {
  World world(config_of(kHba), {{"u", "pw"}, {"v", "pw"}},
              "host db u good.example trust\nhost db u .example password\nhost db v all trust\n");
  const WirePtr client = world.connect();
  world.feed(client, hello() + query("SELECT 1"));
  CHECK(client->written.empty());
  REQUIRE(world.host.name_questions.size() == 1);
  CHECK(world.host.name_questions.front().second == "127.0.0.1");
  SECTION("the name of the first rule") {
    world.host_named("GOOD.example");
    const WirePtr server = world.server_up();
    CHECK(types(client->take()) == "RSSSSSSSKZ");
    CHECK(server->take() == query("SELECT 1"));
  }
  SECTION("a name for the second") {
    world.host_named("other.example");
    CHECK(client->take() == kClearText);
  }
  SECTION("none that counts") {
    world.host_named("");
    CHECK(client->take() == fatal("08P01", "no authentication method is found"));
  }
  SECTION("the client leaves") {
    world.hang_up(client);
    world.host_named("good.example");
    CHECK(world.host.connects.empty());
  }
  SECTION("no answer") {
    world.advance(seconds(61));
    CHECK(client->take() == fatal("08P01", "client_login_timeout"));
    world.host_named("good.example");
    CHECK(world.host.connects.empty());
  }
  SECTION("no rule with a name matters for this user") {
    world.feed(world.connect(), hello("v"));
    CHECK(world.host.name_questions.size() == 1);
  }
}

TEST_CASE("host names: too many lookups refuse at once", "[judged]") {
  World world(config_of(kHba), {{"u", "pw"}}, "host db u good.example trust\n");
  world.host.refuses_questions = true;
  const WirePtr client = world.connect();
  world.feed(client, hello());
  CHECK(client->take() == fatal("08P01", "bouncer resources exhaustion"));
}

TEST_CASE("host names: the console of a name", "[judged]") {
  World world(config_of(kHba), {{"admin", "pw"}}, "host pgbouncer admin .example trust\n");
  const WirePtr client = world.connect();
  world.feed(client, hello("admin", "pgbouncer"));
  CHECK(client->written.empty());
  world.host_named("a.example");
  CHECK(types(client->take()).substr(0, 1) == "R");
}
