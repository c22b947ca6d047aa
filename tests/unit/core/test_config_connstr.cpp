// The connection strings of [databases], [users] and [peers]: grammar, keys, and that garbage is not taken for 0.
#include <catch2/catch.hpp>

#include "config_test.hpp"
#include "proxy/core/config_connstr.hpp"

using namespace pgweir::core;
using namespace std::chrono_literals;

namespace {

using Pairs = std::vector<std::pair<std::string, std::string>>;

Pairs pairs_of(std::string_view text) {
  std::vector<std::string> reasons;
  auto pairs = parse_connstr(text, reasons);
  CHECK(reasons.empty());
  return pairs;
}

std::string reason_of(std::string_view text) {
  std::vector<std::string> reasons;
  (void)parse_connstr(text, reasons);
  return reasons.size() == 1 ? reasons.front() : "not one reason";
}

DatabaseConfig database(std::string_view text) {
  std::vector<std::string> reasons;
  auto result = parse_database("app", text, reasons);
  INFO(text << (reasons.empty() ? "" : ": " + reasons.front()));
  CHECK(reasons.empty());
  return result;
}

std::vector<std::string> reasons_of(std::string_view text, std::string_view name = "app") {
  std::vector<std::string> reasons;
  (void)parse_database(name, text, reasons);
  return reasons;
}

UserConfig user(std::string_view text) {
  std::vector<std::string> reasons;
  auto result = parse_user("u", text, reasons);
  CHECK(reasons.empty());
  return result;
}

using Reasons = std::vector<std::string>;

}  // namespace

TEST_CASE("connection strings: grammar") {
  CHECK(pairs_of("").empty());
  CHECK(pairs_of("   ").empty());
  CHECK(pairs_of("a=1 b=2") == Pairs{{"a", "1"}, {"b", "2"}});
  CHECK(pairs_of("  a = 1   b= 2 c =3 ") == Pairs{{"a", "1"}, {"b", "2"}, {"c", "3"}});
  CHECK(pairs_of("a='x y' b='it''s' c=''''") == Pairs{{"a", "x y"}, {"b", "it's"}, {"c", "'"}});
  CHECK(pairs_of("a=x'y'") == Pairs{{"a", "x'y'"}});
  CHECK(pairs_of("a=x=y") == Pairs{{"a", "x=y"}});
  CHECK(pairs_of(R"(a='x\' b=2)") == Pairs{{"a", R"(x\)"}, {"b", "2"}});
  // Tabs do not separate.
  CHECK(pairs_of("a=1\tb=2") == Pairs{{"a", "1\tb=2"}});
  // One character after a closing quote is dropped.
  CHECK(pairs_of("a='1';b=2") == Pairs{{"a", "1"}, {"b", "2"}});
  CHECK(pairs_of("a='1'\tb=2") == Pairs{{"a", "1"}, {"b", "2"}});
}

TEST_CASE("connection strings: mistakes") {
  CHECK(reason_of("a=1 b") == "expected key=value pairs separated by spaces; number 2 is none");
  CHECK(reason_of("=1") == "expected key=value pairs separated by spaces; number 1 is none");
  CHECK(reason_of("a=") == "a: expected a value; leave the key out to have the default");
  CHECK(reason_of("a=''") == "a: expected a value; leave the key out to have the default");
  CHECK(reason_of("a='x") == "a: the closing quote is missing");
  CHECK(reason_of("a='x''") == "a: the closing quote is missing");
  CHECK(reason_of("a='x'b=2") == "a: expected a space after the closing quote");
}

TEST_CASE("an empty entry is a local server of the same name") {
  const auto db = database("");
  CHECK(db.name == "app");
  CHECK_FALSE(db.dbname);
  CHECK(effective_dbname(db, "app") == "app");
  CHECK(db.hosts == std::vector<HostPort>{{"", 5432}});
  CHECK(db.hosts.front().is_unix());
  CHECK_FALSE(db.user);
  CHECK_FALSE(db.pool_size);
  CHECK(db.load_balance_hosts == LoadBalanceHosts::RoundRobin);
}

TEST_CASE("all keys of a database") {
  const auto db = database(
      "dbname=real host=h port=5433 user=u password='p w' auth_user=au auth_query='select $1' auth_dbname=ad "
      "pool_size=1 min_pool_size=2 reserve_pool_size=3 max_db_connections=4 max_db_client_connections=5 "
      "query_wait_timeout=6 server_lifetime=7 pool_mode=transaction load_balance_hosts=disable connect_query='select "
      "1' "
      "client_encoding=UTF8 datestyle=ISO timezone=UTC application_name=an target_session_attrs=prefer-standby "
      "read_write_split=1 sslmode=verify-full sslrootcert=ca sslcert=c sslkey=k");
  CHECK(db.dbname == "real");
  CHECK(effective_dbname(db, "app") == "real");
  CHECK(db.hosts == std::vector<HostPort>{{"h", 5433}});
  CHECK(db.user == "u");
  CHECK(db.password == "p w");
  CHECK(db.auth_user == "au");
  CHECK(db.auth_query == "select $1");
  CHECK(db.auth_dbname == "ad");
  CHECK(db.pool_size == 1);
  CHECK(db.min_pool_size == 2);
  CHECK(db.reserve_pool_size == 3);
  CHECK(db.max_db_connections == 4);
  CHECK(db.max_db_client_connections == 5);
  CHECK(db.query_wait_timeout == Duration(6s));
  CHECK(db.server_lifetime == Duration(7s));
  CHECK(db.pool_mode == PoolMode::Transaction);
  CHECK(db.load_balance_hosts == LoadBalanceHosts::Disable);
  CHECK(db.connect_query == "select 1");
  CHECK(db.client_encoding == "UTF8");
  CHECK(db.datestyle == "ISO");
  CHECK(db.timezone == "UTC");
  CHECK(db.application_name == "an");
  CHECK(db.target_session_attrs == TargetSessionAttrs::PreferStandby);
  CHECK(db.read_write_split);
  CHECK(db.sslmode == SslMode::VerifyFull);
  CHECK(db.sslrootcert == "ca");
  CHECK(db.sslcert == "c");
  CHECK(db.sslkey == "k");
  CHECK(database("reserve_pool=9").reserve_pool_size == 9);
}

TEST_CASE("lists of hosts and ports") {
  using Hosts = std::vector<HostPort>;
  CHECK(database("host=a,b port=1,2").hosts == Hosts{{"a", 1}, {"b", 2}});
  CHECK(database("host=a,b port=7").hosts == Hosts{{"a", 7}, {"b", 7}});
  CHECK(database("host=a,b").hosts == Hosts{{"a", 5432}, {"b", 5432}});
  CHECK(database("host=::1").hosts == Hosts{{"::1", 5432}});
  CHECK(database("host=/run/postgresql").hosts.front().is_unix());
  CHECK(database("host=@abstract").hosts.front().is_unix());
  CHECK_FALSE(database("host=a").hosts.front().is_unix());
  CHECK(reasons_of("host=a,b port=1,2,3") ==
        Reasons{"port: expected one port for all hosts or one for each of the 2 hosts, got 3 ports"});
  CHECK(reasons_of("port=1,2").size() == 1);
  CHECK(reasons_of("host=a,,b") == Reasons{"host: expected names separated by commas, got \"a,,b\""});
  CHECK(reasons_of("host=a, b").size() == 2);
}

TEST_CASE("ports") {
  for (const auto* port : {"0", "65536", "-1", "abc", "5432x", "0x10", "5432,", "99999999999999999999"}) {
    INFO(port);
    const auto reasons = reasons_of("host=a,b port=" + std::string(port));
    REQUIRE(reasons.size() == 1);
    CHECK(reasons.front().find("port: expected a whole number from 1 to 65535") == 0);
  }
}

TEST_CASE("numbers that PgBouncer would take for 0 are refused") {
  for (const auto* key : {"pool_size", "min_pool_size", "reserve_pool_size", "reserve_pool", "max_db_connections",
                          "max_db_client_connections"}) {
    for (const auto* value : {"abc", "5x", "0x5", "-2", "1.5", "99999999999"}) {
      INFO(key << "=" << value);
      const auto reasons = reasons_of(std::string(key) + "=" + value);
      REQUIRE(reasons.size() == 1);
      CHECK(reasons.front() == std::string(key) + ": expected a whole number, -1 or more, got \"" + value + "\"");
    }
  }
  CHECK(reasons_of("query_wait_timeout=1.5") ==
        Reasons{"query_wait_timeout: expected a whole number of seconds, got \"1.5\""});
  CHECK(reasons_of("server_lifetime=5min") ==
        Reasons{"server_lifetime: expected a whole number of seconds, got \"5min\""});
}

TEST_CASE("which values inherit") {
  CHECK_FALSE(database("pool_size=-1").pool_size);
  CHECK(database("pool_size=0").pool_size == 0);
  CHECK(database("min_pool_size=0").min_pool_size == 0);
  CHECK_FALSE(database("max_db_connections=0").max_db_connections);
  CHECK_FALSE(database("max_db_client_connections=-1").max_db_client_connections);
  CHECK_FALSE(database("server_lifetime=0").server_lifetime);
  CHECK(database("query_wait_timeout=0").query_wait_timeout == Duration(0s));
  CHECK(user("query_wait_timeout=0").query_wait_timeout == Duration(0s));
  CHECK(user("pool_size=0").pool_size == 0);
  CHECK_FALSE(user("max_user_connections=0").max_user_connections);
  CHECK_FALSE(user("max_user_client_connections=0").max_user_client_connections);
  CHECK_FALSE(user("transaction_timeout=0").transaction_timeout);
  CHECK_FALSE(user("idle_transaction_timeout=0").idle_transaction_timeout);
  CHECK_FALSE(user("query_timeout=0").query_timeout);
  CHECK_FALSE(user("client_idle_timeout=0").client_idle_timeout);
}

TEST_CASE("database mistakes, all of one line") {
  CHECK(reasons_of("pool_size=x hots=h pool_mode=sessions") ==
        Reasons{"pool_size: expected a whole number, -1 or more, got \"x\"",
                "unknown parameter \"hots\" (did you mean \"host\"?)",
                "pool_mode: expected one of session, transaction, statement, got \"sessions\""});
  CHECK(reasons_of("Host=h") == Reasons{"unknown parameter \"Host\" (did you mean \"host\"?)"});
  CHECK(reasons_of("hostaddr=1.2.3.4").size() == 1);
  CHECK(reasons_of("read_write_split=maybe").size() == 1);
  CHECK(reasons_of("target_session_attrs=master").size() == 1);
  CHECK(reasons_of("", "pgbouncer").size() == 1);
  CHECK(reasons_of("", std::string(63, 'd')).empty());
  CHECK(reasons_of("", std::string(64, 'd')).size() == 1);
}

TEST_CASE("no reason repeats a password") {
  for (const auto* text :
       {"password=hush hush", "password='hush", "password='hush'x=1", "user=u password=hush hush=1x"}) {
    for (const auto& reason : reasons_of(text)) {
      INFO(reason);
      const bool only_a_key = reason.starts_with("unknown parameter \"hush\"");
      CHECK((only_a_key || reason.find("hush") == std::string::npos));
    }
  }
}

TEST_CASE("all keys of a user") {
  const auto u = user(
      "pool_mode=statement pool_size=1 reserve_pool_size=2 max_user_connections=3 max_user_client_connections=4 "
      "transaction_timeout=5 idle_transaction_timeout=6 query_timeout=7 query_wait_timeout=8 client_idle_timeout=9");
  CHECK(u.name == "u");
  CHECK(u.pool_mode == PoolMode::Statement);
  CHECK(u.pool_size == 1);
  CHECK(u.reserve_pool_size == 2);
  CHECK(u.max_user_connections == 3);
  CHECK(u.max_user_client_connections == 4);
  CHECK(u.transaction_timeout == Duration(5s));
  CHECK(u.idle_transaction_timeout == Duration(6s));
  CHECK(u.query_timeout == Duration(7s));
  CHECK(u.query_wait_timeout == Duration(8s));
  CHECK(u.client_idle_timeout == Duration(9s));
  std::vector<std::string> reasons;
  (void)parse_user(std::string(128, 'u'), "min_pool_size=1", reasons);
  CHECK(reasons.size() == 2);
}

TEST_CASE("peers") {
  const auto config = good("[pgbouncer]\n[peers]\n1 = host=a\n2 = host=/tmp/x port=7000 pool_size=3\n");
  CHECK(config.peers.at(1).id == 1);
  CHECK(config.peers.at(1).hosts == std::vector<HostPort>{{"a", 6432}});
  CHECK(config.peers.at(2).hosts == std::vector<HostPort>{{"/tmp/x", 7000}});
  CHECK(config.peers.at(2).pool_size == 3);
  CHECK(
      problems_of("[pgbouncer]\n[peers]\n0 = host=a\nx = host=a\n65536 = host=a\n1 = port=5\n2 = host=a dbname=x\n") ==
      "main.ini:3: 0: peer id: expected a whole number from 1 to 65535, got \"0\"\n"
      "main.ini:4: x: peer id: expected a whole number from 1 to 65535, got \"x\"\n"
      "main.ini:5: 65536: peer id: expected a whole number from 1 to 65535, got \"65536\"\n"
      "main.ini:6: 1: expected host=NAME: a peer needs one\n"
      "main.ini:7: 2: unknown parameter \"dbname\"\n");
}

TEST_CASE("the last line of a repeated entry wins") {
  const auto config = good("[pgbouncer]\n[databases]\na = host=x user=u\na = host=y\n");
  CHECK(config.databases.at("a").hosts.front().host == "y");
  CHECK_FALSE(config.databases.at("a").user);
}
