// Which configured value, and which null, the console's tables show.
#include <catch2/catch.hpp>

#include "proxy/core/admin_rows.hpp"

using namespace pgweir;
using namespace pgweir::core;

namespace {

DatabaseConfig entry(std::string name, std::vector<HostPort> hosts) {
  DatabaseConfig database;
  database.name = std::move(name);
  database.hosts = std::move(hosts);
  return database;
}

}  // namespace

TEST_CASE("a database entry that sets nothing shows what it inherits", "[admin]") {
  Config config;
  config.default_pool_size = 11;
  config.min_pool_size = 12;
  config.reserve_pool_size = 13;
  config.max_db_connections = 14;
  config.max_db_client_connections = 15;
  config.server_lifetime = std::chrono::seconds(16);
  const DatabaseRow row = database_row(config, entry("app", {{"", 5432}}), "app", {"app", 1, 2, true, false});
  CHECK(row.name == "app");
  CHECK_FALSE(row.host);
  CHECK(row.port == 5432);
  CHECK(row.database == "app");
  CHECK_FALSE(row.force_user);
  CHECK(row.pool_size == 11);
  CHECK(row.min_pool_size == 12);
  CHECK(row.reserve_pool_size == 13);
  CHECK(row.max_connections == 14);
  CHECK(row.max_client_connections == 15);
  CHECK(row.server_lifetime == std::chrono::seconds(16));
  CHECK_FALSE(row.pool_mode);
  CHECK_FALSE(row.load_balance_hosts);
  CHECK(row.current_connections == 1);
  CHECK(row.current_client_connections == 2);
  CHECK(row.paused);
  CHECK_FALSE(row.disabled);
}

TEST_CASE("a database entry that sets everything shows that", "[admin]") {
  DatabaseConfig database = entry("app", {{"127.0.0.1", 5433}, {"127.0.0.2", 5434}});
  database.dbname = "real";
  database.user = "joe";
  database.pool_size = 1;
  database.min_pool_size = 2;
  database.reserve_pool_size = 3;
  database.max_db_connections = 4;
  database.max_db_client_connections = 5;
  database.server_lifetime = std::chrono::seconds(6);
  database.pool_mode = PoolMode::Statement;
  database.load_balance_hosts = LoadBalanceHosts::Disable;
  const DatabaseRow row = database_row(Config{}, database, "app", {"app", 0, 0, false, true});
  CHECK(row.host == "127.0.0.1,127.0.0.2");
  CHECK(row.port == 5433);
  CHECK(row.database == "real");
  CHECK(row.force_user == "joe");
  CHECK(row.pool_size == 1);
  CHECK(row.min_pool_size == 2);
  CHECK(row.reserve_pool_size == 3);
  CHECK(row.max_connections == 4);
  CHECK(row.max_client_connections == 5);
  CHECK(row.server_lifetime == std::chrono::seconds(6));
  CHECK(row.pool_mode == PoolMode::Statement);
  CHECK(row.load_balance_hosts == LoadBalanceHosts::Disable);
  CHECK_FALSE(row.paused);
  CHECK(row.disabled);
}

TEST_CASE("a database made from the fallback has its own name", "[admin]") {
  const DatabaseRow row = database_row(Config{}, entry("*", {{"127.0.0.1", 5432}}), "auto", {});
  CHECK(row.name == "auto");
  CHECK(row.database == "auto");
  CHECK(row.host == "127.0.0.1");
}

TEST_CASE("the console is a database and a pool", "[admin]") {
  Config config;
  config.listen_port = 6543;
  const DatabaseRow database = console_database_row(config, 3);
  CHECK(database.name == "pgbouncer");
  CHECK_FALSE(database.host);
  CHECK(database.port == 6543);
  CHECK(database.database == "pgbouncer");
  CHECK(database.force_user == "pgbouncer");
  CHECK(database.pool_size == 2);
  CHECK(database.pool_mode == PoolMode::Statement);
  CHECK(database.current_client_connections == 3);
  const PoolRow pool = console_pool_row(3);
  CHECK(pool.counts.database == "pgbouncer");
  CHECK(pool.counts.user == "pgbouncer");
  CHECK(pool.counts.cl_active == 3);
  CHECK(pool.pool_mode == PoolMode::Statement);
  CHECK_FALSE(pool.load_balance_hosts);
}

TEST_CASE("a pool shows the mode in effect", "[admin]") {
  Config config;
  config.pool_mode = PoolMode::Transaction;
  config.databases["one"] = entry("one", {{"127.0.0.1", 5432}});
  config.databases["two"] = entry("two", {{"127.0.0.1", 5432}, {"127.0.0.1", 5433}});
  config.databases["two"].pool_mode = PoolMode::Statement;
  config.users["joe"].pool_mode = PoolMode::Session;
  const auto row = [&](const char* database, const char* user) {
    pool::PoolSnapshot counts;
    counts.database = database;
    counts.user = user;
    counts.sv_idle = 4;
    return pool_row(config, counts);
  };
  CHECK(row("one", "ann").pool_mode == PoolMode::Transaction);
  CHECK(row("one", "joe").pool_mode == PoolMode::Session);
  CHECK(row("two", "ann").pool_mode == PoolMode::Statement);
  CHECK(row("gone", "joe").pool_mode == PoolMode::Transaction);
  CHECK_FALSE(row("one", "ann").load_balance_hosts);
  CHECK(row("two", "ann").load_balance_hosts == LoadBalanceHosts::RoundRobin);
  CHECK(row("two", "ann").counts.sv_idle == 4);
}

TEST_CASE("a user shows overrides of its own and limits in effect", "[admin]") {
  Config config;
  config.max_user_connections = 8;
  config.max_user_client_connections = 9;
  UserConfig& joe = config.users["joe"];
  joe.pool_size = 1;
  joe.reserve_pool_size = 2;
  joe.pool_mode = PoolMode::Session;
  joe.max_user_connections = 3;
  joe.max_user_client_connections = 4;
  const UserRow set = user_row(config, "joe", {"joe", 5, 6});
  CHECK(set.name == "joe");
  CHECK(set.pool_size == 1);
  CHECK(set.reserve_pool_size == 2);
  CHECK(set.pool_mode == PoolMode::Session);
  CHECK(set.max_user_connections == 3);
  CHECK(set.current_connections == 5);
  CHECK(set.max_user_client_connections == 4);
  CHECK(set.current_client_connections == 6);
  const UserRow unset = user_row(config, "ann", {});
  CHECK(unset.name == "ann");
  CHECK_FALSE(unset.pool_size);
  CHECK_FALSE(unset.reserve_pool_size);
  CHECK_FALSE(unset.pool_mode);
  CHECK(unset.max_user_connections == 8);
  CHECK(unset.max_user_client_connections == 9);
}

TEST_CASE("a peer shows where it is", "[admin]") {
  Config config;
  config.default_pool_size = 20;
  const PeerRow own = peer_row(config, {7, {{"127.0.0.1", 6433}}, 5});
  CHECK(own.peer_id == 7);
  CHECK(own.host == "127.0.0.1");
  CHECK(own.port == 6433);
  CHECK(own.pool_size == 5);
  const PeerRow inherited = peer_row(config, {8, {{"", 6432}}, std::nullopt});
  CHECK_FALSE(inherited.host);
  CHECK(inherited.pool_size == 20);
}
