// Every setting against the compatibility reference: name, order, default, type, whether a reload changes it; then SHOW
// CONFIG and SET on top of the same table.
#include <catch2/catch.hpp>
#include <fstream>
#include <set>
#include <sstream>

#include "config_test.hpp"
#include "proxy/core/config_settings.hpp"

using namespace pgweir::core;
using namespace std::chrono_literals;

namespace {

enum class Kind { Text, Bool, Integer, Seconds, Whole, Word, UnitTime };

struct Row {
  const char* name;
  Kind kind;
  const char* default_text;
  bool changeable;
};

constexpr const char* kNull = nullptr;

// clang-format off
const Row kRows[] = {
    {"admin_users", Kind::Text, "", true},
    {"application_name_add_host", Kind::Bool, "0", true},
    {"auth_dbname", Kind::Text, kNull, true},
    {"auth_file", Kind::Text, kNull, true},
    {"auth_hba_file", Kind::Text, "", true},
    {"auth_ident_file", Kind::Text, kNull, true},
    {"auth_ldap_options", Kind::Text, kNull, true},
    {"auth_query", Kind::Text, "SELECT rolname, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END FROM pg_authid "
     "WHERE rolname=$1 AND rolcanlogin", true},
    {"auth_type", Kind::Word, "md5", true},
    {"auth_user", Kind::Text, kNull, true},
    {"autodb_idle_timeout", Kind::Seconds, "3600", true},
    {"cancel_wait_timeout", Kind::Seconds, "10", true},
    {"client_idle_timeout", Kind::Seconds, "0", true},
    {"client_login_timeout", Kind::Seconds, "60", true},
    {"client_tls13_ciphers", Kind::Text, kNull, true},
    {"client_tls_ca_file", Kind::Text, "", true},
    {"client_tls_cert_file", Kind::Text, "", true},
    {"client_tls_ciphers", Kind::Text, "default", true},
    {"client_tls_dheparams", Kind::Word, "auto", true},
    {"client_tls_ecdhcurve", Kind::Text, "auto", true},
    {"client_tls_key_file", Kind::Text, "", true},
    {"client_tls_protocols", Kind::Word, "secure", true},
    {"client_tls_sslmode", Kind::Word, "disable", true},
    {"conffile", Kind::Text, kNull, true},
    {"default_pool_size", Kind::Integer, "20", true},
    {"disable_pqexec", Kind::Bool, "0", false},
    {"dns_max_ttl", Kind::Seconds, "15", true},
    {"dns_nxdomain_ttl", Kind::Seconds, "15", true},
    {"dns_zone_check_period", Kind::Seconds, "0", true},
    {"idle_transaction_timeout", Kind::Seconds, "0", true},
    {"ignore_startup_parameters", Kind::Text, "", true},
    {"job_name", Kind::Text, "pgbouncer", false},
    {"listen_addr", Kind::Text, "", false},
    {"listen_backlog", Kind::Integer, "128", false},
    {"listen_port", Kind::Integer, "6432", false},
    {"log_connections", Kind::Bool, "1", true},
    {"log_disconnections", Kind::Bool, "1", true},
    {"log_pooler_errors", Kind::Bool, "1", true},
    {"log_stats", Kind::Bool, "1", true},
    {"logfile", Kind::Text, "", true},
    {"login_notify_message", Kind::Text, "", true},
    {"max_client_conn", Kind::Integer, "100", true},
    {"max_db_client_connections", Kind::Integer, "0", true},
    {"max_db_connections", Kind::Integer, "0", true},
    {"max_packet_size", Kind::Integer, "2147483647", true},
    {"max_prepared_statements", Kind::Integer, "200", true},
    {"max_user_client_connections", Kind::Integer, "0", true},
    {"max_user_connections", Kind::Integer, "0", true},
    {"min_pool_size", Kind::Integer, "0", true},
    {"peer_id", Kind::Integer, "0", true},
    {"pidfile", Kind::Text, "", false},
    {"pkt_buf", Kind::Integer, "4096", false},
    {"pool_mode", Kind::Word, "session", true},
    {"pool_idle_timeout", Kind::Seconds, "0", true},
    {"query_timeout", Kind::Seconds, "0", true},
    {"query_wait_notify", Kind::Whole, "5", true},
    {"query_wait_timeout", Kind::Seconds, "120", true},
    {"reserve_pool_size", Kind::Integer, "0", true},
    {"reserve_pool_timeout", Kind::Seconds, "5", true},
    {"resolv_conf", Kind::Text, "", false},
    {"sbuf_loopcnt", Kind::Integer, "5", true},
    {"scram_iterations", Kind::Integer, "4096", true},
    {"server_check_delay", Kind::Seconds, "30", true},
    {"server_check_query", Kind::Text, "<empty>", true},
    {"server_connect_timeout", Kind::Seconds, "15", true},
    {"server_fast_close", Kind::Bool, "0", true},
    {"server_idle_timeout", Kind::Seconds, "600", true},
    {"server_lifetime", Kind::Seconds, "3600", true},
    {"server_login_retry", Kind::Seconds, "15", true},
    {"server_reset_query", Kind::Text, "DISCARD ALL", true},
    {"server_reset_query_always", Kind::Bool, "0", true},
    {"server_round_robin", Kind::Bool, "0", true},
    {"server_tls13_ciphers", Kind::Text, kNull, true},
    {"server_tls_ca_file", Kind::Text, "", true},
    {"server_tls_cert_file", Kind::Text, "", true},
    {"server_tls_ciphers", Kind::Text, "default", true},
    {"server_tls_key_file", Kind::Text, "", true},
    {"server_tls_protocols", Kind::Word, "secure", true},
    {"server_tls_sslmode", Kind::Word, "prefer", true},
    {"so_reuseport", Kind::Bool, "0", false},
    {"stats_period", Kind::Whole, "60", true},
    {"stats_users", Kind::Text, "", true},
    {"suspend_timeout", Kind::Seconds, "10", true},
    {"syslog", Kind::Bool, "0", true},
    {"syslog_facility", Kind::Text, "daemon", true},
    {"syslog_ident", Kind::Text, "pgbouncer", true},
    {"tcp_defer_accept", Kind::Integer, "1", true},
    {"tcp_keepalive", Kind::Bool, "1", true},
    {"tcp_keepcnt", Kind::Integer, "0", true},
    {"tcp_keepidle", Kind::Whole, "0", true},
    {"tcp_keepintvl", Kind::Whole, "0", true},
    {"tcp_socket_buffer", Kind::Integer, "0", true},
    {"tcp_user_timeout", Kind::Whole, "0", true},
    {"track_extra_parameters", Kind::Text, "IntervalStyle", false},
    {"transaction_timeout", Kind::Seconds, "0", true},
    {"unix_socket_dir", Kind::Text, "/tmp", false},
    {"unix_socket_group", Kind::Text, "", false},
    {"unix_socket_mode", Kind::Integer, "0777", false},
    {"user", Kind::Text, kNull, false},
    {"verbose", Kind::Integer, kNull, true},
    {"worker_threads", Kind::Integer, "0", false},
    {"role_check_interval", Kind::UnitTime, "500ms", true},
    {"role_check_timeout", Kind::UnitTime, "1s", true},
    {"role_check_user", Kind::Text, "", true},
    {"max_replica_lag_bytes", Kind::Integer, "10485760", true},
    {"max_replica_lag_ms", Kind::UnitTime, "5s", true},
    {"read_your_writes", Kind::Word, "session", true},
    {"failover_wait_timeout", Kind::UnitTime, "30s", true},
    {"retry_reads", Kind::Bool, "1", true},
    {"patroni_urls", Kind::Text, "", true},
    {"http_listen", Kind::Text, "", false},
    {"native_sqlstate", Kind::Bool, "0", true},
    {"max_pool_logins", Kind::Integer, "4", true},
};
// clang-format on

const Setting* find(const std::string& name) {
  const auto* setting = find_setting(Section::Pgbouncer, name);
  return setting != nullptr ? setting : find_setting(Section::Pgweir, name);
}

std::string header_of(const Setting& setting) {
  return setting.section == Section::Pgweir ? "[pgbouncer]\n[pgweir]\n" : "[pgbouncer]\n\n";
}

std::optional<SettingRow> row_of(const Config& config, const std::string& key) {
  for (const auto& row : show_config(config)) {
    if (row.key == key) return row;
  }
  return std::nullopt;
}

Config set(const Config& config, std::string_view key, std::string_view value) {
  const auto result = with_setting(config, key, value);
  INFO(key << "=" << value);
  REQUIRE(result.index() == 0);
  return *std::get<0>(result);
}

std::string set_error(std::string_view key, std::string_view value, const Config& running = {}) {
  const auto result = with_setting(running, key, value);
  return result.index() == 1 ? std::get<1>(result) : "no error";
}

}  // namespace

TEST_CASE("SHOW CONFIG has every setting of the reference in its order") {
  const Config config = good("[pgbouncer]\n");
  const auto rows = show_config(config);
  REQUIRE(rows.size() == std::size(kRows));
  for (std::size_t i = 0; i < rows.size(); ++i) {
    INFO(kRows[i].name);
    CHECK(rows[i].key == kRows[i].name);
    CHECK(rows[i].changeable == kRows[i].changeable);
    if (kRows[i].default_text == kNull) {
      CHECK_FALSE(rows[i].default_value);
    } else {
      REQUIRE(rows[i].default_value);
      CHECK(*rows[i].default_value == kRows[i].default_text);
    }
  }
}

TEST_CASE("values at their defaults are shown like PgBouncer's") {
  const auto rows = show_config(good("[pgbouncer]\n"));
  for (const auto& row : rows) {
    INFO(row.key);
    if (row.key == "conffile") {
      CHECK(row.value == "main.ini");
    } else if (row.key == "verbose") {
      CHECK(row.value == "0");
    } else if (row.key == "unix_socket_mode") {
      CHECK(row.value == "511");
    } else {
      CHECK(row.value == row.default_value);
    }
  }
}

TEST_CASE("the default text of a setting means what its field holds") {
  const Config defaults;
  for (const auto& setting : settings()) {
    INFO(setting.name);
    if (!setting.default_text) continue;
    Config config;
    CHECK(assign_setting(config, setting, *setting.default_text) == std::nullopt);
    CHECK(same_setting(config, defaults, setting));
  }
}

TEST_CASE("every setting refuses text that is not of its type, with file, line and key") {
  for (const auto& row : kRows) {
    const auto* setting = find(row.name);
    REQUIRE(setting != nullptr);
    const auto result = load(header_of(*setting) + row.name + " = abc\n");
    INFO(row.name << "\n" << problems_of(result));
    if (row.name == std::string_view("auth_ldap_options")) continue;  // text with a form of its own
    if (row.kind == Kind::Text) {
      if (row.name == std::string_view("patroni_urls")) continue;  // as well
      // Text takes anything; http_listen is refused for another reason.
      for (const auto& problem : result.problems) CHECK(problem.text.find("not supported yet") != std::string::npos);
      continue;
    }
    CHECK(result.config == nullptr);
    REQUIRE(result.problems.size() == 1);
    const auto& problem = result.problems.front();
    CHECK(problem.file == "main.ini");
    CHECK(problem.line == 3);
    CHECK(problem.key == row.name);
    switch (row.kind) {
      case Kind::Bool:
        CHECK(problem.text.starts_with("expected 0 or 1"));
        break;
      case Kind::Seconds:
        CHECK(problem.text == "expected a number of seconds, got \"abc\"");
        break;
      case Kind::Integer:
      case Kind::Whole:
        CHECK(problem.text.starts_with("expected a whole number"));
        break;
      case Kind::UnitTime:
        CHECK(problem.text.starts_with("expected a time from"));
        break;
      case Kind::Word:
        CHECK(problem.text.starts_with("expected "));
        break;
      case Kind::Text:
        break;
    }
  }
}

TEST_CASE("numbers, times and booleans refuse what is empty or negative") {
  for (const auto& row : kRows) {
    const auto* setting = find(row.name);
    REQUIRE(setting != nullptr);
    INFO(row.name);
    Config config;
    if (row.kind != Kind::Text) CHECK(assign_setting(config, *setting, "") != std::nullopt);
    const bool number = row.kind != Kind::Text && row.kind != Kind::Bool && row.kind != Kind::Word;
    if (number) {
      CHECK(assign_setting(config, *setting, "-1") != std::nullopt);
      CHECK(assign_setting(config, *setting, "99999999999999999999") != std::nullopt);
    }
    CHECK(same_setting(config, Config{}, *setting));
  }
}

TEST_CASE("typed values") {
  const Config config = good(R"([pgbouncer]
admin_users = alice, bob carol,,dave
listen_addr = 127.0.0.1 , ::1
listen_port = 0x1000
unix_socket_mode = 0700
query_timeout = 1.5
tcp_user_timeout = 1500
tcp_keepidle = 60
auth_type = SCRAM-sha-256
pool_mode = Statement
server_tls_sslmode = verify-ca
client_tls_dheparams = legacy
server_tls_protocols = tlsv1.1,tlsv1.2
client_tls_protocols = !tlsv1.0:!tlsv1.1
log_stats = off
log_connections = 2
auth_file = users.txt
verbose = 1
max_packet_size = 2147483646
server_reset_query =
syslog = YES
[pgweir]
role_check_interval = 250
role_check_timeout = 2s
max_replica_lag_ms = 1.5 s
failover_wait_timeout = 2
read_your_writes = database
)");
  CHECK(config.admin_users.items == std::vector<std::string>{"alice", "bob", "carol", "dave"});
  CHECK(config.admin_users.contains("bob"));
  CHECK_FALSE(config.admin_users.contains("Bob"));
  CHECK_FALSE(config.admin_users.contains("bo"));
  CHECK(config.listen_addr.items == std::vector<std::string>{"127.0.0.1", "::1"});
  CHECK(config.listen_port == 4096);
  CHECK(config.unix_socket_mode == 0700);
  CHECK(config.query_timeout == 1500ms);
  CHECK(config.tcp_user_timeout == 1500ms);
  CHECK(config.tcp_keepidle == 60s);
  CHECK(config.auth_type == AuthType::ScramSha256);
  CHECK(config.pool_mode == PoolMode::Statement);
  CHECK(config.server_tls_sslmode == SslMode::VerifyCa);
  CHECK(config.client_tls_dheparams == DhParams::Legacy);
  CHECK(config.server_tls_protocols == TlsProtocols{"tlsv1.1,tlsv1.2", false, true, true, false});
  CHECK(config.client_tls_protocols == TlsProtocols{"!tlsv1.0:!tlsv1.1", false, false, true, true});
  CHECK_FALSE(config.log_stats);
  CHECK(config.log_connections);
  CHECK(config.auth_file == "users.txt");
  CHECK(config.verbose == 1);
  CHECK(config.max_packet_size == 2147483646u);
  CHECK(config.server_reset_query.empty());
  CHECK(config.syslog);
  CHECK(config.role_check_interval == 250ms);
  CHECK(config.role_check_timeout == 2s);
  CHECK(config.max_replica_lag_ms == 1500ms);
  CHECK(config.failover_wait_timeout == 2s);
  CHECK(config.read_your_writes == ReadYourWrites::Database);

  CHECK(row_of(config, "listen_port")->value == "4096");
  CHECK(row_of(config, "query_timeout")->value == "1.5");
  CHECK(row_of(config, "tcp_user_timeout")->value == "1500");
  CHECK(row_of(config, "auth_type")->value == "scram-sha-256");
  CHECK(row_of(config, "admin_users")->value == "alice, bob carol,,dave");
  CHECK(row_of(config, "log_connections")->value == "1");
  CHECK(row_of(config, "max_replica_lag_ms")->value == "1500ms");
}

TEST_CASE("every word of the enumerations is read and shown") {
  for (const auto* mode : {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}) {
    CHECK(row_of(set(Config{}, "server_tls_sslmode", mode), "server_tls_sslmode")->value == mode);
  }
  for (const auto* type : {"any", "trust", "plain", "md5", "scram-sha-256"}) {
    CHECK(row_of(set(Config{}, "auth_type", type), "auth_type")->value == type);
  }
  for (const auto* mode : {"session", "transaction", "statement"}) {
    CHECK(row_of(set(Config{}, "pool_mode", mode), "pool_mode")->value == mode);
  }
  for (const auto* word : {"none", "auto", "legacy"}) {
    CHECK(row_of(set(Config{}, "client_tls_dheparams", word), "client_tls_dheparams")->value == word);
  }
  for (const auto* word : {"off", "session", "database"}) {
    CHECK(row_of(set(Config{}, "read_your_writes", word), "read_your_writes")->value == word);
  }
}

TEST_CASE("TLS versions") {
  const auto versions = [](const char* text) {
    const auto tls = set(Config{}, "client_tls_protocols", text).client_tls_protocols;
    return std::vector<bool>{tls.tls10, tls.tls11, tls.tls12, tls.tls13};
  };
  CHECK(versions("secure") == std::vector<bool>{false, false, true, true});
  CHECK(versions("default") == std::vector<bool>{false, false, true, true});
  CHECK(versions("all") == std::vector<bool>{true, true, true, true});
  CHECK(versions("TLSv1") == std::vector<bool>{true, true, true, true});
  CHECK(versions("all,!tlsv1.0") == std::vector<bool>{false, true, true, true});
  CHECK(versions("tlsv1.3") == std::vector<bool>{false, false, false, true});
  CHECK(set_error("client_tls_protocols", "legacy").find("expected TLS versions") != std::string::npos);
  CHECK(set_error("client_tls_protocols", "all,!all").find("expected TLS versions") != std::string::npos);
}

TEST_CASE("times of [pgweir] take PostgreSQL's units") {
  const auto lag = [](const char* text) { return set(Config{}, "max_replica_lag_ms", text).max_replica_lag_ms; };
  CHECK(lag("7") == 7ms);
  CHECK(lag("1500us") == 1500us);
  CHECK(lag("3s") == 3s);
  CHECK(lag("2min") == 120s);
  CHECK(lag("1h") == 3600s);
  CHECK(lag("1d") == 24h);
  CHECK(lag("0.5 min") == 30s);
  for (const auto* bad : {"5m", "5 S", "s", "5s 3", "-5s", "1e999", "nan", "inf", "2000d"}) {
    INFO(bad);
    CHECK(set_error("max_replica_lag_ms", bad).find("expected a time from 0 to 365d") != std::string::npos);
  }
  CHECK(set_error("role_check_interval", "1ms").find("from 10ms to 1d") != std::string::npos);
}

TEST_CASE("times of [pgbouncer] take no unit") {
  for (const auto* bad : {"5s", "5min", "1.5.2", "0x10", "inf", "nan", "1e10", "5 "}) {
    INFO(bad);
    CHECK(set_error("query_timeout", bad).find("expected a number of seconds") != std::string::npos);
  }
  CHECK(set(Config{}, "query_timeout", ".25").query_timeout == 250ms);
  CHECK(set(Config{}, "query_timeout", "1e3").query_timeout == 1000s);
  CHECK(row_of(set(Config{}, "query_timeout", "1234567.5"), "query_timeout")->value == "1.23457e+06");
}

TEST_CASE("booleans") {
  for (const auto* yes : {"1", "2", "-1", "yes", "ON", "True"}) CHECK(set(Config{}, "syslog", yes).syslog);
  for (const auto* no : {"0", "0x0", "no", "off", "FALSE"}) CHECK_FALSE(set(Config{}, "syslog", no).syslog);
  for (const auto* bad : {"y", "t", "enabled", "1 ; x"}) CHECK(set_error("syslog", bad) != "no error");
}

TEST_CASE("a trailing comment is explained") {
  CHECK(
      set_error("max_client_conn", "100 ; plenty") ==
      "max_client_conn: expected a whole number, 0 or more, got \"100 ; plenty\" (a comment needs a line of its own)");
}

TEST_CASE("bounds") {
  CHECK(set_error("peer_id", "65536").find("from 0 to 65535") != std::string::npos);
  CHECK(set_error("scram_iterations", "0").find("from 1 to") != std::string::npos);
  CHECK(set_error("max_pool_logins", "0").find("from 1 to 1000") != std::string::npos);
  CHECK(set_error("max_packet_size", "4294967296") != "no error");
  CHECK(problems_of("[pgbouncer]\nlisten_port = 65536\n").find("from 1 to 65535") != std::string::npos);
  CHECK(problems_of("[pgbouncer]\nlisten_port = 08\n").find("from 1 to 65535") != std::string::npos);
  CHECK(problems_of("[pgbouncer]\nunix_socket_mode = 010000\n").find("from 0 to 4095") != std::string::npos);
}

TEST_CASE("the console's database is refused as auth_dbname") {
  CHECK(set_error("auth_dbname", "pgbouncer").find("cannot use the reserved") != std::string::npos);
  CHECK(set(Config{}, "auth_dbname", "auth").auth_dbname == "auth");
}

TEST_CASE("SET changes one setting of a copy") {
  Config running;
  running.databases["app"] = DatabaseConfig{};
  const Config changed = set(running, "default_pool_size", "7");
  CHECK(changed.default_pool_size == 7);
  CHECK(changed.databases.contains("app"));
  CHECK(running.default_pool_size == 20);
  CHECK(set(running, "conffile", "other.ini").conffile == "other.ini");
  CHECK(set(running, "max_pool_logins", "8").max_pool_logins == 8);
  // Whether TLS settings fit together is for the one who applies them.
  CHECK(set(running, "client_tls_sslmode", "require").client_tls_sslmode == SslMode::Require);
}

TEST_CASE("SET of a setting that needs a restart succeeds and does nothing") {
  CHECK(set(Config{}, "listen_port", "7777").listen_port == 6432);
  CHECK(set(Config{}, "listen_port", "nonsense").listen_port == 6432);
}

TEST_CASE("SET fails for an unknown key, a bad value and what is not supported") {
  CHECK(set_error("default_pool_sise", "1") ==
        "unknown setting \"default_pool_sise\" (did you mean \"default_pool_size\"?)");
  CHECK(set_error("zzzzzzzzzzzz", "1") == "unknown setting \"zzzzzzzzzzzz\"");
  CHECK(set_error("default_pool_size", "many") ==
        "default_pool_size: expected a whole number, 0 or more, got \"many\"");
  CHECK(set_error("patroni_urls", "http://h, h:8008") ==
        "patroni_urls: expected http://host:port or https://host:port, got \"h:8008\"");
  CHECK(set(Config{}, "patroni_urls", "http://h, https://i:1").patroni_urls.items.size() == 2);
}

TEST_CASE("what the engine cannot do is reported with its line") {
  for (const std::string type : {"ldap", "hba", "pam"}) {
    CHECK(problems_of("[pgbouncer]\n\nauth_type = " + type + "\n").empty());
  }
  CHECK(problems_of("[pgbouncer]\n[pgweir]\npatroni_urls = http://127.0.0.1:8008\nhttp_listen = 127.0.0.1:9\n") ==
        "main.ini:4: http_listen: not supported yet; expected no value\n");
  CHECK(problems_of("[databases]\na = read_write_split=0 target_session_attrs=any\n[pgbouncer]\n").empty());
  Config config;
  config.http_listen = "x";
  CHECK(unsupported_settings(config).size() == 1);
  CHECK(unsupported_settings(Config{}).empty());
}

TEST_CASE("databases that are routed by role need somebody who asks for the roles") {
  const std::string wanted =
      "expected role_check_user in [pgweir], or user= here, or auth_user: the hosts are asked for their roles as that "
      "user\n";
  CHECK(problems_of("[databases]\na = read_write_split=1\n* = target_session_attrs=primary\n[pgbouncer]\n") ==
        "main.ini:2: a: read_write_split: " + wanted + "main.ini:3: *: target_session_attrs: " + wanted);
  CHECK(problems_of("[databases]\na = user=u read_write_split=1\n[pgbouncer]\n").empty());
  CHECK(problems_of("[databases]\na = auth_user=u read_write_split=1\n[pgbouncer]\n").empty());
  CHECK(problems_of("[databases]\na = read_write_split=1\n[pgbouncer]\nauth_user=u\n").empty());
  const Config config = good("[databases]\na = read_write_split=1\n[pgbouncer]\n[pgweir]\nrole_check_user=u\n");
  CHECK(set_error("role_check_user", "", config) ==
        "role_check_user: database \"a\": read_write_split: " + wanted.substr(0, wanted.size() - 1));
}

TEST_CASE("a host that is listed twice would look like two primaries") {
  const std::string text = "[databases]\na = host=h,i,h port=1,1,1 user=u target_session_attrs=primary\n[pgbouncer]\n";
  CHECK(problems_of(text) ==
        "main.ini:2: a: host: h:1 is listed twice; target_session_attrs needs to tell the hosts apart\n");
  CHECK(
      problems_of("[databases]\na = host=h,i,h port=1,1,2 user=u target_session_attrs=primary\n[pgbouncer]\n").empty());
  CHECK(problems_of("[databases]\na = host=h,i,h port=1,1,1\n[pgbouncer]\n").empty());
}

TEST_CASE("TLS settings for clients must fit together") {
  CHECK(problems_of("[pgbouncer]\nclient_tls_sslmode = require\n") ==
        "main.ini:2: client_tls_sslmode: expected client_tls_key_file to be set as well\n"
        "main.ini:2: client_tls_sslmode: expected client_tls_cert_file to be set as well\n");
  const std::string files = "client_tls_key_file = k\nclient_tls_cert_file = c\n";
  CHECK(problems_of("[pgbouncer]\nclient_tls_sslmode = verify-full\n" + files).find("client_tls_ca_file") !=
        std::string::npos);
  CHECK(problems_of("[pgbouncer]\nclient_tls_sslmode = verify-full\nclient_tls_ca_file = a\n" + files).empty());
}

TEST_CASE("auth_type = cert needs clients with certificates") {
  const std::string files = "client_tls_key_file = k\nclient_tls_cert_file = c\n";
  CHECK(problems_of("[pgbouncer]\nauth_type = cert\n") ==
        "main.ini: client_tls_ca_file: expected a file of CA certificates to verify clients with\n"
        "main.ini:2: auth_type: cert expects client_tls_sslmode = verify-full\n");
  CHECK(problems_of("[pgbouncer]\nauth_type = cert\nclient_tls_sslmode = verify-ca\nclient_tls_ca_file = a\n" +
                    files) == "main.ini:2: auth_type: cert expects client_tls_sslmode = verify-full\n");
  CHECK(
      problems_of("[pgbouncer]\nauth_type = cert\nclient_tls_sslmode = verify-full\nclient_tls_ca_file =\n" + files) ==
      "main.ini:4: client_tls_ca_file: expected a file of CA certificates to verify clients with\n");
  const Config config =
      good("[pgbouncer]\nauth_type = cert\nclient_tls_sslmode = verify-full\nclient_tls_ca_file = a\n" + files);
  CHECK(client_tls_problems(config).empty());
  // What SET may lead to.
  const auto problems = client_tls_problems(set(config, "client_tls_sslmode", "require"));
  REQUIRE(problems.size() == 1);
  CHECK(to_string(problems.front()) == "auth_type: cert expects client_tls_sslmode = verify-full");
  CHECK(client_tls_problems(set(Config{}, "auth_type", "cert")).size() == 2);
}

TEST_CASE("the example files are right") {
  const std::string conf = PGWEIR_CONF "/pgweir.ini";
  std::ifstream file(conf);
  REQUIRE(file);
  std::stringstream text;
  text << file.rdbuf();
  // As shipped, and with every example line that is commented out by a single ; switched on.
  const auto config = good(text.str());
  CHECK(config.databases.at("app").hosts == std::vector<HostPort>{{"127.0.0.1", 5432}});
  CHECK(config.pool_mode == PoolMode::Transaction);
  CHECK(config.default_pool_size == 25);
  CHECK(config.reserve_pool_size == 5);
  CHECK(config.reserve_pool_timeout == 3s);
  CHECK(config.max_client_conn == 1000);
  std::string all, line;
  while (std::getline(text, line)) {
    const bool example = line.size() > 1 && line[0] == ';' && line[1] != ';';
    all += (example ? line.substr(1) : line) + "\n";
  }
  CHECK(problems_of(all).empty());
}
