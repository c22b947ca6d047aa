// Columns, types, nulls and order of the console's other answers.
#include <catch2/catch.hpp>

#include "admin_test.hpp"
#include "pgweir_version.hpp"
#include "proxy/core/admin_format.hpp"

using namespace pgweir::core;
using namespace std::string_literals;
using admin_test::read_table;
using admin_test::Row;
using admin_test::split;

using Columns = std::vector<std::string>;

TEST_CASE("a result set to the byte", "[admin]") {
  std::string out = "before";
  append_show_dns_zones(out, std::vector<DnsZoneRow>{{"z", 4294967295u, 2}});
  CHECK(out ==
        "before"
        "T\0\0\0\x52\0\3"
        "zonename\0\0\0\0\0\0\0\0\0\0\x19\xFF\xFF\xFF\xFF\xFF\xFF\0\0"
        "serial\0\0\0\0\0\0\0\0\0\0\x14\0\x08\xFF\xFF\xFF\xFF\0\0"
        "count\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xFF\xFF\xFF\xFF\0\0"
        "D\0\0\0\x1E\0\3\0\0\0\1z\0\0\0\x0A"
        "4294967295\0\0\0\1"
        "2"
        "C\0\0\0\x09SHOW\0"s);
}

TEST_CASE("console errors have fields S, C, M and do not end the session", "[admin]") {
  std::string out;
  append_console_error(out, "admin access needed");
  CHECK(out == "E\0\0\0\x28SERROR\0C08P01\0Madmin access needed\0\0Z\0\0\0\5I"s);
  out.clear();
  append_console_error(out, "RELOAD failed, see logs for additional details", "F0000");
  CHECK(split(out)[0].body == "SERROR\0CF0000\0MRELOAD failed, see logs for additional details\0\0"s);
  CHECK(split(out)[1].body == "I");
}

TEST_CASE("an error of any length is one message", "[admin]") {
  std::string out;
  append_console_error(out, std::string(100000, 'x'));
  const auto messages = split(out);
  REQUIRE(messages.size() == 2);
  CHECK(messages[0].type == 'E');
  CHECK(messages[0].body == "SERROR\0C08P01\0M"s + std::string(100000, 'x') + "\0\0"s);
  CHECK(messages[1].type == 'Z');
}

TEST_CASE("actions end with their tag", "[admin]") {
  std::string out;
  append_console_done(out, "PAUSE");
  CHECK(out == "C\0\0\0\x0APAUSE\0Z\0\0\0\5I"s);
}

TEST_CASE("SET of a driver's setting gives a notice", "[admin]") {
  std::string out;
  append_set_ignored(out);
  const auto messages = split(out);
  REQUIRE(messages.size() == 2);
  CHECK(messages[0].type == 'N');
  CHECK(messages[0].body == "SNOTICE\0C00000\0MSET ignored\0\0"s);
  CHECK(messages[1].type == 'C');
  CHECK(messages[1].body == "SET\0"s);
}

TEST_CASE("SHOW of a driver's setting", "[admin]") {
  const std::pair<const char*, const char*> settings[] = {{"client_encoding", "UTF-8"},
                                                          {"default_transaction_isolation", "read committed"},
                                                          {"standard_conforming_strings", "on"},
                                                          {"datestyle", "ISO"},
                                                          {"timezone", "GMT"}};
  for (const auto& [name, value] : settings) {
    std::string out;
    append_fake_show(out, name);
    CHECK(read_table(out).columns == Columns{name + " t"s});
    CHECK(read_table(out).rows == std::vector<Row>{{value}});
  }
}

TEST_CASE("the welcome lists the console's parameters, then the client's", "[admin]") {
  std::string out;
  append_console_welcome(out, std::vector<std::pair<std::string, std::string>>{{"client_encoding", "latin1"},
                                                                               {"application_name", "psql"}});
  std::vector<std::string> bodies;
  for (const auto& message : split(out)) {
    CHECK(message.type == 'S');
    bodies.push_back(message.body);
  }
  CHECK(bodies == std::vector<std::string>{"server_version\0001.25.2/bouncer\0"s, "client_encoding\0UTF8\0"s,
                                           "server_encoding\0UTF8\0"s, "DateStyle\0ISO\0"s, "TimeZone\0GMT\0"s,
                                           "standard_conforming_strings\0on\0"s, "is_superuser\0on\0"s,
                                           "client_encoding\0latin1\0"s, "application_name\0psql\0"s});
}

TEST_CASE("SHOW HELP is a notice with the syntax as detail", "[admin]") {
  std::string out;
  append_show_help(out);
  const auto messages = split(out);
  REQUIRE(messages.size() == 2);
  CHECK(messages[0].type == 'N');
  const std::string start = "SNOTICE\0C00000\0MConsole usage\0D"s;
  CHECK(messages[0].body.substr(0, start.size()) == start);
  for (const char* word : {"SHOW HELP", "STATS_AVERAGES", "LATENCY", "PEER_POOLS", "DNS_ZONES", "KILL_CLIENT",
                           "WAIT_CLOSE", "SET key = value", "WAIT_FOR_CLIENTS"}) {
    CHECK(messages[0].body.find(word) != std::string::npos);
  }
  CHECK(messages[1].body == "SHOW\0"s);
}

TEST_CASE("SHOW VERSION", "[admin]") {
  std::string out;
  append_show_version(out);
  CHECK(read_table(out).columns == Columns{"version t"});
  CHECK(read_table(out).rows == std::vector<Row>{{"PgWeir "s + PGWEIR_VERSION}});
}

TEST_CASE("SHOW STATE", "[admin]") {
  const auto values = [](PauseMode mode) {
    std::string out;
    append_show_state(out, {mode});
    CHECK(read_table(out).columns == Columns{"key t", "value t"});
    return read_table(out).rows;
  };
  CHECK(values(PauseMode::Active) == std::vector<Row>{{"active", "yes"}, {"paused", "no"}, {"suspended", "no"}});
  CHECK(values(PauseMode::Paused) == std::vector<Row>{{"active", "no"}, {"paused", "yes"}, {"suspended", "no"}});
  CHECK(values(PauseMode::Suspended) == std::vector<Row>{{"active", "no"}, {"paused", "no"}, {"suspended", "yes"}});
}

TEST_CASE("SHOW DATABASES", "[admin]") {
  DatabaseRow bare;
  bare.name = "b";
  bare.port = 5432;
  bare.database = "b";
  DatabaseRow full;
  full.name = "a";
  full.host = "127.0.0.1,127.0.0.2";
  full.port = 5433;
  full.database = "real";
  full.force_user = "joe";
  full.pool_size = 1;
  full.min_pool_size = 2;
  full.reserve_pool_size = 3;
  full.server_lifetime = std::chrono::milliseconds(4900);
  full.pool_mode = PoolMode::Transaction;
  full.load_balance_hosts = LoadBalanceHosts::RoundRobin;
  full.max_connections = 5;
  full.current_connections = 6;
  full.max_client_connections = 7;
  full.current_client_connections = 8;
  full.paused = true;
  DatabaseRow disabled = bare;
  disabled.name = "c";
  disabled.disabled = true;
  disabled.load_balance_hosts = LoadBalanceHosts::Disable;
  std::string out;
  append_show_databases(out, std::vector{disabled, bare, full});
  const auto table = read_table(out);
  CHECK(table.columns == Columns{"name t", "host t", "port i", "database t", "force_user t", "pool_size i",
                                 "min_pool_size i", "reserve_pool_size i", "server_lifetime i", "pool_mode t",
                                 "load_balance_hosts t", "max_connections i", "current_connections i",
                                 "max_client_connections i", "current_client_connections i", "paused i", "disabled i"});
  CHECK(table.rows == std::vector<Row>{{"a", "127.0.0.1,127.0.0.2", "5433", "real", "joe", "1", "2", "3", "4",
                                        "transaction", "round-robin", "5", "6", "7", "8", "1", "0"},
                                       {"b", "<null>", "5432", "b", "<null>", "0", "0", "0", "0", "<null>", "<null>",
                                        "0", "0", "0", "0", "0", "0"},
                                       {"c", "<null>", "5432", "b", "<null>", "0", "0", "0", "0", "<null>", "disable",
                                        "0", "0", "0", "0", "0", "1"}});
}

TEST_CASE("SHOW POOLS", "[admin]") {
  PoolRow full;
  full.counts.database = "b";
  full.counts.user = "x";
  full.counts.cl_active = 1;
  full.counts.cl_waiting = 2;
  full.counts.cl_active_cancel_req = 3;
  full.counts.cl_waiting_cancel_req = 4;
  full.counts.sv_active = 5;
  full.counts.sv_active_cancel = 6;
  full.counts.sv_being_canceled = 7;
  full.counts.sv_idle = 8;
  full.counts.sv_used = 9;
  full.counts.sv_tested = 10;
  full.counts.sv_login = 11;
  full.counts.closing = 1000;
  full.counts.maxwait = std::chrono::microseconds(12'000'013);
  full.pool_mode = PoolMode::Statement;
  full.load_balance_hosts = LoadBalanceHosts::Disable;
  PoolRow first = full, second = full;
  first.counts.database = "a";
  first.counts.user = "z";
  second.counts.user = "w";
  second.load_balance_hosts.reset();
  full.host = HostPort{"h", 5433};
  full.role = "standby";
  second.pool_mode = PoolMode::Session;
  std::string out;
  append_show_pools(out, std::vector{full, second, first});
  const auto table = read_table(out);
  CHECK(table.columns == Columns{"database t",
                                 "user t",
                                 "cl_active i",
                                 "cl_waiting i",
                                 "cl_active_cancel_req i",
                                 "cl_waiting_cancel_req i",
                                 "sv_active i",
                                 "sv_active_cancel i",
                                 "sv_being_canceled i",
                                 "sv_idle i",
                                 "sv_used i",
                                 "sv_tested i",
                                 "sv_login i",
                                 "maxwait i",
                                 "maxwait_us i",
                                 "pool_mode t",
                                 "load_balance_hosts t",
                                 "host t",
                                 "port i",
                                 "role t"});
  REQUIRE(table.rows.size() == 3);
  CHECK(Row(table.rows[0].begin(), table.rows[0].begin() + 2) == Row{"a", "z"});
  CHECK(table.rows[1] == Row{"b", "w",  "1",  "2",  "3",  "4",       "5",      "6",      "7",      "8",
                             "9", "10", "11", "12", "13", "session", "<null>", "<null>", "<null>", "<null>"});
  CHECK(table.rows[2] == Row{"b", "x",  "1",  "2",  "3",  "4",         "5",       "6", "7",    "8",
                             "9", "10", "11", "12", "13", "statement", "disable", "h", "5433", "standby"});
}

TEST_CASE("SHOW PEERS and SHOW PEER_POOLS", "[admin]") {
  std::string peers, pools;
  append_show_peers(peers, std::vector<PeerRow>{{2, "127.0.0.1", 6433, 9}, {1, std::nullopt, 6432, 0}});
  CHECK(read_table(peers).columns == Columns{"peer_id i", "host t", "port i", "pool_size i"});
  CHECK(read_table(peers).rows == std::vector<Row>{{"2", "127.0.0.1", "6433", "9"}, {"1", "<null>", "6432", "0"}});
  append_show_peer_pools(pools, std::vector<PeerPoolRow>{{1, 2, 3, 4, 5}});
  CHECK(read_table(pools).columns ==
        Columns{"peer_id i", "cl_active_cancel_req i", "cl_waiting_cancel_req i", "sv_active_cancel i", "sv_login i"});
  CHECK(read_table(pools).rows == std::vector<Row>{{"1", "2", "3", "4", "5"}});
}

TEST_CASE("SHOW USERS pads sizes", "[admin]") {
  std::string out;
  append_show_users(out, std::vector<UserRow>{{"b", 20, std::nullopt, PoolMode::Session, 1, 2, 3, 4},
                                              {"a", std::nullopt, 1234567890, std::nullopt, 0, 0, 0, 0}});
  CHECK(read_table(out).columns == Columns{"name t", "pool_size t", "reserve_pool_size t", "pool_mode t",
                                           "max_user_connections i", "current_connections i",
                                           "max_user_client_connections i", "current_client_connections i"});
  CHECK(read_table(out).rows == std::vector<Row>{{"a", "", "1234567890", "<null>", "0", "0", "0", "0"},
                                                 {"b", "       20", "", "session", "1", "2", "3", "4"}});
}

TEST_CASE("SHOW LISTS", "[admin]") {
  std::string out;
  append_show_lists(out, {.databases = 1,
                          .users = 2,
                          .peers = 3,
                          .pools = 4,
                          .peer_pools = 5,
                          .free_clients = 6,
                          .used_clients = 7,
                          .login_clients = 8,
                          .free_servers = 9,
                          .used_servers = 10,
                          .dns_names = 11,
                          .dns_zones = 12,
                          .dns_queries = 13,
                          .dns_pending = 1ull << 40});
  CHECK(read_table(out).columns == Columns{"list t", "items i"});
  CHECK(read_table(out).rows == std::vector<Row>{{"databases", "1"},
                                                 {"users", "2"},
                                                 {"peers", "3"},
                                                 {"pools", "4"},
                                                 {"peer_pools", "5"},
                                                 {"free_clients", "6"},
                                                 {"used_clients", "7"},
                                                 {"login_clients", "8"},
                                                 {"free_servers", "9"},
                                                 {"used_servers", "10"},
                                                 {"dns_names", "11"},
                                                 {"dns_zones", "12"},
                                                 {"dns_queries", "13"},
                                                 {"dns_pending", "2147483647"}});
}

TEST_CASE("SHOW MEM", "[admin]") {
  std::string out;
  append_show_mem(out, std::vector<MemRow>{{"server_cache", 1, 2, 3, 5'000'000'000}, {"client_cache", 4, 5, 6, 7}});
  CHECK(read_table(out).columns == Columns{"name t", "size i", "used i", "free i", "memtotal i"});
  CHECK(read_table(out).rows ==
        std::vector<Row>{{"server_cache", "1", "2", "3", "2147483647"}, {"client_cache", "4", "5", "6", "7"}});
}

TEST_CASE("SHOW DNS_HOSTS", "[admin]") {
  std::string out;
  append_show_dns_hosts(
      out, std::vector<DnsHostRow>{{"db", 7, {"127.0.0.1", "::1"}}, {"old", -3, {"127.0.0.2"}}, {"none", 0, {}}});
  CHECK(read_table(out).columns == Columns{"hostname t", "ttl q", "addrs t"});
  CHECK(read_table(out).rows ==
        std::vector<Row>{{"db", "7", "127.0.0.1,::1"}, {"old", "0", "127.0.0.2"}, {"none", "0", ""}});
}

TEST_CASE("SHOW CONFIG keeps the order it is given", "[admin]") {
  std::string out;
  append_show_config(
      out, std::vector<SettingRow>{{"user", std::nullopt, std::nullopt, true}, {"pkt_buf", "8192", "4096", false}});
  CHECK(read_table(out).columns == Columns{"key t", "value t", "default t", "changeable t"});
  CHECK(read_table(out).rows ==
        std::vector<Row>{{"user", "<null>", "<null>", "yes"}, {"pkt_buf", "8192", "4096", "no"}});
}

TEST_CASE("SHOW FDS", "[admin]") {
  FdRow pooler;
  pooler.fd = 7;
  pooler.task = "pooler";
  FdRow client{.fd = 9,
               .task = "client",
               .user = "joe",
               .database = "app",
               .addr = "127.0.0.1",
               .port = 50000,
               .cancel = 0xFFFFFFFFFFFFFFFF,
               .link = 10,
               .client_encoding = "UTF8",
               .std_strings = "on",
               .datestyle = "ISO",
               .timezone = "GMT",
               .password = "",
               .scram_client_key = "\x00\x9f\xff"s,
               .scram_server_key = ""};
  std::string out;
  append_show_fds(out, std::vector{pooler, client});
  CHECK(read_table(out).columns == Columns{"fd i", "task t", "user t", "database t", "addr t", "port i", "cancel q",
                                           "link i", "client_encoding t", "std_strings t", "datestyle t", "timezone t",
                                           "password t", "scram_client_key b", "scram_server_key b"});
  CHECK(read_table(out).rows == std::vector<Row>{{"7", "pooler", "<null>", "<null>", "<null>", "0", "0", "0", "<null>",
                                                  "<null>", "<null>", "<null>", "<null>", "<null>", "<null>"},
                                                 {"9", "client", "joe", "app", "127.0.0.1", "50000", "-1", "10", "UTF8",
                                                  "on", "ISO", "GMT", "", "\\x009fff", "\\x"}});
}

TEST_CASE("a zero byte ends a text value", "[admin]") {
  std::string out;
  append_show_users(out, std::vector<UserRow>{{"a\0b"s, {}, {}, {}, 0, 0, 0, 0}});
  CHECK(read_table(out).rows[0][0] == "a");
}
