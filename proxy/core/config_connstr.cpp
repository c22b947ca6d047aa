// Implements config_connstr.hpp. Numbers are decimal and times are whole seconds here, unlike in [pgbouncer]; what
// PgBouncer would silently take for 0 is refused. Host and port lists are as in the PostgreSQL manual, "Specifying
// Multiple Hosts". No reason repeats the text of a value that could be a password.
#include "proxy/core/config_connstr.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <span>

#include "proxy/core/config_settings.hpp"
#include "proxy/core/config_values.hpp"

namespace pgweir::core {
namespace {

constexpr int kMaxInt = std::numeric_limits<int>::max();
constexpr std::size_t kMaxUserName = 127;
constexpr int kDefaultServerPort = 5432;
constexpr int kDefaultPeerPort = 6432;

using Reason = std::optional<std::string>;

void skip_spaces(std::string_view& text) {
  text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
}

bool is_word_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

// Takes a 'quoted' value off the front of `text`; empty if its end is missing.
std::optional<std::string> take_quoted(std::string_view& text) {
  std::string value;
  for (std::size_t i = 1; i < text.size(); ++i) {
    if (text[i] != '\'') {
      value += text[i];
    } else if (i + 1 < text.size() && text[i + 1] == '\'') {
      value += text[++i];
    } else {
      text.remove_prefix(i + 1);
      return value;
    }
  }
  return std::nullopt;
}

Reason take_value(std::string_view& text, std::string_view key, std::string& value) {
  if (text.starts_with('\'')) {
    auto taken = take_quoted(text);
    if (!taken) return fmt::format("{}: the closing quote is missing", key);
    value = std::move(*taken);
    // PgBouncer swallows any one character here. A comma, semicolon or tab in that place works in its files; the first
    // letter of the next key can only be a mistake.
    if (!text.empty()) {
      if (is_word_character(text.front())) return fmt::format("{}: expected a space after the closing quote", key);
      text.remove_prefix(1);
    }
  } else {
    const auto end = std::min(text.find(' '), text.size());
    value = std::string(text.substr(0, end));
    text.remove_prefix(end);
  }
  if (value.empty()) return fmt::format("{}: expected a value; leave the key out to have the default", key);
  return std::nullopt;
}

// What an entry's keys are read into before the parts that belong together are put together.
struct DatabaseEntry {
  DatabaseConfig config;
  std::optional<std::string> host, port;
};
struct PeerEntry {
  PeerConfig config;
  std::optional<std::string> host, port;
};
struct UserEntry {
  UserConfig config;
};

template <typename Entry>
struct Key {
  std::string_view name;
  Reason (*set)(Entry& entry, std::string_view value);
};

// Setters, each for one member. The names say what inherits from the outer level.

template <auto Member, typename Entry>
Reason set_text(Entry& entry, std::string_view value) {
  entry.config.*Member = std::string(value);
  return std::nullopt;
}

template <auto Member, typename Entry>
Reason set_list_text(Entry& entry, std::string_view value) {
  entry.*Member = std::string(value);
  return std::nullopt;
}

// -1 inherits, 0 is a value of its own.
template <auto Member, typename Entry>
Reason set_size(Entry& entry, std::string_view value) {
  const auto parsed = parse_decimal(value, -1, kMaxInt);
  if (!parsed) return parsed.error();
  entry.config.*Member = *parsed < 0 ? std::nullopt : std::optional<int>(*parsed);
  return std::nullopt;
}

// -1 and 0 inherit.
template <auto Member, typename Entry>
Reason set_limit(Entry& entry, std::string_view value) {
  const auto parsed = parse_decimal(value, -1, kMaxInt);
  if (!parsed) return parsed.error();
  entry.config.*Member = *parsed <= 0 ? std::nullopt : std::optional<int>(*parsed);
  return std::nullopt;
}

// Whole seconds; below `min_value` inherits.
template <auto Member, int min_value, typename Entry>
Reason set_time(Entry& entry, std::string_view value) {
  const auto parsed = parse_decimal(value, -1, kMaxInt);
  if (!parsed) return fmt::format("expected a whole number of seconds, got {}", quoted(value));
  entry.config.*Member = *parsed < min_value ? std::nullopt : std::optional<Duration>(std::chrono::seconds(*parsed));
  return std::nullopt;
}

template <auto Member, typename Enum, typename Entry>
Reason set_word(Entry& entry, std::string_view value) {
  const auto parsed = parse_word<Enum>(value);
  if (!parsed) return parsed.error();
  entry.config.*Member = *parsed;
  return std::nullopt;
}

Reason set_read_write_split(DatabaseEntry& entry, std::string_view value) {
  const auto parsed = parse_bool(value);
  if (!parsed) return parsed.error();
  entry.config.read_write_split = *parsed;
  return std::nullopt;
}

Reason set_auth_dbname(DatabaseEntry& entry, std::string_view value) {
  entry.config.auth_dbname = std::string(value);
  return std::nullopt;
}

using D = DatabaseConfig;
using U = UserConfig;
using P = PeerConfig;
using De = DatabaseEntry;

constexpr std::array kDatabaseKeys{
    Key<De>{"dbname", set_text<&D::dbname, De>},
    Key<De>{"host", set_list_text<&De::host, De>},
    Key<De>{"port", set_list_text<&De::port, De>},
    Key<De>{"user", set_text<&D::user, De>},
    Key<De>{"password", set_text<&D::password, De>},
    Key<De>{"auth_user", set_text<&D::auth_user, De>},
    Key<De>{"auth_query", set_text<&D::auth_query, De>},
    Key<De>{"auth_dbname", set_auth_dbname},
    Key<De>{"pool_size", set_size<&D::pool_size, De>},
    Key<De>{"min_pool_size", set_size<&D::min_pool_size, De>},
    Key<De>{"reserve_pool_size", set_size<&D::reserve_pool_size, De>},
    Key<De>{"reserve_pool", set_size<&D::reserve_pool_size, De>},
    Key<De>{"max_db_connections", set_limit<&D::max_db_connections, De>},
    Key<De>{"max_db_client_connections", set_limit<&D::max_db_client_connections, De>},
    Key<De>{"query_wait_timeout", set_time<&D::query_wait_timeout, 0, De>},
    Key<De>{"server_lifetime", set_time<&D::server_lifetime, 1, De>},
    Key<De>{"pool_mode", set_word<&D::pool_mode, PoolMode, De>},
    Key<De>{"load_balance_hosts", set_word<&D::load_balance_hosts, LoadBalanceHosts, De>},
    Key<De>{"connect_query", set_text<&D::connect_query, De>},
    Key<De>{"client_encoding", set_text<&D::client_encoding, De>},
    Key<De>{"datestyle", set_text<&D::datestyle, De>},
    Key<De>{"timezone", set_text<&D::timezone, De>},
    Key<De>{"application_name", set_text<&D::application_name, De>},
    Key<De>{"target_session_attrs", set_word<&D::target_session_attrs, TargetSessionAttrs, De>},
    Key<De>{"read_write_split", set_read_write_split},
    Key<De>{"host_source", set_word<&D::host_source, HostSource, De>},
    Key<De>{"sslmode", set_word<&D::sslmode, SslMode, De>},
    Key<De>{"sslrootcert", set_text<&D::sslrootcert, De>},
    Key<De>{"sslcert", set_text<&D::sslcert, De>},
    Key<De>{"sslkey", set_text<&D::sslkey, De>},
};

constexpr std::array kUserKeys{
    Key<UserEntry>{"pool_mode", set_word<&U::pool_mode, PoolMode, UserEntry>},
    Key<UserEntry>{"pool_size", set_size<&U::pool_size, UserEntry>},
    Key<UserEntry>{"reserve_pool_size", set_size<&U::reserve_pool_size, UserEntry>},
    Key<UserEntry>{"max_user_connections", set_limit<&U::max_user_connections, UserEntry>},
    Key<UserEntry>{"max_user_client_connections", set_limit<&U::max_user_client_connections, UserEntry>},
    Key<UserEntry>{"transaction_timeout", set_time<&U::transaction_timeout, 1, UserEntry>},
    Key<UserEntry>{"idle_transaction_timeout", set_time<&U::idle_transaction_timeout, 1, UserEntry>},
    Key<UserEntry>{"query_timeout", set_time<&U::query_timeout, 1, UserEntry>},
    Key<UserEntry>{"query_wait_timeout", set_time<&U::query_wait_timeout, 0, UserEntry>},
    Key<UserEntry>{"client_idle_timeout", set_time<&U::client_idle_timeout, 1, UserEntry>},
};

constexpr std::array kPeerKeys{
    Key<PeerEntry>{"host", set_list_text<&PeerEntry::host, PeerEntry>},
    Key<PeerEntry>{"port", set_list_text<&PeerEntry::port, PeerEntry>},
    Key<PeerEntry>{"pool_size", set_size<&P::pool_size, PeerEntry>},
};

template <typename Entry>
std::string unknown_key(std::string_view key, std::span<const Key<Entry>> keys) {
  std::vector<std::string_view> names;
  for (const auto& known : keys) names.push_back(known.name);
  return fmt::format("unknown parameter {}{}", quoted(key), did_you_mean(key, names));
}

template <typename Entry>
void read_entry(Entry& entry, std::string_view connstr, std::span<const Key<Entry>> keys,
                std::vector<std::string>& reasons) {
  for (const auto& [name, value] : parse_connstr(connstr, reasons)) {
    const auto known =
        std::find_if(keys.begin(), keys.end(), [&name = name](const auto& key) { return key.name == name; });
    if (known == keys.end()) {
      reasons.push_back(unknown_key(name, keys));
    } else if (auto reason = known->set(entry, value)) {
      reasons.push_back(fmt::format("{}: {}", name, *reason));
    }
  }
}

std::vector<std::string> split_commas(std::string_view text) {
  std::vector<std::string> items;
  for (;;) {
    const auto end = text.find(',');
    items.emplace_back(text.substr(0, end));
    if (end == std::string_view::npos) return items;
    text.remove_prefix(end + 1);
  }
}

std::vector<int> parse_ports(std::string_view text, std::vector<std::string>& reasons) {
  std::vector<int> ports;
  for (const auto& item : split_commas(text)) {
    const auto port = parse_decimal(item, 1, 65535);
    if (port) {
      ports.push_back(*port);
    } else {
      reasons.push_back(fmt::format("port: {}", port.error()));
    }
  }
  return ports;
}

// One port for all hosts, or one for each.
std::vector<HostPort> join_hosts(const std::optional<std::string>& host, const std::optional<std::string>& port,
                                 int default_port, std::vector<std::string>& reasons) {
  const auto names = split_commas(host.value_or(""));
  std::vector<int> ports{default_port};
  if (port) {
    const auto before = reasons.size();
    ports = parse_ports(*port, reasons);
    if (reasons.size() != before) ports.assign(1, default_port);
  }
  if (ports.size() != 1 && ports.size() != names.size()) {
    reasons.push_back(fmt::format("port: expected one port for all hosts or one for each of the {} hosts, got {} ports",
                                  names.size(), ports.size()));
    ports.resize(1);
  }
  std::vector<HostPort> hosts;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (host && names[i].empty()) {
      reasons.push_back(fmt::format("host: expected names separated by commas, got {}", quoted(*host)));
    }
    hosts.push_back({names[i], ports.size() == 1 ? ports.front() : ports[i]});
  }
  return hosts;
}

}  // namespace

std::vector<std::pair<std::string, std::string>> parse_connstr(std::string_view text,
                                                               std::vector<std::string>& reasons) {
  std::vector<std::pair<std::string, std::string>> pairs;
  for (skip_spaces(text); !text.empty(); skip_spaces(text)) {
    const auto end = std::min(text.find_first_of("= "), text.size());
    const std::string key(text.substr(0, end));
    text.remove_prefix(end);
    skip_spaces(text);
    if (key.empty() || !text.starts_with('=')) {
      // The word may be part of a password with a space in it, so it is not repeated.
      reasons.push_back(
          fmt::format("expected key=value pairs separated by spaces; number {} is none", pairs.size() + 1));
      return pairs;
    }
    text.remove_prefix(1);
    skip_spaces(text);
    std::string value;
    if (auto reason = take_value(text, key, value)) {
      reasons.push_back(std::move(*reason));
      return pairs;
    }
    pairs.emplace_back(key, std::move(value));
  }
  return pairs;
}

DatabaseConfig parse_database(std::string_view name, std::string_view connstr, std::vector<std::string>& reasons) {
  if (name == kConsoleDatabase) reasons.emplace_back("expected another name; \"pgbouncer\" is the console");
  if (name.size() > kMaxDatabaseName) {
    reasons.push_back(fmt::format("expected a database name of at most {} bytes", kMaxDatabaseName));
  }
  DatabaseEntry entry;
  entry.config.name = std::string(name);
  read_entry<DatabaseEntry>(entry, connstr, kDatabaseKeys, reasons);
  entry.config.hosts = join_hosts(entry.host, entry.port, kDefaultServerPort, reasons);
  return std::move(entry.config);
}

UserConfig parse_user(std::string_view name, std::string_view connstr, std::vector<std::string>& reasons) {
  if (name.size() > kMaxUserName) {
    reasons.push_back(fmt::format("expected a user name of at most {} bytes", kMaxUserName));
  }
  UserEntry entry;
  entry.config.name = std::string(name);
  read_entry<UserEntry>(entry, connstr, kUserKeys, reasons);
  return std::move(entry.config);
}

PeerConfig parse_peer(std::string_view id, std::string_view connstr, std::vector<std::string>& reasons) {
  PeerEntry entry;
  const auto number = parse_decimal(id, 1, 65535);
  if (number) {
    entry.config.id = *number;
  } else {
    reasons.push_back(fmt::format("peer id: {}", number.error()));
  }
  read_entry<PeerEntry>(entry, connstr, kPeerKeys, reasons);
  if (!entry.host) reasons.emplace_back("expected host=NAME: a peer needs one");
  entry.config.hosts = join_hosts(entry.host, entry.port, kDefaultPeerPort, reasons);
  return std::move(entry.config);
}

}  // namespace pgweir::core
