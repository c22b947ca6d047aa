// The configuration as one immutable value: every setting of [pgbouncer] and [pgweir] as a typed field, the entries of
// [databases], [users] and [peers], and the questions the rest of the program asks of them (which value applies to this
// pool, what did a reload change, what does SHOW CONFIG print). Pure: the text of a file comes through a callback.
// It does not decide what a setting does, resolve names, or open any file that a setting names.
// Threads: a Config is never changed once it is built, so any number of threads may read it.
#pragma once

#include <boost/system/result.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "pool/time.hpp"

namespace pgweir::core {

using pool::Duration;

/// Answers with the text of a file, or with the reason why it cannot be read ("No such file or directory").
using ReadFile = std::function<boost::system::result<std::string, std::string>(const std::string& path)>;

/// One mistake in a file. `key` is what stands left of `=` on that line (empty for a broken line); `text` says what
/// would be right and never repeats a secret. `line` counts from 1; 0 means the file as a whole.
struct Problem {
  std::string file;
  int line = 0;
  std::string key;
  std::string text;
};

/// "file:line: key: text", leaving out what is empty.
[[nodiscard]] std::string to_string(const Problem& problem);

/// The console is a database of this name, with a user of this name; no entry may have it.
inline constexpr std::string_view kConsoleDatabase = "pgbouncer";
/// Why auth_query cannot run there.
inline constexpr std::string_view kReservedAuthDatabase =
    "cannot use the reserved \"pgbouncer\" database as an auth_dbname";
/// In bytes, PostgreSQL's NAMEDATALEN less the final zero.
inline constexpr std::size_t kMaxDatabaseName = 63;

enum class PoolMode { Session, Transaction, Statement };
enum class AuthType { Any, Trust, Plain, Md5, Cert, Hba, Ldap, Pam, ScramSha256 };
enum class SslMode { Disable, Allow, Prefer, Require, VerifyCa, VerifyFull };
enum class DhParams { None, Auto, Legacy };
enum class LoadBalanceHosts { RoundRobin, Disable };
enum class TargetSessionAttrs { Any, ReadWrite, ReadOnly, Primary, Standby, PreferStandby };
enum class ReadYourWrites { Off, Session, Database };
enum class HostSource { List, Patroni };

/// The word that stands for the value in the file and in SHOW output. Valid for ever.
[[nodiscard]] std::string_view to_string(PoolMode value);
[[nodiscard]] std::string_view to_string(AuthType value);
[[nodiscard]] std::string_view to_string(SslMode value);
[[nodiscard]] std::string_view to_string(DhParams value);
[[nodiscard]] std::string_view to_string(LoadBalanceHosts value);
[[nodiscard]] std::string_view to_string(TargetSessionAttrs value);
[[nodiscard]] std::string_view to_string(ReadYourWrites value);
[[nodiscard]] std::string_view to_string(HostSource value);

/// A list setting: the text as written (for SHOW CONFIG) and its items.
struct NameList {
  std::string text;
  std::vector<std::string> items;

  /// Whole word, case-sensitive.
  [[nodiscard]] bool contains(std::string_view name) const;
  friend bool operator==(const NameList&, const NameList&) = default;
};

/// Which TLS versions a *_tls_protocols setting allows; at least one is true.
struct TlsProtocols {
  std::string text = "secure";
  bool tls10 = false;
  bool tls11 = false;
  bool tls12 = true;
  bool tls13 = true;

  friend bool operator==(const TlsProtocols&, const TlsProtocols&) = default;
};

/// Where a server listens. `host` is a name, an address literal (IPv6 without brackets), "/dir" or "@name" for a Unix
/// socket; empty means the Unix socket in `unix_socket_dir`. With a Unix socket, `port` is part of the socket's name.
struct HostPort {
  std::string host;
  int port = 0;

  [[nodiscard]] bool is_unix() const { return host.empty() || host.front() == '/' || host.front() == '@'; }
  friend bool operator==(const HostPort&, const HostPort&) = default;
};

/// One line of [databases]. An empty optional inherits; ask the effective_*() functions instead of reading one.
struct DatabaseConfig {
  std::string name;                           ///< what clients ask for; "*" for the fallback
  std::optional<std::string> dbname;          ///< empty: the name the client asked for; see effective_dbname()
  std::vector<HostPort> hosts;                ///< never empty
  HostSource host_source = HostSource::List;  ///< Patroni: `hosts` serve until it has told the members of its cluster
  std::optional<std::string> user;            ///< forced server user: one pool for all clients
  std::optional<std::string> password;
  std::optional<std::string> auth_user, auth_query, auth_dbname;
  std::optional<int> pool_size, min_pool_size, reserve_pool_size;
  std::optional<int> max_db_connections, max_db_client_connections;
  std::optional<Duration> query_wait_timeout, server_lifetime;
  std::optional<PoolMode> pool_mode;
  LoadBalanceHosts load_balance_hosts = LoadBalanceHosts::RoundRobin;
  std::optional<std::string> connect_query;
  std::optional<std::string> client_encoding, datestyle, timezone, application_name;
  TargetSessionAttrs target_session_attrs = TargetSessionAttrs::Any;
  bool read_write_split = false;
  std::optional<SslMode> sslmode;
  std::optional<std::string> sslrootcert, sslcert, sslkey;

  friend bool operator==(const DatabaseConfig&, const DatabaseConfig&) = default;
};

/// One line of [users].
struct UserConfig {
  std::string name;
  std::optional<PoolMode> pool_mode;
  std::optional<int> pool_size, reserve_pool_size;
  std::optional<int> max_user_connections, max_user_client_connections;
  std::optional<Duration> transaction_timeout, idle_transaction_timeout, query_timeout;
  std::optional<Duration> query_wait_timeout, client_idle_timeout;

  friend bool operator==(const UserConfig&, const UserConfig&) = default;
};

/// One line of [peers].
struct PeerConfig {
  int id = 0;
  std::vector<HostPort> hosts;  ///< never empty
  std::optional<int> pool_size;

  friend bool operator==(const PeerConfig&, const PeerConfig&) = default;
};

struct Config {
  // [pgbouncer], in the order of SHOW CONFIG. An empty optional is a setting that was never set.
  NameList admin_users;
  bool application_name_add_host = false;
  std::optional<std::string> auth_dbname;
  std::optional<std::string> auth_file;
  std::string auth_hba_file;
  std::optional<std::string> auth_ident_file;
  std::optional<std::string> auth_ldap_options;
  std::string auth_query =
      "SELECT rolname, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END FROM pg_authid WHERE rolname=$1 "
      "AND rolcanlogin";
  AuthType auth_type = AuthType::Md5;
  std::optional<std::string> auth_user;
  Duration autodb_idle_timeout = std::chrono::seconds(3600);
  Duration cancel_wait_timeout = std::chrono::seconds(10);
  Duration client_idle_timeout{};
  Duration client_login_timeout = std::chrono::seconds(60);
  std::optional<std::string> client_tls13_ciphers;
  std::string client_tls_ca_file;
  std::string client_tls_cert_file;
  std::string client_tls_ciphers = "default";
  DhParams client_tls_dheparams = DhParams::Auto;
  std::string client_tls_ecdhcurve = "auto";
  std::string client_tls_key_file;
  TlsProtocols client_tls_protocols;
  SslMode client_tls_sslmode = SslMode::Disable;
  std::optional<std::string> conffile;
  int default_pool_size = 20;
  bool disable_pqexec = false;
  Duration dns_max_ttl = std::chrono::seconds(15);
  Duration dns_nxdomain_ttl = std::chrono::seconds(15);
  Duration dns_zone_check_period{};
  Duration idle_transaction_timeout{};
  NameList ignore_startup_parameters;
  std::string job_name = "pgbouncer";
  NameList listen_addr;
  int listen_backlog = 128;
  int listen_port = 6432;
  bool log_connections = true;
  bool log_disconnections = true;
  bool log_pooler_errors = true;
  bool log_stats = true;
  std::string logfile;
  std::string login_notify_message;
  int max_client_conn = 100;
  int max_db_client_connections = 0;
  int max_db_connections = 0;
  std::uint32_t max_packet_size = 2147483647;
  int max_prepared_statements = 200;
  int max_user_client_connections = 0;
  int max_user_connections = 0;
  int min_pool_size = 0;
  int peer_id = 0;
  std::string pidfile;
  int pkt_buf = 4096;
  PoolMode pool_mode = PoolMode::Session;
  Duration pool_idle_timeout{};
  Duration query_timeout{};
  Duration query_wait_notify = std::chrono::seconds(5);
  Duration query_wait_timeout = std::chrono::seconds(120);
  int reserve_pool_size = 0;
  Duration reserve_pool_timeout = std::chrono::seconds(5);
  std::string resolv_conf;
  int sbuf_loopcnt = 5;
  int scram_iterations = 4096;
  Duration server_check_delay = std::chrono::seconds(30);
  std::string server_check_query = "<empty>";
  Duration server_connect_timeout = std::chrono::seconds(15);
  bool server_fast_close = false;
  Duration server_idle_timeout = std::chrono::seconds(600);
  Duration server_lifetime = std::chrono::seconds(3600);
  Duration server_login_retry = std::chrono::seconds(15);
  std::string server_reset_query = "DISCARD ALL";
  bool server_reset_query_always = false;
  bool server_round_robin = false;
  std::optional<std::string> server_tls13_ciphers;
  std::string server_tls_ca_file;
  std::string server_tls_cert_file;
  std::string server_tls_ciphers = "default";
  std::string server_tls_key_file;
  TlsProtocols server_tls_protocols;
  SslMode server_tls_sslmode = SslMode::Prefer;
  bool so_reuseport = false;
  Duration stats_period = std::chrono::seconds(60);
  NameList stats_users;
  Duration suspend_timeout = std::chrono::seconds(10);
  bool syslog = false;
  std::string syslog_facility = "daemon";
  std::string syslog_ident = "pgbouncer";
  int tcp_defer_accept = 1;
  bool tcp_keepalive = true;
  int tcp_keepcnt = 0;
  Duration tcp_keepidle{};
  Duration tcp_keepintvl{};
  int tcp_socket_buffer = 0;
  Duration tcp_user_timeout{};
  NameList track_extra_parameters{"IntervalStyle", {"IntervalStyle"}};
  Duration transaction_timeout{};
  std::string unix_socket_dir = "/tmp";
  std::string unix_socket_group;
  int unix_socket_mode = 0777;
  std::optional<std::string> user;
  int verbose = 0;

  // [pgweir]
  int worker_threads = 0;  ///< 0: as many as the machine has cores, at most 8
  Duration role_check_interval = std::chrono::milliseconds(500);
  Duration role_check_timeout = std::chrono::milliseconds(1000);
  std::string role_check_user;  ///< empty: the database's forced user, or auth_user
  std::int64_t max_replica_lag_bytes = 10485760;
  Duration max_replica_lag_ms = std::chrono::milliseconds(5000);
  ReadYourWrites read_your_writes = ReadYourWrites::Session;
  Duration failover_wait_timeout = std::chrono::seconds(30);
  bool retry_reads = true;
  NameList patroni_urls;
  std::string http_listen;
  bool native_sqlstate = false;
  int max_pool_logins = 4;

  // The entries of the other sections.
  std::map<std::string, DatabaseConfig, std::less<>> databases;
  std::optional<DatabaseConfig> fallback;  ///< the entry `*`
  std::map<std::string, UserConfig, std::less<>> users;
  std::map<int, PeerConfig> peers;
};

// --- Loading ---------------------------------------------------------------------------------------------------------

/// `config` is null exactly when there are problems: a load is all or nothing.
struct LoadResult {
  std::shared_ptr<const Config> config;
  std::shared_ptr<const Config> draft;  ///< what could be understood, also when there are problems: to check on
  std::vector<Problem> problems;        ///< all: in the order of the file, then what does not fit together
  std::vector<std::string> ignored;     ///< reload: keys that need a restart and whose value in the file has changed
};

/// Reads the file `path` and what it includes. `running` is the configuration in force, null at start: settings that
/// need a restart keep its values, and those without a default keep them when their line is gone. `verbose` is the
/// command line's, for a file that says nothing about it at the start.
[[nodiscard]] LoadResult load_config(const std::string& path, const ReadFile& read_file, const Config* running,
                                     int verbose = 0);

/// Settings that are read but that the engine cannot honour yet. load_config() reports them, so nothing that an
/// operator asked for is silently left undone. File and line are empty here.
[[nodiscard]] std::vector<Problem> unsupported_settings(const Config& config);

/// Which client_tls_* settings and auth_type do not fit together. Problems have a key and no place.
[[nodiscard]] std::vector<Problem> client_tls_problems(const Config& config);

/// The console's SET: a copy of `running` with one setting changed, or the reason why not. A setting that needs a
/// restart gives an unchanged copy, as in PgBouncer. Whether the TLS settings fit together is not looked at here.
[[nodiscard]] std::variant<std::shared_ptr<const Config>, std::string> with_setting(const Config& running,
                                                                                    std::string_view key,
                                                                                    std::string_view value);

struct ConfigDiff {
  std::vector<std::string> removed_databases;  ///< drop their clients and servers ("database removed")
  std::vector<std::string> changed_databases;  ///< recycle their servers; "*": those of all auto-databases
  std::vector<std::string> added_databases;
  bool server_tls_changed = false;  ///< recycle all servers
  bool client_tls_changed = false;
};

/// What a reload has to act upon; sorted by name. The fallback goes by the name "*".
[[nodiscard]] ConfigDiff diff(const Config& old, const Config& now);

// --- SHOW CONFIG -----------------------------------------------------------------------------------------------------

/// An empty optional is printed as NULL, as PgBouncer does for a setting that was never set.
struct SettingRow {
  std::string key;
  std::optional<std::string> value;
  std::optional<std::string> default_value;
  bool changeable = false;
};

/// All rows in PgBouncer's order, [pgweir]'s after them.
[[nodiscard]] std::vector<SettingRow> show_config(const Config& config);

// --- Which value applies ---------------------------------------------------------------------------------------------

/// The entry of that name, else the fallback, else null; null also for the console's own name. The pointer lives as
/// long as `config`.
[[nodiscard]] const DatabaseConfig* find_database(const Config& config, std::string_view name);
/// Whether `database`, found by find_database, is the entry `*`: what goes by it is an automatic database.
[[nodiscard]] bool is_fallback(const Config& config, const DatabaseConfig& database);
/// The database to ask the server for when a client asked for `requested` and found `database`. The view lives as long
/// as both.
[[nodiscard]] std::string_view effective_dbname(const DatabaseConfig& database, std::string_view requested);

// `pool_user` is the user of the server connection (the forced user if there is one), `login_user` the one the client
// logged in as; either may have no entry in [users]. Sizes: 0 is unlimited. Times: 0 is off, except that a
// server_lifetime of 0 means to use a server once.
[[nodiscard]] PoolMode effective_pool_mode(const Config&, const DatabaseConfig&, std::string_view pool_user);
[[nodiscard]] int effective_pool_size(const Config&, const DatabaseConfig&, std::string_view pool_user);
[[nodiscard]] int effective_reserve_pool_size(const Config&, const DatabaseConfig&, std::string_view pool_user);
[[nodiscard]] int effective_min_pool_size(const Config&, const DatabaseConfig&);
[[nodiscard]] int effective_max_db_connections(const Config&, const DatabaseConfig&);
[[nodiscard]] int effective_max_db_client_connections(const Config&, const DatabaseConfig&);
[[nodiscard]] int effective_max_user_connections(const Config&, std::string_view pool_user);
[[nodiscard]] int effective_max_user_client_connections(const Config&, std::string_view login_user);
[[nodiscard]] Duration effective_query_wait_timeout(const Config&, const DatabaseConfig&, std::string_view login_user);
[[nodiscard]] Duration effective_server_lifetime(const Config&, const DatabaseConfig&);
[[nodiscard]] Duration effective_client_idle_timeout(const Config&, std::string_view login_user);
[[nodiscard]] Duration effective_idle_transaction_timeout(const Config&, std::string_view pool_user);
[[nodiscard]] Duration effective_transaction_timeout(const Config&, std::string_view pool_user);
[[nodiscard]] Duration effective_query_timeout(const Config&, std::string_view pool_user);
[[nodiscard]] int effective_pool_size(const Config&, const PeerConfig&);

// The per-database value, else the global one. Empty: none.
[[nodiscard]] std::string_view effective_auth_user(const Config&, const DatabaseConfig&);
[[nodiscard]] std::string_view effective_auth_query(const Config&, const DatabaseConfig&);
[[nodiscard]] std::string_view effective_auth_dbname(const Config&, const DatabaseConfig&);
[[nodiscard]] SslMode effective_server_tls_sslmode(const Config&, const DatabaseConfig&);
[[nodiscard]] std::string_view effective_server_tls_ca_file(const Config&, const DatabaseConfig&);
[[nodiscard]] std::string_view effective_server_tls_cert_file(const Config&, const DatabaseConfig&);
[[nodiscard]] std::string_view effective_server_tls_key_file(const Config&, const DatabaseConfig&);

}  // namespace pgweir::core
