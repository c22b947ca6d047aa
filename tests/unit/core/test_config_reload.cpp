// What a reload keeps, changes and ignores; what it has to act upon; and which value applies on which level.
#include <catch2/catch.hpp>

#include "config_test.hpp"

using namespace pgweir::core;
using namespace std::chrono_literals;

namespace {

using Names = std::vector<std::string>;

Config databases(const std::string& lines) {
  return good("[pgbouncer]\n[databases]\n" + lines + "\n");
}

// Which databases must be recycled when the entry changes from one text to the other.
Names changed(const std::string& before, const std::string& after, const std::string& name = "app") {
  return diff(databases(name + " = " + before), databases(name + " = " + after)).changed_databases;
}

}  // namespace

TEST_CASE("a deleted line brings the default back, unless there is none") {
  const Config running = good(
      "[pgbouncer]\nmax_client_conn = 7\nauth_file = f\nauth_user = a\nauth_dbname = d\n"
      "auth_ident_file = i\nauth_ldap_options = ldapserver=o ldapprefix=x\nclient_tls13_ciphers = c\n"
      "server_tls13_ciphers = s\nverbose = 2\n[pgweir]\nmax_pool_logins = 9\n");
  const auto result = load("[pgbouncer]\n", &running);
  REQUIRE(result.config);
  const auto& now = *result.config;
  CHECK(now.max_client_conn == 100);
  CHECK(now.max_pool_logins == 4);
  CHECK(now.auth_file == "f");
  CHECK(now.auth_user == "a");
  CHECK(now.auth_dbname == "d");
  CHECK(now.auth_ident_file == "i");
  CHECK(now.auth_ldap_options == "ldapserver=o ldapprefix=x");
  CHECK(now.client_tls13_ciphers == "c");
  CHECK(now.server_tls13_ciphers == "s");
  CHECK(now.verbose == 2);
  CHECK(now.conffile == "main.ini");
  CHECK(result.ignored.empty());
  CHECK(good("[pgbouncer]\nauth_file = g\n", &running).auth_file == "g");
}

TEST_CASE("settings that need a restart keep their value and are named when the file differs") {
  const Config running =
      good("[pgbouncer]\nlisten_port = 7000\nunix_socket_dir = /run\nuser = nobody\n[pgweir]\nworker_threads = 2\n");
  const auto result =
      load("[pgbouncer]\nlisten_port = 7001\nunix_socket_dir = /run\n[pgweir]\nworker_threads = 3\n", &running);
  REQUIRE(result.config);
  CHECK(result.config->listen_port == 7000);
  CHECK(result.config->unix_socket_dir == "/run");
  CHECK(result.config->worker_threads == 2);
  CHECK(result.config->user == "nobody");
  CHECK(result.ignored == Names{"listen_port", "worker_threads"});
  // A deleted line counts as a change to the default.
  CHECK(load("[pgbouncer]\nuser = root\n", &running).ignored ==
        Names{"listen_port", "unix_socket_dir", "user", "worker_threads"});
  CHECK(load("[pgbouncer]\nlisten_port = 7000\n", nullptr).ignored.empty());
}

TEST_CASE("a bad value of a setting that needs a restart is still a problem") {
  const Config running = good("[pgbouncer]\n");
  CHECK(load("[pgbouncer]\nlisten_port = x\n", &running).config == nullptr);
}

TEST_CASE("a reload is all or nothing") {
  const Config running = good("[pgbouncer]\n");
  const auto result = load("[pgbouncer]\nmax_client_conn = 7\nquery_timeout = x\n", &running);
  CHECK(result.config == nullptr);
  CHECK(result.problems.size() == 1);
}

TEST_CASE("a value from SET lasts until the reload") {
  const Config running = good("[pgbouncer]\ndefault_pool_size = 5\n");
  const auto set = with_setting(running, "default_pool_size", "9");
  REQUIRE(set.index() == 0);
  CHECK(std::get<0>(set)->default_pool_size == 9);
  CHECK(good("[pgbouncer]\ndefault_pool_size = 5\n", std::get<0>(set).get()).default_pool_size == 5);
}

TEST_CASE("entries that are gone, new and changed") {
  const auto old = databases("gone = host=a\nkept = host=b\nmoved = host=c\n* = host=d");
  const auto now = databases("new2 = host=x\nnew1 = host=x\nkept = host=b\nmoved = host=e");
  const auto result = diff(old, now);
  CHECK(result.removed_databases == Names{"*", "gone"});
  CHECK(result.changed_databases == Names{"moved"});
  CHECK(result.added_databases == Names{"new1", "new2"});
  CHECK(diff(now, old).added_databases == Names{"*", "gone"});
  CHECK(diff(old, old).changed_databases.empty());
  CHECK(changed("host=a", "host=b", "*") == Names{"*"});
}

TEST_CASE("what recycles the servers of a database") {
  const std::string base = "host=a";
  for (const auto* more : {"dbname=x", "port=5433", "user=u", "connect_query=q", "auth_dbname=d", "auth_query=q",
                           "load_balance_hosts=disable", "sslmode=require", "sslrootcert=f", "sslcert=f", "sslkey=f"}) {
    INFO(more);
    CHECK(changed(base, base + " " + more) == Names{"app"});
    CHECK(changed(base + " " + more, base) == Names{"app"});
  }
  CHECK(changed("host=a", "host=b") == Names{"app"});
  CHECK(changed("host=a,b", "host=b,a") == Names{"app"});
  for (const auto* more :
       {"password=p", "pool_size=1", "min_pool_size=1", "reserve_pool_size=1", "max_db_connections=1",
        "max_db_client_connections=1", "client_encoding=UTF8", "datestyle=ISO", "timezone=UTC", "application_name=x",
        "pool_mode=statement", "query_wait_timeout=1", "server_lifetime=1", "auth_user=u",
        // Spelling out a default is no change either.
        "dbname=app", "port=5432", "load_balance_hosts=round-robin"}) {
    INFO(more);
    CHECK(changed(base, base + " " + more).empty());
  }
  // For the fallback, a fixed name is not the name that was asked for.
  CHECK(changed("host=a", "host=a dbname=*", "*") == Names{"*"});
}

TEST_CASE("TLS changes") {
  const auto with = [](const std::string& line) { return diff(good("[pgbouncer]\n"), good("[pgbouncer]\n" + line)); };
  for (const auto* line :
       {"server_tls_sslmode=require", "server_tls_ca_file=f", "server_tls_cert_file=f", "server_tls_key_file=f",
        "server_tls_protocols=all", "server_tls_ciphers=all", "server_tls13_ciphers=x"}) {
    INFO(line);
    CHECK(with(line).server_tls_changed);
    CHECK_FALSE(with(line).client_tls_changed);
  }
  for (const auto* line :
       {"client_tls_ca_file=f", "client_tls_ecdhcurve=none", "client_tls_dheparams=none", "client_tls13_ciphers=x"}) {
    INFO(line);
    CHECK(with(line).client_tls_changed);
    CHECK_FALSE(with(line).server_tls_changed);
  }
  CHECK_FALSE(with("max_client_conn=5").client_tls_changed);
  CHECK_FALSE(with("max_client_conn=5").server_tls_changed);
}

TEST_CASE("finding a database") {
  const auto config = databases("app = host=a\n* = host=b");
  CHECK(find_database(config, "app") == &config.databases.at("app"));
  REQUIRE(find_database(config, "other") == &*config.fallback);
  CHECK(effective_dbname(*find_database(config, "other"), "other") == "other");
  CHECK(find_database(config, "pgbouncer") == nullptr);
  CHECK(find_database(config, std::string(63, 'x')) != nullptr);
  CHECK(find_database(config, std::string(64, 'x')) == nullptr);
  CHECK(find_database(databases("app ="), "other") == nullptr);
  const auto fixed = databases("* = dbname=real");
  CHECK(effective_dbname(*find_database(fixed, "other"), "other") == "real");
}

TEST_CASE("user over database over global") {
  const auto config = good(R"([pgbouncer]
pool_mode = session
default_pool_size = 10
reserve_pool_size = 11
query_wait_timeout = 12
[databases]
plain =
own = pool_mode=transaction pool_size=20 reserve_pool_size=21 query_wait_timeout=22
zero = pool_size=0 reserve_pool_size=0 query_wait_timeout=0
[users]
u = pool_mode=statement pool_size=30 reserve_pool_size=31 query_wait_timeout=32
zero = pool_size=0 reserve_pool_size=0 query_wait_timeout=0
inherits = pool_size=-1
)");
  const auto check = [&](const char* db, const char* user, PoolMode mode, int size, int reserve, Duration wait) {
    INFO(db << " " << user);
    const auto& database = config.databases.at(db);
    CHECK(effective_pool_mode(config, database, user) == mode);
    CHECK(effective_pool_size(config, database, user) == size);
    CHECK(effective_reserve_pool_size(config, database, user) == reserve);
    CHECK(effective_query_wait_timeout(config, database, user) == wait);
  };
  check("plain", "nobody", PoolMode::Session, 10, 11, 12s);
  check("own", "nobody", PoolMode::Transaction, 20, 21, 22s);
  check("own", "inherits", PoolMode::Transaction, 20, 21, 22s);
  check("own", "u", PoolMode::Statement, 30, 31, 32s);
  check("plain", "u", PoolMode::Statement, 30, 31, 32s);
  check("zero", "nobody", PoolMode::Session, 0, 0, 0s);
  check("own", "zero", PoolMode::Transaction, 0, 0, 0s);
  CHECK(effective_pool_size(config, PeerConfig{}) == 10);
  CHECK(effective_pool_size(config, PeerConfig{1, {}, 3}) == 3);
}

TEST_CASE("one level over global") {
  const auto config = good(R"([pgbouncer]
min_pool_size = 1
max_db_connections = 2
max_db_client_connections = 3
server_lifetime = 4
max_user_connections = 5
max_user_client_connections = 6
client_idle_timeout = 7
idle_transaction_timeout = 8
transaction_timeout = 9
query_timeout = 10
auth_user = ga
auth_query = gq
auth_dbname = gd
server_tls_sslmode = require
server_tls_ca_file = gca
server_tls_cert_file = gc
server_tls_key_file = gk
[databases]
plain = max_db_connections=0 max_db_client_connections=-1 server_lifetime=0
own = min_pool_size=11 max_db_connections=12 max_db_client_connections=13 server_lifetime=14 auth_user=a auth_query=q auth_dbname=d sslmode=disable sslrootcert=ca sslcert=c sslkey=k
[users]
inherits = max_user_connections=0 max_user_client_connections=0 client_idle_timeout=0 idle_transaction_timeout=0 transaction_timeout=0 query_timeout=0
u = max_user_connections=15 max_user_client_connections=16 client_idle_timeout=17 idle_transaction_timeout=18 transaction_timeout=19 query_timeout=20
)");
  const auto& plain = config.databases.at("plain");
  const auto& own = config.databases.at("own");
  CHECK(effective_min_pool_size(config, plain) == 1);
  CHECK(effective_min_pool_size(config, own) == 11);
  CHECK(effective_max_db_connections(config, plain) == 2);
  CHECK(effective_max_db_connections(config, own) == 12);
  CHECK(effective_max_db_client_connections(config, plain) == 3);
  CHECK(effective_max_db_client_connections(config, own) == 13);
  CHECK(effective_server_lifetime(config, plain) == 4s);
  CHECK(effective_server_lifetime(config, own) == 14s);
  for (const auto* user : {"nobody", "inherits"}) {
    CHECK(effective_max_user_connections(config, user) == 5);
    CHECK(effective_max_user_client_connections(config, user) == 6);
    CHECK(effective_client_idle_timeout(config, user) == 7s);
    CHECK(effective_idle_transaction_timeout(config, user) == 8s);
    CHECK(effective_transaction_timeout(config, user) == 9s);
    CHECK(effective_query_timeout(config, user) == 10s);
  }
  CHECK(effective_max_user_connections(config, "u") == 15);
  CHECK(effective_max_user_client_connections(config, "u") == 16);
  CHECK(effective_client_idle_timeout(config, "u") == 17s);
  CHECK(effective_idle_transaction_timeout(config, "u") == 18s);
  CHECK(effective_transaction_timeout(config, "u") == 19s);
  CHECK(effective_query_timeout(config, "u") == 20s);
  CHECK(effective_auth_user(config, plain) == "ga");
  CHECK(effective_auth_user(config, own) == "a");
  CHECK(effective_auth_user(Config{}, plain).empty());
  CHECK(effective_auth_query(config, plain) == "gq");
  CHECK(effective_auth_query(config, own) == "q");
  CHECK(effective_auth_dbname(config, plain) == "gd");
  CHECK(effective_auth_dbname(config, own) == "d");
  CHECK(effective_auth_dbname(Config{}, plain).empty());
  CHECK(effective_server_tls_sslmode(config, plain) == SslMode::Require);
  CHECK(effective_server_tls_sslmode(config, own) == SslMode::Disable);
  CHECK(effective_server_tls_ca_file(config, plain) == "gca");
  CHECK(effective_server_tls_ca_file(config, own) == "ca");
  CHECK(effective_server_tls_cert_file(config, plain) == "gc");
  CHECK(effective_server_tls_cert_file(config, own) == "c");
  CHECK(effective_server_tls_key_file(config, plain) == "gk");
  CHECK(effective_server_tls_key_file(config, own) == "k");
}
