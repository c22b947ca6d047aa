// Logins by client certificate: auth_type = cert, and cert and clientcert in auth_hba_file.
#include <catch2/catch.hpp>

#include "fake_host.hpp"

using namespace pgweir;
using namespace pgweir::core;
using namespace pgweir::core::test;
using namespace std::string_literals;

namespace {

const std::string kTls = "client_tls_key_file = k\nclient_tls_cert_file = c\nclient_tls_ca_file = a\n";
const std::string kFull = kTls + "client_tls_sslmode = verify-full\n";

/// The usual configuration with another auth_type. `more` goes into [pgbouncer].
std::string config_with(const std::string& auth_type, const std::string& more) {
  std::string text = config_text(more);
  const std::string trust = "auth_type = trust\n";
  return text.replace(text.find(trust), trust.size(), "auth_type = " + auth_type + "\n");
}

std::string hba_config(const std::string& more = kTls + "client_tls_sslmode = require\n") {
  return config_with("hba", "auth_hba_file = hba\n" + more);
}

CertificateNames named(const std::string& common_name, std::vector<std::string> dns_names = {}) {
  return {{common_name}, std::move(dns_names), "CN=" + common_name + ",O=Org"};
}

/// A client over TLS that has shown this certificate.
WirePtr connect(World& world, std::optional<CertificateNames> certificate) {
  const WirePtr client = world.connect();
  client->tls = true;
  client->certificate = std::move(certificate);
  return client;
}

/// What a client with this certificate is told first; nothing if it is let in, and waits for a server.
std::string login(World& world, std::optional<CertificateNames> certificate, std::string_view user,
                  std::string_view database = "db") {
  const WirePtr client = connect(world, std::move(certificate));
  world.feed(client, World::startup({{"user", user}, {"database", database}}));
  const std::string answer = client->take();
  CHECK(client->closed == (!answer.empty() && answer[0] == 'E'));
  return answer;
}

const std::string kRefused = fatal("08P01", "certificate authentication failed");

}  // namespace

TEST_CASE("auth_type = cert: the certificate names the user", "[cert]") {
  World world(config_with("cert", kFull), {{"alice", ""}, {"bob", "pw"}});
  CHECK(login(world, named("alice"), "alice").empty());
  CHECK(login(world, named("bob"), "bob").empty());
  CHECK(login(world, named("x", {"alice"}), "alice").empty());
  CHECK(login(world, named("x", {"other", "bob"}), "bob").empty());
  CHECK(login(world, named("alice"), "bob") == kRefused);
  CHECK(world.host.logged("TLS certificate name mismatch: it is for \"alice\""));
  CHECK(login(world, named("Alice"), "alice") == kRefused);
  CHECK(login(world, named("alice "), "alice") == kRefused);
  CHECK(login(world, named("alice.example"), "alice") == kRefused);
  CHECK(login(world, named("ali"), "alice") == kRefused);
  CHECK(login(world, CertificateNames{}, "alice") == kRefused);
  CHECK(world.host.logged("TLS certificate name mismatch: it has no name that counts"));
}

TEST_CASE("auth_type = cert: names that mislead let nobody in", "[cert]") {
  World world(config_with("cert", kFull), {{"alice", ""}, {"*", ""}, {"a.example", ""}});
  CHECK(login(world, named("alice\0.evil"s), "alice") == kRefused);
  CHECK(login(world, named("alice", {"bob\0.evil"s}), "alice") == kRefused);
  CHECK(login(world, CertificateNames{{"alice", "bob"}, {}, "CN=alice,CN=bob"}, "alice") == kRefused);
  CHECK(login(world, CertificateNames{{"bob", "alice"}, {}, "CN=bob,CN=alice"}, "alice") == kRefused);
  CHECK(login(world, named("x", {"*.example", "*"}), "a.example") == kRefused);
  CHECK(login(world, named("x", {"*"}), "*") == kRefused);
  CHECK(login(world, named("*"), "alice") == kRefused);
  CHECK(login(world, named("CN=alice,O=Org"), "alice") == kRefused);
}

TEST_CASE("auth_type = cert: no certificate, no TLS, no such user", "[cert]") {
  World world(config_with("cert", kFull), {{"alice", ""}});
  CHECK(login(world, std::nullopt, "alice") == kRefused);
  CHECK(world.host.logged("TLS client certificate required"));
  // Whether the user exists is not told.
  CHECK(login(world, std::nullopt, "nobody") == kRefused);
  CHECK(login(world, named("nobody"), "nobody") == kRefused);
  CHECK(login(world, named("nobody"), "nobody", "missing") == kRefused);
  CHECK(login(world, named("alice"), "alice", "missing") == fatal("08P01", "no such database: missing"));
  const WirePtr local = world.connect(true, 1001);
  world.feed(local, World::startup({{"user", "alice"}, {"database", "db"}}));
  CHECK(local->take() == kRefused);
  CHECK(world.host.logged("TLS connection required"));
}

TEST_CASE("auth_type = cert: the console", "[cert]") {
  World world(config_with("cert", kFull), {{"admin", ""}, {"alice", ""}});
  const WirePtr admin = connect(world, named("admin"));
  world.feed(admin, World::startup({{"user", "admin"}, {"database", "pgbouncer"}}));
  CHECK(types(admin->take()).back() == 'Z');
  CHECK(login(world, named("alice"), "admin", "pgbouncer") == kRefused);
  CHECK(login(world, named("alice"), "alice", "pgbouncer") == fatal("08P01", "not allowed"));
}

TEST_CASE("auth_type = cert and auth_query", "[cert]") {
  World world(config_with("cert", kFull + "auth_user = authu\n"), {{"authu", "secret"}, {"listed", ""}});
  const auto lookup = [&](const WirePtr& client, std::string_view user, const std::optional<std::string_view>& name,
                          const std::optional<std::string_view>& secret) {
    world.feed(client, World::startup({{"user", user}, {"database", "db"}}));
    const WirePtr server = world.server_up();
    const std::optional<std::string_view> columns[] = {name, secret};
    const protocol::Column heads[] = {{"n"}, {"p"}};
    std::string reply = parsed() + bound() + made(protocol::append_row_description, std::span(heads));
    if (name) reply += made(protocol::append_data_row, std::span(columns)) + complete("SELECT 1");
    world.feed(server, reply + (name ? "" : complete("SELECT 0")) + ready());
    return client->take();
  };
  SECTION("a role with a password") {
    CHECK(lookup(connect(world, named("ann")), "ann", "ann", "pw").empty());
  }
  SECTION("a role without one") {
    CHECK(lookup(connect(world, named("ann")), "ann", "ann", std::nullopt).empty());
    // No password goes to the server then.
    const WirePtr own = world.server_connects();
    CHECK(own->take() == World::startup({{"database", "db"}, {"user", "ann"}}));
  }
  SECTION("a user without a secret in the file is looked up") {
    CHECK(lookup(connect(world, named("listed")), "listed", "listed", "pw").empty());
  }
  SECTION("the name that was found counts") {
    CHECK(lookup(connect(world, named("ann")), "ANN", "ann", "pw").empty());
  }
  SECTION("the name that was asked for does not") {
    CHECK(lookup(connect(world, named("ann")), "ann", "root", "pw") == kRefused);
  }
  SECTION("nobody found") {
    CHECK(lookup(connect(world, named("ann")), "ann", std::nullopt, std::nullopt) == fatal("08P01", "no such user"));
  }
  SECTION("without a certificate nobody is looked for") {
    CHECK(login(world, std::nullopt, "ann") == kRefused);
    CHECK(world.host.connects.empty());
  }
}

TEST_CASE("the method cert, with and without a map", "[cert]") {
  World world(hba_config(), {{"alice", ""}, {"app", ""}, {"bob", ""}, {"dn", ""}},
              "host db alice all cert\n"
              "hostssl db app all cert map=machines\n"
              "hostssl db dn all cert map=machines clientname=DN\n"
              "host db all all trust\n",
              "machines /^(.*)\\.example$ \\1\n"
              "machines alice app\n"
              "machines \"CN=alice,O=Org\" dn\n"
              "machines \"CN=alice,O=Org\" alice\n");
  CHECK(login(world, named("alice"), "alice").empty());
  CHECK(login(world, named("x", {"alice"}), "alice").empty());
  CHECK(login(world, named("bob"), "alice") == kRefused);
  CHECK(login(world, std::nullopt, "alice") == kRefused);
  CHECK(login(world, std::nullopt, "bob").empty());  // another rule, which asks for none

  CHECK(login(world, named("alice"), "app").empty());
  CHECK(login(world, named("app.example"), "app").empty());
  CHECK(login(world, named("x", {"no", "app.example"}), "app").empty());
  CHECK(login(world, named("app"), "app") == kRefused);  // with a map, an equal name is not enough
  CHECK(login(world, named("bob.example"), "app") == kRefused);
  CHECK(login(world, named("x", {"*.app.example"}), "app") == kRefused);

  CHECK(login(world, named("alice"), "dn").empty());
  CHECK(login(world, named("CN=alice,O=Org"), "dn") == kRefused);
  CHECK(login(world, named("x", {"CN=alice,O=Org"}), "dn") == kRefused);
}

TEST_CASE("the method cert over what is not TLS", "[cert]") {
  World world(hba_config(kTls + "client_tls_sslmode = prefer\n"), {{"alice", ""}},
              "local all all cert\nhost all all all cert\n");
  for (const bool local : {false, true}) {
    const WirePtr client = world.connect(local, 1001);
    world.feed(client, World::startup({{"user", "alice"}, {"database", "db"}}));
    CHECK(client->take() == kRefused);
  }
}

TEST_CASE("clientcert goes before the method", "[cert]") {
  World world(hba_config(), {{"ca", "pw"}, {"full", "pw"}, {"open", "pw"}, {"dn", "pw"}},
              "hostssl db ca all password clientcert=verify-ca\n"
              "hostssl db full all password clientcert=verify-full\n"
              "hostssl db open all trust clientcert=verify-full\n"
              "hostssl db dn all trust clientcert=verify-full clientname=DN\n"
              "hostssl db all all reject clientcert=verify-ca\n");
  const std::string asks_password = "R\0\0\0\x08\0\0\0\3"s;
  CHECK(login(world, named("whoever"), "ca") == asks_password);
  CHECK(login(world, CertificateNames{}, "ca") == asks_password);
  CHECK(login(world, std::nullopt, "ca") == kRefused);

  CHECK(login(world, named("full"), "full") == asks_password);
  CHECK(login(world, named("whoever"), "full") == kRefused);
  CHECK(login(world, named("x", {"full"}), "full") == kRefused);  // as in PostgreSQL, the common name alone
  CHECK(login(world, std::nullopt, "full") == kRefused);

  CHECK(login(world, named("open"), "open").empty());
  CHECK(login(world, named("whoever"), "open") == kRefused);
  CHECK(login(world, named("dn"), "dn") == kRefused);
  CHECK(login(world, CertificateNames{{"x"}, {}, "dn"}, "dn").empty());
  CHECK(login(world, std::nullopt, "other") == fatal("08P01", "login rejected"));

  SECTION("and does not replace it") {
    const WirePtr client = connect(world, named("full"));
    world.feed(client, World::startup({{"user", "full"}, {"database", "db"}}));
    CHECK(client->take() == asks_password);
    world.feed(client, made(protocol::append_password, "wrong"));
    CHECK(client->take() == fatal("08P01", "password authentication failed"));
  }
}

TEST_CASE("native codes of refusals by certificate", "[cert]") {
  World world(config_with("cert", kFull + "[pgweir]\nnative_sqlstate = 1\n"), {{"alice", ""}});
  CHECK(login(world, named("bob"), "alice") == fatal("28000", "certificate authentication failed"));
}

TEST_CASE("rules whose certificates nobody checks are told", "[cert]") {
  const std::string text =
      "host all all all cert\nhostssl all all all md5 clientcert=verify-ca\nhost all all all md5\n";
  const auto warnings = [&](const Config& config) {
    HbaRules rules = parse_hba(text, "hba", {});
    REQUIRE(rules.rules.size() == 3);
    warn_of_unchecked_certificates(rules, config);
    std::string all;
    for (const auto& warning : rules.warnings) all += to_string(warning) + "\n";
    return all;
  };
  CHECK(warnings(good(hba_config())).empty());
  CHECK(warnings(good(hba_config(""))) ==
        "hba:1: lets nobody in: client certificates need client_tls_sslmode other than disable\n"
        "hba:2: lets nobody in: client certificates need client_tls_sslmode other than disable\n");
  CHECK(warnings(good(hba_config("client_tls_key_file = k\nclient_tls_cert_file = c\nclient_tls_sslmode = allow\n"))) ==
        "hba:1: lets nobody in: client certificates need client_tls_ca_file\n"
        "hba:2: lets nobody in: client certificates need client_tls_ca_file\n");
}
