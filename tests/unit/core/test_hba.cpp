// pg_hba.conf: the grammar of lines, what each column means, which rule matches first, and every kind of mistake.
#include <catch2/catch.hpp>

#include "proxy/core/hba.hpp"
#include "tests/unit/core/auth_test.hpp"

using namespace pgweir::core;
using namespace std::string_view_literals;

namespace {

using Texts = std::vector<std::string>;

HbaRules parse(std::string_view text, const FileMap& files = {}) {
  return parse_hba(text, "etc/hba", files_of(files));
}

HbaRules good(std::string_view text, const FileMap& files = {}) {
  auto rules = parse(text, files);
  CHECK(texts(rules.problems) == Texts{});
  return rules;
}

std::string problem_of(std::string_view text) {
  const auto rules = parse(text);
  CHECK(rules.rules.empty());
  return rules.problems.size() == 1 ? to_string(rules.problems.front()) : "not one problem";
}

HbaConnection tcp(std::string_view user = "bob", std::string_view database = "app",
                  std::string_view peer = "127.0.0.1") {
  HbaConnection connection;
  connection.user = user;
  connection.database = database;
  connection.peer = IpAddress::parse(peer);
  return connection;
}

HbaConnection unix_socket() {
  auto connection = tcp();
  connection.is_unix = true;
  connection.peer.reset();
  return connection;
}

// The line of the rule that decides; 0 for none, -1 if the host name is needed.
int line_of(const HbaRules& rules, const HbaConnection& connection) {
  const auto found = match(rules, connection);
  CHECK((found.rule == nullptr) == (found.kind == HbaMatch::Kind::NoRule));
  if (found.kind == HbaMatch::Kind::NeedsHostName) return -1;
  return found.rule == nullptr ? 0 : found.rule->line;
}

bool fits(std::string_view line, const HbaConnection& connection) {
  return line_of(good(line), connection) == 1;
}

bool fits_database(std::string_view database, const HbaConnection& connection) {
  return fits("host " + std::string(database) + " all all trust", connection);
}

bool fits_user(std::string_view user, std::string_view name) {
  return fits("host all " + std::string(user) + " all trust", tcp(name));
}

bool fits_address(std::string_view address, std::string_view peer) {
  return fits("host all all " + std::string(address) + " trust", tcp("bob", "app", peer));
}

}  // namespace

TEST_CASE("hba: the first rule that fits decides") {
  const auto rules = good(
      "# rules\n\nhost app user1 127.0.0.1/32 scram-sha-256\nhost app user2 127.0.0.0 255.255.255.0 md5\n"
      "host other all all reject\nhost app user1 all trust\n");
  CHECK(rules.rules.size() == 4);
  CHECK(line_of(rules, tcp("user1")) == 3);
  CHECK(line_of(rules, tcp("user2", "app", "127.0.0.9")) == 4);
  CHECK(line_of(rules, tcp("user1", "other")) == 5);
  CHECK(line_of(rules, tcp("user1", "app", "127.0.0.2")) == 6);
  CHECK(line_of(rules, tcp("user3")) == 0);
  CHECK(line_of(rules, unix_socket()) == 0);
  CHECK(match(rules, tcp("user1")).rule->method == HbaMethod::ScramSha256);
  CHECK(match(rules, tcp("user1")).rule->file == "etc/hba");
  CHECK(match({}, tcp()).kind == HbaMatch::Kind::NoRule);
}

TEST_CASE("hba: connection types") {
  auto tls = tcp();
  tls.is_tls = true;
  const auto on = [](const HbaConnection& connection) {
    std::string found;
    for (const std::string type : {"local", "host", "hostssl", "hostnossl", "hostgssenc", "hostnogssenc"}) {
      if (fits(type + (type == "local" ? " all all trust" : " all all all trust"), connection)) found += type + " ";
    }
    return found;
  };
  CHECK(on(unix_socket()) == "local ");
  CHECK(on(tcp()) == "host hostnossl hostnogssenc ");
  CHECK(on(tls) == "host hostssl hostnogssenc ");
  CHECK(problem_of("hosts all all all trust") ==
        "etc/hba:1: expected local, host, hostssl, hostnossl, hostgssenc or hostnogssenc, got \"hosts\" (did you mean "
        "\"host\"?)");
  CHECK(problem_of("host,local all all all trust") == "etc/hba:1: expected a connection type, got a list");
}

TEST_CASE("hba: databases") {
  CHECK(fits_database("all", tcp()));
  CHECK(fits_database("app", tcp()));
  CHECK_FALSE(fits_database("App", tcp()));
  CHECK(fits_database("x,app,y", tcp()));
  CHECK(fits_database("x , app", tcp()));
  CHECK_FALSE(fits_database("\"all\"", tcp()));
  CHECK(fits_database("\"all\"", tcp("bob", "all")));
  CHECK(fits_database("sameuser", tcp("bob", "bob")));
  CHECK_FALSE(fits_database("sameuser", tcp("bob", "app")));
  CHECK_FALSE(fits_database("\"sameuser\"", tcp("bob", "bob")));
  CHECK(fits_database("\"a b\"\"c,d#e\"", tcp("bob", "a b\"c,d#e")));
  CHECK(fits_database("\"/^db\\d{2,4}$\"", tcp("bob", "db123")));
  CHECK_FALSE(fits_database("/^db\\d{2}$", tcp("bob", "db1")));
  CHECK(fits_database("\"/^a{1,2}$\"", tcp("bob", "aa")));
  CHECK(fits_database("\"+x\"", tcp("bob", "+x")));
  CHECK(fits_database("\"@x\"", tcp("bob", "@x")));
  CHECK(fits_database("@", tcp("bob", "@")));
}

TEST_CASE("hba: replication") {
  auto physical = tcp("bob", "app");
  physical.replication = Replication::Physical;
  auto logical = tcp("bob", "app");
  logical.replication = Replication::Logical;
  CHECK(fits_database("replication", physical));
  CHECK(fits_database("x,replication", physical));
  for (const auto* other : {"all", "app", "\"replication\"", "/app", "sameuser"})
    CHECK_FALSE(fits_database(other, physical));
  CHECK_FALSE(fits_database("replication", logical));
  CHECK(fits_database("all", logical));
  CHECK(fits_database("app", logical));
  CHECK_FALSE(fits_database("replication", tcp("bob", "replication")));
  CHECK(fits_database("\"replication\"", tcp("bob", "replication")));
}

TEST_CASE("hba: users") {
  CHECK(fits_user("all", "bob"));
  CHECK(fits_user("eve,bob", "bob"));
  CHECK_FALSE(fits_user("eve", "bob"));
  CHECK_FALSE(fits_user("\"all\"", "bob"));
  CHECK(fits_user("/^b", "bob"));
  CHECK_FALSE(fits_user("/^o", "bob"));
  CHECK(fits_user("eve,/ob$", "bob"));
  CHECK(fits_user("\"+bob\"", "+bob"));
  // Keywords of the other column are names here, as in PostgreSQL.
  CHECK(fits_user("sameuser,samerole,replication", "samerole"));
  CHECK_FALSE(fits_user("sameuser", "app"));
}

TEST_CASE("hba: membership of roles cannot be decided here") {
  constexpr auto kWhy = " is not supported: who is a member of a role is known to the server only";
  CHECK(problem_of("host samerole all all trust") == std::string("etc/hba:1: samerole") + kWhy);
  CHECK(problem_of("host a,samegroup all all trust") == std::string("etc/hba:1: samegroup") + kWhy);
  CHECK(problem_of("host all +staff all trust") == std::string("etc/hba:1: \"+staff\"") + kWhy);
  CHECK(problem_of("host +x all all trust") == std::string("etc/hba:1: \"+x\"") + kWhy);
}

TEST_CASE("hba: addresses") {
  CHECK(fits_address("all", "::1"));
  CHECK(fits_address("10.0.0.0/8", "10.1.2.3"));
  CHECK_FALSE(fits_address("10.0.0.0/8", "11.1.2.3"));
  CHECK(fits_address("0.0.0.0/0", "::ffff:10.1.2.3"));
  CHECK_FALSE(fits_address("::/0", "::ffff:10.1.2.3"));
  CHECK(fits_address("::/0", "::1"));
  CHECK(fits_address("fe80:: ffc0::", "fe80::1"));
  CHECK(fits_address("\"10.0.0.0/8\"", "10.1.2.3"));
  CHECK_FALSE(fits("host all all 0.0.0.0/0 trust", [] {
    auto connection = tcp();
    connection.peer.reset();
    return connection;
  }()));
}

TEST_CASE("hba: wrong addresses") {
  CHECK(problem_of("host all all 127.0.0.1 trust") ==
        "etc/hba:1: expected a mask after the address, as in 127.0.0.1/32 or a column of its own, got \"trust\"");
  CHECK(problem_of("host all all 127.0.0.1") ==
        "etc/hba:1: expected a mask after the address, got the end of the line");
  CHECK(problem_of("host all all 127.0.0.0/33 trust") ==
        "etc/hba:1: expected 0 to 32 bits after the slash, got \"127.0.0.0/33\"");
  CHECK(problem_of("host all all example.org/24 trust") ==
        "etc/hba:1: expected an address such as 10.0.0.0/8 or fe80::/10, got \"example.org/24\"");
  for (const auto* bad : {"127.0.0.256", "127.1", "10", "a..b", ".", "a_b!", "fe80::1%eth0", "\"\""}) {
    INFO(bad);
    CHECK(problem_of("host all all " + std::string(bad) + " trust").find("expected all, samehost, samenet") !=
          std::string::npos);
  }
  CHECK(problem_of("host all all 10.0.0.0/8,11.0.0.0/8 trust") == "etc/hba:1: expected an address, got a list");
}

TEST_CASE("hba: own hosts and networks") {
  const auto own = std::vector{*parse_cidr("10.1.2.3/24"), *parse_cidr("::1/128")};
  const auto from = [&own](std::string_view peer) {
    auto connection = tcp("bob", "app", peer);
    connection.interfaces = own;
    return connection;
  };
  CHECK(fits("host all all samehost trust", from("10.1.2.3")));
  CHECK(fits("host all all samehost trust", from("::ffff:10.1.2.3")));
  CHECK_FALSE(fits("host all all samehost trust", from("10.1.2.4")));
  CHECK(fits("host all all samenet trust", from("10.1.2.4")));
  CHECK(fits("host all all samenet trust", from("::1")));
  CHECK_FALSE(fits("host all all samenet trust", from("10.1.3.4")));
  CHECK_FALSE(fits("host all all samenet trust", tcp()));
  CHECK_FALSE(fits("host all all \"samenet\" trust\nhost all all all trust", [&] {
    auto connection = from("10.1.2.3");
    connection.host_name = "";
    return connection;
  }()));
  CHECK(good("host all all samenet trust").has_interfaces());
  CHECK_FALSE(good("host all all all trust").has_interfaces());
}

TEST_CASE("hba: host names") {
  const auto rules = good(
      "host db1 all db.example.org trust\nhost db2 all .Example.org trust\nhost all eve all reject\n"
      "host db1 all all md5\n");
  CHECK(rules.has_host_names());
  CHECK_FALSE(good("host all all all trust").has_host_names());
  const auto line = [&rules](std::string_view database, std::optional<std::string> host) {
    auto connection = tcp("bob", database);
    connection.host_name = std::move(host);
    return line_of(rules, connection);
  };
  CHECK(line("db1", std::nullopt) == -1);
  CHECK(line("db1", "DB.example.ORG") == 1);
  CHECK(line("db1", "x.db.example.org") == 4);
  CHECK(line("db1", "") == 4);
  CHECK(line("db2", "a.b.example.org") == 2);
  CHECK(line("db2", "example.org") == 0);
  CHECK(line("db2", "badexample.org") == 0);
  // Nothing is looked up for a rule that does not fit anyway.
  CHECK(line("db3", std::nullopt) == 0);
  CHECK(line_of(rules, unix_socket()) == 0);
}

TEST_CASE("hba: methods") {
  const auto method = [](const std::string& line) { return good(line).rules.at(0).method; };
  CHECK(method("host all all all trust") == HbaMethod::Trust);
  CHECK(method("host all all all reject") == HbaMethod::Reject);
  CHECK(method("host all all all md5") == HbaMethod::Md5);
  CHECK(method("host all all all password") == HbaMethod::Password);
  CHECK(method("host all all all plain") == HbaMethod::Password);
  CHECK(method("host all all all scram-sha-256") == HbaMethod::ScramSha256);
  CHECK(method("hostssl all all all cert") == HbaMethod::Cert);
  CHECK(method("local all all peer") == HbaMethod::Peer);
  CHECK(method("local all all ident map=m") == HbaMethod::Peer);
  CHECK(method("host all all all pam") == HbaMethod::Pam);
  CHECK(method("host all all all ldap") == HbaMethod::Ldap);
  CHECK(to_string(HbaMethod::ScramSha256) == "scram-sha-256");
  CHECK(to_string(HbaMethod::Password) == "password");
  CHECK(to_string(HbaType::HostNoSsl) == "hostnossl");
  for (const std::string other : {"ident", "gss", "sspi", "radius", "bsd", "oauth", "krb5", "any"}) {
    CHECK(problem_of("host all all all " + other) == "etc/hba:1: the method " + other + " is not supported");
  }
  CHECK(problem_of("host all all all scram-sha256") ==
        "etc/hba:1: expected a login method, got \"scram-sha256\" (did you mean \"scram-sha-256\"?)");
  CHECK(problem_of("host all all all md5,trust") == "etc/hba:1: expected a login method, got a list");
}

TEST_CASE("hba: lines that end early") {
  CHECK(problem_of("host") == "etc/hba:1: expected a database, got the end of the line");
  CHECK(problem_of("host all") == "etc/hba:1: expected a user, got the end of the line");
  CHECK(problem_of("host all all") == "etc/hba:1: expected an address, got the end of the line");
  CHECK(problem_of("host all all all # trust") == "etc/hba:1: expected a login method, got the end of the line");
  CHECK(problem_of("local all all") == "etc/hba:1: expected a login method, got the end of the line");
  CHECK(problem_of("host \"\" all all trust") == "etc/hba:1: expected a database, got an empty name");
  CHECK(problem_of("host all \"\" all trust") == "etc/hba:1: expected a user, got an empty name");
}

TEST_CASE("hba: warnings for rules that hardly mean what they say") {
  const auto warning = [](std::string_view line) {
    const auto rules = good(line);
    CHECK(rules.rules.size() == 1);
    return rules.warnings.empty() ? "" : to_string(rules.warnings.front());
  };
  CHECK(warning("hostgssenc all all all trust") == "etc/hba:1: never matches: no connection is encrypted by GSSAPI");
  CHECK(warning("host all all all peer") == "etc/hba:1: lets nobody in: peer works on Unix sockets only");
  CHECK(warning("hostnossl all all all cert") == "etc/hba:1: lets nobody in: cert works with TLS only");
  CHECK(warning("local all all cert") == "etc/hba:1: lets nobody in: cert works with TLS only");
  CHECK(warning("host all all 10.0.0.1/8 trust") ==
        "etc/hba:1: the address has bits set that the mask takes away; they do not count");
  CHECK(warning("host all all all cert").empty());
  CHECK(warning("host all all 10.0.0.0/8 trust").empty());
}
