// The table itself, and the operations that visit a setting's field by its type.
#include "proxy/core/config_settings.hpp"

#include <fmt/format.h>

#include <array>
#include <concepts>
#include <type_traits>
#include <utility>

#include "proxy/core/ldap_options.hpp"
#include "proxy/core/patroni.hpp"

namespace pgweir::core {
namespace {

constexpr auto kNull = std::nullopt;
constexpr std::int64_t kMaxInt64 = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kMs = 1000;
constexpr std::int64_t kSecond = 1'000'000;
constexpr std::int64_t kDay = 86'400 * kSecond;

using Default = std::optional<std::string_view>;

constexpr Setting on(std::string_view name, Field field, Default text) {
  Setting setting{};
  setting.name = name;
  setting.field = field;
  setting.default_text = text;
  return setting;
}

constexpr Setting integer(std::string_view name, Field field, Default text, std::int64_t min,
                          std::int64_t max = std::numeric_limits<int>::max()) {
  Setting setting = on(name, field, text);
  setting.min = min;
  setting.max = max;
  return setting;
}

constexpr Setting time(std::string_view name, Field field, Default text, TimeForm form = TimeForm::Seconds,
                       std::int64_t max = std::numeric_limits<int>::max()) {
  Setting setting = on(name, field, text);
  setting.time_form = form;
  setting.max = max;
  return setting;
}

constexpr Setting commas(std::string_view name, Field field, Default text) {
  Setting setting = on(name, field, text);
  setting.list_form = ListForm::Commas;
  return setting;
}

/// Needs a restart.
constexpr Setting fixed(Setting setting) {
  setting.reloadable = false;
  return setting;
}

constexpr Setting pgweir(Setting setting) {
  setting.section = Section::Pgweir;
  return setting;
}

constexpr Setting unit_time(std::string_view name, Field field, Default text, TimeForm form, std::int64_t min,
                            std::int64_t max) {
  Setting setting = time(name, field, text, form, max);
  setting.min = min;
  return pgweir(setting);
}

using C = Config;

constexpr std::array kSettings{
    on("admin_users", &C::admin_users, ""),
    on("application_name_add_host", &C::application_name_add_host, "0"),
    on("auth_dbname", &C::auth_dbname, kNull),
    on("auth_file", &C::auth_file, kNull),
    on("auth_hba_file", &C::auth_hba_file, ""),
    on("auth_ident_file", &C::auth_ident_file, kNull),
    on("auth_ldap_options", &C::auth_ldap_options, kNull),
    on("auth_query", &C::auth_query,
       "SELECT rolname, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END FROM pg_authid "
       "WHERE rolname=$1 AND rolcanlogin"),
    on("auth_type", &C::auth_type, "md5"),
    on("auth_user", &C::auth_user, kNull),
    time("autodb_idle_timeout", &C::autodb_idle_timeout, "3600"),
    time("cancel_wait_timeout", &C::cancel_wait_timeout, "10"),
    time("client_idle_timeout", &C::client_idle_timeout, "0"),
    time("client_login_timeout", &C::client_login_timeout, "60"),
    on("client_tls13_ciphers", &C::client_tls13_ciphers, kNull),
    on("client_tls_ca_file", &C::client_tls_ca_file, ""),
    on("client_tls_cert_file", &C::client_tls_cert_file, ""),
    on("client_tls_ciphers", &C::client_tls_ciphers, "default"),
    on("client_tls_dheparams", &C::client_tls_dheparams, "auto"),
    on("client_tls_ecdhcurve", &C::client_tls_ecdhcurve, "auto"),
    on("client_tls_key_file", &C::client_tls_key_file, ""),
    on("client_tls_protocols", &C::client_tls_protocols, "secure"),
    on("client_tls_sslmode", &C::client_tls_sslmode, "disable"),
    on("conffile", &C::conffile, kNull),
    integer("default_pool_size", &C::default_pool_size, "20", 0),
    fixed(on("disable_pqexec", &C::disable_pqexec, "0")),
    time("dns_max_ttl", &C::dns_max_ttl, "15"),
    time("dns_nxdomain_ttl", &C::dns_nxdomain_ttl, "15"),
    time("dns_zone_check_period", &C::dns_zone_check_period, "0"),
    time("idle_transaction_timeout", &C::idle_transaction_timeout, "0"),
    on("ignore_startup_parameters", &C::ignore_startup_parameters, ""),
    fixed(on("job_name", &C::job_name, "pgbouncer")),
    fixed(commas("listen_addr", &C::listen_addr, "")),
    fixed(integer("listen_backlog", &C::listen_backlog, "128", 0)),
    fixed(integer("listen_port", &C::listen_port, "6432", 1, 65535)),
    on("log_connections", &C::log_connections, "1"),
    on("log_disconnections", &C::log_disconnections, "1"),
    on("log_pooler_errors", &C::log_pooler_errors, "1"),
    on("log_stats", &C::log_stats, "1"),
    on("logfile", &C::logfile, ""),
    on("login_notify_message", &C::login_notify_message, ""),
    integer("max_client_conn", &C::max_client_conn, "100", 0),
    integer("max_db_client_connections", &C::max_db_client_connections, "0", 0),
    integer("max_db_connections", &C::max_db_connections, "0", 0),
    integer("max_packet_size", &C::max_packet_size, "2147483647", 16),
    integer("max_prepared_statements", &C::max_prepared_statements, "200", 0),
    integer("max_user_client_connections", &C::max_user_client_connections, "0", 0),
    integer("max_user_connections", &C::max_user_connections, "0", 0),
    integer("min_pool_size", &C::min_pool_size, "0", 0),
    integer("peer_id", &C::peer_id, "0", 0, 65535),
    fixed(on("pidfile", &C::pidfile, "")),
    fixed(integer("pkt_buf", &C::pkt_buf, "4096", 64, 64 << 20)),
    on("pool_mode", &C::pool_mode, "session"),
    time("pool_idle_timeout", &C::pool_idle_timeout, "0"),
    time("query_timeout", &C::query_timeout, "0"),
    time("query_wait_notify", &C::query_wait_notify, "5", TimeForm::WholeSeconds),
    time("query_wait_timeout", &C::query_wait_timeout, "120"),
    integer("reserve_pool_size", &C::reserve_pool_size, "0", 0),
    time("reserve_pool_timeout", &C::reserve_pool_timeout, "5"),
    fixed(on("resolv_conf", &C::resolv_conf, "")),
    integer("sbuf_loopcnt", &C::sbuf_loopcnt, "5", 0),
    integer("scram_iterations", &C::scram_iterations, "4096", 1, 10'000'000),
    time("server_check_delay", &C::server_check_delay, "30"),
    on("server_check_query", &C::server_check_query, "<empty>"),
    time("server_connect_timeout", &C::server_connect_timeout, "15"),
    on("server_fast_close", &C::server_fast_close, "0"),
    time("server_idle_timeout", &C::server_idle_timeout, "600"),
    time("server_lifetime", &C::server_lifetime, "3600"),
    time("server_login_retry", &C::server_login_retry, "15"),
    on("server_reset_query", &C::server_reset_query, "DISCARD ALL"),
    on("server_reset_query_always", &C::server_reset_query_always, "0"),
    on("server_round_robin", &C::server_round_robin, "0"),
    on("server_tls13_ciphers", &C::server_tls13_ciphers, kNull),
    on("server_tls_ca_file", &C::server_tls_ca_file, ""),
    on("server_tls_cert_file", &C::server_tls_cert_file, ""),
    on("server_tls_ciphers", &C::server_tls_ciphers, "default"),
    on("server_tls_key_file", &C::server_tls_key_file, ""),
    on("server_tls_protocols", &C::server_tls_protocols, "secure"),
    on("server_tls_sslmode", &C::server_tls_sslmode, "prefer"),
    fixed(on("so_reuseport", &C::so_reuseport, "0")),
    time("stats_period", &C::stats_period, "60", TimeForm::WholeSeconds),
    on("stats_users", &C::stats_users, ""),
    time("suspend_timeout", &C::suspend_timeout, "10"),
    on("syslog", &C::syslog, "0"),
    on("syslog_facility", &C::syslog_facility, "daemon"),
    on("syslog_ident", &C::syslog_ident, "pgbouncer"),
    integer("tcp_defer_accept", &C::tcp_defer_accept, "1", 0),
    on("tcp_keepalive", &C::tcp_keepalive, "1"),
    integer("tcp_keepcnt", &C::tcp_keepcnt, "0", 0, 127),
    time("tcp_keepidle", &C::tcp_keepidle, "0", TimeForm::WholeSeconds, 32767),
    time("tcp_keepintvl", &C::tcp_keepintvl, "0", TimeForm::WholeSeconds, 32767),
    integer("tcp_socket_buffer", &C::tcp_socket_buffer, "0", 0),
    time("tcp_user_timeout", &C::tcp_user_timeout, "0", TimeForm::WholeMilliseconds),
    fixed(commas("track_extra_parameters", &C::track_extra_parameters, "IntervalStyle")),
    time("transaction_timeout", &C::transaction_timeout, "0"),
    fixed(on("unix_socket_dir", &C::unix_socket_dir, "/tmp")),
    fixed(on("unix_socket_group", &C::unix_socket_group, "")),
    fixed(integer("unix_socket_mode", &C::unix_socket_mode, "0777", 0, 07777)),
    fixed(on("user", &C::user, kNull)),
    integer("verbose", &C::verbose, kNull, 0),

    pgweir(fixed(integer("worker_threads", &C::worker_threads, "0", 0, 64))),
    unit_time("role_check_interval", &C::role_check_interval, "500ms", TimeForm::Milliseconds, 10 * kMs, kDay),
    unit_time("role_check_timeout", &C::role_check_timeout, "1s", TimeForm::Milliseconds, 10 * kMs, kDay),
    pgweir(on("role_check_user", &C::role_check_user, "")),
    pgweir(integer("max_replica_lag_bytes", &C::max_replica_lag_bytes, "10485760", 0, kMaxInt64)),
    unit_time("max_replica_lag_ms", &C::max_replica_lag_ms, "5s", TimeForm::Milliseconds, 0, 365 * kDay),
    pgweir(on("read_your_writes", &C::read_your_writes, "session")),
    unit_time("failover_wait_timeout", &C::failover_wait_timeout, "30s", TimeForm::UnitSeconds, 0, 365 * kDay),
    pgweir(on("retry_reads", &C::retry_reads, "1")),
    pgweir(commas("patroni_urls", &C::patroni_urls, "")),
    pgweir(fixed(on("http_listen", &C::http_listen, ""))),
    pgweir(on("native_sqlstate", &C::native_sqlstate, "0")),
    pgweir(integer("max_pool_logins", &C::max_pool_logins, "4", 1, 1000)),
};

// One read() for each type of field.

template <typename T>
Parsed<T> read_number(const Setting& setting, std::string_view text) {
  const auto value = parse_integer(text, setting.min, setting.max);
  if (!value) return value.error();
  return static_cast<T>(*value);
}
Parsed<int> read(const Setting& setting, std::string_view text, const int*) {
  return read_number<int>(setting, text);
}
Parsed<std::uint32_t> read(const Setting& setting, std::string_view text, const std::uint32_t*) {
  return read_number<std::uint32_t>(setting, text);
}
Parsed<std::int64_t> read(const Setting& setting, std::string_view text, const std::int64_t*) {
  return read_number<std::int64_t>(setting, text);
}
Parsed<bool> read(const Setting&, std::string_view text, const bool*) {
  return parse_bool(text);
}
Parsed<TlsProtocols> read(const Setting&, std::string_view text, const TlsProtocols*) {
  return parse_tls_protocols(text);
}
Parsed<NameList> read(const Setting& setting, std::string_view text, const NameList*) {
  return parse_list(text, setting.list_form);
}
template <typename Enum>
requires std::is_enum_v<Enum> Parsed<Enum> read(const Setting&, std::string_view text, const Enum*) {
  return parse_word<Enum>(text);
}

Parsed<Duration> read(const Setting& setting, std::string_view text, const Duration*) {
  const auto whole = [&](auto unit) -> Parsed<Duration> {
    const auto value = parse_integer(text, setting.min, setting.max);
    if (!value) return value.error();
    return Duration(unit * *value);
  };
  const Duration min(setting.min), max(setting.max);
  switch (setting.time_form) {
    case TimeForm::Seconds:
      return parse_seconds(text);
    case TimeForm::WholeSeconds:
      return whole(std::chrono::seconds(1));
    case TimeForm::WholeMilliseconds:
      return whole(std::chrono::milliseconds(1));
    case TimeForm::Milliseconds:
      return parse_duration(text, "ms", min, max);
    case TimeForm::UnitSeconds:
      return parse_duration(text, "s", min, max);
  }
  return parse_seconds(text);
}

template <typename T>
std::optional<std::string> assign(Config& config, T Config::*field, const Setting& setting, std::string_view text) {
  if constexpr (std::is_same_v<T, std::string> || std::is_same_v<T, std::optional<std::string>>) {
    config.*field = std::string(text);
  } else {
    auto value = read(setting, text, &(config.*field));
    if (!value) return value.error();
    config.*field = std::move(*value);
  }
  return std::nullopt;
}

// One show() for each type of field.

std::optional<std::string> show(const Setting&, bool value) {
  return value ? "1" : "0";
}
template <std::integral T>
std::optional<std::string> show(const Setting&, T value) {
  return fmt::format("{}", value);
}
std::optional<std::string> show(const Setting&, const std::string& value) {
  return value;
}
std::optional<std::string> show(const Setting&, const std::optional<std::string>& value) {
  return value;
}
std::optional<std::string> show(const Setting&, const NameList& value) {
  return value.text;
}
std::optional<std::string> show(const Setting&, const TlsProtocols& value) {
  return value.text;
}
template <typename Enum>
requires std::is_enum_v<Enum> std::optional<std::string> show(const Setting&, Enum value) {
  return std::string(to_string(value));
}
std::optional<std::string> show(const Setting& setting, Duration value) {
  switch (setting.time_form) {
    case TimeForm::Seconds:
      return format_seconds(value);
    case TimeForm::WholeSeconds:
      return fmt::format("{}", value.count() / kSecond);
    case TimeForm::WholeMilliseconds:
      return fmt::format("{}", value.count() / kMs);
    case TimeForm::Milliseconds:
    case TimeForm::UnitSeconds:
      break;
  }
  return format_duration(value);
}

}  // namespace

std::span<const Setting> settings() {
  return kSettings;
}

const Setting* find_setting(Section section, std::string_view name) {
  for (const auto& setting : kSettings) {
    if (setting.section == section && setting.name == name) return &setting;
  }
  return nullptr;
}

std::optional<std::string> assign_setting(Config& config, const Setting& setting, std::string_view text) {
  if (setting.name == "auth_dbname" && text == kConsoleDatabase) {
    return std::string(kReservedAuthDatabase);
  }
  if (setting.name == "auth_ldap_options" && !text.empty()) {
    auto parsed = parse_ldap_options(text);
    if (parsed.has_error()) return std::move(parsed.error());
  }
  if (setting.name == "patroni_urls") {
    for (const std::string& item : parse_list(text, setting.list_form).items) {
      if (auto url = parse_patroni_url(item); !url) return std::move(url.error());
    }
  }
  return std::visit([&](auto field) { return assign(config, field, setting, text); }, setting.field);
}

std::optional<std::string> format_setting(const Config& config, const Setting& setting) {
  return std::visit([&](auto field) { return show(setting, config.*field); }, setting.field);
}

void copy_setting(Config& to, const Config& from, const Setting& setting) {
  std::visit([&](auto field) { to.*field = from.*field; }, setting.field);
}

bool same_setting(const Config& a, const Config& b, const Setting& setting) {
  return std::visit([&](auto field) { return a.*field == b.*field; }, setting.field);
}

}  // namespace pgweir::core
